//! A value without some of its fields (`sigs.k8s.io/structured-merge-diff/typed/remove.go`).

use super::schema::{Form, TypeRef};
use crate::fieldpath::{PathElement, Set};
use serde_json::{Map, Value};

/// The value without these fields; null where nothing remains of a list or map.
pub(crate) fn remove(schema: TypeRef<'_>, value: &Value, fields: &Set) -> Value {
    let atom = schema.atom();
    match (atom.handled_as(Some(value)), value) {
        (Form::Scalar, scalar) => scalar.clone(),
        (Form::Map, Value::Object(members)) => {
            // What is atomic has no parts of its own: who removes one removes it all.
            let Some(map) = atom.map.filter(|map| !map.atomic) else { return Value::Null };
            let mut out = Map::new();
            for (name, value) in members {
                let child = PathElement::field(name);
                // A member of the set goes with all that is below it.
                if fields.has_member(&child) {
                    continue;
                }
                let kept = match (fields.below(&child), map.entry(name)) {
                    (Some(below), Some(entry)) if !below.is_empty() => remove(entry, value, below),
                    _ => value.clone(),
                };
                out.insert(name.clone(), kept);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Form::List, Value::Array(items)) => {
            let Some(list) = atom.list.filter(|list| !list.atomic()) else { return Value::Null };
            let mut out = Vec::new();
            for item in items {
                let element = list.path_element(item).ok();
                if element.as_ref().is_some_and(|element| fields.has_member(element)) {
                    continue;
                }
                out.push(match element.and_then(|element| fields.below(&element)) {
                    Some(below) if !below.is_empty() => remove(list.element, item, below),
                    _ => item.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        _ => Value::Null,
    }
}
