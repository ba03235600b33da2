//! Which element of an old list a new element replaces, so that what did not change is tolerated and rules can compare
//! (`CorrelatedObject` in `k8s.io/apiserver/pkg/cel/common/equality.go`).

use crate::{ListType, Schema};
use serde_json::Value;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt::Write;

/// The elements of an old list by the values of their keys. Lists are as long as a request allows: looking through all
/// old elements for each new one would be quadratic.
pub(crate) struct OldElements<'a> {
    keys: &'a [String],
    by_key: HashMap<String, &'a Value>,
}

impl<'a> OldElements<'a> {
    /// `None` where elements cannot be told apart: only those of lists of type `map` can be found again.
    pub(crate) fn new(schema: &'a Schema, old: Option<&'a Value>) -> Option<Self> {
        let ListType::Map(keys) = &schema.list_type else { return None };
        let elements = old?.as_array().filter(|_| !keys.is_empty())?;
        let mut by_key = HashMap::with_capacity(elements.len());
        for element in elements {
            // Of duplicates, which lists from before their schema can have, the first counts.
            if let Entry::Vacant(place) = by_key.entry(key_of(keys, element)) {
                place.insert(element);
            }
        }
        Some(Self { keys, by_key })
    }

    /// The old element whose keys are those of `element`. A key that is missing is one that is missing there, too.
    pub(crate) fn get(&self, element: &Value) -> Option<&'a Value> {
        self.by_key.get(&key_of(self.keys, element)).copied()
    }
}

/// A text that is equal for two elements if and only if the values of their keys are.
fn key_of(keys: &[String], element: &Value) -> String {
    let mut text = String::new();
    for key in keys {
        match element.get(key) {
            // Absent is not `null`.
            None => text.push('-'),
            // The two zeros of floating point are equal, and print differently.
            Some(Value::Number(number)) if number.is_f64() && number.as_f64() == Some(0.0) => {
                text.push_str("0.0")
            }
            // Writing into a string does not fail.
            Some(value) => {
                let _ = write!(text, "{value}");
            }
        }
        text.push(',');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;
    use serde_json::json;

    #[test]
    fn elements_are_found_by_all_their_keys() {
        let schema = |keys: &[&str]| {
            crd::schema(
                &json!({"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": keys}),
            )
        };
        let old = json!([
            {"a": "x", "b": 1, "n": 0}, {"a": "x", "b": 2, "n": 1}, {"a": "x", "n": 2}, {"a": "x", "b": null, "n": 3},
            {"a": "x", "b": 1, "n": 4}, {"a": "x\",-", "n": 5}, {"a": 0.0, "n": 6}, "stray",
        ]);
        let two = schema(&["a", "b"]);
        let found = OldElements::new(&two, Some(&old)).expect("a map");
        for (new, expected) in [
            (json!({"a": "x", "b": 1}), Some(0)),
            (json!({"b": 2, "a": "x", "other": true}), Some(1)),
            (json!({"a": "x"}), Some(2)),
            (json!({"a": "x", "b": null}), Some(3)),
            (json!({"a": "x\",-"}), Some(5)),
            (json!({"a": -0.0}), Some(6)),
            (json!({"a": 0}), None),
            (json!({"a": "x", "b": "1"}), None),
            (json!({"a": "x", "b": 1.0}), None),
        ] {
            assert_eq!(found.get(&new).map(|old| &old["n"]), expected.map(Value::from).as_ref(), "{new}");
        }
        assert_eq!(found.get(&json!({})), Some(&json!("stray")));
        assert!(OldElements::new(&schema(&[]), Some(&old)).is_none());
        assert!(OldElements::new(&Schema::default(), Some(&old)).is_none());
        assert!(OldElements::new(&two, None).is_none() && OldElements::new(&two, Some(&json!({}))).is_none());
    }
}
