//! The suites: the test targets `rig_*` of the testkit, which need real programs.

use super::leftovers;
use crate::Workspace;
use anyhow::{Context as _, Result, bail, ensure};
use std::num::NonZero;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What the names of the suites' test targets begin with.
const PREFIX: &str = "rig_";

/// How a suite went.
#[derive(Debug)]
pub(super) struct SuiteResult {
    /// Its name.
    pub(super) suite: String,
    /// Whether all its tests passed.
    pub(super) passed: bool,
    took: Duration,
    /// What it counted: what was checked, and what was seen.
    totals: Vec<(String, String)>,
    /// Programs that it left running.
    left: usize,
}

/// The names of all suites, sorted.
pub(super) fn find(workspace: &Workspace) -> Result<Vec<String>> {
    let folder = workspace.path("crates/testkit/tests");
    let mut names = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
        let name = entry?.file_name();
        let name = name.to_string_lossy();
        let suite = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(".rs"));
        names.extend(suite.map(str::to_owned));
    }
    names.sort();
    Ok(names)
}

/// Those that were asked for, or all.
pub(super) fn choose(known: &[String], asked: &[String]) -> Result<Vec<String>> {
    if let Some(unknown) = asked.iter().find(|suite| !known.contains(suite)) {
        bail!("there is no suite {unknown}; there are {} and `build`", known.join(", "));
    }
    Ok(if asked.is_empty() { known.to_vec() } else { asked.to_vec() })
}

/// Builds the suites.
pub(super) fn build(workspace: &Workspace, suites: &[String]) -> Result<()> {
    let mut cargo = cargo_test(workspace, suites);
    ensure!(
        cargo.args(["--no-run", "--quiet"]).status().context("cannot run cargo")?.success(),
        "cargo cannot build the suites: see above"
    );
    Ok(())
}

/// Runs the suites, `jobs` at a time; one that fails does not keep the next from running. What a suite wrote is printed
/// when it ends.
pub(super) fn run(
    workspace: &Workspace,
    programs: &Path,
    suites: &[String],
    jobs: NonZero<usize>,
) -> Result<Vec<SuiteResult>> {
    let next = AtomicUsize::new(0);
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..jobs.get() {
            scope.spawn(|| {
                while let Some(suite) = suites.get(next.fetch_add(1, Ordering::Relaxed)) {
                    println!("{suite}: begins");
                    let result = run_one(workspace, programs, suite);
                    results.lock().unwrap_or_else(PoisonError::into_inner).push(result);
                }
            });
        }
    });
    let mut results = results
        .into_inner()
        .unwrap_or_else(PoisonError::into_inner)
        .into_iter()
        .collect::<Result<Vec<_>>>()?;
    results.sort_by(|a, b| a.suite.cmp(&b.suite));
    Ok(results)
}

/// `cargo test` of these suites: with all of the workspace, so that nothing is built anew that `cargo test --workspace`
/// has built.
fn cargo_test(workspace: &Workspace, suites: &[String]) -> Command {
    let mut cargo = workspace.cargo();
    cargo.args(["test", "--workspace", "--locked", "--features", "fleetpass-testkit/rig"]);
    for suite in suites {
        cargo.arg("--test").arg(format!("{PREFIX}{suite}"));
    }
    cargo
}

fn run_one(workspace: &Workspace, programs: &Path, suite: &str) -> Result<SuiteResult> {
    let report = tempfile::NamedTempFile::new().context("cannot make a file for totals")?;
    let run = format!("{}-{suite}", std::process::id());
    let began = Instant::now();
    let output = cargo_test(workspace, &[suite.to_owned()])
        .arg("--quiet")
        // All tests of a suite at once: they wait more than they work.
        .args(["--", "--test-threads=8"])
        .env("FLEETPASS_RIG", programs)
        .env("FLEETPASS_RIG_REPORT", report.path())
        .env(leftovers::RUN, &run)
        .output()
        .context("cannot run cargo")?;
    let took = began.elapsed();
    let left = leftovers::kill(&run)?;
    let totals = std::fs::read_to_string(report.path()).context("cannot read the totals")?;
    let totals = totals
        .lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(what, seen)| (what.to_owned(), seen.to_owned()))
        .collect();
    // A suite that passes and leaves programs behind has a fault, too.
    let passed = output.status.success() && left == 0;
    println!(
        "\n--- {suite}: {}\n{}{}",
        if passed { "passed" } else { "FAILED" },
        String::from_utf8_lossy(&output.stderr),
        String::from_utf8_lossy(&output.stdout)
    );
    Ok(SuiteResult { suite: suite.into(), passed, took, totals, left })
}

/// Prints what each suite counted.
pub(super) fn print_totals(results: &[SuiteResult], took: Duration) {
    println!("\n{:<12} {:<7} {:>6}  totals", "suite", "result", "time");
    for result in results {
        let verdict = if result.passed { "passed" } else { "FAILED" };
        println!("{:<12} {verdict:<7} {:>4} s", result.suite, result.took.as_secs());
        let mut totals = result.totals.clone();
        totals.sort();
        for (what, seen) in totals {
            println!("{:<29}{what}: {seen}", "");
        }
        if result.left > 0 {
            println!("{:<29}left {} programs running, which were killed", "", result.left);
        }
    }
    println!("in {} s", took.as_secs());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suites_are_chosen_by_name() {
        let known = ["agent".to_owned(), "etcd".to_owned()];
        assert_eq!(choose(&known, &[]).ok().as_deref(), Some(&known[..]));
        assert_eq!(choose(&known, &["etcd".into()]).ok().as_deref(), Some(&known[1..]));
        let error = choose(&known, &["etdc".into()]).err().map(|error| error.to_string());
        assert_eq!(error.as_deref(), Some("there is no suite etdc; there are agent, etcd and `build`"));
    }
}
