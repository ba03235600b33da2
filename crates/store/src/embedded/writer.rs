//! The writer: one thread through which every commit goes.
//!
//! Commits wait in a bounded queue. The thread takes all that are waiting, makes them durable with
//! one fsync, publishes their events, and answers. The more callers there are, the larger the
//! groups: throughput grows with load, and a lone caller waits for nobody.

use super::tables::{CommitFailed, Group, Tables};
use crate::contract::{Op, Revision, Txn};
use crate::error::{Error, Result};
use crate::events::{End, Events};
use parking_lot::RwLock;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// How many commits can wait; the next one waits for a place, so a slow disk slows its writers and fills no memory.
const QUEUE: usize = 1024;
/// A group ends with the commit that reaches one of these: who commits a little must not wait long for who commits much.
const GROUP: usize = 512;
const GROUP_BYTES: usize = 8 << 20;

/// A commit that waits for the writer.
pub(super) struct Request {
    pub(super) txn: Txn,
    pub(super) answer: oneshot::Sender<Result<Revision>>,
}

/// What the writer shares with the readers.
pub(super) struct Shared {
    /// `None` once closed. Held for reading while in use, so that closing waits for the users.
    pub(super) tables: RwLock<Option<Tables>>,
    pub(super) events: Events,
}

/// Runs until all senders are gone and every waiting commit is answered, or until the database fails.
fn run(shared: &Shared, mut queue: mpsc::Receiver<Request>) {
    // If a bug here panics, watchers and later callers are told that the store stopped.
    let _guard = StopOnPanic(shared);
    while let Some(first) = queue.blocking_recv() {
        let group = gather(first, &mut queue);
        if let Err(end) = commit(shared, group) {
            // Again, for the end that `commit` has not told; the first reason stays.
            shared.events.end(end.clone());
            // What still waits was not begun.
            queue.close();
            while let Some(request) = queue.blocking_recv() {
                reply(request.answer, Err(end.error()));
            }
            return;
        }
    }
}

/// The first request and those that wait behind it, up to the limits of a group.
fn gather(first: Request, queue: &mut mpsc::Receiver<Request>) -> Vec<Request> {
    let mut bytes = size(&first.txn);
    let mut group = vec![first];
    while group.len() < GROUP && bytes < GROUP_BYTES {
        let Ok(request) = queue.try_recv() else { break };
        bytes += size(&request.txn);
        group.push(request);
    }
    group
}

fn commit(shared: &Shared, group: Vec<Request>) -> Result<(), End> {
    // For reading: it keeps closing out while the group is written, not the other readers.
    let guard = shared.tables.read();
    let Some(tables) = guard.as_ref() else {
        for request in group {
            reply(request.answer, Err(Error::Closed));
        }
        return Err(End::Closed);
    };
    let (txns, waiting): (Vec<_>, Vec<_>) = group.into_iter().map(|r| (r.txn, r.answer)).unzip();
    match tables.commit(txns) {
        Ok(Group { answers, events }) => {
            // Published before anybody is answered: who was answered finds its own event in a watch (`Store::commit`).
            if !events.is_empty() {
                shared.events.publish(events);
            }
            for (answer, result) in waiting.into_iter().zip(answers) {
                reply(answer, result);
            }
            Ok(())
        }
        Err(CommitFailed { problem, outcome_unknown }) => {
            tracing::error!(file = %tables.file().display(), problem, "the store stops: a commit failed");
            let end = End::Stopped { file: tables.file().to_owned(), problem: problem.clone() };
            // The end first: who is told of the failure finds the store stopped.
            shared.events.end(end.clone());
            for answer in waiting {
                let error = match outcome_unknown {
                    true => Error::OutcomeUnknown { reason: problem.clone() },
                    false => end.error(),
                };
                reply(answer, Err(error));
            }
            Err(end)
        }
    }
}

fn reply(answer: oneshot::Sender<Result<Revision>>, result: Result<Revision>) {
    // A caller who stopped waiting is fine; the commit stands.
    let _ = answer.send(result);
}

fn size(txn: &Txn) -> usize {
    let op = |op: &Op| match op {
        Op::Put { key, value } => key.len() + value.len(),
        Op::Delete { key } => key.len(),
    };
    txn.ops.iter().map(op).sum()
}

/// Ends the events if the writer panics: nobody waits for a thread that is gone.
struct StopOnPanic<'a>(&'a Shared);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let file = self.0.tables.read().as_ref().map(|t| t.file().to_owned()).unwrap_or_default();
            self.0.events.end(End::Stopped { file, problem: "the writer panicked".into() });
        }
    }
}

/// A handle to the queue and to the shared state, for [`super::EmbeddedStore`].
pub(super) fn start(tables: Tables, events: Events) -> std::io::Result<Writer> {
    let shared = Arc::new(Shared { tables: RwLock::new(Some(tables)), events });
    let (queue, receiver) = mpsc::channel(QUEUE);
    let for_writer = shared.clone();
    let thread =
        std::thread::Builder::new().name("store-writer".into()).spawn(move || run(&for_writer, receiver))?;
    Ok(Writer { shared, queue, thread })
}

/// A running writer.
pub(super) struct Writer {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Sender<Request>,
    pub(super) thread: std::thread::JoinHandle<()>,
}
