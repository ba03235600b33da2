//! The vocabulary of Fleetpass: typed objects, label and annotation keys, Go durations, clocks; no I/O.

pub mod account;
pub mod clock;
pub mod duration;
pub mod features;
pub mod names;
pub mod workload;

pub use account::ManagedServiceAccount;
pub use duration::GoDuration;
