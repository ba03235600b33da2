//! CertificateSigningRequests: approved ones for clients of the API server are signed, old ones are removed.

pub(crate) mod authority;
pub(crate) mod cleanup;
pub(crate) mod signing;
