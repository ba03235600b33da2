//! Patches: JSON patch, merge patch, strategic merge patch and apply, one after the other on one object.

use crate::kinds::{GROUP, NOW, schema_of};
use crate::refusal::check_refusal;
use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef};
use fleetpass_apiserver::strategy::Version;
use fleetpass_apply::fieldpath::Set;
use fleetpass_apply::{Body, Error, FieldManager, PatchKind, patch};
use fleetpass_codec::body::FieldValidation;
use fleetpass_codec::patch::{Document, read};
use fleetpass_codec::redecode;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Begins with a digit that chooses the object. Patches follow, separated by zero bytes; each begins with a letter: `j`,
/// `m`, `s` for the three patches, `a` for an apply, `f` for one with force by another manager.
pub fn patches(data: &[u8]) {
    let Some((chosen, rest)) = data.split_first() else { return };
    let live = live(usize::from(*chosen));
    let version = live["apiVersion"].as_str().and_then(|text| text.split_once('/'));
    let (group, version) = version.unwrap_or(("", "v1"));
    let gvk = GroupVersionKind { group: group.into(), version: version.into(), kind: text(&live, "kind") };
    let (schema, is_custom) = schema_of(&gvk).expect("the kind is known");
    let version =
        Version { name: version.into(), schema: schema.into(), columns: Arc::default(), deprecation: None };
    let mut kind = Kind { gvk, version, is_custom, live };
    for patch in rest.split(|byte| *byte == 0).take(8) {
        if let Some((letter, patch)) = patch.split_first() {
            kind.patch(*letter, patch);
        }
    }
}

fn text(object: &Value, key: &str) -> String {
    object[key].as_str().unwrap_or_default().into()
}

/// The object that is patched.
fn live(chosen: usize) -> Value {
    let metadata = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7",
        "labels": {"x": "1"}, "finalizers": ["a.b/c"], "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": "o", "uid": "1"}]});
    let objects = [
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"k": "v", "l": "w"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata,
            "secrets": [{"name": "s"}, {"name": "t"}], "imagePullSecrets": [{"name": "p"}]}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {
            "containers": [{"name": "c", "image": "i", "env": [{"name": "E", "value": "1"}],
                "ports": [{"containerPort": 80, "protocol": "TCP"}]}, {"name": "d", "resources": {}}],
            "tolerations": [{"key": "k"}], "nodeSelector": {"a": "b"},
            "volumes": [{"name": "v", "emptyDir": {}}]}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata,
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]}),
        json!({"apiVersion": format!("{GROUP}/v1"), "kind": "Thing", "metadata": metadata, "spec": {
            "count": 1, "words": ["a", "b"], "pairs": [{"k": "x", "n": 1, "v": "1"}, {"k": "y", "n": 1}],
            "map": {"a": "1"}, "whole": {"a": 1}, "free": {"z": [1, {"y": null}]}, "atoms": [1, 2]}}),
    ];
    let [a, b, c, d, e] = objects;
    match chosen % 5 {
        0 => a,
        1 => b,
        2 => c,
        3 => d,
        _ => e,
    }
}

struct Kind {
    gvk: GroupVersionKind,
    version: Version,
    is_custom: bool,
    live: Value,
}

impl Kind {
    fn patch(&mut self, letter: u8, bytes: &[u8]) {
        let kind = match letter {
            b'j' => PatchKind::Json,
            b'm' => PatchKind::Merge,
            b's' if !self.is_custom => PatchKind::Strategic,
            b'a' | b'f' => PatchKind::Apply,
            _ => return,
        };
        let read = |validation| read(kind, bytes, validation);
        let document = match read(FieldValidation::Warn) {
            Ok(document) => document,
            Err(error) => {
                assert!(matches!(error, Error::Malformed { .. } | Error::NotAPatch { .. }), "{error:?}");
                check_refusal(&error.to_string(), bytes.len());
                return assert!(read(FieldValidation::Strict).is_err());
            }
        };
        let patched = match kind {
            PatchKind::Apply if letter == b'a' => self.apply(&document, "a", false),
            PatchKind::Apply => self.apply(&document, "b", true),
            _ => self.change(kind, &document),
        };
        if let Some(object) = patched {
            self.keep(object);
        }
    }

    fn manager<T>(&self, name: &str, act: impl FnOnce(&FieldManager<'_>) -> T) -> T {
        let (reset, known) = (Set::of(&["status"]), [self.gvk.api_version()]);
        let GroupVersionKind { group, version, kind } = &self.gvk;
        act(&FieldManager {
            name,
            schema: &self.version.schema,
            kind: GvkRef { group, version, kind },
            subresource: "",
            reset_fields: &reset,
            known_versions: &known.each_ref().map(String::as_str),
            now: NOW,
        })
    }

    fn apply(&self, document: &Document, manager: &str, force: bool) -> Option<Value> {
        let apply = |live: Option<&Value>, force| {
            self.manager(manager, |manager| manager.apply(live, &document.value, force))
        };
        let from_nothing = apply(None, force);
        let applied = match apply(Some(&self.live), force) {
            Ok(applied) => applied,
            Err(error) => {
                let is_conflict = matches!(error, Error::Conflicts(_));
                assert!(!(force && is_conflict), "{error}");
                let is_of_apply = matches!(
                    error,
                    Error::NotAPatch { .. }
                        | Error::WrongKind(_)
                        | Error::ManagedFieldsGiven
                        | Error::ManagedFields(_)
                        | Error::DoesNotFit(_)
                        | Error::Untracked(_)
                        | Error::Unmergeable(_)
                );
                assert!(is_conflict || is_of_apply, "{error:?}");
                return None;
            }
        };
        assert!(from_nothing.is_ok() && applied.is_object());
        // Once more changes nothing and conflicts with nobody.
        let again = apply(Some(&applied), false);
        assert_eq!(again.as_ref().map_err(ToString::to_string), Ok(&applied));
        Some(applied)
    }

    fn change(&self, kind: PatchKind, document: &Document) -> Option<Value> {
        let apply = |validated| {
            let body = Body { value: &document.value, duplicates: &document.duplicates, validated };
            patch(kind, &self.live, &body, &self.version.schema)
        };
        let patched = match apply(true) {
            Ok(patched) => patched.object,
            Err(error) => {
                let is_of_patch = matches!(
                    (kind, &error),
                    (_, Error::NotAPatch { .. })
                        | (PatchKind::Json, Error::TooManyOperations { .. })
                        | (PatchKind::Json, Error::DoesNotApply { .. } | Error::GrowsTooMuch)
                        | (PatchKind::Strategic, Error::Strategic(_))
                );
                assert!(is_of_patch, "{error:?}");
                check_refusal(
                    &error.to_string(),
                    document.value.to_string().len() + self.live.to_string().len(),
                );
                return None;
            }
        };
        // Checking more closely refuses more, but does not change what comes of it.
        assert_eq!(apply(false).ok().map(|patched| patched.object).as_ref(), Some(&patched));
        let simple = match kind {
            PatchKind::Merge => is_simple(&document.value, true),
            PatchKind::Strategic => is_simple(&document.value, false),
            _ => false,
        };
        if simple {
            assert_eq!(patched, merged(&self.live, &document.value));
        }
        let tests_only = |op: &Value| op["op"] == "test";
        if kind == PatchKind::Json && document.value.as_array().is_some_and(|ops| ops.iter().all(tests_only))
        {
            assert_eq!(patched, self.live);
        }
        Some(patched)
    }

    /// The patched object becomes the live one, if it decodes.
    fn keep(&mut self, mut object: Value) {
        let tracked = object.get("metadata").is_some_and(|m| m.get("managedFields").is_some());
        if redecode(&mut object, &self.version.schema, self.is_custom).is_err() || !object.is_object() {
            return;
        }
        let mut again = object.clone();
        assert_eq!(redecode(&mut again, &self.version.schema, self.is_custom), Ok(Vec::new()));
        assert_eq!(again, object);
        if text(&object, "kind") != self.gvk.kind || text(&object, "apiVersion") != self.gvk.api_version() {
            return;
        }
        if !tracked {
            let old = self.live.clone();
            self.manager("u", |manager| manager.update(Some(&old), &mut object));
        }
        self.live = object;
    }
}

/// Whether a patch has nothing but members to set: no null, no directive and, unless `lists`, no list.
fn is_simple(patch: &Value, lists: bool) -> bool {
    match patch {
        Value::Object(members) => members.iter().all(|(k, v)| !k.starts_with('$') && is_simple(v, lists)),
        Value::Array(items) => lists && items.iter().all(|item| is_simple(item, lists)),
        other => !other.is_null(),
    }
}

/// RFC 7386 without nulls.
fn merged(live: &Value, patch: &Value) -> Value {
    let Value::Object(changes) = patch else { return patch.clone() };
    let mut members = live.as_object().cloned().unwrap_or_else(Map::new);
    for (name, change) in changes {
        let merged = merged(members.get(name).unwrap_or(&Value::Null), change);
        members.insert(name.clone(), merged);
    }
    members.into()
}
