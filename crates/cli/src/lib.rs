//! The commands of the fleetpass program.
