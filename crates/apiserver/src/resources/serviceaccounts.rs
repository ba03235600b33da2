//! ServiceAccounts: references to secrets are names only; mounting rules by annotation are on their way out
//! (`pkg/registry/core/serviceaccount/strategy.go`).

use super::printers;
use super::stored::{self, StoredKind};
use crate::strategy::{Action, Column, Context, Handler, Resource, Strategy, Subresource};
use fleetpass_apimachinery::field::ErrorList;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::{metadata, names};
use fleetpass_schema::openapi::builtin;
use jiff::Timestamp;
use serde_json::{Map, Value};
use std::sync::Arc;

const ENFORCE_MOUNTABLE: &str = "kubernetes.io/enforce-mountable-secrets";

/// The row of ServiceAccounts; `token` answers `TokenRequest`s.
pub(crate) fn resource(token: Arc<dyn Action>) -> Resource {
    let kind = StoredKind {
        group: "",
        version: "v1",
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        definition: "io.k8s.api.core.v1.ServiceAccount",
        namespaced: true,
        short_names: &["sa"],
        selectable_fields: &[],
        columns: vec![Column::name(), Column::age()],
    };
    let mut resource = stored::resource(kind, Arc::new(ServiceAccounts));
    // Others answer with a Status; this one, like Pods and Namespaces, with what was deleted.
    resource.delete_returns_object = true;
    resource.subresources = vec![Subresource {
        name: "token",
        body: Some(("authentication.k8s.io", "v1", "TokenRequest")),
        schema: Some(builtin("io.k8s.api.authentication.v1.TokenRequest")),
        verbs: &["create"],
        handler: Handler::Create(token),
        versions: None,
    }];
    resource
}

struct ServiceAccounts;

// There are no defaults: `automountServiceAccountToken` may be absent, which leaves the choice to each pod (`pods::admission`).
impl Strategy for ServiceAccounts {
    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        keep_names_of_secrets(object);
    }

    fn prepare_for_update(&self, _ctx: &Context<'_>, new: &mut Value, _old: &Value) {
        keep_names_of_secrets(new);
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate_update(new, old);
        errors.append(metadata::validate(new, true, &names::is_dns1123_subdomain));
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, object: &Value, old: Option<&Value>) -> Vec<String> {
        let has = |object: &Value| meta::annotation(object, ENFORCE_MOUNTABLE).is_some();
        // Said once, when the annotation comes, and not again at every change.
        if !has(object) || old.is_some_and(has) {
            return Vec::new();
        }
        vec![format!(
            "metadata.annotations[{ENFORCE_MOUNTABLE}]: deprecated in v1.32+; prefer separate namespaces to isolate access to mounted secrets"
        )]
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![printers::name(object), printers::age(object, now)]
    }
}

/// The secrets of an account are in its own namespace: all but the name of a reference is dropped
/// (`cleanSecretReferences`).
fn keep_names_of_secrets(object: &mut Value) {
    let Some(secrets) = object.get_mut("secrets").and_then(Value::as_array_mut) else { return };
    for secret in secrets {
        // A namespace or UID here would look as if it meant something: nobody reads it.
        let name = secret.get_mut("name").map(Value::take);
        *secret =
            Value::Object(name.map(|name| ("name".to_string(), name)).into_iter().collect::<Map<_, _>>());
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::World;
    use super::*;
    use serde_json::json;

    #[test]
    fn references_keep_their_names_only() {
        let world = World::default();
        for (given, wanted) in [
            (
                json!([{"kind": "Secret", "namespace": "elsewhere", "name": "s3", "uid": "u"}]),
                json!([{"name": "s3"}]),
            ),
            (json!([{"name": "s1"}, {"name": "s1"}, {}]), json!([{"name": "s1"}, {"name": "s1"}, {}])),
        ] {
            let mut object = json!({"secrets": given});
            ServiceAccounts.prepare_for_create(&world.ctx("ns", ""), &mut object);
            assert_eq!(object["secrets"], wanted);
        }
    }

    #[test]
    fn the_deprecated_annotation_warns_when_it_is_new() {
        let world = World::default();
        let ctx = world.ctx("ns", "a");
        let with = json!({"metadata": {"annotations": {ENFORCE_MOUNTABLE: "true"}}});
        assert_eq!(ServiceAccounts.warnings(&ctx, &with, None).len(), 1);
        assert_eq!(ServiceAccounts.warnings(&ctx, &with, Some(&json!({}))).len(), 1);
        assert!(ServiceAccounts.warnings(&ctx, &with, Some(&with)).is_empty());
        assert!(ServiceAccounts.warnings(&ctx, &json!({}), None).is_empty());
    }
}
