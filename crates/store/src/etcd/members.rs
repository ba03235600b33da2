//! The members of an etcd cluster: one is asked, and another one when that one fails.
//!
//! # Guarantees
//! A read is asked again until a member answers or the time is over. A write is asked again only when it is certain that
//! it did not happen; else the caller is told that its outcome is unknown.

use super::rpc::Client;
use crate::error::{Cause, Error, Result};
use std::error::Error as _;
use std::fmt;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;
use tonic::{Code, Status};

/// How long a member may take for a read before another one is asked.
const READ_ATTEMPT: Duration = Duration::from_secs(2);
/// How long a member may take for a write. etcd itself gives up after seven seconds when it loses its leader.
const WRITE_ATTEMPT: Duration = Duration::from_secs(5);
/// How long a call may take with all its attempts: an election of a new leader takes a second or two.
const CALL_TIMEOUT: Duration = Duration::from_secs(8);
/// The pause between attempts.
const PAUSE: Duration = Duration::from_millis(50);

/// Clients, each for one member, so that a member that hangs holds up nobody but those who asked it.
pub(super) struct Members {
    /// URL and client of each member; at least one.
    clients: Vec<(String, Client)>,
    /// The index of the member to ask. Only a hint that all callers share, so relaxed accesses are enough.
    preferred: AtomicUsize,
}

/// What a failed attempt tells.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// The revision that was asked for is compacted.
    Compacted,
    /// The revision that was asked for has not come yet.
    Future,
    /// The request is not one that etcd takes.
    Invalid(String),
    /// It was not carried out, and a later attempt may succeed.
    NotDone(String),
    /// It was not carried out, and no attempt will be until an operator has done something.
    Refused(String),
    /// It was not carried out, because there is no room for it; reads go on.
    Full(String),
    /// It may have been carried out or not.
    Unknown(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compacted => f.write_str("the revision is compacted"),
            Self::Future => f.write_str("the revision is in the future"),
            Self::Invalid(reason)
            | Self::NotDone(reason)
            | Self::Refused(reason)
            | Self::Full(reason)
            | Self::Unknown(reason) => f.write_str(reason),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let reason = failure.to_string();
        match failure {
            Failure::Invalid(_) => Self::Invalid { reason },
            Failure::Unknown(_) => Self::OutcomeUnknown { reason },
            Failure::Full(_) => Self::Unwritable { cause: Cause::Other(reason) },
            Failure::Compacted | Failure::Future | Failure::NotDone(_) | Failure::Refused(_) => {
                Self::Unavailable { reason }
            }
        }
    }
}

impl Members {
    /// The members behind these clients, in the order of the configuration. Which one is asked first differs from
    /// process to process, so that replicas spread.
    pub(super) fn new(clients: Vec<(String, Client)>) -> Self {
        // RandomState is the standard library's own randomness: enough to spread processes, and it cannot fail.
        let any = usize::try_from(RandomState::new().build_hasher().finish() >> 33).unwrap_or(0);
        let preferred = AtomicUsize::new(any % clients.len().max(1));
        Self { clients, preferred }
    }

    /// The member to ask now: its number and a client.
    pub(super) fn preferred(&self) -> (usize, Client) {
        let index = self.preferred.load(Ordering::Relaxed) % self.clients.len();
        (index, self.clients[index].1.clone())
    }

    /// Takes note that a member failed: the next one is asked from now on, unless that was decided already.
    pub(super) fn mark_failed(&self, index: usize) {
        let next = (index + 1) % self.clients.len();
        // Compared, so that many callers who fail at the same member move on by one and not by many.
        let changed = self.preferred.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        if changed.is_ok() && next != index {
            tracing::info!(
                from = self.clients[index].0,
                to = self.clients[next].0,
                "asking another etcd member"
            );
        }
    }

    /// Asks for something that changes nothing.
    pub(super) async fn read<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.ask(READ_ATTEMPT, ask, |failure| match failure {
            // Whether a read was carried out does not matter.
            Failure::Unknown(reason) => Failure::NotDone(reason),
            other => other,
        })
        .await
    }

    /// Asks for a change.
    pub(super) async fn write<T, F>(&self, ask: impl Fn(Client) -> F) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        self.ask(WRITE_ATTEMPT, ask, |failure| failure).await
    }

    async fn ask<T, F>(
        &self,
        attempt: Duration,
        ask: impl Fn(Client) -> F,
        adjust: impl Fn(Failure) -> Failure,
    ) -> Result<T, Failure>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let deadline = Instant::now() + CALL_TIMEOUT;
        loop {
            let (index, client) = self.preferred();
            let failure = match tokio::time::timeout(attempt, ask(client)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => failure(&error),
                Err(_) => Failure::Unknown(format!("no answer within {} s", attempt.as_secs())),
            };
            let failure = adjust(failure);
            let Failure::NotDone(reason) = &failure else {
                // A write of unknown outcome is not tried again, but the next call goes to another member.
                if let Failure::Unknown(_) = failure {
                    self.mark_failed(index);
                }
                return Err(failure);
            };
            let url = &self.clients[index].0;
            tracing::debug!(member = url, reason, "an etcd member did not answer");
            self.mark_failed(index);
            if Instant::now() >= deadline {
                return Err(Failure::NotDone(format!("etcd member {url}: {reason}")));
            }
            // Constant and short: the next attempt goes to another member, and all attempts together have an end.
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// What an error of etcd or of the way to it means.
pub(super) fn failure(status: &Status) -> Failure {
    if never_sent(status) {
        return Failure::NotDone("it cannot be reached".into());
    }
    classify(status.code(), &message_with_cause(status))
}

/// What a status says, and at the end what lies at the root of it: on the way to a member, "transport error" has one.
fn message_with_cause(status: &Status) -> String {
    let mut root: &dyn std::error::Error = status;
    while let Some(source) = root.source() {
        root = source;
    }
    let (message, root) = (status.message(), root.to_string());
    match status.source() {
        Some(_) if !message.contains(&root) => format!("{message}: {root}"),
        _ => message.to_owned(),
    }
}

/// Whether an error shows that there was no connection to send the request on. A reset or broken connection does not show
/// that: the request may have arrived before.
fn never_sent(error: &(dyn std::error::Error + 'static)) -> bool {
    use std::io::ErrorKind;
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                error.kind(),
                ErrorKind::ConnectionRefused | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable
            );
        }
        next = error.source();
    }
    false
}

/// What etcd says (`api/v3rpc/rpctypes/error.go`).
fn classify(code: Code, message: &str) -> Failure {
    let reason = || message.to_owned();
    match (code, message) {
        (Code::OutOfRange, _) if message.contains("compacted") => Failure::Compacted,
        (Code::OutOfRange, _) if message.contains("future revision") => Failure::Future,
        // Said before anything is done, to requests that ask for a leader.
        (Code::Unavailable, "etcdserver: no leader") => Failure::NotDone(reason()),
        (Code::ResourceExhausted, _) if message.contains("database space exceeded") => {
            Failure::Full(reason())
        }
        (Code::ResourceExhausted, _) => Failure::Refused(reason()),
        (Code::InvalidArgument | Code::OutOfRange, _) => Failure::Invalid(reason()),
        (
            Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition | Code::Unimplemented,
            _,
        ) => Failure::Refused(reason()),
        _ => Failure::Unknown(reason()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_etcd_says_is_told_apart() {
        let text = |reason: &str| reason.to_owned();
        for (code, message, want) in [
            (Code::OutOfRange, "etcdserver: mvcc: required revision has been compacted", Failure::Compacted),
            (Code::OutOfRange, "etcdserver: mvcc: required revision is a future revision", Failure::Future),
            (Code::Unavailable, "etcdserver: no leader", Failure::NotDone(text("etcdserver: no leader"))),
            (
                Code::Unavailable,
                "etcdserver: request timed out, possibly due to previous leader failure",
                Failure::Unknown(text(
                    "etcdserver: request timed out, possibly due to previous leader failure",
                )),
            ),
            (
                Code::InvalidArgument,
                "etcdserver: request is too large",
                Failure::Invalid(text("etcdserver: request is too large")),
            ),
            (
                Code::ResourceExhausted,
                "etcdserver: too many requests",
                Failure::Refused(text("etcdserver: too many requests")),
            ),
            (Code::Cancelled, "gone", Failure::Unknown(text("gone"))),
        ] {
            assert_eq!(classify(code, message), want, "{message}");
        }
        let full = classify(Code::ResourceExhausted, "etcdserver: mvcc: database space exceeded");
        assert!(matches!(&full, Failure::Full(reason) if reason.contains("space exceeded")), "{full:?}");
        // Not as unavailable, which clients would try again at once, and again.
        let error = Error::from(full);
        assert!(matches!(error, Error::Unwritable { .. }) && !error.retry_can_help());
    }

    #[test]
    fn the_root_of_a_broken_connection_is_told() {
        let broken = std::io::Error::other("certificate required");
        let told = message_with_cause(&Status::from_error(Box::new(broken)));
        assert!(told.contains("certificate required"), "{told}");
        assert_eq!(
            super::message_with_cause(&Status::unavailable("etcdserver: no leader")),
            "etcdserver: no leader"
        );
    }

    #[test]
    fn only_a_refused_connection_shows_that_nothing_was_sent() {
        use std::io::{self, ErrorKind};
        let status = |kind: ErrorKind| Status::from_error(Box::new(io::Error::from(kind)));
        assert!(never_sent(&status(ErrorKind::ConnectionRefused)));
        assert!(!never_sent(&status(ErrorKind::ConnectionReset)));
        assert!(!never_sent(&status(ErrorKind::BrokenPipe)));
        assert!(!never_sent(&Status::unavailable("etcdserver: no leader")));
    }
}
