//! What a client is told when the store or the watch cache fails.

use crate::cache::CacheError;
use fleetpass_apimachinery::status::{Cause, Details, Status};

/// A store error as a client sees it: 503 with `Retry-After` if a retry can help, 500 otherwise. Conflicts are no failure and
/// are handled by the verbs before this is called.
pub(super) fn store_error(error: fleetpass_store::Error) -> Status {
    if error.retry_can_help() {
        tracing::warn!(%error, "the store is not available");
        let mut status =
            Status::new(503, "ServiceUnavailable", format!("the store is not available: {error}"));
        status.details = Some(Box::new(Details { retry_after_seconds: 1, ..Details::default() }));
        return status;
    }
    tracing::error!(%error, "the store failed");
    Status::internal(error)
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
