//! How many requests may be under way at once (`k8s.io/apiserver/pkg/server/filters/maxinflight.go`).

use super::handler::Asked;
use crate::status::Status;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Slots for requests under way; watches do not count.
pub(super) struct Limits {
    reading: Arc<Semaphore>,
    mutating: Arc<Semaphore>,
}

impl Limits {
    /// So many of each kind; kube-apiserver allows 400 and 200.
    pub(super) fn new(reading: usize, mutating: usize) -> Self {
        Self { reading: Arc::new(Semaphore::new(reading)), mutating: Arc::new(Semaphore::new(mutating)) }
    }

    /// A slot until the answer is made, or 429.
    pub(super) fn enter(&self, asked: &Asked) -> Result<Option<OwnedSemaphorePermit>, Status> {
        let slots = match asked.info.verb.as_str() {
            "watch" => return Ok(None),
            "get" | "list" | "head" | "options" => &self.reading,
            _ => &self.mutating,
        };
        // The operator's own group is never locked out.
        if asked.user.in_group(crate::user::SYSTEM_MASTERS) {
            return Ok(slots.clone().try_acquire_owned().ok());
        }
        slots
            .clone()
            .try_acquire_owned()
            .map(Some)
            .map_err(|_| Status::too_many_requests("Too many requests, please try again later.", 1))
    }
}
