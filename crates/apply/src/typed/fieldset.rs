//! Which fields a value has (`sigs.k8s.io/structured-merge-diff/typed/tofieldset.go`).

use super::schema::{Form, ListAtom, TypeRef};
use crate::fieldpath::{Path, PathElement, Set};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The fields of a value: leaves, entries of maps and elements of lists.
pub(crate) fn to_set(schema: TypeRef<'_>, value: &Value) -> Set {
    let mut set = Set::new();
    collect(schema, value, &mut Path::root(), &mut set);
    set
}

fn collect(schema: TypeRef<'_>, value: &Value, path: &mut Path, set: &mut Set) {
    let atom = schema.atom();
    match atom.handled_as(Some(value)) {
        Form::Scalar => set.insert(path),
        Form::Map => {
            let Some(map) = atom.map else { return };
            if map.atomic {
                return set.insert(path);
            }
            let Value::Object(members) = value else { return };
            for (name, value) in members {
                path.push(PathElement::field(name));
                if let Some(entry) = map.entry(name) {
                    collect(entry, value, path, set);
                }
                // A struct is owned through its fields, an entry of a map also by itself: it can be there or not.
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || map.field(name).is_none() {
                    set.insert(path);
                }
                path.pop();
            }
        }
        Form::List => {
            let Some(list) = atom.list else { return };
            if list.atomic() {
                return set.insert(path);
            }
            if let Value::Array(items) = value {
                collect_elements(&list, items, path, set);
            }
        }
    }
}

fn collect_elements(list: &ListAtom<'_>, items: &[Value], path: &mut Path, set: &mut Set) {
    let elements: Vec<_> = items.iter().map(|item| list.path_element(item).ok()).collect();
    // Counted beforehand: to look through the list for each element would take quadratic time.
    let mut counts: BTreeMap<&PathElement, usize> = BTreeMap::new();
    for element in elements.iter().flatten() {
        *counts.entry(element).or_default() += 1;
    }
    for (item, element) in items.iter().zip(&elements) {
        let Some(element) = element else { continue };
        path.push(element.clone());
        // Elements that stand there twice are owned as one: nobody can say which of them a field belongs to.
        if counts.get(element) == Some(&1) {
            collect(list.element, item, path, set);
        }
        set.insert(path);
        path.pop();
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
