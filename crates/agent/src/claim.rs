//! The Lease in the cluster's namespace on the hub that says which cluster works there, and that its agent is alive.
//!
//! Two clusters under one name, as a copied unit or image makes them, would each find the other's token in the Secrets
//! and replace it, for ever. So an agent works on accounts only while the Lease names its cluster, or while it cannot
//! tell. This is no election among the agents of one cluster: they hold the Lease together, as the holder names the
//! cluster and the namespace, and not the process.
//!
//! | the Lease | the agent |
//! | --- | --- |
//! | does not exist, names nobody, or this cluster and namespace | takes or renews it, works |
//! | names somebody who could not tell its cluster | takes it over at once: that one guards nothing |
//! | names this cluster and another namespace | takes it over at once, as it was moved; the one that held it stops |
//! | names another cluster, and was not renewed for as long as it lasts | takes it over |
//! | names another cluster | waits, `ClusterNameInUse` |
//! | may not be read or written, or this cluster does not say who it is | works as if there were none |
//!
//! As in client-go's election, whether a Lease has run out is a matter of how long this process saw it unchanged, and
//! not of comparing its times with this machine's clock.

use crate::{
    calls::{CallError, CallErrorKind, Calls},
    health::Health,
    identity::Identity,
    side::Side,
};
use fleetpass_api::{clock::SharedClock, names};
use fleetpass_workqueue::Backoff;
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::api::ObjectMeta;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// What stands in the holder for a cluster that does not say who it is.
const UNKNOWN: &str = "unknown";
/// The longest that a Lease of another may last, whatever it says: a mistake there must not keep the name for ever.
const LONGEST: Duration = Duration::from_secs(10 * 60);
/// The longest wait for the next attempt after one that failed.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Who holds a Lease: `CLUSTER/NAMESPACE`, the cluster by the UID of its `kube-system`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Holder {
    /// `None` if it is not known.
    cluster: Option<String>,
    namespace: String,
}

impl Holder {
    /// What a Lease says; `None` if it names nobody.
    fn read(text: Option<&str>) -> Option<Self> {
        let text = text.filter(|text| !text.is_empty())?;
        let (cluster, namespace) = text.split_once('/').unwrap_or((text, ""));
        let cluster = (cluster != UNKNOWN).then(|| cluster.to_owned());
        Some(Self { cluster, namespace: namespace.to_owned() })
    }

    fn text(&self) -> String {
        format!("{}/{}", self.cluster.as_deref().unwrap_or(UNKNOWN), self.namespace)
    }
}

/// What was seen of the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Seen {
    holder: Option<Holder>,
    /// For how long this process has seen it unchanged.
    unchanged: Duration,
    /// How long it lasts after a renewal.
    lasts: Duration,
    /// It is as this process wrote it.
    own: bool,
}

/// What to do about the Lease.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Move {
    /// Write oneself into it.
    Take,
    /// Leave it: the holder is at work.
    Leave,
}

/// The rules. `held`: whether this process has held it before.
fn consider(me: &Holder, seen: Option<&Seen>, held: bool) -> Move {
    let Some(seen) = seen else { return Move::Take };
    let Some(holder) = &seen.holder else { return Move::Take };
    let free = seen.own || holder == me || seen.unchanged >= seen.lasts;
    // Only once: the one that was moved away sees that it was, and does not take it back.
    let moved = !held && me.cluster.is_some() && holder.cluster == me.cluster;
    // One that does not know its cluster does not take it from one that does.
    let unguarded = holder.cluster.is_none() && me.cluster.is_some();
    if free || moved || unguarded { Move::Take } else { Move::Leave }
}

/// How it stands with the agent and the name of its cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Standing {
    /// Not known yet, or not any more: the hub has not answered for as long as a Lease lasts.
    Unknown,
    /// The Lease names this cluster, until then.
    Held(Instant),
    /// Nobody guards the name: the agent works as if it were alone.
    Unguarded,
    /// Another cluster has the name: this one, as the Lease says it.
    InUse(String),
}

/// The claim of an agent to the name of its cluster.
pub(crate) struct Claim {
    /// How long the Lease lasts after a renewal.
    lasts: Duration,
    /// A std mutex: held for a comparison, never across an `await`.
    standing: Mutex<Standing>,
    /// Woken when somebody has reason to doubt it.
    doubt: Notify,
    /// How many rounds there were.
    rounds: watch::Sender<u64>,
}

impl Claim {
    pub(crate) fn new(lasts: Duration) -> Self {
        let standing = Mutex::new(Standing::Unknown);
        Self { lasts, standing, doubt: Notify::new(), rounds: watch::Sender::default() }
    }

    /// An assignment leaves it whole.
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the agent may work on accounts now.
    pub(crate) fn allows_work(&self) -> bool {
        match &*self.standing() {
            Standing::Held(until) => Instant::now() < *until,
            Standing::Unguarded => true,
            Standing::Unknown | Standing::InUse(_) => false,
        }
    }

    /// Whether the agent may work, by a look at the Lease that begins now, where there is one: for whoever finds that
    /// somebody else wrote what only the holder writes.
    ///
    /// Cancel safety: a look that nobody waits for is a renewal that came early.
    pub(crate) async fn confirm(&self) -> bool {
        if *self.standing() != Standing::Unguarded {
            let mut rounds = self.rounds.subscribe();
            let before = *rounds.borrow_and_update();
            self.doubt.notify_one();
            // A hub that does not answer leaves the standing as it is, until it runs out.
            let _ = tokio::time::timeout(self.lasts / 3, rounds.wait_for(|rounds| *rounds > before)).await;
        }
        self.allows_work()
    }

    /// Whether another cluster works under the name.
    pub(crate) fn is_in_use(&self) -> bool {
        matches!(&*self.standing(), Standing::InUse(_))
    }

    #[cfg(test)]
    pub(crate) fn grant(&self) {
        *self.standing() = Standing::Unguarded;
    }
}

/// Keeps the Lease, until dropped. Dropping it at any point is safe: what was sent is one write, and a Lease that is no
/// longer renewed says what it should. It is not given up at the end: an agent that is started again must find its name
/// free.
pub(crate) struct Keeper {
    claim: Arc<Claim>,
    health: Arc<Health>,
    clock: SharedClock,
    cluster: Identity,
    /// The Lease as it was seen last, and since when it is so.
    seen: Option<(Lease, Instant)>,
    /// The version that this process wrote last.
    written: Option<String>,
    /// Whether this process has held it.
    held: bool,
    /// Failures in a row.
    failures: u32,
    /// Since when there is no word about the Lease.
    silent: Option<Instant>,
    /// That the Lease guards nothing was said.
    told: bool,
}

/// What a round came to.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Round {
    Held,
    InUse(String),
    Unguarded,
}

impl Keeper {
    pub(crate) fn new(claim: Arc<Claim>, health: Arc<Health>, clock: SharedClock) -> Self {
        Self {
            claim,
            health,
            clock,
            cluster: Identity::of(Side::Cluster),
            seen: None,
            written: None,
            held: false,
            failures: 0,
            silent: None,
            told: false,
        }
    }

    pub(crate) async fn keep(mut self, calls: &Calls) {
        let mut returns = self.health.returns(Side::Hub);
        loop {
            let began = Instant::now();
            // Longer than this, and there would be no time for a second attempt before the Lease runs out.
            let round = tokio::time::timeout(self.claim.lasts / 3, self.round(calls)).await;
            let round = round.unwrap_or_else(|_| {
                let kind = CallErrorKind::Unavailable("timed out".to_owned());
                Err(CallError { side: Side::Hub, call: "Lease", kind })
            });
            let wait = self.conclude(round, began);
            self.claim.rounds.send_modify(|rounds| *rounds = rounds.wrapping_add(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => (),
                () = self.claim.doubt.notified() => (),
                // A hub that is back lets accounts go on, once it has said whose the name is.
                Ok(()) = returns.changed() => (),
            }
        }
    }

    /// One look at the Lease, and a write if it is to be.
    async fn round(&mut self, calls: &Calls) -> Result<Round, CallError> {
        // Where the cluster does not answer, it is not known: then there is nothing that two could fight about either.
        let cluster = self.cluster.read(calls).await.ok().flatten();
        let me = Holder { cluster, namespace: calls.agent_namespace.clone() };
        for _ in 0..3 {
            // After a renewal the version that was written is the one to replace: no need to read it first.
            let known = self.seen.as_ref().filter(|(lease, _)| self.wrote(lease));
            if known.is_none() {
                let lease = calls.lease().await?;
                self.note(lease);
            }
            let seen = self.seen.as_ref().map(|(lease, since)| self.read(lease, since.elapsed()));
            if consider(&me, seen.as_ref(), self.held) == Move::Leave {
                let holder = seen.and_then(|seen| seen.holder);
                // One that does not know its cluster cannot say that it is another.
                return Ok(match (me.cluster, holder) {
                    (Some(_), Some(holder)) => Round::InUse(holder.text()),
                    _ => Round::Unguarded,
                });
            }
            let present = self.seen.as_ref().map(|(lease, _)| lease);
            let wanted = renewed(present, &me, self.claim.lasts, self.clock.now());
            match calls.write_lease(&wanted, present.is_some()).await {
                Ok(lease) => {
                    self.written = lease.metadata.resource_version.clone();
                    self.note(Some(lease));
                    return Ok(if me.cluster.is_some() { Round::Held } else { Round::Unguarded });
                }
                // Somebody else wrote, or took it away: look again. A namespace that is gone is an answer.
                Err(CallError { kind: CallErrorKind::Conflict, .. }) => self.written = None,
                Err(CallError { kind: CallErrorKind::NotFound(_), .. }) if present.is_some() => {
                    self.written = None;
                }
                Err(error) => return Err(error),
            }
        }
        Err(CallError { side: Side::Hub, call: "PUT Lease", kind: CallErrorKind::Conflict })
    }

    /// Whether the Lease is as this process wrote it.
    fn wrote(&self, lease: &Lease) -> bool {
        self.written.is_some() && self.written == lease.metadata.resource_version
    }

    /// Notes the Lease as it is, and since when it is so.
    fn note(&mut self, lease: Option<Lease>) {
        let version = |lease: &Lease| lease.metadata.resource_version.clone();
        self.seen = match (lease, self.seen.take()) {
            (Some(lease), Some((known, since))) if version(&lease) == version(&known) => Some((lease, since)),
            (lease, _) => lease.map(|lease| (lease, Instant::now())),
        };
    }

    fn read(&self, lease: &Lease, unchanged: Duration) -> Seen {
        let spec = lease.spec.as_ref();
        let seconds = spec.and_then(|spec| spec.lease_duration_seconds);
        let lasts = seconds.and_then(|seconds| u64::try_from(seconds).ok()).map(Duration::from_secs);
        Seen {
            holder: Holder::read(spec.and_then(|spec| spec.holder_identity.as_deref())),
            unchanged,
            lasts: lasts.unwrap_or(self.claim.lasts).min(LONGEST),
            own: self.wrote(lease),
        }
    }

    /// What follows from a round that began then; gives how long to wait.
    fn conclude(&mut self, round: Result<Round, CallError>, began: Instant) -> Duration {
        let next = match round {
            Ok(round) => {
                (self.failures, self.silent) = (0, None);
                self.held |= round == Round::Held;
                match round {
                    Round::Held => Standing::Held(began + self.claim.lasts),
                    Round::Unguarded => Standing::Unguarded,
                    Round::InUse(holder) => Standing::InUse(holder),
                }
            }
            Err(error) => {
                self.failures = self.failures.saturating_add(1);
                // What was written may have arrived: the next round has to look.
                self.written = None;
                let silent = self.silent.get_or_insert(began).elapsed();
                let standing = self.claim.standing().clone();
                let next = after_failure(standing, &error.kind, silent, self.claim.lasts, Instant::now());
                self.tell_unguarded(&next, &error);
                next
            }
        };
        self.publish(next);
        if self.failures == 0 {
            // Renewed three times while it lasts; up to a quarter earlier, so that a fleet does not come all at once.
            (self.claim.lasts / 3).mul_f64(0.75 + random() / 4.0)
        } else {
            // However long the Lease lasts: accounts wait for it after a start, and the hub may be back at any time.
            let longest = (self.claim.lasts / 6).min(LONGEST_WAIT);
            let waits = Backoff::new((self.claim.lasts / 60).min(longest), longest);
            waits.delay(self.failures - 1).mul_f64(0.5 + random() / 2.0)
        }
    }

    fn tell_unguarded(&mut self, next: &Standing, error: &CallError) {
        // 401 is about the agent's credential: whoever looks after that side says so.
        let credential = matches!(error.kind, CallErrorKind::Refused { code: 401, .. });
        if *next == Standing::Unguarded && !credential && !std::mem::replace(&mut self.told, true) {
            tracing::warn!(
                %error,
                "the Lease {} cannot be kept: nothing guards against the agent of another cluster under this name, \
                 and the hub does not see when this agent is gone. Apply the manifests of `fleetpass install cluster \
                 --side hub` anew",
                names::AGENT_LEASE
            );
        }
    }

    /// The new standing, said where it is news.
    fn publish(&self, next: Standing) {
        let worked = self.claim.allows_work();
        let before = std::mem::replace(&mut *self.claim.standing(), next.clone());
        match (&before, &next) {
            (Standing::InUse(known), Standing::InUse(holder)) if known == holder => {}
            (_, Standing::InUse(holder)) => tracing::warn!(
                reason = names::REASON_CLUSTER_NAME_IN_USE,
                holder,
                "another cluster works under this name, and renews the Lease {} in its namespace on the hub: this \
                 agent stops working on accounts until that one is gone. Give it another --cluster-name, or stop the \
                 other agent",
                names::AGENT_LEASE
            ),
            (Standing::InUse(_), Standing::Held(_) | Standing::Unguarded) => {
                tracing::info!("the name of the cluster is free again: working on its accounts");
            }
            _ => {}
        }
        if !worked && self.claim.allows_work() {
            self.health.recovered.notify_one();
        }
    }
}

/// The standing after a round that failed. An answer that is a refusal leaves nothing to guard with. A server that is
/// not able to answer now is another matter: the Lease is held for as long as it lasts, and after that nothing is
/// known; but one that answers all else and never this must not keep accounts waiting for ever.
fn after_failure(
    before: Standing,
    kind: &CallErrorKind,
    silent: Duration,
    lasts: Duration,
    now: Instant,
) -> Standing {
    match (kind, before) {
        (CallErrorKind::Refused { .. } | CallErrorKind::NotFound(_) | CallErrorKind::Unusable(_), _) => {
            Standing::Unguarded
        }
        (_, Standing::Unguarded) => Standing::Unguarded,
        (_, Standing::InUse(holder)) => Standing::InUse(holder),
        (_, Standing::Held(until)) if now < until => Standing::Held(until),
        _ if silent >= lasts * 2 => Standing::Unguarded,
        _ => Standing::Unknown,
    }
}

/// The Lease with `me` as its holder. What others put there stays.
fn renewed(present: Option<&Lease>, me: &Holder, lasts: Duration, now: Timestamp) -> Lease {
    let mut lease = present.cloned().unwrap_or_default();
    let name = Some(names::AGENT_LEASE.to_owned());
    lease.metadata = ObjectMeta { name, managed_fields: None, ..lease.metadata };
    let spec = lease.spec.get_or_insert_default();
    let holder = me.text();
    if spec.holder_identity.as_deref() != Some(&holder) {
        // client-go counts the first holder as none.
        let others = spec.holder_identity.as_deref().is_some_and(|other| !other.is_empty());
        spec.lease_transitions = Some(spec.lease_transitions.unwrap_or(0).saturating_add(others.into()));
        spec.acquire_time = Some(MicroTime(now));
    }
    *spec = LeaseSpec {
        holder_identity: Some(holder),
        lease_duration_seconds: Some(i32::try_from(lasts.as_secs()).unwrap_or(i32::MAX).max(1)),
        renew_time: Some(MicroTime(now)),
        ..std::mem::take(spec)
    };
    lease
}

/// A random number. Without randomness the greatest, that is the longest wait.
fn random() -> f64 {
    f64::from(getrandom::u32().unwrap_or(u32::MAX)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests;
