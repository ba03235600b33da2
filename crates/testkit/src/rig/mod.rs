//! Real programs in a test: kube-apiserver, kube-controller-manager, etcd, the upstream addon, kubectl, and
//! `fleetpass` itself as a process that can be killed.
//!
//! `cargo xtask conformance` builds the programs and names their folder in [`PROGRAMS`]; a test that needs one starts
//! it on free loopback ports with fresh certificates, and stops it when it is dropped.

mod agent;
pub mod compare;
mod control_plane;
mod endpoint;
mod etcd;
mod fleet;
mod fleetpass;
mod history;
mod kubectl;
mod kubernetes;
mod objects;
mod pki;
mod process;
mod programs;
mod report;

pub use agent::{Agent, AgentProgram, Side};
pub use control_plane::ControlPlane;
pub use endpoint::Endpoint;
pub use etcd::{Etcd, EtcdOptions};
pub use fleet::{CLUSTER, Fleet, Projected, SOON, install, user_name};
pub use fleetpass::{FleetpassHub, HubOptions, Storage};
pub use history::{Call, Op, is_linearizable};
pub use kubectl::Kubectl;
pub use kubernetes::{RealCluster, RealClusterOptions};
pub use objects::{eventually, objects};
pub use process::Process;
pub use programs::{PROGRAMS, program};
pub use report::total;
pub use rustix::process::Signal;
