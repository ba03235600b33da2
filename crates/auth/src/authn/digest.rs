//! The hash by which tokens are recognized.

use aws_lc_rs::digest;

/// The SHA-256 of a token: what is kept where a token must be recognized, so that no token stays in memory. Tokens are long and
/// random, so it needs no salt.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenDigest(pub(super) [u8; 32]);

impl TokenDigest {
    /// The digest of `token`.
    pub fn of(token: &str) -> Self {
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
        Self(bytes)
    }
}
