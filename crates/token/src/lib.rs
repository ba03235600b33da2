//! Service-account tokens: claims, key ring, signing, verification, JWKS; no I/O.
