//! The keys that seal values at rest, and their file.
//!
//! ```json
//! {"version": 1, "keys": [{"id": "key-1f2e3d4c", "algorithm": "AES-256-GCM", "key": "<32 bytes, base64>"}]}
//! ```
//!
//! The first key seals, all of them open. To rotate: [`KeyRing::rotate`] puts a new key in front; an
//! old one can go once every value it sealed has been written again.

use crate::error::OpenError;
use crate::private_file::{self, Existing};
use aws_lc_rs::aead::{AES_256_GCM, RandomizedNonceKey};
use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const VERSION: u32 = 1;
const ALGORITHM: &str = "AES-256-GCM";
const KEY_BYTES: usize = 32;
/// A key file is a few hundred bytes; what is larger is something else.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// Encryption keys with their ids; never empty. There is no way to print it.
///
/// The bytes of the keys are wiped from memory as soon as the cipher has taken them.
pub struct KeyRing(Vec<Key>);

struct Key {
    id: String,
    cipher: RandomizedNonceKey,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    version: u32,
    keys: Vec<KeyRow>,
}

#[derive(Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
struct KeyRow {
    id: String,
    algorithm: String,
    key: String,
}

impl KeyRing {
    /// Reads the key file at `path`, or creates one with a new key if there is none.
    ///
    /// # Errors
    ///
    /// As [`KeyRing::load`]; [`OpenError::Io`] if the file cannot be written.
    pub fn load_or_create(path: &Path) -> Result<KeyRing, OpenError> {
        match KeyRing::load(path) {
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            loaded => return loaded,
        }
        // Written without replacing, then read: of two processes that start at once both use the key of the first.
        let row = KeyRow::generate()?;
        let file = KeyFile { version: VERSION, keys: vec![row] };
        match file.write(path, Existing::Keep) {
            // Somebody else was faster: theirs is the key.
            Err(OpenError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {}
            written => written?,
        }
        KeyRing::load(path)
    }

    /// Reads the key file at `path`.
    ///
    /// # Errors
    ///
    /// [`OpenError::KeyFile`] if group or others have rights to the file, or if it is not complete and
    /// correct; [`OpenError::Io`] if it cannot be read.
    pub fn load(path: &Path) -> Result<KeyRing, OpenError> {
        KeyFile::read(path)?.ring(path)
    }

    /// Puts a new key in front of those in the file at `path`, and answers its id. Stores that are
    /// open keep sealing with the key they were opened with.
    ///
    /// # Errors
    ///
    /// As [`KeyRing::load`]; [`OpenError::Io`] if the file cannot be written.
    pub fn rotate(path: &Path) -> Result<String, OpenError> {
        let mut file = KeyFile::read(path)?;
        // Checked first: a file with a mistake in it is left as it is.
        file.ring(path)?;
        let row = KeyRow::generate()?;
        let id = row.id.clone();
        file.keys.insert(0, row);
        file.write(path, Existing::Replace)?;
        Ok(id)
    }

    /// The ids of the keys; the first one seals.
    pub fn ids(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|key| key.id.as_str())
    }

    /// The key that seals, and its id.
    pub(crate) fn sealing(&self) -> (&str, &RandomizedNonceKey) {
        // `KeyFile::ring` refuses a file without keys, and nothing else makes a ring outside of tests.
        let first = self.0.first().expect("a key ring is never empty");
        (&first.id, &first.cipher)
    }

    /// The key with this id.
    pub(crate) fn opening(&self, id: &str) -> Option<&RandomizedNonceKey> {
        self.0.iter().find(|key| key.id == id).map(|key| &key.cipher)
    }

    /// A ring for tests: ids, each with a byte that its key is made of.
    #[cfg(test)]
    pub(crate) fn of(keys: &[(&str, u8)]) -> KeyRing {
        let key = |&(id, byte): &(&str, u8)| Key {
            id: id.to_owned(),
            cipher: RandomizedNonceKey::new(&AES_256_GCM, &[byte; KEY_BYTES]).unwrap(),
        };
        KeyRing(keys.iter().map(key).collect())
    }
}

impl KeyFile {
    fn read(path: &Path) -> Result<KeyFile, OpenError> {
        let refuse = |problem: &str, remedy: &str| {
            Err(OpenError::KeyFile { file: path.to_owned(), problem: problem.into(), remedy: remedy.into() })
        };
        let mut file = File::open(path).map_err(OpenError::io("open", path))?;
        // Of the open file, not of the path: nobody can swap it in between.
        let metadata = file.metadata().map_err(OpenError::io("inspect", path))?;
        if !metadata.is_file() {
            return refuse("it is not a regular file", "give the path of a key file");
        }
        if private_file::open_to_others(&metadata) {
            return refuse(
                "others than its owner have rights to it",
                "make it private (chmod 600), and rotate the key if they may have read it",
            );
        }
        if metadata.len() > MAX_FILE_BYTES {
            return refuse("it is too large for a key file", RESTORE);
        }
        // One byte more than the file has, so that reading to the end needs no larger buffer and copies no key.
        let mut content = Zeroizing::new(Vec::with_capacity(metadata.len() as usize + 1));
        let mut limited = (&mut file).take(MAX_FILE_BYTES);
        limited.read_to_end(&mut content).map_err(OpenError::io("read", path))?;
        if content.is_empty() {
            return refuse("it is empty", RESTORE);
        }
        // The parser's own words would quote what it found, which may be a key.
        serde_json::from_slice(&content).or_else(|error| {
            let problem = format!("it is not a key file (line {}, column {})", error.line(), error.column());
            refuse(&problem, RESTORE)
        })
    }

    fn ring(&self, path: &Path) -> Result<KeyRing, OpenError> {
        let refuse = |problem: String| OpenError::KeyFile {
            file: path.to_owned(),
            problem,
            remedy: RESTORE.to_owned(),
        };
        if self.version != VERSION {
            return Err(refuse(format!("version {} is not known, only {VERSION}", self.version)));
        }
        let mut ring = KeyRing(Vec::with_capacity(self.keys.len()));
        for (i, row) in self.keys.iter().enumerate() {
            let key = row.key().map_err(|problem| refuse(format!("keys[{i}]: {problem}")))?;
            if ring.opening(&key.id).is_some() {
                return Err(refuse(format!("keys[{i}]: the id is not unique")));
            }
            ring.0.push(key);
        }
        if ring.0.is_empty() {
            return Err(refuse("it has no keys".into()));
        }
        Ok(ring)
    }

    fn write(&self, path: &Path, existing: Existing) -> Result<(), OpenError> {
        let unprintable = |error: serde_json::Error| OpenError::Io {
            file: path.to_owned(),
            action: "write",
            source: error.into(),
        };
        // Room for all of it, so that no copy of a key stays behind where the text outgrew its place.
        let mut content = Zeroizing::new(Vec::with_capacity(256 * (self.keys.len() + 1)));
        serde_json::to_writer_pretty(&mut *content, self).map_err(unprintable)?;
        content.push(b'\n');
        private_file::write(path, &content, &random_hex()?, existing)
    }
}

const RESTORE: &str = "restore it from a backup: without its keys the sealed values cannot be read";

impl KeyRow {
    fn generate() -> Result<KeyRow, OpenError> {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        fill(&mut *key)?;
        Ok(KeyRow {
            id: format!("key-{}", random_hex()?),
            algorithm: ALGORITHM.into(),
            key: STANDARD.encode(key.as_slice()),
        })
    }

    fn key(&self) -> Result<Key, &'static str> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if self.id.is_empty() || self.id.len() > 64 || !self.id.bytes().all(allowed) {
            return Err("the id must be 1 to 64 letters, digits, '-', '_' or '.'");
        }
        if self.algorithm != ALGORITHM {
            return Err("the algorithm must be AES-256-GCM");
        }
        let bytes = STANDARD.decode(&self.key).map(Zeroizing::new);
        let bytes =
            bytes.ok().filter(|b| b.len() == KEY_BYTES).ok_or("the key must be 32 bytes in base64")?;
        let cipher = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| "the key is not usable")?;
        Ok(Key { id: self.id.clone(), cipher })
    }
}

/// Eight random hexadecimal digits.
fn random_hex() -> Result<String, OpenError> {
    let mut bytes = [0; 4];
    fill(&mut bytes)?;
    Ok(format!("{:08x}", u32::from_be_bytes(bytes)))
}

fn fill(bytes: &mut [u8]) -> Result<(), OpenError> {
    rand::fill(bytes).map_err(|_| OpenError::Io {
        file: "the system's random source".into(),
        action: "read",
        source: io::Error::other("no randomness"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    fn problem(path: &Path) -> String {
        match KeyRing::load(path) {
            Err(OpenError::KeyFile { file, problem, .. }) if file == path => problem,
            Err(other) => panic!("another error: {other}"),
            Ok(_) => panic!("it was accepted"),
        }
    }

    #[test]
    fn a_created_file_is_private_and_stays_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.key");
        let created: Vec<String> =
            KeyRing::load_or_create(&path).ok().unwrap().ids().map(Into::into).collect();
        assert_eq!(created.len(), 1);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let content = fs::read(&path).unwrap();
        assert!(KeyRing::load_or_create(&path).ok().unwrap().ids().eq(created.iter()));
        assert_eq!(fs::read(&path).unwrap(), content);

        let rotated = KeyRing::rotate(&path).unwrap();
        assert!(KeyRing::load(&path).ok().unwrap().ids().eq([&rotated, &created[0]]));
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");
    }

    #[test]
    fn what_is_readable_by_others_or_half_written_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.key");
        KeyRing::load_or_create(&path).ok().unwrap();
        for mode in [0o640, 0o604, 0o660, 0o601] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(problem(&path).contains("others"), "mode {mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o400)).unwrap();
        KeyRing::load(&path).ok().unwrap();

        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() - 2 {
            fs::write(&path, &whole[..cut]).unwrap();
            problem(&path);
            assert!(KeyRing::load_or_create(&path).is_err(), "a damaged file is never replaced");
            assert!(KeyRing::rotate(&path).is_err());
            assert_eq!(fs::read(&path).unwrap(), &whole[..cut]);
        }
    }

    #[test]
    fn mistakes_are_named_and_keys_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("encryption.key");
        let key = STANDARD.encode([7; KEY_BYTES]);
        let row = |id: &str, key: &str| format!(r#"{{"id":"{id}","algorithm":"AES-256-GCM","key":"{key}"}}"#);
        let good = row("a", &key);
        let cases = [
            (r#"{"version":2,"keys":[]}"#.to_owned(), "version 2"),
            (r#"{"version":1,"keys":[]}"#.to_owned(), "no keys"),
            (format!(r#"{{"version":1,"keys":[{good},{good}]}}"#), "keys[1]: the id is not unique"),
            (format!(r#"{{"version":1,"keys":[{}]}}"#, row("a b", &key)), "the id must"),
            (format!(r#"{{"version":1,"keys":[{good},{}]}}"#, row("b", &key[4..])), "keys[1]: the key must"),
            (format!(r#"{{"version":1,"keys":[{good}],"x":1}}"#), "line 1"),
            (format!(r#"{{"version":"{key}","keys":[]}}"#), "line 1"),
        ];
        for (content, expected) in cases {
            private_file::write(&path, content.as_bytes(), "t", Existing::Replace).unwrap();
            let problem = problem(&path);
            assert!(problem.contains(expected), "{problem}");
            assert!(!problem.contains(&key[..8]), "{problem}");
        }
    }
}
