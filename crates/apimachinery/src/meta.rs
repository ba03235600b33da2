//! Reading and writing the members that all objects have: `metadata` and its fields, and paths below an object.
//!
//! Objects are JSON trees, and may be of any shape before they were validated. So nothing here panics or fails: what is
//! missing, or is of another type than it should be, reads as empty. Telling the client of a wrong type is the decoder's work.

use jiff::Timestamp;
use serde_json::{Map, Value};

/// The map at `path` below `object`; `None` where a step is missing or no object.
pub fn map<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Map<String, Value>> {
    at(object, path)?.as_object()
}

/// The value at `path` below `object`; `None` where a step is missing.
pub fn at<'a>(object: &'a Value, path: &[&str]) -> Option<&'a Value> {
    path.iter().try_fold(object, |value, step| value.get(step))
}

/// The string at `path` below `object`; empty where there is none.
pub fn text<'a>(object: &'a Value, path: &[&str]) -> &'a str {
    at(object, path).and_then(Value::as_str).unwrap_or_default()
}

/// The list at `path` below `object`; empty where there is none.
pub fn list<'a>(object: &'a Value, path: &[&str]) -> &'a [Value] {
    at(object, path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// `metadata.name`, or empty.
pub fn name(object: &Value) -> &str {
    text(object, &["metadata", "name"])
}

/// `metadata.namespace`, or empty.
pub fn namespace(object: &Value) -> &str {
    text(object, &["metadata", "namespace"])
}

/// `metadata.uid`, or empty.
pub fn uid(object: &Value) -> &str {
    text(object, &["metadata", "uid"])
}

/// `metadata.generation`, or 0.
pub fn generation(object: &Value) -> i64 {
    at(object, &["metadata", "generation"]).and_then(Value::as_i64).unwrap_or_default()
}

/// The annotation `key`, if it is there.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "annotations", key])?.as_str()
}

/// The label `key`, if it is there.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, &["metadata", "labels", key])?.as_str()
}

/// Whether a deletion of the object has begun (`metadata.deletionTimestamp`).
pub fn is_being_deleted(object: &Value) -> bool {
    at(object, &["metadata", "deletionTimestamp"]).is_some_and(|time| !time.is_null())
}

/// The time at `path`; `None` where there is none or it is not RFC 3339.
pub fn time(object: &Value, path: &[&str]) -> Option<Timestamp> {
    at(object, path)?.as_str()?.parse().ok()
}

/// The member `name` of an object as a map to write to; it is put there if it is missing or no object.
pub fn child_mut<'a>(object: &'a mut Map<String, Value>, name: &str) -> &'a mut Map<String, Value> {
    let slot = object.entry(name).or_insert(Value::Null);
    as_map_mut(slot)
}

/// `value` as a map to write to; anything but an object is replaced by an empty one.
pub fn as_map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    // The borrow checker does not accept an early return of the map from a `match` that otherwise replaces the value.
    match value {
        Value::Object(map) => map,
        _ => unreachable!("it was made an object above"),
    }
}

/// `metadata` to write to; it is put there if it is missing.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    child_mut(as_map_mut(object), "metadata")
}

/// Makes the member `name` of `new` what it is in `old`, also where it is missing there.
pub fn keep(new: &mut Value, old: &Value, name: &str) {
    let new = as_map_mut(new);
    match old.get(name) {
        Some(value) => {
            new.insert(name.into(), value.clone());
        }
        None => {
            new.remove(name);
        }
    }
}

/// Whether two values are equal as Go's `Semantic.DeepEqual` sees it (`k8s.io/apimachinery/pkg/api/equality/semantic.go`): a
/// missing member, `null`, an empty map and an empty list are all the same, at every depth.
pub fn same(a: Option<&Value>, b: Option<&Value>) -> bool {
    let empty = |v: &Value| match v {
        Value::Null => true,
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    match (a.filter(|v| !empty(v)), b.filter(|v| !empty(v))) {
        (None, None) => true,
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            // A member of one side only does not make a difference while it is empty.
            a.iter().all(|(key, value)| same(Some(value), b.get(key)))
                && b.iter().all(|(key, value)| a.contains_key(key) || same(None, Some(value)))
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(Some(a), Some(b)))
        }
        (Some(a), Some(b)) => a == b,
        _ => false,
    }
}

/// The name by which admission speaks of an object (`admission.NewForbidden`): the one in the path, else the
/// object's, else the start of the one to be generated.
pub fn admission_name<'a>(in_path: &'a str, object: &'a Value) -> &'a str {
    [in_path, name(object), text(object, &["metadata", "generateName"])]
        .into_iter()
        .find(|name| !name.is_empty())
        .unwrap_or("Unknown!")
}
