//! The worst requests that fit into a body, and how the work that they cause grows with their size.
//!
//! ```text
//! rows::all() ─► Row: prepare(size), attack(size) ─► World (an API server in memory) ─► measure: one request
//!                                                                                        │
//!                   tests/growth.rs: bytes allocated, small sizes ◄──────────────────────┤
//!                   cargo xtask growth: instructions, and bytes allocated at 3 MiB ◄─────┘
//! ```
//!
//! What a client sends decides how much there is to do, so the work must grow no faster than what is sent: n log n at most. A
//! row is a request of a size that is asked for, made so that whatever could be done for each pair of its parts, or for each
//! part of something else, is. Whole requests are measured, from the head to the last byte of the answer, because a
//! decoder that is linear does not help if the next step is not.
//!
//! Nothing here measures time: this program only makes one request of each size that it is given. The work is counted from
//! outside ([`measure::request`]), in instructions by callgrind, and here in bytes that are allocated.
//!
//! To add a row, write it into a table in `rows/`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // What it prints is read by the tests and by `cargo xtask growth`.

mod measure;
mod rows;
mod world;

use anyhow::{Context as _, Result, bail};
use std::env;

/// The stack of a thread of tokio, on which requests are served. Without optimisation all takes many times as much.
const STACK: usize = if cfg!(debug_assertions) { 32 * 1024 * 1024 } else { 2 * 1024 * 1024 };

/// A row is asked for in two sizes: this is how many times the larger one is larger.
const TIMES: usize = 4;

fn main() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["list"] => {
            for row in rows::all() {
                println!("{}", row.name);
            }
            Ok(())
        }
        ["run", largest, names @ ..] => {
            let largest = largest.parse().context("the largest size is a number of bytes")?;
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let run = move || run(largest, &names);
            let thread = std::thread::Builder::new().stack_size(STACK).spawn(run)?;
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        }
        _ => bail!("use: growth list | growth run BYTES [ROW...]"),
    }
}

/// Makes the requests of rows, all if none is named, each in the size that is asked for or its own limit, and in a quarter of that
/// before.
fn run(largest: usize, names: &[String]) -> Result<()> {
    let rows = rows::all();
    if let Some(unknown) = names.iter().find(|name| !rows.iter().any(|row| row.name == **name)) {
        bail!("there is no row {unknown}");
    }
    let world = world::World::start()?;
    let mut failed = 0;
    for (index, row) in rows.iter().enumerate() {
        if !names.is_empty() && !names.contains(&row.name) {
            continue;
        }
        // The names of objects are made of the size, and all rows share a server: no two may have the same.
        let small = row.most.min(largest) / TIMES - index;
        for size in [small, TIMES * small] {
            // The other rows are run all the same, so that one run tells of all that are wrong.
            if let Err(error) = measure(&world, row, size) {
                eprintln!("{error:#}");
                failed += 1;
            }
        }
    }
    anyhow::ensure!(failed == 0, "{failed} requests were not answered as they should be");
    Ok(())
}

/// Makes the request of a row in a size, and prints a line of numbers and then the row's name: the size, bytes sent, bytes
/// allocated, bytes allocated at the same time, the answer's status and its length.
fn measure(world: &world::World, row: &rows::Row, size: usize) -> Result<()> {
    let name = &row.name;
    for request in (row.prepare)(size) {
        let what = format!("{} {}", request.method, request.target);
        let answer = world.call(request);
        if !(200..300).contains(&answer.status) {
            bail!("{name} is not prepared: {what}: {} {}", answer.status, answer.beginning);
        }
    }
    let request = (row.attack)(size);
    let sent = request.size();
    let (work, answer) = measure::request(world, request);
    // A request that is refused before the work begins would show nothing.
    if !row.statuses.contains(&answer.status) {
        bail!("{name} is answered {} instead of {:?}: {}", answer.status, row.statuses, answer.beginning);
    }
    let (status, length) = (answer.status, answer.length);
    println!("{size} {sent} {} {} {status} {length} {name}", work.allocated, work.peak);
    Ok(())
}
