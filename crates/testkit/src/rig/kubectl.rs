//! kubectl as a user of a control plane.

use super::endpoint::Endpoint;
use super::programs::program;
use anyhow::{Context, Result, ensure};
use std::process::{Output, Stdio};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// kubectl with a kubeconfig and a discovery cache of its own.
pub struct Kubectl {
    folder: TempDir,
}

impl Kubectl {
    /// One for the user of a bearer token.
    pub fn new(endpoint: &Endpoint, token: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        endpoint.write_kubeconfig(&folder.path().join("kubeconfig"), token)?;
        Ok(Self { folder })
    }

    /// Runs it; what it wrote and how it ended.
    pub async fn output(&self, arguments: &[&str], input: &str) -> Result<Output> {
        let mut child = Command::new(program("kubectl")?)
            .env_clear()
            .env("KUBECONFIG", self.folder.path().join("kubeconfig"))
            .env("KUBECACHEDIR", self.folder.path().join("cache"))
            .env("HOME", self.folder.path())
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start kubectl")?;
        let mut stdin = child.stdin.take().context("its input")?;
        stdin.write_all(input.as_bytes()).await?;
        drop(stdin);
        Ok(child.wait_with_output().await?)
    }

    /// Runs it; what it wrote to its output.
    ///
    /// # Errors
    ///
    /// It says that it failed: with what it wrote to its error output.
    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        self.run_with(arguments, "").await
    }

    /// [`Kubectl::run`] with input.
    pub async fn run_with(&self, arguments: &[&str], input: &str) -> Result<String> {
        let output = self.output(arguments, input).await?;
        ensure!(
            output.status.success(),
            "kubectl {}: {}",
            arguments.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?)
    }
}
