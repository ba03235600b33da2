//! Certificates and keys that a control plane makes for itself at its first start and keeps.
//!
//! ```text
//! ca.crt       the authority's certificate; made again from ca.key when it is old or gone
//! ca.key       the authority's key: the one file here that nothing else can replace
//! serving.pem  key and certificate of the server, in one file so that they always fit
//! sa.key       the key that signs service-account tokens
//! ```
//!
//! Keys are ECDSA P-256, except `sa.key`: RSA with 2048 bits, which every verifier of tokens understands. A file that
//! is there and cannot be used is never replaced: the error names it and says what to do.

mod authority;
mod identity;
mod renewal;
mod serving;

pub(crate) use authority::{Authority, ClientSubject};
pub(crate) use identity::{Identity, IdentityError};
pub(crate) use renewal::Validity;
pub(crate) use serving::{Serving, open_signing_key, serving_names};

#[cfg(test)]
mod tests;
