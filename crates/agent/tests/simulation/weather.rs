//! What may be wrong between an agent and a server, and when an agent dies.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::sync::Notify;

/// How a server, or the way to it, is for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Connections are refused.
    Refused,
    /// Nothing comes back, on new connections and on old ones.
    Silent,
    /// The server's certificate is not accepted.
    Certificate,
    /// Everything is answered with this code.
    Error(u16),
    /// Everything is answered with 429.
    TooMany { retry_after: u64 },
    /// The agent's credential is not accepted (401), or not enough (403).
    Denied(u16),
    /// Requests are carried out; of a thousand answers so many are lost, as resets or in silence.
    Lossy(u64),
    /// Answers take up to this long.
    Slow(Duration),
}

/// The weather of a place: what came last counts, until it is over.
#[derive(Default)]
pub(crate) struct Sky(Mutex<Vec<(u64, Weather)>>);

impl Sky {
    /// It gets so; until [`Sky::over`] with the same number.
    pub(crate) fn begin(&self, number: u64, weather: Weather) {
        self.0.lock().unwrap().push((number, weather));
    }

    /// Gives what is over.
    pub(crate) fn over(&self, number: u64) -> Option<Weather> {
        let mut weather = self.0.lock().unwrap();
        let place = weather.iter().position(|(begun, _)| *begun == number)?;
        Some(weather.remove(place).1)
    }

    pub(crate) fn now(&self) -> Option<Weather> {
        self.0.lock().unwrap().last().map(|(_, weather)| *weather)
    }
}

/// When an agent dies: at a request that it makes, before or after the server has carried it out.
#[derive(Default)]
pub(crate) struct Reaper {
    order: Mutex<Option<(u32, Death)>>,
    /// Woken when it is time; or at any time by whoever wants it dead now.
    pub(crate) strikes: Notify,
    requests: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    BeforeRequest,
    AfterRequest,
}

impl Reaper {
    /// The agent is to die at the request after so many others.
    pub(crate) fn order(&self, after: u32, death: Death) {
        *self.order.lock().unwrap() = Some((after, death));
    }

    /// The agent makes a request. Gives how it is to die of it, if it is.
    pub(crate) fn request(&self) -> Option<Death> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        let mut order = self.order.lock().unwrap();
        match &mut *order {
            Some((0, death)) => {
                let death = *death;
                *order = None;
                Some(death)
            }
            Some((left, _)) => {
                *left -= 1;
                None
            }
            None => None,
        }
    }

    /// The requests since the last call.
    pub(crate) fn take_requests(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }
}
