//! Certificates and kubeconfigs that a running process keeps fresh.

use fleetpass_api::clock::SharedClock;
use jiff::Timestamp;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Sees to it that something is fresh at the given moment, and says when to look again. Does blocking I/O.
pub(crate) type Renewal = Box<dyn FnMut(Timestamp) -> anyhow::Result<Timestamp> + Send>;

/// However far away the next renewal is: the clock may be set, the machine may sleep.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);
/// However soon the next renewal is: one that fails is not tried without pause.
const SHORTEST_WAIT: Duration = Duration::from_secs(60);

/// Calls every item when its time has come, until stopped. A failure is logged, and tried again after a minute.
pub(crate) async fn keep_fresh(items: Vec<Renewal>, clock: SharedClock, stop: CancellationToken) {
    // All are due at once: the first round finds out when each has to be looked at.
    let mut items: Vec<(Renewal, Timestamp)> = items.into_iter().map(|item| (item, Timestamp::MIN)).collect();
    loop {
        let now = clock.now();
        // The items move to the blocking thread and back. If one panics they are gone, which is logged; what they look after
        // is good for months.
        let worked = tokio::task::spawn_blocking(move || {
            for (item, at) in items.iter_mut().filter(|(_, at)| *at <= now) {
                match item(now) {
                    Ok(next) => *at = next,
                    Err(error) => tracing::error!("a certificate cannot be renewed: {error:#}"),
                }
            }
            items
        });
        items = match worked.await {
            Ok(items) => items,
            Err(error) => {
                tracing::error!(%error, "certificates are no longer renewed");
                return;
            }
        };
        let next = items.iter().map(|(_, at)| *at).min();
        tokio::select! {
            () = tokio::time::sleep(wait(clock.now(), next)) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// How long to wait until `next`, within bounds.
fn wait(now: Timestamp, next: Option<Timestamp>) -> Duration {
    let wait =
        next.map_or(LONGEST_WAIT, |next| Duration::try_from(next.duration_since(now)).unwrap_or_default());
    wait.clamp(SHORTEST_WAIT, LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_api::clock::Clock;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicI64, AtomicU32, Ordering};

    #[test]
    fn waits_are_bounded() {
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        for (next, expected) in [
            (None, LONGEST_WAIT),
            (Some(0), SHORTEST_WAIT),
            (Some(100), SHORTEST_WAIT),
            (Some(101), SHORTEST_WAIT),
            (Some(400), Duration::from_secs(300)),
            (Some(1_000_000), LONGEST_WAIT),
        ] {
            assert_eq!(wait(at(100), next.map(at)), expected, "{next:?}");
        }
        assert_eq!(wait(Timestamp::MAX, Some(Timestamp::MIN)), SHORTEST_WAIT);
    }

    struct Manual(AtomicI64);

    impl Clock for Manual {
        fn now(&self) -> Timestamp {
            Timestamp::from_second(self.0.load(Ordering::Relaxed)).unwrap()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_and_what_is_fresh_is_left_alone() {
        let clock = Arc::new(Manual(AtomicI64::new(0)));
        let calls = Arc::new([AtomicU32::new(0), AtomicU32::new(0)]);
        let counted = calls.clone();
        let failing: Renewal = Box::new(move |_| {
            counted[0].fetch_add(1, Ordering::Relaxed);
            anyhow::bail!("no")
        });
        let counted = calls.clone();
        let fresh: Renewal = Box::new(move |now| {
            counted[1].fetch_add(1, Ordering::Relaxed);
            Ok(now + jiff::SignedDuration::from_secs(150))
        });
        let stop = CancellationToken::new();
        let task = tokio::spawn(keep_fresh(vec![failing, fresh], clock.clone(), stop.clone()));
        // Rounds at 0, 60, 120, 180 seconds of the paused clock; the manual one follows.
        for second in 0..200 {
            clock.0.store(second, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        stop.cancel();
        task.await.unwrap();
        assert!(calls[0].load(Ordering::Relaxed) >= 3);
        assert_eq!(calls[1].load(Ordering::Relaxed), 2);
    }
}
