//! What is tried while the disk fails, and when: rules without I/O.
//!
//! While a write has failed all others are refused, small ones and deletions too: a store that takes some of them would be
//! neither well nor not, and what is taken could be in the way of what comes back. Whether there is room again is found out
//! by the writer itself, and, where it cannot tell, by letting one write that is large enough to show it through after each
//! attempt.

use crate::contract::Revision;
use crate::error::Cause;
use std::time::Duration;
use tokio::time::Instant;

/// How long to wait before the next attempt to recover.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pauses {
    /// After the first failure. Doubles with each attempt that fails.
    pub(super) first: Duration,
    /// At most.
    pub(super) longest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        // The longest is what a client has to wait after somebody made room: short. An attempt costs a look at the disk if the
        // database is open, and reading the file once if it is not.
        Pauses { first: Duration::from_millis(100), longest: Duration::from_secs(2) }
    }
}

/// The disk fails.
#[derive(Debug)]
pub(super) struct Trouble {
    cause: Cause,
    /// The size of the smallest write that has failed, in bytes; 0 if sizes do not matter.
    failed: usize,
    /// Whether a write that is not smaller may show whether the trouble is over.
    trial: bool,
    pauses: Pauses,
    /// The pause before the attempt after the next one.
    pause: Duration,
    next: Instant,
}

impl Trouble {
    /// It begins with a write of `size` bytes that failed.
    pub(super) fn new(cause: Cause, size: usize, pauses: Pauses, now: Instant) -> Self {
        let failed = relevant(&cause, size);
        let next = now + pauses.first;
        Trouble { cause, failed, trial: false, pauses, pause: pauses.first * 2, next }
    }

    /// Another write failed. Whether it did for another reason than the last one.
    pub(super) fn again(&mut self, cause: Cause, size: usize) -> bool {
        self.failed = self.failed.min(relevant(&cause, size));
        self.trial = false;
        let changed = self.cause != cause;
        self.cause = cause;
        changed
    }

    /// An attempt to recover failed, and opening the database took so long. Whether it failed for another reason than what
    /// failed last.
    pub(super) fn postpone(&mut self, cause: Cause, now: Instant, took: Duration) -> bool {
        // A database that takes long is not opened all the time.
        self.next = now + self.pause.min(self.pauses.longest).max(took * 4);
        self.pause = (self.pause * 2).min(self.pauses.longest);
        self.trial = true;
        let changed = self.cause != cause;
        self.cause = cause;
        changed
    }

    /// Whether a write of `size` bytes is to be tried. Uses the trial up.
    pub(super) fn admits(&mut self, size: usize) -> bool {
        self.ends_with(size) && std::mem::take(&mut self.trial)
    }

    /// Whether a write of `size` bytes that succeeded shows that the trouble is over.
    pub(super) fn ends_with(&self, size: usize) -> bool {
        size >= self.failed
    }

    /// What fails.
    pub(super) fn cause(&self) -> &Cause {
        &self.cause
    }

    /// When to try to recover.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// How many bytes there has to be room for, if room is what is missing.
    pub(super) fn room(&self) -> Option<usize> {
        // Twice: a value is copied with the pages above it before the old ones are free. And some for what comes next, so
        // that the end of the trouble does not last for one write only.
        (self.cause == Cause::NoSpace).then(|| self.failed.saturating_mul(2).saturating_add(MARGIN))
    }
}

/// How much more room there has to be than what failed needs, in bytes.
const MARGIN: usize = 1 << 20;

/// Only a full disk cares for sizes.
fn relevant(cause: &Cause, size: usize) -> usize {
    if *cause == Cause::NoSpace { size } else { 0 }
}

/// What became of a group whose outcome was unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// All of it is on the disk.
    Happened,
    /// Nothing of it is.
    NotHappened,
}

/// Judges the revision that a database has after it was opened again. `known` is the last one that was published,
/// `unknown` the one that it would have after the group whose outcome is unknown. `None`: the file is not the one that
/// was written here.
pub(super) fn fate(found: Revision, known: Revision, unknown: Option<Revision>) -> Option<Fate> {
    if found == known {
        Some(Fate::NotHappened)
    } else if Some(found) == unknown {
        Some(Fate::Happened)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAUSES: Pauses = Pauses { first: Duration::from_millis(100), longest: Duration::from_millis(350) };

    #[test]
    fn one_write_that_can_show_something_is_tried_after_each_attempt() {
        let now = Instant::now();
        let mut full = Trouble::new(Cause::NoSpace, 1000, PAUSES, now);
        assert!(!full.admits(1000) && !full.admits(10));
        for _ in 0..3 {
            assert!(!full.postpone(Cause::NoSpace, now, Duration::ZERO));
            // A small one that goes through says nothing about large ones.
            assert!(!full.admits(999) && !full.ends_with(999));
            assert!(full.ends_with(1000) && full.admits(1000) && !full.admits(1000));
        }
        full.postpone(Cause::NoSpace, now, Duration::ZERO);
        full.again(Cause::NoSpace, 2000);
        assert!(!full.admits(2000), "its trial has failed");
    }

    #[test]
    fn the_smallest_write_that_failed_counts() {
        let mut full = Trouble::new(Cause::NoSpace, 1000, PAUSES, Instant::now());
        assert!(!full.again(Cause::NoSpace, 300));
        full.again(Cause::NoSpace, 5000);
        assert_eq!(full.room(), Some(600 + MARGIN));
        assert!(!full.ends_with(299) && full.ends_with(300));
        // Anything may fail on a disk that cannot be written, whatever its size.
        assert!(full.again(Cause::ReadOnly, 300));
        assert_eq!(full.room(), None);
        assert!(full.ends_with(0));
    }

    #[test]
    fn attempts_become_rarer() {
        let now = Instant::now();
        let mut trouble = Trouble::new(Cause::NoSpace, 10, PAUSES, now);
        let mut waits = vec![trouble.next() - now];
        for took in [0, 1, 1, 500] {
            trouble.postpone(Cause::NoSpace, now, Duration::from_millis(took));
            waits.push(trouble.next() - now);
        }
        assert_eq!(waits, [100, 200, 350, 350, 2000].map(Duration::from_millis));
    }

    #[test]
    fn only_two_revisions_are_those_of_this_store() {
        assert_eq!(fate(7, 7, None), Some(Fate::NotHappened));
        assert_eq!(fate(7, 7, Some(9)), Some(Fate::NotHappened));
        assert_eq!(fate(9, 7, Some(9)), Some(Fate::Happened));
        for (found, unknown) in [(6, None), (8, None), (8, Some(9)), (10, Some(9)), (0, Some(9))] {
            assert_eq!(fate(found, 7, unknown), None, "{found} {unknown:?}");
        }
    }
}
