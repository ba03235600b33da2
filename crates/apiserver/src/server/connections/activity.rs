//! What happens on one connection, and until when it may go on like that. No I/O, no clock: moments are durations since the
//! server began to listen.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// How long a connection may stay open without a request (`IdleTimeout` in `k8s.io/apiserver/pkg/server/secure_serving.go`).
pub(super) const IDLE: Duration = Duration::from_secs(90);
/// How long the head of a request over HTTP/1.1 may take (`ReadHeaderTimeout`, in the same file).
pub(super) const HEAD: Duration = Duration::from_secs(32);

/// What happens on one connection. Only the connection's own task writes; others read it to decide who has to go, and what they
/// see may be a moment old. So `Relaxed` is enough, and a request costs no lock.
#[derive(Debug)]
pub(in crate::server) struct Activity {
    /// Requests whose answer has not been sent to its end.
    under_way: AtomicU32,
    /// Since when it is busy, or quiet, or reads a head; in milliseconds.
    since: AtomicU64,
    /// Whether the head of a request has begun to come (HTTP/1.1). Means nothing while a request is under way.
    head: AtomicBool,
}

/// What a connection is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    /// Requests are under way, the first of them since then.
    Busy(Duration),
    /// A head is coming since then.
    Head(Duration),
    /// Nothing, since then.
    Quiet(Duration),
}

impl Activity {
    /// A connection that has just been accepted: it is quiet.
    pub(super) fn new(now: Duration) -> Self {
        Self {
            under_way: AtomicU32::new(0),
            since: AtomicU64::new(millis(now)),
            head: AtomicBool::new(false),
        }
    }

    /// The handshake is done. Over HTTP/1.1 the head of the first request is waited for, as Go does (`conn.readRequest` in
    /// `net/http/server.go`): a client that connects has something to ask.
    pub(in crate::server) fn opened(&self, now: Duration, http1: bool) {
        self.head.store(http1, Ordering::Relaxed);
        self.since.store(millis(now), Ordering::Relaxed);
    }

    /// A request has come; `now` is asked for only if it is the first one.
    pub(in crate::server) fn began(&self, now: impl FnOnce() -> Duration) {
        if self.under_way.fetch_add(1, Ordering::Relaxed) == 0 {
            self.head.store(false, Ordering::Relaxed);
            self.since.store(millis(now()), Ordering::Relaxed);
        }
    }

    /// A request has ended; `now` is asked for only if it was the last one.
    pub(in crate::server) fn ended(&self, now: impl FnOnce() -> Duration) {
        if self.under_way.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.since.store(millis(now()), Ordering::Relaxed);
        }
    }

    /// Bytes have come over HTTP/1.1. The first ones after a pause begin a head.
    pub(in crate::server) fn received(&self, now: impl FnOnce() -> Duration) {
        if let Doing::Quiet(_) = self.doing() {
            self.head.store(true, Ordering::Relaxed);
            self.since.store(millis(now()), Ordering::Relaxed);
        }
    }

    /// How many requests are under way.
    pub(super) fn under_way(&self) -> u32 {
        self.under_way.load(Ordering::Relaxed)
    }

    pub(super) fn doing(&self) -> Doing {
        let since = Duration::from_millis(self.since.load(Ordering::Relaxed));
        match (self.under_way.load(Ordering::Relaxed), self.head.load(Ordering::Relaxed)) {
            (0, false) => Doing::Quiet(since),
            (0, true) => Doing::Head(since),
            (_, _) => Doing::Busy(since),
        }
    }

    /// When it has to be closed if nothing else happens; `None` while requests are under way, which have times of their own.
    pub(super) fn deadline(&self) -> Option<Duration> {
        match self.doing() {
            Doing::Busy(_) => None,
            Doing::Head(since) => Some(since + HEAD),
            Doing::Quiet(since) => Some(since + IDLE),
        }
    }
}

fn millis(moment: Duration) -> u64 {
    u64::try_from(moment.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_connection_lives_as_long_as_with_kube_apiserver() {
        // HTTP/2: bytes are frames of any kind, and only requests count.
        let two = Activity::new(s(1));
        two.opened(s(2), false);
        assert_eq!(two.deadline(), Some(s(2) + IDLE));
        two.began(|| s(10));
        two.began(|| unreachable!("another request is under way"));
        assert_eq!((two.deadline(), two.doing()), (None, Doing::Busy(s(10))));
        two.ended(|| unreachable!("another request is under way"));
        assert_eq!(two.deadline(), None);
        two.ended(|| s(30));
        assert_eq!(two.deadline(), Some(s(30) + IDLE));

        // HTTP/1.1: the first head at once, later ones after a pause, each of them in time.
        let one = Activity::new(s(1));
        one.opened(s(2), true);
        assert_eq!(one.deadline(), Some(s(2) + HEAD));
        one.received(|| unreachable!("a head that trickles gets no more time"));
        one.began(|| s(3));
        one.received(|| unreachable!("a body, or what is sent ahead"));
        one.ended(|| s(4));
        assert_eq!(one.deadline(), Some(s(4) + IDLE));
        one.received(|| s(50));
        assert_eq!((one.deadline(), one.doing()), (Some(s(50) + HEAD), Doing::Head(s(50))));
        one.began(|| s(51));
        one.ended(|| s(52));
        assert_eq!(one.deadline(), Some(s(52) + IDLE));
    }
}
