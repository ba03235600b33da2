//! Clusters in a test: start, stop, crash, fake clock, recorded conversations; never shipped.

pub mod clients;
pub mod cluster;
pub mod oracle;
pub mod proxy;
#[cfg(feature = "rig")]
pub mod rig;
