//! All recordings against one server, judged with a list of exceptions.

use super::exchange::Target;
use super::scenario::Scenario;
use anyhow::{Context, Result};
use futures::StreamExt as _;
use std::collections::BTreeSet;
use std::path::Path;

/// How many scenarios are replayed at once; each waits a lot for watches to end.
const AT_ONCE: usize = 8;

/// The steps that a server answers otherwise than recorded, on purpose: `scenario#index`.
#[derive(Debug, Default)]
pub struct Exceptions(BTreeSet<String>);

impl Exceptions {
    /// Reads a list: a step and its reason in each line, `//` before a comment.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        let steps = text.lines().map(|line| line.split_whitespace().next().unwrap_or_default());
        Ok(Self(steps.filter(|id| !id.is_empty() && !id.starts_with("//")).map(String::from).collect()))
    }

    /// How many steps are listed.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

/// What came of a replay.
#[derive(Debug, Default)]
pub struct Verdict {
    /// Steps that were answered as recorded.
    pub passed: usize,
    /// Listed steps, which were answered otherwise.
    pub excepted: Vec<String>,
    /// What is wrong: steps that were answered otherwise and are not listed, and listed ones that pass.
    pub wrong: Vec<String>,
}

impl Verdict {
    /// Fails if anything is wrong, or nothing was replayed.
    pub fn require_right(&self) -> Result<()> {
        anyhow::ensure!(
            self.wrong.is_empty(),
            "{} steps as recorded, {} listed exceptions, {} wrong:\n{}",
            self.passed,
            self.excepted.len(),
            self.wrong.len(),
            self.wrong.join("\n")
        );
        anyhow::ensure!(self.passed > 0, "no scenario was replayed");
        Ok(())
    }
}

/// Replays the scenarios; each by itself is in order.
pub async fn replay_all(scenarios: &[Scenario], target: &Target, exceptions: &Exceptions) -> Verdict {
    let outcomes: Vec<_> = futures::stream::iter(scenarios)
        .map(|scenario| scenario.replay(target))
        .buffer_unordered(AT_ONCE)
        .collect()
        .await;
    let mut verdict = Verdict::default();
    for outcome in outcomes.into_iter().flatten() {
        match (outcome.differences.is_empty(), exceptions.0.contains(&outcome.id)) {
            (true, false) => verdict.passed += 1,
            (false, true) => verdict.excepted.push(outcome.id),
            (true, true) => {
                verdict.wrong.push(format!("{} passes now: take it off the list of exceptions", outcome.id));
            }
            (false, false) => verdict.wrong.push(format!(
                "{} {}\n    {}",
                outcome.id,
                outcome.label,
                outcome.differences.join("\n    ")
            )),
        }
    }
    verdict.excepted.sort();
    verdict.wrong.sort();
    verdict
}
