//! Which key signs, and which keys verify, at a given moment.
//!
//! A ring carries the times of a rotation as data:
//!
//! ```text
//!            rotate(new)          + publish_for                    + longest_token + leeway
//!  old key   signs, verifies ───► verifies only ─────────────────► forgotten (prune)
//!  new key   verifies ──────────► signs, verifies ───────────────────────────────────────►
//! ```
//!
//! A new key is published first, signs once verifiers have had time to fetch it, and the old key verifies until the last
//! token that it signed has expired. The ring answers for any moment: whoever serves it asks it for the present one.
//!
//! Nothing in Fleetpass rotates by a schedule yet: keys come from the files of `--service-account-key-file`, which have no
//! end. The rules of a rotation are here, with their tests, because they are part of what a ring is.

use crate::claims::LEEWAY;
use crate::key::{KeyError, SigningKey, VerifyingKey};
use jiff::{SignedDuration, Timestamp};
use std::sync::Arc;

#[derive(Debug, Clone)]
struct Signer {
    key: Arc<SigningKey>,
    /// It signs from this moment on, until the next signer's.
    from: Timestamp,
}

#[derive(Debug, Clone)]
struct Verifier {
    key: Arc<VerifyingKey>,
    /// The last moment at which it verifies; `None`: it has no end.
    until: Option<Timestamp>,
}

/// How long the phases of a rotation last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// For how long the new key is published before it signs: at least as long as others may cache the JWKS
    /// (kube-apiserver says one hour).
    pub publish_for: SignedDuration,
    /// The longest lifetime that a token signed with the old key may have.
    pub longest_token: SignedDuration,
}

/// Signing and verifying keys. Cheap to clone: keys are shared.
#[derive(Debug, Clone, Default)]
pub struct KeyRing {
    /// In the order in which they take over, `from` ascending: the last one that has begun signs. Each has its public
    /// half among the verifiers.
    signers: Vec<Signer>,
    /// In the order in which they are published; no two with the same ID.
    verifiers: Vec<Verifier>,
}

impl KeyRing {
    /// A ring whose only key signs and verifies.
    pub fn new(key: SigningKey) -> Self {
        let mut ring = Self::default();
        ring.add_verifying_key(key.public().clone());
        ring.signers.push(Signer { key: Arc::new(key), from: Timestamp::MIN });
        ring
    }

    /// A ring from PEM files as kube-apiserver takes them: the private key of `--service-account-signing-key-file`,
    /// and any number of `--service-account-key-file`. The signing key's public half is published after the keys of
    /// those files unless it is among them.
    pub fn from_pem(signing: &[u8], verifying: &[impl AsRef<[u8]>]) -> Result<Self, KeyError> {
        let mut ring = Self::default();
        for file in verifying {
            for key in VerifyingKey::from_pem(file.as_ref())? {
                ring.add_verifying_key(Arc::new(key));
            }
        }
        let key = SigningKey::from_pem(signing)?;
        ring.add_verifying_key(key.public().clone());
        ring.signers.push(Signer { key: Arc::new(key), from: Timestamp::MIN });
        Ok(ring)
    }

    /// Adds a key that verifies, without an end. A key that is there already stays as it is.
    pub(crate) fn add_verifying_key(&mut self, key: Arc<VerifyingKey>) {
        if !self.verifiers.iter().any(|verifier| verifier.key.id() == key.id()) {
            self.verifiers.push(Verifier { key, until: None });
        }
    }

    /// Begins a rotation to `key` at `now`: it is published at once, signs from `now + publish_for`, and the keys
    /// that signed until then verify for `longest_token` more (and the leeway of clocks).
    pub fn rotate(&mut self, key: SigningKey, now: Timestamp, rotation: Rotation) {
        let add = |time: Timestamp, by: SignedDuration| time.saturating_add(by).unwrap_or(Timestamp::MAX);
        let from = add(now, rotation.publish_for);
        let until = add(add(from, rotation.longest_token), LEEWAY);
        let current = self.signer(now).map(|key| key.public().id().clone());
        for verifier in &mut self.verifiers {
            let id = verifier.key.id();
            if id == key.public().id() {
                // A key that was retired comes back.
                verifier.until = None;
            } else if Some(id) == current.as_ref() {
                // It signs until the new key does, however soon an earlier rotation meant to retire it.
                verifier.until = Some(until);
            // What signed earlier keeps the end that its own rotation gave it. A key from a file that never signed here
            // has no end: another server may sign with it.
            } else if verifier.until.is_none() && self.signers.iter().any(|s| s.key.public().id() == id) {
                verifier.until = Some(until);
            }
        }
        self.add_verifying_key(key.public().clone());
        // A rotation that has not taken effect yet is replaced by this one.
        self.signers.retain(|signer| signer.from <= now);
        self.signers.push(Signer { key: Arc::new(key), from });
    }

    /// Forgets keys whose time is over at `now`. Says whether any was.
    pub fn prune(&mut self, now: Timestamp) -> bool {
        let before = (self.signers.len(), self.verifiers.len());
        // Signers before the present one; those to come stay.
        if let Some(current) = self.signers.iter().rposition(|signer| signer.from <= now) {
            self.signers.drain(..current);
        }
        self.verifiers.retain(|verifier| verifier.until.is_none_or(|until| now <= until));
        before != (self.signers.len(), self.verifiers.len())
    }

    /// The key that signs at `now`; `None` only in a ring that was given no signing key.
    pub fn signer(&self, now: Timestamp) -> Option<&Arc<SigningKey>> {
        self.signers.iter().rfind(|signer| signer.from <= now).map(|signer| &signer.key)
    }

    /// The keys that verify at `now`, in the order in which they are published.
    pub fn verifying_keys(&self, now: Timestamp) -> impl Iterator<Item = &Arc<VerifyingKey>> {
        self.verifiers
            .iter()
            .filter(move |verifier| verifier.until.is_none_or(|until| now <= until))
            .map(|verifier| &verifier.key)
    }

    /// Whether the key with this ID verifies at `now`.
    pub fn verifies(&self, id: &str, now: Timestamp) -> bool {
        self.verifying_keys(now).any(|key| &**key.id() == id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::KeyKind;
    use secrecy::ExposeSecret as _;

    fn key() -> SigningKey {
        SigningKey::from_pem(SigningKey::generate_pem(KeyKind::P256).unwrap().expose_secret().as_bytes())
            .unwrap()
    }

    #[test]
    fn a_rotation_publishes_then_signs_then_forgets() {
        let (old, new) = (key(), key());
        let (old_id, new_id) = (old.public().id().clone(), new.public().id().clone());
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let hours = |n| now + SignedDuration::from_hours(n);
        let mut ring = KeyRing::new(old);
        ring.rotate(
            new,
            now,
            Rotation {
                publish_for: SignedDuration::from_hours(1),
                longest_token: SignedDuration::from_hours(24),
            },
        );
        let end = hours(25) + LEEWAY;
        let second = SignedDuration::from_secs(1);
        for (at, signer, published) in [
            (now, &old_id, vec![&old_id, &new_id]),
            (hours(1) - second, &old_id, vec![&old_id, &new_id]),
            (hours(1), &new_id, vec![&old_id, &new_id]),
            (end, &new_id, vec![&old_id, &new_id]),
            (end + second, &new_id, vec![&new_id]),
        ] {
            let mut later = ring.clone();
            later.prune(at);
            for ring in [&ring, &later] {
                assert_eq!(ring.signer(at).unwrap().public().id(), signer, "{at}");
                assert_eq!(ring.verifying_keys(at).map(|k| k.id()).collect::<Vec<_>>(), published, "{at}");
            }
        }
        assert!(ring.prune(end + second) && !ring.prune(end + second));
    }

    #[test]
    fn a_second_rotation_replaces_one_that_has_not_begun_to_sign() {
        let now = Timestamp::UNIX_EPOCH;
        let rotation = Rotation {
            publish_for: SignedDuration::from_hours(1),
            longest_token: SignedDuration::from_hours(1),
        };
        let (second, third) = (key(), key());
        let third_id = third.public().id().clone();
        let mut ring = KeyRing::new(key());
        let first_id = ring.signer(now).unwrap().public().id().clone();
        ring.rotate(second, now, rotation);
        ring.rotate(third, now + SignedDuration::from_mins(30), rotation);
        assert_eq!(ring.signer(now + SignedDuration::from_mins(61)).unwrap().public().id(), &first_id);
        assert_eq!(ring.signer(now + SignedDuration::from_mins(90)).unwrap().public().id(), &third_id);
    }

    #[test]
    fn the_old_key_outlives_its_last_token() {
        // Because the first rotation is replaced, the first key signs longer than that one foresaw.
        let now = Timestamp::UNIX_EPOCH;
        let mins = |n| now + SignedDuration::from_mins(n);
        let rotation = Rotation {
            publish_for: SignedDuration::from_hours(1),
            longest_token: SignedDuration::from_hours(1),
        };
        let mut ring = KeyRing::new(key());
        let first = ring.signer(now).unwrap().public().id().clone();
        ring.rotate(key(), now, rotation);
        ring.rotate(key(), mins(59), rotation);
        // It signs until minute 119, so its last token lives until minute 179.
        assert_eq!(ring.signer(mins(118)).unwrap().public().id(), &first);
        assert!(ring.verifies(&first, mins(179)));
    }
}
