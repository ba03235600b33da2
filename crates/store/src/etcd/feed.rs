//! The events after a revision, from whichever member gives them.
//!
//! # Flow
//! One watch stream of etcd over all keys of the store. When it breaks or falls silent, another member is asked for
//! what comes after the last event, so nothing is lost and nothing comes twice. A member that is well answers every
//! question for its progress; so one that is halted is noticed within [`SILENCE`].
//!
//! # Progress
//! The revisions of etcd count the commits of all its users. Whoever waits for a revision at which somebody else wrote
//! gets an [`Event`] without changes once nothing before it is missing.

use super::Shared;
use super::layout::{etcd_revision, prefix_end, revision};
use super::rpc::{DELETE, Watch, WatchCreateRequest, WatchResponse, revision_of};
use crate::contract::{Change, Event, Revision};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

/// How long a member may be silent although it was asked for its progress.
const SILENCE: Duration = Duration::from_secs(3);
/// How often progress is asked for.
const BEAT: Duration = Duration::from_secs(1);
/// How often, while somebody waits for a revision.
const HASTE: Duration = Duration::from_millis(5);
/// How long a member may take to begin a watch.
const BEGIN: Duration = Duration::from_secs(2);
/// The pause before another member is asked.
const PAUSE: Duration = Duration::from_millis(100);
/// How long the last events may take when the store is closed.
const FAREWELL: Duration = Duration::from_secs(2);

/// What the store wants of its feeds.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Wanted {
    /// Somebody waits for this revision.
    pub(super) revision: Revision,
    /// The store is closed: feeds end after this revision.
    pub(super) end: Option<Revision>,
}

/// A watcher's place in the history.
pub(super) struct Feed {
    shared: Arc<Shared>,
    wanted: watch::Receiver<Wanted>,
    /// Every event up to here was queued.
    position: Revision,
    queue: VecDeque<Arc<Event>>,
    stream: Option<Stream>,
    /// When a closed store no longer waits for its last events.
    farewell: Option<Instant>,
}

/// A watch stream and the member that it comes from.
struct Stream {
    watch: Watch,
    member: usize,
    heard: Instant,
    /// When progress is asked for next.
    beat: Instant,
}

/// What came next.
enum Heard {
    Message(Result<Option<WatchResponse>, Status>),
    Wanted { open: bool },
    Beat,
}

impl Feed {
    pub(super) fn new(shared: Arc<Shared>, after: Revision) -> Self {
        let wanted = shared.wanted.subscribe();
        Self { shared, wanted, position: after, queue: VecDeque::new(), stream: None, farewell: None }
    }

    /// One item of the stream of events, and the feed unless that was the last one.
    pub(super) async fn step(feed: Option<Self>) -> Option<(Result<Arc<Event>>, Option<Self>)> {
        let mut feed = feed?;
        loop {
            if let Some(event) = feed.queue.pop_front() {
                return Some((Ok(event), Some(feed)));
            }
            if feed.is_over() {
                return None;
            }
            match feed.advance().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some((Err(error), None)),
            }
        }
    }

    /// Whether the store was closed and there is nothing more to wait for.
    fn is_over(&mut self) -> bool {
        let Some(end) = self.wanted.borrow_and_update().end else { return false };
        let farewell = *self.farewell.get_or_insert_with(|| Instant::now() + FAREWELL);
        self.position >= end || Instant::now() >= farewell
    }

    /// Waits for something and takes it in; false if the store is no more.
    async fn advance(&mut self) -> Result<bool> {
        let Some(stream) = &mut self.stream else {
            return Ok(self.begin().await);
        };
        let heard = tokio::select! {
            message = stream.watch.message() => Heard::Message(message),
            changed = self.wanted.changed() => Heard::Wanted { open: changed.is_ok() },
            () = tokio::time::sleep_until(stream.beat) => Heard::Beat,
        };
        let waited_for = self.wanted.borrow().revision > self.position;
        match heard {
            Heard::Message(Ok(Some(response))) => {
                stream.heard = Instant::now();
                return self.take(&response).map(|()| true);
            }
            Heard::Message(Ok(None)) => self.leave("the stream ended"),
            Heard::Message(Err(error)) => self.leave(&super::members::failure(&error).to_string()),
            Heard::Wanted { open } => {
                // The event is most likely on its way: ask only if it does not come at once.
                stream.beat = stream.beat.min(Instant::now() + HASTE);
                return Ok(open);
            }
            Heard::Beat if stream.heard.elapsed() > SILENCE => self.leave("it is silent"),
            Heard::Beat => {
                stream.beat = Instant::now() + if waited_for { HASTE } else { BEAT };
                stream.watch.ask_progress();
            }
        }
        Ok(true)
    }

    /// Gives the stream up.
    fn leave(&mut self, reason: &str) {
        if let Some(stream) = self.stream.take() {
            tracing::info!(reason, after = self.position, "the watch of an etcd member broke; asking again");
            self.shared.members.leave(stream.member);
        }
    }

    /// Asks a member for what comes next; false if the store is no more.
    async fn begin(&mut self) -> bool {
        let (member, mut client) = self.shared.members.preferred();
        let root = self.shared.layout.root();
        let create = WatchCreateRequest {
            key: root.into(),
            range_end: prefix_end(root),
            start_revision: etcd_revision(self.position.saturating_add(1)),
            prev_kv: true,
        };
        let begun = tokio::time::timeout(BEGIN, client.watch(create)).await;
        if let Ok(Ok(watch)) = begun {
            let now = Instant::now();
            self.stream = Some(Stream { watch, member, heard: now, beat: now + HASTE });
            return true;
        }
        self.shared.members.leave(member);
        tokio::select! {
            changed = self.wanted.changed() => changed.is_ok(),
            () = tokio::time::sleep(PAUSE) => true,
        }
    }

    /// Queues the events of a response, or what it says of the progress.
    fn take(&mut self, response: &WatchResponse) -> Result<()> {
        if response.canceled {
            if response.compact_revision > 0 {
                return Err(Error::Lagged { delivered: self.position });
            }
            self.leave(&response.cancel_reason);
            return Ok(());
        }
        if response.created {
            return Ok(());
        }
        if response.events.is_empty() {
            let reached = revision(revision_of(response.header.as_ref()));
            if reached > self.position {
                self.position = reached;
                self.queue.push_back(Arc::new(Event { revision: reached, changes: Vec::new() }));
            }
            return Ok(());
        }
        for event in events(&self.shared, response)? {
            // A member that was asked anew may repeat nothing, but a promise is better kept here.
            if event.revision > self.position {
                self.position = event.revision;
                self.queue.push_back(Arc::new(event));
            }
        }
        Ok(())
    }
}

/// The commits of a response: etcd never splits one between two responses.
fn events(shared: &Shared, response: &WatchResponse) -> Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    for event in &response.events {
        let Some(kv) = &event.kv else { continue };
        let at = revision(kv.mod_revision);
        let change = if event.kind == DELETE {
            let before = event.prev_kv.as_ref();
            shared.layout.outward(&kv.key).map(|key| Change::Delete {
                key,
                prev_create_revision: before.map_or(0, |before| revision(before.create_revision)),
                prev_mod_revision: before.map_or(0, |before| revision(before.mod_revision)),
            })
        } else {
            shared.layout.entry(kv)?.map(Change::Put)
        };
        let Some(change) = change else { continue };
        match events.last_mut() {
            Some(last) if last.revision == at => last.changes.push(change),
            _ => events.push(Event { revision: at, changes: vec![change] }),
        }
    }
    Ok(events)
}
