//! What operations of the server cost, counted in instructions and allocations: `cargo xtask counts` builds and runs this.
//!
//! ```text
//! table::groups() ─► World: a store, filled, and an API server on it ─► Operation: warm up, then count
//!                                                                          │ measure::count
//!                    cargo xtask counts: a row of docs/performance.md ◄────┘ (and callgrind's files)
//! ```
//!
//! Requests are made in process, without connections and TLS: from the head of a request to the last byte of its answer. All that
//! can runs on one thread, and the clock stands, so that the work is the same each time. callgrind counts the instructions of all
//! threads: it runs them one after the other.
//!
//! Nothing here measures time. To add a row, write it into [`table`].
#![allow(clippy::print_stdout)] // What it prints is read by `cargo xtask counts`.

mod measure;
mod operations;
mod table;
mod world;

use anyhow::{Context as _, Result, bail};
use serde_json::json;
use std::env;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => {
            for group in table::groups() {
                for operation in &group.operations {
                    println!("{}", json!({"group": group.name, "operation": operation.name}));
                }
            }
            Ok(())
        }
        ["run", group, wanted @ ..] => run(group, wanted),
        _ => bail!("use: fleetpass-counts list | fleetpass-counts run GROUP [OPERATION...]"),
    }
}

/// Does the operations of a group, all if none is named, and prints a line of JSON for each.
fn run(group: &str, wanted: &[&str]) -> Result<()> {
    let groups = table::groups();
    let group = groups
        .iter()
        .find(|known| known.name == group)
        .with_context(|| format!("there is no group {group}"))?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let world = runtime.block_on(world::World::start(group.size))?;
    for operation in &group.operations {
        if !wanted.is_empty() && !wanted.contains(&operation.name) {
            continue;
        }
        let allocated = operation.run(&runtime, &world).with_context(|| operation.name)?;
        let line = json!({"operation": operation.name, "world": group.world, "repetitions": operation.repetitions,
            "tolerance": operation.tolerance, "allocations": allocated.times, "bytes": allocated.bytes});
        println!("{line}");
    }
    Ok(())
}
