//! Where the real programs are, and what all of them are started with.

use anyhow::{Context, Result, ensure};
use std::net::TcpListener;
use std::path::PathBuf;

/// The environment variable that names the folder with the real programs.
pub const PROGRAMS: &str = "FLEETPASS_RIG";

/// The users of every control plane of the rig, as those of the recordings: an administrator and one without rights.
pub(super) const TOKENS: &str =
    "admintoken,admin,admin,\"system:masters\"\nalicetoken,alice,alice-uid,\"devs\"\n";

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
pub(super) fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// How often something that needs free ports is tried: another process may take one before it is used.
pub(super) const ATTEMPTS: usize = 3;
