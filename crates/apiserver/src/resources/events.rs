//! Events: one kind in two groups. They are stored as core/v1 and also read and written as events.k8s.io/v1, whose
//! rules for new events are stricter (`pkg/registry/core/event`, `pkg/apis/core/validation/events.go`,
//! `pkg/apis/events/v1/conversion.go`).

use super::printers;
use super::stored::{self, StoredKind};
use crate::strategy::{Column, Context, Resource, Strategy, View};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::{metadata, names};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

/// Members of core/v1 and their names in events.k8s.io/v1. No name is in both columns, so either direction is a mere renaming.
const RENAMED: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];
/// What core/v1 always prints, and events.k8s.io/v1 does not.
const ALWAYS_IN_CORE: [&str; 2] = ["reportingComponent", "reportingInstance"];
/// The longest reason, action and reporting instance, in bytes.
const SHORT: usize = 128;
/// The longest message, in bytes.
const NOTE: usize = 1024;

/// The row of core/v1 Events.
pub(crate) fn resource() -> Resource {
    let kind = stored_kind("", "io.k8s.api.core.v1.Event", CORE_LABELS);
    stored::resource(kind, Arc::new(Events { strict: false }))
}

/// The row of events.k8s.io/v1 Events: another view of the same objects. Its strategy, too, works on the stored
/// form, that of core/v1.
pub(crate) fn events_group_resource() -> Resource {
    let kind = stored_kind("events.k8s.io", "io.k8s.api.events.v1.Event", EVENTS_LABELS);
    let mut resource = stored::resource(kind, Arc::new(Events { strict: true }));
    resource.view = Some(Arc::new(EventsGroup));
    resource
}

const CORE_LABELS: &[&str] = &[
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
];

const EVENTS_LABELS: &[&str] = &[
    "reason",
    "regarding.kind",
    "regarding.namespace",
    "regarding.name",
    "regarding.uid",
    "regarding.apiVersion",
    "regarding.resourceVersion",
    "regarding.fieldPath",
    "reportingController",
    "type",
];

fn stored_kind(group: &'static str, definition: &'static str, labels: &'static [&'static str]) -> StoredKind {
    let column = |name, description, priority| Column::new(name, "string", "", description, priority);
    // The name says nothing to people, so it is shown last and only with `-o wide`.
    let mut name = Column::name();
    name.priority = 1;
    StoredKind {
        group,
        version: "v1",
        kind: "Event",
        plural: "events",
        definition,
        namespaced: true,
        short_names: &["ev"],
        selectable_fields: labels,
        columns: vec![
            column("Last Seen", "When it happened last.", 0),
            column("Type", "Normal or Warning.", 0),
            column("Reason", "Why, in one word.", 0),
            column("Object", "What it is about.", 0),
            column("Subobject", "Which part of that.", 1),
            column("Source", "Who reports it.", 1),
            column("Message", "What happened.", 0),
            column("First Seen", "When it happened first.", 1),
            column("Count", "How often it happened.", 1),
            name,
        ],
    }
}

struct Events {
    /// Whether requests come by events.k8s.io/v1.
    strict: bool,
}

impl Strategy for Events {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        // `legacyValidateEvent` is asked first whatever the group; only events.k8s.io/v1 adds the rules that
        // follow.
        let mut errors = validate_legacy(object, self.strict);
        if self.strict {
            errors.append(metadata::validate(object, true, &names::is_dns1123_subdomain));
            errors.append(validate_series(object));
            errors.append(validate_new(object));
        }
        errors
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = validate_legacy(new, self.strict);
        if self.strict {
            errors.append(metadata::validate_update(new, old));
            errors.append(validate_change(new, old));
        }
        errors
    }

    fn allow_create_on_update(&self) -> bool {
        true
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::is_path_segment(name, prefix)
    }

    fn selectable_field(&self, object: &Value, label: &str) -> String {
        if let Some(("involvedObject" | "regarding", name)) = label.split_once('.') {
            return meta::text(object, &["involvedObject", name]).into();
        }
        let text = |path: &[&str]| meta::text(object, path).to_string();
        match label {
            "reason" | "type" => text(&[label]),
            "reportingComponent" | "reportingController" => text(&["reportingComponent"]),
            "source" => first([text(&["source", "component"]), text(&["reportingComponent"])]),
            _ => String::new(),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        // A Table of events.k8s.io/v1 shows the same events; only that view needs a copy.
        let converted = self.strict.then(|| EventsGroup.to_stored(object));
        let object = converted.as_ref().unwrap_or(object);
        let time = |path: &[&str]| meta::time(object, path);
        let text = |path: &[&str]| meta::text(object, path);
        let first_seen = time(&["firstTimestamp"]).or_else(|| time(&["eventTime"]));
        let (last_seen, count) = match object.get("series").filter(|s| s.is_object()) {
            Some(series) => (meta::time(series, &["lastObservedTime"]), integer(series, "count")),
            // An event of the new kind that happened once has no count.
            None => (time(&["lastTimestamp"]).or(first_seen), integer(object, "count").max(1)),
        };
        let mut target = text(&["involvedObject", "kind"]).to_lowercase();
        if !text(&["involvedObject", "name"]).is_empty() {
            target.push_str(&format!("/{}", text(&["involvedObject", "name"])));
        }
        let mut source = first([text(&["source", "component"]), text(&["reportingComponent"])]);
        let instance = first([text(&["source", "host"]), text(&["reportingInstance"])]);
        if !instance.is_empty() {
            source.push_str(&format!(", {instance}"));
        }
        vec![
            printers::since(last_seen, now).into(),
            text(&["type"]).into(),
            text(&["reason"]).into(),
            target.into(),
            text(&["involvedObject", "fieldPath"]).into(),
            source.into(),
            text(&["message"]).trim().into(),
            printers::since(first_seen, now).into(),
            count.into(),
            printers::name(object),
        ]
    }
}

/// Reads and writes stored events as events.k8s.io/v1.
struct EventsGroup;

impl View for EventsGroup {
    fn stored_as(&self) -> (&'static str, &'static str) {
        ("", "events")
    }

    fn show_stored(&self, object: &Value) -> Value {
        let mut event = object.clone();
        let members = meta::as_map_mut(&mut event);
        members.insert("apiVersion".into(), "events.k8s.io/v1".into());
        // In events.k8s.io/v1, the Go fields of these have omitempty.
        for name in ALWAYS_IN_CORE {
            if members.get(name).and_then(Value::as_str).is_none_or(str::is_empty) {
                members.remove(name);
            }
        }
        for (core, events) in RENAMED {
            if let Some(value) = members.remove(core) {
                members.insert(events.into(), value);
            }
        }
        for name in ["regarding", "deprecatedSource"] {
            members.entry(name).or_insert_with(|| json!({}));
        }
        event
    }

    fn to_stored(&self, object: &Value) -> Value {
        let mut event = object.clone();
        let members = meta::as_map_mut(&mut event);
        members.insert("apiVersion".into(), "v1".into());
        for (core, events) in RENAMED {
            if let Some(value) = members.remove(events) {
                members.insert(core.into(), value);
            }
        }
        for name in ALWAYS_IN_CORE {
            members.entry(name).or_insert_with(|| "".into());
        }
        for name in ["involvedObject", "source"] {
            members.entry(name).or_insert_with(|| json!({}));
        }
        for name in ["firstTimestamp", "lastTimestamp", "eventTime"] {
            members.entry(name).or_insert(Value::Null);
        }
        event
    }
}

/// The rules for both groups (`legacyValidateEvent`).
fn validate_legacy(object: &Value, strict: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let namespace = meta::namespace(object);
    let about = meta::text(object, &["involvedObject", "namespace"]);
    // An event about an object is in its namespace. One about a cluster-scoped object is in `default`; the newer
    // recorder, which sets eventTime, may use `kube-system` as well.
    let agrees = match (has_time(object, "eventTime"), about) {
        (false, "") => ["", "default"].contains(&namespace),
        (false, about) => about == namespace,
        (true, "") => ["default", "kube-system"].contains(&namespace),
        (true, _) => true,
    };
    if !agrees {
        let field = Path::new("involvedObject.namespace");
        errors.push(Error::invalid(&field, about, "does not match event.namespace"));
    }
    if has_time(object, "eventTime") {
        let text = |name| meta::text(object, &[name]);
        let controller = text("reportingComponent");
        let field = Path::new(if strict { "reportingController" } else { "reportingComponent" });
        if controller.is_empty() {
            errors.push(Error::required(&field, ""));
        }
        errors.extend(
            names::is_qualified_name(controller).into_iter().map(|m| Error::invalid(&field, controller, m)),
        );
        for (name, limit, required) in [
            ("reportingInstance", SHORT, true),
            ("action", SHORT, true),
            ("reason", SHORT, true),
            ("message", NOTE, false),
        ] {
            if required && text(name).is_empty() {
                errors.push(Error::required(&Path::new(name), ""));
            }
            if text(name).len() > limit {
                let detail = format!("can have at most {limit} characters");
                errors.push(Error::invalid(&Path::new(name), "", detail));
            }
        }
    }
    let field = Path::new("namespace");
    errors.extend(
        names::is_dns1123_subdomain(namespace, false)
            .into_iter()
            .map(|m| Error::invalid(&field, namespace, m)),
    );
    errors
}

/// The rules for new events of events.k8s.io/v1.
fn validate_new(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if !has_time(object, "eventTime") {
        errors.push(Error::required(&Path::new("eventTime"), ""));
    }
    let kind = meta::text(object, &["type"]);
    if kind != "Normal" && kind != "Warning" {
        errors.push(Error::invalid(&Path::new("type"), "", format!("has invalid value: {kind}")));
    }
    let set = [
        // The deprecated members, which are there for events that core/v1 has stored.
        ("firstTimestamp", has_time(object, "firstTimestamp")),
        ("lastTimestamp", has_time(object, "lastTimestamp")),
        ("count", integer(object, "count") != 0),
        ("source", !meta::same(object.get("source"), None)),
    ];
    for (name, _) in set.into_iter().filter(|(_, set)| *set) {
        errors.push(Error::invalid(&Path::new(name), "", "needs to be unset"));
    }
    errors
}

/// The rules for changes by events.k8s.io/v1: only the series may change.
fn validate_change(new: &Value, old: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    // Only if it changes: core/v1 may have stored a series that is none by these rules.
    if !meta::same(new.get("series"), old.get("series")) {
        errors.append(validate_series(new));
    }
    // `reason` is here twice, as in Go: its error is reported twice.
    let fixed = [
        ("involvedObject", "involvedObject"),
        ("reason", "reason"),
        ("message", "message"),
        ("source", "source"),
        ("firstTimestamp", "firstTimestamp"),
        ("lastTimestamp", "lastTimestamp"),
        ("count", "count"),
        ("reason", "reason"),
        ("type", "type"),
        ("eventTime", "eventTime"),
        ("action", "action"),
        ("related", "related"),
        ("reportingComponent", "reportingController"),
        ("reportingInstance", "reportingInstance"),
    ];
    for (member, field) in fixed {
        errors.extend(metadata::validate_immutable(new.get(member), old.get(member), &Path::new(field)));
    }
    errors
}

fn validate_series(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(series) = object.get("series").filter(|s| s.is_object()) else { return errors };
    if integer(series, "count") < 2 {
        errors.push(Error::invalid(&Path::new("series.count"), "", "should be at least 2"));
    }
    if !has_time(series, "lastObservedTime") {
        errors.push(Error::required(&Path::new("series.lastObservedTime"), ""));
    }
    errors
}

fn has_time(object: &Value, name: &str) -> bool {
    !meta::text(object, &[name]).is_empty()
}

fn integer(object: &Value, name: &str) -> i64 {
    object.get(name).and_then(Value::as_i64).unwrap_or_default()
}

/// The first text that is not empty.
fn first<T: Into<String>>(texts: [T; 2]) -> String {
    let [one, other] = texts.map(Into::into);
    if one.is_empty() { other } else { one }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;

    fn stored_event() -> Value {
        json!({"kind": "Event", "apiVersion": "v1", "metadata": {"name": "e1", "namespace": "ns"},
            "involvedObject": {"kind": "ServiceAccount", "namespace": "ns", "name": "robot"},
            "reason": "Tested", "message": "a message", "source": {}, "firstTimestamp": null,
            "lastTimestamp": "2026-01-02T03:04:05Z", "count": 3, "type": "Normal", "eventTime": null,
            "series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:05.000000Z"},
            "reportingComponent": "", "reportingInstance": ""})
    }

    #[test]
    fn both_faces_show_one_event() {
        let view = EventsGroup.show_stored(&stored_event());
        assert_eq!(
            view,
            json!({"kind": "Event", "apiVersion": "events.k8s.io/v1", "metadata": {"name": "e1", "namespace": "ns"},
                "eventTime": null, "series": {"count": 2, "lastObservedTime": "2026-01-02T03:04:05.000000Z"},
                "reason": "Tested", "regarding": {"kind": "ServiceAccount", "namespace": "ns", "name": "robot"},
                "note": "a message", "type": "Normal", "deprecatedSource": {}, "deprecatedFirstTimestamp": null,
                "deprecatedLastTimestamp": "2026-01-02T03:04:05Z", "deprecatedCount": 3})
        );
        assert_eq!(EventsGroup.to_stored(&view), stored_event());
        let now = "2026-01-02T03:05:05Z".parse().unwrap();
        assert_eq!(
            Events { strict: true }.cells(&view, now),
            Events { strict: false }.cells(&stored_event(), now)
        );
    }

    #[test]
    fn legacy_rules() {
        let world = World::default();
        let ctx = world.ctx("ns", "");
        let mismatch =
            "involvedObject.namespace: Invalid value: \"elsewhere\": does not match event.namespace";
        let cases: [(Value, &[&str]); 4] = [
            (json!({"involvedObject": {"namespace": "ns"}, "type": "Odd"}), &[]),
            (json!({"involvedObject": {"namespace": "elsewhere"}}), &[mismatch]),
            (json!({}), &["involvedObject.namespace: Invalid value: \"\": does not match event.namespace"]),
            (
                json!({"involvedObject": {"namespace": "ns"}, "reason": "R",
                    "eventTime": "2026-01-02T03:04:05.000000Z"}),
                &[
                    "reportingComponent: Required value",
                    "reportingComponent: Invalid value: \"\": name part must be non-empty",
                    "reportingComponent: Invalid value: \"\": name part must consist of alphanumeric",
                    "reportingInstance: Required value",
                    "action: Required value",
                ],
            ),
        ];
        for (mut object, wanted) in cases {
            object["metadata"] = json!({"name": "e", "namespace": "ns"});
            let found = texts(&Events { strict: false }.validate(&ctx, &object));
            assert_eq!(found.len(), wanted.len(), "{found:#?}");
            assert!(found.iter().zip(wanted).all(|(f, w)| f.starts_with(w)), "{found:#?}");
        }
    }

    #[test]
    fn strict_rules() {
        let world = World::default();
        let ctx = world.ctx("ns", "e1");
        let events = Events { strict: true };
        let mut object = stored_event();
        object["series"]["count"] = 1.into();
        assert_eq!(
            texts(&events.validate(&ctx, &object)),
            [
                "series.count: Invalid value: \"\": should be at least 2",
                "eventTime: Required value",
                "lastTimestamp: Invalid value: \"\": needs to be unset",
                "count: Invalid value: \"\": needs to be unset",
            ]
        );
        let mut old = stored_event();
        old["metadata"]["resourceVersion"] = "1".into();
        let mut new = old.clone();
        new["series"]["count"] = 3.into();
        assert!(events.validate_update(&ctx, &new, &old).is_empty());
        new["message"] = "other".into();
        assert_eq!(
            texts(&events.validate_update(&ctx, &new, &old)),
            ["message: Invalid value: \"other\": field is immutable"]
        );
    }

    #[test]
    fn cells_and_labels() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let object = json!({"metadata": {"name": "e"},
            "involvedObject": {"kind": "Secret", "namespace": "ns", "name": "t"}, "reason": "R",
            "message": " m ", "type": "Normal", "count": 3, "source": {"component": "c", "host": "h"}});
        let events = Events { strict: false };
        assert_eq!(
            Value::from(events.cells(&object, now)),
            json!(["<unknown>", "Normal", "R", "secret/t", "", "c, h", "m", "<unknown>", 3, "e"])
        );
        for (label, value) in [("source", "c"), ("involvedObject.kind", "Secret"), ("regarding.name", "t")] {
            assert_eq!(events.selectable_field(&object, label), value);
        }
    }
}
