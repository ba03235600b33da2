//! Which side answers, for probes, metrics and for knowing when to hurry.

use crate::side::{Kind, Side};
use std::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use tokio::sync::Notify;

/// The agent's view of its two sides.
///
/// The flags are independent of each other and guard no other memory, so relaxed ordering is enough: a reader may see
/// one a moment later, and nothing else.
#[derive(Debug, Default)]
pub struct Health {
    hub_away: AtomicBool,
    cluster_away: AtomicBool,
    hub_refuses: AtomicBool,
    cluster_refuses: AtomicBool,
    /// One bit per kind whose objects have been listed once.
    listed: AtomicU8,
    /// Woken when a side answers again. It keeps one wake-up for a loop that is not listening just then.
    pub(crate) recovered: Notify,
}

impl Health {
    fn away(&self, side: Side) -> &AtomicBool {
        match side {
            Side::Hub => &self.hub_away,
            Side::Cluster => &self.cluster_away,
        }
    }

    /// The side gave no answer: said once, until it does again.
    pub(crate) fn failed(&self, side: Side) {
        if !self.away(side).swap(true, Ordering::Relaxed) {
            tracing::warn!(side = side.as_str(), "no answer; what there is stays, trying again");
        }
    }

    fn refuses(&self, side: Side) -> &AtomicBool {
        match side {
            Side::Hub => &self.hub_refuses,
            Side::Cluster => &self.cluster_refuses,
        }
    }

    /// The side is there, and does not let the agent do what it must: said once, until it does again.
    pub(crate) fn refused(&self, side: Side, why: &str) {
        if !self.refuses(side).swap(true, Ordering::Relaxed) {
            tracing::warn!(
                side = side.as_str(),
                why,
                "refuses the agent: look at its credentials and rights there; trying again"
            );
        }
    }

    /// The side does again what the agent asks for.
    pub(crate) fn admitted(&self, side: Side) {
        if self.refuses(side).load(Ordering::Relaxed) && self.refuses(side).swap(false, Ordering::Relaxed) {
            tracing::info!(side = side.as_str(), "lets the agent in again");
        }
    }

    /// The side answered, whatever it said. If it was away, accounts that failed need not wait for their backoff.
    pub(crate) fn answered(&self, side: Side) {
        // Read before the swap: this is called for every request, and a flag that is only read stays in all caches.
        if self.away(side).load(Ordering::Relaxed) && self.away(side).swap(false, Ordering::Relaxed) {
            tracing::info!(side = side.as_str(), "answers again");
            self.recovered.notify_one();
        }
    }

    /// All objects of the kind have been seen once.
    pub(crate) fn listed(&self, kind: Kind) {
        self.listed.fetch_or(1 << kind as u8, Ordering::Relaxed);
    }

    /// Whether the side answered last time it was asked. True before it was asked at all.
    pub(crate) fn answers(&self, side: Side) -> bool {
        !self.away(side).load(Ordering::Relaxed)
    }

    /// Whether the agent has seen all of its objects once: what `/readyz` says.
    pub fn is_ready(&self) -> bool {
        // Never false again: while a side is away the agent is still as ready as it can be, and a restart would not
        // help.
        Kind::ALL.iter().all(|kind| self.listed.load(Ordering::Relaxed) & (1 << *kind as u8) != 0)
    }
}
