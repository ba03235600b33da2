//! `fleetpass hub` in a process of its own.

use super::endpoint::Endpoint;
use super::pki::write_private;
use super::process::Process;
use super::programs::{ATTEMPTS, TOKENS, free_port, program};
use anyhow::{Context, Result, ensure};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;
use tempfile::TempDir;

/// Where a hub keeps its objects.
#[derive(Debug, Clone, Default)]
pub enum Storage {
    /// In its data directory.
    #[default]
    Embedded,
    /// On an etcd with these client URLs, as one of the replicas that share what is in a folder: certificates and
    /// keys.
    Etcd {
        /// Client URLs.
        servers: Vec<String>,
        /// The data directory of the first replica, whose keys the others get.
        keys_of: Option<PathBuf>,
    },
}

/// How a hub differs from the usual one.
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    /// Where it keeps its objects.
    pub storage: Storage,
    /// Further flags.
    pub flags: Vec<String>,
}

/// A hub on loopback; gone when it is dropped.
pub struct FleetpassHub {
    endpoint: Endpoint,
    folder: TempDir,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl FleetpassHub {
    /// Starts one, and waits until it is ready.
    pub async fn start(options: &HubOptions) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::try_start(options).await {
                Ok(hub) => return Ok(hub),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?.context("fleetpass hub does not start"))
    }

    async fn try_start(options: &HubOptions) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let data = folder.path().join("data");
        let tokens = folder.path().join("tokens.csv");
        write_private(&tokens, TOKENS)?;
        let port = free_port()?;
        let mut arguments = vec![
            "hub".into(),
            format!("--data-dir={}", data.display()),
            format!("--secure-port={port}"),
            format!("--token-auth-file={}", tokens.display()),
        ];
        if let Storage::Etcd { servers, keys_of } = &options.storage {
            arguments.push(format!("--etcd-servers={}", servers.join(",")));
            if let Some(first) = keys_of {
                copy_keys(first, &data)?;
            }
        }
        arguments.extend(options.flags.iter().cloned());
        let endpoint = Endpoint::new(port, "");
        let mut hub = Self { endpoint, folder, arguments, process: None };
        hub.resume().await?;
        Ok(hub)
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Its process, if it runs.
    pub fn process(&self) -> Option<u32> {
        self.process.as_ref()?.id()
    }

    /// Ends it at once (SIGKILL).
    pub async fn halt(&mut self) -> Result<()> {
        self.process.take().context("the hub is not running")?.kill().await
    }

    /// Asks it to stop, and waits for it.
    pub async fn stop(&mut self) -> Result<ExitStatus> {
        self.process.take().context("the hub is not running")?.stop(Duration::from_secs(30)).await
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.process.as_ref().context("the hub is not running")?.signal(signal)
    }

    /// Starts it again at the same address, and waits until it is ready.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.process.is_none(), "the hub is running");
        let log = self.folder.path().join("hub.log");
        let mut process =
            Process::start("fleetpass hub", &program("fleetpass")?, &self.arguments, &[], &log)?;
        let ca = self.data_dir().join("pki/ca.crt");
        let port = self.endpoint.port;
        let limit = Duration::from_secs(60);
        process
            .ready(limit, async || {
                let Ok(ca_pem) = std::fs::read_to_string(&ca) else { return false };
                Endpoint::new(port, &ca_pem).is_ready().await
            })
            .await?;
        self.endpoint.ca_pem = std::fs::read_to_string(&ca)?;
        self.process = Some(process);
        Ok(())
    }

    /// All of its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("hub.log")).unwrap_or_default()
    }

    /// The end of its log.
    pub fn last_lines(&self) -> String {
        self.process.as_ref().map(Process::last_lines).unwrap_or_default()
    }
}

/// Gives a replica the authority and the keys of another, but not its serving certificate.
fn copy_keys(from: &Path, to: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    let mut private = std::fs::DirBuilder::new();
    private.recursive(true).mode(0o700).create(to.join("pki"))?;
    for name in ["encryption.key", "pki/ca.crt", "pki/ca.key", "pki/sa.key"] {
        std::fs::copy(from.join(name), to.join(name)).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}
