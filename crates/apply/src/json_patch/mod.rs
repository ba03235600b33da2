//! JSON patch (RFC 6902) as kube-apiserver applies it: `gopkg.in/evanphx/json-patch.v4` with its habits
//! (a `replace` of a missing member adds it, a `copy` of a missing member copies null, indexes may be negative)
//! and the limits of `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

use crate::body::{Body, Patched};
use crate::error::Error;
use crate::kind::PatchKind;
use crate::value::Found;
use crate::words::PatchPart;
use serde_json::Value;

/// How many operations one patch may have.
const MAX_OPERATIONS: usize = 10_000;
/// How many bytes all `copy` operations of one patch may add (`JSONPatchMaxCopyBytes`).
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// How deep a patched document may nest: the store's reader goes no deeper (`serde_json`).
const MAX_DEPTH: usize = 127;
/// How deep it may nest between two operations: what can be walked recursively on any stack.
const MAX_DEPTH_BETWEEN: usize = 1024;

/// Why an operation is not carried out.
enum Refused {
    /// There is no such place or operation, or a test fails.
    DoesNotApply,
    /// It copies more than is left of [`MAX_COPIED_BYTES`].
    CopiesTooMuch,
}

/// Applies the patch to `live`. The strict errors name unknown and repeated members of the operations.
///
/// # Errors
/// [`Error::NotAPatch`] if the body is not a list of operations, [`Error::TooManyOperations`],
/// [`Error::DoesNotApply`] and [`Error::GrowsTooMuch`].
pub(crate) fn apply(live: &Value, body: &Body<'_>) -> Result<Patched, Error> {
    let mut strict = Vec::new();
    if body.validated {
        strict = body.duplicates.iter().map(|e| format!("json patch {e}")).collect();
        strict.extend(check_shape(body)?);
    }
    let operations: &[Value] = match body.value {
        Value::Null => &[],
        Value::Array(operations) => operations,
        other => return Err(not_a_patch(body, PatchPart::Operations, other)),
    };
    if let Some(other) = operations.iter().find(|op| !op.is_object() && !op.is_null()) {
        return Err(not_a_patch(body, PatchPart::Operation, other));
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(Error::TooManyOperations { found: operations.len(), max: MAX_OPERATIONS });
    }
    let object = perform_all(live.clone(), operations)?;
    Ok(Patched { object, strict })
}

fn not_a_patch(body: &Body<'_>, part: PatchPart, found: &Value) -> Error {
    Error::NotAPatch { kind: PatchKind::Json, validated: body.validated, part, found: Found::from(found) }
}

/// The document after all operations. Moves and copies can nest it without end, so its depth is watched: an
/// operation deepens it by no more than its path is long.
fn perform_all(mut document: Value, operations: &[Value]) -> Result<Value, Error> {
    let mut budget = MAX_COPIED_BYTES;
    // How deep the document may be by now. It is measured only when this says that it may be too deep: to walk the document
    // after each operation would take quadratic time.
    let mut depth = MAX_DEPTH;
    for (position, operation) in operations.iter().enumerate() {
        let steps = operation.get("path").and_then(Value::as_str).unwrap_or("").matches('/').count();
        depth += steps;
        if depth > MAX_DEPTH_BETWEEN {
            depth = MAX_DEPTH.max(depth_of(&document)) + steps;
            if depth > MAX_DEPTH_BETWEEN {
                return Err(Error::GrowsTooMuch);
            }
        }
        perform(&mut document, operation, &mut budget).map_err(|refused| match refused {
            Refused::DoesNotApply => Error::DoesNotApply { operation: position },
            Refused::CopiesTooMuch => Error::GrowsTooMuch,
        })?;
    }
    if depth_of(&document) > MAX_DEPTH { Err(Error::GrowsTooMuch) } else { Ok(document) }
}

/// How many containers lie within each other.
fn depth_of(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth_of).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

/// What decoding into `[]handlers.jsonPatchOp` finds: the first member of a wrong type is an error, unknown members
/// are strict errors.
fn check_shape(body: &Body<'_>) -> Result<Vec<String>, Error> {
    let operations = match body.value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(operations) => operations,
        other => return Err(not_a_patch(body, PatchPart::Operations, other)),
    };
    let mut unknown = Vec::new();
    for (i, operation) in operations.iter().enumerate() {
        let members = match operation {
            Value::Null => continue,
            Value::Object(members) => members,
            other => return Err(not_a_patch(body, PatchPart::Operation, other)),
        };
        for (name, value) in members {
            match name.as_str() {
                "op" | "path" | "from" if !value.is_string() && !value.is_null() => {
                    return Err(not_a_patch(body, PatchPart::OperationMember(name.clone()), value));
                }
                "op" | "path" | "from" | "value" => {}
                _ => unknown.push(format!("json patch unknown field \"[{i}].{name}\"")),
            }
        }
    }
    Ok(unknown)
}

fn perform(document: &mut Value, operation: &Value, budget: &mut usize) -> Result<(), Refused> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Refused::DoesNotApply);
    let value = operation.get("value");
    match text("op")? {
        "add" => add(document, text("path")?, value.cloned().unwrap_or(Value::Null)),
        "remove" => remove(document, text("path")?).map(|_| ()),
        "replace" => replace(document, text("path")?, value),
        "move" => {
            let moved = remove(document, text("from")?)?;
            add(document, text("path")?, moved)
        }
        "copy" => {
            let (container, key) = find(document, text("from")?)?;
            let copy = get(container, &key)?.cloned().unwrap_or(Value::Null);
            // Before it is put there: copies of copies grow exponentially.
            *budget = budget.checked_sub(copy.to_string().len()).ok_or(Refused::CopiesTooMuch)?;
            add(document, text("path")?, copy)
        }
        "test" => test(document, text("path")?, value),
        _ => Err(Refused::DoesNotApply),
    }
}

/// The container that holds the last part of a pointer, and that part. What stands before the first slash is not
/// looked at.
fn find<'a>(document: &'a mut Value, pointer: &str) -> Result<(&'a mut Value, String), Refused> {
    // `json-patch.v4` splits and drops the first part without a look at it.
    let mut parts = pointer.split('/').skip(1).map(unescape).peekable();
    let mut container = document;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return if container.is_object() || container.is_array() {
                Ok((container, part))
            } else {
                Err(Refused::DoesNotApply)
            };
        }
        container = match container {
            Value::Object(map) => map.get_mut(&part).ok_or(Refused::DoesNotApply)?,
            Value::Array(list) => {
                let index = existing(list.len(), &part)?;
                list.get_mut(index).ok_or(Refused::DoesNotApply)?
            }
            _ => return Err(Refused::DoesNotApply),
        };
    }
    Err(Refused::DoesNotApply)
}

fn unescape(part: &str) -> String {
    // In this order, or `~01` would become `/` and not `~1` (RFC 6901).
    part.replace("~1", "/").replace("~0", "~")
}

/// An index as Go's `strconv.Atoi` reads it.
fn index(key: &str) -> Result<i64, Refused> {
    let digits = key.strip_prefix(['+', '-']).unwrap_or(key);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refused::DoesNotApply);
    }
    key.strip_prefix('+').unwrap_or(key).parse().map_err(|_| Refused::DoesNotApply)
}

/// The position that `key` names in a list whose valid positions are `0..len`; negative ones count from the end.
fn existing(len: usize, key: &str) -> Result<usize, Refused> {
    let index = index(key)?;
    let len = i64::try_from(len).map_err(|_| Refused::DoesNotApply)?;
    let position = if index < 0 { index.checked_add(len).ok_or(Refused::DoesNotApply)? } else { index };
    if (0..len).contains(&position) {
        usize::try_from(position).map_err(|_| Refused::DoesNotApply)
    } else {
        Err(Refused::DoesNotApply)
    }
}

/// The member `key`; `None` if an object has no such member.
fn get<'a>(container: &'a Value, key: &str) -> Result<Option<&'a Value>, Refused> {
    match container {
        Value::Object(map) => Ok(map.get(key)),
        Value::Array(list) => Ok(list.get(existing(list.len(), key)?)),
        _ => Err(Refused::DoesNotApply),
    }
}

fn add(document: &mut Value, path: &str, value: Value) -> Result<(), Refused> {
    let (container, key) = find(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
        }
        Value::Array(list) if key == "-" => list.push(value),
        Value::Array(list) => {
            let position = existing(list.len() + 1, &key)?;
            list.insert(position, value);
        }
        _ => return Err(Refused::DoesNotApply),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, Refused> {
    let (container, key) = find(document, path)?;
    match container {
        Value::Object(map) => map.remove(&key).ok_or(Refused::DoesNotApply),
        Value::Array(list) => {
            let position = existing(list.len(), &key)?;
            Ok(list.remove(position))
        }
        _ => Err(Refused::DoesNotApply),
    }
}

fn replace(document: &mut Value, path: &str, value: Option<&Value>) -> Result<(), Refused> {
    // The whole document: only by something that can hold fields.
    if path.is_empty() {
        return match value {
            Some(whole @ (Value::Object(_) | Value::Array(_))) => {
                *document = whole.clone();
                Ok(())
            }
            _ => Err(Refused::DoesNotApply),
        };
    }
    let value = value.cloned().unwrap_or(Value::Null);
    let (container, key) = find(document, path)?;
    match container {
        Value::Object(map) => {
            map.insert(key, value);
            Ok(())
        }
        Value::Array(list) => {
            let position = existing(list.len(), &key)?;
            *list.get_mut(position).ok_or(Refused::DoesNotApply)? = value;
            Ok(())
        }
        _ => Err(Refused::DoesNotApply),
    }
}

/// A missing member equals null, and null equals an operation without a value.
fn test(document: &mut Value, path: &str, value: Option<&Value>) -> Result<(), Refused> {
    let wanted = value.unwrap_or(&Value::Null);
    let holds = if path.is_empty() {
        document == wanted
    } else {
        let (container, key) = find(document, path)?;
        get(container, &key)?.unwrap_or(&Value::Null) == wanted
    };
    if holds { Ok(()) } else { Err(Refused::DoesNotApply) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_schema::Schema;
    use serde_json::json;

    fn patch(live: Value, operations: Value) -> Result<Value, Error> {
        let body = Body { value: &operations, duplicates: &[], validated: true };
        crate::patch(PatchKind::Json, &live, &body, &Schema::default()).map(|p| p.object)
    }

    #[test]
    fn operations_apply_as_in_kube_apiserver() {
        let live = || json!({"data": {"k": "v", "n": null}, "list": ["a", "b"]});
        let cases = [
            (json!([{"op": "add", "path": "/data/x", "value": 1}]), json!({"k": "v", "n": null, "x": 1})),
            (
                json!([{"op": "replace", "path": "/data/nothere", "value": "x"}]),
                json!({"k": "v", "n": null, "nothere": "x"}),
            ),
            (json!([{"op": "replace", "path": "/data/k"}]), json!({"k": null, "n": null})),
            (json!([{"op": "test", "path": "/data/nothere", "value": null}]), json!({"k": "v", "n": null})),
            (json!([{"op": "test", "path": "/data/n"}]), json!({"k": "v", "n": null})),
            (
                json!([{"op": "move", "from": "/data/k", "path": "/data/a~1b~0c"}]),
                json!({"a/b~c": "v", "n": null}),
            ),
            (
                json!([{"op": "copy", "from": "/data/none", "path": "/data/c"}]),
                json!({"c": null, "k": "v", "n": null}),
            ),
            (
                json!([{"op": "copy", "from": "/list", "path": "/data/c"}, {"op": "remove", "path": "/data/n"}]),
                json!({"c": ["a", "b"], "k": "v"}),
            ),
            (json!([{"op": "add", "path": "", "value": 1}]), Value::Null),
            (json!([{"op": "add", "path": "/no/where", "value": 1}]), Value::Null),
            (json!([{"op": "test", "path": "/data/k", "value": "w"}]), Value::Null),
            (json!([{"op": "remove", "path": "/data/none"}]), Value::Null),
            (json!([{"op": "frobnicate", "path": "/data/k"}]), Value::Null),
            (json!([{"path": "/data/k"}]), Value::Null),
            (json!([null]), Value::Null),
            (json!([]), json!({"k": "v", "n": null})),
            (Value::Null, json!({"k": "v", "n": null})),
        ];
        for (operations, data) in cases {
            match patch(live(), operations.clone()) {
                Ok(object) => assert_eq!(object["data"], data, "{operations}"),
                Err(error) => {
                    assert_eq!(data, Value::Null, "{operations}: {error}");
                    assert_eq!(error, Error::DoesNotApply { operation: 0 });
                }
            }
        }
    }

    #[test]
    fn list_indexes() {
        for (op, key, want) in [
            ("add", "-", Some(json!(["a", "b", "x"]))),
            ("add", "0", Some(json!(["x", "a", "b"]))),
            ("add", "2", Some(json!(["a", "b", "x"]))),
            ("add", "-1", Some(json!(["a", "b", "x"]))),
            ("add", "3", None),
            ("add", "-4", None),
            ("add", "x", None),
            ("replace", "-1", Some(json!(["a", "x"]))),
            ("replace", "-", None),
            ("replace", "2", None),
            ("remove", "+1", Some(json!(["a"]))),
            ("remove", "9", None),
            ("remove", "99999999999999999999", None),
        ] {
            let operations = json!([{"op": op, "path": format!("/list/{key}"), "value": "x"}]);
            let got = patch(json!({"list": ["a", "b"]}), operations).ok().map(|o| o["list"].clone());
            assert_eq!(got, want, "{op} {key}");
        }
    }

    #[test]
    fn what_stands_before_the_first_slash_is_ignored() {
        assert_eq!(
            patch(json!({}), json!([{"op": "add", "path": "data/k", "value": 1}])).unwrap(),
            json!({"k": 1})
        );
    }

    #[test]
    fn bodies_that_are_not_operations() {
        for (body, message) in [
            (
                json!({"op": "add"}),
                "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp",
            ),
            (json!(["x"]), "json: cannot unmarshal string into Go value of type handlers.jsonPatchOp"),
            (
                json!([{"op": 1}]),
                "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
        ] {
            let error = patch(json!({}), body).unwrap_err();
            assert!(matches!(error, Error::NotAPatch { kind: PatchKind::Json, .. }), "{error:?}");
            assert_eq!(error.to_string(), format!("error decoding patch: {message}"));
        }
        for (body, message) in [
            (json!({"op": "add"}), "json: cannot unmarshal object into Go value of type jsonpatch.Patch"),
            (json!(["x"]), "json: cannot unmarshal string into Go value of type jsonpatch.Operation"),
        ] {
            let body = Body { value: &body, duplicates: &[], validated: false };
            assert_eq!(apply(&json!({}), &body).unwrap_err().to_string(), message);
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "/a"}); MAX_OPERATIONS + 1]);
        assert_eq!(
            patch(json!({}), many),
            Err(Error::TooManyOperations { found: MAX_OPERATIONS + 1, max: MAX_OPERATIONS })
        );
    }

    #[test]
    fn the_operation_that_does_not_apply_is_named() {
        let operations =
            json!([{"op": "add", "path": "/a", "value": 1}, {"op": "test", "path": "/a", "value": 2}]);
        assert_eq!(patch(json!({}), operations), Err(Error::DoesNotApply { operation: 1 }));
    }

    #[test]
    fn copies_are_bounded() {
        let big = "x".repeat(1024 * 1024);
        let operations = Value::Array(vec![json!({"op": "copy", "from": "/a", "path": "/b"}); 3]);
        assert_eq!(patch(json!({"a": big}), operations), Err(Error::GrowsTooMuch));
    }

    #[test]
    fn nesting_is_bounded() {
        let deeper = |times: usize| {
            let step = [
                json!({"op": "add", "path": "/b", "value": {}}),
                json!({"op": "move", "from": "/a", "path": "/b/a"}),
                json!({"op": "move", "from": "/b", "path": "/a"}),
            ];
            patch(json!({"a": {}}), Value::Array(step.iter().cycle().take(3 * times).cloned().collect()))
        };
        assert!(deeper(100).is_ok());
        for times in [130, 3_000] {
            assert_eq!(deeper(times), Err(Error::GrowsTooMuch));
        }
        // Many operations that do not nest are fine.
        let flat = Value::Array(vec![json!({"op": "add", "path": "/a/b", "value": {}}); 9_000]);
        assert!(patch(json!({"a": {}}), flat).is_ok());
    }

    #[test]
    fn unknown_members_are_strict_errors() {
        let operations = json!([{"op": "add", "path": "/a", "value": 1, "other": 2}]);
        let duplicates = ["duplicate field \"[0].value\"".to_string()];
        let body = Body { value: &operations, duplicates: &duplicates, validated: true };
        let patched = apply(&json!({}), &body).unwrap();
        assert_eq!(
            patched.strict,
            ["json patch duplicate field \"[0].value\"", "json patch unknown field \"[0].other\""]
        );
    }
}
