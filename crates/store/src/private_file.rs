//! Files that nobody but their owner may read, and that are there whole or not at all.
//!
//! Elsewhere than on Unix there are no modes to set or to check; who may read the files is then
//! decided by the directory they are in.

use crate::error::OpenError;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// Creates a new file, mode 0600, open for reading and writing; fails if it exists.
pub(crate) fn create_new(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create_new(true);
    private(&mut options);
    options.open(path)
}

/// Opens or creates a file whose content does not matter, mode 0600.
pub(crate) fn open_or_create(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    private(&mut options);
    options.open(path)
}

/// Creates the directory, mode 0700, and its parents, if it does not exist.
pub(crate) fn create_directory(path: &Path) -> Result<(), OpenError> {
    if path.is_dir() {
        return Ok(());
    }
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(OpenError::io("create", path))?;
    sync_directory(parent(path))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(path: &Path) -> Result<(), OpenError> {
    // Windows cannot open a directory as a file; NTFS journals its names.
    if cfg!(unix) {
        File::open(path).and_then(|dir| dir.sync_all()).map_err(OpenError::io("sync", path))?;
    }
    Ok(())
}

/// The directory of a file.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

/// Whether group or others have any right to the file or directory.
pub(crate) fn open_to_others(metadata: &fs::Metadata) -> bool {
    #[cfg(unix)]
    return std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o077 != 0;
    #[cfg(not(unix))]
    return {
        _ = metadata;
        false
    };
}

fn private(options: &mut OpenOptions) {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    #[cfg(not(unix))]
    let _ = options;
}

/// What [`write`] does with a file that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Existing {
    /// Put the new content in its place.
    Replace,
    /// Leave it and fail with [`io::ErrorKind::AlreadyExists`].
    Keep,
}

/// Writes a file, mode 0600, durably: it has the old content or the new one, never a part.
/// `unique` tells this writer's temporary file from those of others.
pub(crate) fn write(path: &Path, content: &[u8], unique: &str, existing: Existing) -> Result<(), OpenError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = Temporary(path.with_file_name(format!(".{name}.{unique}")));
    let failed = OpenError::io;
    let mut file = create_new(&temporary.0).map_err(failed("create", &temporary.0))?;
    file.write_all(content).map_err(failed("write", &temporary.0))?;
    // Before it gets its name: a power loss must not leave the name without the content.
    file.sync_all().map_err(failed("sync", &temporary.0))?;
    match existing {
        Existing::Replace => fs::rename(&temporary.0, path).map_err(failed("replace", path))?,
        // A link, unlike a rename, never takes the place of a file.
        Existing::Keep => fs::hard_link(&temporary.0, path).map_err(failed("create", path))?,
    }
    // After a link the temporary name is removed here, before the names are made durable; after a rename it is gone.
    drop(temporary);
    sync_directory(parent(path))
}

/// A file that is removed on the way out, unless it was renamed.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(file = %self.0.display(), %error, "cannot remove a temporary file");
            }
            _ => {}
        }
    }
}
