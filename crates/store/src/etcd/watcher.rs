//! The events after a revision, from whichever member gives them.
//!
//! # Flow
//! One watch stream of etcd over all keys of the store. When it breaks or falls silent, another member is asked for
//! what comes after the last event, so nothing is lost and nothing comes twice. A member that is well answers every
//! request for its progress; so one that hangs is noticed within [`MAX_SILENCE`].
//!
//! # Progress
//! The revisions of etcd count the commits of all its users. Whoever waits for a revision at which somebody else wrote
//! gets an [`Event`] without changes once nothing before it is missing.

use super::layout::{etcd_revision, prefix_end, revision};
use super::rpc::{DELETE, Watch, WatchCreateRequest, WatchResponse, revision_of};
use super::shared::{Awaited, Shared};
use crate::contract::{Change, Event, Revision};
use crate::error::{Error, Result};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::Status;

/// How long a member may be silent although it was asked for its progress.
const MAX_SILENCE: Duration = Duration::from_secs(3);
/// How often progress is asked for.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
/// How often, while somebody waits for a revision.
const AWAITED_PROGRESS_INTERVAL: Duration = Duration::from_millis(5);
/// How long a member may take to begin a watch.
const CREATE_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before another member is asked.
const RETRY_PAUSE: Duration = Duration::from_millis(100);
/// How long the last events may take when the store is closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A watcher's place in the history. It works only while it is polled: a stream that nobody reads asks etcd for nothing,
/// and what etcd sends waits in the flow control of HTTP/2.
pub(super) struct Watcher {
    shared: Arc<Shared>,
    awaited: watch::Receiver<Awaited>,
    /// Every event up to here was queued.
    position: Revision,
    /// Events of the last response that were not taken yet.
    queue: VecDeque<Arc<Event>>,
    /// `None` until a member was asked, and after it failed.
    stream: Option<MemberWatch>,
    /// When a closed store no longer waits for its last events.
    close_deadline: Option<Instant>,
}

/// A watch stream and the member that it comes from.
struct MemberWatch {
    watch: Watch,
    member: usize,
    last_message: Instant,
    /// When progress is asked for next.
    next_progress: Instant,
}

/// What came next.
enum Input {
    Message(Result<Option<WatchResponse>, Status>),
    Awaited { open: bool },
    ProgressDue,
}

impl Watcher {
    pub(super) fn new(shared: Arc<Shared>, after: Revision) -> Self {
        let awaited = shared.awaited.subscribe();
        Self { shared, awaited, position: after, queue: VecDeque::new(), stream: None, close_deadline: None }
    }

    /// One item of the stream of events, and the watcher unless that was the last one.
    pub(super) async fn step(watcher: Option<Self>) -> Option<(Result<Arc<Event>>, Option<Self>)> {
        let mut watcher = watcher?;
        loop {
            if let Some(event) = watcher.queue.pop_front() {
                return Some((Ok(event), Some(watcher)));
            }
            if watcher.is_over() {
                return None;
            }
            match watcher.advance().await {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some((Err(error), None)),
            }
        }
    }

    /// Whether the store was closed and there is nothing more to wait for.
    fn is_over(&mut self) -> bool {
        let Some(end) = self.awaited.borrow_and_update().end else { return false };
        let close_deadline = *self.close_deadline.get_or_insert_with(|| Instant::now() + CLOSE_TIMEOUT);
        self.position >= end || Instant::now() >= close_deadline
    }

    /// Waits for something and takes it in; false if the store is no more.
    async fn advance(&mut self) -> Result<bool> {
        let Some(stream) = &mut self.stream else {
            return Ok(self.create().await);
        };
        // All three can be cancelled without loss: a message stays in the stream, the watch channel keeps its latest value.
        let input = tokio::select! {
            message = stream.watch.message() => Input::Message(message),
            changed = self.awaited.changed() => Input::Awaited { open: changed.is_ok() },
            () = tokio::time::sleep_until(stream.next_progress) => Input::ProgressDue,
        };
        let is_awaited = self.awaited.borrow().revision > self.position;
        match input {
            Input::Message(Ok(Some(response))) => {
                stream.last_message = Instant::now();
                return self.take(&response).map(|()| true);
            }
            Input::Message(Ok(None)) => self.abandon("the stream ended"),
            Input::Message(Err(error)) => self.abandon(&super::members::failure(&error).to_string()),
            Input::Awaited { open } => {
                // The event is most likely on its way: ask only if it does not come at once.
                stream.next_progress = stream.next_progress.min(Instant::now() + AWAITED_PROGRESS_INTERVAL);
                return Ok(open);
            }
            // Nothing came, not even an answer to the requests of the last seconds.
            Input::ProgressDue if stream.last_message.elapsed() > MAX_SILENCE => self.abandon("it is silent"),
            Input::ProgressDue => {
                stream.next_progress =
                    Instant::now() + if is_awaited { AWAITED_PROGRESS_INTERVAL } else { PROGRESS_INTERVAL };
                stream.watch.request_progress();
            }
        }
        Ok(true)
    }

    /// Gives the stream up.
    fn abandon(&mut self, reason: &str) {
        if let Some(stream) = self.stream.take() {
            tracing::info!(reason, after = self.position, "the watch of an etcd member broke; asking again");
            self.shared.members.mark_failed(stream.member);
        }
    }

    /// Asks a member for what comes next; false if the store is no more.
    async fn create(&mut self) -> bool {
        let (member, mut client) = self.shared.members.preferred();
        let root = self.shared.layout.root();
        let create = WatchCreateRequest {
            key: root.into(),
            range_end: prefix_end(root),
            start_revision: etcd_revision(self.position.saturating_add(1)),
            prev_kv: true,
        };
        // A member that takes the request and never answers it would hold the watcher up: the timeout covers both.
        let begun = tokio::time::timeout(CREATE_TIMEOUT, client.watch(create)).await;
        if let Ok(Ok(watch)) = begun {
            let now = Instant::now();
            self.stream = Some(MemberWatch {
                watch,
                member,
                last_message: now,
                next_progress: now + AWAITED_PROGRESS_INTERVAL,
            });
            return true;
        }
        self.shared.members.mark_failed(member);
        tokio::select! {
            changed = self.awaited.changed() => changed.is_ok(),
            () = tokio::time::sleep(RETRY_PAUSE) => true,
        }
    }

    /// Queues the events of a response, or what it says of the progress.
    fn take(&mut self, response: &WatchResponse) -> Result<()> {
        if response.canceled {
            // etcd compacted past our position while no stream was open: the caller has to list anew.
            if response.compact_revision > 0 {
                return Err(Error::Lagged { delivered: self.position });
            }
            self.abandon(&response.cancel_reason);
            return Ok(());
        }
        if response.created {
            return Ok(());
        }
        // A progress notification. etcd sends it only when everything up to its revision was delivered on this stream.
        if response.events.is_empty() {
            let reached = revision(revision_of(response.header.as_ref()));
            if reached > self.position {
                self.position = reached;
                self.queue.push_back(Arc::new(Event { revision: reached, changes: Vec::new() }));
            }
            return Ok(());
        }
        for event in events(&self.shared, response)? {
            // The watch starts after our position, so nothing should come twice; checked all the same, as "none twice" is
            // the contract of `Store::watch`.
            if event.revision > self.position {
                self.position = event.revision;
                self.queue.push_back(Arc::new(event));
            }
        }
        Ok(())
    }
}

/// The commits of a response. etcd splits none between two responses, unless a watch asks for fragments, which ours does
/// not (`fragment` in `WatchCreateRequest`).
fn events(shared: &Shared, response: &WatchResponse) -> Result<Vec<Event>> {
    let mut events: Vec<Event> = Vec::new();
    for event in &response.events {
        let Some(kv) = &event.kv else { continue };
        let at = revision(kv.mod_revision);
        let change = if event.kind == DELETE {
            let before = event.prev_kv.as_ref();
            shared.layout.store_key(&kv.key).map(|key| Change::Delete {
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
