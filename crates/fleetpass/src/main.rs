//! The `fleetpass` program: it parses arguments and wires the crates, nothing else.

fn main() {}
