//! How two values of one schema differ (`sigs.k8s.io/structured-merge-diff/typed/compare.go`).

use super::members::{items, member_names, object};
use super::schema::{Form, ListAtom, MapAtom, TypeRef};
use crate::fieldpath::{PathElement, Set};
use crate::value::equal;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// How one value differs from another. No field is in more than one of the sets.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Comparison {
    /// Fields that only the left value has.
    pub(crate) removed: Set,
    /// Fields that differ.
    pub(crate) modified: Set,
    /// Fields that only the right value has.
    pub(crate) added: Set,
}

impl Comparison {
    /// The comparison without these fields and what is below them.
    pub(crate) fn excluding(self, fields: &Set) -> Self {
        if fields.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }
}

/// How `right` differs from `left`.
pub(crate) fn compare(schema: TypeRef<'_>, left: &Value, right: &Value) -> Comparison {
    let mut found = Compared::default();
    compare_node(schema, Some(left), Some(right), &mut found);
    found.below
}

/// The fields that differ in `right` from `left` or that only `right` has, without those of `unowned` and without those
/// of `reset` and what is below them. It is what [`compare`] finds, in one go instead of with four sets in between: every
/// create and every TokenRequest comes here.
pub(crate) fn written(schema: TypeRef<'_>, left: &Value, right: &Value, reset: &Set, unowned: &Set) -> Set {
    let mut written = Written {
        fields: Set::new(),
        itself: false,
        reset: Some(reset),
        unowned: Some(unowned),
        owned: false,
    };
    compare_node(schema, Some(left), Some(right), &mut written);
    written.fields
}

/// What is done about the differences at and below one node of two values. Each node has its own, which goes into that of its
/// parent when it is complete: sets are made from below ([`Set::attach`]).
trait Differences: Sized {
    /// Only the left value has the node.
    fn removed(&mut self);
    /// The values of the node differ.
    fn modified(&mut self);
    /// Only the right value has the node.
    fn added(&mut self);
    /// What is to become of the differences of a child; `None` if they do not matter.
    fn enter(&self, child: &PathElement) -> Option<Self>;
    /// Takes the differences of a child.
    fn leave(&mut self, child: PathElement, differences: Self);
}

#[derive(Default)]
struct Compared {
    /// Whether the node itself is in the sets that are kept for what is below it.
    removed: bool,
    modified: bool,
    added: bool,
    below: Comparison,
}

impl Differences for Compared {
    fn removed(&mut self) {
        self.removed = true;
    }

    fn modified(&mut self) {
        self.modified = true;
    }

    fn added(&mut self) {
        self.added = true;
    }

    fn enter(&self, _: &PathElement) -> Option<Self> {
        Some(Self::default())
    }

    fn leave(&mut self, child: PathElement, found: Self) {
        for (set, member, below) in [
            (&mut self.below.removed, found.removed, found.below.removed),
            (&mut self.below.modified, found.modified, found.below.modified),
            (&mut self.below.added, found.added, found.below.added),
        ] {
            if member || !below.is_empty() {
                set.attach(child.clone(), member, below);
            }
        }
    }
}

struct Written<'a> {
    /// What was found below the node.
    fields: Set,
    /// Whether the node itself is one of the fields.
    itself: bool,
    /// What of the sets lies below the node.
    reset: Option<&'a Set>,
    unowned: Option<&'a Set>,
    /// Whether the node may be one of the fields.
    owned: bool,
}

impl Differences for Written<'_> {
    fn removed(&mut self) {}

    fn modified(&mut self) {
        self.added();
    }

    fn added(&mut self) {
        self.itself = self.owned;
    }

    fn enter(&self, child: &PathElement) -> Option<Self> {
        if self.reset.is_some_and(|reset| reset.has_member(child)) {
            return None;
        }
        let owned = !self.unowned.is_some_and(|unowned| unowned.has_member(child));
        Some(Self {
            fields: Set::new(),
            itself: false,
            reset: self.reset.and_then(|set| set.below(child)),
            unowned: self.unowned.and_then(|set| set.below(child)),
            owned,
        })
    }

    fn leave(&mut self, child: PathElement, found: Self) {
        self.fields.attach(child, found.itself, found.fields);
    }
}

fn compare_node(
    schema: TypeRef<'_>,
    left: Option<&Value>,
    right: Option<&Value>,
    out: &mut impl Differences,
) {
    let atom = schema.atom();
    let mut handle = |form: Form| -> bool {
        match form {
            Form::Scalar => {
                compare_leaf(left, right, out);
                true
            }
            Form::Map => {
                let (l, r) = (object(left), object(right));
                match atom.map {
                    Some(map)
                        if !(map.atomic || l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) =>
                    {
                        compare_maps(&map, l, r, out);
                        false
                    }
                    _ => {
                        compare_leaf(left, right, out);
                        true
                    }
                }
            }
            Form::List => {
                let (l, r) = (items(left), items(right));
                match atom.list {
                    Some(list) if !(list.atomic() || l.is_empty() && r.is_empty()) => {
                        compare_lists(&list, l, r, out);
                        false
                    }
                    _ => {
                        compare_leaf(left, right, out);
                        true
                    }
                }
            }
        }
    };
    // A value that turned from a list into a map, where it may be both, is handled as both: what was in the one is removed,
    // what is in the other added.
    let leaf = match (left, right) {
        (_, None) => handle(atom.handled_as(left)),
        (None, _) => handle(atom.handled_as(right)),
        _ if atom.same_form(left, right) => handle(atom.handled_as(right)),
        _ => {
            handle(atom.handled_as(left));
            handle(atom.handled_as(right))
        }
    };
    // A leaf has been reported already. Lists and maps that are new or gone are fields themselves, too.
    if !leaf {
        match (left, right) {
            (None, _) => out.added(),
            (_, None) => out.removed(),
            _ => {}
        }
    }
}

fn compare_leaf(left: Option<&Value>, right: Option<&Value>, out: &mut impl Differences) {
    match (left, right) {
        (None, _) => out.added(),
        (_, None) => out.removed(),
        (Some(l), Some(r)) if !equal(l, r) => out.modified(),
        _ => {}
    }
}

fn compare_maps(
    map: &MapAtom<'_>,
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
    out: &mut impl Differences,
) {
    for name in member_names(left, right) {
        // Fields that the schema does not know are nobody's: validation refuses them where they matter.
        if let Some(entry) = map.entry(name) {
            let child = PathElement::field(name);
            let Some(mut found) = out.enter(&child) else { continue };
            let (l, r) = (left.and_then(|m| m.get(name)), right.and_then(|m| m.get(name)));
            compare_node(entry, l, r, &mut found);
            out.leave(child, found);
        }
    }
}

fn compare_lists(list: &ListAtom<'_>, left: &[Value], right: &[Value], out: &mut impl Differences) {
    fn group<'a>(list: &ListAtom<'_>, items: &'a [Value]) -> BTreeMap<PathElement, Vec<&'a Value>> {
        let mut groups: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
        for item in items {
            if let Ok(element) = list.path_element(item) {
                groups.entry(element).or_default().push(item);
            }
        }
        groups
    }
    // Grouped by key, so that each element is looked up once: the order of a list that is a set or a map is no difference.
    let (lefts, rights) = (group(list, left), group(list, right));
    let all: BTreeSet<&PathElement> = lefts.keys().chain(rights.keys()).collect();
    for element in all {
        let Some(mut found) = out.enter(element) else { continue };
        let l = lefts.get(element).map_or(&[][..], Vec::as_slice);
        let r = rights.get(element).map_or(&[][..], Vec::as_slice);
        match (l, r) {
            ([_, _, ..], [_, _, ..]) => {
                if l.len() != r.len() || !l.iter().zip(r).all(|(l, r)| equal(l, r)) {
                    found.modified();
                }
            }
            // Elements that stand there twice are one field, gone or new as a whole.
            ([_, _, ..], _) => {
                if let [one] = r {
                    compare_node(list.element, None, Some(one), &mut found);
                }
                found.removed();
            }
            (_, [_, _, ..]) => {
                if let [one] = l {
                    compare_node(list.element, Some(one), None, &mut found);
                }
                found.added();
            }
            _ => compare_node(list.element, l.first().copied(), r.first().copied(), &mut found),
        }
        out.leave(element.clone(), found);
    }
}
