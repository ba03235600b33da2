//! Programs that a suite started and that outlived it, as after a test that was killed.

use anyhow::{Context as _, Result};
use rustix::process::{Pid, Signal, kill_process};
use std::io::ErrorKind;
use std::time::{Duration, Instant};

/// The environment variable by which the programs of one run are known.
pub(crate) const RUN: &str = "FLEETPASS_RIG_RUN";

/// How long a program may take to end: one that was killed has to give back its memory first.
const GRACE: Duration = Duration::from_secs(15);

/// Kills the programs of a run that do not end by themselves now that it is over; how many there were.
///
/// # Errors
///
/// `/proc` cannot be read.
pub(crate) fn kill(run: &str) -> Result<usize> {
    kill_after(run, GRACE)
}

fn kill_after(run: &str, grace: Duration) -> Result<usize> {
    let deadline = Instant::now() + grace;
    loop {
        let left = find(run)?;
        if left.is_empty() || Instant::now() > deadline {
            return Ok(left.into_iter().filter(|pid| kill_process(*pid, Signal::KILL).is_ok()).count());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The programs of a run.
fn find(run: &str) -> Result<Vec<Pid>> {
    let mark = format!("{RUN}={run}");
    let mut found = Vec::new();
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
        found.extend(Pid::from_raw(id).filter(|_| ours));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn only_what_does_not_end_by_itself_is_killed() {
        let run = format!("test-{}", std::process::id());
        let sleep = |seconds: &str| {
            let child = Command::new("sleep").arg(seconds).env(RUN, &run).spawn().unwrap();
            // It has its environment a moment after it was started.
            while find(&run).unwrap().is_empty() {
                std::thread::yield_now();
            }
            child
        };
        // One that ends soon, and is waited for as cargo's own child would be.
        let mut soon = sleep("0.5");
        let waiting = std::thread::spawn(move || soon.wait());
        assert_eq!(kill_after(&run, Duration::from_secs(30)).unwrap(), 0);
        waiting.join().unwrap().unwrap();
        let mut never = sleep("1000");
        assert_eq!(kill_after(&run, Duration::ZERO).unwrap(), 1);
        assert!(!never.wait().unwrap().success());
    }
}
