//! `cargo xtask fuzz`: the targets of `crates/fuzz-targets` under libFuzzer, one after the other.

use crate::Workspace;
use crate::steps::in_steps;
use anyhow::{Context as _, Result, bail, ensure};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What to fuzz.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The targets (`json`, `patches`, …); all if none is named.
    targets: Vec<String>,

    /// For how long each target runs.
    #[arg(long, value_name = "N", default_value = "10", value_parser = clap::value_parser!(u32).range(1..))]
    minutes: u32,

    /// Do not fuzz: keep what was found so far, as little of it as covers as much, for `cargo test` to replay.
    #[arg(long)]
    keep: bool,
}

/// The longest input that is kept: what is longer makes a repository big and a test slow.
const MAX_KEPT: u64 = 4096;

/// Runs the targets, or keeps what they found.
///
/// # Errors
///
/// A tool is missing (how to get it), there is no such target, or one failed: libFuzzer has printed where the input is.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let known = targets(workspace)?;
    if let Some(unknown) = arguments.targets.iter().find(|target| !known.contains(*target)) {
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        bail!("there is no target {unknown}; there are: {}", known.join(", "));
    }
    check_tools()?;
    let seeds = workspace.target("fuzz-seeds");
    in_steps(|steps| {
        steps.run("seeds", || write_seeds(workspace, &seeds))?;
        for target in known.iter().filter(|t| arguments.targets.is_empty() || arguments.targets.contains(t)) {
            steps.run(target, || {
                let places = Places::new(workspace, &seeds, target)?;
                if arguments.keep {
                    places.keep(workspace, target)
                } else {
                    places.fuzz(workspace, target, arguments.minutes)
                }
            })?;
        }
        Ok(())
    })
}

/// The programs in `fuzz/fuzz_targets`.
fn targets(workspace: &Workspace) -> Result<BTreeSet<String>> {
    let folder = workspace.path("fuzz/fuzz_targets");
    let entries = fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names =
        entries.map(|entry| Ok(entry?.path().file_stem().map(|stem| stem.to_string_lossy().into_owned())));
    names.filter_map(Result::transpose).collect()
}

/// libFuzzer needs a compiler that can instrument code.
fn check_tools() -> Result<()> {
    let works = |program: &str, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    ensure!(
        works("rustup", &["run", "nightly", "rustc", "--version"]),
        "fuzzing needs a nightly compiler: rustup toolchain install nightly --profile minimal"
    );
    ensure!(
        works("cargo", &["fuzz", "--version"]),
        "fuzzing needs cargo-fuzz: cargo install cargo-fuzz --locked"
    );
    Ok(())
}

/// What the recorded conversations give, anew each time.
fn write_seeds(workspace: &Workspace, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--quiet", "--package", "fleetpass-fuzz-targets", "--example", "seeds", "--"]);
    let status = cargo.arg(folder).status().context("cannot run cargo")?;
    ensure!(status.success(), "the seeds cannot be written: see above");
    Ok(())
}

/// The corpora of a target.
struct Places {
    /// From the recordings.
    seeds: PathBuf,
    /// What is committed.
    kept: PathBuf,
    /// What was found on this machine.
    found: PathBuf,
}

impl Places {
    fn new(workspace: &Workspace, seeds: &Path, target: &str) -> Result<Self> {
        let places = Self {
            seeds: seeds.join(target),
            kept: workspace.path("crates/fuzz-targets/corpus").join(target),
            found: workspace.path("fuzz/corpus").join(target),
        };
        for folder in [&places.seeds, &places.kept, &places.found] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(places)
    }

    fn fuzz(&self, workspace: &Workspace, target: &str, minutes: u32) -> Result<()> {
        let limit = format!("-max_total_time={}", u64::from(minutes) * 60);
        // As long as the longest input that is kept: longer ones are the matter of tests/deep.rs.
        let options =
            [limit.as_str(), "-max_len=4096", "-rss_limit_mb=2048", "-timeout=10", "-print_final_stats=1"];
        libfuzzer(workspace, target, &[&self.found, &self.kept, &self.seeds], &options)
    }

    /// Keeps what covers more than the seeds do.
    fn keep(&self, workspace: &Workspace, target: &str) -> Result<()> {
        let merged = workspace.target("fuzz-merged").join(target);
        if merged.exists() {
            fs::remove_dir_all(&merged)?;
        }
        fs::create_dir_all(&merged)?;
        for seed in fs::read_dir(&self.seeds)? {
            let seed = seed?;
            fs::copy(seed.path(), merged.join(seed.file_name()))?;
        }
        let seeds: BTreeSet<_> =
            fs::read_dir(&merged)?.map(|file| Ok(file?.file_name())).collect::<Result<_>>()?;
        libfuzzer(
            workspace,
            target,
            &[&merged, &self.kept, &self.found],
            &["-merge=1", "-rss_limit_mb=2048"],
        )?;
        for old in fs::read_dir(&self.kept)? {
            fs::remove_file(old?.path())?;
        }
        let mut kept = 0;
        for file in fs::read_dir(&merged)? {
            let file = file?;
            if !seeds.contains(&file.file_name()) && file.metadata()?.len() <= MAX_KEPT {
                fs::copy(file.path(), self.kept.join(file.file_name()))?;
                kept += 1;
            }
        }
        println!("{kept} inputs are kept in {}", self.kept.display());
        Ok(())
    }
}

fn libfuzzer(workspace: &Workspace, target: &str, corpora: &[&Path], options: &[&str]) -> Result<()> {
    let mut command = Command::new("rustup");
    // The environment of the cargo that runs this names its own toolchain.
    command.env_remove("CARGO").env_remove("RUSTUP_TOOLCHAIN").current_dir(workspace.path("fuzz"));
    command.args(["run", "nightly", "cargo", "fuzz", "run", target]);
    command.args(corpora);
    let status = command.arg("--").args(options).status().context("cannot run cargo fuzz")?;
    ensure!(
        status.success(),
        "{target} failed: the input is below fuzz/artifacts/{target}; CONTRIBUTING.md says what to do"
    );
    Ok(())
}
