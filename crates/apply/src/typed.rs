//! Values seen through their schema: are they of its type, which fields do they have, what remains without some
//! (`sigs.k8s.io/structured-merge-diff/typed`: `validate.go`, `tofieldset.go`, `remove.go`, `reconcile_schema.go`).

use super::fields::{Path, PathElement, Set};
use super::go_text::{plain, syntax, type_name};
use super::shape::{Form, List, MapShape, Scalar, Shape};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// What is wrong with a value, one text for all: `.path: message`, or a list of those.
pub(crate) fn validate(shape: Shape<'_>, value: &Value, allow_duplicates: bool) -> Result<(), String> {
    let mut check = Check { allow_duplicates, errors: Vec::new() };
    check.node(shape, value, &mut Vec::new());
    match check.errors.as_slice() {
        [] => Ok(()),
        [one] => Err(one.clone()),
        many => Err(std::iter::once("errors:".to_string())
            .chain(many.iter().map(|e| format!("  {e}")))
            .collect::<Vec<_>>()
            .join("\n")),
    }
}

struct Check {
    allow_duplicates: bool,
    errors: Vec<String>,
}

impl Check {
    fn error(&mut self, path: &[PathElement], message: String) {
        let path = super::fields::path_text(path);
        self.errors.push(if path.is_empty() { message } else { format!("{path}: {message}") });
    }

    fn node(&mut self, shape: Shape<'_>, value: &Value, path: &mut Path) {
        let atom = shape.atom();
        match atom.handled_as(Some(value)) {
            Form::Map => match value {
                Value::Null => {}
                Value::Object(map) => {
                    if let Some(shape) = &atom.map {
                        self.map(shape, map, path);
                    }
                }
                other => self.error(path, format!("expected map, got &{{{}}}", plain(other))),
            },
            Form::List => match value {
                Value::Null => {}
                Value::Array(items) => {
                    if let Some(list) = &atom.list {
                        self.list(list, items, path);
                    }
                }
                other => self.error(path, format!("expected list, got &{{{}}}", plain(other))),
            },
            Form::Scalar => {
                if let Some(message) = atom.scalar.and_then(|scalar| wrong_scalar(scalar, value)) {
                    self.error(path, message);
                }
            }
        }
    }

    fn map(&mut self, shape: &MapShape<'_>, map: &Map<String, Value>, path: &mut Path) {
        for (name, value) in map {
            path.push(PathElement::field(name));
            let entry = shape.entry(name);
            match entry {
                Some(entry) => self.node(entry, value, path),
                None => self.error(path, "field not declared in schema".into()),
            }
            path.pop();
            if entry.is_none() {
                return;
            }
        }
    }

    fn list(&mut self, list: &List<'_>, items: &[Value], path: &mut Path) {
        let mut seen = BTreeSet::new();
        for (i, item) in items.iter().enumerate() {
            let element = if list.atomic() {
                PathElement::Index(i64::try_from(i).unwrap_or(i64::MAX))
            } else {
                match list.path_element(item) {
                    Ok(element) => element,
                    Err(message) => return self.error(path, format!("element {i}: {message}")),
                }
            };
            if !list.atomic() && !seen.insert(element.clone()) && !self.allow_duplicates {
                self.error(path, format!("duplicate entries for key {element}"));
            }
            path.push(element);
            self.node(list.element, item, path);
            path.pop();
        }
    }
}

fn wrong_scalar(scalar: Scalar, value: &Value) -> Option<String> {
    if value.is_null() {
        return None;
    }
    match scalar {
        Scalar::Numeric if !value.is_number() => {
            Some(format!("expected numeric (int or float), got {}", type_name(value)))
        }
        Scalar::String if !value.is_string() => {
            Some(format!("expected string, got &value.valueUnstructured{{Value:{}}}", syntax(value)))
        }
        Scalar::Boolean if !value.is_boolean() => {
            Some(format!("expected boolean, got &{{{}}}", plain(value)))
        }
        Scalar::Any if value.is_object() || value.is_array() => {
            Some(format!("expected any scalar, got &{{{}}}", plain(value)))
        }
        _ => None,
    }
}

/// The fields of a value: leaves, entries of maps and elements of lists.
pub(crate) fn to_set(shape: Shape<'_>, value: &Value) -> Set {
    let mut set = Set::new();
    collect(shape, value, &mut Vec::new(), &mut set);
    set
}

fn collect(shape: Shape<'_>, value: &Value, path: &mut Path, set: &mut Set) {
    let atom = shape.atom();
    match atom.handled_as(Some(value)) {
        Form::Scalar => set.insert(path),
        Form::Map => {
            let Some(shape) = atom.map else { return };
            if shape.atomic {
                return set.insert(path);
            }
            let Value::Object(map) = value else { return };
            for (name, value) in map {
                path.push(PathElement::field(name));
                if let Some(entry) = shape.entry(name) {
                    collect(entry, value, path, set);
                }
                let empty = value.is_null() || value.as_object().is_some_and(Map::is_empty);
                if empty || shape.field(name).is_none() {
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
            let Value::Array(items) = value else { return };
            let elements: Vec<_> = items.iter().map(|item| list.path_element(item)).collect();
            for (item, element) in items.iter().zip(&elements) {
                let Ok(element) = element else { continue };
                path.push(element.clone());
                // Elements that stand there twice are owned as one.
                if elements.iter().filter(|other| other.as_ref() == Ok(element)).count() == 1 {
                    collect(list.element, item, path, set);
                }
                set.insert(path);
                path.pop();
            }
        }
    }
}

/// The value without these fields; null where nothing remains of a list or map.
pub(crate) fn remove(shape: Shape<'_>, value: &Value, fields: &Set) -> Value {
    let atom = shape.atom();
    match (atom.handled_as(Some(value)), value) {
        (Form::Scalar, scalar) => scalar.clone(),
        (Form::Map, Value::Object(map)) => {
            let Some(shape) = atom.map.filter(|shape| !shape.atomic) else { return Value::Null };
            let mut out = Map::new();
            for (name, value) in map {
                let child = PathElement::field(name);
                if fields.has_member(&child) {
                    continue;
                }
                let kept = match (fields.below(&child), shape.entry(name)) {
                    (Some(below), Some(entry)) if !below.is_empty() => remove(entry, value, below),
                    _ => value.clone(),
                };
                out.insert(name.clone(), kept);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        (Form::List, Value::Array(items)) => {
            let Some(list) = atom.list.filter(|list| !list.atomic()) else { return Value::Null };
            let mut out = Vec::new();
            for item in items {
                let element = list.path_element(item).ok();
                if element.as_ref().is_some_and(|element| fields.has_member(element)) {
                    continue;
                }
                out.push(match element.and_then(|element| fields.below(&element)) {
                    Some(below) if !below.is_empty() => remove(list.element, item, below),
                    _ => item.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        _ => Value::Null,
    }
}

/// The set with the declared fields that have something below them as members of their own.
pub(crate) fn with_named_parents(shape: Option<Shape<'_>>, set: &Set) -> Set {
    let atom = shape.map(Shape::atom);
    let map = atom.as_ref().and_then(|atom| atom.map);
    let list = atom.as_ref().and_then(|atom| atom.list);
    let mut members: BTreeSet<PathElement> = set.members().cloned().collect();
    let mut children = std::collections::BTreeMap::new();
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

/// The set after a change of the schema: whoever owned parts of what is now one whole owns the whole.
pub(crate) fn reconcile(shape: Shape<'_>, set: &Set) -> Set {
    let mut wholes = Set::new();
    find_wholes(shape, Some(set), false, &mut Vec::new(), &mut wholes);
    if wholes.is_empty() { set.clone() } else { set.recursive_difference(&wholes).union(&wholes) }
}

fn find_wholes(shape: Shape<'_>, set: Option<&Set>, whole: bool, path: &mut Path, wholes: &mut Set) {
    let atom = shape.atom();
    match atom.handled_as(None) {
        Form::Scalar => {}
        Form::List => {
            let Some(list) = atom.list else { return };
            if list.atomic() {
                if !whole {
                    wholes.insert(path);
                }
                return;
            }
            each_child(set, |child, below, whole| {
                path.push(child.clone());
                find_wholes(list.element, below, whole, path, wholes);
                path.pop();
            });
        }
        Form::Map => {
            // What may be anything has no say about who owns its parts.
            let Some(map) = atom.map.filter(|map| !map.free_form()) else { return };
            if map.atomic {
                if !whole && set.is_some_and(|set| !set.is_empty()) {
                    wholes.insert(path);
                }
                return;
            }
            each_child(set, |child, below, whole| {
                let PathElement::Field(name) = child else { return };
                if let Some(entry) = map.entry(name) {
                    path.push(child.clone());
                    find_wholes(entry, below, whole, path, wholes);
                    path.pop();
                }
            });
        }
    }
}

/// Calls `visit` with each child of a set, what is below it, and whether it is owned as a whole.
fn each_child(set: Option<&Set>, mut visit: impl FnMut(&PathElement, Option<&Set>, bool)) {
    let Some(set) = set else { return };
    for (child, below) in set.children().filter(|(child, _)| !set.has_member(child)) {
        visit(child, Some(below), false);
    }
    for member in set.members() {
        let below = set.below(member);
        visit(member, below, below.is_none());
    }
}
