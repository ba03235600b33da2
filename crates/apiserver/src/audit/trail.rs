//! What one request gathers for the audit log on its way, and when its lines are written.

use super::event::{self, Facts, Notes, Outcome, Stage};
use super::log::Log;
use fleetpass_api::clock::SharedClock;
use fleetpass_apimachinery::RequestInfo;
use fleetpass_apimachinery::user::UserInfo;
use std::sync::Arc;

/// The trail of one request. However the request ends, it leaves its events: a trail that is dropped before its end was
/// that of a client who went away, or of a watch that is over.
pub(crate) struct Trail(Option<Box<Open>>);

struct Open {
    log: Log,
    clock: SharedClock,
    facts: Facts,
    /// How the request will have been answered, once that is known.
    outcome: Outcome,
    /// Whether an event of the head of the answer belongs to it, and is still to come.
    starts: bool,
    /// A line that waits for a place in the queue.
    waiting: Option<Vec<u8>>,
    /// Whether the last event was made.
    over: bool,
}

impl Trail {
    /// The trail of a request to a server that keeps no audit log.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The trail of a request of which `facts` are known so far.
    pub(crate) fn begin(log: Log, clock: SharedClock, facts: Facts) -> Self {
        Self(Some(Box::new(Open {
            log,
            clock,
            facts,
            outcome: Outcome::ClosedEarly,
            starts: false,
            waiting: None,
            over: false,
        })))
    }

    /// What the request asks for.
    pub(crate) fn about(&mut self, info: &RequestInfo) {
        if let Some(open) = &mut self.0 {
            open.starts = info.verb == "watch";
            open.facts.info = Some(info.clone());
        }
    }

    /// Who sent it.
    pub(crate) fn user(&mut self, user: &Arc<UserInfo>) {
        if let Some(open) = &mut self.0 {
            open.facts.user = Some(user.clone());
        }
    }

    /// As whom; `constraint` is the verb that allowed it, if it was one of constrained impersonation.
    pub(crate) fn impersonated(&mut self, user: &Arc<UserInfo>, constraint: Option<&'static str>) {
        if let Some(open) = &mut self.0 {
            open.facts.impersonated = Some((user.clone(), constraint));
        }
    }

    /// Where handlers write what they want to add.
    pub(crate) fn notes(&self) -> Arc<Notes> {
        self.0.as_ref().map(|open| open.facts.notes.clone()).unwrap_or_default()
    }

    /// The credentials are bad: the answer has no end of its own (`WithFailedAuthenticationAudit`). `attempted` says of
    /// which kind they were.
    pub(crate) fn unauthenticated(&mut self, attempted: impl FnOnce() -> String) {
        if let Some(open) = &mut self.0 {
            open.outcome = Outcome::Unauthenticated(attempted());
        }
    }

    /// The answer is made. Waits until its events are in the queue. With `streams` the last of them is made when the
    /// trail is dropped: the answer has a body that goes on.
    pub(crate) async fn answered(&mut self, outcome: Outcome, streams: bool) {
        let Some(open) = &mut self.0 else { return };
        if !matches!(open.outcome, Outcome::Unauthenticated(_)) {
            open.outcome = outcome;
        }
        while let Some(stage) = open.next(streams) {
            open.make(stage);
            open.log.put(&mut open.waiting).await;
        }
    }
}

impl Open {
    /// The next event that is due, if there is one.
    fn next(&mut self, streams: bool) -> Option<Stage> {
        let last = match self.outcome {
            _ if self.over => return None,
            Outcome::Unauthenticated(_) => Stage::ResponseStarted,
            Outcome::Panicked => Stage::Panic,
            _ if std::mem::take(&mut self.starts) => return Some(Stage::ResponseStarted),
            _ if streams => return None,
            _ => Stage::ResponseComplete,
        };
        self.over = true;
        Some(last)
    }

    fn make(&mut self, stage: Stage) {
        self.log.count();
        self.waiting = Some(event::line(&self.facts, stage, &self.outcome, self.clock.now()));
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.waiting.take().into_iter().for_each(|line| self.log.leave(line));
        while let Some(stage) = self.next(false) {
            self.make(stage);
            self.waiting.take().into_iter().for_each(|line| self.log.leave(line));
        }
    }
}
