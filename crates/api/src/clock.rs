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
struct SystemClock;

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
