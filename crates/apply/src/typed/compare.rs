//! How two values of one schema differ (`sigs.k8s.io/structured-merge-diff/typed/compare.go`).

use super::members::{items, member_names, object};
use super::schema::{Form, ListAtom, MapAtom, TypeRef};
use crate::fieldpath::{Path, PathElement, Set};
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
    let mut comparison = Comparison::default();
    compare_node(schema, Some(left), Some(right), &mut Path::root(), &mut comparison);
    comparison
}

/// The fields that differ in `right` from `left` or that only `right` has, without those of `unowned` and without those
/// of `reset` and what is below them. It is what [`compare`] finds, in one go instead of with four sets in between: every
/// create and every TokenRequest comes here.
pub(crate) fn written(schema: TypeRef<'_>, left: &Value, right: &Value, reset: &Set, unowned: &Set) -> Set {
    let mut written = Written { fields: Set::new(), reset, unowned };
    compare_node(schema, Some(left), Some(right), &mut Path::root(), &mut written);
    written.fields
}

/// What is done about each difference between two values.
trait Differences {
    /// Only the left value has the field.
    fn removed(&mut self, path: &Path);
    /// The values of the field differ.
    fn modified(&mut self, path: &Path);
    /// Only the right value has the field.
    fn added(&mut self, path: &Path);
}

impl Differences for Comparison {
    fn removed(&mut self, path: &Path) {
        self.removed.insert(path);
    }

    fn modified(&mut self, path: &Path) {
        self.modified.insert(path);
    }

    fn added(&mut self, path: &Path) {
        self.added.insert(path);
    }
}

struct Written<'a> {
    fields: Set,
    reset: &'a Set,
    unowned: &'a Set,
}

impl Differences for Written<'_> {
    fn removed(&mut self, _: &Path) {}

    fn modified(&mut self, path: &Path) {
        self.added(path);
    }

    fn added(&mut self, path: &Path) {
        if !self.reset.covers(path) && !self.unowned.has(path) {
            self.fields.insert(path);
        }
    }
}

fn compare_node(
    schema: TypeRef<'_>,
    left: Option<&Value>,
    right: Option<&Value>,
    path: &mut Path,
    out: &mut impl Differences,
) {
    let atom = schema.atom();
    let mut handle = |form: Form| -> bool {
        match form {
            Form::Scalar => {
                compare_leaf(left, right, path, out);
                true
            }
            Form::Map => {
                let (l, r) = (object(left), object(right));
                match atom.map {
                    Some(map)
                        if !(map.atomic || l.is_none_or(Map::is_empty) && r.is_none_or(Map::is_empty)) =>
                    {
                        compare_maps(&map, l, r, path, out);
                        false
                    }
                    _ => {
                        compare_leaf(left, right, path, out);
                        true
                    }
                }
            }
            Form::List => {
                let (l, r) = (items(left), items(right));
                match atom.list {
                    Some(list) if !(list.atomic() || l.is_empty() && r.is_empty()) => {
                        compare_lists(&list, l, r, path, out);
                        false
                    }
                    _ => {
                        compare_leaf(left, right, path, out);
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
            (None, _) => out.added(path),
            (_, None) => out.removed(path),
            _ => {}
        }
    }
}

fn compare_leaf(left: Option<&Value>, right: Option<&Value>, path: &Path, out: &mut impl Differences) {
    match (left, right) {
        (None, _) => out.added(path),
        (_, None) => out.removed(path),
        (Some(l), Some(r)) if !equal(l, r) => out.modified(path),
        _ => {}
    }
}

fn compare_maps(
    map: &MapAtom<'_>,
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
    path: &mut Path,
    out: &mut impl Differences,
) {
    for name in member_names(left, right) {
        // Fields that the schema does not know are nobody's: validation refuses them where they matter.
        if let Some(entry) = map.entry(name) {
            path.push(PathElement::field(name));
            compare_node(entry, left.and_then(|m| m.get(name)), right.and_then(|m| m.get(name)), path, out);
            path.pop();
        }
    }
}

fn compare_lists(
    list: &ListAtom<'_>,
    left: &[Value],
    right: &[Value],
    path: &mut Path,
    out: &mut impl Differences,
) {
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
        let l = lefts.get(element).map_or(&[][..], Vec::as_slice);
        let r = rights.get(element).map_or(&[][..], Vec::as_slice);
        path.push(element.clone());
        match (l, r) {
            ([_, _, ..], [_, _, ..]) => {
                if l.len() != r.len() || !l.iter().zip(r).all(|(l, r)| equal(l, r)) {
                    out.modified(path);
                }
            }
            // Elements that stand there twice are one field, gone or new as a whole.
            ([_, _, ..], _) => {
                if let [one] = r {
                    compare_node(list.element, None, Some(one), path, out);
                }
                out.removed(path);
            }
            (_, [_, _, ..]) => {
                if let [one] = l {
                    compare_node(list.element, Some(one), None, path, out);
                }
                out.added(path);
            }
            _ => compare_node(list.element, l.first().copied(), r.first().copied(), path, out),
        }
        path.pop();
    }
}
