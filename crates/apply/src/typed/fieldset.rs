//! Which fields a value has (`sigs.k8s.io/structured-merge-diff/typed/tofieldset.go`).

use super::schema::{Form, ListAtom, TypeRef};
use crate::fieldpath::{PathElement, Set};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The fields of a value: leaves, entries of maps and elements of lists.
pub(crate) fn to_set(schema: TypeRef<'_>, value: &Value) -> Set {
    collect(schema, value).0
}

/// The fields below a value, and whether it is one itself.
fn collect(schema: TypeRef<'_>, value: &Value) -> (Set, bool) {
    let mut set = Set::new();
    let atom = schema.atom();
    match atom.handled_as(Some(value)) {
        Form::Scalar => return (set, true),
        Form::Map => {
            let Some(map) = atom.map else { return (set, false) };
            if map.atomic {
                return (set, true);
            }
            let Value::Object(members) = value else { return (set, false) };
            for (name, value) in members {
                let (below, member) = map.entry(name).map(|entry| collect(entry, value)).unwrap_or_default();
                // A struct is owned through its fields, an entry of a map also by itself: it can be there or not.
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                let member = member || empty || map.field(name).is_none();
                set.attach(PathElement::field(name), member, below);
            }
        }
        Form::List => {
            let Some(list) = atom.list else { return (set, false) };
            if list.atomic() {
                return (set, true);
            }
            if let Value::Array(items) = value {
                collect_elements(&list, items, &mut set);
            }
        }
    }
    (set, false)
}

fn collect_elements(list: &ListAtom<'_>, items: &[Value], set: &mut Set) {
    // Grouped beforehand: to look through the list for each element would take quadratic time.
    let mut groups: BTreeMap<PathElement, Option<&Value>> = BTreeMap::new();
    for item in items {
        if let Ok(element) = list.path_element(item) {
            // Elements that stand there twice are owned as one: nobody can say which of them a field belongs to.
            groups.entry(element).and_modify(|only| *only = None).or_insert(Some(item));
        }
    }
    for (element, only) in groups {
        let below = only.map(|item| collect(list.element, item).0).unwrap_or_default();
        set.attach(element, true, below);
    }
}

/// The set with the declared fields that have something below them as members of their own
/// (`EnsureNamedFieldsAreMembers`): without it, removing what is not in a set would leave empty structs behind.
pub(crate) fn with_named_parents(schema: Option<TypeRef<'_>>, set: &Set) -> Set {
    let atom = schema.map(TypeRef::atom);
    let map = atom.as_ref().and_then(|atom| atom.map);
    let list = atom.as_ref().and_then(|atom| atom.list);
    let mut members: BTreeSet<PathElement> = set.members().cloned().collect();
    let mut children = BTreeMap::new();
    for (child, below) in set.children() {
        let next = match (child, map, list) {
            (PathElement::Field(name), Some(map), _) => {
                if map.field(name).is_some() {
                    members.insert(child.clone());
                }
                map.entry(name)
            }
            (PathElement::Key(_), _, Some(list)) => Some(list.element),
            _ => None,
        };
        children.insert(child.clone(), with_named_parents(next, below));
    }
    Set::from_parts(members, children)
}
