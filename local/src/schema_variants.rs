//! The database as others have it: the shared tables, made before our migrations, in the variants that were found.

/// The shared tables as most projects have them; every other variant changes these.
pub const BASE: &str = include_str!("schema_variants/base.sql");

/// One variant.
#[derive(Clone, Debug)]
pub struct SchemaVariant {
    /// The comment above it.
    pub name: &'static str,
    /// The SQL that makes its tables in an empty schema.
    pub sql: String,
}

/// Returns the variants in which everything works.
pub fn working() -> Vec<SchemaVariant> {
    read(include_str!("schema_variants/working.sql"))
}

/// Returns the variants that cannot work, and that the migrations must not touch. Each is named after what the refusal must name: the
/// table, and the column at fault if there is one.
pub fn refused() -> Vec<SchemaVariant> {
    read(include_str!("schema_variants/refused.sql"))
}

fn read(variants: &'static str) -> Vec<SchemaVariant> {
    let variants = variants.split("-- ").filter_map(|variant| variant.split_once('\n'));
    variants.map(|(name, changes)| SchemaVariant { name, sql: format!("{BASE}{changes}") }).collect()
}
