//! Clients in other languages cannot tell Fleetpass from Kubernetes: their programs see the same on both.

use anyhow::{Context as _, Result, ensure};
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::compare::{Differences, diff, normal};
use fleetpass_testkit::rig::{Endpoint, FleetpassHub, HubOptions, RealCluster, program, total};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// How long a program may take.
const LIMIT: Duration = Duration::from_secs(240);

/// A language with its client.
struct Language {
    name: &'static str,
    client: &'static str,
    /// What runs a program, in the folder that `cargo xtask conformance` has made for the language; else it is on PATH.
    runs: &'static str,
    main: &'static str,
}

const LANGUAGES: [Language; 2] = [
    Language { name: "python", client: "kubernetes (Python)", runs: "bin/python", main: "main.py" },
    Language { name: "node", client: "@kubernetes/client-node", runs: "node", main: "main.js" },
];

#[tokio::test(flavor = "multi_thread")]
async fn programs_see_the_same_on_both() -> Result<()> {
    let list = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/clients/differences.txt");
    let differences = Differences::read(&list)?;
    let options = HubOptions::default();
    let (mut hub, mut cluster) = tokio::try_join!(FleetpassHub::start(&options), RealCluster::start())?;
    // Started again, neither remembers what was before: a watch from there has to begin anew on both.
    tokio::try_join!(
        async {
            hub.halt().await?;
            hub.resume().await
        },
        async {
            cluster.halt().await?;
            cluster.resume().await
        }
    )?;
    let compare = |language| compare(language, hub.endpoint(), cluster.endpoint(), &differences);
    let (python, node) = tokio::join!(compare(&LANGUAGES[0]), compare(&LANGUAGES[1]));
    if let (Err(python), Err(node)) = (&python, &node) {
        anyhow::bail!("{python:#}\n{node:#}");
    }
    let all = python? && node?;
    let needless = if all { differences.needless() } else { Vec::new() };
    ensure!(needless.is_empty(), "nothing differs any longer for\n{}", needless.join("\n"));
    Ok(())
}

/// Whether a language's program saw the same on both; `false`, if the language cannot be had.
async fn compare(language: &Language, ours: &Endpoint, theirs: &Endpoint, may: &Differences) -> Result<bool> {
    let Language { name, client, .. } = language;
    if let Some(missing) = language.missing()? {
        total(client, &format!("NOT CHECKED: {missing}"))?;
        return Ok(false);
    }
    let (ours, theirs) = tokio::try_join!(language.run(ours), language.run(theirs))?;
    let (ours, theirs) = (sections(&ours), sections(&theirs));
    let titles = |all: &[(String, String)]| all.iter().map(|(title, _)| title.clone()).collect::<Vec<_>>();
    ensure!(titles(&ours) == titles(&theirs), "{name}: {:?}, {:?}", titles(&ours), titles(&theirs));
    ensure!(ours.last().is_some_and(|(title, _)| title == "the end"), "{name} ends early");
    let mut wrong = Vec::new();
    let mut lines = 0;
    for ((title, ours), (_, theirs)) in ours.iter().zip(&theirs) {
        lines += theirs.lines().count();
        let what = format!("{name}: {title}");
        if let Some((left, right)) = may.compare(&what, ours, theirs) {
            wrong.push(format!("{what}\n{}", diff(&left, &right)));
        }
    }
    ensure!(wrong.is_empty(), "{} sections differ:\n\n{}", wrong.len(), wrong.join("\n"));
    let (sections, list) = (ours.len(), may.about(&format!("{name}:")));
    let differing = if list == 0 { String::new() } else { format!(" but for {list} listed differences") };
    total(client, &format!("{lines} lines in {sections} sections, the same on both{differing}"))?;
    Ok(true)
}

/// The sections of a transcript, without what changes from run to run.
fn sections(transcript: &str) -> Vec<(String, String)> {
    let parts = transcript.split("== ").skip(1).filter_map(|part| part.split_once('\n'));
    parts.map(|(title, text)| (title.to_owned(), normal(text))).collect()
}

impl Language {
    /// The folder that was prepared for it.
    fn prepared(&self) -> Result<PathBuf> {
        let programs = program("kubectl")?;
        let folder = programs.parent().and_then(Path::parent).context("the folder above the programs")?;
        Ok(folder.join(self.name))
    }

    /// What is missing for it, if it cannot be had.
    ///
    /// # Errors
    ///
    /// Nobody has tried to prepare it.
    fn missing(&self) -> Result<Option<String>> {
        let folder = self.prepared()?;
        if let Ok(missing) = std::fs::read_to_string(folder.join("missing")) {
            return Ok(Some(missing.trim().to_owned()));
        }
        ensure!(folder.is_dir(), "{} is not there: run `cargo xtask conformance build`", folder.display());
        Ok(None)
    }

    /// Runs its program; the transcript.
    async fn run(&self, endpoint: &Endpoint) -> Result<String> {
        let prepared = self.prepared()?;
        let work = tempfile::tempdir()?;
        let folder = work.path();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/clients").join(self.name);
        for entry in std::fs::read_dir(&sources)? {
            let path = entry?.path();
            std::fs::copy(&path, folder.join(path.file_name().context("a name")?))?;
        }
        if prepared.join("node_modules").is_dir() {
            std::os::unix::fs::symlink(prepared.join("node_modules"), folder.join("node_modules"))?;
        }
        endpoint.write_kubeconfig(&folder.join("kubeconfig"), ADMIN_TOKEN)?;
        let inside = prepared.join(self.runs);
        let runs = if inside.is_file() { inside } else { self.runs.into() };
        let output = Command::new(runs)
            .arg(self.main)
            .current_dir(folder)
            .env_clear()
            .env("PATH", std::env::var("PATH")?)
            .env("HOME", folder)
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .envs(std::env::vars_os().filter(|(key, _)| key == "FLEETPASS_RIG_RUN"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(LIMIT, output).await.with_context(|| self.name)??;
        let (text, error) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "{} at {}:\n{text}\n{error}", self.name, endpoint.url());
        Ok(text.into_owned())
    }
}
