//! Strategic merge patch: a merge patch that knows, from the Go types of a built-in kind, which lists are merged and
//! by which key, and that has directives (`k8s.io/apimachinery/pkg/util/strategicpatch/patch.go`).

mod convert;
mod directives;
mod error;
mod keys;
mod order;

pub use convert::{ConversionError, conversion_error};
pub use error::{Directive, StrategicError};

use crate::body::{Body, Patched};
use crate::error::Error;
use crate::kind::PatchKind;
use crate::value::Found;
use crate::words::{Container, PatchPart};
use directives::{DELETE_FROM, DIRECTIVE, ELEMENT_ORDER, RETAIN_KEYS};
use fleetpass_schema::Schema;
use keys::{Identity, Key, Keys};
use order::{check_order, interleave, merge_key, object, partition};
use serde_json::{Map, Value};
use std::collections::{BTreeSet, HashMap, HashSet};

type Object = Map<String, Value>;

/// How many values a patch may merge anew: those of elements that the patch has merged before, because it names them more than
/// once. Without a bound, many mentions of one large element would cost their product.
const MAX_REMERGED: usize = 4_000_000;

/// What is left of [`MAX_REMERGED`].
struct Budget(usize);

impl Budget {
    /// Takes what the value holds, itself included, and walks no further than the budget goes.
    fn take(&mut self, value: &Value) -> Result<(), StrategicError> {
        self.0 = self.0.checked_sub(1).ok_or(StrategicError::RemergesTooMuch { max: MAX_REMERGED })?;
        match value {
            Value::Array(list) => list.iter().try_for_each(|value| self.take(value)),
            Value::Object(map) => map.values().try_for_each(|value| self.take(value)),
            _ => Ok(()),
        }
    }
}

/// Applies the patch to `live` by the patch strategies of `schema`. The strict errors name repeated members.
///
/// # Errors
/// [`Error::NotAPatch`] if the body is not an object, [`Error::Strategic`] for what cannot be merged.
pub(crate) fn apply(live: &Value, body: &Body<'_>, schema: &Schema) -> Result<Patched, Error> {
    let patch = match body.value {
        Value::Object(patch) => patch.clone(),
        Value::Null => Object::new(),
        other => {
            return Err(Error::NotAPatch {
                kind: PatchKind::Strategic,
                validated: body.validated,
                part: PatchPart::Object,
                found: Found::from(other),
            });
        }
    };
    let original = live.as_object().cloned().unwrap_or_default();
    let mut budget = Budget(MAX_REMERGED);
    let object = merge_map(original, patch, schema, &mut budget).map_err(Error::Strategic)?;
    let object = Value::Object(object);
    let strict = if body.validated { body.duplicates.to_vec() } else { Vec::new() };
    Ok(Patched { object, strict })
}

fn malformed(directive: Directive) -> StrategicError {
    StrategicError::MalformedDirective(directive)
}

/// The schema of a field of a struct, or of the entries of a map.
fn field<'a>(schema: &'a Schema, name: &str) -> Result<&'a Schema, StrategicError> {
    schema.properties.get(name).or(schema.additional.as_ref()).map(|s| &**s).ok_or_else(|| {
        let go_type = schema.go_type.as_deref().unwrap_or_default();
        let short = go_type.rsplit('.').next().unwrap_or_default();
        StrategicError::UnknownField { go_type: short.into(), field: name.into() }
    })
}

/// One map merged into another. Recursion ends with the patch, whose depth the decoder has bounded.
fn merge_map(
    mut original: Object,
    mut patch: Object,
    schema: &Schema,
    budget: &mut Budget,
) -> Result<Object, StrategicError> {
    // A directive is about all of the map: whatever stands beside it is not merged.
    if let Some(directive) = patch.get(DIRECTIVE).cloned() {
        return match directive.as_str() {
            Some("replace") => {
                patch.remove(DIRECTIVE);
                Ok(patch)
            }
            Some("delete") => Ok(Object::new()),
            _ => Err(unknown_directive(&directive, &patch)),
        };
    }
    // Both take from the patch what they have dealt with, so they come before the members are merged one by one.
    retain_keys(&mut original, &mut patch)?;
    order_elements(&mut original, &mut patch, schema, budget)?;
    for (name, change) in patch {
        let (name, deletes) = match name.strip_prefix(DELETE_FROM) {
            None => (name, false),
            Some(rest) => (
                rest.strip_prefix('/').ok_or(malformed(Directive::DeleteFromPrimitiveList))?.to_string(),
                true,
            ),
        };
        // Null takes a member away, with or without the prefix of a directive.
        if change.is_null() {
            original.remove(&name);
            continue;
        }
        let merged = match (original.remove(&name), change) {
            (Some(Value::Object(current)), Value::Object(change)) => {
                Some(Value::Object(merge_map(current, change, field(schema, &name)?, budget)?))
            }
            (Some(Value::Array(current)), Value::Array(change)) => {
                Some(Value::Array(merge_list(current, change, field(schema, &name)?, deletes, budget)?))
            }
            // There is nothing to delete from, and what stands there is left alone.
            (current, _) if deletes => current,
            // Nothing to merge with. The new value must not bring nulls and directives into the stored object.
            (_, change) => without_directives(without_nulls(change)),
        };
        if let Some(merged) = merged {
            original.insert(name, merged);
        }
    }
    Ok(original)
}

/// `$retainKeys`: fields of the original that the directive does not list go; the patch may name no others.
fn retain_keys(original: &mut Object, patch: &mut Object) -> Result<(), StrategicError> {
    let Some(directive) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(keys) = directive else { return Err(malformed(Directive::RetainKeys)) };
    let keys: HashSet<&str> = keys.iter().filter_map(Value::as_str).collect();
    let listed = |name: &str| keys.contains(name);
    // Directives are no fields, and to remove a field that is not kept is no contradiction.
    let foreign = patch.iter().any(|(name, value)| {
        !value.is_null()
            && !name.starts_with(DELETE_FROM)
            && !name.starts_with(ELEMENT_ORDER)
            && !listed(name)
    });
    if foreign {
        return Err(malformed(Directive::RetainKeys));
    }
    original.retain(|name, _| listed(name));
    Ok(())
}

/// `$setElementOrder/list`: merges the list that it is about and puts the elements in the order given; those that
/// only the original has keep their places relative to them. Takes both out of the patch.
fn order_elements(
    original: &mut Object,
    patch: &mut Object,
    schema: &Schema,
    budget: &mut Budget,
) -> Result<(), StrategicError> {
    // Collected first: each of them is taken out of the patch, together with the list that it is about.
    let directives: Vec<String> =
        patch.keys().filter(|name| name.starts_with(ELEMENT_ORDER)).cloned().collect();
    for directive in directives {
        let order = list(patch.remove(&directive).unwrap_or_default())?;
        let name = directive[ELEMENT_ORDER.len()..]
            .strip_prefix('/')
            .ok_or(malformed(Directive::SetElementOrder))?;
        let current = original.get(name).filter(|v| !v.is_null()).cloned().map(list).transpose()?;
        let change = patch.get(name).cloned().map(list).transpose()?;
        let field = field(schema, name)?;
        let key = field.patch.merge_key.as_deref().unwrap_or("");
        check_order(change.as_deref().unwrap_or_default(), &order, key)?;
        let maps = match (&current, &change) {
            (None, None) => continue,
            (current, change) => {
                are_maps(&[current.as_deref().unwrap_or_default(), change.as_deref().unwrap_or_default()])?
            }
        };
        // Before merging, which brings the elements of the patch in: they have no place on the server yet.
        let server_order = current.clone().unwrap_or_default();
        let merged = match (current, change) {
            (Some(current), Some(change)) => merge_list(current, change, field, false, budget)?,
            (current, change) => current.or(change).unwrap_or_default(),
        };
        let key = Key { name: key, maps };
        let (listed, server_only) = partition(merged, &order, key)?;
        let ordered = interleave(listed, server_only, &order, &server_order, key)?;
        original.insert(name.to_string(), Value::Array(ordered));
        patch.remove(name);
    }
    Ok(())
}

/// One list merged into another, in time that grows with both lists. (In Kubernetes it grows with their product.)
fn merge_list(
    original: Vec<Value>,
    patch: Vec<Value>,
    schema: &Schema,
    deletes: bool,
    budget: &mut Budget,
) -> Result<Vec<Value>, StrategicError> {
    // Lists without a merge strategy are atomic, as in a merge patch; directives in them are not looked for.
    if !schema.patch.merge {
        return Ok(patch);
    }
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let maps = are_maps(&[&original, &patch])?;
    let name = schema.patch.merge_key.as_deref().unwrap_or("");
    let key = Key { name, maps };
    let (merged, original, patch) = if maps {
        if name.is_empty() {
            return Err(StrategicError::NoMergeKey);
        }
        // Elements that are directives have no place in the order, so they go first.
        let (original, patch) = special_elements(original, patch, name)?;
        let element = schema.items.as_deref().unwrap_or(schema);
        (merge_elements(original.clone(), &patch, name, element, budget)?, original, patch)
    } else if deletes {
        let gone = Keys::of(&patch, key);
        return Ok(original.into_iter().filter(|value| !gone.contain(value, key)).collect());
    } else {
        // A list of scalars is a set: each value once.
        let mut seen = Keys::none();
        let both = original.iter().chain(&patch).filter(|value| seen.insert(Identity(Some(*value))));
        (both.cloned().collect(), original, patch)
    };
    // The elements of the patch come in the order of the patch, those that only the server has around them.
    let (changed, server_only) = partition(merged, &patch, key)?;
    interleave(changed, server_only, &patch, &original, key)
}

/// Elements with `$patch`: `delete` takes matching elements from the original, `replace` puts the patch in the
/// place of the original. Gives both lists without them.
fn special_elements(
    original: Vec<Value>,
    patch: Vec<Value>,
    key: &str,
) -> Result<(Vec<Value>, Vec<Value>), StrategicError> {
    let mut deleted = Keys::none();
    let mut replace = false;
    // In the order of the patch, because the first error is the one that is reported.
    for element in &patch {
        let Some(directive) = element.get(DIRECTIVE) else { continue };
        match directive.as_str() {
            Some("delete") => {
                deleted.insert(Identity(Some(merge_key(object(element)?, key)?)));
            }
            Some("replace") => replace = true,
            Some("merge") => {
                return Err(StrategicError::MergeDirectiveInList);
            }
            _ => return Err(unknown_directive(directive, object(element)?)),
        }
    }
    let key = Key { name: key, maps: true };
    let original = if replace || deleted.is_empty() {
        original
    } else {
        original.into_iter().filter(|element| !deleted.contain(element, key)).collect()
    };
    let rest = patch.iter().filter(|element| element.get(DIRECTIVE).is_none()).cloned().collect();
    // With `replace` the rest stands for the original and nothing is left to merge into it.
    Ok(if replace { (rest, Vec::new()) } else { (original, rest) })
}

/// Merges each element of the patch into the first element with the same key; those without one are appended.
fn merge_elements(
    mut original: Vec<Value>,
    patch: &[Value],
    key: &str,
    schema: &Schema,
    budget: &mut Budget,
) -> Result<Vec<Value>, StrategicError> {
    // Where the elements with each key are. The keys are copies, since the elements change; of several elements with one key
    // the first counts, and takes its place again if its key is changed back.
    let mut places: HashMap<Value, BTreeSet<usize>> = HashMap::new();
    for (place, element) in original.iter().enumerate() {
        if let Some(value) = element.get(key) {
            places.entry(value.clone()).or_default().insert(place);
        }
    }
    let mut merged_before = HashSet::new();
    for element in patch {
        let change = object(element)?;
        let wanted = merge_key(change, key)?;
        keys::work::count();
        let found = places.get(wanted).and_then(BTreeSet::first).copied();
        let Some((place, other)) = found.and_then(|place| Some((place, original.get_mut(place)?))) else {
            places.entry(wanted.clone()).or_default().insert(original.len());
            merged_before.insert(original.len());
            original.push(element.clone());
            continue;
        };
        if !merged_before.insert(place) {
            budget.take(other)?;
        }
        object(other)?;
        // Taken out, not copied: an element may be large and the patch may name it often.
        let Value::Object(current) = std::mem::take(other) else { continue };
        let merged = merge_map(current, change.clone(), schema, budget)?;
        // A key that is null or a map can be merged into something else (`{"name": null}` takes it away).
        if merged.get(key) != Some(wanted) {
            if let Some(places) = places.get_mut(wanted) {
                places.remove(&place);
            }
            if let Some(value) = merged.get(key) {
                places.entry(value.clone()).or_default().insert(place);
            }
        }
        *other = Value::Object(merged);
    }
    Ok(original)
}

/// Whether the elements of the lists are objects; lists may neither be mixed nor hold lists.
fn are_maps(lists: &[&[Value]]) -> Result<bool, StrategicError> {
    let mut elements = lists.iter().flat_map(|list| list.iter());
    let Some(first) = elements.next() else {
        return Err(StrategicError::NoElements);
    };
    if first.is_array() {
        return Err(StrategicError::ListOfLists);
    }
    if first.is_null() || !elements.all(|element| same_go_type(first, element)) {
        let lists: Vec<Value> = lists.iter().map(|list| Value::Array(list.to_vec())).collect();
        return Err(StrategicError::MixedElements(Found(lists.into())));
    }
    Ok(first.is_object())
}

/// Whether Go decodes both to the same type: whole numbers and others are two.
fn same_go_type(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a.is_f64() == b.is_f64(),
        _ => std::mem::discriminant(a) == std::mem::discriminant(b),
    }
}

/// The elements of a list, or the error that there is none.
fn list(value: Value) -> Result<Vec<Value>, StrategicError> {
    match value {
        Value::Array(list) => Ok(list),
        other => Err(StrategicError::WrongContainer { expected: Container::List, found: Found(other) }),
    }
}

fn unknown_directive(directive: &Value, patch: &Object) -> StrategicError {
    StrategicError::UnknownDirective {
        directive: Found::from(directive),
        patch: Found(Value::Object(patch.clone())),
    }
}

/// The value without the null members of its objects, also of those in lists.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        scalar => scalar,
    }
}

/// The value without the objects in it that hold a directive; `None` if it is one itself.
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

    fn patch(live: &Value, patch: &Value) -> Result<Value, Error> {
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

    /// The classes of errors that a server answers differently.
    fn class(error: &Error) -> &'static str {
        match error {
            Error::NotAPatch { kind: PatchKind::Strategic, .. } => "not a patch",
            Error::Strategic(StrategicError::MalformedDirective(_)) => "directive",
            Error::Strategic(StrategicError::ListOfLists) => "list of lists",
            Error::Strategic(_) => "other",
            _ => "unexpected",
        }
    }

    #[test]
    fn refusals() {
        let live = json!({"secrets": [{"name": "two"}], "odd": {"a": 1}, "metadata": {"finalizers": ["a"]}});
        for (change, want, message) in [
            (
                json!({"$setElementOrder/secrets": [{"name": "two"}], "secrets": [{"name": "unlisted"}]}),
                "other",
                "The order in patch list:\n[map[name:unlisted]]\n doesn't match $setElementOrder list:\n\
                 [map[name:two]]\n",
            ),
            (
                json!({"secrets": [{"notname": "x"}]}),
                "other",
                "map: map[notname:x] does not contain declared merge key: name",
            ),
            (
                json!({"secrets": ["x"]}),
                "other",
                "list element types are not identical: [[map[name:two]] [x]]",
            ),
            (
                json!({"secrets": [{"name": "x", "$patch": "nope"}]}),
                "other",
                "unknown patch type: nope in map: map[$patch:nope name:x]",
            ),
            (json!({"$setElementOrder": []}), "directive", "invalid patch format of setElementOrder list"),
            (
                json!({"$setElementOrder/secrets": "x"}),
                "other",
                "expected a []interface {}, but received a string",
            ),
            (json!({"metadata": {"$retainKeys": 1}}), "directive", "invalid patch format of retainKeys"),
            (
                json!({"metadata": {"$retainKeys": [], "finalizers": ["b"]}}),
                "directive",
                "invalid patch format of retainKeys",
            ),
            (json!({"$deleteFromPrimitiveList": []}), "directive", "invalid patch format of primitive list"),
            (
                json!({"odd": {"a": 2}}),
                "other",
                "unable to find api field in struct ServiceAccount for the json field \"odd\"",
            ),
            (
                json!({"metadata": {"finalizers": [["x"]]}}),
                "other",
                "list element types are not identical: [[a] [[x]]]",
            ),
            (
                json!([]),
                "not a patch",
                "json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
        ] {
            let error = patch(&live, &change).unwrap_err();
            assert_eq!((class(&error), error.to_string().as_str()), (want, message), "{change}");
        }
        let live = json!({"metadata": {"finalizers": []}});
        let error = patch(&live, &json!({"metadata": {"finalizers": [["x"]]}})).unwrap_err();
        assert_eq!(error, Error::Strategic(StrategicError::ListOfLists));
    }
    /// How often keys of elements are hashed or compared to merge `change(n)` into `live(n)`.
    fn work(live: impl Fn(usize) -> Value, change: impl Fn(usize) -> Value, n: usize) -> usize {
        let (live, change) = (live(n), change(n));
        keys::work::of(|| {
            patch(&live, &change).unwrap();
        })
    }

    #[test]
    fn work_grows_as_the_lists_do_and_not_as_their_product() {
        let numbers = |from: usize, n: usize| (from..from + n).map(|i| format!("{i}")).collect::<Vec<_>>();
        let elements = |from: usize, n: usize| {
            Value::from_iter((from..from + n).map(|i| json!({"name": format!("{i}"), "note": "x"})))
        };
        let backwards = |list: Value| Value::from_iter(list.as_array().unwrap().iter().rev().cloned());
        let deletes = |n: usize| {
            Value::from_iter((0..n).map(|i| json!({"name": format!("{}", 2 * i), "$patch": "delete"})))
        };
        type Make<'a> = &'a dyn Fn(usize) -> Value;
        let finalizers: Make = &|n| json!({"metadata": {"finalizers": numbers(0, n)}});
        let secrets: Make = &|n| json!({"secrets": elements(0, n)});
        let cases: &[(&str, Make, Make)] = &[
            ("new finalizers", finalizers, &|n| json!({"metadata": {"finalizers": numbers(n / 2, n)}})),
            ("the same finalizer", finalizers, &|n| json!({"metadata": {"finalizers": vec!["0"; n]}})),
            (
                "finalizers to delete",
                finalizers,
                &|n| json!({"metadata": {"$deleteFromPrimitiveList/finalizers": numbers(n / 2, n)}}),
            ),
            ("finalizers in an order", finalizers, &|n| {
                let mut order = numbers(0, 2 * n);
                order.reverse();
                json!({"metadata": {"$setElementOrder/finalizers": order}})
            }),
            ("new secrets", secrets, &|n| json!({"secrets": elements(n / 2, n)})),
            ("secrets backwards", secrets, &|n| json!({"secrets": backwards(elements(0, n))})),
            ("the same secret", secrets, &|n| json!({"secrets": vec![json!({"name": "0"}); n]})),
            ("secrets to delete", secrets, &|n| json!({"secrets": deletes(n)})),
            (
                "secrets in an order",
                secrets,
                &|n| json!({"secrets": elements(n, n), "$setElementOrder/secrets": elements(0, 2 * n)}),
            ),
        ];
        for (name, live, change) in cases {
            let (small, large) = (work(live, change, 250), work(live, change, 1000));
            assert!(small > 250 && large < 5 * small, "{name}: {small}, {large}");
        }
    }

    /// An element that is named often is merged as often, each time with all that is in it; so this is bounded.
    #[test]
    fn an_element_is_not_merged_again_and_again_without_end() {
        let list = |n: usize| Value::from_iter((0..n).map(|i| json!({"name": format!("{i}")})));
        let live = json!({"secrets": [{"name": "a", "note": list(5000)}]});
        let often = |times: usize| json!({"secrets": vec![json!({"name": "a"}); times]});
        assert!(patch(&live, &often(100)).is_ok());
        let error = patch(&live, &often(1000)).unwrap_err();
        assert_eq!(error, Error::Strategic(StrategicError::RemergesTooMuch { max: MAX_REMERGED }));
        assert!(error.to_string().ends_with("more than the allowed maximum of 4000000 values"), "{error}");
    }

    /// Odd, but it has to be as in Go: an element whose key the patch takes away is not found by it any more.
    #[test]
    fn keys_may_change_while_elements_are_merged() {
        let live = json!({"secrets": [{"name": null, "note": "x"}, {"name": null}]});
        let change = json!({"secrets": [{"name": null, "note": "y"}, {"name": null, "note": "z"}]});
        let error = patch(&live, &change).unwrap_err();
        assert_eq!(error.to_string(), "map: map[note:y] does not contain declared merge key: name");
    }
}
