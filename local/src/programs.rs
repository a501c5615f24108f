//! Finding programs on the machine.

use std::env;
use std::path::{Path, PathBuf};

/// The first directory on the `PATH` that holds `program`, with that name.
pub fn on_path(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH")?;
    env::split_paths(&path).map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The file that an environment variable names, if it is set.
///
/// # Errors
/// When it names something that is not there.
pub fn named_by(variable: &str) -> crate::Result<Option<PathBuf>> {
    let Some(value) = env::var_os(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let path = PathBuf::from(value);
    if path.exists() {
        return Ok(Some(path));
    }
    Err(format!("{variable} names {}, which is not there", path.display()).into())
}

/// The root of the workspace that this crate is a part of.
pub fn workspace() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_owned()
}
