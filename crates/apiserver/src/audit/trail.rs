//! What one request gathers for the audit log on its way, and when its lines are written.

use super::event::{self, AuditContext, Notes, Outcome, Stage};
use super::log::Log;
use fleetpass_api::clock::SharedClock;
use fleetpass_apimachinery::RequestInfo;
use fleetpass_apimachinery::user::UserInfo;
use std::sync::Arc;

/// The trail of one request. However the request ends, it leaves its events: a trail that is dropped before its end was
/// that of a client who went away, or of a watch that is ended.
pub(crate) struct Trail(Option<Box<Pending>>);

struct Pending {
    log: Log,
    clock: SharedClock,
    context: AuditContext,
    /// How the request will have been answered, once that is known.
    outcome: Outcome,
    /// Whether an event of the head of the answer belongs to it, and is still to come.
    starts: bool,
    /// A line that waits for a place in the queue.
    waiting: Option<Vec<u8>>,
    /// Whether the last event was made.
    ended: bool,
}

impl Trail {
    /// The trail of a request to a server that keeps no audit log.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    /// The trail of a request of which `context` are known so far.
    pub(crate) fn begin(log: Log, clock: SharedClock, context: AuditContext) -> Self {
        Self(Some(Box::new(Pending {
            log,
            clock,
            context,
            outcome: Outcome::ClosedEarly,
            starts: false,
            waiting: None,
            ended: false,
        })))
    }

    /// What the request asks for.
    pub(crate) fn resolved(&mut self, info: &RequestInfo) {
        if let Some(pending) = &mut self.0 {
            pending.starts = info.verb == "watch";
            pending.context.info = Some(info.clone());
        }
    }

    /// Who sent it.
    pub(crate) fn user(&mut self, user: &Arc<UserInfo>) {
        if let Some(pending) = &mut self.0 {
            pending.context.user = Some(user.clone());
        }
    }

    /// As whom; `constraint` is the verb that allowed it, if it was one of constrained impersonation.
    pub(crate) fn impersonated(&mut self, user: &Arc<UserInfo>, constraint: Option<&'static str>) {
        if let Some(pending) = &mut self.0 {
            pending.context.impersonated = Some((user.clone(), constraint));
        }
    }

    /// Where handlers write what they want to add.
    pub(crate) fn notes(&self) -> Arc<Notes> {
        self.0.as_ref().map(|pending| pending.context.notes.clone()).unwrap_or_default()
    }

    /// The credentials are bad: the answer has no end of its own (`WithFailedAuthenticationAudit`). `attempted` says of
    /// which kind they were.
    pub(crate) fn unauthenticated(&mut self, attempted: impl FnOnce() -> String) {
        if let Some(pending) = &mut self.0 {
            pending.outcome = Outcome::Unauthenticated(attempted());
        }
    }

    /// The answer is made. Waits until its events are in the queue. With `streams` the last of them is made when the
    /// trail is dropped: the answer has a body that goes on.
    pub(crate) async fn answered(&mut self, outcome: Outcome, streams: bool) {
        let Some(pending) = &mut self.0 else { return };
        if !matches!(pending.outcome, Outcome::Unauthenticated(_)) {
            pending.outcome = outcome;
        }
        while let Some(stage) = pending.next(streams) {
            pending.encode(stage);
            pending.log.put(&mut pending.waiting).await;
        }
    }
}

impl Pending {
    /// The next event that is due, if there is one.
    fn next(&mut self, streams: bool) -> Option<Stage> {
        let last = match self.outcome {
            _ if self.ended => return None,
            Outcome::Unauthenticated(_) => Stage::ResponseStarted,
            Outcome::Panicked => Stage::Panic,
            _ if std::mem::take(&mut self.starts) => return Some(Stage::ResponseStarted),
            _ if streams => return None,
            _ => Stage::ResponseComplete,
        };
        self.ended = true;
        Some(last)
    }

    fn encode(&mut self, stage: Stage) {
        self.log.count();
        self.waiting = Some(event::line(&self.context, stage, &self.outcome, self.clock.now()));
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.waiting.take().into_iter().for_each(|line| self.log.put_detached(line));
        while let Some(stage) = self.next(false) {
            self.encode(stage);
            self.waiting.take().into_iter().for_each(|line| self.log.put_detached(line));
        }
    }
}
