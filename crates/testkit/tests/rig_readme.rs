//! README's section on Kubernetes, executed line by line, on a real hub and a real cluster.

use anyhow::{Context as _, Result, ensure};
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::{ControlPlane, Endpoint, Kubectl, RealClusterOptions, total};
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

const SECTION: &str = "## On Kubernetes\n";
/// What the script writes before each command whose output is shown.
const MARK: &str = "@@ next command";

#[tokio::test(flavor = "multi_thread")]
async fn the_section_on_kubernetes_goes_as_it_says() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
    let readme = std::fs::read_to_string(root.join("README.md"))?;
    let walk = Walk::read(&readme)?;

    // The hub has no ManagedServiceAccount yet, and the context names are the reader's.
    let hub = ControlPlane::kubernetes(&RealClusterOptions::default()).await?;
    let cluster = ControlPlane::kubernetes(&RealClusterOptions::default()).await?;
    let administrator = Kubectl::new(hub.endpoint(), ADMIN_TOKEN)?;
    let definition =
        "customresourcedefinition/managedserviceaccounts.authentication.open-cluster-management.io";
    administrator.run(&["delete", definition]).await?;
    let folder = tempfile::tempdir()?;
    std::os::unix::fs::symlink(root.join("deploy"), folder.path().join("deploy"))?;
    let kubeconfig = folder.path().join("kubeconfig");
    contexts(&kubeconfig, &[("hub", hub.endpoint()), ("cluster1", cluster.endpoint())]).await?;

    let shown = walk.execute(folder.path(), &kubeconfig).await?;
    ensure!(shown.len() == walk.shown.len(), "{} commands, {} outputs", walk.shown.len(), shown.len());
    for ((command, said), seen) in walk.shown.iter().zip(&shown) {
        ensure!(said.trim() == seen.trim(), "{command}\nREADME says\n{said}\nbut it is\n{seen}");
    }
    total(
        "README, on Kubernetes",
        &format!("{} lines executed, {} outputs as shown", walk.lines, shown.len()),
    )
}

/// A kubeconfig with these contexts, for the administrator.
async fn contexts(path: &Path, planes: &[(&str, &Endpoint)]) -> Result<()> {
    let program = fleetpass_testkit::rig::program("kubectl")?;
    for (name, endpoint) in planes {
        let ca = path.with_extension(name);
        std::fs::write(&ca, &endpoint.ca_pem)?;
        let ca = ca.display().to_string();
        for arguments in [
            vec![
                "set-cluster",
                name,
                "--server",
                &endpoint.url(),
                "--certificate-authority",
                &ca,
                "--embed-certs",
            ],
            vec!["set-credentials", "administrator", "--token", ADMIN_TOKEN],
            vec!["set-context", name, "--cluster", name, "--user", "administrator"],
        ] {
            let run = Command::new(&program)
                .arg("config")
                .args(&arguments)
                .env("KUBECONFIG", path)
                .output()
                .await?;
            ensure!(run.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&run.stderr));
        }
    }
    Ok(())
}

/// The commands of the section, and what it says that they show.
struct Walk {
    script: String,
    lines: usize,
    shown: Vec<(String, String)>,
}

impl Walk {
    fn read(readme: &str) -> Result<Self> {
        let section = readme.split_once(SECTION).context("the section is not there")?.1;
        let section = section.split("\n## ").next().unwrap_or_default();
        let mut walk = Self { script: String::new(), lines: 0, shown: Vec::new() };
        let mut block = None;
        for line in section.lines() {
            match (block, line.strip_prefix("```")) {
                (None, Some(language)) => block = Some(language),
                (Some(_), Some(_)) => block = None,
                (Some("sh"), None) => walk.add(line),
                (Some("console"), None) => walk.show(line)?,
                (Some(other), None) => anyhow::bail!("a block of {other}, which nobody executes"),
                (None, None) => {}
            }
        }
        ensure!(walk.lines > 0 && !walk.shown.is_empty(), "nothing to execute");
        Ok(walk)
    }

    fn add(&mut self, line: &str) {
        self.script.push_str(line);
        self.script.push('\n');
        self.lines += usize::from(!line.trim().is_empty());
    }

    fn show(&mut self, line: &str) -> Result<()> {
        if let Some(command) = line.strip_prefix("$ ") {
            self.script.push_str(&format!("echo '{MARK}'\n"));
            self.add(command);
            self.shown.push((command.into(), String::new()));
        } else {
            let said = &mut self.shown.last_mut().context("output before a command")?.1;
            said.push_str(line);
            said.push('\n');
        }
        Ok(())
    }

    /// Executes all lines in one shell; what the commands showed.
    async fn execute(&self, folder: &Path, kubeconfig: &Path) -> Result<Vec<String>> {
        let programs = fleetpass_testkit::rig::program("kubectl")?;
        let programs = programs.parent().context("the folder of programs")?.display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH")?);
        let log = std::fs::File::create(folder.join("background.log"))?;
        // What runs in the background writes to a file of its own, and ends with the shell.
        let script = format!(
            "set -euo pipefail\nexec 3>&1 2>&1\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{}\nexit 0\n",
            self.script.replace(" &\n", " >>background.log 2>&1 &\n")
        );
        drop(log);
        let mut shell = Command::new("bash");
        shell
            .args(["-c", &script])
            .current_dir(folder)
            .env_clear()
            .env("PATH", path)
            .env("HOME", folder)
            .env("KUBECONFIG", kubeconfig)
            .envs(std::env::vars_os().filter(|(key, _)| key == "FLEETPASS_RIG_RUN"))
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let ended = tokio::time::timeout(Duration::from_secs(300), shell.output()).await??;
        let output = String::from_utf8_lossy(&ended.stdout).into_owned();
        let background = std::fs::read_to_string(folder.join("background.log")).unwrap_or_default();
        ensure!(ended.status.success(), "{}:\n{output}\nin the background:\n{background}", ended.status);
        Ok(output.split(MARK).skip(1).map(|text| text.trim().to_owned()).collect())
    }
}
