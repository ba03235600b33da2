//! The steps of a command: each is announced and timed, and a table of them ends the output, also after a failure.

use anyhow::{Context as _, Result, ensure};
use std::fmt::Write as _;
use std::process::Command;
use std::time::{Duration, Instant};

/// The steps that have ended so far.
#[derive(Debug, Default)]
pub(crate) struct Steps {
    ended: Vec<Step>,
}

/// A step that has ended.
#[derive(Debug)]
struct Step {
    name: String,
    passed: bool,
    took: Duration,
}

/// Lets `work` run its steps, then prints the table of those that ran.
///
/// # Errors
///
/// Those of `work`. A step that failed is named by its error, and is the last one of the table.
pub(crate) fn in_steps<T>(work: impl FnOnce(&mut Steps) -> Result<T>) -> Result<T> {
    let began = Instant::now();
    let mut steps = Steps::default();
    let result = work(&mut steps);
    println!("\n{}", table(&steps.ended, began.elapsed()));
    result
}

impl Steps {
    /// Runs one step.
    ///
    /// # Errors
    ///
    /// That of `work`, with the step's name before it.
    pub(crate) fn run<T>(&mut self, name: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        println!("\n=== {name}");
        let began = Instant::now();
        let result = work();
        let step = Step { name: name.to_owned(), passed: result.is_ok(), took: began.elapsed() };
        println!("=== {name}: {} in {:.1} s", step.verdict(), step.took.as_secs_f64());
        self.ended.push(step);
        result.with_context(|| format!("the step \"{name}\" failed"))
    }

    /// Runs a step that is one command, which writes to this program's output.
    ///
    /// # Errors
    ///
    /// The command cannot be started, or ends with a code that is not 0.
    pub(crate) fn command(&mut self, name: &str, command: &mut Command) -> Result<()> {
        self.run(name, || {
            let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
            ensure!(status.success(), "{command:?} ended with {status}: see above");
            Ok(())
        })
    }
}

impl Step {
    fn verdict(&self) -> &'static str {
        if self.passed { "passed" } else { "FAILED" }
    }
}

/// One line for each step, and one for all: `total` is more than their sum where something was done between them.
fn table(steps: &[Step], total: Duration) -> String {
    let width = steps.iter().map(|step| step.name.chars().count()).max().unwrap_or(0).max("step".len());
    let mut table = format!("{:<width$}  result     time", "step");
    for step in steps {
        let (name, verdict, seconds) = (&step.name, step.verdict(), step.took.as_secs_f64());
        let _ = write!(table, "\n{name:<width$}  {verdict} {seconds:>8.1} s");
    }
    let _ = write!(table, "\n{:<width$}         {:>8.1} s", "all", total.as_secs_f64());
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    #[test]
    fn a_table_has_a_line_for_each_step_and_one_for_all() {
        let step = |name: &str, passed, seconds| Step {
            name: name.into(),
            passed,
            took: Duration::from_millis(seconds),
        };
        let steps = [step("formatting", true, 1234), step("tests", false, 100_000)];
        assert_eq!(
            table(&steps, Duration::from_millis(101_300)),
            "step        result     time\n\
             formatting  passed      1.2 s\n\
             tests       FAILED    100.0 s\n\
             all                   101.3 s"
        );
    }

    #[test]
    fn the_step_that_fails_is_named_and_is_the_last() {
        let mut steps = Steps::default();
        let mut work = || {
            steps.run("first", || Ok(()))?;
            steps.run("second", || bail!("no space is left"))?;
            steps.run("third", || Ok(()))
        };
        let error = work().err().map(|error| format!("{error:#}"));
        assert_eq!(error.as_deref(), Some("the step \"second\" failed: no space is left"));
        let ended: Vec<_> = steps.ended.iter().map(|step| (step.name.as_str(), step.passed)).collect();
        assert_eq!(ended, [("first", true), ("second", false)]);
    }

    #[test]
    fn a_command_fails_by_its_exit_code() {
        let mut steps = Steps::default();
        assert!(steps.command("passes", &mut Command::new("true")).is_ok());
        assert!(steps.command("fails", &mut Command::new("false")).is_err());
        assert!(steps.command("is not there", &mut Command::new("no-such-program")).is_err());
    }
}
