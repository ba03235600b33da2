//! Who asks, and may they?

pub mod authn;
pub mod authz;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
