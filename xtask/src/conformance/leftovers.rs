//! Programs that a suite started and that outlived it, as after a test that was killed.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::io::ErrorKind;

/// The environment variable by which the programs of one run are known.
pub(crate) const RUN: &str = "FLEETPASS_RIG_RUN";

/// Kills the programs of a run; how many there were.
///
/// # Errors
///
/// `/proc` cannot be read.
pub(crate) fn kill(run: &str) -> Result<usize> {
    let mark = format!("{RUN}={run}");
    let mut killed = 0;
    for entry in std::fs::read_dir("/proc").context("cannot read /proc")? {
        let entry = entry?;
        let Ok(id) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let environment = match std::fs::read(entry.path().join("environ")) {
            Ok(environment) => environment,
            // It ended just now, or is another user's.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::PermissionDenied) => {
                continue;
            }
            Err(error) if error.raw_os_error() == Some(3) => continue, // ESRCH
            Err(error) => return Err(error).with_context(|| format!("cannot read the environment of {id}")),
        };
        let ours = environment.split(|byte| *byte == 0).any(|variable| variable == mark.as_bytes());
        let Some(pid) = Pid::from_raw(id).filter(|_| ours) else { continue };
        if kill_process(pid, Signal::KILL).is_ok() {
            killed += 1;
        }
    }
    Ok(killed)
}
