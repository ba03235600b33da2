//! LocalSubjectAccessReviews: may that user do this in this namespace? As a kind of its own, so that a role in a namespace can
//! allow asking about this namespace and about nothing else.

use super::access_review::{
    answer, go_form, invalid, non_resource_attributes, resource_attributes, row, subject, validate_metadata,
    validate_spec,
};
use crate::strategy::{Action, ActionRequest, Resource};
use async_trait::async_trait;
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::validation::prepare;
use serde_json::Value;
use std::sync::Arc;

const KIND: &str = "LocalSubjectAccessReview";

/// The row of LocalSubjectAccessReviews.
pub(crate) fn resource() -> Resource {
    row(KIND, true, Arc::new(Review))
}

struct Review;

#[async_trait]
impl Action for Review {
    async fn create(&self, request: ActionRequest<'_>) -> Result<(Value, Vec<String>), Status> {
        let mut review = request.object.clone();
        // Whether the namespace exists is not asked: telling it would tell who may not know (`isAccessReview` of
        // the plugin `NamespaceLifecycle`).
        prepare::match_namespace(&mut review, request.ctx.namespace)?;
        invalid(&validate(&review, request.ctx.namespace))?;
        let user = subject(&review);
        Ok((answer(&request, KIND, &user, review), Vec::new()))
    }
}

fn validate(review: &Value, namespace: &str) -> ErrorList {
    let mut errors = validate_spec(review, true);
    errors.extend(validate_metadata(review, &["namespace"], "must be empty except for namespace"));
    if let Some(resource) = resource_attributes(review) {
        let asked = meta::text(resource, &["namespace"]);
        if asked != namespace {
            let field = Path::new("spec.resourceAttributes.namespace");
            errors.push(Error::invalid(&field, asked, "must match metadata.namespace"));
        }
    }
    if let Some(path) = non_resource_attributes(review) {
        let field = Path::new("spec.nonResourceAttributes");
        errors.push(Error::invalid(&field, go_form(path), "disallowed on this kind of request"));
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::super::testing::texts;
    use super::*;
    use serde_json::json;

    #[test]
    fn only_questions_about_the_namespace() {
        let review = |spec: Value| json!({"metadata": {"namespace": "ns"}, "spec": spec});
        let path = json!({"path": "/healthz", "verb": "get"});
        let printed = r#"spec.nonResourceAttributes: Invalid value: {"Path":"/healthz","Verb":"get"}"#;
        for (spec, expected) in [
            (json!({"user": "a", "resourceAttributes": {"namespace": "ns"}}), vec![]),
            (
                json!({"user": "a", "resourceAttributes": {"namespace": "other"}}),
                vec!["spec.resourceAttributes.namespace: Invalid value: \"other\": must match metadata.namespace".into()],
            ),
            (
                json!({"user": "a", "nonResourceAttributes": path}),
                vec![format!("{printed}: disallowed on this kind of request")],
            ),
            (
                json!({"user": "a", "nonResourceAttributes": path, "resourceAttributes": {"namespace": "ns"}}),
                vec![
                    format!("{printed}: cannot be specified in combination with resourceAttributes"),
                    format!("{printed}: disallowed on this kind of request"),
                ],
            ),
        ] {
            assert_eq!(texts(&validate(&review(spec), "ns")), expected);
        }
        let named = json!({"metadata": {"namespace": "ns", "name": "x"}, "spec": {"user": "a", "resourceAttributes": {"namespace": "ns"}}});
        assert_eq!(
            texts(&validate(&named, "ns")),
            [r#"metadata: Invalid value: {"name":"x","namespace":"ns"}: must be empty except for namespace"#]
        );
    }
}
