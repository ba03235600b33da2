//! How many requests may be under way at once (`k8s.io/apiserver/pkg/server/filters/maxinflight.go`), and how long an
//! answer may take (`filters/timeout.go`, `filters/request_deadline.go`, `endpoints/handlers/get.go`).

use super::health;
use crate::resources::leases;
use crate::work::{Flow, FlowId, Full};
use fleetpass_api::GoDuration;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::{Query, RequestInfo};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Duration;

/// How much a server does at once and how long it takes for an answer; the default is kube-apiserver's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
    /// `--max-requests-inflight`: requests that read; watches do not count. 0: no limit.
    pub reading: usize,
    /// `--max-mutating-requests-inflight`: requests that write. 0: no limit.
    pub mutating: usize,
    /// `--request-timeout`: how long an answer may take; for a watch, its head.
    pub timeout: Duration,
    /// `--min-request-timeout`: how long a watch lasts at least if its client names no time.
    pub min_watch: Duration,
}

impl Default for RequestLimits {
    fn default() -> Self {
        Self {
            reading: 400,
            mutating: 200,
            timeout: Duration::from_secs(60),
            min_watch: Duration::from_secs(1800),
        }
    }
}

/// How many slots of those that are free one flow may have, as a multiple of what is free. With 2, a flow that is alone can take
/// two thirds of all; two that flood get two fifths each, and a fifth stays free. So whoever comes next always finds a slot, and
/// nobody has to wait behind others' floods (a "dynamic threshold", as switches share their buffers between queues).
const SHARE_OF_FREE: usize = 2;

/// Slots of one kind of requests.
struct Slots {
    /// Held for a look-up in a map.
    state: Mutex<SlotState>,
}

struct SlotState {
    free: usize,
    /// Flows that hold slots, and how many.
    held: HashMap<FlowId, usize>,
}

impl Slots {
    /// `None`, which is no limit, for 0.
    fn new(limit: usize) -> Option<Arc<Self>> {
        let state = SlotState { free: limit, held: HashMap::new() };
        (limit > 0).then(|| Arc::new(Self { state: Mutex::new(state) }))
    }

    /// A slot for a flow. Who is exempt gets one while there is one, whatever the others' shares, and none is needed if not.
    fn acquire(self: &Arc<Self>, flow: Flow<'_>) -> Result<Option<Slot>, Full> {
        let mut state = self.state.lock();
        if flow.exempt && state.free == 0 {
            return Ok(None);
        }
        let held = state.held.get(&flow.id).copied().unwrap_or_default();
        if !flow.exempt && held >= state.free.saturating_mul(SHARE_OF_FREE) {
            return Err(Full);
        }
        state.free -= 1;
        state.held.insert(flow.id, held + 1);
        Ok(Some(Slot { slots: self.clone(), flow: flow.id }))
    }
}

/// One request under way; dropping it makes room for another.
pub(super) struct Slot {
    slots: Arc<Slots>,
    flow: FlowId,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.slots.state.lock();
        state.free += 1;
        if let Entry::Occupied(mut held) = state.held.entry(self.flow) {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

/// The limits at work: slots for requests under way, and durations. Without a slot a client is answered 429 at once instead of
/// being queued: clients back off on 429, while a queue would answer them after they have given up.
pub(super) struct Limits {
    /// Several kinds, so that a flood of reads cannot keep writes (leases, tokens) out, nor the other way round. `None`: no
    /// limit.
    reading: Option<Arc<Slots>>,
    mutating: Option<Arc<Slots>>,
    /// Leases have slots of their own, as many as other writes: what holds them stops working when it cannot renew in time.
    leases: Option<Arc<Slots>>,
    /// How long an answer may take.
    pub(super) timeout: Duration,
    min_watch: Duration,
}

impl Limits {
    pub(super) fn new(limits: RequestLimits) -> Self {
        Self {
            reading: Slots::new(limits.reading),
            mutating: Slots::new(limits.mutating),
            leases: Slots::new(limits.mutating),
            timeout: limits.timeout,
            min_watch: limits.min_watch,
        }
    }

    /// A slot, which the caller holds until the answer is made; `None` for a request that needs none.
    ///
    /// # Errors
    /// [`Full`]: all are taken, or this flow has its share of them.
    pub(super) fn acquire(&self, info: &RequestInfo, flow: Flow<'_>) -> Result<Option<Slot>, Full> {
        let slots = match info.verb.as_str() {
            // Long-running requests are exempt, or a few hundred idle agents would use up all slots.
            "watch" => return Ok(None),
            // As in the FlowSchema `probes`: a server that is busy is not dead.
            _ if health::is_path(&info.path) => return Ok(None),
            "get" | "create" | "update" | "patch"
                if info.resource == leases::PLURAL && info.group == leases::GROUP =>
            {
                &self.leases
            }
            "get" | "list" | "head" | "options" => &self.reading,
            _ => &self.mutating,
        };
        slots.as_ref().map_or(Ok(None), |slots| slots.acquire(flow))
    }

    /// How long a watch lasts whose client names no time: at least the minimum and up to as long again, so that clients
    /// do not all come back at once. `random` is any number.
    pub(super) fn watch(&self, random: u64) -> Duration {
        let most = u64::try_from(self.min_watch.as_millis()).unwrap_or(u64::MAX).max(1);
        self.min_watch + Duration::from_millis(random % most)
    }
}

/// How long the client itself is willing to wait (`timeout` in the query); `None` if it does not say, and for watches, which
/// have `timeoutSeconds` instead.
///
/// # Errors
/// 400 for what is no duration.
pub(super) fn requested_timeout(info: &RequestInfo, query: &Query) -> Result<Option<Duration>, Status> {
    let Some(text) = query.get("timeout").filter(|text| !text.is_empty() && info.verb != "watch") else {
        return Ok(None);
    };
    let asked: GoDuration = text.parse().map_err(|error: fleetpass_api::duration::ParseError| {
        Status::bad_request(format!("invalid timeout specified in the request URL - {error}"))
    })?;
    // 0 and less mean that the client sets no limit.
    let nanos = u64::try_from(asked.as_nanos()).unwrap_or_default();
    Ok((nanos > 0).then(|| Duration::from_nanos(nanos)))
}

/// The refusal of a request for which there is no room now. `handler` answers it as API Priority and Fairness does, with a plain
/// text and `Retry-After` (`k8s.io/apiserver/pkg/server/filters/priority-and-fairness.go`, `tooManyRequests`).
pub(super) fn overloaded() -> Status {
    Status::too_many_requests("Too many requests, please try again later.", 1)
}

/// The answer for a request that took too long.
pub(super) fn timed_out() -> Status {
    Status::timeout("Timeout: request did not complete within the allotted timeout")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::user::{SYSTEM_MASTERS, UserInfo};

    fn user(name: &str) -> UserInfo {
        UserInfo { name: name.into(), ..UserInfo::default() }
    }

    /// All slots that these flows can get, if they take turns.
    fn flood(slots: &Arc<Slots>, users: &[UserInfo]) -> Vec<Vec<Slot>> {
        let mut held: Vec<Vec<Slot>> = users.iter().map(|_| Vec::new()).collect();
        loop {
            let mut got = false;
            for (user, held) in users.iter().zip(&mut held) {
                let slot = slots.acquire(Flow::of(user));
                got |= slot.is_ok();
                held.extend(slot.ok().flatten());
            }
            if !got {
                return held;
            }
        }
    }

    #[test]
    fn whoever_comes_next_finds_a_slot() {
        for floods in 1..10_usize {
            let slots = Slots::new(200).unwrap();
            let users: Vec<_> = (0..floods).map(|number| user(&format!("flood-{number}"))).collect();
            let held = flood(&slots, &users);
            let counts: Vec<_> = held.iter().map(Vec::len).collect();
            let share = 2 * 200 / (2 * floods + 1);
            assert!(counts.iter().all(|count| count.abs_diff(share) <= 2), "{counts:?}");
            let modest = slots.acquire(Flow::of(&user("modest")));
            assert!(modest.is_ok_and(|slot| slot.is_some()));
            // What was taken comes back.
            drop(held);
            assert_eq!(slots.state.lock().free, 200);
            assert!(slots.state.lock().held.is_empty());
        }
    }

    #[test]
    fn one_slot_is_enough_to_work() {
        let slots = Slots::new(1).unwrap();
        let first = slots.acquire(Flow::of(&user("a"))).unwrap();
        assert!(first.is_some());
        assert!(slots.acquire(Flow::of(&user("b"))).is_err());
        let operator = UserInfo { groups: vec![SYSTEM_MASTERS.into()], ..user("root") };
        assert!(slots.acquire(Flow::of(&operator)).is_ok_and(|slot| slot.is_none()));
        drop(first);
        assert!(slots.acquire(Flow::of(&operator)).is_ok_and(|slot| slot.is_some()));
        assert!(Slots::new(0).is_none());
    }

    #[test]
    fn floods_leave_leases_and_probes_alone() {
        let limits = Limits::new(RequestLimits { reading: 1, mutating: 1, ..RequestLimits::default() });
        let (alice, bob) = (user("alice"), user("bob"));
        let info = |method, path| RequestInfo::parse(method, path, &Query::parse(""));
        let (get, post) = (info("GET", "/api/v1/secrets"), info("POST", "/api/v1/namespaces"));
        let _held = [&get, &post].map(|info| limits.acquire(info, Flow::of(&alice)).unwrap().unwrap());
        for info in [&get, &post] {
            assert!(limits.acquire(info, Flow::of(&bob)).is_err());
        }
        let lease = info("PUT", "/apis/coordination.k8s.io/v1/namespaces/ns/leases/a");
        assert!(limits.acquire(&lease, Flow::of(&bob)).is_ok_and(|slot| slot.is_some()));
        for path in ["/livez", "/readyz/store", "/healthz"] {
            assert!(
                limits.acquire(&info("GET", path), Flow::of(&bob)).is_ok_and(|slot| slot.is_none()),
                "{path}"
            );
        }
    }

    #[test]
    fn a_watch_lasts_from_the_minimum_up_to_twice_as_long() {
        let limits = Limits::new(RequestLimits { min_watch: Duration::from_secs(10), ..Default::default() });
        assert_eq!(limits.watch(0), Duration::from_secs(10));
        assert_eq!(limits.watch(9_999), Duration::from_millis(19_999));
        assert_eq!(limits.watch(10_000), Duration::from_secs(10));
        let none = Limits::new(RequestLimits { min_watch: Duration::ZERO, ..Default::default() });
        assert_eq!(none.watch(u64::MAX), Duration::ZERO);
    }

    #[test]
    fn a_client_may_wait_for_less_time() {
        let list = RequestInfo::parse("GET", "/api/v1/namespaces", &Query::parse(""));
        let watch = RequestInfo::parse("GET", "/api/v1/namespaces", &Query::parse("watch=1"));
        let table = [
            ("", Ok(None)),
            ("timeout=", Ok(None)),
            ("timeout=0s", Ok(None)),
            ("timeout=-1s", Ok(None)),
            ("timeout=1m30s", Ok(Some(Duration::from_secs(90)))),
            (
                "timeout=5",
                Err("invalid timeout specified in the request URL - time: missing unit in duration \"5\""),
            ),
        ];
        for (query, want) in table {
            let got = requested_timeout(&list, &Query::parse(query)).map_err(|status| status.message);
            assert_eq!(got, want.map_err(String::from), "{query}");
            assert_eq!(requested_timeout(&watch, &Query::parse(query)).ok(), Some(None), "watch {query}");
        }
    }
}
