//! The file of the audit log: private, and rotated by size as kube-apiserver rotates it
//! (`gopkg.in/natefinch/lumberjack.v2`).
//!
//! A full `audit.log` is renamed to `audit-2026-01-02T03-04-05.678.log` beside it, by UTC, and a new one is begun. Only files
//! with such names are ever removed. Where rotation fails the old file is written on: a log that is too large is better
//! than lines that are lost.

use super::log::{Sink, Written};
use fleetpass_api::clock::SharedClock;
use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

const STAMP: &str = "%Y-%m-%dT%H-%M-%S%.3f";

/// When a file is full, and which old ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Bytes after which a file is full; 0: never.
    pub max_bytes: u64,
    /// How many old files are kept; 0: all.
    pub max_backups: usize,
    /// For how many days old files are kept; 0: for ever.
    pub max_age_days: u32,
}

/// A file that cannot be the audit log.
#[derive(Debug, thiserror::Error)]
#[error("{} {problem}", file.display())]
pub struct FileError {
    file: PathBuf,
    problem: String,
}

/// The file of the audit log.
pub struct RotatingFile {
    path: PathBuf,
    rotation: Rotation,
    clock: SharedClock,
    file: File,
    size: u64,
}

impl RotatingFile {
    /// Opens the file, or creates it with its directories. It is private to its owner when this returns: an existing one
    /// that others have rights to is made private.
    ///
    /// # Errors
    /// It is no regular file, it cannot be opened, or it cannot be made private.
    pub fn open(path: &Path, rotation: Rotation, clock: SharedClock) -> Result<Self, FileError> {
        let fault = |problem: String| FileError { file: path.to_owned(), problem };
        let irregular = || fault("is not a regular file; for standard output give -".into());
        // Opening a named pipe would block until somebody reads from it, so look first.
        if fs::metadata(path).is_ok_and(|found| !found.is_file()) {
            return Err(irregular());
        }
        if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
            create_directory(directory)
                .map_err(|error| fault(format!("has no directory, and none can be made: {error}")))?;
        }
        let file = open(path, false).map_err(|error| fault(format!("cannot be opened: {error}")))?;
        let found = file.metadata().map_err(|error| fault(format!("cannot be inspected: {error}")))?;
        if !found.is_file() {
            return Err(irregular());
        }
        if make_private(&file, &found).map_err(|error| {
            fault(format!(
                "can be read by others than its owner and cannot be made private: {error}; chmod 600"
            ))
        })? {
            tracing::warn!(file = %path.display(), "the audit log could be read by others; it is private now");
        }
        let size = found.len();
        let log = Self { path: path.to_owned(), rotation, clock, file, size };
        if let Err(error) = log.clean_up() {
            tracing::warn!(%error, "old audit logs cannot be removed");
        }
        Ok(log)
    }

    /// How many of the lines go into this file, at least one if it is empty.
    fn room(&self, lines: &[Vec<u8>]) -> usize {
        if self.rotation.max_bytes == 0 {
            return lines.len();
        }
        let mut size = self.size;
        let fitting = lines.iter().take_while(|line| {
            let first = size == 0;
            size += line.len() as u64;
            first || size <= self.rotation.max_bytes
        });
        fitting.count()
    }

    fn append(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        let bytes = lines.concat();
        let written = self.file.write_all(&bytes);
        match &written {
            Ok(()) => self.size += bytes.len() as u64,
            // Cut off what was written of a line that did not fit: a half line would spoil the one after it. If somebody else
            // has truncated the file, `set_len` must not make it longer.
            Err(_) => {
                let length = self.file.metadata()?.len();
                self.file.set_len(self.size.min(length))?;
            }
        }
        written
    }

    fn rotate(&mut self) -> io::Result<()> {
        // Renaming keeps the open file valid: if the new one cannot be opened, the name is given back and `self.file` goes on.
        let backup = self.free_name()?;
        fs::rename(&self.path, &backup)?;
        match open(&self.path, true) {
            Ok(file) => (self.file, self.size) = (file, 0),
            Err(error) => {
                fs::rename(&backup, &self.path)?;
                return Err(error);
            }
        }
        self.clean_up()
    }

    /// A name for the full file that no other file has: two can become full within a millisecond.
    fn free_name(&self) -> io::Result<PathBuf> {
        let mut at = self.clock.now();
        loop {
            let (stem, extension) = name_parts(&self.path);
            let path = self.path.with_file_name(format!("{stem}-{}{extension}", stamp(at)));
            if !path.try_exists()? {
                return Ok(path);
            }
            // The next free millisecond: names stay unique and in order.
            at = at.saturating_add(SignedDuration::from_millis(1)).map_err(io::Error::other)?;
        }
    }

    /// Removes old files beyond the limits. All are tried; the first error is given.
    fn clean_up(&self) -> io::Result<()> {
        let Rotation { max_backups, max_age_days, .. } = self.rotation;
        let mut backups = self.backups()?;
        // Newest first, so that the index says how many are newer.
        backups.sort_by(|(a, _), (b, _)| b.cmp(a));
        let kept_since = (max_age_days > 0).then(|| {
            let age = SignedDuration::from_hours(24 * i64::from(max_age_days));
            self.clock.now().saturating_sub(age).unwrap_or(Timestamp::MIN)
        });
        let mut result = Ok(());
        for (i, (at, path)) in backups.iter().enumerate() {
            let too_many = max_backups > 0 && i >= max_backups;
            if (too_many || kept_since.is_some_and(|since| *at < since))
                && let Err(error) = fs::remove_file(path)
            {
                result = result.and(Err(error));
            }
        }
        result
    }

    fn backups(&self) -> io::Result<Vec<(Timestamp, PathBuf)>> {
        let (stem, extension) = name_parts(&self.path);
        let directory = self.path.parent().filter(|path| !path.as_os_str().is_empty());
        let mut out = Vec::new();
        for entry in fs::read_dir(directory.unwrap_or(Path::new(".")))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let stamp =
                name.strip_prefix(&stem).and_then(|rest| rest.strip_prefix('-')?.strip_suffix(&extension));
            // Parsed strictly: any other file in the directory is not ours to remove.
            if let Some(at) = stamp.and_then(parse_stamp) {
                out.push((at, path));
            }
        }
        Ok(out)
    }
}

impl Sink for RotatingFile {
    fn write(&mut self, lines: &[Vec<u8>]) -> Written {
        let (mut rest, mut fault) = (lines, None);
        while !rest.is_empty() {
            let mut count = self.room(rest);
            if count == 0 {
                match self.rotate() {
                    Ok(()) => continue,
                    // If the new file is there, only the clean-up failed.
                    Err(error) if self.size == 0 => {
                        fault = Some(error);
                        continue;
                    }
                    Err(error) => {
                        fault = Some(error);
                        count = rest.len();
                    }
                }
            }
            if let Err(error) = self.append(&rest[..count]) {
                return Written { lost: rest.len(), fault: Some(error) };
            }
            rest = &rest[count..];
        }
        Written { lost: 0, fault }
    }
}

fn stamp(at: Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime(STAMP).to_string()
}

/// The time that a stamp stands for; nothing else than what [`stamp`] writes.
fn parse_stamp(text: &str) -> Option<Timestamp> {
    let at = civil::DateTime::strptime(STAMP, text).ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp();
    (stamp(at) == text).then_some(at)
}

/// The name without its extension, and the extension with its dot.
fn name_parts(path: &Path) -> (String, String) {
    let text = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
    let extension = path.extension().map(|extension| format!(".{}", extension.to_string_lossy()));
    (text(path.file_stem()), extension.unwrap_or_default())
}

fn create_directory(path: &Path) -> io::Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path)
}

fn open(path: &Path, new: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.append(true).create(!new).create_new(new);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Takes the rights of others away; whether there were any.
#[cfg(unix)]
fn make_private(file: &File, found: &fs::Metadata) -> io::Result<bool> {
    use std::os::unix::fs::PermissionsExt as _;
    let open = found.permissions().mode() & 0o077 != 0;
    if open {
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
    }
    Ok(open)
}

#[cfg(not(unix))]
fn make_private(_: &File, _: &fs::Metadata) -> io::Result<bool> {
    Ok(false)
}

#[cfg(all(test, unix))]
#[path = "file_tests.rs"]
mod tests;
