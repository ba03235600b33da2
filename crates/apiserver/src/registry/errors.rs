//! What a client is told when the store or the watch cache fails.

use crate::cache::CacheError;
use fleetpass_apimachinery::status::{Cause, Details, Status};

/// A store error as a client sees it: 503 with `Retry-After` if a retry can help, 500 otherwise. Conflicts are no failure and
/// are handled by the verbs before this is called.
///
/// What is said to clients names no file of ours; the operator finds it in the log.
pub(super) fn store_error(error: fleetpass_store::Error) -> Status {
    use fleetpass_store::Error;
    match error {
        // 500 and not 503 with `Retry-After`: client-go would try it again at once, ten times, and hide the cause. Not logged
        // here: the store says once when it begins and once when it is over.
        Error::Unwritable { .. } => Status::internal(error),
        Error::Unavailable { .. } => {
            tracing::warn!(%error, "the store is not available");
            let mut status =
                Status::new(503, "ServiceUnavailable", format!("the store is not available: {error}"));
            status.details = Some(Box::new(Details { retry_after_seconds: 1, ..Details::default() }));
            status
        }
        Error::Stopped { .. } => failed(&error, "the store has stopped"),
        Error::Corrupt { .. } => failed(&error, "the store is damaged"),
        Error::OutcomeUnknown { .. }
        | Error::Conflict { .. }
        | Error::Invalid { .. }
        | Error::Compacted { .. }
        | Error::Lagged { .. }
        | Error::Unfinished
        | Error::Closed => {
            tracing::error!(%error, "the store failed");
            Status::internal(error)
        }
    }
}

fn failed(error: &fleetpass_store::Error, told: &str) -> Status {
    tracing::error!(%error, "the store failed");
    Status::internal(told)
}

/// A cache error as kube-apiserver words it.
pub(super) fn cache_error(error: CacheError) -> Status {
    match error {
        CacheError::TooOld { .. } => Status::expired(error.to_string()),
        CacheError::TooLarge { .. } => {
            let mut status = Status::timeout(error.to_string());
            status.details = Some(Box::new(Details {
                causes: vec![Cause {
                    reason: "ResourceVersionTooLarge".into(),
                    message: "Too large resource version".into(),
                    field: String::new(),
                }],
                retry_after_seconds: 1,
                ..Details::default()
            }));
            status
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_store::{Cause, Error};

    #[test]
    fn clients_are_told_the_cause_and_no_file() {
        let file = || "/var/lib/fleetpass/store/store.redb".into();
        let problem = || "a problem".to_owned();
        for (error, code, message) in [
            (
                Error::Unwritable { cause: Cause::NoSpace },
                500,
                "Internal error occurred: the store cannot be written: no space left on device",
            ),
            (
                Error::Unwritable { cause: Cause::ReadOnly },
                500,
                "Internal error occurred: the store cannot be written: read-only file system",
            ),
            (
                Error::OutcomeUnknown { reason: "no space left on device".into() },
                500,
                "Internal error occurred: it is not known whether the commit happened: no space left on device",
            ),
            (
                Error::Stopped { file: file(), problem: problem() },
                500,
                "Internal error occurred: the store has stopped",
            ),
            (
                Error::Corrupt { file: file(), problem: problem(), remedy: String::new() },
                500,
                "Internal error occurred: the store is damaged",
            ),
            (
                Error::Unavailable { reason: problem() },
                503,
                "the store is not available: the store is unavailable: a problem",
            ),
        ] {
            let status = store_error(error);
            assert_eq!((status.code, status.message.as_str()), (code, message));
        }
    }
}
