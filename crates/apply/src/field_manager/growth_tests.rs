//! How the work grows with what clients send, counted in what is compared; and how long refusals become.

use super::FieldManager;
use crate::error::Error;
use crate::fieldpath::Set;
use crate::value::work;
use fleetpass_apimachinery::gvk::GvkRef;
use fleetpass_schema::{ListType, Schema, Type};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::Arc;

fn scalar(kind: Type) -> Schema {
    Schema { kind: Some(kind), ..Schema::default() }
}

fn object(fields: Vec<(&str, Schema)>) -> Schema {
    let properties = fields.into_iter().map(|(n, s)| (n.to_string(), Arc::new(s))).collect();
    Schema { properties, ..scalar(Type::Object) }
}

fn list(list_type: ListType, items: Schema) -> Schema {
    Schema { items: Some(Arc::new(items)), list_type, ..scalar(Type::Array) }
}

fn schema() -> Schema {
    let labels = Schema { additional: Some(Arc::new(scalar(Type::String))), ..scalar(Type::Object) };
    let item = object(vec![("name", scalar(Type::String)), ("labels", labels.clone())]);
    let spec = object(vec![
        ("items", list(ListType::Map(vec!["name".into()]), item)),
        ("tags", list(ListType::Set, scalar(Type::String))),
        ("labels", labels),
    ]);
    object(vec![("metadata", scalar(Type::Object)), ("spec", spec)])
}

/// Calls `act` with the field manager of this name.
fn with<T>(name: &str, act: impl FnOnce(&FieldManager<'_>) -> T) -> T {
    let none = Set::new();
    act(&FieldManager {
        name,
        schema: &schema(),
        kind: GvkRef { group: "", version: "v1", kind: "Thing" },
        subresource: "",
        reset_fields: &none,
        known_versions: &["v1"],
        now: Timestamp::UNIX_EPOCH,
    })
}

fn thing(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Thing", "spec": spec})
}

fn apply(name: &str, live: Option<&Value>, spec: Value, force: bool) -> Result<Value, Error> {
    with(name, |manager| manager.apply(live, &thing(spec), force))
}

fn names(from: usize, n: usize) -> Vec<String> {
    (from..from + n).map(|i| format!("{i:06}")).collect()
}

fn items(from: usize, n: usize) -> Value {
    Value::from_iter(names(from, n).into_iter().map(|name| json!({"name": name})))
}

/// An item whose key is about as long as all of its labels.
fn long_key(n: usize) -> Value {
    let labels: Map<String, Value> = names(0, n).into_iter().map(|name| (name, "x".into())).collect();
    json!({"items": [{"name": "k".repeat(20 * n), "labels": labels}]})
}

#[test]
fn work_grows_as_the_lists_do() {
    type Act<'a> = &'a dyn Fn(usize) -> usize;
    let applied = |live: Value, next: Value| {
        let live = apply("one", None, live, false).unwrap();
        work::of(|| {
            apply("two", Some(&live), next.clone(), true).unwrap();
            apply("one", Some(&live), next, true).unwrap();
        })
    };
    let updated = |old: Value, new: Value| {
        let old = apply("one", None, old, false).unwrap();
        let mut new = thing(new);
        work::of(|| with("two", |manager| manager.update(Some(&old), &mut new)))
    };
    let cases: &[(&str, Act)] = &[
        ("tags applied", &|n| applied(json!({"tags": names(0, n)}), json!({"tags": names(n / 2, n)}))),
        ("tags backwards", &|n| {
            let mut tags = names(0, n);
            tags.reverse();
            applied(json!({"tags": names(0, n)}), json!({"tags": tags}))
        }),
        ("tags updated", &|n| updated(json!({"tags": names(0, n)}), json!({"tags": names(n / 2, n)}))),
        ("items applied", &|n| applied(json!({"items": items(0, n)}), json!({"items": items(n / 2, n)}))),
        ("items updated", &|n| updated(json!({"items": items(0, n)}), json!({"items": items(n / 2, n)}))),
        ("a long key applied", &|n| applied(long_key(n), long_key(n))),
        ("a long key updated", &|n| updated(json!({}), long_key(n))),
        ("many appliers", &|n| {
            let mut live = thing(json!({}));
            live["metadata"]["managedFields"] = Value::from_iter(names(0, n).into_iter().map(|name| {
                json!({"manager": name, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
                       "fieldsV1": {"f:spec": {"f:tags": {(format!("v:\"{name}\"")): {}}}}})
            }));
            work::of(|| {
                apply("000000", Some(&live), json!({"tags": ["new"]}), false).unwrap();
            })
        }),
        ("many updaters", &|n| {
            let mut new = thing(json!({"tags": names(0, n)}));
            new["metadata"]["managedFields"] = Value::from_iter(names(0, n).into_iter().map(|name| {
                json!({"manager": name, "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1",
                       "fieldsV1": {"f:spec": {"f:tags": {(format!("v:\"{name}\"")): {}}}}})
            }));
            let old = thing(json!({}));
            let work = work::of(|| with("me", |manager| manager.update(Some(&old), &mut new)));
            let list = new["metadata"]["managedFields"].as_array().unwrap();
            assert!(list.len() <= 11, "{}", list.len());
            work
        }),
    ];
    for (name, work) in cases {
        let (small, large) = (work(200), work(800));
        assert!(small > 100 && large < 6 * small, "{name}: {small} {large}");
    }
}

#[test]
fn refusals_end_after_a_hundred() {
    let of = |what: &str, n: usize| {
        Value::from_iter(names(0, n).into_iter().map(|name| (name, Value::from(what))).collect::<Map<_, _>>())
    };
    let live = apply("one", None, json!({"labels": of("a", 150), "tags": ["x"]}), false).unwrap();
    let error = apply("two", Some(&live), json!({"labels": of("b", 150)}), false).unwrap_err();
    let text = error.to_string();
    assert!(
        text.starts_with("Apply failed with 150 conflicts: conflicts with \"one\":\n- .spec.labels.000000\n")
    );
    assert!(text.ends_with("\n- .spec.labels.000099\nand 50 more"), "{text}");
    let Error::Conflicts(conflicts) = error else { panic!("conflicts") };
    assert_eq!((conflicts.conflicts.len(), conflicts.more), (100, 50));

    let numbers: Map<String, Value> = names(0, 150).into_iter().map(|name| (name, 1.into())).collect();
    let text = apply("two", None, json!({"labels": numbers}), false).unwrap_err().to_string();
    assert_eq!(text.lines().count(), 102);
    assert!(text.ends_with("\n  and 50 more"), "{text}");
}

/// A hundred errors below a name of a megabyte are not told in a hundred megabytes.
#[test]
fn refusals_are_short_where_paths_are_long() {
    let n = 1000;
    let live = apply("one", None, long_key(n * 10), false).unwrap();
    let mut change = long_key(n * 10);
    for label in change["items"][0]["labels"].as_object_mut().unwrap().values_mut() {
        *label = "y".into();
    }
    let text = apply("two", Some(&live), change.clone(), false).unwrap_err().to_string();
    assert!(text.len() < 300_000 && text.ends_with("and 9999 more"), "{}", text.len());
    for label in change["items"][0]["labels"].as_object_mut().unwrap().values_mut() {
        *label = 1.into();
    }
    let text = apply("two", Some(&live), change, false).unwrap_err().to_string();
    assert!(text.len() < 300_000 && text.ends_with("and 9999 more"), "{}", text.len());
}
