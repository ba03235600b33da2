//! SubjectAccessReviews: may that user do this?

use super::access_review::{answer, invalid, row, subject, validate_metadata, validate_spec};
use crate::strategy::{Action, ActionRequest, Resource};
use async_trait::async_trait;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use serde_json::Value;
use std::sync::Arc;

const KIND: &str = "SubjectAccessReview";

/// The row of SubjectAccessReviews.
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
        let mut errors = validate_spec(&review, true);
        errors.extend(validate_metadata(&review, &[], "must be empty"));
        invalid(&errors)?;
        let user = subject(&review);
        Ok((answer(&request, KIND, &user, review), Vec::new()))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Allowed, World};
    use super::*;
    use crate::strategy::WriteOptions;
    use serde_json::json;

    async fn review(object: Value) -> Result<Value, Status> {
        let world = World { allowed: Allowed(vec!["get pods x"]), ..World::default() };
        let (options, notes) = (WriteOptions::default(), crate::audit::event::Notes::default());
        let request = ActionRequest { ctx: world.ctx("", ""), object, options: &options, notes: &notes };
        Review.create(request).await.map(|(answer, _)| answer)
    }

    #[tokio::test]
    async fn answers_with_a_status_of_its_own() {
        let spec = |name: &str| json!({"user": "a", "resourceAttributes": {"verb": "get", "resource": "pods", "name": name}});
        for (name, allowed) in [("x", true), ("y", false)] {
            let sent = json!({"metadata": {"namespace": "default"}, "spec": spec(name),
                "status": {"allowed": true, "denied": true, "reason": "because"}});
            assert_eq!(
                review(sent).await.unwrap(),
                json!({"kind": KIND, "apiVersion": "authorization.k8s.io/v1", "metadata": {}, "spec": spec(name),
                    "status": {"allowed": allowed}})
            );
        }
    }

    #[tokio::test]
    async fn refusals() {
        let one = "spec.resourceAttributes: Invalid value: null: exactly one of nonResourceAttributes or resourceAttributes must be specified";
        let nobody = "spec.user: Invalid value: \"\": at least one of user or group must be specified";
        let both = "spec.nonResourceAttributes: Invalid value: {\"Path\":\"/healthz\",\"Verb\":\"get\"}: cannot be specified in combination with resourceAttributes";
        let metadata = r#"metadata: Invalid value: {"name":"x","labels":{"a":"b"},"managedFields":[{"manager":"oracle","operation":"Update","apiVersion":"authorization.k8s.io/v1","time":"T","fieldsType":"FieldsV1","fieldsV1":{"f:spec":{"f:user":{}}}}]}: must be empty"#;
        let selector = "spec.resourceAttributes.fieldSelector.requirements: Required value: when spec.resourceAttributes.fieldSelector is specified, requirements or rawSelector is required";
        for (object, message) in [
            (json!({}), format!("[{one}, {nobody}]")),
            (json!({"spec": {"user": "a"}}), one.to_string()),
            (json!({"spec": {"resourceAttributes": {}}}), nobody.to_string()),
            (
                json!({"spec": {"user": "a", "resourceAttributes": {},
                    "nonResourceAttributes": {"path": "/healthz", "verb": "get"}}}),
                both.to_string(),
            ),
            (
                json!({"metadata": {"name": "x", "labels": {"a": "b"}, "managedFields": [{
                    "manager": "oracle", "operation": "Update", "apiVersion": "authorization.k8s.io/v1", "time": "T",
                    "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:user": {}}}}]},
                    "spec": {"user": "a", "resourceAttributes": {}}}),
                metadata.to_string(),
            ),
            (
                json!({"spec": {"user": "a", "resourceAttributes": {"fieldSelector": {}}}}),
                selector.to_string(),
            ),
        ] {
            let status = review(object).await.unwrap_err();
            assert_eq!(status.message, format!(".authorization.k8s.io \"\" is invalid: {message}"));
            assert_eq!(status.code, 422);
            let details = status.details.unwrap();
            assert_eq!((details.kind.as_str(), details.name.as_str()), ("", ""));
            assert!(details.causes.iter().all(|c| c.reason.starts_with("FieldValue")));
        }
    }

    #[tokio::test]
    async fn selectors_that_cannot_be_understood_are_told() {
        let object = |field: Value, label: Value| {
            json!({"spec": {"user": "a", "resourceAttributes": {"verb": "get", "resource": "pods", "name": "x",
                "fieldSelector": {"requirements": field}, "labelSelector": {"requirements": label}}}})
        };
        let known = json!({"key": "a", "operator": "In", "values": ["b"]});
        let unknown = json!({"key": "a", "operator": "Within", "values": ["b"]});
        let status =
            review(object(json!([known, unknown]), json!([unknown]))).await.unwrap()["status"].clone();
        assert_eq!(
            status,
            json!({"allowed": true, "evaluationError": "spec.resourceAttributes.fieldSelector partially ignored due to parse error; spec.resourceAttributes.labelSelector ignored due to parse error"})
        );
        let status = review(object(json!([known]), json!([known]))).await.unwrap()["status"].clone();
        assert_eq!(status, json!({"allowed": true}));
    }
}
