//! Strategic merge patch: a merge patch that knows, from the Go types of a built-in kind, which lists are merged and
//! by which key, and that has directives (`k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`).

use super::go_text::{json_kind, plain, type_name};
use super::{Body, Patched, unprocessable};
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::status::Status;
use fleetpass_schema::Schema;
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList";
const ELEMENT_ORDER: &str = "$setElementOrder";

type Object = Map<String, Value>;

/// Why a patch cannot be applied.
enum Error {
    /// 400: a directive that is not well formed.
    Format(&'static str),
    /// 422.
    ListOfLists,
    /// 500: kube-apiserver gives these no status of their own.
    Other(String),
}

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::Format(message) => Self::bad_request(message),
            Error::ListOfLists => unprocessable(),
            Error::Other(message) => Self::plain_error(message),
        }
    }
}

const BAD_DELETE_LIST: Error = Error::Format("invalid patch format of primitive list");
const BAD_RETAIN_KEYS: Error = Error::Format("invalid patch format of retainKeys");
const BAD_ELEMENT_ORDER: Error = Error::Format("invalid patch format of setElementOrder list");

/// Applies the patch to `live` by the patch strategies of `schema`. The strict errors name repeated members.
///
/// Errors: 400 if the body is not an object or a directive is malformed, 422 for lists of lists, 500 for everything
/// else that kube-apiserver does not expect (a list element without its merge key, …).
pub(super) fn apply(live: &Value, body: &Body<'_>, schema: &Schema) -> Result<Patched, Status> {
    let patch = match body.value {
        Value::Object(patch) => patch.clone(),
        Value::Null => Object::new(),
        other => {
            return Err(Status::bad_request(format!(
                "json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
                json_kind(other)
            )));
        }
    };
    let original = live.as_object().cloned().unwrap_or_default();
    let object = Value::Object(merge_map(original, patch, schema)?);
    let strict = if body.validated { body.duplicates.to_vec() } else { Vec::new() };
    Ok(Patched { object, strict })
}

/// The schema of a field of a struct, or of the entries of a map.
fn field<'a>(schema: &'a Schema, name: &str) -> Result<&'a Schema, Error> {
    schema.properties.get(name).or(schema.additional.as_ref()).map(|s| &**s).ok_or_else(|| {
        let go_type = schema.go_type.as_deref().unwrap_or_default();
        let short = go_type.rsplit('.').next().unwrap_or_default();
        Error::Other(format!(
            "unable to find api field in struct {short} for the json field {}",
            go_quote(name)
        ))
    })
}

fn merge_map(mut original: Object, mut patch: Object, schema: &Schema) -> Result<Object, Error> {
    if let Some(directive) = patch.get(DIRECTIVE).cloned() {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(bad_patch_type(&directive, &patch)),
        };
    }
    retain_keys(&mut original, &mut patch)?;
    order_elements(&mut original, &mut patch, schema)?;
    for (name, change) in patch {
        let (name, deletes) = match name.strip_prefix(DELETE_FROM) {
            None => (name, false),
            Some(rest) => (rest.strip_prefix('/').ok_or(BAD_DELETE_LIST)?.to_string(), true),
        };
        if change.is_null() {
            original.remove(&name);
            continue;
        }
        let merged = match (original.remove(&name), change) {
            (Some(Value::Object(current)), Value::Object(change)) => {
                Some(Value::Object(merge_map(current, change, field(schema, &name)?)?))
            }
            (Some(Value::Array(current)), Value::Array(change)) => {
                Some(Value::Array(merge_list(current, change, field(schema, &name)?, deletes)?))
            }
            // There is nothing to delete from.
            (current, _) if deletes => current,
            (_, change) => without_directives(without_nulls(change)),
        };
        if let Some(merged) = merged {
            original.insert(name, merged);
        }
    }
    Ok(original)
}

/// `$retainKeys`: fields of the original that the directive does not list go; the patch may name no others.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), Error> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = directive else { return Err(BAD_RETAIN_KEYS) };
    let listed = |name: &str| keys.iter().any(|key| key == name);
    let foreign = patch.iter().any(|(name, value)| {
        !value.is_null()
            && !name.starts_with(DELETE_FROM)
            && !name.starts_with(ELEMENT_ORDER)
            && !listed(name)
    });
    if foreign {
        return Err(BAD_RETAIN_KEYS);
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// `$setElementOrder/list`: merges the list that it is about and puts the elements in the order given; those that
/// only the original has keep their places relative to them. Takes both out of the patch.
fn order_elements(original: &mut Object, patch: &mut Object, schema: &Schema) -> Result<(), Error> {
    let directives: Vec<String> =
        patch.keys().filter(|name| name.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = list(patch.remove(&directive).unwrap_or_default())?;
        let name = directive[ELEMENT_ORDER.len()..].strip_prefix('/').ok_or(BAD_ELEMENT_ORDER)?;
        let current = original.get(name).filter(|v| !v.is_null()).cloned().map(list).transpose()?;
        let change = patch.get(name).cloned().map(list).transpose()?;
        let field = field(schema, name)?;
        let key = field.patch.merge_key.as_deref().unwrap_or("");
        check_order(change.as_deref().unwrap_or_default(), &order, key)?;
        let kind = match (&current, &change) {
            (None, None) => continue,
            (current, change) => element_kind(&[
                current.as_deref().unwrap_or_default(),
                change.as_deref().unwrap_or_default(),
            ])?,
        };
        let server_order = current.clone().unwrap_or_default();
        let merged = match (current, change) {
            (Some(current), Some(change)) => merge_list(current, change, field, false)?,
            (current, change) => current.or(change).unwrap_or_default(),
        };
        let key = Key { name: key, maps: kind == "map[string]interface {}" };
        let (listed, server_only) = partition(merged, &order, key)?;
        let ordered = interleave(listed, server_only, &order, &server_order, key)?;
        original.insert(name.to_string(), Value::Array(ordered));
        patch.remove(name);
    }
    Ok(())
}

/// The elements of the patch must be listed, and in the order of the list.
fn check_order(change: &[Value], order: &[Value], key: &str) -> Result<(), Error> {
    if change.is_empty() || order.is_empty() {
        return Ok(());
    }
    let kept: Vec<&Value> = if key.is_empty() {
        change.iter().collect()
    } else {
        change.iter().map(object).collect::<Result<Vec<_>, _>>()?;
        change.iter().filter(|element| !is_delete(element)).collect()
    };
    let mut position = 0;
    let mut ordered = order.iter();
    while let Some(element) = kept.get(position) {
        if element.get(DIRECTIVE).is_some() {
            position += 1;
            continue;
        }
        let Some(listed) = ordered.next() else {
            return Err(Error::Other(format!(
                "The order in patch list:\n{}\n doesn't match {ELEMENT_ORDER} list:\n{}\n",
                plain(&Value::Array(change.to_vec())),
                plain(&Value::Array(order.to_vec()))
            )));
        };
        let equal = if key.is_empty() {
            *element == listed
        } else {
            merge_key(object(element)?, key)? == merge_key(object(listed)?, key)?
        };
        if equal {
            position += 1;
        }
    }
    Ok(())
}

fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    schema: &Schema,
    deletes: bool,
) -> Result<Vec<Value>, Error> {
    if !schema.patch.merge {
        return Ok(patch);
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let maps = element_kind(&[&original, &patch])? == "map[string]interface {}";
    let name = schema.patch.merge_key.as_deref().unwrap_or("");
    let key = Key { name, maps };
    let (merged, original, patch) = if maps {
        if name.is_empty() {
            return Err(Error::Other("cannot merge lists without merge key for type struct".into()));
        }
        let (original, patch) = special_elements(original, patch, name)?;
        let element = schema.items.as_deref().unwrap_or(schema);
        (merge_elements(original.clone(), &patch, name, element)?, original, patch)
    } else if deletes {
        return Ok(original.into_iter().filter(|value| !patch.contains(value)).collect());
    } else {
        let mut both = original.clone();
        both.extend(patch.iter().cloned());
        let mut merged: Vec<Value> = Vec::new();
        for value in both {
            if !merged.contains(&value) {
                merged.push(value);
            }
        }
        (merged, original, patch)
    };
    let (changed, server_only) = partition(merged, &patch, key)?;
    interleave(changed, server_only, &patch, &original, key)
}

/// Elements with `$patch`: `delete` takes matching elements from the original, `replace` puts the patch in the
/// place of the original. Gives both lists without them.
fn special_elements(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let mut rest = Vec::new();
    let mut replace = false;
    for element in patch {
        match element.get(DIRECTIVE) {
            None => rest.push(element),
            Some(directive) => match directive.as_str() {
                Some("delete") => {
                    let wanted = merge_key(object(&element)?, key)?;
                    for other in &original {
                        object(other)?;
                    }
                    original.retain(|other| other.get(key) != Some(wanted));
                }
                Some("replace") => replace = true,
                Some("merge") => {
                    return Err(Error::Other("merging lists cannot yet be specified in the patch".into()));
                }
                _ => return Err(bad_patch_type(directive, object(&element)?)),
            },
        }
    }
    Ok(if replace { (rest, Vec::new()) } else { (original, rest) })
}

fn merge_elements(
    mut original: Vec<Value>,
    patch: &[Value],
    key: &str,
    schema: &Schema,
) -> Result<Vec<Value>, Error> {
    for element in patch {
        let change = object(element)?;
        let wanted = merge_key(change, key)?;
        match original.iter_mut().find(|other| other.get(key) == Some(wanted)) {
            Some(other) => {
                let current = object(other)?.clone();
                *other = Value::Object(merge_map(current, change.clone(), schema)?);
            }
            None => original.push(element.clone()),
        }
    }
    Ok(original)
}

/// How elements of a list are told apart: maps by a key, others by themselves.
#[derive(Clone, Copy)]
struct Key<'a> {
    name: &'a str,
    maps: bool,
}

impl Key<'_> {
    fn position(self, list: &[Value], element: &Value) -> Option<usize> {
        list.iter().position(|other| {
            if self.maps { other.get(self.name) == element.get(self.name) } else { other == element }
        })
    }
}

/// The elements that `by` has too, and those that it has not.
fn partition(list: Vec<Value>, by: &[Value], key: Key<'_>) -> Result<(Vec<Value>, Vec<Value>), Error> {
    if key.name.is_empty() {
        return Ok(list.into_iter().partition(|element| by.contains(element)));
    }
    let (mut inside, mut outside) = (Vec::new(), Vec::new());
    for element in list {
        let wanted = merge_key(object(&element)?, key.name)?;
        let found = by.iter().any(|other| other.get(key.name) == Some(wanted));
        if found { inside.push(element) } else { outside.push(element) }
    }
    Ok((inside, outside))
}

/// Sorts the elements of the patch by the patch's order and those that only the server has by the server's, and
/// puts each of the latter before the first element of the patch that came after it on the server.
fn interleave(
    patch: Vec<Value>,
    server_only: Vec<Value>,
    patch_order: &[Value],
    server_order: &[Value],
    key: Key<'_>,
) -> Result<Vec<Value>, Error> {
    let patch = sorted(patch, patch_order, key)?;
    let server_only = sorted(server_only, server_order, key)?;
    let mut out = Vec::with_capacity(patch.len() + server_only.len());
    let mut left = server_only.into_iter().peekable();
    for right in patch {
        while let Some(element) = left.peek() {
            match (key.position(server_order, element), key.position(server_order, &right)) {
                (Some(l), Some(r)) if l < r => out.extend(left.next()),
                _ => break,
            }
        }
        out.push(right);
    }
    out.extend(left);
    Ok(out)
}

fn sorted(mut list: Vec<Value>, order: &[Value], key: Key<'_>) -> Result<Vec<Value>, Error> {
    let mut deleted = Vec::new();
    if key.maps {
        for element in list.iter().chain(order) {
            merge_key(object(element)?, key.name)?;
        }
        (deleted, list) = list.into_iter().partition(is_delete);
    }
    list.sort_by_key(|element| key.position(order, element));
    list.extend(deleted);
    Ok(list)
}

fn is_delete(element: &Value) -> bool {
    element.get(DIRECTIVE).is_some_and(|directive| directive == "delete")
}

/// The Go type of all elements; lists may neither be mixed nor hold lists.
fn element_kind(lists: &[&[Value]]) -> Result<&'static str, Error> {
    let mut kinds = lists.iter().flat_map(|list| list.iter()).map(type_name);
    let Some(first) = kinds.next() else {
        return Err(Error::Other("no elements in any of the given slices".into()));
    };
    if first == "[]interface {}" {
        return Err(Error::ListOfLists);
    }
    if first == "<nil>" || kinds.any(|kind| kind != first) {
        let lists: Vec<Value> = lists.iter().map(|list| Value::Array(list.to_vec())).collect();
        return Err(Error::Other(format!("list element types are not identical: {}", plain(&lists.into()))));
    }
    Ok(first)
}

fn list(value: Value) -> Result<Vec<Value>, Error> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(bad_type("[]interface {}", &other)),
    }
}

fn object(value: &Value) -> Result<&Object, Error> {
    value.as_object().ok_or_else(|| bad_type("map[string]interface {}", value))
}

fn bad_type(expected: &str, actual: &Value) -> Error {
    let actual = if actual.is_null() { "%!s(<nil>)" } else { type_name(actual) };
    Error::Other(format!("expected a {expected}, but received a {actual}"))
}

fn merge_key<'a>(element: &'a Object, key: &str) -> Result<&'a Value, Error> {
    element.get(key).ok_or_else(|| {
        let element = plain(&Value::Object(element.clone()));
        Error::Other(format!("map: {element} does not contain declared merge key: {key}"))
    })
}

fn bad_patch_type(directive: &Value, patch: &Object) -> Error {
    let printed = match directive {
        Value::String(text) => text.clone(),
        other => format!("%!s({}={})", type_name(other), plain(other)),
    };
    Error::Other(format!("unknown patch type: {printed} in map: {}", plain(&Value::Object(patch.clone()))))
}

/// A new value is taken without its nulls …
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        scalar => scalar,
    }
}

/// … and without the objects in it that are directives.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(map) if map.contains_key(DIRECTIVE) => None,
        Value::Object(map) => Some(Value::Object(
            map.into_iter().filter_map(|(k, v)| without_directives(v).map(|v| (k, v))).collect(),
        )),
        Value::Array(list) => Some(Value::Array(list.into_iter().filter_map(without_directives).collect())),
        scalar => Some(scalar),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_schema::{PatchStrategy, Type};
    use serde_json::json;
    use std::sync::Arc;

    fn object_of(fields: Vec<(&str, Schema)>) -> Schema {
        Schema {
            kind: Some(Type::Object),
            properties: fields.into_iter().map(|(n, s)| (n.into(), Arc::new(s))).collect(),
            ..Schema::default()
        }
    }

    fn list_of(items: Schema, merge: bool, key: Option<&str>) -> Schema {
        Schema {
            kind: Some(Type::Array),
            items: Some(Arc::new(items)),
            patch: PatchStrategy { merge, retain_keys: false, merge_key: key.map(Into::into) },
            ..Schema::default()
        }
    }

    fn text() -> Schema {
        Schema { kind: Some(Type::String), ..Schema::default() }
    }

    fn schema() -> Schema {
        let reference = || object_of(vec![("name", text()), ("note", text())]);
        Schema {
            go_type: Some("v1.ServiceAccount".into()),
            ..object_of(vec![
                ("secrets", list_of(reference(), true, Some("name"))),
                ("imagePullSecrets", list_of(reference(), false, None)),
                ("data", Schema { additional: Some(Arc::new(text())), ..object_of(vec![]) }),
                ("metadata", object_of(vec![("finalizers", list_of(text(), true, None))])),
            ])
        }
    }

    fn patch(live: &Value, patch: &Value) -> Result<Value, Status> {
        let body = Body { value: patch, duplicates: &[], validated: true };
        apply(live, &body, &schema()).map(|patched| patched.object)
    }

    fn names(value: &Value) -> String {
        let list = value.as_array().map_or(&[][..], Vec::as_slice);
        list.iter().map(|e| e["name"].as_str().or(e.as_str()).unwrap_or("?")).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn lists_of_objects() {
        for (live, change, want) in [
            ("one two", json!({"secrets": [{"name": "three"}]}), "three one two"),
            ("three one two", json!({"secrets": [{"name": "two"}]}), "three one two"),
            ("three one two", json!({"secrets": [{"name": "one", "$patch": "delete"}]}), "three two"),
            ("three two", json!({"secrets": [{"name": "absent", "$patch": "delete"}]}), "three two"),
            (
                "three two",
                json!({"$setElementOrder/secrets": [{"name": "zero"}, {"name": "three"}, {"name": "two"}],
                       "secrets": [{"name": "zero"}]}),
                "zero three two",
            ),
            (
                "zero three two",
                json!({"$setElementOrder/secrets": [{"name": "two"}, {"name": "zero"}]}),
                "three two zero",
            ),
            ("a b", json!({"secrets": [{"name": "only"}, {"$patch": "replace"}]}), "only"),
            ("a b", json!({"secrets": [{"$patch": "replace"}]}), ""),
            ("a b", json!({"secrets": null}), ""),
            ("a b c", json!({"secrets": [{"name": "c"}, {"name": "a"}]}), "b c a"),
        ] {
            let list: Vec<Value> = live.split(' ').map(|name| json!({"name": name})).collect();
            let got = patch(&json!({"secrets": list}), &change).unwrap();
            assert_eq!(names(&got["secrets"]), want, "{live} + {change}");
        }
    }

    #[test]
    fn elements_are_merged_by_key() {
        let live = json!({"secrets": [{"name": "a", "note": "x"}]});
        let got = patch(&live, &json!({"secrets": [{"name": "a", "note": "y"}]})).unwrap();
        assert_eq!(got["secrets"], json!([{"name": "a", "note": "y"}]));
        let got = patch(&live, &json!({"secrets": [{"name": "a", "$patch": "replace"}]})).unwrap();
        assert_eq!(got["secrets"], json!([]));
    }

    #[test]
    fn lists_of_scalars() {
        for (live, change, want) in [
            ("one", json!({"finalizers": ["two"]}), "two one"),
            ("two one", json!({"finalizers": ["two"]}), "two one"),
            ("two one", json!({"$deleteFromPrimitiveList/finalizers": ["one"]}), "two"),
            (
                "two",
                json!({"$setElementOrder/finalizers": ["three", "two"], "finalizers": ["three"]}),
                "three two",
            ),
        ] {
            let list: Vec<&str> = live.split(' ').collect();
            let got =
                patch(&json!({"metadata": {"finalizers": list}}), &json!({"metadata": change})).unwrap();
            assert_eq!(names(&got["metadata"]["finalizers"]), want, "{live} + {change}");
        }
        let nothing = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": ["one"]}});
        assert_eq!(patch(&json!({"metadata": {}}), &nothing).unwrap(), json!({"metadata": {}}));
    }

    #[test]
    fn other_lists_are_replaced_and_maps_merged() {
        let live = json!({"imagePullSecrets": [{"name": "p"}], "data": {"a": "1", "b": "2"}});
        for (change, want) in [
            (
                json!({"imagePullSecrets": [{"name": "q"}, {"$patch": "replace"}]}),
                json!({"imagePullSecrets": [{"name": "q"}, {"$patch": "replace"}], "data": {"a": "1", "b": "2"}}),
            ),
            (
                json!({"data": {"a": null, "c": "3"}, "imagePullSecrets": null}),
                json!({"data": {"b": "2", "c": "3"}}),
            ),
            (
                json!({"data": {"$patch": "replace", "c": "3"}, "imagePullSecrets": null}),
                json!({"data": {"c": "3"}}),
            ),
            (json!({"data": {"$patch": "delete"}, "imagePullSecrets": null}), json!({"data": {}})),
            (
                json!({"data": {"$retainKeys": ["a", "c"], "c": "3"}, "imagePullSecrets": null}),
                json!({"data": {"a": "1", "c": "3"}}),
            ),
            (
                json!({"imagePullSecrets": null, "data": null, "new": {"x": null, "y": [{"$patch": "delete"}, 1]}}),
                json!({"new": {"y": [1]}}),
            ),
        ] {
            assert_eq!(patch(&live, &change).unwrap(), want, "{change}");
        }
    }

    #[test]
    fn refusals() {
        let live = json!({"secrets": [{"name": "two"}], "odd": {"a": 1}, "metadata": {"finalizers": ["a"]}});
        for (change, code, message) in [
            (
                json!({"$setElementOrder/secrets": [{"name": "two"}], "secrets": [{"name": "unlisted"}]}),
                500,
                "The order in patch list:\n[map[name:unlisted]]\n doesn't match $setElementOrder list:\n\
                 [map[name:two]]\n",
            ),
            (
                json!({"secrets": [{"notname": "x"}]}),
                500,
                "map: map[notname:x] does not contain declared merge key: name",
            ),
            (json!({"secrets": ["x"]}), 500, "list element types are not identical: [[map[name:two]] [x]]"),
            (
                json!({"secrets": [{"name": "x", "$patch": "nope"}]}),
                500,
                "unknown patch type: nope in map: map[$patch:nope name:x]",
            ),
            (json!({"$setElementOrder": []}), 400, "invalid patch format of setElementOrder list"),
            (
                json!({"$setElementOrder/secrets": "x"}),
                500,
                "expected a []interface {}, but received a string",
            ),
            (json!({"metadata": {"$retainKeys": 1}}), 400, "invalid patch format of retainKeys"),
            (
                json!({"metadata": {"$retainKeys": [], "finalizers": ["b"]}}),
                400,
                "invalid patch format of retainKeys",
            ),
            (json!({"$deleteFromPrimitiveList": []}), 400, "invalid patch format of primitive list"),
            (
                json!({"odd": {"a": 2}}),
                500,
                "unable to find api field in struct ServiceAccount for the json field \"odd\"",
            ),
            (
                json!({"metadata": {"finalizers": [["x"]]}}),
                500,
                "list element types are not identical: [[a] [[x]]]",
            ),
            (json!([]), 400, "json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ] {
            let status = patch(&live, &change).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (code, message), "{change}");
        }
    }
}
