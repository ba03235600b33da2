//! The connections of a server: who is let in, who has to go, and for how long one may stay without a request.
//!
//! ```text
//! listener ── accept ─► handshakes: is there a place? ─► table: is there room? ─► a Guest, which the connection's task owns
//!                                                          └► others are told to go: their Guest says so
//! ```
//!
//! The rules are in [`table`], [`handshakes`], [`activity`] and [`budget`], which know no socket and no clock. Here they are carried out.

mod activity;
mod budget;
mod handshakes;
mod table;

pub use table::ConnectionLimits;

use super::body;
pub(super) use activity::Activity;
use activity::Doing;
use budget::Budget;
pub(super) use budget::{Account, Charge};
use handshakes::{Handshakes, Place};
use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;
use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use table::{Going, Origin, Refusal, Table};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long a stranger's requests may go on after its connection was told to go.
const GRACE: Duration = Duration::from_secs(10);
/// How long a connection without requests may take to close: its client has to acknowledge the GOAWAY, so that a request that
/// crosses it is not lost.
const LINGER: Duration = Duration::from_secs(2);
/// How long a request waits for its client to read earlier answers before it is answered 429.
const READER_PATIENCE: Duration = Duration::from_secs(5);
/// Requests that a stranger may have under way on a connection, small as their answers are: they are kept until they are read.
const STRANGERS_REQUESTS: u32 = 32;
/// How often is looked whether the requests of a connection that was told to go have ended.
const LOOK: Duration = Duration::from_millis(250);

/// All connections of a server.
pub(super) struct Connections {
    began: Instant,
    /// Locked for moments and never across an `.await`: when a connection comes, is known, has shaken hands, or goes. A request
    /// takes no lock.
    state: Mutex<State>,
    /// Told when a handshake has ended, to the listener, which waits for a place.
    place: Notify,
    requests: Arc<Budget>,
    answers: Arc<Budget>,
    metrics: Metrics,
}

struct State {
    table: Table,
    handshakes: Handshakes,
    /// How those are reached who have to go.
    reins: HashMap<u64, Reins>,
}

/// How a connection is ended from outside.
#[derive(Clone)]
struct Reins {
    /// Begins its graceful shutdown.
    close: CancellationToken,
    /// Drops it.
    abort: CancellationToken,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Standing {
    /// `true` or `false`.
    authenticated: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// A gauge that shows how much of a budget is used.
#[derive(Debug)]
struct Used(Arc<Budget>);

impl EncodeMetric for Used {
    fn encode(&self, encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        ConstGauge::new(i64::try_from(self.0.used()).unwrap_or(i64::MAX)).encode(encoder)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

#[derive(Default)]
struct Metrics {
    open: Family<Standing, Gauge>,
    refused: Family<Reason, Counter>,
    closed: Family<Reason, Counter>,
}

impl Connections {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::new(State {
                table: Table::new(limits),
                handshakes: Handshakes::new(limits.handshakes),
                reins: HashMap::new(),
            }),
            place: Notify::new(),
            requests: Budget::new(limits.request_bytes, body::MAX_BODY + body::SMALL),
            answers: Budget::new(limits.answer_bytes, body::MAX_BODY),
            metrics: Metrics::default(),
        }
    }

    /// Adds what is counted here to the metrics of the server.
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register(
            "apiserver_open_connections",
            "Open connections by whether somebody was authenticated on them",
            self.metrics.open.clone(),
        );
        registry.register(
            "apiserver_connections_refused",
            "Connections that were not let in, by the limit that was reached",
            self.metrics.refused.clone(),
        );
        registry.register(
            "apiserver_connections_closed",
            "Connections that the server closed, to make room or because nothing came",
            self.metrics.closed.clone(),
        );
        registry.register(
            "apiserver_buffered_request_bytes",
            "Bytes of large request bodies that have not come to their end",
            Used(self.requests.clone()),
        );
        registry.register(
            "apiserver_unread_answer_bytes",
            "Bytes of large answers that their clients have not read",
            Used(self.answers.clone()),
        );
    }

    /// The time since the server began to listen.
    pub(super) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// Waits until one more handshake may begin. Dropping it half-way changes nothing.
    pub(super) async fn wait_for_place(&self) {
        loop {
            // Before looking, so that a place that becomes free in between is not missed.
            let freed = self.place.notified();
            let place = {
                let mut state = self.state.lock();
                let place = state.handshakes.place(self.now());
                if let Place::TakenFrom(id) = place
                    && let Some(reins) = state.reins.get(&id)
                {
                    reins.abort.cancel();
                }
                place
            };
            match place {
                Place::Free => return,
                Place::TakenFrom(_) => {
                    self.metrics.closed.get_or_create(&Reason { reason: "handshake" }).inc();
                    return;
                }
                Place::NotBefore(at) => tokio::select! {
                    () = freed => {}
                    () = tokio::time::sleep_until(self.began + at) => {}
                },
            }
        }
    }

    /// Lets a connection in that begins its handshake, if there is room; others may have to go. When `stop` is cancelled it is
    /// closed gracefully.
    pub(super) fn arrive(self: &Arc<Self>, address: IpAddr, stop: &CancellationToken) -> Option<Guest> {
        let now = self.now();
        let activity = Arc::new(Activity::new(now));
        let mut state = self.state.lock();
        let arrival = state.table.arrive(address, activity.clone(), now);
        for going in arrival.going {
            let (Going::Gracefully(id) | Going::AtOnce(id)) = going;
            if let Some(reins) = state.reins.get(&id) {
                reins.close.cancel();
                if let Going::AtOnce(_) = going {
                    reins.abort.cancel();
                }
            }
            self.metrics.closed.get_or_create(&Reason { reason: "room" }).inc();
        }
        let id = match arrival.admitted {
            Ok(id) => id,
            Err(refusal) => {
                let reason = match refusal {
                    Refusal::Full => "all",
                    Refusal::Address => "address",
                };
                self.metrics.refused.get_or_create(&Reason { reason }).inc();
                return None;
            }
        };
        state.handshakes.begin(id, Origin::of(address), now);
        let reins = Reins { close: stop.child_token(), abort: CancellationToken::new() };
        state.reins.insert(id, reins.clone());
        self.show(&state);
        Some(Guest {
            id,
            activity,
            reins,
            known: AtomicBool::new(false),
            requests: self.requests.account(),
            answers: self.answers.account(),
            connections: self.clone(),
        })
    }

    fn show(&self, state: &State) {
        let (strangers, known) = state.table.counts();
        for (authenticated, count) in [("false", strangers), ("true", known)] {
            self.metrics
                .open
                .get_or_create(&Standing { authenticated })
                .set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }
}

/// A connection that was let in. Its place is free again when this is dropped.
pub(super) struct Guest {
    connections: Arc<Connections>,
    id: u64,
    activity: Arc<Activity>,
    reins: Reins,
    known: AtomicBool,
    requests: Arc<Account>,
    answers: Arc<Account>,
}

impl Guest {
    /// The account of request bodies that are under way.
    pub(super) fn requests(&self) -> &Arc<Account> {
        &self.requests
    }

    /// The account of answers that have not been read.
    pub(super) fn answers(&self) -> &Arc<Account> {
        &self.answers
    }

    /// Waits until the client has read enough of what it asked for before; `false` if it does not.
    pub(super) async fn wait_for_reader(&self) -> bool {
        if self.answers.has_room() {
            return true;
        }
        let asked = self.now();
        while self.now() < asked + READER_PATIENCE {
            tokio::time::sleep(LOOK).await;
            if self.answers.has_room() {
                return true;
            }
        }
        false
    }

    /// Ends the connection if it is a stranger's with more answers than a stranger may leave unread.
    pub(super) fn answered(&self) {
        let stranger = !self.known.load(Ordering::Relaxed);
        if stranger && self.activity.under_way() > STRANGERS_REQUESTS && !self.reins.abort.is_cancelled() {
            self.connections.metrics.closed.get_or_create(&Reason { reason: "requests" }).inc();
            self.reins.abort.cancel();
        }
    }

    /// What happens on it.
    pub(super) fn activity(&self) -> &Arc<Activity> {
        &self.activity
    }

    /// The time since the server began to listen.
    pub(super) fn now(&self) -> Duration {
        self.connections.now()
    }

    /// Cancelled when the connection has to close gracefully.
    pub(super) fn closing(&self) -> &CancellationToken {
        &self.reins.close
    }

    /// Ready when its place is needed. Poll the connection first: what its client has sent in time counts.
    pub(super) async fn cut_off(&self) {
        self.reins.abort.cancelled().await;
    }

    /// The handshake is done, or has failed.
    pub(super) fn shaken_hands(&self) {
        self.connections.state.lock().handshakes.end(self.id);
        self.connections.place.notify_one();
    }

    /// A request on it was authenticated as somebody, or its certificate was verified. Costs nothing from the second time on.
    pub(super) fn authenticated(&self) {
        if !self.known.load(Ordering::Relaxed) && !self.known.swap(true, Ordering::Relaxed) {
            let mut state = self.connections.state.lock();
            state.table.authenticated(self.id);
            self.connections.show(&state);
        }
    }

    /// Sees to it that the connection closes when nothing comes any more, or when it has to go; ready when it is to be dropped.
    /// To be polled beside the connection.
    pub(super) async fn watch_over(&self) {
        self.until_it_has_to_go().await;
        // It was waiting for the rest of a head: there is nothing that could be answered.
        if let Doing::Head(since) = self.activity.doing()
            && self.now() >= since + activity::HEAD
        {
            return;
        }
        let told = self.now();
        tokio::select! {
            () = self.cut_off() => return,
            () = tokio::time::sleep(LINGER) => {}
        }
        // Looked at instead of being told: this is rare, and does not take long.
        while let Doing::Busy(_) = self.activity.doing() {
            if !self.known.load(Ordering::Relaxed) && self.now() > told + GRACE {
                return;
            }
            tokio::select! {
                () = self.cut_off() => return,
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn until_it_has_to_go(&self) {
        loop {
            let now = self.now();
            // A deadline that is not there yet is never nearer than that of a head that begins now.
            let wait = match self.activity.deadline() {
                Some(at) if at <= now => break,
                Some(at) => (at - now).min(activity::HEAD),
                None => activity::HEAD,
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.closing().cancelled() => return,
                () = self.cut_off() => return,
            }
        }
        self.connections.metrics.closed.get_or_create(&Reason { reason: "idle" }).inc();
        self.closing().cancel();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let mut state = self.connections.state.lock();
        state.handshakes.end(self.id);
        state.table.gone(self.id);
        state.reins.remove(&self.id);
        self.connections.show(&state);
        drop(state);
        self.connections.place.notify_one();
    }
}
