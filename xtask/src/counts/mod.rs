//! `cargo xtask counts`: what operations of the server cost, counted in instructions and allocations (`crates/counts`), beside
//! what docs/performance.md says.

mod table;

use crate::Workspace;
use crate::callgrind::{self, Callgrind};
use crate::steps::in_steps;
use anyhow::{Context as _, Result, ensure};
use serde::Deserialize;
use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use table::{Row, Table};

/// What to count.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Only operations whose name contains one of these (`get`, `watcher`).
    operations: Vec<String>,

    /// Write what was counted into docs/performance.md, instead of comparing.
    #[arg(long)]
    write: bool,
}

/// Where the table is.
const DOCUMENT: &str = "docs/performance.md";
/// The function that does an operation, by the name under which callgrind knows it.
const FUNCTION: &str = "fleetpass_counts::measure::counted_repetitions";

/// How often an operation is counted at most. The server's timers and threads are at work meanwhile, and what they do is counted
/// too: now and then that makes a figure higher, never lower. The lowest is the operation's own.
const COUNTS: usize = 3;

/// A line of `fleetpass-counts list`.
#[derive(Debug, Clone, Deserialize)]
struct Listed {
    group: String,
    operation: String,
}

/// A line of `fleetpass-counts run`.
#[derive(Debug, Deserialize)]
struct Counted {
    operation: String,
    world: String,
    repetitions: u64,
    tolerance: u32,
    allocations: u64,
    bytes: u64,
}

/// Builds the program, counts, and compares with the table or writes it.
///
/// # Errors
///
/// valgrind is missing (how to get it), an operation fails, or something costs more than the table says.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    callgrind::check()?;
    in_steps(|steps| {
        steps.run("build", || build(workspace))?;
        let program = workspace.target("release/fleetpass-counts");
        let listed = wanted(list(&program)?, &arguments.operations)?;
        let folder = workspace.target("counts");
        let mut table = Table { compiler: compiler()?, rows: Vec::new() };
        let document = workspace.path(DOCUMENT);
        let text = fs::read_to_string(&document).with_context(|| format!("cannot read {DOCUMENT}"))?;
        let mut committed = Table::parse(&text).with_context(|| format!("cannot use {DOCUMENT}"))?;
        let some = !arguments.operations.is_empty();
        if some && !arguments.write {
            committed.rows.retain(|row| is_wanted(&row.operation, &arguments.operations));
        }
        table.rows = steps.run("counting", || count(&program, &folder, &listed))?;
        for _ in 1..COUNTS {
            let again = again(&listed, &committed, &table, arguments.write);
            if again.is_empty() {
                break;
            }
            let counted = steps.run("counting again", || count(&program, &folder, &again))?;
            table.lower_to(counted);
        }
        steps.run("comparison", || {
            for row in &table.rows {
                println!("{row}");
            }
            if arguments.write {
                let table = if some { committed.updated_by(table) } else { table };
                let text = table.put_into(&text)?;
                return fs::write(&document, text).with_context(|| format!("cannot write {DOCUMENT}"));
            }
            if committed.compiler != table.compiler {
                println!(
                    "The table is of {}, this of {}: that alone may make a difference.",
                    committed.compiler, table.compiler
                );
            }
            let seen = format!("callgrind_annotate --inclusive=yes {}/GROUP/out.NUMBER.", folder.display());
            table::compare(&committed.rows, &table.rows).judge(&seen)
        })
    })
}

/// Builds the program that counts. As `cargo build --release` builds: what is shipped is optimised a little more, but takes
/// many times as long to build.
fn build(workspace: &Workspace) -> Result<()> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--release", "--locked", "--quiet", "--package", "fleetpass-counts"]);
    ensure!(cargo.status().context("cannot run cargo")?.success(), "cargo cannot build it: see above");
    Ok(())
}

/// What compiles, and for what.
fn compiler() -> Result<String> {
    let rustc = Command::new("rustc").arg("--version").output().context("cannot run rustc")?;
    let version = String::from_utf8(rustc.stdout).context("rustc prints text")?;
    Ok(format!("{}, profile `release`, {}", version.trim(), std::env::consts::ARCH))
}

/// The operations that there are.
fn list(program: &Path) -> Result<Vec<Listed>> {
    let output = Command::new(program).arg("list").output().context("cannot run the program that counts")?;
    lines(&output.stdout)
}

/// Reads a line of JSON each.
fn lines<T: serde::de::DeserializeOwned>(output: &[u8]) -> Result<Vec<T>> {
    let text = std::str::from_utf8(output).context("the program that counts prints text")?;
    let parse =
        |line| serde_json::from_str(line).with_context(|| format!("the program that counts prints {line}"));
    text.lines().map(parse).collect()
}

fn is_wanted(operation: &str, wanted: &[String]) -> bool {
    wanted.is_empty() || wanted.iter().any(|part| operation.contains(part.as_str()))
}

/// Those operations that were asked for.
fn wanted(mut all: Vec<Listed>, wanted: &[String]) -> Result<Vec<Listed>> {
    all.retain(|listed| is_wanted(&listed.operation, wanted));
    ensure!(!all.is_empty(), "there is no such operation");
    Ok(all)
}

/// What is to be counted again: what came out higher than it is committed, or everything if the table is to be written.
fn again(listed: &[Listed], committed: &Table, counted: &Table, write: bool) -> Vec<Listed> {
    let is_above = |row: &&Row| !table::compare(&committed.rows, std::slice::from_ref(row)).above.is_empty();
    let above: HashSet<_> = counted.rows.iter().filter(is_above).map(|row| row.operation.as_str()).collect();
    listed.iter().filter(|listed| write || above.contains(listed.operation.as_str())).cloned().collect()
}

/// Counts, a process for each group.
fn count(program: &Path, folder: &Path, listed: &[Listed]) -> Result<Vec<Row>> {
    let mut groups: Vec<Vec<Listed>> = Vec::new();
    for operation in listed {
        match groups.last_mut().filter(|group| group.iter().all(|other| other.group == operation.group)) {
            Some(group) => group.push(operation.clone()),
            None => groups.push(vec![operation.clone()]),
        }
    }
    let counted = callgrind::in_parallel(&groups, |group| count_group(program, folder, group))?;
    Ok(counted.into_iter().flatten().collect())
}

/// Counts the operations of a group.
fn count_group(program: &Path, folder: &Path, group: &[Listed]) -> Result<Vec<Row>> {
    let name = group.first().map(|listed| listed.group.as_str()).context("a group is not empty")?;
    let callgrind = Callgrind::new(folder.join(name))?;
    let mut command = callgrind.command(program, FUNCTION);
    command.arg("run").arg(name).args(group.iter().map(|listed| &listed.operation));
    let output = command.stderr(Stdio::inherit()).output().context("cannot run the program that counts")?;
    ensure!(output.status.success(), "the operations of the group {name} failed: see above");
    let counted: Vec<Counted> = lines(&output.stdout)?;
    ensure!(counted.len() == group.len(), "the program that counts left out something of the group {name}");
    let row = |(index, counted): (usize, Counted)| {
        // Each operation is done in two rounds; the first one warms up.
        let instructions = callgrind.instructions(2 * index + 2)?;
        let Counted { operation, world, repetitions, tolerance, allocations, bytes } = counted;
        let (instructions, bytes) = (instructions / repetitions, bytes / repetitions);
        let allocations = (allocations as f64 / repetitions as f64 * 10.0).round() / 10.0;
        Ok(Row { operation, world, instructions, allocations, bytes, tolerance })
    };
    counted.into_iter().enumerate().map(row).collect()
}
