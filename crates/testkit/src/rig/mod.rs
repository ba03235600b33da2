//! Real programs in a test: kube-apiserver, kube-controller-manager, etcd, the upstream addon, kubectl, and
//! `fleetpass` itself as a process that can be killed.
//!
//! `cargo xtask conformance` builds the programs and names their folder in [`PROGRAMS`]; a test that needs one starts
//! it on free loopback ports with fresh certificates, and stops it when it is dropped.

mod agent;
pub mod compare;
mod control_plane;
mod etcd;
mod fleet;
mod fleetpass;
mod history;
mod kubectl;
mod kubernetes;
mod objects;
mod pki;
mod process;
mod report;

pub use agent::{Agent, AgentProgram, Side};
pub use control_plane::{ControlPlane, Endpoint};
pub use etcd::{Etcd, EtcdOptions};
pub use fleet::{CLUSTER, Fleet, Projected, SOON, install, user_name};
pub use fleetpass::{FleetpassHub, HubOptions, Storage};
pub use history::{Call, Op, is_linearizable};
pub use kubectl::Kubectl;
pub use kubernetes::{RealCluster, RealClusterOptions};
use objects::install_accounts;
pub use objects::{eventually, objects};
pub use process::Process;
pub use report::total;
pub use rustix::process::Signal;

use anyhow::{Context, Result, ensure};
use std::net::TcpListener;
use std::path::PathBuf;

/// The environment variable that names the folder with the real programs.
pub const PROGRAMS: &str = "FLEETPASS_RIG";

/// The users of every control plane of the rig, as those of the recordings: an administrator and one without rights.
const TOKENS: &str = "admintoken,admin,admin,\"system:masters\"\nalicetoken,alice,alice-uid,\"devs\"\n";

/// The path of a real program.
///
/// # Errors
///
/// [`PROGRAMS`] is not set, or the program is not there: what to run instead is said.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = std::env::var_os(PROGRAMS).with_context(|| {
        format!("{PROGRAMS} is not set: this test needs real programs; run `cargo xtask conformance`")
    })?;
    let path = PathBuf::from(folder).join(name);
    ensure!(path.is_file(), "{} is not there: run `cargo xtask conformance build`", path.display());
    Ok(path)
}

/// A loopback port that was free a moment ago.
fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// How often something that needs free ports is tried: another process may take one before it is used.
const ATTEMPTS: usize = 3;
