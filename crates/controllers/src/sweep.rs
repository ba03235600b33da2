//! Work that time alone makes due: a pass over a list, then sleep until something in it can be due.

use crate::Error;
use crate::queue::RETRY;
use fleetpass_api::clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use std::future::Future;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The shortest time between two passes: what comes due one by one is removed in batches, each of which costs a list.
const PAUSE: SignedDuration = SignedDuration::from_secs(30);

/// How long to sleep at `now` when something is due at `due`: not less than [`PAUSE`], not more than `longest`, after
/// which what did not exist during the pass could be due.
fn pause(now: Timestamp, due: Option<Timestamp>, longest: SignedDuration) -> Duration {
    let until = due.map_or(longest, |due| now.duration_until(due));
    until.min(longest).max(PAUSE).unsigned_abs()
}

/// Makes passes until `stop`, which may come in the middle of one: a pass that is dropped is one that ended early. A
/// pass is given the time, removes what is due, and gives the time at which the next of what it left will be due.
/// `longest` is the shortest life of what it looks for.
pub(crate) async fn sweep<Pass>(
    name: &'static str,
    clock: SharedClock,
    longest: SignedDuration,
    stop: CancellationToken,
    pass: impl Fn(Timestamp) -> Pass,
) where
    Pass: Future<Output = Result<Option<Timestamp>, Error>>,
{
    let mut failures = 0_u32;
    loop {
        let now = clock.now();
        let sleep = tokio::select! {
            () = stop.cancelled() => return,
            result = pass(now) => match result {
                Ok(due) => {
                    failures = 0;
                    pause(now, due, longest)
                }
                Err(error) => {
                    let retry = RETRY.delay(failures);
                    failures = failures.saturating_add(1);
                    tracing::warn!(sweeper = name, %error, ?retry, "failed; will try again");
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
    use std::cell::RefCell;

    #[test]
    fn pauses_end_when_something_is_due_but_never_hurry() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let hour = SignedDuration::from_hours(1);
        assert_eq!(pause(at(0), None, hour), Duration::from_secs(3600));
        assert_eq!(pause(at(0), Some(at(90)), hour), Duration::from_secs(90));
        assert_eq!(pause(at(0), Some(at(9000)), hour), Duration::from_secs(3600));
        assert_eq!(pause(at(100), Some(at(90)), hour), Duration::from_secs(30));
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_pass_comes_again_after_the_backoff_that_a_success_resets() {
        let start = tokio::time::Instant::now();
        let passes = RefCell::new(Vec::new());
        let stop = CancellationToken::new();
        let pass = |_| {
            passes.borrow_mut().push(start.elapsed().as_millis());
            let count = passes.borrow().len();
            if count == 6 {
                stop.cancel();
            }
            std::future::ready(if count == 4 {
                Ok(None)
            } else {
                Err(Error::Incomplete("the server is away".into()))
            })
        };
        let minute = SignedDuration::from_mins(1);
        sweep("test", fleetpass_api::clock::system(), minute, stop.clone(), pass).await;
        assert_eq!(*passes.borrow(), [0, 50, 150, 350, 60_350, 60_400]);
    }
}
