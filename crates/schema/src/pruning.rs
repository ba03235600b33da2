//! Removal of fields that a custom resource's schema does not know
//! (`apiextensions-apiserver/pkg/apiserver/schema/pruning/algorithm.go`).

use crate::Schema;
use serde_json::Value;

const META: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Removes unknown fields of `value` and returns their paths, sorted. With `root`, `value` is a whole object
/// whose `apiVersion`, `kind` and `metadata` need not be declared.
pub fn prune(value: &mut Value, schema: &Schema, root: bool) -> Vec<String> {
    let mut pruner = Pruner { path: String::new(), unknown: Vec::new() };
    pruner.visit(value, Some(schema), root || schema.embedded_resource);
    pruner.unknown.sort();
    pruner.unknown
}

struct Pruner {
    path: String,
    unknown: Vec<String>,
}

impl Pruner {
    fn below(&mut self, step: &str, index: bool, visit: impl FnOnce(&mut Self)) {
        let length = self.path.len();
        if !index && length > 0 {
            self.path.push('.');
        }
        self.path.push_str(step);
        visit(self);
        self.path.truncate(length);
    }

    fn visit(&mut self, value: &mut Value, schema: Option<&Schema>, resource: bool) {
        let preserve = schema.is_some_and(|s| s.preserve_unknown_fields);
        match value {
            Value::Object(members) => members.retain(|name, member| {
                if resource && META.contains(&name.as_str()) {
                    return true;
                }
                let child = schema.and_then(|s| s.properties.get(name).or(s.additional.as_ref()));
                if let Some(child) = child {
                    self.below(name, false, |p| p.visit(member, Some(child), child.embedded_resource));
                    return true;
                }
                if !preserve {
                    let top = self.path.is_empty() && META.contains(&name.as_str());
                    if !top {
                        self.below(name, false, |p| p.unknown.push(p.path.clone()));
                    }
                }
                preserve
            }),
            Value::Array(elements) => {
                let items = schema.and_then(|s| s.items.as_deref());
                if preserve && items.is_none() {
                    return;
                }
                for (index, element) in elements.iter_mut().enumerate() {
                    self.below(&format!("[{index}]"), true, |p| {
                        p.visit_element(element, items, preserve);
                    });
                }
            }
            _ => {}
        }
    }

    /// Below a list that preserves unknown fields, its elements preserve them, too.
    fn visit_element(&mut self, value: &mut Value, schema: Option<&Schema>, preserve: bool) {
        match schema {
            Some(items) if preserve && !items.preserve_unknown_fields => {
                let open = Schema { preserve_unknown_fields: true, ..items.clone() };
                self.visit(value, Some(&open), open.embedded_resource);
            }
            _ => self.visit(value, schema, schema.is_some_and(|s| s.embedded_resource)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;
    use serde_json::json;

    #[test]
    fn removes_what_is_not_declared_and_says_where() {
        let schema = crd::schema(&json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "open": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                    "known": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                "shut": {"type": "object", "properties": {"a": {"type": "string"}}},
                "bool": {"type": "object", "additionalProperties": true},
                "list": {"type": "array", "items": {"type": "object", "properties": {"a": {"type": "string"}}}},
                "emb": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"a": {"type": "string"}}},
            }},
        }}));
        let mut value = json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}, "extra": 1, "spec": {
            "gone": 1,
            "open": {"x": {"y": [1, null]}, "known": {"a": "1", "b": 2}},
            "shut": {"a": "1", "b": 2},
            "bool": {"k": {"dropped": 1}, "s": 1},
            "list": [{"a": "1"}, {"b": 1}],
            "emb": {"apiVersion": "v1", "kind": "C", "metadata": {"name": "x"}, "data": {}, "a": "1"},
        }});
        let unknown = prune(&mut value, &schema, true);
        assert_eq!(
            unknown,
            [
                "extra",
                "spec.bool.k.dropped",
                "spec.emb.data",
                "spec.gone",
                "spec.list[1].b",
                "spec.open.known.b",
                "spec.shut.b",
            ]
        );
        assert_eq!(
            value,
            json!({"apiVersion": "g/v1", "kind": "K", "metadata": {"name": "n"}, "spec": {
                "open": {"x": {"y": [1, null]}, "known": {"a": "1"}},
                "shut": {"a": "1"},
                "bool": {"k": {}, "s": 1},
                "list": [{"a": "1"}, {}],
                "emb": {"apiVersion": "v1", "kind": "C", "metadata": {"name": "x"}, "a": "1"},
            }})
        );
    }
}
