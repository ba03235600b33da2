//! Events on accounts: a token was issued or renewed, something is in the way, a token nears its end.
//!
//! They are core/v1 Events as client-go's recorder writes them (k8s.io/client-go, `tools/record`): the first of its kind is
//! created, further ones are counted in it. What a reconcile finds over and over is said when it begins, and after that
//! slowly, because Events are kept for an hour: an account that fails every 30 s has two Events an hour, not 120.
//!
//! What to write is decided here without I/O ([`Events::happened`], [`Events::found`]); a task of its own sends it
//! ([`Events::post`]), so that no account waits for an Event. What cannot be sent is lost: Events are for people, and the
//! conditions say the same.

use crate::{decide::Cause, observe::Account};
use fleetpass_api::{ManagedServiceAccount, clock::SharedClock, names};
use fleetpass_apimachinery::time::whole_seconds;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;
use kube::{
    Api, Client, Resource as _,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};

/// Seconds after which a state that lasts is said again.
const REPEAT: i64 = 30 * 60;
/// Seconds for which an Event is counted on: kube-apiserver keeps it for an hour after its last change (`--event-ttl`).
const KEPT: i64 = 60 * 60;
/// As many Events at once about one account, and the seconds after which it may have one more
/// (`defaultSpamBurst` and `defaultSpamQPS` of client-go).
const BURST: u32 = 25;
const REFILL: i64 = 5 * 60;
/// How many Events may wait to be sent. More are lost.
const WAITING: usize = 256;
/// How long after a refusal the agent tries again: somebody may have given it the right.
const AGAIN: Duration = Duration::from_secs(10 * 60);
/// As much of an account's name as goes into that of its Events, which may be no longer than 253 bytes altogether.
const NAME_BYTES: usize = 230;

/// What is sent: an Event, which is created, or counted if one of its reason was there.
#[derive(Debug, Clone, PartialEq)]
struct Write {
    name: String,
    count: u32,
    event: Value,
}

/// What was said of one account.
struct Said {
    /// Events are about an object, not about its name.
    uid: String,
    /// What it was in at the last look.
    states: BTreeSet<String>,
    /// By reason.
    events: BTreeMap<String, Last>,
    left: u32,
    refilled: Timestamp,
}

struct Last {
    name: String,
    count: u32,
    first: Timestamp,
    at: Timestamp,
}

/// What has been said, and what is to be sent.
pub(crate) struct Events {
    namespace: String,
    clock: SharedClock,
    /// By account, of those of which something was said lately. A std mutex: held for one decision, never across an
    /// `await`.
    said: Mutex<HashMap<String, Said>>,
    send: mpsc::Sender<Write>,
    /// Taken by the one task that sends.
    receive: Mutex<Option<mpsc::Receiver<Write>>>,
}

impl Events {
    pub(crate) fn new(namespace: &str, clock: SharedClock) -> Self {
        let (send, receive) = mpsc::channel(WAITING);
        let (said, receive) = (Mutex::default(), Mutex::new(Some(receive)));
        Self { namespace: namespace.to_owned(), clock, said, send, receive }
    }

    fn said(&self) -> MutexGuard<'_, HashMap<String, Said>> {
        self.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A fresh token is in the Secret.
    pub(crate) fn happened(&self, name: &str, account: &Account, cause: Cause) {
        let (reason, message) = match cause {
            Cause::SecretMissing => (names::EVENT_TOKEN_ISSUED, "there was no Secret: issued a token"),
            Cause::SecretAltered => (names::EVENT_TOKEN_ROTATED, "the Secret was altered: renewed the token"),
            Cause::ServiceAccountRecreated => {
                (names::EVENT_TOKEN_ROTATED, "the ServiceAccount was created anew: renewed the token")
            }
            Cause::Rejected => {
                (names::EVENT_TOKEN_ROTATED, "the cluster no longer accepted the token: renewed it")
            }
            Cause::RequestChanged => (names::EVENT_TOKEN_ROTATED, "another token is wanted: renewed it"),
            Cause::Due => (names::EVENT_TOKEN_ROTATED, "it was time: renewed the token"),
        };
        self.say(name, account, "Normal", reason, message);
    }

    /// The account as it is after a look: what is wrong with it is said when it begins, and again after [`REPEAT`].
    pub(crate) fn found(&self, name: &str, account: Option<&Account>) {
        let Some(account) = account.filter(|account| !account.terminating) else {
            self.said().remove(name);
            return;
        };
        let states = states(account);
        let now = self.clock.now();
        let mut due = Vec::new();
        {
            let mut said = self.said();
            if let Some(known) = said.get_mut(name).filter(|known| known.uid == account.uid) {
                for (reason, message) in &states {
                    let recent = known.events.get(*reason).is_some_and(|last| seconds(last.at, now) < REPEAT);
                    if !known.states.contains(*reason) || !recent {
                        due.push((*reason, *message));
                    }
                }
                known.states = states.iter().map(|(reason, _)| (*reason).to_owned()).collect();
                // Nothing is wrong and nothing was said lately: nothing to remember.
                if states.is_empty() && known.events.values().all(|last| seconds(last.at, now) >= KEPT) {
                    said.remove(name);
                }
            } else {
                due.clone_from(&states);
            }
        }
        for (reason, message) in due {
            self.say(name, account, "Warning", reason, message);
            if let Some(known) = self.said().get_mut(name) {
                known.states.insert(reason.to_owned());
            }
        }
    }

    fn say(&self, name: &str, account: &Account, type_: &str, reason: &str, message: &str) {
        let now = self.clock.now();
        let mut said = self.said();
        let known = said.entry(name.to_owned()).or_insert_with(|| Said::new(&account.uid, now));
        if known.uid != account.uid {
            *known = Said::new(&account.uid, now);
        }
        let Some(last) = known.next(name, reason, now) else { return };
        let (event_name, count, first) = (last.name.clone(), last.count, last.first);
        drop(said);
        let time = |time| whole_seconds(time).to_string();
        let event = json!({
            "apiVersion": "v1", "kind": "Event",
            "metadata": {"name": event_name, "namespace": self.namespace},
            "involvedObject": {
                "apiVersion": ManagedServiceAccount::api_version(&()), "kind": names::KIND,
                "namespace": self.namespace, "name": name,
                "uid": account.uid, "resourceVersion": account.resource_version,
            },
            "type": type_, "reason": reason, "message": message, "count": count,
            "firstTimestamp": time(first), "lastTimestamp": time(now),
            "source": {"component": names::ADDON_NAME}, "reportingComponent": names::ADDON_NAME,
        });
        if self.send.try_send(Write { name: event_name, count, event }).is_err() {
            tracing::debug!(account = name, reason, "an Event is lost: too many wait to be sent");
        }
    }

    /// Sends what is to be sent, until dropped. Without the right to, that is said once, and nothing else changes.
    pub(crate) async fn post(&self, hub: Client) {
        let receive = self.receive.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut receive) = receive else { return };
        let api: Api<Event> = Api::namespaced(hub, &self.namespace);
        let mut refused: Option<Instant> = None;
        while let Some(write) = receive.recv().await {
            if refused.is_some_and(|at| at.elapsed() < AGAIN) {
                continue;
            }
            match write.send(&api).await {
                Ok(()) => {}
                Err(kube::Error::Api(status)) if status.code == 403 => {
                    if refused.replace(Instant::now()).is_none() {
                        tracing::warn!(
                            why = status.message,
                            "the hub does not let the agent write Events about accounts; conditions say the same. For \
                             Events, apply the manifests of `fleetpass install cluster --side hub` anew"
                        );
                    }
                }
                Err(error) => tracing::debug!(%error, event = write.name, "an Event could not be written"),
            }
        }
    }
}

impl Said {
    fn new(uid: &str, now: Timestamp) -> Self {
        let (states, events) = (BTreeSet::new(), BTreeMap::new());
        Self { uid: uid.to_owned(), states, events, left: BURST, refilled: now }
    }

    /// The Event of this reason: the one that there was, counted once more, or a new one. `None` when there were too many.
    fn next(&mut self, account: &str, reason: &str, now: Timestamp) -> Option<&Last> {
        let refills = seconds(self.refilled, now) / REFILL;
        if refills > 0 {
            self.left = self.left.saturating_add(u32::try_from(refills).unwrap_or(u32::MAX)).min(BURST);
            self.refilled = now;
        }
        self.left = self.left.checked_sub(1)?;
        let fresh = |events: &BTreeMap<String, Last>| {
            let last = events.get(reason).filter(|last| (0..KEPT).contains(&seconds(last.at, now)))?;
            Some(Last {
                name: last.name.clone(),
                count: last.count.saturating_add(1),
                first: last.first,
                at: now,
            })
        };
        let last = fresh(&self.events).unwrap_or_else(|| {
            let end = (0..=NAME_BYTES.min(account.len())).rfind(|end| account.is_char_boundary(*end));
            let account = account.get(..end.unwrap_or(0)).unwrap_or(account).trim_end_matches(['.', '-']);
            let name = format!("{account}.{:x}", now.as_nanosecond().unsigned_abs() as u64);
            Last { name, count: 1, first: now, at: now }
        });
        self.events.insert(reason.to_owned(), last);
        self.events.get(reason)
    }
}

/// What is wrong with an account, by its conditions.
fn states(account: &Account) -> Vec<(&str, &str)> {
    let condition = |type_| account.status.condition(type_);
    let reported = condition(names::CONDITION_TOKEN_REPORTED)
        .filter(|found| found.reason != names::REASON_TOKEN_REPORTED)
        .map(|found| (found.reason.as_str(), found.message.as_str()));
    let expiring = condition(names::CONDITION_TOKEN_EXPIRING)
        .filter(|found| found.status == "True")
        .map(|found| (names::CONDITION_TOKEN_EXPIRING, found.message.as_str()));
    reported.into_iter().chain(expiring).collect()
}

fn seconds(from: Timestamp, to: Timestamp) -> i64 {
    to.as_second().saturating_sub(from.as_second())
}

impl Write {
    async fn send(&self, api: &Api<Event>) -> Result<(), kube::Error> {
        if self.count > 1 {
            let event = &self.event;
            let counted = json!({"count": self.count, "message": event["message"], "lastTimestamp": event["lastTimestamp"]});
            match api.patch(&self.name, &PatchParams::default(), &Patch::Merge(&counted)).await {
                // It has expired, or was never written: this one stands for those before it.
                Err(kube::Error::Api(status)) if status.is_not_found() => {}
                result => return result.map(drop),
            }
        }
        let event: Event = serde_json::from_value(self.event.clone()).map_err(kube::Error::SerdeError)?;
        api.create(&PostParams::default(), &event).await.map(drop)
    }
}

#[cfg(test)]
mod tests;
