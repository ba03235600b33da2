//! Revisions after a start: none is given out twice, whatever state of the store was put back meanwhile.
//!
//! A backup that is put back takes the store to an earlier revision. Clients have seen later ones: a watch that goes on from one
//! of these would wait, deaf, until the store got there again, and would then have missed what happened on the way; an update
//! on condition of a revision could meet another state of that number. Nothing in the store tells whether it is a backup. So
//! each time that it is opened its revision is raised by more than can have been written since the last write that it knows of
//! (etcd's operators do that by hand: `etcdutl snapshot restore --bump-revision`). What clients name from the gap is then
//! too old for the watch cache, which sends them to list anew.

use super::source::Source;
use super::tables::{self, Tables, Work};
use crate::contract::Revision;
use crate::error::{Error, OpenError};
use std::io;
use std::sync::Arc;

/// Tells the time, in seconds since 1970.
pub type WallClock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// How many revisions a second of a life that is unknown may have had, in the long run. More than a hub of thousands of clusters
/// has; little enough that a copy to etcd, where each revision is a write, stays possible.
const PER_SECOND: u64 = 1_000;
/// How many more it may have had, all at once.
const AT_ONCE: u64 = 20_000;

/// The revision to begin with at `now`, after `revision` was the last one, given out at `written` as far as that is known.
fn first_revision(revision: Revision, written: Option<u64>, now: u64) -> Revision {
    // Nobody can have seen one of an empty store, or of one from before times were recorded: such a backup cannot be told from
    // what was left at the last stop, and a gap of any size would be a guess.
    let (1.., Some(written)) = (revision, written) else { return revision };
    // A clock that was set back says nothing about how long it was.
    let seconds = now.saturating_sub(written);
    revision.saturating_add(AT_ONCE).saturating_add(seconds.saturating_mul(PER_SECOND))
}

/// Raises the revision of a store that was just opened. Gives it back, opened again if it could not be written: a store on a
/// disk that is full has to be readable.
pub(super) fn leave_gap(tables: Tables, source: &dyn Source, now: u64) -> Result<Tables, OpenError> {
    let file = source.file();
    let unreadable = |error: Error| match error {
        Error::Corrupt { problem, .. } => tables::corrupt(file, problem),
        other => OpenError::io("read", file)(io::Error::other(other)),
    };
    let revision = tables.revision().map_err(unreadable)?;
    let first = first_revision(revision, tables.written().map_err(unreadable)?, now);
    match tables.commit([Work::Raise(first)].iter()) {
        Ok(_) => Ok(tables),
        Err(failed) => {
            tracing::warn!(
                file = %file.display(),
                cause = %failed.cause,
                "the revision could not be raised: if this is a backup that was put back, restart its clients"
            );
            drop(tables);
            source.open()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_is_larger_than_what_a_lost_life_can_have_written() {
        const NEVER: Option<u64> = None;
        for (revision, written, now, first) in [
            (0, NEVER, 1_000, 0),
            (7, NEVER, 1_000, 7),
            (7, Some(1_000), 1_000, 20_007),
            (7, Some(1_000), 1_060, 80_007),
            (7, Some(1_000), 900, 20_007),
            (u64::MAX - 1, Some(0), u64::MAX, u64::MAX),
        ] {
            assert_eq!(first_revision(revision, written, now), first, "{revision} {written:?} {now}");
        }
    }
}
