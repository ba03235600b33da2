//! What `up` tells its user: steps as they are done, then what there is now.
//!
//! On a terminal the step under way turns beside a spinner, with colour; elsewhere each step is one plain line when it
//! is done.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use std::io::{self, IsTerminal as _, Write as _};
use std::time::Duration;

/// The spinner that is on the terminal now, if any: what else is written there has to step around it. Static, because logs
/// are written from everywhere, and a process has one terminal.
static ACTIVE: Mutex<Option<ProgressBar>> = Mutex::new(None);

/// Does something to the terminal while no spinner is on it.
pub(crate) fn without_spinner<T>(action: impl FnOnce() -> T) -> T {
    // Cloned, so that the lock is not held while something is written.
    let active = ACTIVE.lock().clone();
    match active {
        Some(spinner) => spinner.suspend(action),
        None => action(),
    }
}

/// Whether the user wants colour on a terminal (<https://no-color.org>).
pub(crate) fn colours_wanted() -> bool {
    std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
        && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Standard output, as a person or a program reads it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Console {
    terminal: bool,
    colour: bool,
}

impl Console {
    /// Finds out who reads.
    pub(crate) fn new() -> Self {
        let terminal = io::stdout().is_terminal();
        Self { terminal, colour: terminal && colours_wanted() }
    }

    /// Writes a line. That nobody reads any more is no reason to stop.
    pub(crate) fn line(&self, text: &str) {
        without_spinner(|| {
            let _ = writeln!(io::stdout().lock(), "{text}");
        });
    }

    /// Begins a step that takes a while. It stays under way until [`Step::done`], or until it is dropped: then it
    /// leaves nothing behind, for its error speaks.
    pub(crate) fn step(&self, doing: &str) -> Step {
        let spinner = self.terminal.then(|| {
            let spinner = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            let template = if self.colour { "  {spinner:.cyan} {msg}" } else { "  {spinner} {msg}" };
            if let Ok(style) = ProgressStyle::with_template(template) {
                spinner.set_style(style.tick_chars("⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏ "));
            }
            spinner.set_message(doing.to_owned());
            spinner.enable_steady_tick(Duration::from_millis(80));
            *ACTIVE.lock() = Some(spinner.clone());
            spinner
        });
        Step { console: *self, spinner }
    }

    /// Something is done: `what` there is now, and more about it.
    pub(crate) fn done(&self, what: &str, detail: &str) {
        // Padded before it is painted: escape sequences have no width.
        let what = self.strong(&format!("{what:<10}"));
        self.line(format!("  {} {what}  {detail}", self.paint("32", "✓")).trim_end());
    }

    /// Weighty text.
    pub(crate) fn strong(&self, text: &str) -> String {
        self.paint("1", text)
    }

    /// Text beside the point.
    pub(crate) fn faint(&self, text: &str) -> String {
        self.paint("2", text)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

impl Default for Console {
    fn default() -> Self {
        Self::new()
    }
}

/// A step under way.
#[must_use]
pub(crate) struct Step {
    console: Console,
    spinner: Option<ProgressBar>,
}

impl Step {
    /// Says what is being waited for now.
    pub(crate) fn now(&self, doing: &str) {
        if let Some(spinner) = &self.spinner {
            spinner.set_message(doing.to_owned());
        }
    }

    /// The step is done: as [`Console::done`].
    pub(crate) fn done(mut self, what: &str, detail: &str) {
        self.clear();
        self.console.done(what, detail);
    }

    fn clear(&mut self) {
        if let Some(spinner) = self.spinner.take() {
            spinner.finish_and_clear();
            *ACTIVE.lock() = None;
        }
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        self.clear();
    }
}
