//! Work that time alone makes due: a pass over a list, then sleep until something in it can be due.

use crate::Error;
use crate::queue::FIRST_RETRY;
use fleetpass_api::clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use std::future::Future;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The shortest time between two passes.
const PAUSE: SignedDuration = SignedDuration::from_secs(30);
/// The longest time until a failed pass is tried again.
const LAST_RETRY: Duration = Duration::from_secs(300);

/// How long to sleep at `now` when something is due at `due`: not less than [`PAUSE`], not more than `longest`, after
/// which what did not exist during the pass could be due.
fn pause(now: Timestamp, due: Option<Timestamp>, longest: SignedDuration) -> Duration {
    let until = due.map_or(longest, |due| now.duration_until(due));
    until.min(longest).max(PAUSE).unsigned_abs()
}

/// Makes passes until `stop`. A pass is given the time, removes what is due, and gives the time at which the next of
/// what it left will be due. `longest` is the shortest life of what it looks for.
pub(crate) async fn sweep<Pass>(
    name: &'static str,
    clock: SharedClock,
    longest: SignedDuration,
    stop: CancellationToken,
    pass: impl Fn(Timestamp) -> Pass,
) where
    Pass: Future<Output = Result<Option<Timestamp>, Error>>,
{
    let mut retry = FIRST_RETRY;
    loop {
        let now = clock.now();
        let sleep = tokio::select! {
            () = stop.cancelled() => return,
            result = pass(now) => match result {
                Ok(due) => {
                    retry = FIRST_RETRY;
                    pause(now, due, longest)
                }
                Err(error) => {
                    tracing::warn!(sweeper = name, %error, ?retry, "failed; will try again");
                    retry = (retry * 2).min(LAST_RETRY);
                    retry
                }
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(sleep) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_end_when_something_is_due_but_never_hurry() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let hour = SignedDuration::from_hours(1);
        assert_eq!(pause(at(0), None, hour), Duration::from_secs(3600));
        assert_eq!(pause(at(0), Some(at(90)), hour), Duration::from_secs(90));
        assert_eq!(pause(at(0), Some(at(9000)), hour), Duration::from_secs(3600));
        assert_eq!(pause(at(100), Some(at(90)), hour), Duration::from_secs(30));
    }
}
