//! `cargo xtask structure`: what compilers do not check of how this repository is built up.
//!
//! - No Rust file has more than 800 lines (`files`). That no function has more than 80 is clippy's `too_many_lines`.
//! - Crates need only crates of lower layers (`layers`). The table is in the root Cargo.toml.
//! - What a library declares `pub` is used by somebody else (`public`).

mod files;
mod layers;
mod public;
mod tree;

use crate::Workspace;
use anyhow::{Result, bail};
use std::fmt;

/// What to check.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Check for `pub` items that nobody else uses, whatever Cargo.toml says (`deny-unused-public`).
    #[arg(long)]
    unused_public: bool,
}

/// Something that has to change, and where.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// Relative to the repository's folder.
    file: String,
    /// The first is 1.
    line: usize,
    /// What is wrong, and what to do.
    message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.message)
    }
}

/// Checks the repository, and prints what was found.
///
/// # Errors
///
/// Something was found, or a file cannot be read.
pub(crate) fn run(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let tree = tree::Tree::read(workspace)?;
    let mut findings = files::check(&tree.sources);
    findings.extend(layers::check(&tree.structure, &tree.crates));
    if arguments.unused_public || tree.structure.deny_unused_public {
        for (name, unused) in public::check(&tree) {
            println!("{name}: {} unused pub items", unused.len());
            findings.extend(unused);
        }
    }
    findings.sort();
    for finding in &findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings: see above", findings.len());
    }
    println!("{} crates and {} Rust files are as they have to be", tree.crates.len(), tree.sources.len());
    Ok(())
}

/// Checks what Cargo.toml says has to be checked.
///
/// # Errors
///
/// As [`run`].
pub(crate) fn run_gates(workspace: &Workspace) -> Result<()> {
    run(workspace, &Arguments { unused_public: false })
}
