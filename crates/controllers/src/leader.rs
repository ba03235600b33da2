//! One of several candidates does the work: whoever holds a Lease.
//!
//! # Flow
//! Every candidate tries to take the Lease every [`RETRY`] seconds; whoever has it renews it as often. It is free when
//! nobody holds it, or when it was not renewed for its duration as this candidate saw it: times of other machines'
//! clocks are never compared. (`client-go/tools/leaderelection`.)
//!
//! # Guarantees
//! A leader that could not renew for [`RENEW_WITHIN`] stops working before another candidate can take the Lease, as
//! long as clocks run at the same speed. One that stops in order gives the Lease up.
//!
//! # Caveats
//! A request that was sent before leadership was lost may arrive after it: writes carry preconditions for that.

use crate::Error;
use crate::live::{is_conflict, is_not_found, refusal, writer};
use fleetpass_api::clock::SharedClock;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::ObjectMeta;
use kube::{Api, Client};
use std::future::Future;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// For how long, in seconds, a Lease holds without renewal.
const HOLDS: i32 = 15;
/// A leader that could not renew for this long stops.
const RENEW_WITHIN: Duration = Duration::from_secs(10);
/// How often a Lease is asked for or renewed.
const RETRY: Duration = Duration::from_secs(2);

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

/// What this candidate has seen of the Lease.
#[derive(Debug, Default)]
struct Seen {
    version: Option<String>,
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
    unchanged: Duration,
    now: Timestamp,
) -> Option<LeaseSpec> {
    let held = spec.cloned().unwrap_or_default();
    let holder = held.holder_identity.as_deref().unwrap_or_default();
    let duration =
        Duration::from_secs(u64::try_from(held.lease_duration_seconds.unwrap_or(HOLDS)).unwrap_or(0));
    let mine = holder == candidate;
    if !mine && !holder.is_empty() && unchanged < duration {
        return None;
    }
    let transitions = held.lease_transitions.unwrap_or(0);
    Some(LeaseSpec {
        holder_identity: Some(candidate.into()),
        lease_duration_seconds: Some(HOLDS),
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

/// A candidate.
struct Candidate {
    leases: Api<Lease>,
    identity: Identity,
    clock: SharedClock,
    seen: Seen,
}

impl Candidate {
    /// Takes or renews the Lease; false if someone else holds it.
    async fn hold(&mut self) -> Result<bool, Error> {
        let name = &self.identity.lease;
        let found = self.leases.get_opt(name).await?;
        let unchanged = found.as_ref().map(|lease| {
            let now = Instant::now();
            now.duration_since(self.seen.at(lease, now))
        });
        let spec = found.as_ref().and_then(|lease| lease.spec.as_ref());
        let claim = claim(spec, &self.identity.candidate, unchanged.unwrap_or_default(), self.clock.now());
        let Some(spec) = claim else { return Ok(false) };
        let written = match found {
            Some(lease) => {
                let lease = Lease { spec: Some(spec), ..lease };
                self.leases.replace(name, &writer(), &lease).await
            }
            None => {
                let metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                self.leases.create(&writer(), &Lease { metadata, spec: Some(spec) }).await
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
        let lease = match self.leases.get(&self.identity.lease).await {
            Err(error) if is_not_found(&error) => return Ok(()),
            result => result?,
        };
        let Some(spec) = lease.spec.clone() else { return Ok(()) };
        if spec.holder_identity.as_deref() == Some(&self.identity.candidate) {
            let spec = LeaseSpec { holder_identity: None, lease_duration_seconds: Some(1), ..spec };
            let lease = Lease { spec: Some(spec), ..lease };
            self.leases.replace(&self.identity.lease, &writer(), &lease).await?;
        }
        Ok(())
    }

    /// Renews the Lease until `stop`, or until it is lost.
    async fn lead(&mut self, stop: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(RETRY) => {}
            }
            let left = RENEW_WITHIN.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(left, self.hold()).await {
                Ok(Ok(true)) => renewed = Instant::now(),
                Ok(Ok(false)) => {
                    tracing::warn!(lease = self.identity.lease, "someone else holds the lease");
                    return;
                }
                Ok(Err(error)) => {
                    tracing::warn!(lease = self.identity.lease, %error, "the lease was not renewed")
                }
                Err(_) => tracing::warn!(lease = self.identity.lease, "the lease was not renewed in time"),
            }
            if renewed.elapsed() >= RENEW_WITHIN {
                return;
            }
        }
    }
}

/// Does `term` whenever this candidate leads, until `stop`. A term is given a token that is cancelled when it must
/// end; it is over when its future is.
pub(crate) async fn run<Term>(
    client: Client,
    clock: SharedClock,
    identity: Identity,
    stop: CancellationToken,
    term: impl Fn(CancellationToken) -> Term,
) where
    Term: Future<Output = ()>,
{
    let leases = Api::namespaced(client, &identity.namespace);
    let mut candidate = Candidate { leases, identity, clock, seen: Seen::default() };
    loop {
        match candidate.hold().await {
            Ok(true) => {
                tracing::info!(lease = candidate.identity.lease, "leading");
                let ends = stop.child_token();
                tokio::join!(term(ends.clone()), async {
                    candidate.lead(&stop).await;
                    ends.cancel();
                });
                tracing::info!(lease = candidate.identity.lease, "no longer leading");
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(lease = candidate.identity.lease, %error, "the lease cannot be had"),
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = tokio::time::sleep(RETRY) => {}
        }
    }
    if let Ok(Err(error)) = tokio::time::timeout(RETRY, candidate.release()).await {
        tracing::debug!(%error, "the lease was not given up");
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
        assert_eq!(claim(None, "me", second, now()).unwrap().lease_transitions, Some(0));
        assert_eq!(claim(Some(&held("you")), "me", second * 14, now()), None);
        let taken = claim(Some(&held("you")), "me", second * 15, now()).unwrap();
        assert_eq!((taken.lease_transitions, taken.acquire_time), (Some(4), Some(MicroTime(now()))));
        let renewed = claim(Some(&held("me")), "me", second * 99, now()).unwrap();
        assert_eq!((renewed.lease_transitions, &renewed.acquire_time), (Some(3), &held("me").acquire_time));
        assert_eq!(renewed.renew_time, Some(MicroTime(now())));
        assert!(claim(Some(&held("")), "me", Duration::ZERO, now()).is_some());
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
            run(client.clone(), fleetpass_api::clock::system(), identity(candidate), stop, move |ends| {
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
