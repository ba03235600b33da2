//! `SelfSubjectReview` (authentication.k8s.io/v1): who does the server think that I am?
//! (`pkg/registry/authentication/selfsubjectreview/rest.go`)
//!
//! The registry has authorized the request, checked its content type and query options, and decoded the body. Nothing
//! of the body comes back, neither its metadata nor the managedFields that the registry may have set. The user is the
//! one after impersonation.

use super::token_review::review_row;
use crate::strategy::{Action, ActionRequest, Resource};
use async_trait::async_trait;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::time::rfc3339;
use fleetpass_schema::Schema;
use serde_json::{Value, json};
use std::sync::Arc;

struct SelfSubjectReview;

/// The action.
pub(crate) fn action() -> Arc<dyn Action> {
    Arc::new(SelfSubjectReview)
}

/// The row of the kind.
pub(crate) fn resource(schema: Arc<Schema>) -> Resource {
    review_row("SelfSubjectReview", schema, action())
}

#[async_trait]
impl Action for SelfSubjectReview {
    async fn create(&self, request: ActionRequest<'_>) -> Result<(Value, Vec<String>), Status> {
        let answer = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "SelfSubjectReview",
            // Made anew: a review that came back with its metadata would look as if it were stored.
            "metadata": {"creationTimestamp": rfc3339(request.ctx.now)},
            "status": {"userInfo": request.ctx.user.to_json()},
        });
        Ok((answer, Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::create;
    use super::*;
    use fleetpass_apimachinery::user::UserInfo;
    use fleetpass_auth::testing::Objects;

    #[tokio::test]
    async fn tells_the_user_and_nothing_of_the_body() {
        let user = UserInfo { name: "alice".into(), groups: vec!["devs".into()], ..UserInfo::default() };
        let body = json!({"metadata": {"name": "x"}, "status": {"userInfo": {"username": "root"}}});
        let found = create(&*action(), &Objects::default(), &user, ("", ""), body).await.unwrap();
        let expected = json!({
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "SelfSubjectReview",
            "metadata": {"creationTimestamp": "2026-01-02T03:04:05Z"},
            "status": {"userInfo": {"username": "alice", "groups": ["devs"]}},
        });
        assert_eq!(found, (expected, vec![]));
    }
}
