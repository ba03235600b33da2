//! Files of a data directory: private to their owner, and there whole or not at all.

use fleetpass_store::Cause;
use std::fmt;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The largest file that is read: certificates, keys and kubeconfigs are far smaller.
const MAX_BYTES: u64 = 1 << 20;

/// A file that cannot be used: which, why, and what to do about it. Nothing was changed. Never quotes the file.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// The file or directory.
    pub(crate) file: PathBuf,
    /// What is wrong, as the rest of a sentence that begins with the file's name.
    pub(crate) problem: String,
    /// What an operator can do; empty where the problem says it all.
    pub(crate) remedy: String,
}

impl Fault {
    /// A fault of `file`.
    pub(crate) fn new(file: &Path, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: file.to_owned(), problem: problem.into(), remedy: remedy.into() }
    }

    fn io<'a>(action: &'a str, file: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |error| {
            let remedy = match Cause::from(&error) {
                cause @ (Cause::NoSpace | Cause::ReadOnly) => cause.remedy(),
                _ => "",
            };
            Self::new(file, format!("cannot be {action}: {error}"), remedy)
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.file.display(), self.problem)?;
        if self.remedy.is_empty() { Ok(()) } else { write!(f, "; {}", self.remedy) }
    }
}

impl std::error::Error for Fault {}

/// Who may have rights to a file that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The owner alone: it holds a key that this program made.
    OwnerOnly,
    /// A file of the operator's. Anybody, unless there is a private key in it, whatever the flag that names it: see
    /// [`private_enough`].
    Given,
}

/// The content of a file, wiped from memory when dropped; `None` if there is no such file.
///
/// # Errors
///
/// It is not a regular file, it cannot be read, it is larger than a mebibyte, or others have rights to it although
/// `access` says that they must not.
pub(crate) fn read(path: &Path, access: Access) -> Result<Option<Zeroizing<Vec<u8>>>, Fault> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened.map_err(Fault::io("opened", path))?,
    };
    // Of the open file, not of the path: nobody can swap it in between.
    let metadata = file.metadata().map_err(Fault::io("inspected", path))?;
    if !metadata.is_file() {
        return Err(Fault::new(path, "is not a regular file", "give the path of a file"));
    }
    if access == Access::OwnerOnly && open_to_others(&metadata) {
        return Err(open_key(path, &metadata));
    }
    if metadata.len() > MAX_BYTES {
        return Err(Fault::new(path, "is larger than 1 MiB", "give the path of a PEM or YAML file"));
    }
    let mut content = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
    file.take(MAX_BYTES).read_to_end(&mut content).map_err(Fault::io("read", path))?;
    if access == Access::Given && holds_private_key(&content) && !private_enough(path, &metadata) {
        return Err(open_key(path, &metadata));
    }
    Ok(Some(content))
}

/// Refuses a file that is known to hold a private key, if others may use it. For files that somebody else reads for us.
///
/// # Errors
///
/// They may, or it cannot be looked at.
pub(crate) fn require_private(path: &Path) -> Result<(), Fault> {
    let metadata = fs::metadata(path).map_err(Fault::io("inspected", path))?;
    if private_enough(path, &metadata) { Ok(()) } else { Err(open_key(path, &metadata)) }
}

/// Whether there is a private key in a PEM text, of whatever form (PKCS #8, PKCS #1, SEC1, encrypted).
fn holds_private_key(content: &[u8]) -> bool {
    const LABEL: &[u8] = b"PRIVATE KEY-----";
    content.windows(LABEL.len()).any(|window| window == LABEL)
}

/// As [`read`], for a file that has to be there.
///
/// # Errors
///
/// As [`read`], and if there is no such file.
pub(crate) fn read_required(path: &Path, access: Access) -> Result<Zeroizing<Vec<u8>>, Fault> {
    read(path, access)?.ok_or_else(|| Fault::new(path, "does not exist", ""))
}

/// Replaces the file or creates it, mode 0600. It is durable when this returns; whatever happens before, the file
/// has its old content or the new one.
///
/// # Errors
///
/// The operating system refuses; the old content stays.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Fault> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // In the same directory, since only within a file system a rename replaces a file at once.
    let temporary = path.with_file_name(format!(".{name}.{:08x}.tmp", random_u32(path)?));
    let written = write_new(&temporary, content)
        .and_then(|()| fs::rename(&temporary, path))
        // Without that a power loss may undo the rename.
        .and_then(|()| sync_directory(path.parent().unwrap_or(Path::new("."))));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        Fault::io("written", path)(error)
    })
}

/// Replaces a file of somebody's with one of the same owner, mode 0600, as [`write`] does it. A link stays one: what it leads to
/// is replaced.
///
/// # Errors
///
/// There is no such file, or the operating system refuses; the old content stays.
pub(crate) fn replace(path: &Path, content: &[u8]) -> Result<(), Fault> {
    let path = fs::canonicalize(path).map_err(Fault::io("replaced", path))?;
    let before = fs::metadata(&path).map_err(Fault::io("inspected", &path))?;
    write(&path, content)?;
    // Root may write for others; everybody else is the owner of what it writes. After the rename: until then nobody but root
    // can read it, which is no more than a moment in which the file is not there for its owner.
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt as _;
        let now = fs::metadata(&path).map_err(Fault::io("inspected", &path))?;
        if (now.uid(), now.gid()) != (before.uid(), before.gid()) && rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(before.uid()), Some(before.gid()))
                .map_err(Fault::io("given to its owner", &path))?;
        }
    }
    #[cfg(not(unix))]
    let _ = before;
    Ok(())
}

/// Asks whether [`replace`] could work: a file is made beside this one and removed.
///
/// # Errors
///
/// Why it could not.
pub(crate) fn require_replaceable(path: &Path) -> Result<(), Fault> {
    let path = fs::canonicalize(path).map_err(Fault::io("replaced", path))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let trial = path.with_file_name(format!(".{name}.{:08x}.tmp", random_u32(&path)?));
    let tried = write_new(&trial, b"");
    let _ = fs::remove_file(&trial);
    tried.map_err(Fault::io("replaced", &path))
}

/// Removes a file, if it is there.
///
/// # Errors
///
/// The operating system refuses.
pub(crate) fn remove(path: &Path) -> Result<(), Fault> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Fault::io("removed", path)(error)),
        _ => sync_directory(path.parent().unwrap_or(Path::new("."))).map_err(Fault::io("removed", path)),
    }
}

/// Creates the directory and its parents, mode 0700, where they do not exist.
///
/// # Errors
///
/// The operating system refuses, or something else has that name.
pub(crate) fn create_directory(path: &Path) -> Result<(), Fault> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(path).map_err(Fault::io("created", path))
}

fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(content)?;
    file.sync_all()
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    // Elsewhere than on Unix a directory cannot be opened as a file, and a rename is durable by itself.
    if cfg!(unix) { File::open(path)?.sync_all() } else { Ok(()) }
}

fn random_u32(path: &Path) -> Result<u32, Fault> {
    getrandom::u32()
        .map_err(|error| Fault::new(path, format!("cannot be written: no randomness: {error}"), ""))
}

#[cfg(unix)]
fn open_key(path: &Path, metadata: &fs::Metadata) -> Fault {
    use std::os::unix::fs::MetadataExt as _;
    let mode = metadata.mode() & 0o7777;
    Fault::new(
        path,
        format!("holds a private key, and others than its owner have rights to it (mode {mode:04o})"),
        "make it private (chmod 600), and replace the key if they may have read it",
    )
}

#[cfg(unix)]
fn open_to_others(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    metadata.mode() & 0o077 != 0
}

/// Whether a private key of the operator's is private: [`rights_are_private`], or it is on a volume that the kubelet made of a
/// Secret. There the mode is 0644 unless the pod says otherwise, and who sees the file is decided by who mounts the volume.
#[cfg(unix)]
fn private_enough(path: &Path, metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let ours = rustix::process::geteuid().as_raw();
    rights_are_private(metadata.mode(), metadata.uid() == ours) || is_on_projected_volume(path)
}

/// The rule of PostgreSQL for its key: what we own is for its owner alone. What somebody else owns (root, mostly) we can only
/// read as members of its group, so the group may read; nobody else may do anything.
#[cfg(unix)]
fn rights_are_private(mode: u32, ours: bool) -> bool {
    mode & if ours { 0o077 } else { 0o037 } == 0
}

/// Whether the kubelet wrote the file (`pkg/volume/util/atomic_writer.go`): its name is a link into `..data`, which is a link to
/// the directory of the present version, beside it.
#[cfg(unix)]
pub(crate) fn is_on_projected_volume(path: &Path) -> bool {
    let Ok(file) = fs::canonicalize(path) else { return false };
    let (Some(version), Some(volume)) = (file.parent(), path.parent()) else { return false };
    let linked = fs::read_link(path).is_ok_and(|link| link.starts_with("..data"));
    linked
        && fs::read_link(volume.join("..data")).is_ok()
        && fs::canonicalize(volume.join("..data")).is_ok_and(|data| data == version)
        && version.file_name().is_some_and(|name| name.to_string_lossy().starts_with(".."))
}

#[cfg(not(unix))]
fn open_key(path: &Path, _: &fs::Metadata) -> Fault {
    Fault::new(path, "holds a private key, and others than its owner have rights to it", "make it private")
}

#[cfg(not(unix))]
fn open_to_others(_: &fs::Metadata) -> bool {
    false
}

#[cfg(not(unix))]
pub(crate) fn is_on_projected_volume(_: &Path) -> bool {
    false
}

#[cfg(not(unix))]
fn private_enough(_: &Path, _: &fs::Metadata) -> bool {
    true
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn written_files_are_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        create_directory(&inner).unwrap();
        create_directory(&inner).unwrap();
        let path = inner.join("key");
        for content in ["first", "second, longer", ""] {
            write(&path, content.as_bytes()).unwrap();
            assert_eq!(**read_required(&path, Access::OwnerOnly).unwrap(), *content.as_bytes());
        }
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&inner)), (0o600, 0o700));
        assert_eq!(fs::read_dir(&inner).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn what_cannot_be_trusted_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        assert_eq!(read(&path, Access::OwnerOnly), Ok(None));
        assert!(read_required(&path, Access::Given).unwrap_err().to_string().ends_with("key does not exist"));
        assert!(read(dir.path(), Access::Given).unwrap_err().problem.contains("regular file"));
        write(&path, b"secret").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        let fault = read(&path, Access::OwnerOnly).unwrap_err();
        assert!(fault.to_string().contains("chmod 600") && !fault.to_string().contains("secret"), "{fault}");
        assert!(read(&path, Access::Given).unwrap().is_some());
        fs::write(&path, vec![b'x'; MAX_BYTES as usize + 1]).unwrap();
        assert!(read(&path, Access::Given).is_err());
        let fault = write(&dir.path().join("missing/key"), b"").unwrap_err();
        assert!(fault.problem.starts_with("cannot be written"), "{fault}");
    }

    #[test]
    fn keys_are_for_their_owner_or_for_the_group_of_another_owner() {
        for (mode, ours, private) in [
            (0o600, true, true),
            (0o400, true, true),
            (0o640, true, false),
            (0o610, true, false),
            (0o604, true, false),
            (0o640, false, true),
            (0o440, false, true),
            (0o660, false, false),
            (0o650, false, false),
            (0o644, false, false),
            (0o641, false, false),
        ] {
            assert_eq!(rights_are_private(0o100_000 | mode, ours), private, "{mode:o} {ours}");
        }
    }

    #[test]
    fn a_private_key_is_one_wherever_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file.pem");
        let open = |content: &str| {
            fs::write(&path, content).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        };
        for public in
            ["-----BEGIN CERTIFICATE-----\nMA==\n", "-----BEGIN PUBLIC KEY-----\n", "token,user,uid\n", ""]
        {
            open(public);
            assert!(read(&path, Access::Given).is_ok(), "{public}");
        }
        for kind in ["", "RSA ", "EC ", "ENCRYPTED "] {
            open(&format!("-----BEGIN CERTIFICATE-----\nMA==\n-----BEGIN {kind}PRIVATE KEY-----\nsecret\n"));
            let fault = read(&path, Access::Given).unwrap_err().to_string();
            assert!(
                fault.contains("file.pem") && fault.contains("0644") && fault.contains("chmod 600"),
                "{fault}"
            );
            assert!(!fault.contains("secret"), "{fault}");
            assert_eq!(require_private(&path).unwrap_err().to_string(), fault);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(read(&path, Access::Given).is_ok() && require_private(&path).is_ok());
        }
    }

    #[test]
    fn a_secret_in_a_pod_may_have_the_mode_that_the_kubelet_gives_it() {
        use std::os::unix::fs::symlink;
        let dir = tempfile::tempdir().unwrap();
        let version = dir.path().join("..2026_01_02_03_04_05.678");
        fs::create_dir(&version).unwrap();
        let key = version.join("tls.key");
        fs::write(&key, "-----BEGIN PRIVATE KEY-----\n").unwrap();
        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        symlink("..2026_01_02_03_04_05.678", dir.path().join("..data")).unwrap();
        symlink("..data/tls.key", dir.path().join("tls.key")).unwrap();
        assert!(read(&dir.path().join("tls.key"), Access::Given).is_ok());
        // A link alone does not make it private, nor does the file that it leads to.
        symlink(&key, dir.path().join("other.key")).unwrap();
        assert!(read(&dir.path().join("other.key"), Access::Given).is_err());
        assert!(read(&key, Access::Given).is_err());
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind_and_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        // Its content is written, and it cannot take the place of a directory that is not empty.
        let taken = dir.path().join("key");
        create_directory(&taken.join("inner")).unwrap();
        write(&taken, b"secret").unwrap_err();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
        for (kind, remedy) in [
            (io::ErrorKind::StorageFull, "; make room on its file system"),
            (io::ErrorKind::ReadOnlyFilesystem, "; mount its file system for writing"),
            (io::ErrorKind::PermissionDenied, "permission denied"),
        ] {
            let fault = Fault::io("written", &taken)(kind.into()).to_string();
            assert!(fault.starts_with(&taken.display().to_string()) && fault.ends_with(remedy), "{fault}");
        }
    }
}
