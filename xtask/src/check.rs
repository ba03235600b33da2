//! `cargo xtask check`: what a developer runs before a commit.

use crate::steps::in_steps;
use crate::{Workspace, structure};
use anyhow::Result;

/// Runs all checks; the first that fails ends the run.
///
/// # Errors
///
/// The check that failed.
pub(crate) fn run(workspace: &Workspace) -> Result<()> {
    let cargo = |arguments: &str| {
        let mut cargo = workspace.cargo();
        cargo.args(arguments.split(' '));
        cargo
    };
    in_steps(|steps| {
        steps.command("formatting", &mut cargo("fmt --all --check"))?;
        steps.run("structure", || structure::run_gates(workspace))?;
        steps.command(
            "clippy",
            &mut cargo("clippy --workspace --all-targets --all-features --locked -- -D warnings"),
        )?;
        steps.command(
            "documentation",
            // With the features of clippy, so that cargo finds the dependencies as clippy has left them.
            cargo("doc --workspace --no-deps --all-features --locked").env("RUSTDOCFLAGS", "-D warnings"),
        )?;
        steps.command("tests", &mut cargo("test --workspace --locked"))
    })
}
