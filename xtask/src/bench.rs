//! `cargo xtask bench`: builds the programs that are measured and the one that measures, and runs it.

use crate::Workspace;
use crate::conformance::leftovers;
use crate::conformance::programs::{self, Profile};
use crate::steps::in_steps;
use anyhow::{Context as _, Result, ensure};
use std::path::{Path, PathBuf};
use std::process::Command;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The parts to measure (`tokens`, `api`, `store`, `agents`, `fleet`, `start`, `attacks`); all parts if none is named.
    parts: Vec<String>,

    /// Only see that everything works: no figure means anything.
    #[arg(long)]
    quick: bool,

    /// The folder for the results, instead of `bench` in cargo's target folder.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Builds everything as it is shipped, and measures.
///
/// # Errors
///
/// A program cannot be built (without Go: how to get it), or something that is measured fails.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    // A quick run takes what `cargo xtask conformance` has built.
    let profile = if arguments.quick { Profile::Release } else { Profile::Dist };
    in_steps(|steps| {
        let folder = steps.run("programs", || programs::build(workspace, profile))?;
        let bench = steps.run("build of the benchmark", || build(workspace, arguments.quick))?;
        steps.run("benchmark", || measure(workspace, arguments, &folder, &bench))
    })
}

/// Builds the program that measures, and gives its path.
fn build(workspace: &Workspace, quick: bool) -> Result<PathBuf> {
    let (profile, folder) = if quick { ("dev", "debug") } else { ("measure", "measure") };
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--workspace", "--locked", "--quiet", "--profile", profile]);
    cargo.args(["--bin", "fleetpass-bench", "--features", "fleetpass-bench/rig"]);
    if quick {
        // No figure means anything, so what `cargo xtask conformance` has built will do. cargo takes it only if a test is
        // built too: without one it leaves out the features that tests need, of tokio for one, and builds all again.
        cargo.args(["--test", "rig_recordings"]);
    }
    ensure!(cargo.status().context("cannot run cargo")?.success(), "cargo cannot build it: see above");
    Ok(workspace.target(folder).join("fleetpass-bench"))
}

/// Runs the program that measures, and kills what it leaves running.
fn measure(workspace: &Workspace, arguments: &Arguments, programs: &Path, bench: &Path) -> Result<()> {
    let output = arguments.output.clone().unwrap_or_else(|| workspace.target("bench"));
    // What is written to disk has to get there: folders for temporary files are in memory on some systems.
    let temporary = workspace.target("bench/tmp");
    std::fs::create_dir_all(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
    let run = format!("{}-bench", std::process::id());
    let mut bench = Command::new(bench);
    bench.args(&arguments.parts).arg("--output").arg(&output);
    if arguments.quick {
        bench.arg("--quick");
    }
    let status = bench
        .env("FLEETPASS_RIG", programs)
        .env(leftovers::RUN, &run)
        .env("TMPDIR", &temporary)
        .status()
        .context("cannot run the benchmark")?;
    let left = leftovers::kill(&run)?;
    ensure!(status.success(), "the benchmark failed: see above");
    ensure!(left == 0, "the benchmark left {left} programs running, which were killed");
    Ok(())
}
