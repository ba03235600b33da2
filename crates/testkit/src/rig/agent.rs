//! An agent in a process of its own: ours, or the upstream addon's.

use super::endpoint::Endpoint;
use super::process::Process;
use super::programs::program;
use anyhow::{Context, Result, ensure};
use fleetpass_api::names;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;
use tempfile::TempDir;

/// Whose agent it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentProgram {
    /// `fleetpass agent`.
    Fleetpass,
    /// The agent of Open Cluster Management's addon. It serves on port 8000 whatever one says: one at a time.
    Upstream,
}

/// One of an agent's sides, and the bearer token that it has there.
#[derive(Clone)]
pub struct Side {
    /// Where it is.
    pub endpoint: Endpoint,
    /// The agent's token.
    pub token: String,
}

/// An agent for one cluster; gone when it is dropped.
pub struct Agent {
    program: AgentProgram,
    folder: TempDir,
    arguments: Vec<String>,
    process: Mutex<Option<Process>>,
}

impl Agent {
    /// Starts one.
    pub fn start(program: AgentProgram, cluster: &str, hub: &Side, spoke: &Side) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (hub_file, spoke_file) = (folder.path().join("hub"), folder.path().join("spoke"));
        hub.endpoint.write_kubeconfig(&hub_file, &hub.token)?;
        spoke.endpoint.write_kubeconfig(&spoke_file, &spoke.token)?;
        let arguments = vec![
            "agent".into(),
            format!("--cluster-name={cluster}"),
            format!("--kubeconfig={}", hub_file.display()),
            format!("--spoke-kubeconfig={}", spoke_file.display()),
            "--feature-gates=EphemeralIdentity=true".into(),
            "--metrics-bind-address=0".into(),
            "--health-probe-bind-address=0".into(),
        ];
        let agent = Self { program, folder, arguments, process: Mutex::new(None) };
        agent.resume()?;
        Ok(agent)
    }

    /// Its process, if it runs.
    pub fn process(&self) -> Option<u32> {
        self.process.lock().expect("no panic").as_ref()?.id()
    }

    /// Ends it at once (SIGKILL).
    pub async fn halt(&self) -> Result<()> {
        let process = self.process.lock().expect("no panic").take();
        process.context("the agent is not running")?.kill().await
    }

    /// Asks it to stop, and waits for it.
    pub async fn stop(&self) -> Result<ExitStatus> {
        let process = self.process.lock().expect("no panic").take();
        process.context("the agent is not running")?.stop(Duration::from_secs(30)).await
    }

    /// Sees to it that it runs, as a kubelet would: the upstream agent crashes at times and is started again.
    ///
    /// # Errors
    ///
    /// Ours has ended.
    pub(super) fn tend(&self) -> Result<()> {
        let mut running = self.process.lock().expect("no panic");
        let Some(process) = running.as_mut() else { return Ok(()) };
        let Some(status) = process.ended()? else { return Ok(()) };
        ensure!(self.program == AgentProgram::Upstream, "the agent ended with {status}");
        running.take();
        drop(running);
        self.resume()
    }

    /// Starts it again.
    pub fn resume(&self) -> Result<()> {
        let mut running = self.process.lock().expect("no panic");
        ensure!(running.is_none(), "the agent is running");
        let (name, file) = match self.program {
            AgentProgram::Fleetpass => ("fleetpass agent", "fleetpass"),
            AgentProgram::Upstream => ("upstream agent", "addon"),
        };
        let hub = self.folder.path().join("hub").display().to_string();
        let environment = [("NAMESPACE", names::DEFAULT_AGENT_NAMESPACE), ("HUB_KUBECONFIG", hub.as_str())];
        let process = Process::start(name, &program(file)?, &self.arguments, &environment, &self.log())?;
        *running = Some(process);
        Ok(())
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        self.process.lock().expect("no panic").as_ref().map(Process::last_lines).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }
}
