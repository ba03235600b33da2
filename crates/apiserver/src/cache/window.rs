//! The recent events of a resource, for watches and lists that begin in the past.

use super::watcher::Event;
use fleetpass_store::Revision;
use std::collections::VecDeque;
use std::sync::Arc;

/// How many events are remembered at most.
const MAX_EVENTS: usize = 4096;
/// How many bytes of objects they may keep alive, unless they are few: 16 MiB for each resource.
const MAX_BYTES: usize = 16 << 20;
/// How many are remembered whatever their size: without any, a watcher of large objects could never catch up.
const MIN_EVENTS: usize = 100;
/// How many of the latest events share their encodings between watchers. Watchers read events soon after they come; one that is
/// late encodes them for itself.
const MAX_SHARED: usize = 256;
/// How many bytes of objects these may be at most, unless it is one alone: an encoding is about as large as its object, and each
/// form that watchers want is one. A watcher that does not read keeps what is shared in memory.
const MAX_SHARED_BYTES: usize = 4 << 20;

/// The last events, in order.
#[derive(Debug, Default)]
pub(super) struct Window {
    events: VecDeque<Arc<Event>>,
    /// The size of all `event.object`. Not of `event.previous`: that is the object of an earlier event, or was there before.
    bytes: usize,
    /// How many of the latest events share their encodings, and the size of their objects.
    shared: usize,
    shared_bytes: usize,
    /// All events after this revision are in `events`.
    start: Revision,
}

impl Window {
    /// An empty one, in which what happens after `start` will be.
    pub(super) fn new(start: Revision) -> Self {
        Self { start, ..Self::default() }
    }

    /// The revision up to which events are no longer remembered.
    pub(super) fn start(&self) -> Revision {
        self.start
    }

    /// Remembers one more, and forgets the oldest of too many.
    pub(super) fn push(&mut self, event: Arc<Event>) {
        let size = event.object.size();
        self.bytes += size;
        self.events.push_back(event);
        self.shared += 1;
        self.shared_bytes += size;
        while self.shared > MAX_SHARED || (self.shared_bytes > MAX_SHARED_BYTES && self.shared > 1) {
            let oldest = &self.events[self.events.len() - self.shared];
            oldest.close();
            self.shared -= 1;
            self.shared_bytes -= oldest.object.size();
        }
        // What shares is far from being forgotten: `MAX_SHARED` and `MAX_SHARED_BYTES` are less than the limits below.
        while self.events.len() > MAX_EVENTS || (self.bytes > MAX_BYTES && self.events.len() > MIN_EVENTS) {
            let Some(oldest) = self.events.pop_front() else { break };
            self.bytes -= oldest.object.size();
            // A commit has several events of one revision. If only some of them are forgotten, the whole revision counts as such: a watch of
            // events after `start` needs none of it.
            self.start = oldest.revision;
        }
    }

    /// The revision of the last event until `revision`, or [`Window::start`]: all revisions from there to `revision` are the
    /// same state.
    pub(super) fn last_until(&self, revision: Revision) -> Revision {
        let behind = self.events.partition_point(|event| event.revision <= revision);
        behind.checked_sub(1).map_or(self.start, |last| self.events[last].revision)
    }

    /// The events after one revision, which must not be before [`Window::start`], up to another one.
    pub(super) fn between(&self, after: Revision, until: Revision) -> impl Iterator<Item = &Arc<Event>> {
        let from = self.events.partition_point(|event| event.revision <= after);
        let to = self.events.partition_point(|event| event.revision <= until);
        self.events.range(from..to.max(from))
    }

    /// The events after a revision, which must not be before [`Window::start`].
    pub(super) fn after(&self, revision: Revision) -> impl Iterator<Item = &Arc<Event>> {
        let from = self.events.partition_point(|event| event.revision <= revision);
        self.events.range(from..)
    }
}

#[cfg(test)]
mod tests {
    use super::super::encodings::Form;
    use super::super::{EventKind, Object};
    use super::*;

    fn event(revision: Revision, size: usize) -> Arc<Event> {
        let json = format!(r#"{{"metadata":{{"name":"{}"}}}}"#, "x".repeat(size));
        let object = Object::new("/registry/things/x".into(), revision, json.into()).unwrap();
        Arc::new(Event::new(revision, EventKind::Modified, Arc::new(object), None))
    }

    fn filled(events: std::ops::RangeInclusive<Revision>, size: usize) -> Window {
        let mut window = Window::new(0);
        events.for_each(|revision| window.push(event(revision, size)));
        window
    }

    #[test]
    fn the_number_of_events_and_their_bytes_are_bounded() {
        let few = MIN_EVENTS as Revision;
        for (events, size, kept) in [
            (10, 10, 10),
            (5_000, 10, MAX_EVENTS),
            // 64 KiB each: 16 MiB are less than 256 of them.
            (1_000, 64 << 10, 255),
            // Larger than all that is allowed: some are remembered all the same.
            (few + 20, 200 << 10, MIN_EVENTS),
        ] {
            let window = filled(1..=events, size);
            assert_eq!(window.events.len(), kept, "{events} of {size} bytes");
            assert_eq!(window.start(), events - kept as Revision);
            assert_eq!(window.bytes, window.events.iter().map(|event| event.object.size()).sum::<usize>());
        }
    }

    #[test]
    fn events_are_found_by_revision() {
        let window = filled(11..=20, 1);
        let after = |revision| window.after(revision).map(|event| event.revision).collect::<Vec<_>>();
        assert_eq!(after(10), (11..=20).collect::<Vec<_>>());
        assert_eq!(after(17), [18, 19, 20]);
        assert_eq!(after(20), [] as [Revision; 0]);
        let between = |after, until| window.between(after, until).map(|e| e.revision).collect::<Vec<_>>();
        assert_eq!(between(17, 19), [18, 19]);
        assert_eq!(between(17, Revision::MAX), [18, 19, 20]);
        assert_eq!((between(17, 17), between(17, 15)), (vec![], vec![]));
        assert_eq!((window.last_until(15), window.last_until(99)), (15, 20));
        assert_eq!(Window::new(10).last_until(15), 10);
    }

    #[test]
    fn older_events_share_no_encodings() {
        let form = Form::new("json");
        let encode = |event: &Arc<Event>| {
            let delivery = event.deliver();
            delivery.encoded(&form, || "text".into());
            delivery
        };
        for (size, shared) in [(1, MAX_SHARED), (64 << 10, 63), (5 << 20, 1)] {
            let object = &event(1, size).object;
            let of_object = |revision| Event::new(revision, EventKind::Modified, object.clone(), None);
            let events: Vec<_> = (1..=300).map(|revision| Arc::new(of_object(revision))).collect();
            // Somebody keeps all of them, as a watcher does that is not read from.
            let kept: Vec<_> = events.iter().map(encode).collect();
            let mut window = Window::new(0);
            events.iter().for_each(|event| window.push(event.clone()));
            let open: Vec<_> = kept.iter().map(|delivery| delivery.forms()).collect();
            let want: Vec<_> = (0..300).map(|n| usize::from(n >= 300 - shared)).collect();
            assert_eq!(open, want, "{size}");
            assert_eq!((window.shared, encode(&events[0]).forms()), (shared, 0));
        }
    }
}
