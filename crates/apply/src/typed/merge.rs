//! Merging one value into another (`sigs.k8s.io/structured-merge-diff/typed/merge.go`).

use super::members::{items, member_names, object};
use super::schema::{Form, ListAtom, MapAtom, TypeRef};
use super::validation_error::{Problem, ValidationError};
use crate::fieldpath::{Path, PathElement};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// `right` merged into `left`: what `right` does not have stays; sets and keyed lists are merged by element, in the
/// order of `right`, with the elements that only `left` has in their old places.
pub(crate) fn merge(schema: TypeRef<'_>, left: &Value, right: &Value) -> Result<Value, ValidationError> {
    merge_node(schema, Some(left), Some(right)).map(|merged| merged.unwrap_or(Value::Null))
}

/// `None` where nothing is left.
type Merged = Result<Option<Value>, ValidationError>;

fn error(problem: Problem) -> ValidationError {
    ValidationError { path: Path::root(), problem }
}

fn merge_node(schema: TypeRef<'_>, left: Option<&Value>, right: Option<&Value>) -> Merged {
    let atom = schema.atom();
    // A right value decides what the node is; without one the left does. That one is a list and the other a map is no
    // error: the right one replaces it.
    let form = atom.handled_as(if right.is_some() { right } else { left });
    let leaf = || Ok(right.or(left).cloned());
    match form {
        Form::Scalar => leaf(),
        Form::Map => {
            let Some(map) = atom.map else { return leaf() };
            let (l, r) = (object(left), object(right));
            if map.atomic || (l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) {
                return leaf();
            }
            merge_maps(&map, l, r)
        }
        Form::List => {
            let Some(list) = atom.list else { return leaf() };
            let (l, r) = (items(left), items(right));
            if list.atomic() || (l.is_empty() && r.is_empty()) {
                return leaf();
            }
            merge_lists(&list, l, r)
        }
    }
}

fn merge_maps(
    map: &MapAtom<'_>,
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
) -> Merged {
    let mut out = Map::new();
    for name in member_names(left, right) {
        let (l, r) = (left.and_then(|m| m.get(name)), right.and_then(|m| m.get(name)));
        let entry = map.entry(name).ok_or_else(|| ValidationError {
            path: vec![PathElement::field(name)].into(),
            problem: Problem::Undeclared,
        })?;
        if let Some(value) = merge_node(entry, l, r)? {
            out.insert(name.clone(), value);
        }
    }
    Ok(if out.is_empty() { None } else { Some(Value::Object(out)) })
}

/// The elements of both lists. Elements of `right` keep their order; one that only `left` has comes before the
/// next element that both have.
fn merge_lists(list: &ListAtom<'_>, left: &[Value], right: &[Value]) -> Merged {
    let lefts = elements(list, left)?;
    let rights = elements(list, right)?;
    let mut by_left: BTreeMap<&PathElement, Option<&Value>> = BTreeMap::new();
    for (element, value) in lefts.iter().zip(left) {
        // What stands in the left list twice is replaced, not merged.
        by_left.entry(element).and_modify(|v| *v = Some(&Value::Null)).or_insert(Some(value));
    }
    let mut by_right: BTreeMap<&PathElement, &Value> = BTreeMap::new();
    for (element, value) in rights.iter().zip(right) {
        if by_right.insert(element, value).is_some() {
            return Err(error(Problem::Duplicate(element.clone())));
        }
    }
    // Both lists are walked at once (`visitListItems`), in linear time but for the look-ups. `next_shared` is the next element
    // of `right` that `left` has too: an element that both have waits for its turn in `right`, and those that only `left` has
    // are put out as they come.
    let mut shared = rights.iter().filter(|element| by_left.contains_key(element));
    let mut next_shared = shared.next();
    let mut done: BTreeSet<&PathElement> = BTreeSet::new();
    let mut out = Vec::with_capacity(left.len().max(right.len()));
    let (mut l, mut r) = (0, 0);
    while l < lefts.len() || r < rights.len() {
        if let (Some(element), Some(theirs)) = (lefts.get(l), rights.get(r)) {
            if element == theirs {
                done.insert(element);
                out.extend(merge_node(list.element, by_left[element], Some(by_right[element]))?);
                l += 1;
                r += 1;
                next_shared = shared.next();
                continue;
            }
            if by_right.contains_key(element) && next_shared.is_some_and(|next| next != element) {
                // Both have it, but its turn comes later.
                l += 1;
                continue;
            }
        }
        if let Some(element) = lefts.get(l) {
            if !by_right.contains_key(element) {
                out.extend(merge_node(list.element, Some(&left[l]), None)?);
                l += 1;
                continue;
            }
            // Put out already, when it was its turn in the right list.
            if done.contains(element) {
                l += 1;
            }
        }
        if let Some(element) = rights.get(r) {
            done.insert(element);
            let mine = by_left.get(element).copied().flatten();
            out.extend(merge_node(list.element, mine, Some(by_right[element]))?);
            r += 1;
            if next_shared == Some(element) {
                next_shared = shared.next();
            }
        }
    }
    Ok(if out.is_empty() { None } else { Some(Value::Array(out)) })
}

fn elements(list: &ListAtom<'_>, items: &[Value]) -> Result<Vec<PathElement>, ValidationError> {
    items
        .iter()
        .enumerate()
        .map(|(index, item)| {
            list.path_element(item).map_err(|problem| error(Problem::Element { index, problem }))
        })
        .collect()
}
