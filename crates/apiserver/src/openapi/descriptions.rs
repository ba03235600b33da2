//! What definitions and fields are for, in one line each. The embedded OpenAPI document has no descriptions;
//! `data/openapi-descriptions.txt` has them for what people ask `kubectl explain` about.

use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Lines of `NAME TEXT`, where a name is that of a definition, or of a field of it with dots between (lists and
/// maps have no part of their own). Names of custom kinds have no version.
const TEXTS: &str = include_str!("../../data/openapi-descriptions.txt");

/// The table of descriptions.
pub(super) struct Descriptions(BTreeMap<&'static str, &'static str>);

impl Descriptions {
    pub(super) fn load() -> Self {
        Self(TEXTS.lines().filter_map(|line| line.split_once(' ')).collect())
    }

    /// Describes a definition and its fields, where they are not described yet.
    pub(super) fn fill_in(&self, name: &str, definition: &mut Value) {
        let Some(schema) = definition.as_object_mut() else { return };
        // Every kind has these three fields with the same meaning, so the table need not repeat them.
        let is_kind = schema.contains_key("x-kubernetes-group-version-kind");
        self.node(&key(name), schema);
        if !is_kind {
            return;
        }
        let Some(Value::Object(properties)) = schema.get_mut("properties") else { return };
        let what = if properties.contains_key("items") { "List" } else { "Object" };
        for (field, text) in [
            ("apiVersion", "Group and version of the schema that this object is written in."),
            ("kind", "The kind of this object, as it is spelled in the API."),
            (
                "metadata",
                match what {
                    "List" => {
                        "Where this list stands: its resourceVersion, and how to go on with the next page."
                    }
                    _ => "Name, labels, owners and the like, which all kinds have.",
                },
            ),
        ] {
            if let Some(Value::Object(property)) = properties.get_mut(field) {
                describe(property, text);
            }
        }
    }

    fn node(&self, path: &str, schema: &mut Map<String, Value>) {
        if let Some(text) = self.0.get(path) {
            describe(schema, text);
        }
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            for (name, property) in properties {
                if let Value::Object(property) = property {
                    self.node(&format!("{path}.{name}"), property);
                }
            }
        }
        for inner in ["items", "additionalProperties"] {
            if let Some(Value::Object(inner)) = schema.get_mut(inner) {
                self.inner(path, inner);
            }
        }
    }

    /// What is inside of a list or map: its fields. The list or map itself is described by the field that holds it.
    fn inner(&self, path: &str, schema: &mut Map<String, Value>) {
        if let Some(Value::Object(properties)) = schema.get_mut("properties") {
            for (name, property) in properties {
                if let Value::Object(property) = property {
                    self.node(&format!("{path}.{name}"), property);
                }
            }
        }
    }
}

fn describe(schema: &mut Map<String, Value>, text: &str) {
    // A reference may have nothing beside it.
    if let Some(target) = schema.remove("$ref") {
        schema.insert("allOf".into(), json!([{"$ref": target}]));
    }
    schema.entry("description").or_insert_with(|| text.into());
}

/// The name in the table: that of the definition, for custom kinds without its version.
fn key(name: &str) -> String {
    if name.starts_with("io.k8s.") {
        return name.into();
    }
    let mut parts: Vec<&str> = name.split('.').collect();
    if parts.len() > 2 {
        // GROUP.VERSION.KIND: the version is the last but one.
        parts.remove(parts.len() - 2);
    }
    parts.join(".")
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_schema::openapi::DOCUMENT;

    #[test]
    fn every_line_is_about_something_that_there_is() {
        let document: Value = serde_json::from_str(DOCUMENT).expect("JSON");
        for line in TEXTS.lines() {
            let (name, text) = line.split_once(' ').expect("a name and a text");
            assert!(text.ends_with('.'), "{line}");
            if !name.starts_with("io.k8s.") {
                continue;
            }
            let (parent, field) = name.rsplit_once('.').expect("dots");
            let known = document.get(name).is_some()
                || document.get(parent).is_some_and(|d| !d["properties"][field].is_null())
                || name.ends_with(".Patch")
                || name.ends_with(".WatchEvent")
                || name.ends_with(".Scale");
            assert!(known, "{name}");
        }
        let mut names: Vec<&str> = TEXTS.lines().filter_map(|l| l.split(' ').next()).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count, "a name is described twice");
    }

    #[test]
    fn a_reference_keeps_its_target_when_it_is_described() {
        let descriptions = Descriptions(BTreeMap::from([("com.example.Widget.a", "An a.")]));
        let mut schema = json!({"properties": {"a": {"$ref": "#/x"}, "b": {"type": "string"}}});
        descriptions.fill_in("com.example.v1.Widget", &mut schema);
        let want = json!({"properties": {
            "a": {"allOf": [{"$ref": "#/x"}], "description": "An a."}, "b": {"type": "string"}}});
        assert_eq!(schema, want);
    }
}
