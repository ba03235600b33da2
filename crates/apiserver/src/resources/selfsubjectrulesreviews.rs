//! SelfSubjectRulesReviews: what may I do in this namespace?

use super::access_review::{complete, row};
use crate::strategy::{Action, ActionRequest, Resource};
use async_trait::async_trait;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_auth::authz::{PolicyRule, UserRules, join_errors};
use serde_json::{Map, Value, json};
use std::sync::Arc;

const KIND: &str = "SelfSubjectRulesReview";

/// The row of SelfSubjectRulesReviews.
pub(crate) fn resource() -> Resource {
    row(KIND, false, Arc::new(Review))
}

struct Review;

#[async_trait]
impl Action for Review {
    async fn create(&self, request: ActionRequest<'_>) -> Result<(Value, Vec<String>), Status> {
        let namespace = meta::text(&request.object, &["spec", "namespace"]);
        if namespace.is_empty() {
            return Err(Status::bad_request("no namespace on request"));
        }
        // For showing to people: what a review lists need not be all that is allowed, see `incomplete`. Only an
        // access review decides.
        let rules = request.ctx.authorizer.rules_for(request.ctx.user, namespace);
        // The answer is a new object: neither metadata nor spec of the question come back.
        let mut answer = json!({});
        complete(&mut answer, KIND, status(&rules));
        Ok((answer, Vec::new()))
    }
}

/// The rules as the review lists them, those for resources and those for paths, each in the order found.
fn status(found: &UserRules) -> Value {
    let pick = |keys: [&str; 4], wanted: fn(&PolicyRule) -> bool| -> Value {
        let rules = found.rules.iter().filter(|rule| wanted(rule)).map(|rule| {
            let all = rule.to_json();
            keys.iter()
                .filter_map(|key| Some((key.to_string(), all.get(*key)?.clone())))
                .collect::<Map<_, _>>()
        });
        rules.map(Value::Object).collect()
    };
    let mut out = Map::new();
    let resources = pick(["verbs", "apiGroups", "resources", "resourceNames"], |r| !r.resources.is_empty());
    // The empty names fill up the array; no rule has such a member.
    let paths = pick(["verbs", "nonResourceURLs", "", ""], |r| !r.non_resource_urls.is_empty());
    out.insert("resourceRules".into(), resources);
    out.insert("nonResourceRules".into(), paths);
    out.insert("incomplete".into(), found.incomplete.into());
    if !found.errors.is_empty() {
        out.insert("evaluationError".into(), join_errors(&found.errors).into());
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_told_apart_and_errors_joined() {
        let rules = [
            json!({"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["x"]}),
            json!({"verbs": ["get"], "nonResourceURLs": ["/healthz"]}),
            json!({"verbs": ["watch"], "apiGroups": ["*"], "resources": ["*"]}),
        ];
        let found = UserRules {
            rules: rules.iter().map(PolicyRule::from_json).collect(),
            incomplete: false,
            errors: vec!["a".into(), "b".into(), "a".into()],
        };
        assert_eq!(
            status(&found),
            json!({"resourceRules": [rules[0], rules[2]], "nonResourceRules": [rules[1]], "incomplete": false,
                "evaluationError": "[a, b]"})
        );
        let nothing = json!({"resourceRules": [], "nonResourceRules": [], "incomplete": false});
        assert_eq!(status(&UserRules::default()), nothing);
    }
}
