//! JSON merge patch (RFC 7386) as kube-apiserver applies it (`gopkg.in/evanphx/json-patch.v4`, `merge.go`).

use crate::body::{Body, Patched};
use crate::error::Error;
use crate::kind::PatchKind;
use crate::value::Found;
use crate::words::PatchPart;
use serde_json::{Map, Value};

/// Merges the patch into `live`. The strict errors name repeated members.
///
/// # Errors
/// [`Error::NotAPatch`] if the body is not an object.
pub(crate) fn apply(live: &Value, body: &Body<'_>) -> Result<Patched, Error> {
    let Value::Object(patch) = body.value else {
        return Err(Error::NotAPatch {
            kind: PatchKind::Merge,
            validated: body.validated,
            part: PatchPart::Object,
            found: Found::from(body.value),
        });
    };
    let mut object = live.clone();
    match &mut object {
        Value::Object(document) => merge(document, patch),
        other => *other = pruned(body.value),
    }
    let strict = if body.validated { body.duplicates.to_vec() } else { Vec::new() };
    Ok(Patched { object, strict })
}

fn merge(document: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (name, value) in patch {
        match (document.get_mut(name), value) {
            (_, Value::Null) => {
                document.remove(name);
            }
            (Some(Value::Object(current)), Value::Object(changes)) => merge(current, changes),
            // A list or scalar that replaces an object is taken as it is; anything else loses its nulls.
            (Some(current @ Value::Object(_)), _) => *current = value.clone(),
            (Some(current), _) => *current = pruned(value),
            (None, _) => {
                document.insert(name.clone(), pruned(value));
            }
        }
    }
}

/// `value` without the null members of its objects, also of those in lists; null elements of lists stay.
fn pruned(value: &Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k.clone(), pruned(v))).collect(),
        ),
        Value::Array(list) => Value::Array(list.iter().map(pruned).collect()),
        scalar => scalar.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_schema::Schema;
    use proptest::prelude::*;
    use serde_json::json;

    fn patch(live: &Value, patch: &Value) -> Result<Value, Error> {
        let body = Body { value: patch, duplicates: &[], validated: true };
        crate::patch(PatchKind::Merge, live, &body, &Schema::default()).map(|p| p.object)
    }

    #[test]
    fn merges_objects_and_replaces_everything_else() {
        for (live, change, want) in [
            (
                json!({"a": {"b": 1, "c": 2}}),
                json!({"a": {"b": null, "d": 3}}),
                json!({"a": {"c": 2, "d": 3}}),
            ),
            (json!({"a": [1, 2]}), json!({"a": [3]}), json!({"a": [3]})),
            (json!({}), json!({"a": {"b": null, "l": [null, {"x": null}]}}), json!({"a": {"l": [null, {}]}})),
            (json!({"a": {"b": 1}}), json!({"a": [{"x": null}]}), json!({"a": [{"x": null}]})),
            (json!({"a": "s"}), json!({"a": {"b": {"c": null}}}), json!({"a": {"b": {}}})),
            (json!({"a": 1}), json!({"none": null}), json!({"a": 1})),
        ] {
            assert_eq!(patch(&live, &change).unwrap(), want, "{live} + {change}");
        }
    }

    #[test]
    fn bodies_that_are_not_objects() {
        for (body, message) in [
            (
                json!([]),
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (
                json!("text"),
                "error decoding patch: json: cannot unmarshal string into Go value of type map[string]interface {}",
            ),
            (Value::Null, "Invalid JSON Patch"),
        ] {
            let error = patch(&json!({}), &body).unwrap_err();
            assert!(matches!(error, Error::NotAPatch { kind: PatchKind::Merge, .. }), "{error:?}");
            assert_eq!(error.to_string(), message);
            // Without validation the library is asked at once, and it has one answer for all.
            let body = Body { value: &body, duplicates: &[], validated: false };
            assert_eq!(apply(&json!({}), &body).unwrap_err().to_string(), "Invalid JSON Patch");
        }
    }

    /// Lists hold scalars: the nulls of objects in lists stay or go with what stood there before.
    fn tree() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (0..4i64).prop_map(Value::from)
        ];
        let inner = leaf.prop_recursive(3, 24, 4, |inner| {
            prop_oneof![
                prop::collection::vec(0..4i64, 0..3).prop_map(Value::from),
                prop::collection::btree_map("[a-c]", inner, 0..4)
                    .prop_map(|m| Value::Object(m.into_iter().collect())),
            ]
        });
        prop::collection::btree_map("[a-c]", inner, 0..4).prop_map(|m| Value::Object(m.into_iter().collect()))
    }

    proptest! {
        #[test]
        fn a_merge_patch_is_idempotent(live in tree(), change in tree()) {
            let once = patch(&live, &change).unwrap();
            prop_assert_eq!(patch(&once, &change).unwrap(), once);
        }

        #[test]
        fn members_that_the_patch_does_not_name_stay(live in tree(), change in tree()) {
            let got = patch(&live, &change).unwrap();
            for (name, value) in live.as_object().unwrap() {
                if change.get(name).is_none() {
                    prop_assert_eq!(got.get(name), Some(value));
                }
            }
        }

        #[test]
        fn null_removes(live in tree(), change in tree()) {
            let got = patch(&live, &change).unwrap();
            for (name, value) in change.as_object().unwrap() {
                prop_assert_eq!(got.get(name).is_some(), !value.is_null());
            }
        }
    }
}
