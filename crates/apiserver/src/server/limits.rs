//! How many requests may be under way at once (`k8s.io/apiserver/pkg/server/filters/maxinflight.go`), and how long an
//! answer may take (`filters/timeout.go`, `filters/request_deadline.go`, `endpoints/handlers/get.go`).

use super::context::RequestContext;
use fleetpass_api::GoDuration;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::{Query, RequestInfo};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

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

/// No slot is free: the client is answered 429 at once instead of being queued. As with kube-apiserver's limits (without API
/// Priority and Fairness), clients back off on 429, while a queue would answer them after they have given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// The limits at work: semaphores for requests under way, and durations.
pub(super) struct Limits {
    /// Two of them, so that a flood of reads cannot keep writes (leases, tokens) out, nor the other way round. `None`: no
    /// limit.
    reading: Option<Arc<Semaphore>>,
    mutating: Option<Arc<Semaphore>>,
    /// How long an answer may take.
    pub(super) timeout: Duration,
    min_watch: Duration,
}

impl Limits {
    pub(super) fn new(limits: RequestLimits) -> Self {
        let slots = |n: usize| (n > 0).then(|| Arc::new(Semaphore::new(n.min(Semaphore::MAX_PERMITS))));
        Self {
            reading: slots(limits.reading),
            mutating: slots(limits.mutating),
            timeout: limits.timeout,
            min_watch: limits.min_watch,
        }
    }

    /// A slot, which the caller holds until the answer is made; `None` for a request that needs none.
    pub(super) fn acquire(&self, context: &RequestContext) -> Result<Option<OwnedSemaphorePermit>, Full> {
        let slots = match context.info.verb.as_str() {
            // Long-running requests are exempt, or a few hundred idle agents would use up all slots.
            "watch" => return Ok(None),
            "get" | "list" | "head" | "options" => &self.reading,
            _ => &self.mutating,
        };
        let Some(slots) = slots else { return Ok(None) };
        match slots.clone().try_acquire_owned() {
            Ok(slot) => Ok(Some(slot)),
            // `system:masters` is exempt when the server is full: an operator has to be able to look into an overload.
            Err(_) if context.user.in_group(fleetpass_apimachinery::user::SYSTEM_MASTERS) => Ok(None),
            Err(_) => Err(Full),
        }
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

/// The answer for a request that took too long.
pub(super) fn timed_out() -> Status {
    Status::timeout("Timeout: request did not complete within the allotted timeout")
}

#[cfg(test)]
mod tests {
    use super::*;

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
