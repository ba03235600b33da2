//! The row of the ManagedServiceAccount definition and the rules of its objects.

use super::*;
use crate::resources::testing::{World, texts};
use serde_json::json;

const MSA: &str = include_str!("../../../api/crds/managedserviceaccounts.json");

fn established(mut definition: Value) -> Value {
    let mut names = definition["spec"]["names"].clone();
    let kind = names["kind"].as_str().unwrap_or_default().to_string();
    let defaults = [("singular", kind.to_lowercase()), ("listKind", format!("{kind}List"))];
    for (field, default) in defaults {
        if names[field].is_null() {
            names[field] = default.into();
        }
    }
    definition["status"] = json!({"acceptedNames": names, "conditions": [
        {"type": "NamesAccepted", "status": "True"}, {"type": "Established", "status": "True"}]});
    definition
}

fn msa() -> Resource {
    let definition = serde_json::from_str(MSA).expect("JSON");
    row(&established(definition)).expect("served").expect("established")
}

fn strategy(resource: &Resource) -> Arc<dyn Strategy> {
    match &resource.backing {
        Backing::Stored(strategy) => Arc::clone(strategy),
        Backing::Virtual(_) => panic!("stored"),
    }
}

fn status_strategy(resource: &Resource) -> Arc<dyn Strategy> {
    match &resource.subresources[0].handler {
        Handler::Update(strategy) => Arc::clone(strategy),
        _ => panic!("an update"),
    }
}

fn context<'a>(world: &'a World, version: &'a str) -> Context<'a> {
    Context { version, ..world.ctx("ns", "robot") }
}

fn account(spec: Value) -> Value {
    json!({"apiVersion": "authentication.open-cluster-management.io/v1beta1", "kind": "ManagedServiceAccount",
        "metadata": {"name": "robot", "namespace": "ns"}, "spec": spec})
}

#[test]
fn the_row_shows_what_the_definition_says() {
    let row = msa();
    let versions: Vec<&str> = row.versions.iter().map(|v| v.name.as_str()).collect();
    assert_eq!(versions, ["v1beta1", "v1alpha1"]);
    assert_eq!(row.storage_version, "v1beta1");
    assert!(row.versions[0].deprecation.is_none());
    assert!(row.versions[1].deprecation.as_deref().is_some_and(|w| w.ends_with("in the next release")));
    assert!(row.subresources[0].is_in("v1alpha1") && row.subresources[0].is_in("v1beta1"));
    let columns: Vec<&str> = row.versions[0].columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(columns, ["Name", "Ready", "Reason", "Expires", "Age"]);
}

const NOT_CHECKED: &str = "<nil>: Invalid value: null: some validation rules were not checked because the object was invalid; \
    correct the existing errors to complete validation";

#[test]
fn decodes_defaults_and_validates_specs() {
    let row = msa();
    let schema = &row.versions[0].schema;
    let world = World::default();
    for (spec, expected) in [
        (json!({"rotation": {}}), Ok(json!({"rotation": {"enabled": true, "validity": "8640h0m0s"}}))),
        (
            json!({"rotation": {"enabled": null}}),
            Ok(json!({"rotation": {"enabled": true, "validity": "8640h0m0s"}})),
        ),
        (json!({}), Err(vec!["spec.rotation: Required value", NOT_CHECKED])),
        (json!({"rotation": null}), Err(vec!["spec.rotation: Required value", NOT_CHECKED])),
        (
            json!({"rotation": {"validity": "1d"}}),
            Err(vec![concat!(
                "spec.rotation.validity: Invalid value: \"1d\": must be a duration as Go writes it: numbers with the units h, m, s, ",
                "ms, us or ns, such as 720h or 1h30m; a day is 24h"
            )]),
        ),
        (
            json!({"rotation": {"validity": "1000000h"}}),
            Err(vec![concat!(
                "spec.rotation.validity: Invalid value: \"1000000h\": must be at least 10m, the shortest lifetime that a cluster ",
                "gives a token, and at most 876000h0m0s, the limit of this hub"
            )]),
        ),
        (
            json!({"rotation": {}, "ttlSecondsAfterCreation": 0}),
            Err(vec![
                "spec.ttlSecondsAfterCreation: Invalid value: 0: spec.ttlSecondsAfterCreation in body should be greater than 0",
            ]),
        ),
        (
            json!([]),
            Err(vec![
                "spec: Invalid value: \"array\": spec in body must be of type object: \"array\"",
                NOT_CHECKED,
            ]),
        ),
    ] {
        let mut object = account(spec);
        custom_resource::decode(&mut object, schema).expect("readable");
        let errors = texts(&strategy(&row).validate(&context(&world, "v1beta1"), &object));
        match expected {
            Ok(spec) => {
                assert_eq!(errors, Vec::<String>::new());
                assert_eq!(object["spec"], spec);
            }
            Err(messages) => assert_eq!(errors, messages),
        }
    }
}

#[test]
fn unknown_fields_come_in_kube_apiservers_order() {
    let mut object = account(json!({"rotation": {"enabled": true, "speed": 9}, "color": "blue"}));
    object["extra"] = "top".into();
    object["metadata"]["nickname"] = "x".into();
    let unknown = custom_resource::decode(&mut object, &msa().versions[0].schema).expect("readable");
    assert_eq!(unknown, ["metadata.nickname", "extra", "spec.color", "spec.rotation.speed"]);
}

#[test]
fn type_errors_come_alone() {
    let row = msa();
    let mut object = account(json!({}));
    object["kind"] = "ManagedServiceAccounts".into();
    let errors = strategy(&row).validate(&context(&World::default(), "v1beta1"), &object);
    assert_eq!(
        texts(&errors),
        ["kind: Invalid value: \"ManagedServiceAccounts\": must be ManagedServiceAccount"]
    );
}

#[test]
fn generation_counts_the_spec_and_status_belongs_to_its_subresource() {
    let row = msa();
    let world = World::default();
    let ctx = context(&world, "v1beta1");
    let mut object = account(json!({"rotation": {"enabled": true, "validity": "1h"}}));
    object["status"] = json!({"expirationTimestamp": 5});
    strategy(&row).prepare_for_create(&ctx, &mut object);
    assert_eq!((meta::generation(&object), object.get("status")), (1, None));

    let old = object.clone();
    let mut labelled = old.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    labelled["status"] = json!({"x": 1});
    strategy(&row).prepare_for_update(&ctx, &mut labelled, &old);
    assert_eq!((meta::generation(&labelled), labelled.get("status")), (1, None));

    let mut changed = old.clone();
    changed["spec"]["rotation"]["validity"] = "2h".into();
    strategy(&row).prepare_for_update(&ctx, &mut changed, &old);
    assert_eq!(meta::generation(&changed), 2);

    let mut reported = account(json!({"rotation": "broken"}));
    reported["metadata"] =
        json!({"name": "robot", "labels": {"x": "y"}, "managedFields": [{"manager": "m"}]});
    reported["status"] = json!({"conditions": [{}]});
    status_strategy(&row).prepare_for_update(&ctx, &mut reported, &old);
    assert_eq!(reported["spec"], old["spec"]);
    assert_eq!(reported["metadata"].get("labels"), None);
    assert_eq!(reported["metadata"]["managedFields"], json!([{"manager": "m"}]));
    let mut errors = texts(&status_strategy(&row).validate_update(&ctx, &reported, &old));
    // What is wrong with the made-up metadata is another test's.
    errors.retain(|error| error.starts_with("status"));
    assert_eq!(errors.len(), 5);
    assert_eq!(errors[0], "status.conditions[0].lastTransitionTime: Required value");
}

#[test]
fn several_versions_share_objects_through_the_stored_schema() {
    let version = |name: &str, storage: bool, fields: Value| {
        json!({"name": name, "served": true, "storage": storage, "schema": {"openAPIV3Schema": {"type": "object",
            "properties": {"spec": {"type": "object", "properties": fields}}}}})
    };
    let definition = established(json!({"spec": {"group": "example.com", "scope": "Namespaced",
    "names": {"plural": "widgets", "kind": "Widget"}, "versions": [
        version("v1", true, json!({"a": {"type": "string", "default": "stored"}, "both": {"type": "string"}})),
        version("v2", false, json!({"b": {"type": "string"}, "both": {"type": "string"}})),
    ]}}));
    let row = row(&definition).expect("served").expect("established");
    let mut object = json!({"apiVersion": "example.com/v2", "kind": "Widget", "metadata": {"name": "w"},
        "spec": {"b": "lost", "both": "kept"}});
    strategy(&row).canonicalize(&mut object);
    assert_eq!(object["spec"], json!({"a": "stored", "both": "kept"}));
}

#[test]
fn columns_and_selectable_fields_read_the_object() {
    let definition = established(json!({"spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "widgets", "kind": "Widget"}, "versions": [
        {"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {"type": "object"}},
         "selectableFields": [{"jsonPath": ".spec.color"}, {"jsonPath": ".spec.on"}],
         "additionalPrinterColumns": [
            {"name": "Color", "type": "string", "jsonPath": ".spec.color"},
            {"name": "Size", "type": "integer", "jsonPath": ".spec.size"},
            {"name": "List", "type": "string", "jsonPath": ".spec.list", "priority": 1},
            {"name": "Wrong", "type": "integer", "jsonPath": ".spec.color"},
            {"name": "When", "type": "date", "jsonPath": ".spec.when"},
            {"name": "Gone", "type": "string", "jsonPath": ".spec.nothing.here"}]},
        {"name": "v2", "served": true, "storage": false, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}));
    let row = row(&definition).expect("served").expect("established");
    let strategy = strategy(&row);
    let object = json!({"apiVersion": "example.com/v1", "metadata": {"name": "a"}, "spec": {"color": "red", "size": 1,
        "on": false, "list": ["x", "y"], "when": "2026-01-02T03:00:00Z"}});
    let now = World::default().ctx("", "").now;
    assert_eq!(
        strategy.cells(&object, now),
        json!(["a", "red", 1, "[\"x\",\"y\"]", null, "4m5s", null]).as_array().cloned().unwrap_or_default()
    );
    assert_eq!(strategy.selectable_field(&object, "spec.on"), "false");
    assert!(strategy.is_selectable("v1", "spec.color") && !strategy.is_selectable("v2", "spec.color"));
}

#[test]
fn versions_are_ordered_by_stability() {
    let mut names =
        vec!["foo10", "v11alpha2", "v1", "v3beta1", "v10", "v11beta2", "v10beta3", "v2", "foo1", "v12alpha1"];
    names.sort_by(|a, b| compare_versions(b, a));
    assert_eq!(
        names,
        ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"]
    );
}

#[test]
fn a_terminating_definition_lets_nothing_in() {
    let mut definition: Value = established(serde_json::from_str(MSA).expect("JSON"));
    definition["status"]["conditions"]
        .as_array_mut()
        .expect("a list")
        .push(json!({"type": "Terminating", "status": "True"}));
    let row = row(&definition).expect("served").expect("established");
    let mut object = account(json!({"rotation": {}}));
    let world = World::default();
    let refusal = strategy(&row).admit(&context(&world, "v1beta1"), &mut object, None).unwrap_err();
    assert_eq!(refusal.code, 403);
    assert!(refusal.message.ends_with("create not allowed while custom resource definition is terminating"));
}

#[test]
fn unqualified_finalizers_give_a_warning() {
    assert_eq!(finalizer_warnings("example.com/hold"), Vec::<String>::new());
    assert_eq!(
        finalizer_warnings("hold"),
        [
            "metadata.finalizers: \"hold\": prefer a domain-qualified finalizer name to avoid accidental conflicts with other finalizer writers"
        ]
    );
}

#[test]
fn a_validity_from_before_the_rules_stays_until_it_is_changed() {
    let row = msa();
    let world = World::default();
    let ctx = context(&world, "v1beta1");
    let mut old = account(json!({"rotation": {"enabled": true, "validity": "1d"}}));
    old["metadata"]["resourceVersion"] = "1".into();
    let mut new = old.clone();
    new["metadata"]["labels"] = json!({"a": "b"});
    new["spec"]["rotation"]["enabled"] = false.into();
    new["status"] = json!({"conditions": []});
    assert_eq!(texts(&strategy(&row).validate_update(&ctx, &new, &old)), Vec::<String>::new());
    assert_eq!(texts(&status_strategy(&row).validate_update(&ctx, &new, &old)), Vec::<String>::new());
    for other in ["2d", "5m", "1000000h"] {
        new["spec"]["rotation"]["validity"] = other.into();
        let errors = texts(&strategy(&row).validate_update(&ctx, &new, &old));
        assert!(errors.len() == 1 && errors[0].starts_with("spec.rotation.validity: "), "{errors:?}");
    }
    new["spec"]["rotation"]["validity"] = "24h".into();
    assert_eq!(texts(&strategy(&row).validate_update(&ctx, &new, &old)), Vec::<String>::new());
}

/// Definitions with objects, and what a real kube-apiserver did with them (`testdata/objects.json`).
#[test]
fn objects_fare_as_recorded() {
    let groups: Vec<Value> = serde_json::from_str(include_str!("../../testdata/objects.json")).expect("JSON");
    let world = World::default();
    for group in groups {
        let row = row(&established(group["definition"].clone())).expect("served").expect("established");
        for case in group["cases"].as_array().expect("cases") {
            let mut object = case["body"].clone();
            let decoded = custom_resource::decode(&mut object, &row.versions[0].schema);
            if let Some(refused) = case["refused"].as_str() {
                let why = decoded.expect_err("refused");
                let why = fleetpass_schema::go::Words(&why);
                assert_eq!(format!("Widget in version \"v1\" cannot be handled as a Widget: {why}"), refused);
                continue;
            }
            let unknown: Vec<&str> =
                case["unknown"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            let mut decoded = decoded.expect("readable");
            decoded.sort();
            assert_eq!(decoded, unknown, "{}", case["body"]);
            let ctx = context(&world, "v1");
            strategy(&row).prepare_for_create(&ctx, &mut object);
            // As the registry does: it is one of the rules of metadata.
            object["metadata"]["namespace"] = "ns".into();
            let errors = texts(&strategy(&row).validate(&ctx, &object));
            let expected: Vec<&str> =
                case["errors"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
            assert_eq!(errors, expected, "{}", case["body"]);
            if case["errors"].is_null() {
                assert_eq!(object["spec"], case["spec"], "{}", case["body"]);
            }
        }
    }
}
