//! Definitions, and what a real kube-apiserver said about them (`testdata/definitions.json`).

use super::*;
use crate::resources::testing::{World, texts};
use fleetpass_schema::openapi::builtin;
use fleetpass_schema::typed;

fn definitions() -> Vec<Value> {
    serde_json::from_str(include_str!("../../testdata/definitions.json")).expect("JSON")
}

fn main() -> Definitions {
    Definitions { status: false }
}

/// Decodes, defaults and prepares a definition as the registry does.
fn prepared(body: &Value) -> Value {
    let schema = builtin("io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition");
    let mut object = typed::normalise(body, &schema).expect("decodable").value;
    main().default(&mut object);
    main().prepare_for_create(&World::default().ctx("", ""), &mut object);
    object
}

fn all_errors(object: &Value) -> ErrorList {
    let mut errors =
        fleetpass_apimachinery::validation::metadata::validate(object, false, &|name, prefix| {
            main().validate_name(name, prefix)
        });
    errors.append(main().validate(&World::default().ctx("", ""), object));
    errors
}

#[test]
fn refuses_and_accepts_as_recorded() {
    for case in definitions() {
        let expected: Vec<&str> =
            case["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let object = prepared(&case["definition"]);
        assert_eq!(texts(&all_errors(&object)), expected, "{}", case["definition"]["spec"]);
    }
}

fn widgets(names: Value) -> Value {
    let plural = names["plural"].as_str().unwrap_or_default().to_string();
    prepared(&json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.example.com")},
        "spec": {"group": "example.com", "names": names, "scope": "Namespaced", "versions": [
            {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}))
}

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().expect("a time")
}

fn conditions(status: &Value) -> Vec<String> {
    let list = status["conditions"].as_array().cloned().unwrap_or_default();
    list.iter()
        .map(|c| format!("{}={} {}: {}", c["type"], c["status"], c["reason"], c["message"]).replace('"', ""))
        .collect()
}

fn granted(definition: &Value) -> GrantedNames {
    let mut granted = GrantedNames::default();
    granted.add(definition);
    granted
}

#[test]
fn free_names_are_accepted_at_once() {
    let mut definition = widgets(json!({"plural": "widgets", "kind": "Widget", "shortNames": ["wi"]}));
    let status = naming_conditions(&definition, &GrantedNames::default(), now()).expect("a change");
    assert_eq!(
        conditions(&status),
        [
            "NamesAccepted=True NoConflicts: no conflicts found",
            "Established=True InitialNamesAccepted: the initial names have been accepted",
        ]
    );
    assert_eq!(
        status["acceptedNames"],
        json!({"plural": "widgets", "singular": "widget", "shortNames": ["wi"], "kind": "Widget", "listKind": "WidgetList"})
    );
    definition["status"] = status;
    assert_eq!(naming_conditions(&definition, &GrantedNames::default(), now()), None);
}

#[test]
fn names_in_use_are_refused_until_they_change() {
    let mut first = widgets(json!({"plural": "widgets", "kind": "Widget", "shortNames": ["wi"]}));
    first["status"] = naming_conditions(&first, &GrantedNames::default(), now()).expect("a change");
    let mut second = widgets(
        json!({"plural": "gadgets", "kind": "Widget", "singular": "gadget", "shortNames": ["wi"], "listKind": "GadgetList"}),
    );
    let status = naming_conditions(&second, &granted(&first), now()).expect("a change");
    assert_eq!(
        conditions(&status),
        [
            "NamesAccepted=False KindConflict: \\Widget\\ is already in use",
            "Established=False NotAccepted: not all names are accepted",
        ]
    );
    assert_eq!(
        status["acceptedNames"],
        json!({"plural": "gadgets", "singular": "gadget", "kind": "", "listKind": "GadgetList"})
    );
    second["status"] = status;
    second["spec"]["names"]["kind"] = "Gadget".into();
    let status = naming_conditions(&second, &granted(&first), now()).expect("a change");
    assert!(conditions(&status)[0].contains("ShortNamesConflict"));
    second["status"] = status;
    second["spec"]["names"]["shortNames"] = json!(["ga"]);
    let status = naming_conditions(&second, &granted(&first), now()).expect("a change");
    assert!(conditions(&status)[1].starts_with("Established=True"));
}

#[test]
fn what_is_stored_and_named_may_not_change() {
    let mut old = widgets(json!({"plural": "widgets", "kind": "Widget"}));
    old["status"] = naming_conditions(&old, &GrantedNames::default(), now()).expect("a change");
    let world = World::default();
    let ctx = world.ctx("", "");
    for (pointer, value, expected) in [
        ("/spec/scope", json!("Cluster"), vec!["spec.scope: Invalid value: \"Cluster\": field is immutable"]),
        (
            "/spec/group",
            json!("x.example.com"),
            vec!["spec.group: Invalid value: \"x.example.com\": field is immutable"],
        ),
        (
            "/spec/names/kind",
            json!("Wodget"),
            vec!["spec.names.kind: Invalid value: \"Wodget\": field is immutable"],
        ),
        ("/spec/names/singular", json!("wi"), vec![]),
        (
            "/spec/versions",
            json!([]),
            vec![
                "spec.versions: Invalid value: []: must have exactly one version marked as storage version",
                "status.storedVersions[0]: Invalid value: \"v1\": missing from spec.versions; v1 was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in v1 and removes v1 from status.storedVersions",
            ],
        ),
    ] {
        let mut new = old.clone();
        *new.pointer_mut(pointer).expect("a field") = value;
        main().prepare_for_update(&ctx, &mut new, &old);
        let errors = main().validate_update(&ctx, &new, &old);
        assert_eq!(texts(&errors), expected, "{pointer}");
        assert_eq!(meta::generation(&new), 2);
    }
}

#[test]
fn deletion_waits_for_the_objects() {
    let mut definition = widgets(json!({"plural": "widgets", "kind": "Widget"}));
    assert!(main().is_held(&definition));
    definition["metadata"]["deletionTimestamp"] = "2026-01-02T03:04:05Z".into();
    definition["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    definition["metadata"]["finalizers"] = json!(["foregroundDeletion"]);
    definition["metadata"]["generation"] = 3.into();
    main().begin_deletion(&mut definition);
    assert_eq!(definition["metadata"]["finalizers"], json!([CLEANUP_FINALIZER]));
    assert_eq!(definition["metadata"].get("deletionGracePeriodSeconds"), None);
    assert_eq!(meta::generation(&definition), 2);
    let status = deletion_in_progress(&definition, now());
    assert_eq!(
        conditions(&status),
        ["Terminating=True InstanceDeletionInProgress: CustomResource deletion is in progress"]
    );
    assert!(!main().is_held(&definition));
}

#[test]
fn odd_schemas_give_warnings() {
    let mut definition = widgets(json!({"plural": "widgets", "kind": "Widget"}));
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"] = json!({"type": "object", "properties": {
        "a": {"type": "string", "format": "phone"},
        "b": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "array", "items": {"type": "string"}}}}});
    assert_eq!(
        main().warnings(&World::default().ctx("", ""), &definition, None),
        [
            "unrecognized format \"phone\"",
            "x-kubernetes-list-type: set for items of type \"array\" is not supported by server-side apply or CEL validation rules",
        ]
    );
}
