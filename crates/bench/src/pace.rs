//! How long and how much is measured.

use std::time::Duration;

/// For figures, or only to see that everything works.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// Whether it is only seen that everything works.
    pub(crate) quick: bool,
}

impl Pace {
    /// So many seconds, or a fraction of them.
    pub(crate) fn span(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(if self.quick { seconds / 8.0 } else { seconds })
    }

    /// So many, or a few.
    pub(crate) fn count(&self, many: usize, few: usize) -> usize {
        if self.quick { few } else { many }
    }
}
