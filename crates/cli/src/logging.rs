//! Logs: for people on a terminal, JSON lines otherwise; always on standard error.

use crate::console;
use std::io::{self, IsTerminal as _};
use std::sync::atomic::{AtomicBool, Ordering};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What is logged unless `RUST_LOG` says otherwise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verbosity {
    /// What a service has to tell: state changes, warnings, errors.
    Service,
    /// Warnings and errors: something else is speaking to the user.
    Warnings,
}

impl Verbosity {
    fn directives(self) -> &'static str {
        match self {
            // Our own code says it when a side is away; kube's client would say it at every attempt.
            Self::Service => {
                "info,kube=warn,kube_client=off,kube_runtime=error,hyper=warn,h2=warn,rustls=warn,tower=warn"
            }

            Self::Warnings => "warn,kube_client=off,kube_runtime=error",
        }
    }
}

/// Starts logging, once for the process. `rust_log` is the value of the environment variable.
///
/// # Errors
///
/// `rust_log` is no list of directives, or logging was started before.
pub(crate) fn start(verbosity: Verbosity, rust_log: Option<&str>) -> anyhow::Result<()> {
    let filter = filter(verbosity, rust_log)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(StandardError)
        // It would write to standard error that standard error cannot be written, and panic because that fails: a log on a full
        // disk would end whatever task has something to say.
        .log_internal_errors(false);
    // A terminal has a reader; anything else is a collector of logs, which wants one object per line.
    let started = if io::stderr().is_terminal() {
        builder.with_ansi(console::colours_wanted()).try_init()
    } else {
        builder.json().flatten_event(true).with_ansi(false).try_init()
    };
    started.map_err(|error| anyhow::anyhow!("logging cannot be started: {error}"))
}

fn filter(verbosity: Verbosity, rust_log: Option<&str>) -> anyhow::Result<EnvFilter> {
    match rust_log.filter(|text| !text.trim().is_empty()) {
        Some(text) => EnvFilter::try_new(text).map_err(|error| {
            anyhow::anyhow!("the environment variable RUST_LOG={text:?} is refused: {error}")
        }),
        None => Ok(EnvFilter::new(verbosity.directives())),
    }
}

/// Standard error; a progress display on the same terminal steps aside for each line.
struct StandardError;

impl<'a> MakeWriter<'a> for StandardError {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        Self
    }
}

impl io::Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        console::without_spinner(|| io::stderr().lock().write(bytes))
    }

    /// Writes a line, which the subscriber gives in one piece.
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        console::without_spinner(|| write_line(&mut io::stderr().lock(), bytes, &TORN))
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().lock().flush()
    }
}

/// Whether the last line was written in part. Read and written while standard error is locked.
static TORN: AtomicBool = AtomicBool::new(false);

/// Writes a line. One that did not fit on a full disk is ended before the next, which would go on in it otherwise.
fn write_line(out: &mut impl io::Write, line: &[u8], torn: &AtomicBool) -> io::Result<()> {
    if torn.load(Ordering::Relaxed) {
        out.write_all(b"\n")?;
        torn.store(false, Ordering::Relaxed);
    }
    let mut written = 0;
    while written < line.len() {
        match out.write(&line[written..]) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(more) => {
                written += more;
                torn.store(written < line.len(), Ordering::Relaxed);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file on a disk that is full beyond some bytes.
    struct Full(Vec<u8>, usize);

    impl io::Write for Full {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let fitting = bytes.len().min(self.1 - self.0.len());
            if fitting == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.0.extend_from_slice(&bytes[..fitting]);
            Ok(fitting)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_did_not_fit_spoils_no_other() {
        let torn = AtomicBool::new(false);
        let mut out = Full(Vec::new(), 10);
        write_line(&mut out, b"first\n", &torn).unwrap();
        for _ in 0..3 {
            write_line(&mut out, b"second\n", &torn).unwrap_err();
        }
        out.1 = 100;
        for line in ["third\n", "fourth\n"] {
            write_line(&mut out, line.as_bytes(), &torn).unwrap();
        }
        assert_eq!(String::from_utf8(out.0).unwrap(), "first\nseco\nthird\nfourth\n");
    }

    #[test]
    fn the_environment_wins_and_nonsense_is_an_error() {
        for (rust_log, expected) in [
            (None, "info"),
            (Some(" "), "info"),
            (Some("debug"), "debug"),
            (Some("fleetpass_store=trace"), "trace"),
        ] {
            let filter = filter(Verbosity::Service, rust_log).unwrap();
            let level = filter.max_level_hint().map(|level| level.to_string());
            assert_eq!(level.as_deref(), Some(expected), "{rust_log:?}");
        }
        assert_eq!(
            filter(Verbosity::Warnings, None).unwrap().max_level_hint(),
            Some(tracing::level_filters::LevelFilter::WARN)
        );
        let error = filter(Verbosity::Service, Some("a=b=c")).unwrap_err().to_string();
        assert!(error.contains("RUST_LOG"), "{error}");
    }
}
