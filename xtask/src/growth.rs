//! `cargo xtask growth`: how the work of the worst requests grows with their size (`crates/growth`).
//!
//! Twice: as it is, with bodies of the largest size, what they allocate; and under callgrind, smaller because that is fifty times
//! slower, how many instructions they take. Both are numbers that no other load on the machine changes.

use crate::Workspace;
use crate::callgrind::{self, Callgrind};
use crate::steps::in_steps;
use anyhow::{Context as _, Result, bail, ensure};
use std::path::Path;
use std::process::{Command, Stdio};

/// Which rows.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only rows whose name contains one of these (`yaml/`, `strategic`).
    rows: Vec<String>,
}

/// The largest body: the limit of the server.
const BODY: u64 = 3 * 1024 * 1024;
/// The largest body under callgrind.
const COUNTED: u64 = 128 * 1024;
/// How much faster than its size the work may grow.
const MOST: f64 = 1.3;

/// What is counted, and the bounds.
struct Bounds {
    /// What it is.
    unit: &'static str,
    /// What is less in all is not compared, nor what goes beyond by less: each request has a cost of its own, vectors grow in
    /// steps, and the server does something by itself now and then.
    few: u64,
    /// The ceiling for each byte that is sent.
    per_byte: u64,
}

const INSTRUCTIONS: Bounds = Bounds { unit: "instructions", few: 3_000_000, per_byte: 40_000 };
const ALLOCATIONS: Bounds = Bounds { unit: "bytes allocated", few: 1_000_000, per_byte: 4_000 };

/// The function that makes a request, by the name under which callgrind knows it.
const REQUEST: &str = "growth::measure::growth_of_one_request";
/// How many rows one process runs: starting a server takes longer than most rows.
const ROWS: usize = 6;
/// After so many seconds a process is ended, because a row does not end. This measures nothing.
const GIVE_UP: &str = "600";

/// Builds the program and runs all rows.
///
/// # Errors
///
/// valgrind is missing (how to get it), a row fails, or the work of one grows too fast.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    callgrind::check()?;
    in_steps(|steps| {
        steps.run("build", || {
            let mut cargo = workspace.cargo();
            cargo.args(["build", "--release", "--locked", "--quiet", "--package", "fleetpass-growth"]);
            ensure!(
                cargo.status().context("cannot run cargo")?.success(),
                "cargo cannot build it: see above"
            );
            Ok(())
        })?;
        let program = workspace.target("release/growth");
        let rows = rows(&program, &arguments.rows)?;
        let folder = tempfile::tempdir().context("cannot make a temporary folder")?;
        // First the smaller requests: what is out of bounds there would need all memory, or never end, in the largest size.
        steps.run("instructions", || {
            let counted = in_parallel(&rows, |rows| count(&program, folder.path(), rows))?;
            report(&rows, &counted, &INSTRUCTIONS)
        })?;
        steps.run("allocations", || {
            let run = |rows: &[String]| measure(&mut Command::new(&program), BODY, rows);
            report(&rows, &in_parallel(&rows, run)?, &ALLOCATIONS)
        })
    })
}

/// The names of the rows.
fn rows(program: &Path, wanted: &[String]) -> Result<Vec<String>> {
    let output = Command::new(program).arg("list").output().context("cannot run the program")?;
    let text = String::from_utf8(output.stdout).context("names are text")?;
    let is_wanted = |row: &&str| wanted.is_empty() || wanted.iter().any(|part| row.contains(part));
    let rows: Vec<String> = text.lines().filter(is_wanted).map(Into::into).collect();
    ensure!(!rows.is_empty(), "there is no such row");
    Ok(rows)
}

/// Runs `work` on a few rows at a time, and gives what it gave for each row, in order.
fn in_parallel<T: Send>(
    rows: &[String],
    work: impl Fn(&[String]) -> Result<Vec<T>> + Sync,
) -> Result<Vec<T>> {
    let chunks: Vec<&[String]> = rows.chunks(ROWS).collect();
    Ok(callgrind::in_parallel(&chunks, |chunk| work(chunk))?.into_iter().flatten().collect())
}

/// What one row cost, in the smaller and the larger size.
#[derive(Debug, Clone, Copy, Default)]
struct Pair {
    /// The sizes that were asked for, in bytes.
    size: [u64; 2],
    /// What it cost.
    cost: [u64; 2],
}

impl Pair {
    /// How many times faster the cost grew than the size.
    fn growth(&self) -> f64 {
        let times = |[small, large]: [u64; 2]| large as f64 / small.max(1) as f64;
        times(self.cost) / times(self.size)
    }

    /// What a byte costs in the larger size.
    fn per_byte(&self) -> u64 {
        self.cost[1] / self.size[1].max(1)
    }
}

/// Runs rows, and gives what they allocate. `command` is the program, or something that runs it.
fn measure(command: &mut Command, largest: u64, rows: &[String]) -> Result<Vec<Pair>> {
    command.arg("run").arg(largest.to_string()).args(rows);
    let mut limited = Command::new("timeout");
    limited.arg(GIVE_UP).arg(command.get_program()).args(command.get_args());
    let output = limited.stderr(Stdio::piped()).output().context("cannot run the program")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Vec<u64>> = text.lines().map(numbers).collect();
    if !output.status.success() || lines.len() != 2 * rows.len() {
        let error = String::from_utf8_lossy(&output.stderr);
        let row = rows.get(lines.len() / 2).map_or("no row", String::as_str);
        bail!("{row} does not run: {}\n{error}", output.status);
    }
    let pairs = lines.chunks_exact(2).map(|lines| match lines {
        [small, large] if small.len() >= 3 && large.len() >= 3 => {
            Ok(Pair { size: [small[0], large[0]], cost: [small[2], large[2]] })
        }
        _ => bail!("the program prints something else:\n{text}"),
    });
    pairs.collect()
}

/// The numbers at the beginning of a line.
fn numbers(line: &str) -> Vec<u64> {
    line.split(' ').map_while(|word| word.parse().ok()).collect()
}

/// Runs rows under callgrind, which counts all instructions between the beginning and the end of a request.
fn count(program: &Path, folder: &Path, rows: &[String]) -> Result<Vec<Pair>> {
    let folder = tempfile::tempdir_in(folder).context("cannot make a temporary folder")?;
    let callgrind = Callgrind::new(folder.path().join("callgrind"))?;
    let pairs = measure(&mut callgrind.command(program, REQUEST), COUNTED, rows)?;
    let counted = pairs.into_iter().enumerate().map(|(index, pair)| {
        let instructions = |call| callgrind.instructions(call);
        Ok(Pair { cost: [instructions(2 * index + 1)?, instructions(2 * index + 2)?], ..pair })
    });
    counted.collect()
}

/// Prints a table, and fails if a row is out of bounds.
fn report(rows: &[String], pairs: &[Pair], bounds: &Bounds) -> Result<()> {
    let Bounds { unit, few, per_byte } = bounds;
    println!("{:<55} {:>10} {:>10}", unit, "per byte", "growth");
    let mut wrong = 0;
    for (row, pair) in rows.iter().zip(pairs) {
        let allowed = pair.cost[1] as f64 / pair.growth() * MOST + *few as f64;
        let bad = pair.cost[1] as f64 > allowed || pair.per_byte() > *per_byte;
        wrong += usize::from(bad);
        let note = if bad { "  TOO MUCH" } else { "" };
        println!("{row:<55} {:>10} {:>10.2}{note}", pair.per_byte(), pair.growth());
    }
    ensure!(
        wrong == 0,
        "{wrong} rows are out of bounds: {unit} may grow {MOST} times as fast as what is sent, and be {per_byte} a byte"
    );
    Ok(())
}
