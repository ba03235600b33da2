//! The kinds that bodies and patches are decoded as, and a world in which nothing else exists.

use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef};
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_apiserver::strategy::Context;
use fleetpass_auth::authz::{Attributes, Authorizer, Decision, UserRules};
use fleetpass_schema::{Schema, crd, openapi};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::{Arc, LazyLock};

/// The moment at which all targets run.
pub(crate) const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// The group of the custom kind.
pub(crate) const GROUP: &str = "fuzz.example.com";

/// The custom kind `Thing`: all that a schema of a CRD can say about the shape of values.
pub(crate) static THING: LazyLock<Arc<Schema>> = LazyLock::new(|| Arc::new(crd::schema(&thing_schema())));

fn thing_schema() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "count": {"type": "integer", "default": 3, "minimum": -5, "maximum": 1e9},
            "ratio": {"type": "number", "multipleOf": 0.5},
            "on": {"type": "boolean", "nullable": true},
            "port": {"x-kubernetes-int-or-string": true},
            "mode": {"type": "string", "enum": ["a", "b"], "default": "a"},
            "when": {"type": "string", "format": "date-time"},
            "code": {"type": "string", "pattern": "^[a-z]+(-[0-9]{1,3})?$", "maxLength": 9},
            "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "words": {"type": "array", "items": text, "x-kubernetes-list-type": "set"},
            "atoms": {"type": "array", "items": {"type": "integer"}, "x-kubernetes-list-type": "atomic"},
            "pairs": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "n"],
                "items": {"type": "object", "required": ["k"], "properties": {
                    "k": text, "n": {"type": "integer", "default": 1}, "v": text, "l": {"type": "array", "items": text}}}},
            "map": {"type": "object", "additionalProperties": text},
            "whole": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "integer"}},
            "inner": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true},
            "deep": {"type": "object", "default": {}, "properties": {"x": {"type": "object", "default": {"y": 1},
                "properties": {"y": {"type": "integer"}}}}}}},
        "status": {"type": "object", "properties": {"phase": text}}}})
}

/// The schema of a kind that is built in or ours; whether it is ours.
pub(crate) fn schema_of(gvk: &GroupVersionKind) -> Option<(Arc<Schema>, bool)> {
    if gvk.group == GROUP && gvk.kind == "Thing" {
        return Some((THING.clone(), true));
    }
    Some((openapi::find_kind(&gvk.group, &gvk.version, &gvk.kind)?, false))
}

/// The kind as a request expects it.
pub(crate) fn target(gvk: &GroupVersionKind) -> GvkRef<'_> {
    GvkRef { group: &gvk.group, version: &gvk.version, kind: &gvk.kind }
}

/// A world in which nothing exists and nobody may anything.
pub(crate) struct Nothing;

impl Lister for Nothing {
    fn get(&self, _group: &str, _resource: &str, _namespace: &str, _name: &str) -> Option<Arc<Value>> {
        None
    }
    fn list(&self, _group: &str, _resource: &str, _namespace: &str) -> Vec<Arc<Value>> {
        Vec::new()
    }
}

impl Authorizer for Nothing {
    fn authorize(&self, _attributes: &Attributes<'_>) -> Decision {
        Decision::refuse("")
    }
    fn rules_for(&self, _user: &UserInfo, _namespace: &str) -> UserRules {
        UserRules { incomplete: true, ..UserRules::default() }
    }
}

/// Runs `act` with what a strategy may know about a request in that world.
pub(crate) fn in_context<T>(version: &str, act: impl FnOnce(&Context<'_>) -> T) -> T {
    let user = UserInfo::anonymous();
    act(&Context {
        user: &user,
        now: NOW,
        namespace: "",
        name: "",
        version,
        dry_run: false,
        lister: &Nothing,
        authorizer: &Nothing,
    })
}
