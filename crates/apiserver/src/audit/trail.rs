//! What one request gathers for the audit log on its way, and when its lines are written
//! (`k8s.io/apiserver/pkg/endpoints/filters/audit.go`).
//!
//! A request can end in three ways, and each leaves its last event exactly once:
//!
//! - it is answered as a whole: [`Trail::answered`] queues the event, and the answer waits for that;
//! - it is answered with a stream: the first event is queued then, the last one when the stream is dropped;
//! - its future is dropped, because the client went away: `Drop` leaves the event. A destructor cannot wait, so the line goes
//!   to [`Log::put_detached`]. This is the case that must not be missing: the write may have been carried out.

use super::event::{self, AuditContext, Notes, Outcome, Stage};
use super::log::Log;
use fleetpass_api::clock::SharedClock;
use fleetpass_apimachinery::RequestInfo;
use fleetpass_apimachinery::user::UserInfo;
use std::sync::Arc;

/// The trail of one request. It leaves its events however the request ends; nothing at all if the server keeps no audit log.
pub(crate) struct Trail(Option<Box<Pending>>);

struct Pending {
    log: Log,
    clock: SharedClock,
    context: AuditContext,
    /// How the request was answered. `ClosedEarly` until that is known, which is what a trail that is dropped says.
    outcome: Outcome,
    /// Whether the event `ResponseStarted` is still to be made; watches have one.
    starts: bool,
    /// A line that is made but not yet queued. It is kept here and not in the future that waits for the queue: if that is
    /// dropped, `Drop` still finds it.
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

    /// The authenticated user.
    pub(crate) fn user(&mut self, user: &Arc<UserInfo>) {
        if let Some(pending) = &mut self.0 {
            pending.context.user = Some(user.clone());
        }
    }

    /// The user as whom the request is made; `constraint` is the verb that allowed it, if it was one of constrained
    /// impersonation.
    pub(crate) fn impersonated(&mut self, user: &Arc<UserInfo>, constraint: Option<&'static str>) {
        if let Some(pending) = &mut self.0 {
            pending.context.impersonated = Some((user.clone(), constraint));
        }
    }

    /// What handlers write annotations to; without an audit log, what they write is thrown away.
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

    /// The answer is made. Waits until its events are in the queue. With `streams` the answer has a body that goes on, and the
    /// last event is made when the trail is dropped. Cancel-safe: an event is either queued or left to `Drop`.
    pub(crate) async fn answered(&mut self, outcome: Outcome, streams: bool) {
        let Some(pending) = &mut self.0 else { return };
        // The 401 is the answer; what kind of credentials failed says more, and must not be overwritten by it.
        if !matches!(pending.outcome, Outcome::Unauthenticated(_)) {
            pending.outcome = outcome;
        }
        while let Some(stage) = pending.next(streams) {
            // Two steps, so that a line that could not be queued yet is in `waiting` at the await.
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
            // Taken, so that it is made once; not the last one, so `ended` stays false.
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
        // First the line that was being queued when the future was dropped, then those that were never made.
        self.waiting.take().into_iter().for_each(|line| self.log.put_detached(line));
        while let Some(stage) = self.next(false) {
            self.encode(stage);
            self.waiting.take().into_iter().for_each(|line| self.log.put_detached(line));
        }
    }
}
