//! How both sides are: what has been noted of them, and the one place that logs it. The rules are in `side::state`.

use crate::side::{
    Kind, Side,
    call::Call,
    cause::Cause,
    state::{Followed, Line, Phase, State},
};
use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// The agent's view of its two sides.
#[derive(Debug, Default)]
pub struct Health {
    hub: Noted,
    cluster: Noted,
    /// What there is to say of the agent's credential for each side although it works. A std mutex, as in [`Noted`].
    remarks: Mutex<[Option<String>; 2]>,
    /// One bit per kind whose objects have been listed once.
    listed: AtomicU8,
    /// Woken when a side is as it should be again. It keeps one wake-up for a loop that is not listening just then.
    pub(crate) recovered: Notify,
}

#[derive(Debug, Default)]
struct Noted {
    /// A std mutex: it is held for one operation, never across an `await`.
    state: Mutex<State>,
    /// How often the side came back.
    returns: watch::Sender<u64>,
}

/// One side, for metrics.
pub(crate) struct Standing {
    pub(crate) phase: Phase,
    /// Why, as a label.
    pub(crate) cause: &'static str,
    /// How long ago it answered; `None` if it never did.
    pub(crate) silent_for: Option<Duration>,
}

impl Health {
    fn noted(&self, side: Side) -> &Noted {
        match side {
            Side::Hub => &self.hub,
            Side::Cluster => &self.cluster,
        }
    }

    /// An operation of the state leaves it whole even if it panics: at worst a line is said twice.
    fn state(&self, side: Side) -> MutexGuard<'_, State> {
        self.noted(side).state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The side answered the call, whatever it said of the object.
    pub(crate) fn answered(&self, side: Side, call: &Call) {
        let followed = self.state(side).answered(call, Instant::now());
        self.follow(side, followed);
    }

    /// The call failed, of a cause that is about the side or such calls.
    pub(crate) fn failed(&self, side: Side, call: &Call, cause: &Cause) {
        let followed = self.state(side).failed(call, cause, Instant::now());
        self.follow(side, followed);
    }

    fn follow(&self, side: Side, followed: Followed) {
        let Followed { line, recovered } = followed;
        let name = side.as_str();
        match line {
            Some(Line::Trouble(Phase::Refused, why)) => {
                tracing::warn!(
                    side = name,
                    why,
                    "refuses the agent: look at its credential and rights there; trying again"
                );
            }
            Some(Line::Trouble(_, why)) => {
                tracing::warn!(side = name, why, "cannot be reached; what there is stays, trying again");
            }
            Some(Line::Admitted) => tracing::info!(side = name, "answers"),
            Some(Line::Again) => {
                tracing::info!(side = name, "answers again, and grants what it is asked for")
            }
            None => (),
        }
        if recovered {
            let returns = self.state(side).returns();
            self.noted(side).returns.send_if_modified(|known| std::mem::replace(known, returns) != returns);
            self.recovered.notify_one();
        }
    }

    /// Whether to ask the side at all, see [`State::may_ask`].
    pub(crate) fn may_ask(&self, side: Side, call: &Call) -> Result<(), Cause> {
        self.state(side).may_ask(call, Instant::now())
    }

    /// How long the side asked to be left alone with such calls.
    pub(crate) fn quiet_for(&self, side: Side, call: &Call) -> Duration {
        self.state(side).quiet_for(call, Instant::now())
    }

    /// How often the side came back after it had not been reachable.
    pub(crate) fn returns(&self, side: Side) -> watch::Receiver<u64> {
        self.noted(side).returns.subscribe()
    }

    /// All objects of the kind have been seen once.
    pub(crate) fn listed(&self, kind: Kind) {
        self.listed.fetch_or(1 << kind as u8, Ordering::Relaxed);
    }

    /// How the side is.
    pub(crate) fn standing(&self, side: Side) -> Standing {
        let now = Instant::now();
        let state = self.state(side);
        Standing { phase: state.phase(now), cause: state.label(now), silent_for: state.silent_for(now) }
    }

    /// Whether the agent does its work: it has seen all of its objects once, and neither side refuses it. A side that is
    /// away does not make it unready: a restart would not help, and the tokens that there are stay good.
    pub fn is_ready(&self) -> bool {
        self.awaits().is_none()
    }

    /// What is to be known of the agent's credential for a side although it works: that it is about to end.
    pub(crate) fn remark(&self, side: Side, remark: Option<String>) {
        self.remarks.lock().unwrap_or_else(PoisonError::into_inner)[side as usize] = remark;
    }

    /// What an operator should look at although the agent does its work. `/readyz` says it, and is ok.
    pub(crate) fn remarks(&self) -> Vec<String> {
        let remarks = self.remarks.lock().unwrap_or_else(PoisonError::into_inner);
        remarks.iter().flatten().cloned().collect()
    }

    /// What keeps the agent from its work; `None` if nothing does. This is what `/readyz` says.
    pub(crate) fn awaits(&self) -> Option<String> {
        let now = Instant::now();
        let seen = |side| {
            let listed = self.listed.load(Ordering::Relaxed);
            Kind::ALL.iter().filter(|kind| kind.side() == side).all(|kind| listed & (1 << *kind as u8) != 0)
        };
        let awaited = Side::ALL.into_iter().filter_map(|side| {
            let state = self.state(side);
            let why = state.why(now);
            let name = side.as_str();
            match (state.phase(now), why) {
                (Phase::Refused, Some(why)) => Some(format!("the {name} refuses the agent: {why}")),
                (_, Some(why)) if !seen(side) => Some(format!("the {name} was not reached yet: {why}")),
                _ if !seen(side) => Some(format!("not all objects of the {name} seen yet")),
                _ => None,
            }
        });
        let awaited: Vec<String> = awaited.collect();
        (!awaited.is_empty()).then(|| awaited.join("; "))
    }
}
