//! `cargo xtask conformance`: real programs are built, the suites run against them, and what they counted is printed.

mod languages;
pub(crate) mod leftovers;
pub(crate) mod programs;
mod suites;

use crate::Workspace;
use crate::steps::in_steps;
use anyhow::{Result, ensure};
use std::num::NonZero;
use std::path::Path;
use std::time::Instant;

/// What to run.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The suites to run (`recordings`, `agent`, …); `build` only builds the programs; all suites if none is named.
    suites: Vec<String>,

    /// Test a `fleetpass` built without optimisation, which builds faster.
    #[arg(long)]
    dev: bool,

    /// How many suites run at a time.
    #[arg(long, value_name = "N", default_value = "2")]
    jobs: NonZero<usize>,

    /// Fail where a language of the suite `clients` is not on this machine, instead of saying NOT CHECKED.
    #[arg(long)]
    complete: bool,
}

/// Builds the programs, runs the suites, prints their totals.
///
/// # Errors
///
/// A program cannot be built (without Go: how to get it), there is no such suite, a language is missing of which that is
/// not accepted, or a suite failed.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let known = suites::find(workspace)?;
    let build_only = arguments.suites == ["build"];
    let chosen = suites::choose(&known, if build_only { &[] } else { &arguments.suites })?;
    in_steps(|steps| {
        let folder = steps.run("programs", || programs::build(workspace, arguments.dev))?;
        if chosen.iter().any(|suite| suite == languages::SUITE) {
            steps.run("clients in other languages", || languages::prepare(workspace, arguments.complete))?;
        }
        if build_only {
            println!("The programs are in {}", folder.display());
            return Ok(());
        }
        steps.run("build of the suites", || suites::build(workspace, &chosen))?;
        steps.run("suites", || run_suites(workspace, &folder, &chosen, arguments.jobs))
    })
}

/// Runs the suites, and prints what they counted.
fn run_suites(workspace: &Workspace, programs: &Path, suites: &[String], jobs: NonZero<usize>) -> Result<()> {
    let began = Instant::now();
    let results = suites::run(workspace, programs, suites, jobs)?;
    suites::print_totals(&results, began.elapsed());
    let failed: Vec<&str> =
        results.iter().filter(|result| !result.passed).map(|result| result.suite.as_str()).collect();
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}
