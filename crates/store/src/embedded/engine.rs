//! How commits are carried out, and what happens when the disk fails.
//!
//! ```text
//!            group ──▶ carry out ──▶ publish, answer
//!                        │ failed
//!                        ▼
//!   open the database again: checked, repaired ── fails ──▶ down: refuse all, try again later
//!                        │                                     │
//!                        ▼                                     ▼
//!   on the disk after all? ── yes ──▶ publish, answer       recover: open, find room, touch
//!                        │ no
//!                        ▼
//!   one by one, the smallest first, up to the first that fails; then all are refused (`trouble`)
//! ```
//!
//! After an I/O error redb takes nothing more, and what the file then holds is certain only after it was opened again. So
//! the database is closed and opened at once, under the lock of the directory, which is never let go. The commit under way
//! is on the disk completely or not at all; the revision tells which, and watchers get its event or never hear of it. If
//! the database cannot be opened, its callers are told that the outcome is unknown, and its event is published or forgotten
//! when it can.
//!
//! Nothing here waits: when to try again is the thread's business ([`writer`](super::writer)).

use super::source::Source;
use super::tables::{self, CommitFailed, Group, Tables};
use super::trouble::{self, Fate, Pauses, Trouble};
use super::writer::{Request, Shared, Slot};
use crate::contract::{Event, Health, Revision};
use crate::error::{Cause, Error, OpenError};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The writing side of a store.
pub(super) struct Engine {
    shared: Arc<Shared>,
    source: Arc<dyn Source>,
    pauses: Pauses,
    /// The last revision that was published.
    revision: Revision,
    /// `None` while all is well.
    trouble: Option<Trouble>,
    /// A group of unknown outcome: if the database has its revision when it is open again, it happened. No other group is
    /// begun before that is known.
    unknown: Option<Group>,
    /// How long it took to open the database last.
    took: Duration,
}

/// What became of a group that was tried.
enum Attempt {
    /// It was carried out and answered, as it should be.
    Done,
    /// Nothing of it was carried out, and nobody was answered. The database may be open or not.
    NotDone(Vec<Request>),
    /// The disk failed, and everybody was answered.
    Answered,
}

impl Engine {
    /// Over a database that is at `revision`.
    pub(super) fn new(
        shared: Arc<Shared>,
        source: Arc<dyn Source>,
        revision: Revision,
        pauses: Pauses,
    ) -> Self {
        Engine { shared, source, pauses, revision, trouble: None, unknown: None, took: Duration::ZERO }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// The file that the store is in.
    pub(super) fn file(&self) -> &Path {
        self.source.file()
    }

    /// When [`recover`](Self::recover) is to be called; `None` while all is well.
    pub(super) fn recovers_at(&self) -> Option<Instant> {
        self.trouble.as_ref().map(Trouble::next)
    }

    /// Carries out a group and answers all of it.
    pub(super) fn commit(&mut self, group: Vec<Request>) {
        let group = self.admitted(group);
        if group.is_empty() {
            return;
        }
        let shows_end = self.trouble.as_ref().is_some_and(|trouble| {
            let largest = group.iter().map(Request::size).max();
            largest.is_some_and(|size| trouble.ends_with(size))
        });
        match self.attempt(group) {
            Attempt::Done if shows_end => self.end(),
            Attempt::Done | Attempt::Answered => {}
            Attempt::NotDone(group) => self.one_by_one(group),
        }
    }

    /// Those of a group that are to be tried; the others are refused.
    fn admitted(&mut self, group: Vec<Request>) -> Vec<Request> {
        let Some(trouble) = &mut self.trouble else { return group };
        let open = self.shared.is_open();
        let (tried, refused) = group.into_iter().partition(|request| open && trouble.admits(request.size()));
        self.refuse(refused);
        tried
    }

    fn is_full(&self) -> bool {
        self.trouble.as_ref().is_some_and(|trouble| *trouble.cause() == Cause::NoSpace)
    }

    fn refuse(&self, group: Vec<Request>) {
        for request in group {
            // Whoever refuses is in trouble; the fallback is there so that nobody waits for ever if that is a mistake.
            let cause = self.trouble.as_ref().map_or_else(panicked, |trouble| trouble.cause().clone());
            request.reply(Err(Error::Unwritable { cause }));
        }
    }

    /// A group failed as a whole and nothing of it was carried out: each by itself, so that what needs little room, or
    /// makes some, is not held up by what needs more.
    fn one_by_one(&mut self, mut group: Vec<Request>) {
        // A lone one has just been tried, and a disk that fails for another reason does not care how much is written.
        if group.len() < 2 || !self.is_full() {
            return self.refuse(group);
        }
        // The smallest first: when one fails, those that are left would too. Each failure costs opening the database again.
        group.sort_by_key(|request| std::cmp::Reverse(request.size()));
        while self.shared.is_open()
            && let Some(request) = group.pop()
        {
            match self.attempt(vec![request]) {
                Attempt::Done if group.is_empty() => self.end(),
                Attempt::Done => {}
                Attempt::Answered => break,
                Attempt::NotDone(failed) => {
                    self.refuse(failed);
                    break;
                }
            }
        }
        self.refuse(group);
    }

    fn attempt(&mut self, group: Vec<Request>) -> Attempt {
        let works = group.iter().map(|request| &request.work);
        let outcome = match &*self.shared.slot() {
            // Unwind safety is asserted: whatever panicked, the database is closed and opened again.
            Slot::Open(tables) => catch_unwind(AssertUnwindSafe(|| tables.commit(works))),
            Slot::Down(_) | Slot::Closed => return Attempt::NotDone(group),
        };
        let CommitFailed { cause, unknown } = match outcome {
            Ok(Ok(done)) => {
                self.answer(group, done);
                return Attempt::Done;
            }
            Ok(Err(failed)) => failed,
            // Before the commit, so nothing was changed.
            Err(_) => CommitFailed { cause: panicked(), unknown: None },
        };
        self.unknown = unknown;
        let size = group.iter().map(Request::size).sum();
        self.begin(cause.clone(), size);
        self.take_down(cause.clone());
        match self.reopen() {
            Ok(Some(happened)) => {
                self.answer(group, happened);
                Attempt::Answered
            }
            Ok(None) => Attempt::NotDone(group),
            Err(error) => {
                self.postpone(Cause::from(&error), Some(&error));
                if self.unknown.is_none() {
                    return Attempt::NotDone(group);
                }
                for request in group {
                    request.reply(Err(Error::OutcomeUnknown { reason: cause.to_string() }));
                }
                Attempt::Answered
            }
        }
    }

    /// What was carried out: to the watchers first, so that who was answered finds its own event (`Store::commit`).
    fn answer(&mut self, group: Vec<Request>, done: Group) {
        let Group { answers, events, revision } = done;
        self.publish(events, revision);
        for (request, result) in group.into_iter().zip(answers) {
            request.reply(result);
        }
    }

    fn publish(&mut self, events: Vec<Arc<Event>>, revision: Revision) {
        if !events.is_empty() {
            self.shared.events.publish(events);
        }
        self.revision = revision;
        self.shared.raise_revision(revision);
    }

    /// Closes the database, which can do nothing more.
    fn take_down(&self, cause: Cause) {
        let old = self.shared.replace(Slot::Down(cause));
        // What panicked once may do so again when it is dropped.
        if catch_unwind(AssertUnwindSafe(move || drop(old))).is_err() {
            tracing::warn!("the database panicked while it was closed");
        }
    }

    fn open(&self) -> Result<Tables, OpenError> {
        let tables = self.source.open()?;
        if !self.is_full() {
            return Ok(tables);
        }
        // The write that failed has filled what room there was, in pages that are free again. Closing cuts them off, so that a
        // smaller write finds that room, and so do others on the file system. If it fails, the file only stays longer.
        if let Err(error) = tables.close() {
            tracing::debug!(%error, "a full database was not closed cleanly");
        }
        self.source.open()
    }

    /// Opens the database again. Gives the group of unknown outcome if it happened, for the caller to publish.
    fn reopen(&mut self) -> Result<Option<Group>, OpenError> {
        let file = self.source.file();
        let began = Instant::now();
        let opened = catch_unwind(AssertUnwindSafe(|| self.open()));
        self.took = began.elapsed();
        let tables = opened.unwrap_or_else(|_| Err(tables::corrupt(file, panicked().to_string())))?;
        let unreadable = |error: Error| match error {
            Error::Corrupt { problem, .. } => tables::corrupt(file, problem),
            other => OpenError::io("read", file)(io::Error::other(other)),
        };
        let found = tables.revision().map_err(unreadable)?;
        let known = self.revision;
        let unknown = self.unknown.as_ref();
        let fate = trouble::fate(found, known, unknown.map(|group| group.revision)).ok_or_else(|| {
            tables::corrupt(file, format!("it is at revision {found}, and {known} was written last"))
        })?;
        let happened = unknown.filter(|_| fate == Fate::Happened);
        // All that was acknowledged lately has to be there. A file that somebody put in place of ours could have its revision.
        let recent = self.shared.events.recent();
        let new = happened.map(|group| group.events.as_slice()).unwrap_or_default();
        if !tables.agrees_with(recent.iter().chain(new)).map_err(unreadable)? {
            return Err(tables::corrupt(file, "it lacks what was written last".into()));
        }
        self.shared.replace(Slot::Open(tables));
        Ok(self.unknown.take().filter(|_| fate == Fate::Happened))
    }

    /// A reader met an error: opens the database again if it can do nothing more.
    pub(super) fn check(&mut self) {
        let failed = match &*self.shared.slot() {
            Slot::Open(tables) => tables.fault(),
            Slot::Down(_) | Slot::Closed => None,
        };
        let Some(cause) = failed else { return };
        self.begin(cause.clone(), 0);
        self.take_down(cause);
        // Nothing is of unknown outcome while the database is open.
        if let Err(error) = self.reopen() {
            self.postpone(Cause::from(&error), Some(&error));
        }
    }

    /// Tries to get back to where all writes are tried. Nothing happens while all is well.
    pub(super) fn recover(&mut self) {
        if self.trouble.is_none() {
            return;
        }
        match self.try_to_recover() {
            Ok(()) => self.end(),
            Err((cause, error)) => self.postpone(cause, error.as_ref()),
        }
    }

    fn try_to_recover(&mut self) -> Result<(), (Cause, Option<OpenError>)> {
        let failed = |error: OpenError| (Cause::from(&error), Some(error));
        if !self.shared.is_open()
            && let Some(Group { events, revision, .. }) = self.reopen().map_err(failed)?
        {
            self.publish(events, revision);
        }
        if let Some(bytes) = self.trouble.as_ref().and_then(Trouble::room) {
            self.source.find_room(bytes).map_err(|error| (Cause::from(&error), None))?;
        }
        let touched = match &*self.shared.slot() {
            Slot::Open(tables) => catch_unwind(AssertUnwindSafe(|| tables.touch())),
            Slot::Down(_) | Slot::Closed => return Ok(()),
        };
        touched.unwrap_or_else(|_| Err(panicked())).map_err(|cause| {
            self.take_down(cause.clone());
            (cause, None)
        })
    }

    /// A write of `size` bytes failed.
    fn begin(&mut self, cause: Cause, size: usize) {
        let changed = match &mut self.trouble {
            Some(trouble) => trouble.again(cause, size),
            none => {
                *none = Some(Trouble::new(cause, size, self.pauses, Instant::now()));
                true
            }
        };
        self.tell(changed, None);
    }

    /// An attempt to recover failed.
    fn postpone(&mut self, cause: Cause, error: Option<&OpenError>) {
        let Some(trouble) = &mut self.trouble else { return };
        let changed = trouble.postpone(cause, Instant::now(), self.took);
        self.tell(changed, error);
    }

    /// Says how the store fares now. In the log only when that has changed: a line for each write that is refused would fill
    /// what is left of the disk.
    fn tell(&self, changed: bool, error: Option<&OpenError>) {
        let Some(trouble) = &self.trouble else { return };
        let (file, cause) = (self.source.file().display(), trouble.cause().clone());
        let problem = match error {
            // It says more than its cause: what is wrong with the file.
            Some(error @ OpenError::Corrupt { .. }) => error.to_string(),
            _ => format!("{file} cannot be written: {cause}; {}", cause.remedy()),
        };
        if changed {
            tracing::warn!(
                problem,
                "the store cannot be written; reads go on, and it is tried again until it can"
            );
        }
        self.shared.set_health(Health::Unwritable { cause, problem });
    }

    fn end(&mut self) {
        if self.trouble.take().is_some() {
            tracing::info!(file = %self.source.file().display(), "the store is written again");
            self.shared.set_health(Health::Writable);
        }
    }
}

fn panicked() -> Cause {
    Cause::Other("the database panicked".into())
}
