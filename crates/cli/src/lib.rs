//! The commands of the `fleetpass` program.

pub mod args;
pub mod clients;
pub mod console;
pub mod files;
pub mod keep;
pub mod kubeconfig;
pub mod logging;
pub mod net;
pub mod pki;
pub mod signals;
