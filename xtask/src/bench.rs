//! `cargo xtask bench`: builds the programs that are measured and the one that measures, and runs it.

use crate::Workspace;
use crate::conformance::{leftovers, programs};
use anyhow::{Context as _, Result, ensure};
use std::path::PathBuf;

/// What to measure.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The parts to measure (`tokens`, `api`, `store`, `agents`, `fleet`, `start`); all parts if none is named.
    parts: Vec<String>,

    /// Only see that everything works: no figure means anything.
    #[arg(long)]
    quick: bool,

    /// The folder for the results, instead of `bench` in cargo's target folder.
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Builds everything with optimisation, and measures.
///
/// # Errors
///
/// A program cannot be built (without Go: how to get it), or something that is measured fails.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let folder = programs::build(workspace, false)?;
    println!("building the benchmark");
    // In a quick run no figure means anything, and what the tests have built is at hand.
    let profile = if arguments.quick { "dev" } else { "measure" };
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--workspace", "--locked", "--quiet", "--profile", profile]);
    cargo.args(["--bin", "fleetpass-bench", "--features", "fleetpass-bench/rig"]);
    ensure!(cargo.status().context("cannot run cargo")?.success(), "cargo cannot build it: see above");
    let folder_of_profile = if arguments.quick { "debug" } else { profile };
    let output = arguments.output.clone().unwrap_or_else(|| workspace.target("bench"));
    // What is written to disk has to get there: folders for temporary files are in memory on some systems.
    let temporary = workspace.target("bench/tmp");
    std::fs::create_dir_all(&temporary).with_context(|| format!("cannot make {}", temporary.display()))?;
    let run = format!("{}-bench", std::process::id());
    let mut bench = std::process::Command::new(workspace.target(folder_of_profile).join("fleetpass-bench"));
    bench.args(&arguments.parts).arg("--output").arg(&output);
    if arguments.quick {
        bench.arg("--quick");
    }
    let status = bench
        .env("FLEETPASS_RIG", &folder)
        .env(leftovers::RUN, &run)
        .env("TMPDIR", &temporary)
        .status()
        .context("cannot run the benchmark")?;
    let left = leftovers::kill(&run)?;
    ensure!(status.success(), "the benchmark failed: see above");
    ensure!(left == 0, "the benchmark left {left} programs running, which were killed");
    Ok(())
}
