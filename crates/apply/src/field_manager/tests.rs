//! Server-side apply against what a real kube-apiserver answered.

use super::FieldManager;
use crate::error::{Conflicts, Error};
use crate::fieldpath::Set;
use crate::managed_fields::keep_times;
use crate::typed::{TypeRef, compare, written};
use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef};
use fleetpass_apimachinery::time::rfc3339;
use fleetpass_schema::{ListType, Schema, Type};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::Arc;

fn scalar(kind: Type) -> Schema {
    Schema { kind: Some(kind), ..Schema::default() }
}

fn text() -> Schema {
    scalar(Type::String)
}

fn object(fields: Vec<(&str, Schema)>) -> Schema {
    let properties = fields.into_iter().map(|(n, s)| (n.to_string(), Arc::new(s))).collect();
    Schema { properties, ..scalar(Type::Object) }
}

fn list(list_type: ListType, items: Schema) -> Schema {
    Schema { items: Some(Arc::new(items)), list_type, ..scalar(Type::Array) }
}

fn map_of(items: Schema) -> Schema {
    Schema { additional: Some(Arc::new(items)), ..scalar(Type::Object) }
}

fn account() -> Schema {
    let rotation = object(vec![("enabled", scalar(Type::Boolean)), ("validity", text())]);
    let condition = object(vec![("type", text())]);
    object(vec![
        ("metadata", scalar(Type::Object)),
        ("spec", object(vec![("rotation", rotation), ("ttlSecondsAfterCreation", scalar(Type::Integer))])),
        (
            "status",
            object(vec![("conditions", list(ListType::Atomic, condition)), ("expirationTimestamp", text())]),
        ),
    ])
}

fn widget() -> Schema {
    let port = object(vec![
        ("name", text()),
        ("port", scalar(Type::Integer)),
        ("proto", Schema { default: Some("TCP".into()), ..text() }),
    ]);
    let spec = object(vec![
        ("ports", list(ListType::Map(vec!["port".into(), "proto".into()]), port)),
        ("tags", list(ListType::Set, text())),
        ("atoms", list(ListType::Atomic, text())),
        ("amap", Schema { atomic: true, ..map_of(text()) }),
        ("gmap", map_of(text())),
        ("ios", Schema { int_or_string: true, ..Schema::default() }),
        ("open", Schema { preserve_unknown_fields: true, ..scalar(Type::Object) }),
    ]);
    object(vec![("metadata", scalar(Type::Object)), ("spec", spec)])
}

fn service_account() -> Schema {
    let reference = || Schema { atomic: true, ..object(vec![("name", text())]) };
    Schema {
        go_type: Some("v1.ServiceAccount".into()),
        ..object(vec![
            ("apiVersion", text()),
            ("kind", text()),
            ("metadata", Schema { default: Some(json!({})), ..scalar(Type::Object) }),
            ("secrets", list(ListType::Map(vec!["name".into()]), reference())),
            ("imagePullSecrets", list(ListType::Atomic, reference())),
            ("automountServiceAccountToken", scalar(Type::Boolean)),
        ])
    }
}

/// An object on a server whose clock ticks a second with every write.
struct World {
    schema: Schema,
    version: &'static str,
    kind: &'static str,
    reset: Set,
    subresource: &'static str,
    now: i64,
    live: Option<Value>,
    default: fn(&mut Value),
}

impl World {
    fn new(schema: Schema, kind: &'static str) -> Self {
        let reset = Set::new();
        Self { schema, version: "v1", kind, reset, subresource: "", now: 0, live: None, default: |_| {} }
    }

    fn accounts() -> Self {
        let default = |object: &mut Value| {
            if object["spec"].get("rotation").is_none_or(Value::is_null) {
                object["spec"]["rotation"] = json!({});
            }
            let rotation = object["spec"]["rotation"].as_object_mut().unwrap();
            rotation.entry("enabled").or_insert(true.into());
            rotation.entry("validity").or_insert("8640h0m0s".into());
        };
        Self { reset: Set::of(&["status"]), default, ..Self::new(account(), "Account") }
    }

    fn manager<'a>(&'a self, name: &'a str) -> FieldManager<'a> {
        FieldManager {
            name,
            schema: &self.schema,
            kind: GvkRef { group: "example.com", version: self.version, kind: self.kind },
            subresource: self.subresource,
            reset_fields: &self.reset,
            known_versions: &["example.com/v1", "example.com/v2"],
            now: Timestamp::from_second(self.now).unwrap(),
        }
    }

    fn store(&mut self, mut new: Value) {
        (self.default)(&mut new);
        new["metadata"]["uid"] = "u".into();
        if let Some(live) = &self.live {
            keep_times(&mut new, live);
        }
        self.live = Some(new);
    }

    fn apply(&mut self, manager: &str, force: bool, mut body: Value) -> Result<(), Error> {
        self.now += 1;
        body["apiVersion"] = format!("example.com/{}", self.version).into();
        body["kind"] = self.kind.into();
        body["metadata"]["name"] = "x".into();
        let new = self.manager(manager).apply(self.live.as_ref(), &body, force)?;
        self.store(new);
        Ok(())
    }

    fn update(&mut self, manager: &str, change: impl FnOnce(&mut Value)) {
        self.now += 1;
        let empty = json!({"apiVersion": format!("example.com/{}", self.version), "kind": self.kind, "metadata": {"name": "x"}});
        let mut new = self.live.clone().unwrap_or(empty);
        change(&mut new);
        self.manager(manager).update(self.live.as_ref(), &mut new);
        self.store(new);
    }

    fn spec(&self) -> &Value {
        &self.live.as_ref().unwrap()["spec"]
    }

    /// `manager operation[/subresource] [@time]` and fields of each entry.
    fn owners(&self) -> Vec<(String, Value)> {
        let list = self.live.as_ref().unwrap()["metadata"].get("managedFields");
        let entries = list.and_then(Value::as_array).cloned().unwrap_or_default();
        entries
            .iter()
            .map(|entry| {
                assert_eq!(entry["fieldsType"], "FieldsV1");
                let mut name = format!(
                    "{} {}",
                    entry["manager"].as_str().unwrap(),
                    entry["operation"].as_str().unwrap()
                );
                if let Some(subresource) = entry.get("subresource") {
                    name.push_str(&format!("/{}", subresource.as_str().unwrap()));
                }
                if let Some(time) = entry.get("time") {
                    let time: Timestamp = time.as_str().unwrap().parse().unwrap();
                    name.push_str(&format!(" @{}", time.as_second()));
                }
                (name, entry["fieldsV1"].clone())
            })
            .collect()
    }

    #[track_caller]
    fn assert_owners(&self, want: &[(&str, Value)]) {
        let got = self.owners();
        let got: Vec<_> = got.iter().map(|(name, fields)| (name.as_str(), fields.clone())).collect();
        assert_eq!(got, want);
    }
}

#[track_caller]
fn assert_conflict(result: Result<(), Error>, message: &str) {
    let Err(Error::Conflicts(conflicts)) = result else { panic!("no conflict: {result:?}") };
    assert_eq!(conflicts.to_string(), message);
}

#[test]
fn ownership_conflicts_force_and_removal() {
    let mut w = World::accounts();
    let first = || json!({"metadata": {"labels": {"app": "x"}}, "spec": {"rotation": {"validity": "10h"}}});
    let alpha =
        json!({"f:metadata": {"f:labels": {"f:app": {}}}, "f:spec": {"f:rotation": {"f:validity": {}}}});
    let validity = json!({"f:spec": {"f:rotation": {"f:validity": {}}}});
    w.apply("alpha", false, first()).unwrap();
    w.assert_owners(&[("alpha Apply @1", alpha.clone())]);
    w.apply("alpha", false, first()).unwrap();
    w.assert_owners(&[("alpha Apply @1", alpha.clone())]);

    let take = || json!({"spec": {"rotation": {"validity": "20h"}}});
    assert_conflict(
        w.apply("beta", false, take()),
        "Apply failed with 1 conflict: conflict with \"alpha\": .spec.rotation.validity",
    );
    // To own what has the same value conflicts with nobody, changes nothing, and has no time.
    w.apply("beta", false, json!({"spec": {"rotation": {"validity": "10h"}}})).unwrap();
    w.assert_owners(&[("beta Apply", validity.clone()), ("alpha Apply @1", alpha)]);
    w.apply("beta", true, take()).unwrap();
    w.assert_owners(&[
        ("alpha Apply @1", json!({"f:metadata": {"f:labels": {"f:app": {}}}})),
        ("beta Apply @5", validity),
    ]);
    // What a manager no longer applies goes, if nobody else owns it.
    w.apply("alpha", false, json!({"spec": {"rotation": {"enabled": false}}})).unwrap();
    assert_eq!(w.spec(), &json!({"rotation": {"enabled": false, "validity": "20h"}}));
    assert_eq!(w.live.as_ref().unwrap()["metadata"].get("labels"), None);
    w.apply("beta", false, json!({"spec": {"rotation": {}}})).unwrap();
    assert_eq!(w.spec(), &json!({"rotation": {"enabled": false, "validity": "8640h0m0s"}}));
    w.apply("alpha", false, json!({})).unwrap();
    assert_eq!(w.spec(), &json!({"rotation": {"enabled": true, "validity": "8640h0m0s"}}));
    w.apply("fresh", false, json!({"spec": {}})).unwrap();
    assert_eq!(w.spec(), &json!({"rotation": {"enabled": true, "validity": "8640h0m0s"}}));
}

#[test]
fn appliers_and_updaters_share_an_object() {
    let mut w = World::accounts();
    w.apply(
        "alpha",
        false,
        json!({"metadata": {"labels": {"a": "1", "b": "2"}}, "spec": {"rotation": {"validity": "1h"}}}),
    )
    .unwrap();
    w.update("gamma", |o| {
        o["spec"]["ttlSecondsAfterCreation"] = 500.into();
        o["metadata"]["labels"]["c"] = "3".into();
    });
    let gamma = json!({"f:metadata": {"f:labels": {"f:c": {}}}, "f:spec": {"f:ttlSecondsAfterCreation": {}}});
    w.apply("alpha", false, json!({"metadata": {"labels": {"b": "2"}}, "spec": {"rotation": {}}})).unwrap();
    w.assert_owners(&[
        ("alpha Apply @3", json!({"f:metadata": {"f:labels": {"f:b": {}}}, "f:spec": {"f:rotation": {}}})),
        ("gamma Update @2", gamma.clone()),
    ]);
    assert_conflict(
        w.apply("alpha", false, json!({"spec": {"rotation": {}, "ttlSecondsAfterCreation": 501}})),
        "Apply failed with 1 conflict: conflict with \"gamma\" using example.com/v1: .spec.ttlSecondsAfterCreation",
    );
    assert_conflict(
        w.apply(
            "alpha",
            false,
            json!({"metadata": {"labels": {"c": "4"}}, "spec": {"rotation": {}, "ttlSecondsAfterCreation": 501}}),
        ),
        "Apply failed with 2 conflicts: conflicts with \"gamma\" using example.com/v1:\n- .metadata.labels.c\n\
         - .spec.ttlSecondsAfterCreation",
    );
    w.apply("alpha", true, json!({"spec": {"rotation": {}, "ttlSecondsAfterCreation": 501}})).unwrap();
    let labels = json!({"f:metadata": {"f:labels": {"f:c": {}}}});
    w.assert_owners(&[
        ("alpha Apply @6", json!({"f:spec": {"f:rotation": {}, "f:ttlSecondsAfterCreation": {}}})),
        ("gamma Update @2", labels.clone()),
    ]);
    // An applier stays itself in another version.
    w.version = "v2";
    w.live.as_mut().unwrap()["apiVersion"] = "example.com/v2".into();
    w.apply("alpha", false, json!({"spec": {"rotation": {"validity": "30h"}}})).unwrap();
    assert_eq!(w.spec(), &json!({"rotation": {"enabled": true, "validity": "30h"}}));
    w.assert_owners(&[
        ("alpha Apply @7", json!({"f:spec": {"f:rotation": {"f:validity": {}}}})),
        ("gamma Update @2", labels),
    ]);
}

#[test]
fn owners_can_be_forgotten() {
    let mut w = World::accounts();
    w.apply("alpha", false, json!({"spec": {"rotation": {"validity": "12h"}}})).unwrap();
    w.update("oracle", |o| o["metadata"]["managedFields"] = json!([{}]));
    w.assert_owners(&[]);
    assert_conflict(
        w.apply("late", false, json!({"spec": {"rotation": {"validity": "7h"}}})),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" using example.com/v1: \
         .spec.rotation.validity",
    );
    w.update("putter", |o| o["spec"]["rotation"]["validity"] = "2h".into());
    w.assert_owners(&[]);
    w.subresource = "status";
    w.reset = Set::of(&["spec", "metadata"]);
    w.live.as_mut().unwrap()["status"] = json!({"conditions": [], "expirationTimestamp": "a"});
    assert_conflict(
        w.apply("agent", false, json!({"status": {"expirationTimestamp": "b"}})),
        "Apply failed with 1 conflict: conflict with \"before-first-apply\" with subresource \"status\" using \
         example.com/v1: .status.expirationTimestamp",
    );
    w.apply("agent", true, json!({"status": {"expirationTimestamp": "b"}})).unwrap();
    w.assert_owners(&[
        ("agent Apply/status @6", json!({"f:status": {"f:expirationTimestamp": {}}})),
        ("before-first-apply Update/status @6", json!({"f:status": {".": {}, "f:conditions": {}}})),
    ]);
}

#[test]
fn updates_are_tracked_from_creation_on() {
    let mut w = World::accounts();
    w.update("oracle", |o| o["spec"] = json!({"rotation": {"enabled": true, "validity": "1h"}}));
    let spec = json!({"f:spec": {".": {}, "f:rotation": {".": {}, "f:enabled": {}, "f:validity": {}}}});
    w.assert_owners(&[("oracle Update @1", spec.clone())]);
    // Labels sent with a status are reset, so nobody comes to own them; nor is a bad list of owners believed.
    w.subresource = "status";
    w.reset = Set::of(&["spec", "metadata"]);
    w.update("oracle", |o| {
        o["metadata"]["labels"] = json!({"a": "b"});
        o["metadata"]["managedFields"] = json!([{"manager": "liar"}]);
        o["status"] = json!({"conditions": [{"type": "A"}], "expirationTimestamp": "t"});
    });
    let status = json!({"f:status": {".": {}, "f:conditions": {}, "f:expirationTimestamp": {}}});
    w.assert_owners(&[("oracle Update @1", spec), ("oracle Update/status @2", status)]);
    // Only a time would change: then nothing does.
    let before = w.live.clone();
    w.update("oracle", |_| {});
    assert_eq!(w.live, before);
}

#[test]
fn updates_take_fields_over() {
    let mut w = World::accounts();
    w.update("a", |o| {
        o["metadata"]["labels"] = json!({"tier": "x", "n": "1"});
        o["spec"] = json!({"rotation": {"validity": "1h"}});
    });
    w.version = "v2";
    w.update("b", |o| {
        o["metadata"]["labels"]["n"] = "2".into();
        o["spec"]["rotation"]["validity"] = "3h".into();
    });
    w.version = "v1";
    w.update("c", |o| o["metadata"]["labels"]["tier"] = "y".into());
    w.assert_owners(&[
        ("a Update @1", json!({"f:metadata": {"f:labels": {}}, "f:spec": {".": {}, "f:rotation": {}}})),
        (
            "b Update @2",
            json!({"f:metadata": {"f:labels": {"f:n": {}}}, "f:spec": {"f:rotation": {"f:validity": {}}}}),
        ),
        ("c Update @3", json!({"f:metadata": {"f:labels": {"f:tier": {}}}})),
    ]);
}

#[test]
fn lists_sets_and_maps_of_custom_resources() {
    let mut w = World::new(widget(), "Widget");
    w.default = |object| {
        for port in object["spec"]["ports"].as_array_mut().into_iter().flatten() {
            port.as_object_mut().unwrap().entry("proto").or_insert("TCP".into());
        }
    };
    w.apply(
        "aa",
        false,
        json!({"spec": {"ports": [{"name": "web", "port": 80}], "tags": ["a"], "atoms": ["x"], "gmap": {"a": "1"},
            "amap": {"a": "1"}}}),
    )
    .unwrap();
    let aa = json!({"f:spec": {"f:amap": {}, "f:atoms": {}, "f:gmap": {"f:a": {}},
        "f:ports": {"k:{\"port\":80,\"proto\":\"TCP\"}": {".": {}, "f:name": {}, "f:port": {}}},
        "f:tags": {"v:\"a\"": {}}}});
    w.assert_owners(&[("aa Apply @1", aa.clone())]);
    w.apply(
        "bb",
        false,
        json!({"spec": {"ports": [{"name": "dns", "port": 53, "proto": "UDP"}], "tags": ["b", "a"], "gmap": {"b": "2"}}}),
    )
    .unwrap();
    w.assert_owners(&[
        ("aa Apply @1", aa),
        (
            "bb Apply @2",
            json!({"f:spec": {"f:gmap": {"f:b": {}},
                "f:ports": {"k:{\"port\":53,\"proto\":\"UDP\"}": {".": {}, "f:name": {}, "f:port": {}, "f:proto": {}}},
                "f:tags": {"v:\"a\"": {}, "v:\"b\"": {}}}}),
        ),
    ]);
    assert_eq!(w.spec()["tags"], json!(["b", "a"]));
    for (body, path) in [
        (
            json!({"ports": [{"name": "web2", "port": 80, "proto": "TCP"}]}),
            ".spec.ports[port=80,proto=\"TCP\"].name",
        ),
        (json!({"atoms": ["y"]}), ".spec.atoms"),
        (json!({"amap": {"b": "2"}}), ".spec.amap"),
    ] {
        assert_conflict(
            w.apply("bb", false, json!({"spec": body})),
            &format!("Apply failed with 1 conflict: conflict with \"aa\": {path}"),
        );
    }
    w.apply(
        "bb",
        false,
        json!({"spec": {"ports": [{"name": "dns", "port": 53, "proto": "UDP"}], "tags": ["c"]}}),
    )
    .unwrap();
    assert_eq!(
        w.spec(),
        &json!({"amap": {"a": "1"}, "atoms": ["x"], "gmap": {"a": "1"}, "tags": ["a", "c"],
            "ports": [{"name": "web", "port": 80, "proto": "TCP"}, {"name": "dns", "port": 53, "proto": "UDP"}]})
    );
    // A key may be left to its default; the missing one is found by validation.
    w.apply("ee", false, json!({"spec": {"ports": [{"name": "x"}]}})).unwrap();
    w.apply("ee", false, json!({})).unwrap();
    w.apply("cc", false, json!({"spec": {"open": {"free": {"x": 1}}, "ios": "a"}})).unwrap();
    assert_conflict(
        w.apply("dd", false, json!({"spec": {"ios": 1}})),
        "Apply failed with 1 conflict: conflict with \"cc\": .spec.ios",
    );
}

#[test]
fn lists_of_built_in_kinds() {
    let mut w = World::new(service_account(), "ServiceAccount");
    let names = |w: &World| {
        let list = w.live.as_ref().unwrap()["secrets"].as_array().cloned().unwrap_or_default();
        list.iter().map(|s| s["name"].as_str().unwrap().to_string()).collect::<Vec<_>>().join(" ")
    };
    let secrets = |names: &str| json!({"secrets": names.split(' ').map(|name| json!({"name": name})).collect::<Vec<_>>()});
    let owns = |names: &[&str]| {
        let keys = names.iter().map(|n| (format!("k:{{\"name\":\"{n}\"}}"), json!({})));
        json!({"f:secrets": Value::Object(keys.collect())})
    };
    w.apply("m1", false, secrets("s1")).unwrap();
    w.apply("m2", false, secrets("s2")).unwrap();
    w.assert_owners(&[("m1 Apply @1", owns(&["s1"])), ("m2 Apply @2", owns(&["s2"]))]);
    assert_eq!(names(&w), "s1 s2");
    w.apply("m2", false, secrets("s3 s2")).unwrap();
    w.assert_owners(&[("m1 Apply @1", owns(&["s1"])), ("m2 Apply @3", owns(&["s2", "s3"]))]);
    assert_eq!(names(&w), "s1 s3 s2");
    w.apply("m3", false, secrets("s1 s2")).unwrap();
    assert_eq!(names(&w), "s1 s3 s2");
    w.apply("m2", false, json!({})).unwrap();
    assert_eq!(names(&w), "s1 s2");
    w.apply("m1", false, json!({})).unwrap();
    assert_eq!(names(&w), "s1 s2");
    w.apply("m3", false, json!({})).unwrap();
    assert_eq!(names(&w), "");
    w.assert_owners(&[]);
}

#[test]
fn what_go_prints_is_there_before_it_is_set() {
    let reference = object(vec![("kind", text()), ("name", text())]);
    let spec = Schema {
        required: vec!["audiences".into(), "boundObjectRef".into(), "group".into()],
        default: Some(json!({})),
        ..object(vec![
            ("audiences", list(ListType::Atomic, text())),
            ("boundObjectRef", reference),
            ("expirationSeconds", scalar(Type::Integer)),
            ("group", text()),
            ("conversion", object(vec![("strategy", text())])),
        ])
    };
    let schema = Schema { go_type: Some("v1.TokenRequest".into()), ..object(vec![("spec", spec)]) };
    let mut w = World::new(schema, "TokenRequest");
    w.subresource = "token";
    w.update("tester", |o| {
        o["spec"] = json!({"audiences": ["a"], "boundObjectRef": {"kind": "Pod"}, "conversion": {"strategy": "None"},
            "group": "g"});
    });
    w.assert_owners(&[(
        "tester Update/token @1",
        json!({"f:spec": {"f:audiences": {}, "f:boundObjectRef": {"f:kind": {}},
            "f:conversion": {".": {}, "f:strategy": {}}, "f:group": {}}}),
    )]);
}

#[test]
fn refusals() {
    let refuse = |w: &World, body: Value| w.manager("m").apply(None, &body, false).unwrap_err();
    let w = World::new(widget(), "Widget");
    let body = |spec: Value| json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "a", "namespace": "n"}, "spec": spec});
    let typed =
        |e: &str| format!("failed to create typed patch object (n/a; example.com/v1, Kind=Widget): {e}");
    for (spec, message) in [
        (json!({"unknown": 1}), ".spec.unknown: field not declared in schema"),
        (json!({"atoms": [5]}), ".spec.atoms[0]: expected string, got &value.valueUnstructured{Value:5}"),
        (
            json!({"ports": [{"port": "x"}]}),
            ".spec.ports[port=\"x\",proto=\"TCP\"].port: expected numeric (int or float), got string",
        ),
        (json!({"tags": ["c", "c"]}), ".spec.tags: duplicate entries for key [=\"c\"]"),
        (json!({"tags": "c"}), ".spec.tags: expected list, got &{c}"),
        (json!({"gmap": ["c"]}), ".spec.gmap: expected map, got &{[c]}"),
        (
            json!({"atoms": [true], "gmap": {"a": {"b": 1}}}),
            "errors:\n  .spec.atoms[0]: expected string, got &value.valueUnstructured{Value:true}\n  .spec.gmap.a: \
             expected string, got &value.valueUnstructured{Value:map[string]interface {}{\"b\":1}}",
        ),
    ] {
        let error = refuse(&w, body(spec));
        assert!(matches!(error, Error::DoesNotFit(_)), "{error:?}");
        assert_eq!(error.to_string(), typed(message));
    }
    let mut keyless = World::new(service_account(), "ServiceAccount");
    let error = keyless.apply("m", false, json!({"secrets": [{}]})).unwrap_err();
    assert!(matches!(error, Error::DoesNotFit(_)), "{error:?}");
    assert_eq!(
        error.to_string(),
        "failed to create typed patch object (/x; example.com/v1, Kind=ServiceAccount): .secrets: element 0: \
         associative list with keys has an element that omits all key fields [\"name\"] (and doesn't have default \
         values for any key fields)"
    );
    let account = World::accounts();
    let wrong =
        json!({"apiVersion": "example.com/v1", "kind": "Account", "spec": {"rotation": {"enabled": "yes"}}});
    assert!(
        refuse(&account, wrong).to_string().ends_with(".spec.rotation.enabled: expected boolean, got &{yes}")
    );
    for (body, group, version, kind) in [
        (Value::Null, "", "", ""),
        (json!({"apiVersion": "v1", "kind": "Widget"}), "", "v1", "Widget"),
        (json!({"apiVersion": "example.com/v2", "kind": "Widget"}), "example.com", "v2", "Widget"),
        (json!({"apiVersion": "a/b/c", "kind": "Widget"}), "", "", ""),
    ] {
        let error = refuse(&w, body);
        assert_eq!(error.to_string(), format!("invalid object type: {group}/{version}, Kind={kind}"));
        let kind = GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() };
        assert_eq!(error, Error::WrongKind(kind));
    }
    let error = refuse(&w, json!("just text"));
    assert!(matches!(error, Error::NotAPatch { .. }), "{error:?}");
    assert_eq!(
        error.to_string(),
        "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal string into Go value of \
         type map[string]interface {}"
    );
    let owned = json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"managedFields": []}});
    let error = refuse(&w, owned);
    assert_eq!(error, Error::ManagedFieldsGiven);
    assert_eq!(error.to_string(), "metadata.managedFields must be nil");
}

#[test]
fn conflicts_are_data() {
    let mut w = World::accounts();
    w.apply("alpha", false, json!({"spec": {"rotation": {"validity": "1h"}}})).unwrap();
    w.subresource = "status";
    w.reset = Set::of(&["spec", "metadata"]);
    w.update("gamma", |o| o["status"] = json!({"expirationTimestamp": "a"}));
    w.subresource = "";
    w.reset = Set::new();
    let change = json!({"spec": {"rotation": {"validity": "2h"}}, "status": {"expirationTimestamp": "b"}});
    let Err(Error::Conflicts(Conflicts { conflicts, more: 0 })) = w.apply("beta", false, change) else {
        panic!("no conflict")
    };
    let found: Vec<_> = conflicts
        .iter()
        .map(|c| (c.owner.manager.as_str(), c.owner.subresource.as_str(), c.path.to_string()))
        .collect();
    assert_eq!(
        found,
        [
            ("alpha", "", ".spec.rotation.validity".to_string()),
            ("gamma", "status", ".status.expirationTimestamp".to_string())
        ]
    );
}

#[test]
fn errors_do_not_print_values_when_they_are_debugged() {
    let w = World::new(widget(), "Widget");
    let body = json!({"apiVersion": "example.com/v1", "kind": "Widget", "spec": {"atoms": [["hush"]]}});
    let error = w.manager("m").apply(None, &body, false).unwrap_err();
    assert!(error.to_string().contains("hush"));
    assert!(!format!("{error:?}").contains("hush"), "{error:?}");
}

#[test]
fn kubectl_may_take_what_it_applied_on_the_client() {
    let record = "kubectl.kubernetes.io/last-applied-configuration";
    let mut w = World::accounts();
    let applied = json!({"apiVersion": "example.com/v1", "kind": "Account", "metadata": {"name": "x"},
        "spec": {"rotation": {"validity": "1h"}}});
    w.update("kubectl-client-side-apply", |o| {
        o["spec"] = applied["spec"].clone();
        o["metadata"]["annotations"] = json!({record: applied.to_string()});
    });
    let change = || json!({"spec": {"rotation": {"validity": "2h"}}});
    w.apply("other", false, change()).unwrap_err();
    w.apply("kubectl", false, change()).unwrap();
    assert_eq!(w.spec()["rotation"]["validity"], "2h");
    let renewed = w.live.as_ref().unwrap()["metadata"]["annotations"][record].as_str().unwrap();
    assert!(renewed.ends_with('\n') && renewed.contains("\"2h\""), "{renewed}");
    // Somebody else changed it since: the record does not count.
    w.update("edit", |o| o["spec"]["rotation"]["validity"] = "3h".into());
    w.apply("kubectl", false, json!({"spec": {"rotation": {"validity": "4h"}}})).unwrap_err();
}

#[test]
fn a_list_that_became_atomic_is_owned_as_a_whole() {
    let mut w = World::new(widget(), "Widget");
    w.apply("aa", false, json!({"spec": {"tags": ["a", "b"]}})).unwrap();
    let spec = object(vec![("tags", list(ListType::Atomic, text()))]);
    w.schema = object(vec![("metadata", scalar(Type::Object)), ("spec", spec)]);
    assert_conflict(
        w.apply("bb", false, json!({"spec": {"tags": ["c"]}})),
        "Apply failed with 1 conflict: conflict with \"aa\": .spec.tags",
    );
}

#[test]
fn entries_of_unknown_versions_are_dropped() {
    let mut w = World::accounts();
    w.apply("alpha", false, json!({"spec": {"rotation": {"validity": "12h"}}})).unwrap();
    w.live.as_mut().unwrap()["metadata"]["managedFields"][0]["apiVersion"] = "example.com/v0".into();
    w.apply("beta", false, json!({"spec": {"rotation": {"validity": "13h"}}})).unwrap();
    w.assert_owners(&[("beta Apply @2", json!({"f:spec": {"f:rotation": {"f:validity": {}}}}))]);
    assert_eq!(
        w.live.as_ref().unwrap()["metadata"]["managedFields"][0]["time"],
        rfc3339(Timestamp::from_second(2).unwrap())
    );
}

fn body() -> impl Strategy<Value = Value> {
    let ports = prop::collection::btree_map(0..4i64, "[a-b]", 0..3).prop_map(|ports| {
        ports.into_iter().map(|(port, name)| json!({"port": port, "name": name})).collect::<Vec<_>>()
    });
    let tags = prop::collection::btree_set("[a-d]", 0..3).prop_shuffle_into();
    let gmap = prop::collection::btree_map("[a-d]", "[x-y]", 0..3);
    let atoms = prop::option::of(prop::collection::vec("[a-b]", 0..2));
    (ports, tags, gmap, atoms).prop_map(|(ports, tags, gmap, atoms)| {
        let mut spec = json!({});
        if !ports.is_empty() {
            spec["ports"] = ports.into();
        }
        if !tags.is_empty() {
            spec["tags"] = json!(tags);
        }
        if !gmap.is_empty() {
            spec["gmap"] = json!(gmap);
        }
        if let Some(atoms) = atoms {
            spec["atoms"] = json!(atoms);
        }
        json!({"spec": spec})
    })
}

trait ShuffleInto {
    fn prop_shuffle_into(self) -> BoxedStrategy<Vec<String>>;
}

impl<S: Strategy<Value = std::collections::BTreeSet<String>> + 'static> ShuffleInto for S {
    fn prop_shuffle_into(self) -> BoxedStrategy<Vec<String>> {
        self.prop_map(|set| set.into_iter().collect::<Vec<_>>()).prop_shuffle().boxed()
    }
}

/// The values of a spec that an apply of `body` must have brought.
fn covers(spec: &Value, body: &Value) -> bool {
    match (spec, body) {
        (Value::Object(s), Value::Object(b)) => b.iter().all(|(k, v)| s.get(k).is_some_and(|s| covers(s, v))),
        (Value::Array(s), Value::Array(b)) => b.iter().all(|b| s.iter().any(|s| covers(s, b))),
        (s, b) => s == b,
    }
}

proptest! {
    #[test]
    fn apply_is_idempotent(first in body(), second in body()) {
        let mut w = World::new(widget(), "Widget");
        w.apply("a", true, first).unwrap();
        w.apply("b", true, second.clone()).unwrap();
        let once = w.live.clone();
        prop_assert!(covers(w.spec(), &second["spec"]));
        w.apply("b", false, second).unwrap();
        prop_assert_eq!(w.live, once);
    }

    #[test]
    fn what_nobody_owns_any_more_is_gone(first in body(), second in body()) {
        let mut w = World::new(widget(), "Widget");
        w.apply("a", true, json!({"spec": {"ios": 1}})).unwrap();
        w.apply("b", true, first).unwrap();
        w.apply("b", true, second.clone()).unwrap();
        let mut alone = World::new(widget(), "Widget");
        alone.apply("a", true, json!({"spec": {"ios": 1}})).unwrap();
        alone.apply("b", true, second).unwrap();
        let sorted = |spec: &Value| {
            let mut spec = spec.clone();
            for name in ["ports", "tags"] {
                if let Some(list) = spec.get_mut(name).and_then(Value::as_array_mut) {
                    list.sort_by_key(Value::to_string);
                }
            }
            spec
        };
        prop_assert_eq!(sorted(w.spec()), sorted(alone.spec()));
    }

    #[test]
    fn what_is_written_is_what_comparing_finds(
        left in body(),
        right in body(),
        reset in prop::sample::subsequence(vec!["spec", "spec.tags", "spec.gmap.a", "spec.ports"], 0..3),
        unowned in prop::sample::subsequence(vec!["spec", "spec.gmap", "spec.gmap.b", "spec.tags"], 0..3),
    ) {
        let schema = widget();
        let (shape, reset, unowned) = (TypeRef::root(&schema), Set::of(&reset), Set::of(&unowned));
        let differences = compare(shape, &left, &right);
        let expected = differences.modified.union(&differences.added);
        let expected = expected.recursive_difference(&reset).difference(&unowned);
        prop_assert_eq!(written(shape, &left, &right, &reset, &unowned), expected);
    }

    #[test]
    fn managers_of_different_fields_never_conflict(names in prop::collection::vec("[a-z]{1,3}", 1..6)) {
        let mut w = World::new(widget(), "Widget");
        for name in &names {
            let own = format!("m-{name}");
            let body = json!({"spec": {"gmap": {name.as_str(): name.as_str()}, "tags": [name.as_str()]}});
            prop_assert!(w.apply(&own, false, body).is_ok());
        }
        let mut unique = names.clone();
        unique.sort();
        unique.dedup();
        prop_assert_eq!(w.spec()["gmap"].as_object().unwrap().len(), unique.len());
    }
}
