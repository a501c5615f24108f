//! The database as others have it: the shared tables, made before our migrations, in the shapes that were found.

/// The shared tables as most projects have them; every other shape changes these.
pub const BASE: &str = include_str!("shapes/base.sql");

/// One shape.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The comment above it.
    pub name: &'static str,
    /// The SQL that makes its tables in an empty schema.
    pub sql: String,
}

/// Returns the shapes in which everything works.
pub fn working() -> Vec<Shape> {
    read(include_str!("shapes/working.sql"))
}

/// Returns the shapes that cannot work, and that our migrations must not touch. Each is named after the words that the refusal must
/// have: the table and, except for a fault of the whole table, the column at fault.
pub fn refused() -> Vec<Shape> {
    read(include_str!("shapes/refused.sql"))
}

fn read(shapes: &'static str) -> Vec<Shape> {
    let shapes = shapes.split("-- ").filter_map(|shape| shape.split_once('\n'));
    shapes.map(|(name, changes)| Shape { name, sql: format!("{BASE}{changes}") }).collect()
}
