//! SelfSubjectAccessReviews: may I do this?

use super::access_review::{answer, invalid, row, validate_metadata, validate_spec};
use crate::strategy::{Action, ActionRequest, Resource};
use async_trait::async_trait;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use serde_json::Value;
use std::sync::Arc;

const KIND: &str = "SelfSubjectAccessReview";

/// The row of SelfSubjectAccessReviews.
pub(crate) fn resource() -> Resource {
    row(KIND, false, Arc::new(Review))
}

struct Review;

#[async_trait]
impl Action for Review {
    async fn create(&self, request: ActionRequest<'_>) -> Result<(Value, Vec<String>), Status> {
        let mut review = request.object.clone();
        // What is not in a namespace may still be sent with one.
        meta::metadata_mut(&mut review).remove("namespace");
        let mut errors = validate_spec(&review, false);
        errors.extend(validate_metadata(&review, &[], "must be empty"));
        invalid(&errors)?;
        Ok((answer(&request, KIND, request.ctx.user, review), Vec::new()))
    }
}
