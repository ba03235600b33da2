//! What the repository's developers run: `cargo xtask`.
//!
//! `cargo xtask check` is for before a commit, and `cargo xtask structure` a part of it that compilers do not do;
//! `cargo xtask conformance` builds the real programs that Fleetpass works with and runs the suites against them;
//! `cargo xtask fuzz` fuzzes the decoders;
//! `cargo xtask growth` counts how the work of the worst requests grows with their size;
//! `cargo xtask counts` counts the instructions and allocations of what the server does, beside those that are committed;
//! `cargo xtask bench` measures Fleetpass beside the real programs.
#![allow(clippy::print_stdout, clippy::print_stderr)] // It talks to a developer, not to a log.
#![allow(clippy::disallowed_methods)] // It measures how long steps take.

mod bench;
mod callgrind;
mod check;
mod conformance;
mod counts;
mod fuzz;
mod growth;
mod steps;
mod structure;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

#[derive(Debug, Parser)]
#[command(name = "cargo xtask", about = "What the repository's developers run")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Check what has to hold before a commit, in a few minutes.
    Check,
    /// Check how the repository is built up: the length of files, the layers of crates, what is public.
    Structure(structure::Arguments),
    /// Run Fleetpass against real Kubernetes, real etcd, the upstream addon and kubectl.
    Conformance(conformance::Arguments),
    /// Send the decoders of untrusted bytes what nobody would send (needs a nightly compiler and cargo-fuzz).
    Fuzz(fuzz::Arguments),
    /// Count how the work of the worst requests grows with their size (needs valgrind).
    Growth(growth::Arguments),
    /// Count the instructions and allocations of operations of the server (needs valgrind).
    Counts(counts::Arguments),
    /// Measure Fleetpass beside real Kubernetes, real etcd and the upstream addon.
    Bench(bench::Arguments),
}

fn main() -> ExitCode {
    // Without a backtrace, whatever the environment says: what failed is to be the last that is seen.
    run().map_or_else(
        |error| {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask has a folder above it")?;
    let workspace = Workspace::new(root);
    match Cli::parse().task {
        Task::Check => check::run(&workspace),
        Task::Structure(arguments) => structure::run(&workspace, &arguments),
        Task::Conformance(arguments) => conformance::run(&workspace, &arguments),
        Task::Fuzz(arguments) => fuzz::run(&workspace, &arguments),
        Task::Growth(arguments) => growth::run(&workspace, &arguments),
        Task::Counts(arguments) => counts::run(&workspace, &arguments),
        Task::Bench(arguments) => bench::run(&workspace, &arguments),
    }
}

/// Where things are in this repository.
#[derive(Debug)]
pub(crate) struct Workspace {
    root: PathBuf,
    target: PathBuf,
}

impl Workspace {
    fn new(root: &Path) -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
        // A relative one is relative to where cargo was called, as cargo has it; absolute paths stay as they are.
        let target = if std::env::var_os("CARGO_TARGET_DIR").is_some() {
            std::path::absolute(&target).unwrap_or(target)
        } else {
            root.join(target)
        };
        Self { root: root.into(), target }
    }

    /// A path in the repository.
    pub(crate) fn path(&self, inside: &str) -> PathBuf {
        self.root.join(inside)
    }

    /// A path in cargo's target folder.
    pub(crate) fn target(&self, inside: &str) -> PathBuf {
        self.target.join(inside)
    }

    /// The cargo that runs this, in the repository's folder.
    pub(crate) fn cargo(&self) -> std::process::Command {
        let mut cargo = std::process::Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.current_dir(&self.root);
        cargo
    }
}
