//! Sets of fields after a change of the schema (`sigs.k8s.io/structured-merge-diff/typed/reconcile_schema.go`).

use super::schema::{Form, TypeRef};
use crate::fieldpath::{Path, PathElement, Set};

/// The set as the present schema has it: whoever owned parts of what is atomic by now owns the whole. Nothing is
/// done about what was atomic and is so no more: its owner has the field itself from then on, and nothing below it.
pub(crate) fn reconcile(schema: TypeRef<'_>, set: &Set) -> Set {
    let mut wholes = Set::new();
    find_wholes(schema, Some(set), false, &mut Path::root(), &mut wholes);
    if wholes.is_empty() { set.clone() } else { set.recursive_difference(&wholes).union(&wholes) }
}

/// Collects the atomic lists and maps of which the set has parts. `whole`: whether the set has this node as a member with
/// nothing below it.
fn find_wholes(schema: TypeRef<'_>, set: Option<&Set>, whole: bool, path: &mut Path, wholes: &mut Set) {
    let atom = schema.atom();
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
