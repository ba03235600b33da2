//! kubectl cannot tell Fleetpass from Kubernetes: the same commands on both write the same.

use anyhow::{Context as _, Result, ensure};
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::compare::{Differences, diff, normal};
use fleetpass_testkit::rig::{Endpoint, FleetpassHub, HubOptions, RealCluster, eventually, program, total};
use futures::{StreamExt as _, TryStreamExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tempfile::TempDir;
use tokio::process::Command;

/// How long a step may take.
const LIMIT: Duration = Duration::from_secs(90);
/// How many sessions go on at once.
const AT_ONCE: usize = 3;

#[tokio::test(flavor = "multi_thread")]
async fn kubectl_writes_the_same_on_both() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/kubectl");
    let differences = Differences::read(&folder.join("differences.txt"))?;
    let sessions = Session::all(&folder)?;
    let options = HubOptions::default();
    let (hub, cluster) = tokio::try_join!(FleetpassHub::start(&options), RealCluster::start())?;
    let (ours, theirs) = (hub.endpoint(), cluster.endpoint());
    let outcomes: Vec<Outcome> = futures::stream::iter(&sessions)
        .map(|session| session.compare(ours, theirs, &differences))
        .buffer_unordered(AT_ONCE)
        .try_collect()
        .await?;
    let steps: usize = outcomes.iter().map(|outcome| outcome.steps).sum();
    let wrong: Vec<String> = outcomes.into_iter().flat_map(|outcome| outcome.wrong).collect();
    ensure!(wrong.is_empty(), "{} of {steps} steps differ:\n\n{}", wrong.len(), wrong.join("\n"));
    let needless = if chosen().is_none() { differences.needless() } else { Vec::new() };
    ensure!(needless.is_empty(), "nothing differs any longer for\n{}", needless.join("\n"));
    let list = differences.about("");
    total("kubectl on both", &format!("{steps} steps, the same but for {list} listed differences"))
}

/// Sessions whose names contain this are run, if it is set.
fn chosen() -> Option<String> {
    std::env::var("SESSIONS").ok()
}

/// A shell script: its steps are paragraphs.
struct Session {
    name: String,
    steps: Vec<Step>,
}

/// Some lines of shell.
struct Step {
    script: String,
    /// It is repeated until it succeeds, and what it writes is not compared: controllers take their time.
    until: bool,
}

/// How a session went.
struct Outcome {
    steps: usize,
    wrong: Vec<String>,
}

/// What a step wrote, and how it ended, without what changes from run to run.
#[derive(PartialEq)]
struct Seen {
    output: String,
    error: String,
    code: Option<i32>,
}

impl Session {
    /// All sessions of a folder.
    fn all(folder: &Path) -> Result<Vec<Self>> {
        let mut sessions = Vec::new();
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            let wanted = chosen().is_none_or(|part| name.contains(&part));
            if wanted && path.extension().is_some_and(|extension| extension == "sh") {
                let steps = std::fs::read_to_string(&path)?;
                let steps = steps.split("\n\n").filter_map(Step::parse).collect();
                sessions.push(Self { name, steps });
            }
        }
        ensure!(!sessions.is_empty(), "there is no session in {}", folder.display());
        sessions.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(sessions)
    }

    async fn compare(&self, ours: &Endpoint, theirs: &Endpoint, may: &Differences) -> Result<Outcome> {
        let (ours, theirs) = tokio::try_join!(self.go(ours), self.go(theirs))?;
        let mut outcome = Outcome { steps: 0, wrong: Vec::new() };
        for (step, (ours, theirs)) in self.steps.iter().zip(ours.iter().zip(&theirs)) {
            if step.until {
                continue;
            }
            outcome.steps += 1;
            let what = format!("{}: {}", self.name, step.script);
            if let Some((left, right)) = may.compare(&what, &ours.text(), &theirs.text()) {
                outcome.wrong.push(format!("{what}\n{}", diff(&left, &right)));
            }
        }
        Ok(outcome)
    }

    /// Does all steps on one side.
    async fn go(&self, endpoint: &Endpoint) -> Result<Vec<Seen>> {
        let shell = Shell::new(endpoint)?;
        shell.enter(&self.name).await.with_context(|| self.name.clone())?;
        let mut seen = Vec::new();
        for step in &self.steps {
            seen.push(if step.until {
                let what = format!("{} at {}: {}", self.name, endpoint.url(), step.script);
                shell.until(&what, &step.script).await?
            } else {
                shell.run(&step.script).await?
            });
        }
        Ok(seen)
    }
}

impl Step {
    /// A step, or nothing where there are comments only.
    fn parse(paragraph: &str) -> Option<Self> {
        let mut until = false;
        let mut lines = Vec::new();
        for line in paragraph.trim_matches('\n').lines() {
            match line.strip_prefix('#') {
                Some(comment) if lines.is_empty() => until |= comment.trim() == "until",
                _ => lines.push(line),
            }
        }
        let script = lines.join("\n");
        (!script.is_empty()).then_some(Self { script, until })
    }
}

impl Seen {
    fn text(&self) -> String {
        let code = self.code.map_or_else(|| "none".to_owned(), |code| code.to_string());
        let error = self.error.lines().map(|line| format!("stderr: {line}\n")).collect::<String>();
        format!("{}{error}exit code {code}\n", self.output)
    }
}

/// bash, with kubectl and a folder of its own.
struct Shell {
    folder: TempDir,
    path: String,
}

impl Shell {
    fn new(endpoint: &Endpoint) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        endpoint.write_kubeconfig(&folder.path().join("kubeconfig"), ADMIN_TOKEN)?;
        let programs: PathBuf = program("kubectl")?.parent().context("the folder of programs")?.into();
        let path = format!("{}:{}", programs.display(), std::env::var("PATH")?);
        Ok(Self { folder, path })
    }

    /// Makes a namespace, and lets kubectl work in it.
    async fn enter(&self, namespace: &str) -> Result<()> {
        let enter = format!(
            "kubectl create namespace {namespace} && kubectl config set-context --current --namespace={namespace}"
        );
        let made = self.run(&enter).await?;
        ensure!(made.code == Some(0), "{}", made.text());
        let ready = "kubectl get serviceaccount/default configmap/kube-root-ca.crt";
        self.until("the namespace has what every namespace has", ready).await?;
        Ok(())
    }

    /// Runs some lines again and again, until they succeed.
    async fn until(&self, what: &str, script: &str) -> Result<Seen> {
        eventually(what, LIMIT, async || self.run(script).await.ok().filter(|seen| seen.code == Some(0)))
            .await
    }

    /// Runs some lines.
    async fn run(&self, script: &str) -> Result<Seen> {
        let folder = self.folder.path();
        let output = Command::new("bash")
            .args(["-c", script])
            .current_dir(folder)
            .env_clear()
            .env("PATH", &self.path)
            .env("HOME", folder)
            .env("TMPDIR", folder)
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .env("KUBECACHEDIR", folder.join("cache"))
            .envs(std::env::vars_os().filter(|(key, _)| key == "FLEETPASS_RIG_RUN"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output =
            tokio::time::timeout(LIMIT, output).await.with_context(|| format!("not in time: {script}"))??;
        let text = |bytes: &[u8]| {
            normal(&String::from_utf8_lossy(bytes).replace(&folder.display().to_string(), "FOLDER"))
        };
        Ok(Seen { output: text(&output.stdout), error: text(&output.stderr), code: output.status.code() })
    }
}
