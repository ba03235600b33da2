//! JSON patch (RFC 6902) as kube-apiserver applies it: `gopkg.in/evanphx/json-patch.v4` with its habits
//! (a `replace` of a missing member adds it, a `copy` of a missing member copies null, indexes may be negative)
//! and the limits of `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

use super::go_text::json_kind;
use super::{Body, Patched, decode_error};
use fleetpass_apimachinery::status::Status;
use serde_json::Value;

/// How many operations one patch may have.
const MAX_OPERATIONS: usize = 10_000;
/// How many bytes all `copy` operations of one patch may add (`JSONPatchMaxCopyBytes`).
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// How deep a patched document may nest: the store's reader goes no deeper (`serde_json`).
const MAX_DEPTH: usize = 127;
/// How deep it may nest between two operations: what can be walked recursively on any stack.
const MAX_DEPTH_BETWEEN: usize = 1024;

/// An operation that does not apply; what exactly is wrong never reaches the client.
struct Refused;

/// Applies the patch to `live`. The strict errors name unknown and repeated members of the operations.
///
/// Errors: 400 if the body is not a list of operations, 413 if it has too many, 422 if one does not apply.
pub(super) fn apply(live: &Value, body: &Body<'_>) -> Result<Patched, Status> {
    let mut strict = Vec::new();
    if body.validated {
        strict = body.duplicates.iter().map(|e| format!("json patch {e}")).collect();
        strict.extend(check_shape(body)?);
    }
    let operations: &[Value] = match body.value {
        Value::Null => &[],
        Value::Array(operations) => operations,
        other => {
            return Err(decode_error(body, &unmarshal(json_kind(other), "jsonpatch.Patch")));
        }
    };
    if let Some(other) = operations.iter().find(|op| !op.is_object() && !op.is_null()) {
        return Err(decode_error(body, &unmarshal(json_kind(other), "jsonpatch.Operation")));
    }
    if operations.len() > MAX_OPERATIONS {
        return Err(Status::too_large(format!(
            "Request entity is too large: The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, \
             got {}",
            operations.len()
        )));
    }
    match perform_all(live.clone(), operations) {
        Ok(object) => Ok(Patched { object, strict }),
        Err(Refused) => Err(super::unprocessable()),
    }
}

/// The document after all operations. Moves and copies can nest it without end, so its depth is watched: an
/// operation deepens it by no more than its path is long.
fn perform_all(mut document: Value, operations: &[Value]) -> Result<Value, Refused> {
    let mut copied = 0;
    let mut depth = MAX_DEPTH;
    for operation in operations {
        let path = operation.get("path").and_then(Value::as_str).unwrap_or("");
        depth += path.matches('/').count();
        if depth > MAX_DEPTH_BETWEEN {
            depth = MAX_DEPTH.max(depth_of(&document)) + path.matches('/').count();
            if depth > MAX_DEPTH_BETWEEN {
                return Err(Refused);
            }
        }
        perform(&mut document, operation, &mut copied)?;
    }
    if depth_of(&document) > MAX_DEPTH { Err(Refused) } else { Ok(document) }
}

/// How many containers lie within each other.
fn depth_of(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth_of).max().unwrap_or(0),
        Value::Array(list) => 1 + list.iter().map(depth_of).max().unwrap_or(0),
        _ => 0,
    }
}

fn unmarshal(kind: &str, go_type: &str) -> String {
    format!("json: cannot unmarshal {kind} into Go value of type {go_type}")
}

/// What decoding into `[]handlers.jsonPatchOp` finds: the first member of a wrong type is an error, unknown members
/// are strict errors.
fn check_shape(body: &Body<'_>) -> Result<Vec<String>, Status> {
    let operations = match body.value {
        Value::Null => return Ok(Vec::new()),
        Value::Array(operations) => operations,
        other => return Err(decode_error(body, &unmarshal(json_kind(other), "[]handlers.jsonPatchOp"))),
    };
    let mut unknown = Vec::new();
    for (i, operation) in operations.iter().enumerate() {
        let members = match operation {
            Value::Null => continue,
            Value::Object(members) => members,
            other => return Err(decode_error(body, &unmarshal(json_kind(other), "handlers.jsonPatchOp"))),
        };
        for (name, value) in members {
            match name.as_str() {
                "op" | "path" | "from" if !value.is_string() && !value.is_null() => {
                    return Err(decode_error(
                        body,
                        &format!(
                            "json: cannot unmarshal {} into Go struct field jsonPatchOp.{name} of type string",
                            json_kind(value)
                        ),
                    ));
                }
                "op" | "path" | "from" | "value" => {}
                _ => unknown.push(format!("json patch unknown field \"[{i}].{name}\"")),
            }
        }
    }
    Ok(unknown)
}

fn perform(document: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), Refused> {
    let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Refused);
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
            *copied += copy.to_string().len();
            if *copied > MAX_COPIED_BYTES {
                return Err(Refused);
            }
            add(document, text("path")?, copy)
        }
        "test" => test(document, text("path")?, value),
        _ => Err(Refused),
    }
}

/// The container that holds the last part of a pointer, and that part. What stands before the first slash is not
/// looked at.
fn find<'a>(document: &'a mut Value, pointer: &str) -> Result<(&'a mut Value, String), Refused> {
    let mut parts = pointer.split('/').skip(1).map(unescape).peekable();
    let mut container = document;
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return if container.is_object() || container.is_array() {
                Ok((container, part))
            } else {
                Err(Refused)
            };
        }
        container = match container {
            Value::Object(map) => map.get_mut(&part).ok_or(Refused)?,
            Value::Array(list) => {
                let index = existing(list.len(), &part)?;
                list.get_mut(index).ok_or(Refused)?
            }
            _ => return Err(Refused),
        };
    }
    Err(Refused)
}

fn unescape(part: &str) -> String {
    part.replace("~1", "/").replace("~0", "~")
}

/// An index as Go's `strconv.Atoi` reads it.
fn index(key: &str) -> Result<i64, Refused> {
    let digits = key.strip_prefix(['+', '-']).unwrap_or(key);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Refused);
    }
    key.strip_prefix('+').unwrap_or(key).parse().map_err(|_| Refused)
}

/// The position that `key` names in a list whose valid positions are `0..len`; negative ones count from the end.
fn existing(len: usize, key: &str) -> Result<usize, Refused> {
    let index = index(key)?;
    let len = i64::try_from(len).map_err(|_| Refused)?;
    let position = if index < 0 { index.checked_add(len).ok_or(Refused)? } else { index };
    if (0..len).contains(&position) { usize::try_from(position).map_err(|_| Refused) } else { Err(Refused) }
}

/// The member `key`; `None` if an object has no such member.
fn get<'a>(container: &'a Value, key: &str) -> Result<Option<&'a Value>, Refused> {
    match container {
        Value::Object(map) => Ok(map.get(key)),
        Value::Array(list) => Ok(list.get(existing(list.len(), key)?)),
        _ => Err(Refused),
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
        _ => return Err(Refused),
    }
    Ok(())
}

fn remove(document: &mut Value, path: &str) -> Result<Value, Refused> {
    let (container, key) = find(document, path)?;
    match container {
        Value::Object(map) => map.remove(&key).ok_or(Refused),
        Value::Array(list) => {
            let position = existing(list.len(), &key)?;
            Ok(list.remove(position))
        }
        _ => Err(Refused),
    }
}

fn replace(document: &mut Value, path: &str, value: Option<&Value>) -> Result<(), Refused> {
    if path.is_empty() {
        return match value {
            Some(whole @ (Value::Object(_) | Value::Array(_))) => {
                *document = whole.clone();
                Ok(())
            }
            _ => Err(Refused),
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
            *list.get_mut(position).ok_or(Refused)? = value;
            Ok(())
        }
        _ => Err(Refused),
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
    if holds { Ok(()) } else { Err(Refused) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Body, PatchKind, apply_patch};
    use fleetpass_schema::Schema;
    use serde_json::json;

    fn patch(live: Value, operations: Value) -> Result<Value, Status> {
        let body = Body { value: &operations, duplicates: &[], validated: true };
        apply_patch(PatchKind::Json, &live, &body, &Schema::default()).map(|p| p.object)
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
                Err(status) => {
                    assert_eq!(data, Value::Null, "{operations}: {status}");
                    assert_eq!(
                        status.to_json(),
                        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                            "message": "the server rejected our request due to an error in our request",
                            "reason": "Invalid", "details": {}, "code": 422})
                    );
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
            let status = patch(json!({}), body).unwrap_err();
            assert_eq!((status.code, status.message), (400, format!("error decoding patch: {message}")));
        }
        let many = Value::Array(vec![json!({"op": "test", "path": "/a"}); MAX_OPERATIONS + 1]);
        assert_eq!(patch(json!({}), many).unwrap_err().code, 413);
    }

    #[test]
    fn copies_are_bounded() {
        let big = "x".repeat(1024 * 1024);
        let operations = Value::Array(vec![json!({"op": "copy", "from": "/a", "path": "/b"}); 3]);
        assert_eq!(patch(json!({"a": big}), operations).unwrap_err().code, 422);
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
            assert_eq!(deeper(times).unwrap_err().code, 422);
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
