//! A program that runs for a test: with its output in a file, killed with the test, and a target of signals.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::process::{Child, Command};

/// A running program; killed when it is dropped.
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a program with nothing of this process' environment but PATH and what tells one run of the rig from
    /// another. Its output goes to the end of `log`.
    pub fn start<S: AsRef<OsStr>>(
        name: &str,
        program: &Path,
        arguments: impl IntoIterator<Item = S>,
        environment: &[(&str, &str)],
        log: &Path,
    ) -> Result<Self> {
        let output = File::options().create(true).append(true).open(log)?;
        let kept = std::env::vars_os().filter(|(key, _)| key == "PATH" || key == "FLEETPASS_RIG_RUN");
        let child = Command::new(program)
            .args(arguments)
            .env_clear()
            .envs(kept)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        Ok(Self { name: name.into(), child, log: log.into() })
    }

    /// Its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let id = self.child.id().with_context(|| format!("{} has ended", self.name))?;
        let pid = Pid::from_raw(i32::try_from(id)?).context("a process id")?;
        kill_process(pid, signal).with_context(|| format!("cannot signal {}", self.name))
    }

    /// How it ended, if it did.
    pub fn ended(&mut self) -> Result<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// Ends it at once (SIGKILL).
    pub async fn kill(mut self) -> Result<()> {
        Ok(self.child.kill().await?)
    }

    /// Asks it to stop (SIGTERM) and waits for it.
    ///
    /// # Errors
    ///
    /// It does not end within `grace`; it is killed then.
    pub async fn stop(mut self, grace: Duration) -> Result<ExitStatus> {
        self.signal(Signal::TERM)?;
        match tokio::time::timeout(grace, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.child.kill().await?;
                bail!("{} did not stop within {grace:?}; its last lines:\n{}", self.name, self.last_lines())
            }
        }
    }

    /// Waits until `ready` holds.
    ///
    /// # Errors
    ///
    /// The program ends, or is not ready within `limit`; its last lines of output are said.
    pub async fn ready(&mut self, limit: Duration, mut ready: impl AsyncFnMut() -> bool) -> Result<()> {
        let deadline = tokio::time::Instant::now() + limit;
        while !ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended with {status}; its last lines:\n{}", self.name, self.last_lines());
            }
            if tokio::time::Instant::now() > deadline {
                bail!("{} is not ready within {limit:?}; its last lines:\n{}", self.name, self.last_lines());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// The end of its output; if a Go program crashed, what it says of that first.
    pub fn last_lines(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let crash = |line: &&str| line.starts_with("panic: ") || line.starts_with("fatal error: ");
        if let Some(at) = lines.iter().position(crash) {
            return lines[at.saturating_sub(5)..lines.len().min(at + 15)].join("\n");
        }
        lines[lines.len().saturating_sub(15)..].join("\n")
    }
}
