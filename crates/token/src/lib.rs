//! Service-account tokens: claims, key ring, signing, verification, JWKS; no I/O.
//!
//! The tokens are those of kube-apiserver 1.36 (`pkg/serviceaccount` in its repository), so that keys and tokens can
//! move between the two. Everything here is a function of its arguments: time and identifiers are passed in. Signing
//! and key generation draw randomness from the cryptographic library.
//!
//! - [`claims`]: what a token says, and how a TokenRequest becomes that;
//! - [`key`]: private and public keys, read from PEM, and the `kid` that names them;
//! - [`ring`]: which key signs and which verify at a given moment;
//! - [`verify`]: from the text of a token back to its claims;
//! - [`jwks`]: the documents by which others learn the public keys.

pub mod claims;
pub mod jwks;
pub mod key;
pub mod ring;
pub mod verify;
