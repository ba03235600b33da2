//! The vocabulary of Fleetpass: typed objects, label and annotation keys, Go durations, clocks; no I/O.

pub mod clock;
