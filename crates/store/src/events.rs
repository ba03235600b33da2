//! The events an engine can still replay, and the watches over them.
//!
//! There is one bounded window of recent events and no buffer per watcher: a watcher is a position
//! in the window. Replay and live delivery are the same thing, so nothing is lost or doubled where
//! one turns into the other; a slow watcher costs nothing, and is told when the window has moved
//! past it.

use crate::contract::{Change, Event, EventStream, Revision};
use crate::error::{Error, Result};
use futures::{StreamExt, stream};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::watch;

/// How many recent events an engine keeps in memory for its watchers. Whichever limit is reached
/// first drops the oldest; the newest event always stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Number of events.
    pub events: usize,
    /// Total size of their keys and values, in bytes.
    pub bytes: usize,
}

impl Default for Window {
    /// 10,000 events of at most 64 MiB: the API server's watch cache keeps the long history.
    fn default() -> Self {
        Window { events: 10_000, bytes: 64 << 20 }
    }
}

/// How many events a watcher takes from the window at a time.
const BATCH: usize = 64;

/// Why there will be no more events.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// The store was closed.
    Closed,
    /// The engine stopped: [`Error::Stopped`].
    Stopped { file: PathBuf, problem: String },
}

impl End {
    /// What an operation answers after this end.
    pub(crate) fn error(&self) -> Error {
        match self.clone() {
            End::Closed => Error::Closed,
            End::Stopped { file, problem } => Error::Stopped { file, problem },
        }
    }
}

/// The publishing side, owned by an engine. Dropping it ends the watches as closing does.
#[derive(Debug)]
pub(crate) struct Events {
    /// Locked to push events or to copy a batch of pointers, never across an await.
    recent: Arc<Mutex<Recent>>,
    /// Carries no value: it tells watchers to look. A channel per watcher would have to be filled for each.
    wake: watch::Sender<()>,
}

#[derive(Debug)]
struct Recent {
    window: Window,
    /// In the order of their revisions.
    events: VecDeque<Arc<Event>>,
    /// What `size` says of all of them.
    bytes: usize,
    /// Every event with a greater revision is in `events`.
    floor: Revision,
    end: Option<End>,
}

/// What a watcher finds at its position.
enum Found {
    Events(VecDeque<Arc<Event>>),
    Lagged,
    End(Option<Error>),
    Nothing,
}

impl Events {
    /// Events after `floor`, the present revision of the store.
    pub(crate) fn new(window: Window, floor: Revision) -> Self {
        let recent = Recent { window, events: VecDeque::new(), bytes: 0, floor, end: None };
        Events { recent: Arc::new(Mutex::new(recent)), wake: watch::Sender::new(()) }
    }

    /// Makes the next events, in the order of their revisions, visible to all watchers.
    pub(crate) fn publish(&self, events: impl IntoIterator<Item = Arc<Event>>) {
        let mut recent = self.recent.lock();
        for event in events {
            recent.push(event);
        }
        // Woken after the lock is free: watchers take it first thing.
        drop(recent);
        self.wake.send_replace(());
    }

    /// No more events will come. The first reason stays.
    pub(crate) fn end(&self, end: End) {
        self.recent.lock().end.get_or_insert(end);
        self.wake.send_replace(());
    }

    /// The error that every operation answers once the events have ended.
    pub(crate) fn check(&self) -> Result<()> {
        self.recent.lock().end.as_ref().map_or(Ok(()), |end| Err(end.error()))
    }

    /// The events that are still in the window, in order.
    pub(crate) fn recent(&self) -> Vec<Arc<Event>> {
        self.recent.lock().events.iter().cloned().collect()
    }

    /// The events after a revision: see [`Store::watch`](crate::Store::watch).
    pub(crate) fn watch(&self, after: Revision) -> Result<EventStream> {
        let recent = self.recent.lock();
        if let Some(end) = &recent.end {
            return Err(end.error());
        }
        if after < recent.floor {
            return Err(Error::Compacted { requested: after, oldest: recent.floor });
        }
        let watcher = Watcher {
            recent: self.recent.clone(),
            wake: self.wake.subscribe(),
            position: after,
            batch: VecDeque::new(),
        };
        Ok(stream::unfold(Some(watcher), Watcher::step).boxed())
    }
}

impl Recent {
    fn push(&mut self, event: Arc<Event>) {
        debug_assert!(self.events.back().map_or(self.floor, |last| last.revision) < event.revision);
        self.bytes += size(&event);
        self.events.push_back(event);
        // Each event is pushed and dropped once: constant work per commit, however many watchers there are.
        while self.events.len() > 1
            && (self.events.len() > self.window.events || self.bytes > self.window.bytes)
        {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= size(&oldest);
                self.floor = oldest.revision;
            }
        }
    }

    fn after(&self, position: Revision) -> Found {
        if position < self.floor {
            return Found::Lagged;
        }
        // Revisions may have gaps (see `Target::raise`), so the place is searched, not computed.
        let start = self.events.partition_point(|event| event.revision <= position);
        let batch: VecDeque<_> = self.events.range(start..).take(BATCH).cloned().collect();
        // What is left is delivered before the end is told.
        match &self.end {
            _ if !batch.is_empty() => Found::Events(batch),
            Some(End::Closed) => Found::End(None),
            Some(end @ End::Stopped { .. }) => Found::End(Some(end.error())),
            None => Found::Nothing,
        }
    }
}

/// The bytes that an event counts for in its window.
fn size(event: &Event) -> usize {
    let change = |change: &Change| match change {
        Change::Put(entry) => entry.key.len() + entry.value.len(),
        Change::Delete { key, .. } => key.len(),
    };
    event.changes.iter().map(change).sum()
}

struct Watcher {
    recent: Arc<Mutex<Recent>>,
    wake: watch::Receiver<()>,
    /// Every event up to this revision was taken from the window.
    position: Revision,
    /// Taken and not delivered yet. Lost if the stream is dropped, as it may be: its reader has gone.
    batch: VecDeque<Arc<Event>>,
}

impl Watcher {
    /// One item of the stream, and the watcher unless that was the last one.
    async fn step(watcher: Option<Watcher>) -> Option<(Result<Arc<Event>>, Option<Watcher>)> {
        let mut watcher = watcher?;
        let mut gone = false;
        loop {
            if let Some(event) = watcher.batch.pop_front() {
                return Some((Ok(event), Some(watcher)));
            }
            // Marked as seen before the look, so that what is published after it wakes us.
            watcher.wake.mark_unchanged();
            let found = watcher.recent.lock().after(watcher.position);
            match found {
                Found::Events(batch) => {
                    watcher.position = batch.back().map_or(watcher.position, |event| event.revision);
                    watcher.batch = batch;
                }
                Found::Lagged => return Some((Err(Error::Lagged { delivered: watcher.position }), None)),
                Found::End(error) => return error.map(|error| (Err(error), None)),
                Found::Nothing if gone => return None,
                // An error says that the engine was dropped; it may have published before, so look once more.
                Found::Nothing => gone = watcher.wake.changed().await.is_err(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Entry;
    use futures::FutureExt;

    fn event(revision: Revision, size: usize) -> Arc<Event> {
        let entry = Entry {
            key: "/k".into(),
            value: vec![0; size].into(),
            create_revision: 1,
            mod_revision: revision,
        };
        Arc::new(Event { revision, changes: vec![Change::Put(entry)] })
    }

    /// What a stream has ready: revisions, and the error or the end after them.
    fn drain(stream: &mut EventStream) -> (Vec<Revision>, Option<String>) {
        let mut revisions = Vec::new();
        loop {
            match stream.next().now_or_never() {
                Some(Some(Ok(event))) => revisions.push(event.revision),
                Some(Some(Err(error))) => return (revisions, Some(error.to_string())),
                Some(None) => return (revisions, Some("end".into())),
                None => return (revisions, None),
            }
        }
    }

    #[test]
    fn a_watcher_that_the_window_passed_is_told() {
        let events = Events::new(Window { events: 4, bytes: 1 << 20 }, 10);
        let mut slow = events.watch(10).unwrap();
        events.publish((11..=13).map(|r| event(r, 1)));
        assert_eq!(drain(&mut slow), (vec![11, 12, 13], None));
        events.publish((14..=18).map(|r| event(r, 1)));
        let lagged = Error::Lagged { delivered: 13 }.to_string();
        assert_eq!(drain(&mut slow), (vec![], Some(lagged)));
        assert!(slow.next().now_or_never().expect("an ended stream is ready").is_none());
        assert!(matches!(events.watch(13), Err(Error::Compacted { requested: 13, oldest: 14 })));
        assert_eq!(drain(&mut events.watch(14).unwrap()), (vec![15, 16, 17, 18], None));
    }

    #[test]
    fn bytes_bound_the_window_but_the_newest_event_stays() {
        let events = Events::new(Window { events: 100, bytes: 50 }, 0);
        events.publish((1..=4).map(|r| event(r, 18)));
        assert!(matches!(events.watch(1), Err(Error::Compacted { oldest: 2, .. })));
        events.publish([event(5, 4096)]);
        assert_eq!(drain(&mut events.watch(4).unwrap()), (vec![5], None));
    }

    #[test]
    fn a_watch_after_a_future_revision_waits_for_it() {
        let events = Events::new(Window::default(), 0);
        let mut stream = events.watch(2).unwrap();
        events.publish((1..=4).map(|r| event(r, 1)));
        assert_eq!(drain(&mut stream), (vec![3, 4], None));
    }

    #[test]
    fn every_end_comes_after_the_last_event() {
        let events = Events::new(Window::default(), 0);
        let (mut closed, mut late) = (events.watch(0).unwrap(), events.watch(0).unwrap());
        events.publish([event(1, 1)]);
        assert_eq!(drain(&mut closed), (vec![1], None));
        events.publish([event(2, 1)]);
        events.end(End::Closed);
        assert_eq!(drain(&mut closed), (vec![2], Some("end".into())));
        assert!(matches!(events.watch(2), Err(Error::Closed)));
        drop(events);
        assert_eq!(drain(&mut late), (vec![1, 2], Some("end".into())));

        let dropped = Events::new(Window::default(), 0);
        let mut stream = dropped.watch(0).unwrap();
        dropped.publish([event(1, 1)]);
        drop(dropped);
        assert_eq!(drain(&mut stream), (vec![1], Some("end".into())));

        let stopped = Events::new(Window::default(), 0);
        let mut stream = stopped.watch(0).unwrap();
        stopped.publish([event(1, 1)]);
        stopped.end(End::Stopped { file: "f".into(), problem: "disk".into() });
        stopped.end(End::Closed);
        let (seen, error) = drain(&mut stream);
        assert_eq!(seen, [1]);
        assert!(error.expect("an error").contains("disk"));
    }
}
