//! How keys and values look in etcd: as kube-apiserver lays them out, so that etcdctl shows what one expects.
//!
//! A key `/registry/secrets/NAMESPACE/NAME` has the prefix of `--etcd-prefix` in the place of `/registry`. A value is
//! JSON as it is, or sealed (see the module `sealing`); the first byte tells.

use super::rpc::KeyValue;
use crate::contract::{Entry, Revision};
use crate::error::{Error, Result};
use crate::sealing::{Codec, PLAIN, SEALED};
use bytes::Bytes;
use std::sync::Arc;

/// What all keys of a store begin with.
const ROOT: &str = "/registry/";

/// The keys and values of one store.
pub(super) struct Layout {
    /// What stands in etcd in the place of [`ROOT`]; ends with a slash.
    root: String,
    codec: Codec,
}

impl Layout {
    /// `prefix` as kube-apiserver's `--etcd-prefix`: with or without slashes around it.
    pub(super) fn new(prefix: &str, codec: Codec) -> Self {
        let prefix = prefix.trim_matches('/');
        let root = if prefix.is_empty() { "/".to_owned() } else { format!("/{prefix}/") };
        Self { root, codec }
    }

    /// What all keys of the store begin with in etcd.
    pub(super) fn root(&self) -> &str {
        &self.root
    }

    /// The key of a note that the engine keeps for itself, outside of the store's keys, which begin with a slash.
    pub(super) fn note(&self, name: &str) -> String {
        format!("fleetpass.io{}{name}", self.root)
    }

    /// A key as it is in etcd.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`]: the key does not begin with `/registry/`, so it has no place.
    pub(super) fn etcd_key(&self, key: &str) -> Result<String> {
        match key.strip_prefix(ROOT) {
            Some(rest) => Ok(format!("{}{rest}", self.root)),
            None => Err(Error::Invalid { reason: format!("the key {key:?} does not begin with {ROOT}") }),
        }
    }

    /// What the keys with a prefix begin with in etcd; nothing, if there can be none.
    pub(super) fn etcd_prefix(&self, prefix: &str) -> Option<String> {
        match prefix.strip_prefix(ROOT) {
            Some(rest) => Some(format!("{}{rest}", self.root)),
            None => ROOT.starts_with(prefix).then(|| self.root.clone()),
        }
    }

    /// A key of etcd as a key of the store; nothing, if it is none.
    pub(super) fn store_key(&self, key: &[u8]) -> Option<Arc<str>> {
        let rest = std::str::from_utf8(key).ok()?.strip_prefix(&self.root)?;
        Some(format!("{ROOT}{rest}").into())
    }

    /// What is stored for a value: JSON stays as it is, and what could be taken for a frame gets one.
    pub(super) fn encode(&self, key: &str, value: &Bytes) -> Result<Vec<u8>> {
        let framed = self.codec.encode(key, value).map_err(|error| damaged(key, &error))?;
        // JSON begins with neither byte, so the objects of the API server are stored bare, and etcdctl shows them.
        let bare = framed.first() == Some(&PLAIN) && !matches!(value.first(), Some(&(PLAIN | SEALED)));
        Ok(if bare { value.to_vec() } else { framed })
    }

    fn decode(&self, key: &str, stored: &[u8]) -> Result<Bytes> {
        match stored.first() {
            Some(&(PLAIN | SEALED)) => self.codec.decode(key, stored).map_err(|error| damaged(key, &error)),
            _ => Ok(Bytes::copy_from_slice(stored)),
        }
    }

    /// An entry from what etcd gave; nothing, if the key is not one of the store's.
    pub(super) fn entry(&self, found: &KeyValue) -> Result<Option<Entry>> {
        let Some(key) = self.store_key(&found.key) else { return Ok(None) };
        Ok(Some(Entry {
            value: self.decode(&key, &found.value)?,
            key,
            create_revision: revision(found.create_revision),
            mod_revision: revision(found.mod_revision),
        }))
    }
}

/// etcd's revisions are positive.
pub(super) fn revision(etcd: i64) -> Revision {
    etcd.unsigned_abs()
}

/// A revision as etcd has it; one beyond its numbers is in the far future.
pub(super) fn etcd_revision(revision: Revision) -> i64 {
    i64::try_from(revision).unwrap_or(i64::MAX)
}

/// The end of the range of all keys with a prefix.
pub(super) fn prefix_end(prefix: &str) -> Vec<u8> {
    let mut end = prefix.as_bytes().to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    // All keys.
    vec![0]
}

fn damaged(key: &str, problem: &impl ToString) -> Error {
    Error::Corrupt {
        file: format!("the value of {key} in etcd").into(),
        problem: problem.to_string(),
        remedy: "give the hub the encryption.key that the hub which wrote it has, or delete the key".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Encryption, KeyRing};

    #[test]
    fn keys_get_the_prefix_and_lose_it() {
        for (prefix, root) in [
            ("/registry", "/registry/"),
            ("registry/", "/registry/"),
            ("/a/b", "/a/b/"),
            ("", "/"),
            ("/", "/"),
        ] {
            let layout = Layout::new(prefix, Codec(None));
            assert_eq!(layout.root(), root);
            let key = "/registry/secrets/ns/name";
            let inward = layout.etcd_key(key).unwrap();
            assert_eq!(inward, format!("{root}secrets/ns/name"));
            assert_eq!(layout.store_key(inward.as_bytes()).as_deref(), Some(key));
            assert!(!layout.note("x").starts_with(root), "{}", layout.note("x"));
        }
        let layout = Layout::new("/p", Codec(None));
        assert!(matches!(layout.etcd_key("/else/x"), Err(Error::Invalid { .. })));
        assert_eq!(layout.store_key(b"/registry/x"), None);
        assert_eq!(layout.store_key(b"/p/\xff"), None);
        for (prefix, inward) in [
            ("", Some("/p/")),
            ("/reg", Some("/p/")),
            ("/registry/", Some("/p/")),
            ("/registry/pods/", Some("/p/pods/")),
            ("/other/", None),
        ] {
            assert_eq!(layout.etcd_prefix(prefix).as_deref(), inward, "{prefix}");
        }
    }

    #[test]
    fn a_prefix_ends_before_the_next_key() {
        assert_eq!(prefix_end("/a/"), b"/a0");
        assert_eq!(prefix_end("/a\u{10ffff}"), b"/a\xf4\x8f\xbf\xc0");
        assert_eq!(prefix_end(""), [0]);
    }

    #[test]
    fn json_is_stored_as_it_is_and_secrets_are_sealed() {
        let keys = KeyRing::of(&[("a", 1)]);
        let encryption = Encryption { keys, prefixes: vec!["/registry/secrets/".into()] };
        let layout = Layout::new("/registry", Codec(Some(encryption)));
        let plain = |value: &'static [u8]| {
            let stored = layout.encode("/registry/configmaps/ns/a", &Bytes::from_static(value)).unwrap();
            assert_eq!(layout.decode("/registry/configmaps/ns/a", &stored).unwrap(), value);
            stored
        };
        assert_eq!(plain(b"{\"a\":1}"), b"{\"a\":1}");
        assert_eq!(plain(b""), b"");
        assert_eq!(plain(b"\0x"), b"\0\0x");
        assert_eq!(plain(b"\x01x"), b"\0\x01x");
        let key = "/registry/secrets/ns/a";
        let sealed = layout.encode(key, &Bytes::from_static(b"hunter2")).unwrap();
        assert!(!sealed.windows(7).any(|window| window == b"hunter2"));
        assert_eq!(layout.decode(key, &sealed).unwrap(), "hunter2");
        let error = Layout::new("/registry", Codec(None)).decode(key, &sealed).unwrap_err().to_string();
        assert!(error.contains(key) && error.contains("encryption.key"), "{error}");
    }
}
