//! An agent in a process of its own: ours, or the upstream addon's.

use super::{Endpoint, Process, program};
use anyhow::{Context, Result, ensure};
use fleetpass_api::names;
use std::path::PathBuf;
use std::process::ExitStatus;
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
    process: Option<Process>,
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
        let mut agent = Self { program, folder, arguments, process: None };
        agent.resume()?;
        Ok(agent)
    }

    /// Ends it at once (SIGKILL).
    pub async fn halt(&mut self) -> Result<()> {
        self.process.take().context("the agent is not running")?.kill().await
    }

    /// Asks it to stop, and waits for it.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().context("the agent is not running")?.stop(Duration::from_secs(30)).await
    }

    /// Starts it again.
    pub fn resume(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the agent is running");
        let (name, file) = match self.program {
            AgentProgram::Fleetpass => ("fleetpass agent", "fleetpass"),
            AgentProgram::Upstream => ("upstream agent", "addon"),
        };
        let hub = self.folder.path().join("hub").display().to_string();
        let environment = [("NAMESPACE", names::DEFAULT_AGENT_NAMESPACE), ("HUB_KUBECONFIG", hub.as_str())];
        let process = Process::start(name, &program(file)?, &self.arguments, &environment, &self.log())?;
        self.process = Some(process);
        Ok(())
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        self.process.as_ref().map(Process::last_lines).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.folder.path().join("agent.log")
    }
}
