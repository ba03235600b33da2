//! One of several candidates does the work: whoever holds a Lease.
//!
//! # Flow
//! Every candidate tries to take the Lease once per retry period of its [`Timing`]; whoever has it renews it as often.
//! It is free when nobody holds it, or when it was not renewed for its duration as this candidate saw it: times of
//! other machines' clocks are never compared. (`client-go/tools/leaderelection`.) Those who wait also watch it, so that
//! one that is given up is taken at once.
//!
//! # Guarantees
//! A leader that could not renew until its renew deadline stops working before another candidate can take the Lease,
//! as long as clocks run at the same speed. One that stops in order gives the Lease up.
//!
//! # Caveats
//! - A request that was sent before leadership was lost may arrive after it: writes carry preconditions for that.
//! - A renewal counts from its answer, as in client-go. One that was written at once and answered later than lease
//!   duration and renew deadline lie apart (5 seconds) could let two lead for a moment.

use crate::Error;
use crate::live::{FIELD_MANAGER, is_conflict, is_not_found, refusal};
use fleetpass_api::clock::SharedClock;
use futures::{Stream, StreamExt as _, future};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use std::future::Future;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long giving the Lease up may take.
const RELEASE_WITHIN: Duration = Duration::from_secs(5);

/// Who takes part in an election, and in which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The namespace of the Lease.
    pub namespace: String,
    /// The name of the Lease.
    pub lease: String,
    /// This candidate's name; no other may have the same.
    pub candidate: String,
}

/// An election, as one candidate sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Election {
    /// Who takes part, and in which.
    pub identity: Identity,
    /// How often it asks, and how long a Lease holds.
    pub timing: Timing,
    /// By this name the candidates are told in the Lease's `metadata.managedFields`.
    pub field_manager: String,
}

impl From<Identity> for Election {
    /// An election among controllers of a control plane, with the times that those have elsewhere.
    fn from(identity: Identity) -> Self {
        Self { identity, timing: Timing::default(), field_manager: FIELD_MANAGER.into() }
    }
}

/// The times of an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    lease: Duration,
    renew_within: Duration,
    retry: Duration,
}

impl Default for Timing {
    /// Those of kube-controller-manager: 15, 10 and 2 seconds.
    fn default() -> Self {
        let second = Duration::from_secs(1);
        Self { lease: second * 15, renew_within: second * 10, retry: second * 2 }
    }
}

/// Times with which there might be two leaders, or none; in the words of client-go (`NewLeaderElector`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    /// A Lease would be free before its holder stops.
    #[error("the lease duration must be greater than the renew deadline")]
    Lease,
    /// There would be no second attempt.
    #[error("the renew deadline must be greater than 1.2 times the retry period")]
    Renewal,
    /// A Lease says its duration in whole seconds.
    #[error("the lease duration must be whole seconds, at least one, and the retry period not zero")]
    Value,
}

impl Timing {
    /// For how long a Lease holds without renewal; after what time a leader that could not renew it stops; how often it
    /// is asked for or renewed.
    ///
    /// # Errors
    ///
    /// They contradict each other.
    pub fn new(lease: Duration, renew_within: Duration, retry: Duration) -> Result<Self, TimingError> {
        let whole =
            lease.subsec_nanos() == 0 && i32::try_from(lease.as_secs()).is_ok_and(|seconds| seconds > 0);
        if !whole || retry.is_zero() {
            return Err(TimingError::Value);
        }
        if lease <= renew_within {
            return Err(TimingError::Lease);
        }
        if renew_within.saturating_mul(10) <= retry.saturating_mul(12) {
            return Err(TimingError::Renewal);
        }
        Ok(Self { lease, renew_within, retry })
    }

    fn lease_seconds(&self) -> i32 {
        i32::try_from(self.lease.as_secs()).unwrap_or(i32::MAX)
    }
}

/// Where a candidate stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The server did not answer when it was asked last.
    Unknown,
    /// Someone else leads.
    Waiting,
    /// This one leads.
    Leading,
}

/// What this candidate has seen of the Lease.
#[derive(Debug, Default)]
struct Seen {
    /// The resourceVersion of the Lease.
    version: Option<String>,
    /// When it was seen with that version first, by this machine's monotonic clock. The times in the Lease are another
    /// machine's and are never compared with ours.
    since: Option<Instant>,
}

impl Seen {
    /// Takes note of the Lease; gives since when it has been like this.
    fn at(&mut self, lease: &Lease, now: Instant) -> Instant {
        if self.version != lease.metadata.resource_version {
            self.version.clone_from(&lease.metadata.resource_version);
            self.since = None;
        }
        *self.since.get_or_insert(now)
    }
}

/// The spec with which `candidate` holds the Lease from `now` on; none if someone else holds it, given for how long
/// it has been seen unchanged.
fn claim(
    spec: Option<&LeaseSpec>,
    candidate: &str,
    holds: i32,
    unchanged: Duration,
    now: Timestamp,
) -> Option<LeaseSpec> {
    let held = spec.cloned().unwrap_or_default();
    let holder = held.holder_identity.as_deref().unwrap_or_default();
    let duration =
        Duration::from_secs(u64::try_from(held.lease_duration_seconds.unwrap_or(holds)).unwrap_or(0));
    let mine = holder == candidate;
    if !mine && !holder.is_empty() && unchanged < duration {
        return None;
    }
    let transitions = held.lease_transitions.unwrap_or(0);
    Some(LeaseSpec {
        holder_identity: Some(candidate.into()),
        lease_duration_seconds: Some(holds),
        renew_time: Some(MicroTime(now)),
        acquire_time: if mine { held.acquire_time } else { Some(MicroTime(now)) },
        lease_transitions: Some(if mine || spec.is_none() {
            transitions
        } else {
            transitions.saturating_add(1)
        }),
        ..held
    })
}

/// Says so whenever the Lease is seen to be free or gone.
fn freed(leases: Api<Lease>, name: &str) -> impl Stream<Item = ()> + use<> {
    let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let is_free = |lease: &Lease| {
        let holder = lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref());
        holder.unwrap_or_default().is_empty()
    };
    watcher(leases, only).default_backoff().filter_map(move |event| {
        future::ready(match event {
            Ok(watcher::Event::Apply(lease) | watcher::Event::InitApply(lease)) => {
                is_free(&lease).then_some(())
            }
            Ok(watcher::Event::Delete(_)) => Some(()),
            // Without the right to watch, the next look at the Lease has to do.
            Ok(watcher::Event::Init | watcher::Event::InitDone) | Err(_) => None,
        })
    })
}

/// An error and what is behind it, in one line: of a request that did not arrive, the last cause says most.
fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}

/// A candidate.
struct Candidate {
    leases: Api<Lease>,
    election: Election,
    clock: SharedClock,
    standing: watch::Sender<Standing>,
    seen: Seen,
}

impl Candidate {
    fn lease(&self) -> &str {
        &self.election.identity.lease
    }

    fn writer(&self) -> PostParams {
        PostParams { field_manager: Some(self.election.field_manager.clone()), ..PostParams::default() }
    }

    /// Takes or renews the Lease; false if someone else holds it.
    ///
    /// Cancel safety: dropped during the write, it may be carried out or not. Who does not know leads not; a Lease that
    /// was taken unknowingly is seen as its own at the next attempt, or runs out.
    async fn hold(&mut self) -> Result<bool, Error> {
        let Identity { lease: name, candidate, .. } = &self.election.identity;
        let found = self.leases.get_opt(name).await?;
        let unchanged = found.as_ref().map(|lease| {
            let now = Instant::now();
            now.duration_since(self.seen.at(lease, now))
        });
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let holds = self.election.timing.lease_seconds();
        let claim = claim(spec, candidate, holds, unchanged.unwrap_or_default(), self.clock.now());
        let Some(spec) = claim else { return Ok(false) };
        // The replacement carries the version that was read, and a creation fails on what exists: of two candidates
        // that see a free Lease at once, one gets it.
        let written = match found {
            Some(lease) => {
                let lease = Lease { spec: Some(spec), ..lease };
                self.leases.replace(name, &self.writer(), &lease).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                self.leases.create(&self.writer(), &Lease { metadata, spec: Some(spec) }).await
            }
        };
        match written {
            Ok(_) => Ok(true),
            // Someone else was faster.
            Err(error) if is_conflict(&error) || refusal(&error).is_some_and(|s| s.is_already_exists()) => {
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the Lease up, if it is held.
    async fn release(&self) -> Result<(), Error> {
        let lease = match self.leases.get(self.lease()).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            result => result?,
        };
        let Some(spec) = lease.spec.clone() else { return Ok(()) };
        if spec.holder_identity.as_deref() == Some(&self.election.identity.candidate) {
            let spec = LeaseSpec { holder_identity: None, lease_duration_seconds: Some(1), ..spec };
            let lease = Lease { spec: Some(spec), ..lease };
            self.leases.replace(self.lease(), &self.writer(), &lease).await?;
        }
        Ok(())
    }

    /// Waits until the Lease is held; false if `stop` came first.
    async fn campaign(&mut self, stop: &CancellationToken) -> bool {
        let Timing { renew_within, retry, .. } = self.election.timing;
        let mut freed = pin!(freed(self.leases.clone(), self.lease()));
        // Said once for each cause: a server may be away for days.
        let mut told = None;
        loop {
            let held = tokio::select! {
                biased;
                // If the Lease was taken in this moment, it is given up again.
                () = stop.cancelled() => return false,
                held = tokio::time::timeout(renew_within, self.hold()) => held,
            };
            let failure = match held {
                Ok(Ok(true)) => return true,
                Ok(Ok(false)) => None,
                Ok(Err(error)) => Some(causes(&error)),
                Err(_) => Some("no answer in time".to_owned()),
            };
            match &failure {
                Some(why) if failure != told => {
                    tracing::warn!(lease = self.lease(), why, "the lease cannot be had, trying again");
                }
                None if told.is_some() => {
                    tracing::info!(lease = self.lease(), "the lease can be asked for again")
                }
                _ => {}
            }
            let standing = if failure.is_some() { Standing::Unknown } else { Standing::Waiting };
            told = failure;
            self.standing.send_replace(standing);
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(retry) => {}
                Some(()) = freed.next() => {}
            }
        }
    }

    /// Renews the Lease until `stop`, or until it is lost.
    async fn lead(&mut self, stop: &CancellationToken) {
        let Timing { renew_within, retry, .. } = self.election.timing;
        // Counted from the answer, as client-go does, while the others count from the write.
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(retry) => {}
            }
            // What is left of the deadline, not the whole: a request that hangs must not carry the leader past it.
            let left = renew_within.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.hold()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::warn!(lease = self.lease(), "someone else holds the lease");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.lease(), %error, "the lease was not renewed")
                }
                Err(_) => tracing::warn!(lease = self.lease(), "the lease was not renewed in time"),
            }
            if renewed.elapsed() >= renew_within {
                return;
            }
        }
    }
}

/// Does `term` whenever this candidate leads, until `stop`. A term is given a token that is cancelled when it must
/// end; it is over when its future is. `standing` says where the candidate stands meanwhile.
pub async fn run<Term>(
    client: Client,
    clock: SharedClock,
    election: Election,
    standing: watch::Sender<Standing>,
    stop: CancellationToken,
    term: impl Fn(CancellationToken) -> Term,
) where
    Term: Future<Output = ()>,
{
    let leases = Api::namespaced(client, &election.identity.namespace);
    let mut candidate = Candidate { leases, election, clock, standing, seen: Seen::default() };
    while candidate.campaign(&stop).await {
        tracing::info!(lease = candidate.lease(), "leading");
        candidate.standing.send_replace(Standing::Leading);
        // Joined, so that the next campaign begins only after the term has come to its end: one process must not work
        // twice.
        let ends = stop.child_token();
        tokio::join!(term(ends.clone()), async {
            candidate.lead(&stop).await;
            ends.cancel();
        });
        candidate.standing.send_replace(Standing::Unknown);
        tracing::info!(lease = candidate.lease(), "no longer leading");
    }
    // After the term has ended: whoever takes the Lease now finds nobody at work. If the release fails, others wait
    // until it runs out.
    match tokio::time::timeout(RELEASE_WITHIN, candidate.release()).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::warn!(lease = candidate.lease(), %error, "the lease was not given up"),
        Err(_) => tracing::warn!(lease = candidate.lease(), "the lease was not given up in time"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn now() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn held(holder: &str) -> LeaseSpec {
        serde_json::from_value(
            json!({"holderIdentity": holder, "leaseDurationSeconds": 15, "leaseTransitions": 3,
            "acquireTime": "2025-12-31T00:00:00.000000Z", "renewTime": "2025-12-31T00:00:00.000000Z"}),
        )
        .unwrap()
    }

    #[test]
    fn a_lease_is_taken_when_free_renewed_when_held_and_respected_otherwise() {
        let second = Duration::from_secs(1);
        assert_eq!(claim(None, "me", 15, second, now()).unwrap().lease_transitions, Some(0));
        assert_eq!(claim(Some(&held("you")), "me", 15, second * 14, now()), None);
        let taken = claim(Some(&held("you")), "me", 15, second * 15, now()).unwrap();
        assert_eq!((taken.lease_transitions, taken.acquire_time), (Some(4), Some(MicroTime(now()))));
        let renewed = claim(Some(&held("me")), "me", 15, second * 99, now()).unwrap();
        assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(3), &held("me").acquire_time));
        assert_eq!(renewed.renew_time, Some(MicroTime(now())));
        assert!(claim(Some(&held("")), "me", 15, Duration::ZERO, now()).is_some());
    }

    #[test]
    fn times_that_contradict_each_other_are_refused() {
        let seconds = Duration::from_secs;
        assert_eq!(Timing::new(seconds(15), seconds(10), seconds(2)), Ok(Timing::default()));
        let half = Duration::from_millis(500);
        for (lease, renew, retry, error) in [
            (seconds(10), seconds(10), seconds(2), TimingError::Lease),
            (seconds(15), seconds(10), seconds(9), TimingError::Renewal),
            (seconds(15), seconds(10), seconds(0), TimingError::Value),
            (half * 3, seconds(1), half, TimingError::Value),
            (seconds(0), seconds(0), half, TimingError::Value),
            (seconds(1 << 40), seconds(1), half, TimingError::Value),
        ] {
            assert_eq!(Timing::new(lease, renew, retry), Err(error));
        }
    }

    /// A server that keeps one Lease, refuses stale writes, and is out of reach while `down`.
    fn lease_server(down: Arc<Mutex<bool>>) -> (Client, Arc<Mutex<Option<Value>>>) {
        let lease: Arc<Mutex<Option<Value>>> = Arc::default();
        let kept = lease.clone();
        let client = server(move |request| {
            let mut kept = kept.lock().unwrap();
            if *down.lock().unwrap() {
                return Answer::refusal(500, json!({"reason": "InternalError"}));
            }
            if request.method == "GET" {
                return kept.clone().map_or_else(Answer::not_found, Answer::ok);
            }
            let version = |lease: &Value| {
                lease["metadata"]["resourceVersion"].as_str().map(|v| v.parse::<u64>().unwrap())
            };
            let current = kept.as_ref().and_then(version);
            if version(&request.body) != current {
                return Answer::refusal(409, json!({"reason": "Conflict"}));
            }
            let mut body = request.body;
            body["metadata"]["resourceVersion"] = json!((current.unwrap_or(0) + 1).to_string());
            *kept = Some(body.clone());
            Answer::ok(body)
        });
        (client, lease)
    }

    fn identity(candidate: &str) -> Identity {
        Identity { namespace: "kube-system".into(), lease: "controllers".into(), candidate: candidate.into() }
    }

    #[tokio::test(start_paused = true)]
    async fn a_leader_that_cannot_renew_stops_and_one_that_stops_hands_over() {
        let down: Arc<Mutex<bool>> = Arc::default();
        let (client, lease) = lease_server(down.clone());
        let leading = Arc::new(Mutex::new(0));
        let elect = |candidate: &str, stop: CancellationToken| {
            let leading = leading.clone();
            let election = Election::from(identity(candidate));
            let standing = watch::Sender::new(Standing::Unknown);
            run(client.clone(), fleetpass_api::clock::system(), election, standing, stop, move |ends| {
                let leading = leading.clone();
                async move {
                    *leading.lock().unwrap() += 1;
                    assert_eq!(*leading.lock().unwrap(), 1, "never two at once");
                    ends.cancelled().await;
                    *leading.lock().unwrap() -= 1;
                }
            })
        };
        let holder = || lease.lock().unwrap().as_ref().unwrap()["spec"]["holderIdentity"].clone();
        let (first, second) = (CancellationToken::new(), CancellationToken::new());
        let story = async {
            tokio::time::sleep(Duration::from_secs(60)).await;
            assert_eq!((holder(), *leading.lock().unwrap()), (json!("first"), 1));
            *down.lock().unwrap() = true;
            tokio::time::sleep(Duration::from_secs(13)).await;
            assert_eq!(*leading.lock().unwrap(), 0, "the lease may be lost: nobody works");
            *down.lock().unwrap() = false;
            tokio::time::sleep(Duration::from_secs(20)).await;
            assert_eq!(*leading.lock().unwrap(), 1);
            first.cancel();
            tokio::time::sleep(Duration::from_secs(5)).await;
            assert_eq!((holder(), *leading.lock().unwrap()), (json!("second"), 1));
            second.cancel();
        };
        tokio::join!(elect("first", first.clone()), elect("second", second.clone()), story);
        assert_eq!(*leading.lock().unwrap(), 0);
        assert_eq!(holder(), Value::Null);
    }
}
