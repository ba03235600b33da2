//! Two values of one schema: merging one into the other, and telling how they differ
//! (`sigs.k8s.io/structured-merge-diff/typed`: `merge.go`, `compare.go`).

use super::fields::{Path, PathElement, Set, same};
use super::shape::{Form, List, MapShape, Shape};
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

/// `right` merged into `left`: what `right` does not have stays; sets and keyed lists are merged by element, in the
/// order of `right`, with the elements that only `left` has in their old places.
pub(crate) fn merge(shape: Shape<'_>, left: &Value, right: &Value) -> Result<Value, String> {
    merge_node(shape, Some(left), Some(right)).map(|merged| merged.unwrap_or(Value::Null))
}

type Merged = Result<Option<Value>, String>;

fn merge_node(shape: Shape<'_>, left: Option<&Value>, right: Option<&Value>) -> Merged {
    let atom = shape.atom();
    // A right value decides the form; without one the left does.
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

fn object(value: Option<&Value>) -> Option<&Map<String, Value>> {
    value.and_then(Value::as_object)
}

fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn names<'a>(
    left: Option<&'a Map<String, Value>>,
    right: Option<&'a Map<String, Value>>,
) -> BTreeSet<&'a String> {
    left.into_iter().chain(right).flat_map(Map::keys).collect()
}

fn merge_maps(
    shape: &MapShape<'_>,
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
) -> Merged {
    let mut out = Map::new();
    for name in names(left, right) {
        let (l, r) = (left.and_then(|m| m.get(name)), right.and_then(|m| m.get(name)));
        let entry = shape.entry(name).ok_or_else(|| format!(".{name}: field not declared in schema"))?;
        if let Some(value) = merge_node(entry, l, r)? {
            out.insert(name.clone(), value);
        }
    }
    Ok(if out.is_empty() { None } else { Some(Value::Object(out)) })
}

/// The elements of both lists. Elements of `right` keep their order; one that only `left` has comes before the
/// next element that both have.
fn merge_lists(list: &List<'_>, left: &[Value], right: &[Value]) -> Merged {
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
            return Err(format!("duplicate entries for key {element}"));
        }
    }
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

fn elements(list: &List<'_>, items: &[Value]) -> Result<Vec<PathElement>, String> {
    items
        .iter()
        .enumerate()
        .map(|(i, item)| list.path_element(item).map_err(|e| format!("element {i}: {e}")))
        .collect()
}

/// How `right` differs from `left`.
pub(crate) fn compare(shape: Shape<'_>, left: &Value, right: &Value) -> Comparison {
    let mut comparison = Comparison::default();
    compare_node(shape, Some(left), Some(right), &mut Vec::new(), &mut comparison);
    comparison
}

/// The fields that differ in `right` from `left` or that only `right` has, without those of `unowned` and without those
/// of `reset` and what is below them: what [`compare`] finds, in one go.
pub(crate) fn written(shape: Shape<'_>, left: &Value, right: &Value, reset: &Set, unowned: &Set) -> Set {
    let mut written = Written { fields: Set::new(), reset, unowned };
    compare_node(shape, Some(left), Some(right), &mut Vec::new(), &mut written);
    written.fields
}

/// Who is told of the differences between two values.
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
    shape: Shape<'_>,
    left: Option<&Value>,
    right: Option<&Value>,
    path: &mut Path,
    out: &mut impl Differences,
) {
    let atom = shape.atom();
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
    let leaf = match (left, right) {
        (_, None) => handle(atom.handled_as(left)),
        (None, _) => handle(atom.handled_as(right)),
        _ if atom.same_form(left, right) => handle(atom.handled_as(right)),
        _ => {
            handle(atom.handled_as(left));
            handle(atom.handled_as(right))
        }
    };
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
        (Some(l), Some(r)) if !same(l, r) => out.modified(path),
        _ => {}
    }
}

fn compare_maps(
    shape: &MapShape<'_>,
    left: Option<&Map<String, Value>>,
    right: Option<&Map<String, Value>>,
    path: &mut Path,
    out: &mut impl Differences,
) {
    for name in names(left, right) {
        if let Some(entry) = shape.entry(name) {
            path.push(PathElement::field(name));
            compare_node(entry, left.and_then(|m| m.get(name)), right.and_then(|m| m.get(name)), path, out);
            path.pop();
        }
    }
}

fn compare_lists(
    list: &List<'_>,
    left: &[Value],
    right: &[Value],
    path: &mut Path,
    out: &mut impl Differences,
) {
    fn group<'a>(list: &List<'_>, items: &'a [Value]) -> BTreeMap<PathElement, Vec<&'a Value>> {
        let mut groups: BTreeMap<PathElement, Vec<&Value>> = BTreeMap::new();
        for item in items {
            if let Ok(element) = list.path_element(item) {
                groups.entry(element).or_default().push(item);
            }
        }
        groups
    }
    let (lefts, rights) = (group(list, left), group(list, right));
    let all: BTreeSet<&PathElement> = lefts.keys().chain(rights.keys()).collect();
    for element in all {
        let l = lefts.get(element).map_or(&[][..], Vec::as_slice);
        let r = rights.get(element).map_or(&[][..], Vec::as_slice);
        path.push(element.clone());
        match (l, r) {
            ([_, _, ..], [_, _, ..]) => {
                if l.len() != r.len() || !l.iter().zip(r).all(|(l, r)| same(l, r)) {
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
