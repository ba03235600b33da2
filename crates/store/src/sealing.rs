//! What a value looks like on disk: plain, or sealed with AES-256-GCM.
//!
//! ```text
//! plain   0x00 value
//! sealed  0x01 n  key id (n bytes)  nonce (12 bytes)  ciphertext  tag (16 bytes)
//! ```
//!
//! The associated data binds a sealed value to its storage key and to the id of its encryption key:
//! moved to another key of the store, it does not open. The nonces are random, so one key may seal
//! 2^32 values (NIST SP 800-38D, 8.3); rotate it before that.

use crate::keyring::KeyRing;
use aws_lc_rs::aead::{Aad, NONCE_LEN, Nonce};
use bytes::Bytes;

/// Which values are sealed, and with which keys.
///
/// Values that were stored before encryption was turned on stay readable, and are sealed when they
/// are next written. To turn encryption off, keep the keys and give no prefixes.
pub struct Encryption {
    /// The first key seals, all of them open.
    pub keys: KeyRing,
    /// A value is sealed if its key starts with one of these.
    pub prefixes: Vec<String>,
}

pub(crate) const PLAIN: u8 = 0;
pub(crate) const SEALED: u8 = 1;

/// Why a stored value cannot be read, or a value not be stored.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum SealError {
    #[error("a value has an unknown layout")]
    Layout,
    #[error("a value is sealed with the encryption key {0:?}, which is not in the key file")]
    UnknownKey(String),
    #[error("a sealed value does not open: it was altered, or its encryption key was replaced")]
    Altered,
    #[error("a value could not be sealed")]
    Seal,
}

/// Turns values into what is stored and back.
pub(crate) struct Codec(pub(crate) Option<Encryption>);

/// The parts of a stored value.
enum Frame<'a> {
    Plain(&'a [u8]),
    Sealed { key_id: &'a str, nonce: &'a [u8], sealed: &'a [u8] },
}

impl<'a> Frame<'a> {
    fn parse(stored: &'a [u8]) -> Result<Self, SealError> {
        match stored.split_first() {
            Some((&PLAIN, value)) => Ok(Frame::Plain(value)),
            Some((&SEALED, rest)) => {
                let (&n, rest) = rest.split_first().ok_or(SealError::Layout)?;
                let (key_id, rest) = rest.split_at_checked(n.into()).ok_or(SealError::Layout)?;
                let (nonce, sealed) = rest.split_at_checked(NONCE_LEN).ok_or(SealError::Layout)?;
                let key_id = std::str::from_utf8(key_id).map_err(|_| SealError::Layout)?;
                Ok(Frame::Sealed { key_id, nonce, sealed })
            }
            _ => Err(SealError::Layout),
        }
    }
}

impl Codec {
    /// What is stored for `value` under `key`.
    pub(crate) fn encode(&self, key: &str, value: &[u8]) -> Result<Vec<u8>, SealError> {
        let Some(encryption) = self.0.as_ref().filter(|e| e.covers(key)) else {
            let mut stored = Vec::with_capacity(1 + value.len());
            stored.push(PLAIN);
            stored.extend_from_slice(value);
            return Ok(stored);
        };
        let (key_id, sealing) = encryption.keys.sealing();
        let mut sealed = value.to_vec();
        let nonce = sealing
            .seal_in_place_append_tag(Aad::from(associated(key_id, key)), &mut sealed)
            .map_err(|_| SealError::Seal)?;
        let id_length = u8::try_from(key_id.len()).map_err(|_| SealError::Seal)?;
        let mut stored = Vec::with_capacity(2 + key_id.len() + NONCE_LEN + sealed.len());
        stored.extend_from_slice(&[SEALED, id_length]);
        stored.extend_from_slice(key_id.as_bytes());
        stored.extend_from_slice(nonce.as_ref());
        stored.extend_from_slice(&sealed);
        Ok(stored)
    }

    /// The value that `stored` holds under `key`.
    pub(crate) fn decode(&self, key: &str, stored: &[u8]) -> Result<Bytes, SealError> {
        let (key_id, nonce, sealed) = match Frame::parse(stored)? {
            Frame::Plain(value) => return Ok(Bytes::copy_from_slice(value)),
            Frame::Sealed { key_id, nonce, sealed } => (key_id, nonce, sealed),
        };
        let opening = self.opening(key_id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Layout)?;
        // Opened in place in a copy of its own, which becomes the value: the ciphertext belongs to the engine's page.
        let mut value = sealed.to_vec();
        let length = opening
            .open_in_place(nonce, Aad::from(associated(key_id, key)), &mut value)
            .map_err(|_| SealError::Altered)?
            .len();
        value.truncate(length);
        Ok(value.into())
    }

    /// Whether `stored` has a known layout and its key is there; the value is not opened.
    pub(crate) fn check(&self, stored: &[u8]) -> Result<(), SealError> {
        match Frame::parse(stored)? {
            Frame::Plain(_) => Ok(()),
            Frame::Sealed { key_id, .. } => self.opening(key_id).map(|_| ()),
        }
    }

    fn opening(&self, key_id: &str) -> Result<&aws_lc_rs::aead::RandomizedNonceKey, SealError> {
        let keys = self.0.as_ref().map(|e| &e.keys);
        keys.and_then(|keys| keys.opening(key_id)).ok_or_else(|| SealError::UnknownKey(key_id.to_owned()))
    }
}

impl Encryption {
    fn covers(&self, key: &str) -> bool {
        self.prefixes.iter().any(|prefix| key.starts_with(prefix.as_str()))
    }
}

/// The associated data: no two pairs of key id and key give the same, because the length tells where the id ends. Part of
/// the format: what was sealed with other associated data does not open.
fn associated(key_id: &str, key: &str) -> Vec<u8> {
    let mut data = b"fleetpass-store value ".to_vec();
    data.push(SEALED);
    data.extend_from_slice(&(key_id.len() as u64).to_be_bytes());
    data.extend_from_slice(key_id.as_bytes());
    data.extend_from_slice(key.as_bytes());
    data
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "/registry/secrets/ns/name";

    fn codec(keys: KeyRing) -> Codec {
        Codec(Some(Encryption { keys, prefixes: vec!["/registry/secrets/".into()] }))
    }

    #[test]
    fn only_the_prefixes_are_sealed_and_everything_opens() {
        let codec = codec(KeyRing::of(&[("a", 1)]));
        let plain = codec.encode("/registry/configmaps/ns/name", b"hunter2").unwrap();
        assert_eq!(plain, b"\0hunter2");
        let sealed = codec.encode(KEY, b"hunter2").unwrap();
        assert!(!sealed.windows(7).any(|w| w == b"hunter2"));
        assert_ne!(sealed, codec.encode(KEY, b"hunter2").unwrap(), "nonces are random");
        assert_eq!(codec.decode(KEY, &sealed).unwrap(), "hunter2");
        assert_eq!(codec.decode(KEY, b"\0stored before").unwrap(), "stored before");
        assert_eq!(codec.decode(KEY, &codec.encode(KEY, b"").unwrap()).unwrap(), "");
    }

    #[test]
    fn a_sealed_value_is_bound_to_its_key_and_to_every_byte() {
        let codec = codec(KeyRing::of(&[("a", 1)]));
        let sealed = codec.encode(KEY, b"hunter2").unwrap();
        assert_eq!(codec.decode("/registry/secrets/ns/other", &sealed), Err(SealError::Altered));
        for i in 0..sealed.len() {
            let mut altered = sealed.clone();
            altered[i] ^= 0x80;
            let opened = codec.decode(KEY, &altered);
            assert!(opened.is_err(), "byte {i} altered: {opened:?}");
            assert!(codec.decode(KEY, &sealed[..i]).is_err(), "cut to {i} bytes");
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let old = codec(KeyRing::of(&[("a", 1)]));
        let by_old = old.encode(KEY, b"hunter2").unwrap();
        let rotated = codec(KeyRing::of(&[("b", 2), ("a", 1)]));
        assert_eq!(rotated.decode(KEY, &by_old).unwrap(), "hunter2");
        let by_new = rotated.encode(KEY, b"hunter2").unwrap();
        assert_eq!(old.check(&by_new), Err(SealError::UnknownKey("b".into())));
        assert_eq!(old.decode(KEY, &by_new), Err(SealError::UnknownKey("b".into())));
        assert_eq!(Codec(None).decode(KEY, &by_new), Err(SealError::UnknownKey("b".into())));
        // The same id with other key material is told from an unknown key.
        assert_eq!(codec(KeyRing::of(&[("a", 9)])).decode(KEY, &by_old), Err(SealError::Altered));
    }
}
