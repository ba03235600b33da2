//! Clusters in a test: start, stop, crash, fake clock, recorded conversations; never shipped.

pub mod cluster;
pub mod oracle;
#[cfg(feature = "rig")]
pub mod rig;
