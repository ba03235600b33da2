//! Sets of fields after a change of the schema (`sigs.k8s.io/structured-merge-diff/typed/reconcile_schema.go`).

use super::schema::{Form, TypeRef};
use crate::fieldpath::{PathElement, Set};

/// The set as the present schema has it: whoever owned parts of what is atomic by now owns the whole. Nothing is
/// done about what was atomic and is so no more: its owner has the field itself from then on, and nothing below it.
pub(crate) fn reconcile(schema: TypeRef<'_>, set: &Set) -> Set {
    let wholes = find_wholes(schema, Some(set), false).0;
    if wholes.is_empty() {
        return set.clone();
    }
    let mut reconciled = set.recursive_difference(&wholes);
    reconciled.union_with(wholes);
    reconciled
}

/// The atomic lists and maps below a node of which the set has parts, and whether the node is one itself. `whole`: whether the
/// set has this node as a member with nothing below it.
fn find_wholes(schema: TypeRef<'_>, set: Option<&Set>, whole: bool) -> (Set, bool) {
    let mut wholes = Set::new();
    let atom = schema.atom();
    match atom.handled_as(None) {
        Form::Scalar => {}
        Form::List => {
            let Some(list) = atom.list else { return (wholes, false) };
            if list.atomic() {
                return (wholes, !whole);
            }
            each_child(set, |child, below, whole| {
                let (below, itself) = find_wholes(list.element, below, whole);
                if itself || !below.is_empty() {
                    wholes.attach(child.clone(), itself, below);
                }
            });
        }
        Form::Map => {
            // What may be anything has no say about who owns its parts.
            let Some(map) = atom.map.filter(|map| !map.free_form()) else { return (wholes, false) };
            if map.atomic {
                return (wholes, !whole && set.is_some_and(|set| !set.is_empty()));
            }
            each_child(set, |child, below, whole| {
                let PathElement::Field(name) = child else { return };
                let Some(entry) = map.entry(name) else { return };
                let (below, itself) = find_wholes(entry, below, whole);
                if itself || !below.is_empty() {
                    wholes.attach(child.clone(), itself, below);
                }
            });
        }
    }
    (wholes, false)
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
