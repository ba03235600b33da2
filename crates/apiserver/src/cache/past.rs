//! Earlier states of a resource that were asked for not long ago.
//!
//! All pages of a list show the state of the first one. Without these, each page would undo again what has happened since.

use super::Objects;
use super::watcher::Event;
use fleetpass_store::Revision;
use parking_lot::Mutex;
use std::sync::Arc;

/// How many states are kept for each resource: as many lists can be paged through side by side at no cost. A state shares what
/// has not changed since with the present, and what has changed with the window of events.
const KEPT: usize = 4;

/// States by the revision of the last event in them; the one that was used last stands last. A mutex, because lists read under
/// the cache's shared lock; it is held for a look at [`KEPT`] entries.
#[derive(Default)]
pub(super) struct Past {
    kept: Mutex<Vec<(Revision, Objects)>>,
}

impl Past {
    /// The earliest state that is not earlier than `revision`.
    pub(super) fn nearest(&self, revision: Revision) -> Option<(Revision, Objects)> {
        let mut kept = self.kept.lock();
        let later = kept.iter().enumerate().filter(|(_, (known, _))| *known >= revision);
        let at = later.min_by_key(|(_, (known, _))| *known)?.0;
        let found = kept.remove(at);
        kept.push(found.clone());
        Some(found)
    }

    /// Keeps a state, instead of the one that was used the longest ago if there are too many.
    pub(super) fn keep(&self, revision: Revision, objects: &Objects) {
        let mut kept = self.kept.lock();
        // Another page may have come to the same state at the same time.
        kept.retain(|(known, _)| *known != revision);
        if kept.len() >= KEPT {
            kept.remove(0);
        }
        kept.push((revision, objects.clone()));
    }

    /// Forgets the states that nobody can ask for any more, because the window does not reach back to them.
    pub(super) fn forget_before(&mut self, start: Revision) {
        self.kept.get_mut().retain(|(known, _)| *known >= start);
    }
}

/// Takes `events`, which are in order, back.
pub(super) fn undo(objects: &mut Objects, events: &[Arc<Event>]) {
    for event in events.iter().rev() {
        // What was there before comes back; what the event created goes.
        match &event.previous {
            Some(previous) => objects.insert(previous.key.clone(), previous.clone()),
            None => objects.remove(&*event.object.key),
        };
    }
}
