//! A real etcd of one or more members, each of which can be killed, halted and started again.

use super::process::Process;
use super::programs::{ATTEMPTS, free_port, program};
use anyhow::{Context, Result, bail, ensure};
use rustix::process::Signal;
use serde_json::Value;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// How a member may be limited.
#[derive(Debug, Clone, Default)]
pub struct EtcdOptions {
    /// The size at which the database is full (`--quota-backend-bytes`).
    pub quota_bytes: Option<u64>,
}

/// A cluster of etcd members on loopback; gone when it is dropped.
pub struct Etcd {
    folder: TempDir,
    members: Vec<Member>,
}

struct Member {
    client_url: String,
    arguments: Vec<String>,
    process: Option<Process>,
}

impl Etcd {
    /// Starts one with so many members, and waits until it takes writes.
    pub async fn start(members: usize) -> Result<Self> {
        Self::start_with(members, &EtcdOptions::default()).await
    }

    /// Starts one with limits.
    pub async fn start_with(members: usize, options: &EtcdOptions) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::try_start(members, options).await {
                Ok(etcd) => return Ok(etcd),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?.context("etcd does not start"))
    }

    async fn try_start(count: usize, options: &EtcdOptions) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut urls = Vec::new();
        for _ in 0..count {
            let url = || anyhow::Ok(format!("http://127.0.0.1:{}", free_port()?));
            urls.push((url()?, url()?));
        }
        let everybody: Vec<String> =
            urls.iter().enumerate().map(|(index, (_, peer))| format!("m{index}={peer}")).collect();
        let members = urls
            .iter()
            .enumerate()
            .map(|(index, (client, peer))| {
                let mut arguments = vec![
                    format!("--name=m{index}"),
                    format!("--data-dir={}", folder.path().join(format!("m{index}")).display()),
                    format!("--listen-client-urls={client}"),
                    format!("--advertise-client-urls={client}"),
                    format!("--listen-peer-urls={peer}"),
                    format!("--initial-advertise-peer-urls={peer}"),
                    format!("--initial-cluster={}", everybody.join(",")),
                    "--log-level=warn".into(),
                ];
                arguments.extend(options.quota_bytes.map(|bytes| format!("--quota-backend-bytes={bytes}")));
                Member { client_url: client.clone(), arguments, process: None }
            })
            .collect();
        let mut etcd = Self { folder, members };
        for index in 0..count {
            etcd.launch(index)?;
        }
        for index in 0..count {
            etcd.healthy(index).await?;
        }
        Ok(etcd)
    }

    /// The client URLs of all members.
    pub fn endpoints(&self) -> Vec<String> {
        self.members.iter().map(|member| member.client_url.clone()).collect()
    }

    /// The processes of the members that run.
    pub fn processes(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| member.process.as_ref()?.id()).collect()
    }

    /// Starts a member that was killed, on the data that it left, and waits until it serves.
    pub async fn restart(&mut self, member: usize) -> Result<()> {
        self.launch(member)?;
        self.healthy(member).await
    }

    /// Ends a member at once (SIGKILL).
    pub async fn kill(&mut self, member: usize) -> Result<()> {
        self.members[member].process.take().context("the member is not running")?.kill().await
    }

    /// Halts (SIGSTOP) or continues (SIGCONT) a member, or sends it another signal.
    pub fn signal(&self, member: usize, signal: Signal) -> Result<()> {
        self.members[member].process.as_ref().context("the member is not running")?.signal(signal)
    }

    /// Which member leads.
    pub async fn leader(&self) -> Result<usize> {
        for (index, member) in self.members.iter().enumerate() {
            let Ok(status) = etcdctl(&member.client_url, &["endpoint", "status", "-w", "json"]).await else {
                continue;
            };
            let status: Value = serde_json::from_str(&status)?;
            let status = &status[0]["Status"];
            if status["leader"] == status["header"]["member_id"] && status["leader"] != 0 {
                return Ok(index);
            }
        }
        bail!("no member says that it leads")
    }

    /// Runs etcdctl against all members; what it wrote to its output.
    pub async fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        etcdctl(&self.endpoints().join(","), arguments).await
    }

    /// Writes a key past everybody.
    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        use tokio::io::AsyncWriteExt as _;
        let mut child = Command::new(program("etcdctl")?)
            .args(["--endpoints", &self.endpoints().join(","), "--command-timeout=10s", "put", key])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let mut stdin = child.stdin.take().context("its input")?;
        stdin.write_all(value.as_bytes()).await?;
        drop(stdin);
        let output = child.wait_with_output().await?;
        ensure!(output.status.success(), "etcdctl put {key}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn launch(&mut self, index: usize) -> Result<()> {
        let log = self.folder.path().join(format!("m{index}.log"));
        let member = &mut self.members[index];
        ensure!(member.process.is_none(), "member {index} is running");
        let name = format!("etcd member {index}");
        member.process = Some(Process::start(&name, &program("etcd")?, &member.arguments, &[], &log)?);
        Ok(())
    }

    async fn healthy(&mut self, index: usize) -> Result<()> {
        let member = &mut self.members[index];
        let url = member.client_url.clone();
        let process = member.process.as_mut().context("the member is not running")?;
        process
            .ready(Duration::from_secs(30), async || etcdctl(&url, &["endpoint", "health"]).await.is_ok())
            .await
    }

    /// Where the members keep their data and logs.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().into()
    }
}

async fn etcdctl(endpoints: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program("etcdctl")?)
        .args(["--endpoints", endpoints, "--command-timeout=5s", "--dial-timeout=2s"])
        .args(arguments)
        .kill_on_drop(true)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "etcdctl {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8(output.stdout)?)
}
