//! Time as an argument: the rules take a [`Timestamp`], the shell owns a [`Clock`].

use jiff::Timestamp;
use std::sync::Arc;

/// A source of wall-clock time. Shells hold one; rules are given the [`Timestamp`] it returned.
pub trait Clock: Send + Sync + 'static {
    /// The present moment, UTC, with the resolution of the source.
    fn now(&self) -> Timestamp;
}

/// A clock that many parts share.
pub type SharedClock = Arc<dyn Clock>;

/// The clock of the machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)] // the one place where wall-clock time enters
    fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// The machine's clock, ready to be shared.
pub fn system() -> SharedClock {
    Arc::new(SystemClock)
}

/// `time` cut to whole seconds, as `metav1.Time` stores and prints it.
pub fn whole_seconds(time: Timestamp) -> Timestamp {
    Timestamp::from_second(time.as_second()).expect("a timestamp's seconds are in range")
}

/// `time` as `metav1.Time` prints it: RFC 3339, UTC, whole seconds (`2026-01-02T03:04:05Z`).
pub fn rfc3339(time: Timestamp) -> String {
    whole_seconds(time).to_string()
}

/// `time` as `metav1.MicroTime` prints it: RFC 3339, UTC, six decimals.
pub fn rfc3339_micro(time: Timestamp) -> String {
    format!("{time:.6}")
}
