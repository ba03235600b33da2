//! The end of an answer that its client does not read.
//!
//! A body is asked for more only when the client has taken what was there, so a body cannot end itself while the client takes
//! nothing: it would hold its snapshot for as long as the connection is open. So it says until when it may be sent
//! ([`send_until`]), and whatever polls it drops it then ([`Expiry`]): over HTTP/2 that resets the stream, over HTTP/1.1 it
//! closes the connection. kube-apiserver does the same at a request's deadline (`filters/timeout.go` panics with
//! `http.ErrAbortHandler` once the head was sent), so that the client does not take what it got for a whole answer.

use std::cell::RefCell;
use std::future::Future as _;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};
use tokio::time::{Instant, Sleep, sleep_until};

thread_local! {
    /// What the body that is polled now has asked for. A thread-local, because hyper's future of a stream is between a body and
    /// who polls it. Set and taken during one poll.
    static ASKED: RefCell<Option<(Instant, Weak<()>)>> = const { RefCell::new(None) };
}

/// Says, while a body is polled, until when it may be sent. `alive` lives as long as the body.
pub(super) fn send_until(until: Instant, alive: &Arc<()>) {
    ASKED.set(Some((until, Arc::downgrade(alive))));
}

/// What was polled has a body whose time is up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Expired;

/// The time until which the body that is being sent may be sent.
#[derive(Default)]
pub(super) struct Expiry(Option<(Pin<Box<Sleep>>, Weak<()>)>);

impl Expiry {
    /// Polls with `poll` and takes note of what bodies ask for meanwhile. After [`Expired`], what was polled is to be dropped.
    pub(super) fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        poll: impl FnOnce(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Result<T, Expired>> {
        ASKED.take();
        let polled = poll(cx);
        if let Some((until, body)) = ASKED.take() {
            // A body asks each time that it is polled.
            let known = self.0.as_ref().is_some_and(|(_, known)| known.ptr_eq(&body));
            if !known {
                self.0 = Some((Box::pin(sleep_until(until)), body));
            }
        }
        if let Poll::Ready(done) = polled {
            return Poll::Ready(Ok(done));
        }
        let Some((sleep, body)) = &mut self.0 else { return Poll::Pending };
        if sleep.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        // A connection of HTTP/1.1 goes on after a body that was sent in time.
        let unsent = body.strong_count() > 0;
        self.0 = None;
        if unsent { Poll::Ready(Err(Expired)) } else { Poll::Pending }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn what_is_not_sent_in_time_expires() {
        let (mut expiry, alive) = (Expiry::default(), Arc::new(()));
        let until = Instant::now() + Duration::from_secs(60);
        let stalled = poll_fn(|cx| {
            expiry.poll(cx, |_| {
                send_until(until, &alive);
                Poll::<()>::Pending
            })
        });
        assert_eq!(stalled.await, Err(Expired));
        assert_eq!(Instant::now(), until);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_sent_does_not() {
        let (mut expiry, mut alive) = (Expiry::default(), Some(Arc::new(())));
        let until = Instant::now() + Duration::from_secs(60);
        let mut later = Box::pin(tokio::time::sleep(Duration::from_secs(600)));
        let done = poll_fn(|cx| {
            expiry.poll(cx, |cx| {
                // Polled once, and dropped when all was sent.
                if let Some(alive) = alive.take() {
                    send_until(until, &alive);
                }
                later.as_mut().poll(cx)
            })
        });
        assert_eq!(done.await, Ok(()));
    }
}
