//! The crate as another project would use it: errors are data, and nothing of Go is left in a message for which other words
//! are chosen.

use fleetpass_apimachinery::gvk::GvkRef;
use fleetpass_apply::fieldpath::{PathElement, Set};
use fleetpass_apply::{
    Body, Container, Destination, Error, Expected, FieldManager, MisfitObject, PatchKind, PatchPart, Problem,
    StrategicError, Words, conversion_error, patch,
};
use fleetpass_schema::openapi::builtin;
use serde_json::{Value, json};

/// Words for people who have not seen Go.
struct Plain;

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

impl Words for Plain {
    fn value(&self, value: &Value) -> String {
        value.to_string()
    }

    fn directive(&self, value: &Value) -> String {
        value.to_string()
    }

    fn not_a_patch(&self, found: &Value, part: &PatchPart, _: bool) -> String {
        let wanted = match part {
            PatchPart::Object => "an object",
            PatchPart::Operations => "a list of operations",
            PatchPart::Operation => "an operation",
            PatchPart::OperationMember(_) => "a text",
        };
        format!("{wanted} is needed, not {}", kind(found))
    }

    fn unexpected(&self, found: &Value, expected: Expected) -> String {
        let wanted = match expected {
            Expected::Map => "an object",
            Expected::List => "a list",
            Expected::Number => "a number",
            Expected::String => "a text",
            Expected::Boolean => "a truth value",
            Expected::Scalar => "a text, number or truth value",
        };
        format!("{wanted} is needed, not {}", kind(found))
    }

    fn wrong_container(&self, found: &Value, expected: Container) -> String {
        let wanted = match expected {
            Container::Map => "an object",
            Container::List => "a list",
        };
        format!("{wanted} is needed, not {}", kind(found))
    }

    fn inconvertible(&self, found: &Value, destination: &Destination) -> String {
        let wanted = match destination {
            Destination::Map | Destination::Struct => "an object",
            Destination::Slice => "a list",
            Destination::Convertible(_) | Destination::Basic(_) => "another value",
        };
        format!("{wanted} is needed, not {}", kind(found))
    }
}

fn refusal(patch_kind: PatchKind, change: &Value) -> Error {
    let live = json!({"secrets": [{"name": "a"}], "metadata": {"finalizers": ["x"]}});
    let body = Body { value: change, duplicates: &[], validated: true };
    patch(patch_kind, &live, &body, &builtin("io.k8s.api.core.v1.ServiceAccount")).expect_err("a refusal")
}

#[test]
fn patches_are_refused_in_other_words() {
    for (patch_kind, change, message) in [
        (PatchKind::Merge, json!([]), "error decoding patch: an object is needed, not a list"),
        (PatchKind::Json, json!({}), "error decoding patch: a list of operations is needed, not an object"),
        (PatchKind::Json, json!([1]), "error decoding patch: an operation is needed, not a number"),
        (PatchKind::Json, json!([{"op": 1}]), "error decoding patch: a text is needed, not a number"),
        (PatchKind::Strategic, json!(true), "an object is needed, not a truth value"),
        (PatchKind::Strategic, json!({"$setElementOrder/secrets": 1}), "a list is needed, not a number"),
        (
            PatchKind::Strategic,
            json!({"secrets": [{"uid": "b"}]}),
            "map: {\"uid\":\"b\"} does not contain declared merge key: name",
        ),
        (
            PatchKind::Strategic,
            json!({"secrets": [{"name": "a", "$patch": 5}]}),
            "unknown patch type: 5 in map: {\"$patch\":5,\"name\":\"a\"}",
        ),
        (
            PatchKind::Strategic,
            json!({"secrets": ["b"]}),
            "list element types are not identical: [[{\"name\":\"a\"}],[\"b\"]]",
        ),
    ] {
        assert_eq!(refusal(patch_kind, &change).message(&Plain), message, "{change}");
    }
    let Error::Strategic(StrategicError::MissingMergeKey { element, key }) =
        refusal(PatchKind::Strategic, &json!({"secrets": [{"uid": "b"}]}))
    else {
        panic!("a missing key")
    };
    assert_eq!((element.0, key.as_str()), (json!({"uid": "b"}), "name"));
}

#[test]
fn configurations_are_refused_in_other_words() {
    let none = Set::new();
    let manager = FieldManager {
        name: "me",
        schema: &builtin("io.k8s.api.core.v1.ServiceAccount"),
        kind: GvkRef { group: "", version: "v1", kind: "ServiceAccount" },
        subresource: "",
        reset_fields: &none,
        known_versions: &["v1"],
        now: jiff::Timestamp::UNIX_EPOCH,
    };
    let configuration = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "a", "labels": ["x"]},
        "automountServiceAccountToken": "yes", "secrets": {}});
    let error = manager.apply(None, &configuration, false).expect_err("a refusal");
    assert_eq!(
        error.message(&Plain),
        "failed to create typed patch object (/a; /v1, Kind=ServiceAccount): errors:\n  \
         .automountServiceAccountToken: a truth value is needed, not a text\n  \
         .metadata.labels: an object is needed, not a list\n  \
         .secrets: a list is needed, not an object"
    );
    let Error::DoesNotFit(misfit) = error else { panic!("a misfit") };
    assert_eq!((misfit.which, misfit.name.as_str()), (MisfitObject::Configuration, "a"));
    let labels = &misfit.errors.errors[1];
    assert_eq!(*labels.path, [PathElement::field("metadata"), PathElement::field("labels")]);
    assert_eq!(labels.problem, Problem::Type { expected: Expected::Map, found: (&json!(["x"])).into() });
}

#[test]
fn what_does_not_go_into_a_type_is_said_in_other_words() {
    let secret = builtin("io.k8s.api.core.v1.Secret");
    let error = conversion_error(&json!({"stringData": ["a"]}), &secret).expect("an error");
    assert_eq!(error.message(&Plain), "an object is needed, not a list");
    assert_eq!(error.to_string(), "cannot restore map from slice");
}
