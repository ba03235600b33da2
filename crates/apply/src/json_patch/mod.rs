//! JSON patch (RFC 6902) as kube-apiserver applies it: `gopkg.in/evanphx/json-patch.v4` with its habits
//! (a `replace` of a missing member adds it, a `copy` of a missing member copies null, indexes may be negative)
//! and the limits of `k8s.io/apiserver/pkg/endpoints/handlers/patch.go`.

mod document;

use crate::body::{Body, Patched};
use crate::error::Error;
use crate::kind::PatchKind;
use crate::value::Found;
use crate::words::PatchPart;
use document::{Node, depth_of};
use serde_json::Value;
use std::io;

/// How many operations one patch may have.
const MAX_OPERATIONS: usize = 10_000;
/// How many bytes all `copy` operations of one patch may add (`JSONPatchMaxCopyBytes`).
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;

/// How deep a patched document may nest: the store's reader goes no deeper (`serde_json`).
const MAX_DEPTH: usize = 127;
/// How deep it may nest between two operations: what can be walked recursively on any stack.
const MAX_DEPTH_BETWEEN: usize = 1024;
/// How many values may be looked at to find out how deep what is moved is.
const MAX_MEASURED: usize = 10_000_000;

/// Why an operation is not carried out.
enum Refused {
    /// There is no such place or operation, or a test fails.
    DoesNotApply,
    /// It copies more than is left of [`MAX_COPIED_BYTES`], or nests the document too deeply.
    GrowsTooMuch,
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

/// The document after all operations.
fn perform_all(document: Value, operations: &[Value]) -> Result<Value, Error> {
    let mut document = Document {
        root: Node::Whole(document),
        left_to_copy: MAX_COPIED_BYTES,
        left_to_measure: MAX_MEASURED,
        depth: MAX_DEPTH,
    };
    for (position, operation) in operations.iter().enumerate() {
        document.perform(operation).map_err(|refused| match refused {
            Refused::DoesNotApply => Error::DoesNotApply { operation: position },
            Refused::GrowsTooMuch => Error::GrowsTooMuch,
        })?;
    }
    let document = document.root.into_value();
    if depth_of(&document) > MAX_DEPTH { Err(Error::GrowsTooMuch) } else { Ok(document) }
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

/// The document between two operations, and what the operations that follow may still do.
struct Document {
    root: Node,
    /// What is left of [`MAX_COPIED_BYTES`].
    left_to_copy: usize,
    /// What is left of [`MAX_MEASURED`].
    left_to_measure: usize,
    /// How deep the document may be by now: moves and copies can nest it without end. It may be less deep, since nothing is
    /// measured anew when parts are taken away.
    depth: usize,
}

impl Document {
    fn perform(&mut self, operation: &Value) -> Result<(), Refused> {
        let text = |name: &str| operation.get(name).and_then(Value::as_str).ok_or(Refused::DoesNotApply);
        let value = operation.get("value");
        match text("op")? {
            "add" => {
                let (path, value) = (text("path")?, value.cloned().unwrap_or(Value::Null));
                self.deepen(path, depth_of(&value))?;
                add(&mut self.root, path, Node::Whole(value))
            }
            "remove" => remove(&mut self.root, text("path")?).map(|_| ()),
            "replace" => {
                let path = text("path")?;
                self.deepen(path, value.map_or(0, depth_of))?;
                replace(&mut self.root, path, value)
            }
            "move" => {
                let (from, path) = (text("from")?, text("path")?);
                let moved = remove(&mut self.root, from)?;
                // It is no deeper than what may be below the place where it has been. Most are far less deep, but to measure
                // each would take quadratic time.
                let mut depth = self.depth.saturating_sub(steps(from));
                if steps(path) + depth > MAX_DEPTH_BETWEEN {
                    depth = moved.depth(&mut self.left_to_measure)?;
                }
                self.deepen(path, depth)?;
                add(&mut self.root, path, moved)
            }
            "copy" => {
                let (container, key) = find(&mut self.root, text("from")?)?;
                let copy = get(container, &key)?.map_or(Value::Null, |node| node.to_value());
                // Before it is put there: copies of copies grow exponentially.
                let mut counter = Counter(&mut self.left_to_copy);
                serde_json::to_writer(&mut counter, &copy).map_err(|_| Refused::GrowsTooMuch)?;
                let path = text("path")?;
                self.deepen(path, depth_of(&copy))?;
                add(&mut self.root, path, Node::Whole(copy))
            }
            "test" => test(&mut self.root, text("path")?, value),
            _ => Err(Refused::DoesNotApply),
        }
    }

    /// Takes note that something of this depth is put at the path.
    fn deepen(&mut self, path: &str, depth: usize) -> Result<(), Refused> {
        let depth = steps(path) + depth;
        if depth > MAX_DEPTH_BETWEEN {
            return Err(Refused::GrowsTooMuch);
        }
        self.depth = self.depth.max(depth);
        Ok(())
    }
}

/// How many steps a path has.
fn steps(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

/// Counts the bytes that are written, down from what may be.
struct Counter<'a>(&'a mut usize);

impl io::Write for Counter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        *self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The container that holds the last part of a pointer, taken apart, and that part. What stands before the first slash is not
/// looked at.
fn find<'a>(document: &'a mut Node, pointer: &str) -> Result<(&'a mut Node, String), Refused> {
    // `json-patch.v4` splits and drops the first part without a look at it.
    let mut parts = pointer.split('/').skip(1).map(unescape).peekable();
    let mut container = document;
    while let Some(part) = parts.next() {
        container.open();
        if parts.peek().is_none() {
            return match container {
                Node::Whole(_) => Err(Refused::DoesNotApply),
                container => Ok((container, part)),
            };
        }
        container = get(container, &part)?.ok_or(Refused::DoesNotApply)?;
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
fn get<'a>(container: &'a mut Node, key: &str) -> Result<Option<&'a mut Node>, Refused> {
    match container {
        Node::Object(members) => Ok(members.get_mut(key)),
        Node::List(list) => {
            let position = existing(list.len(), key)?;
            Ok(list.get_mut(position))
        }
        Node::Whole(_) => Err(Refused::DoesNotApply),
    }
}

fn add(document: &mut Node, path: &str, value: Node) -> Result<(), Refused> {
    let (container, key) = find(document, path)?;
    match container {
        Node::Object(members) => {
            members.insert(key, value);
            Ok(())
        }
        Node::List(list) => {
            let len = list.len();
            let position = if key == "-" { len } else { existing(len + 1, &key)? };
            list.insert(position, value).ok_or(Refused::DoesNotApply)
        }
        Node::Whole(_) => Err(Refused::DoesNotApply),
    }
}

fn remove(document: &mut Node, path: &str) -> Result<Node, Refused> {
    let (container, key) = find(document, path)?;
    match container {
        Node::Object(members) => members.remove(&key),
        Node::List(list) => {
            let position = existing(list.len(), &key)?;
            list.remove(position)
        }
        Node::Whole(_) => None,
    }
    .ok_or(Refused::DoesNotApply)
}

fn replace(document: &mut Node, path: &str, value: Option<&Value>) -> Result<(), Refused> {
    // The whole document: only by something that can hold fields.
    if path.is_empty() {
        return match value {
            Some(whole @ (Value::Object(_) | Value::Array(_))) => {
                *document = Node::Whole(whole.clone());
                Ok(())
            }
            _ => Err(Refused::DoesNotApply),
        };
    }
    let value = Node::Whole(value.cloned().unwrap_or(Value::Null));
    let (container, key) = find(document, path)?;
    if let Node::Object(members) = container {
        members.insert(key, value);
        return Ok(());
    }
    *get(container, &key)?.ok_or(Refused::DoesNotApply)? = value;
    Ok(())
}

/// A missing member equals null, and null equals an operation without a value.
fn test(document: &mut Node, path: &str, value: Option<&Value>) -> Result<(), Refused> {
    let wanted = value.unwrap_or(&Value::Null);
    let holds = if path.is_empty() {
        document.equals(wanted)
    } else {
        let (container, key) = find(document, path)?;
        get(container, &key)?.map_or(wanted.is_null(), |node| node.equals(wanted))
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

    /// As deep a document as may be, of which a large part is moved where it may become too deep: that has to be measured, but
    /// not without end.
    #[test]
    fn what_is_measured_is_bounded() {
        let nest = |depth: usize| "/a".repeat(depth);
        let mut operations = Vec::new();
        let mut depth = 1;
        while depth < 1000 {
            operations.push(json!({"op": "add", "path": "/b", "value": {}}));
            operations.push(json!({"op": "move", "from": "/a", "path": "/b/a"}));
            operations.push(json!({"op": "move", "from": "/b", "path": "/a"}));
            depth += 1;
        }
        for _ in 0..500 {
            operations.push(json!({"op": "move", "from": "/large", "path": "/a/large"}));
            operations.push(json!({"op": "move", "from": "/a/large", "path": "/large"}));
        }
        operations.push(json!({"op": "replace", "path": nest(100), "value": 1}));
        let live = |len: usize| json!({"a": {}, "large": vec![0; len]});
        assert!(patch(live(1000), operations.clone().into()).is_ok());
        assert_eq!(patch(live(100_000), operations.into()), Err(Error::GrowsTooMuch));
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
