//! Brings one account up to date: reads it live, asks [`decide`], takes the step, asks again.

use crate::{
    ca::CaBundle,
    calls::{CallError, CallErrorKind, Calls, Content},
    claim::Claim,
    decide::{Cause, Plan, Policy, Source, Step, after_failure, decide, refuse_issued, wanted_record},
    events::Events,
    gone::{Answer, Evidence, Finding},
    identity::Identity,
    marking::Marking,
    metrics::Metrics,
    news::{Outcome, Versions},
    observe::{Memory, Minted, Observed, Review, Unseen},
    report,
    side::Side,
};
use fleetpass_api::{clock::SharedClock, names};
use std::sync::Arc;

/// What all reconciles share.
pub(crate) struct Context {
    pub(crate) calls: Calls,
    pub(crate) policy: Policy,
    pub(crate) ca: CaBundle,
    pub(crate) hub: Identity,
    pub(crate) marking: Marking,
    pub(crate) claim: Arc<Claim>,
    pub(crate) clock: SharedClock,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) events: Arc<Events>,
}

/// More steps than any state needs (the tests prove it for all states that they make up): ends a disagreement
/// with a server that answers other than it acts.
const MOST_STEPS: usize = 16;
/// How often an account is read again at once because it changed under the agent's hands.
const MOST_LOOKS: usize = 4;

impl Context {
    /// One reconcile of one account. The memory comes back in any case.
    ///
    /// Cancel safety: what is dropped at an `await` has sent a request or not; the memory is lost with it. A token that
    /// was requested and not yet projected goes with it, and a later reconcile requests another.
    pub(crate) async fn reconcile(&self, name: &str, memory: &mut Memory) -> Outcome {
        // While another cluster has the name, or it is not known who has it, nothing is done, and nothing said to
        // accounts that are the other's. Once it is free, whoever waits is hurried.
        if !self.claim.allows_work() {
            return Outcome::Failed { versions: None };
        }
        let started = tokio::time::Instant::now();
        let mut looks = 1;
        let result = loop {
            match self.pass(name, memory, looks == MOST_LOOKS).await {
                // Somebody else wrote first: no failure, and no reason to wait. But bounded, because a writer that
                // never rests would keep this worker for ever.
                Err((error, _)) if changed_meanwhile(&error) && looks < MOST_LOOKS => looks += 1,
                result => break result,
            }
        };
        self.metrics.reconciled(started.elapsed(), result.is_ok());
        match result {
            Ok(outcome) => {
                memory.failed = None;
                outcome
            }
            Err((error, versions)) => {
                self.metrics.failed(&error);
                // Once, not every time; and what is about a side has been said of the side.
                if error.is_of_side() || memory.failed.as_ref() == Some(&error) {
                    tracing::debug!(account = name, %error, "trying again later");
                } else {
                    tracing::warn!(account = name, %error, "trying again later");
                }
                memory.failed = Some(error);
                Outcome::Failed { versions }
            }
        }
    }

    /// One look and what follows from it; on failure, also what was seen, if the hub answered. A change under the
    /// agent's hands is worth a word to the user only when it was the `last` look.
    async fn pass(
        &self,
        name: &str,
        memory: &mut Memory,
        last: bool,
    ) -> Result<Outcome, (CallError, Option<Versions>)> {
        // Together, for the sake of time; so they are not of one moment. That is safe, because no write trusts them: a
        // Secret is replaced, and a status patched, at the version that was read, deletions name the UID, creations
        // fail on what exists, and a token that was issued is checked for the UID.
        let (account, secret, hub, service_account, ca) = tokio::join!(
            self.calls.account(name),
            self.calls.secret(name),
            self.hub.read(&self.calls),
            self.calls.service_account(name),
            self.ca.read(&self.calls),
        );
        // The hub first: without its word on account and Secret there is nothing to decide, nor anybody to tell. The
        // memory is taken only after these can no longer fail.
        let gone = account.is_err() && self.is_gone(name, Answer::of(&account), memory).await;
        let hubs_word = |error| (error, None);
        let mut seen = if gone {
            // What the hub refuses to show of the rest is gone, too, or will be.
            Observed { secret: secret.ok().flatten(), hub: hub.ok().flatten(), ..Observed::default() }
        } else {
            Observed {
                account: account.map_err(hubs_word)?,
                secret: secret.map_err(hubs_word)?,
                hub: hub.map_err(hubs_word)?,
                ..Observed::default()
            }
        };
        if let Some(account) = &seen.account {
            memory.account = Some(account.uid.clone());
        }
        seen = Observed { may_not_mark: self.marking.is_refused(), memory: std::mem::take(memory), ..seen };
        let result = async {
            seen.service_account = service_account.inspect_err(|error| seen.unseen = Some(unseen(error)))?;
            // Only an account that is there needs the CA; one that is gone must be cleared away without.
            if seen.account.is_some() {
                seen.ca = ca?;
            }
            self.settle(name, &mut seen).await
        }
        .await;
        let result = match result {
            Ok(outcome) => Ok(outcome),
            Err(error) => {
                if last || !changed_meanwhile(&error) {
                    self.report_failure(name, &mut seen, &error).await;
                }
                // After the report, whose echo is to be no news: it would end the backoff.
                let versions = versions(&seen);
                Err((error, Some(versions)))
            }
        };
        self.events.found(name, seen.account.as_ref());
        let told =
            seen.account.as_ref().and_then(|found| found.status.condition(names::CONDITION_TOKEN_REPORTED));
        self.metrics.account(name, told.map(|condition| condition.reason.as_str()));
        *memory = std::mem::take(&mut seen.memory);
        result
    }

    /// Whether an account that the hub does not show is gone.
    async fn is_gone(&self, name: &str, account: Answer, memory: &Memory) -> bool {
        let (deleted, known) = (memory.deleted.as_deref(), memory.account.as_deref());
        let mut evidence = Evidence { account, namespace: None, deleted, known };
        let mut finding = evidence.weigh();
        if finding == Finding::AskForNamespace {
            evidence.namespace = Some(self.calls.namespace().await);
            finding = evidence.weigh();
        }
        if finding == Finding::Gone {
            tracing::info!(
                account = name,
                namespace_is_gone = evidence.namespace.is_some(),
                "the hub refuses the agent, and the account was deleted: clearing up"
            );
        }
        finding == Finding::Gone
    }

    /// Steps until there is nothing left to do.
    async fn settle(&self, name: &str, seen: &mut Observed) -> Result<Outcome, CallError> {
        for _ in 0..MOST_STEPS {
            let Plan { step, next } = decide(name, seen, &self.policy, self.clock.now());
            match step {
                // Somebody else projects into this Secret: it may be the agent that has the name by now.
                Some(Step::RequestToken(_, Cause::SecretAltered)) if !self.claim.confirm().await => {
                    return Ok(Outcome::Failed { versions: None });
                }
                Some(step) => self.take(name, seen, step).await?,
                None => {
                    self.note_expiry(name, seen);
                    return Ok(self.settled(seen, next));
                }
            }
        }
        Err(CallError {
            side: Side::Cluster,
            call: "reconcile",
            kind: CallErrorKind::Unusable("the servers answer other than they act"),
        })
    }

    /// Takes one step and notes what came of it: the answer of the server where it gives the object, otherwise a new
    /// look at it. So the next decision is about what is there, not about what was meant to be.
    async fn take(&self, name: &str, seen: &mut Observed, step: Step) -> Result<(), CallError> {
        let now = self.clock.now();
        match step {
            Step::CreateServiceAccount(mark) => {
                seen.service_account = Some(self.calls.create_service_account(name, &mark).await?);
                tracing::info!(account = name, "created the ServiceAccount");
            }
            Step::MarkServiceAccount(mark) => {
                let Some(found) = &seen.service_account else { return Ok(()) };
                match self.calls.mark_service_account(name, found, &mark).await {
                    Ok(marked) if marked.mark.covers(&mark) => {
                        seen.service_account = Some(marked);
                        tracing::info!(account = name, "adopted the ServiceAccount");
                    }
                    // A policy of the cluster that takes annotations out again, say: asking once more would not help.
                    Ok(unmarked) => {
                        self.marking.refused("it does not keep the annotations");
                        seen.service_account = Some(unmarked);
                        seen.may_not_mark = true;
                    }
                    Err(CallError { kind: CallErrorKind::Refused { code, message, .. }, .. })
                        if code != 401 =>
                    {
                        self.marking.refused(&message);
                        seen.may_not_mark = true;
                    }
                    Err(error) => return Err(error),
                }
            }
            Step::RequestToken(wanted, _) => {
                let token = self.calls.request_token(name, &wanted).await?;
                // Before it is remembered: a token that was issued for somebody else's ServiceAccount, which took the
                // name a moment ago, must never reach the hub.
                if let Some(problem) = seen
                    .service_account
                    .as_ref()
                    .and_then(|found| refuse_issued(&token, name, found, &self.policy))
                {
                    let kind = CallErrorKind::Unusable(problem);
                    return Err(CallError { side: Side::Cluster, call: "POST ServiceAccount/token", kind });
                }
                seen.memory.minted = Some(Minted { token, record: wanted.record(), at: now });
            }
            Step::ReviewToken => {
                let Some(token) = seen.secret.as_ref().and_then(|secret| secret.token.as_ref()) else {
                    return Ok(());
                };
                let accepted = self.calls.review(name, token, &self.policy.audiences).await?;
                seen.memory.review = Some(Review { token: token.fingerprint(), accepted, at: now });
            }
            Step::WriteSecret(source) => self.write_secret(name, seen, source).await?,
            Step::DeleteServiceAccount { uid } => {
                self.calls.delete_service_account(name, &uid).await?;
                tracing::info!(account = name, "deleted the ServiceAccount");
                // A finalizer may hold it, or another may have its name already.
                seen.service_account = self.calls.service_account(name).await?;
            }
            Step::DeleteSecret { uid } => {
                self.calls.delete_secret(name, &uid).await?;
                tracing::info!(account = name, "deleted the Secret");
                seen.secret = self.calls.secret(name).await?;
            }
            Step::PatchStatus(status) => {
                let Some(account) = &seen.account else { return Ok(()) };
                let patch = report::patch(account, &status);
                seen.account = Some(self.calls.patch_status(name, &patch).await?);
            }
        }
        Ok(())
    }

    async fn write_secret(&self, name: &str, seen: &mut Observed, source: Source) -> Result<(), CallError> {
        let present = seen.secret.as_ref();
        let (token, record) = match (source, &seen.memory.minted) {
            (Source::Minted(_), Some(minted)) => (Some(&minted.token), Some(minted.record.clone())),
            (Source::Minted(_), None) => (None, None),
            (Source::Present, _) => {
                (present.and_then(|secret| secret.token.as_ref()), wanted_record(seen, &self.policy))
            }
        };
        // The rules name a source only where there is one; without, the next look finds out.
        let (Some(token), Some(record), Some(account)) = (token, record, &seen.account) else {
            return Ok(());
        };
        let content = Content { account_uid: &account.uid, token, ca: &seen.ca, record: &record };
        let fingerprint = token.fingerprint();
        let written = self.calls.write_secret(name, &content, present).await?;
        if let Source::Minted(cause) = source {
            self.events.happened(name, account, cause);
        }
        seen.secret = Some(written);
        // Only now that it is written: a write that failed leaves the token to the next attempt. Where only the answer
        // was lost, the next look finds that token in the Secret, and at worst writes it once more.
        match (source, seen.memory.minted.take()) {
            (Source::Minted(cause), Some(minted)) => {
                seen.memory.projected = Some((fingerprint, minted.at));
                // The cluster has just issued it: no need to ask whether it knows it.
                seen.memory.review = Some(Review { token: fingerprint, accepted: true, at: minted.at });
                self.metrics.refreshed(cause);
                tracing::info!(account = name, cause = cause.as_str(), "projected a fresh token");
            }
            _ => tracing::info!(account = name, "put the Secret back in order"),
        }
        Ok(())
    }

    /// Tells the user why nothing happens, if the hub can be told. A failure to do so adds nothing: the error that
    /// led here is reported and tried again anyway.
    async fn report_failure(&self, name: &str, seen: &mut Observed, error: &CallError) {
        let cluster = &self.policy.cluster;
        let (reason, message) = match (error.side, &error.kind) {
            (Side::Hub, CallErrorKind::Unavailable(_)) => return,
            (Side::Cluster, CallErrorKind::Unavailable(_)) => {
                (names::REASON_CLUSTER_UNREACHABLE, format!("{cluster}: {}", error.kind))
            }
            (Side::Cluster, kind) => {
                (names::REASON_CLUSTER_REFUSED, format!("{cluster}: {}: {kind}", error.call))
            }
            (Side::Hub, kind) => (names::REASON_HUB_REFUSED, format!("hub: {}: {kind}", error.call)),
        };
        self.metrics.refresh_failed(reason);
        let now = self.clock.now();
        let status = after_failure(name, seen, &self.policy, (reason, &message), now);
        if let (Some(status), Some(account)) = (status, &seen.account) {
            let patch = report::patch(account, &status);
            match self.calls.patch_status(name, &patch).await {
                Ok(account) => seen.account = Some(account),
                Err(error) => tracing::debug!(account = name, %error, "the failure could not be reported"),
            }
        }
    }

    /// Keeps the metric of the token's end up to date; it ends with the account.
    fn note_expiry(&self, name: &str, seen: &Observed) {
        let managed = seen.secret.as_ref().filter(|secret| secret.managed && seen.account.is_some());
        let claims = managed.and_then(|secret| secret.token.as_ref()?.claims());
        self.metrics.expires(name, claims.map(|claims| claims.expires_at));
    }

    /// All is done until something changes, or until `next`.
    fn settled(&self, seen: &Observed, next: Option<jiff::Timestamp>) -> Outcome {
        let wait = next.map(|next| {
            let millis = next.as_millisecond().saturating_sub(self.clock.now().as_millisecond());
            std::time::Duration::from_millis(u64::try_from(millis).unwrap_or(0))
        });
        Outcome::Settled { versions: versions(seen), wait }
    }
}

/// Why there was no look.
fn unseen(error: &CallError) -> Unseen {
    match error.kind {
        // Nor does what is no answer of the API say anything about a ServiceAccount.
        CallErrorKind::Unavailable(_) | CallErrorKind::Turned(_) => Unseen::Silent,
        _ => Unseen::Refused,
    }
}

/// Whether to look again at once: the object changed, or went, between looking and acting.
fn changed_meanwhile(error: &CallError) -> bool {
    matches!(error.kind, CallErrorKind::Conflict | CallErrorKind::NotFound(_))
}

/// The objects of ours as they were seen or written last. Those of others are not among them: the watches, which select
/// by our label, would take them for gone.
fn versions(seen: &Observed) -> Versions {
    let secret = seen.secret.as_ref().filter(|secret| secret.managed);
    let service = seen.service_account.as_ref().filter(|service| service.managed);
    Versions {
        account: seen.account.as_ref().map(|account| account.resource_version.clone()),
        secret: secret.and_then(|secret| secret.metadata.resource_version.clone()),
        service_account: service.map(|service| service.resource_version.clone()),
    }
}

#[cfg(test)]
mod tests;
