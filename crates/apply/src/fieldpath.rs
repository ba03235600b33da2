//! Paths to fields and sets of them (`sigs.k8s.io/structured-merge-diff/fieldpath`), and the JSON form of a set,
//! `FieldsV1`.

use crate::value::OrderedValue;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::ops::{ControlFlow, Deref};

/// One step of a path: how to find a child in its parent. The order is that of the set's JSON form.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathElement {
    /// The field or map entry of this name.
    Field(SmolStr),
    /// The list element whose fields have these values; sorted by name.
    Key(Vec<(String, OrderedValue)>),
    /// The list element that equals this value.
    Value(OrderedValue),
    /// The list element at this position.
    Index(i64),
}

/// The way from an object to one of its fields. It prints as in messages: `.spec.ports[port=80,proto="TCP"].name`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Path(Vec<PathElement>);

/// A set of fields, as a tree. A field that has others below it is a member only if it is named itself (`"."` in
/// `FieldsV1`): to own `spec.replicas` is not to own `spec`.
///
/// ```
/// use fleetpass_apply::fieldpath::Set;
/// use serde_json::json;
///
/// let fields = json!({"f:spec": {"f:ports": {"k:{\"port\":80}": {".": {}, "f:name": {}}}}});
/// let set = Set::from_fields_v1(&fields)?;
/// let paths: Vec<String> = set.paths().iter().map(|path| path.to_string()).collect();
/// assert_eq!(paths, [".spec.ports[port=80]", ".spec.ports[port=80].name"]);
/// assert_eq!(set.to_fields_v1(), fields);
/// # Ok::<(), fleetpass_apply::fieldpath::FieldsV1Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Set {
    /// The children that are in the set themselves.
    members: BTreeSet<PathElement>,
    /// What is in the set below each child. Never an empty set: two sets of the same fields have to compare as equal.
    children: BTreeMap<PathElement, Set>,
}

/// Why a JSON tree is no set of fields in the form `FieldsV1`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FieldsV1Error {
    /// The name of a member is empty.
    #[error("key must be 2 characters long")]
    TooShort,
    /// The second character of a name is no colon.
    #[error("missing colon: {0}")]
    NoColon(String),
    /// What follows the colon is not what the letter before it announces.
    #[error("{name}: {why}")]
    BadElement {
        /// The name of the member.
        name: String,
        /// What is wrong with it.
        why: String,
    },
    /// A member, or the whole, is no object.
    #[error("{0} is not an object")]
    NotAnObject(String),
}

impl Path {
    /// The path of the object itself.
    pub(crate) fn root() -> Self {
        Self::default()
    }

    pub(crate) fn push(&mut self, element: PathElement) {
        self.0.push(element);
    }

    pub(crate) fn pop(&mut self) {
        self.0.pop();
    }
}

impl Deref for Path {
    type Target = [PathElement];

    fn deref(&self) -> &[PathElement] {
        &self.0
    }
}

impl From<Vec<PathElement>> for Path {
    fn from(elements: Vec<PathElement>) -> Self {
        Self(elements)
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|element| write!(f, "{element}"))
    }
}

impl PathElement {
    /// The field of this name.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// The member name in `FieldsV1`: `f:name`, `k:{"key":"value"}`, `v:"value"`, `i:0`.
    fn to_name(&self) -> String {
        match self {
            Self::Field(name) => ["f:", name].concat(),
            Self::Key(fields) => {
                let members: Map<String, Value> =
                    fields.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect();
                format!("k:{}", html_safe(&Value::Object(members).to_string()))
            }
            Self::Value(value) => format!("v:{}", html_safe(&value.0.to_string())),
            Self::Index(index) => format!("i:{index}"),
        }
    }

    /// Reads a member name of `FieldsV1`; `Ok(None)` is a kind of element that this version does not know and that is
    /// passed over, as Kubernetes does (`fieldpath/serialize-pe.go`).
    fn from_name(name: &str) -> Result<Option<Self>, FieldsV1Error> {
        let mut chars = name.chars();
        let kind = chars.next().ok_or(FieldsV1Error::TooShort)?;
        if chars.next() != Some(':') {
            return Err(FieldsV1Error::NoColon(name.into()));
        }
        let rest = chars.as_str();
        let bad = |why: String| FieldsV1Error::BadElement { name: name.into(), why };
        let parsed = || serde_json::from_str::<Value>(rest).map_err(|e| bad(e.to_string()));
        Ok(Some(match kind {
            'f' => Self::field(rest),
            'v' => Self::Value(OrderedValue(parsed()?)),
            'k' => match parsed()? {
                // A serde_json map is sorted by name, as the key has to be.
                Value::Object(fields) => {
                    Self::Key(fields.into_iter().map(|(k, v)| (k, OrderedValue(v))).collect())
                }
                _ => return Err(bad("not an object".into())),
            },
            'i' => Self::Index(rest.parse().map_err(|e: std::num::ParseIntError| bad(e.to_string()))?),
            _ => return Ok(None),
        }))
    }
}

/// JSON text, with the characters escaped that Go escapes for the sake of HTML: these are names of members, and the same
/// field must not have two of them.
fn html_safe(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

impl fmt::Display for PathElement {
    /// As in messages: `.name`, `[key="value"]`, `[="value"]`, `[0]`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(fields) => {
                f.write_str("[")?;
                for (i, (name, value)) in fields.iter().enumerate() {
                    let comma = if i > 0 { "," } else { "" };
                    write!(f, "{comma}{name}={value}")?;
                }
                f.write_str("]")
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(index) => write!(f, "[{index}]"),
        }
    }
}

impl Set {
    /// The empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// A set of fields given as dotted paths of plain names, such as `metadata.name`.
    pub fn of(paths: &[&str]) -> Self {
        let mut set = Self::new();
        for path in paths {
            set.insert(&path.split('.').map(PathElement::field).collect::<Vec<_>>());
        }
        set
    }

    /// Adds one field, not its parents. The empty path is the object itself, which nobody owns.
    pub(crate) fn insert(&mut self, path: &[PathElement]) {
        match path {
            [] => {}
            [last] => {
                self.members.insert(last.clone());
            }
            [first, rest @ ..] => self.children.entry(first.clone()).or_default().insert(rest),
        }
    }

    /// Whether the field itself is in the set.
    pub fn has(&self, path: &[PathElement]) -> bool {
        match path {
            [] => false,
            [last] => self.members.contains(last),
            [first, rest @ ..] => self.children.get(first).is_some_and(|child| child.has(rest)),
        }
    }

    /// Whether no field is in the set.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty() && self.children.is_empty()
    }

    /// How many fields are in the set.
    pub(crate) fn len(&self) -> usize {
        self.members.len() + self.children.values().map(Self::len).sum::<usize>()
    }

    /// Adds the child itself, if `member`, and what is below it. Sets of large values are made in this way, from below: to insert
    /// each path by itself would go through what is above it each time, and keys of list elements may be long.
    pub(crate) fn attach(&mut self, child: PathElement, member: bool, below: Self) {
        if below.is_empty() {
            if member {
                self.members.insert(child);
            }
            return;
        }
        if member {
            self.members.insert(child.clone());
        }
        match self.children.entry(child) {
            Entry::Vacant(entry) => {
                entry.insert(below);
            }
            Entry::Occupied(entry) => entry.into_mut().union_with(below),
        }
    }

    /// Whether this child itself is in the set.
    pub(crate) fn has_member(&self, child: &PathElement) -> bool {
        self.members.contains(child)
    }

    /// What the set holds below this child.
    pub(crate) fn below(&self, child: &PathElement) -> Option<&Self> {
        self.children.get(child)
    }

    /// Children with something below them.
    pub(crate) fn children(&self) -> impl Iterator<Item = (&PathElement, &Self)> {
        self.children.iter()
    }

    /// Children that are in the set themselves.
    pub(crate) fn members(&self) -> impl Iterator<Item = &PathElement> {
        self.members.iter()
    }

    /// Makes a set of members and of what is below; empty parts are left out.
    pub(crate) fn from_parts(members: BTreeSet<PathElement>, children: BTreeMap<PathElement, Self>) -> Self {
        let children = children.into_iter().filter(|(_, child)| !child.is_empty()).collect();
        Self { members, children }
    }

    // The operations on two sets walk both trees at once, which is linear but for look-ups by name.

    /// The fields in either set.
    pub(crate) fn union(&self, other: &Self) -> Self {
        let mut out = self.clone();
        out.union_with(other.clone());
        out
    }

    /// Adds the fields of `other`, in a time that depends on `other` alone, but for look-ups.
    pub(crate) fn union_with(&mut self, other: Self) {
        if self.is_empty() {
            *self = other;
            return;
        }
        self.members.extend(other.members);
        for (child, below) in other.children {
            self.attach(child, false, below);
        }
    }

    /// The fields in both sets.
    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let members = self.members.intersection(&other.members).cloned().collect();
        let children = self.children.iter().filter_map(|(child, below)| {
            other.children.get(child).map(|theirs| (child.clone(), below.intersection(theirs)))
        });
        Self::from_parts(members, children.collect())
    }

    /// The fields that are not in `other`; those below a field of `other` stay (see [`Set::recursive_difference`]).
    pub(crate) fn difference(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self.children.iter().map(|(child, below)| match other.children.get(child) {
            Some(theirs) => (child.clone(), below.difference(theirs)),
            None => (child.clone(), below.clone()),
        });
        Self::from_parts(members, children.collect())
    }

    /// The fields that neither are in `other` nor lie below a field that is.
    pub(crate) fn recursive_difference(&self, other: &Self) -> Self {
        let members = self.members.difference(&other.members).cloned().collect();
        let children = self.children.iter().filter(|(child, _)| !other.members.contains(*child)).map(
            |(child, below)| match other.children.get(child) {
                Some(theirs) => (child.clone(), below.recursive_difference(theirs)),
                None => (child.clone(), below.clone()),
            },
        );
        Self::from_parts(members, children.collect())
    }

    /// The paths of all fields: those of a level before those below it.
    pub fn paths(&self) -> Vec<Path> {
        let mut out = Vec::new();
        let _ = self.visit(&mut Path::root(), &mut |path| {
            out.push(path.clone());
            ControlFlow::Continue(())
        });
        out
    }

    /// Shows `visit` the paths in the order of [`Set::paths`], each below `prefix`, until it breaks.
    pub(crate) fn visit(
        &self,
        prefix: &mut Path,
        visit: &mut impl FnMut(&Path) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for member in &self.members {
            prefix.push(member.clone());
            let flow = visit(prefix);
            prefix.pop();
            flow?;
        }
        for (child, below) in &self.children {
            prefix.push(child.clone());
            let flow = below.visit(prefix, visit);
            prefix.pop();
            flow?;
        }
        ControlFlow::Continue(())
    }

    /// The `FieldsV1` form.
    pub fn to_fields_v1(&self) -> Value {
        let mut out = Map::new();
        for member in &self.members {
            out.insert(member.to_name(), json!({}));
        }
        for (child, below) in &self.children {
            let Value::Object(mut members) = below.to_fields_v1() else { continue };
            if self.members.contains(child) {
                members.insert(".".into(), json!({}));
            }
            out.insert(child.to_name(), members.into());
        }
        Value::Object(out)
    }

    /// Reads the `FieldsV1` form; null is the empty set.
    ///
    /// Errors: a member that is no object, or whose name is not a path element.
    pub fn from_fields_v1(value: &Value) -> Result<Self, FieldsV1Error> {
        match value {
            Value::Null => Ok(Self::new()),
            Value::Object(members) => Self::read(members).map(|(set, _)| set),
            _ => Err(FieldsV1Error::NotAnObject("fieldsV1".into())),
        }
    }

    /// The set below a member, and whether the member itself is owned.
    fn read(members: &Map<String, Value>) -> Result<(Self, bool), FieldsV1Error> {
        let mut set = Self::new();
        let mut owned = false;
        for (name, value) in members {
            if name == "." {
                owned = true;
                continue;
            }
            // What a later version wrote is lost to this one, but does not make the object unreadable.
            let Some(child) = PathElement::from_name(name)? else { continue };
            let Value::Object(grandchildren) = value else {
                return Err(FieldsV1Error::NotAnObject(name.clone()));
            };
            let (below, member) = Self::read(grandchildren)?;
            set.attach(child, member, below);
        }
        // `"f:name": {}` is how an owned leaf is written, so what has nothing below it is owned.
        let leaf = set.is_empty();
        Ok((set, owned || leaf))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn element() -> impl Strategy<Value = PathElement> {
        let scalar = prop_oneof![
            (0..3i64).prop_map(Value::from),
            "[a<&]".prop_map(Value::from),
            Just(Value::Bool(true))
        ];
        prop_oneof![
            "[a-c.:/]{0,2}".prop_map(|name| PathElement::field(&name)),
            prop::collection::btree_map("[a-b]", scalar.clone(), 1..3)
                .prop_map(|m| PathElement::Key(m.into_iter().map(|(k, v)| (k, OrderedValue(v))).collect())),
            scalar.prop_map(|v| PathElement::Value(OrderedValue(v))),
            (0..3i64).prop_map(PathElement::Index),
        ]
    }

    fn set() -> impl Strategy<Value = Set> {
        prop::collection::vec(prop::collection::vec(element(), 1..4), 0..6).prop_map(|paths| {
            let mut set = Set::new();
            paths.iter().for_each(|path| set.insert(path));
            set
        })
    }

    proptest! {
        #[test]
        fn fields_v1_reads_what_it_writes(set in set()) {
            prop_assert_eq!(Set::from_fields_v1(&set.to_fields_v1()).unwrap(), set);
        }

        #[test]
        fn sets_behave_as_sets_of_paths(a in set(), b in set()) {
            let paths = |s: &Set| s.paths().into_iter().collect::<BTreeSet<_>>();
            let (pa, pb) = (paths(&a), paths(&b));
            prop_assert_eq!(paths(&a.union(&b)), &pa | &pb);
            prop_assert_eq!(a.union(&b).len(), (&pa | &pb).len());
            prop_assert_eq!(paths(&a.intersection(&b)), &pa & &pb);
            prop_assert_eq!(paths(&a.difference(&b)), &pa - &pb);
            for path in &pa {
                prop_assert_eq!(a.difference(&b).has(path), !pb.contains(path));
                let covered = (1..=path.len()).any(|n| b.has(&path[..n]));
                prop_assert_eq!(a.recursive_difference(&b).has(path), !covered);
            }
        }
    }

    #[test]
    fn the_json_form_is_that_of_kubernetes() {
        let fields = json!({"f:metadata": {"f:labels": {".": {}, "f:a/b": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"proto\":\"TCP\"}": {".": {}, "f:name": {}}},
                       "f:tags": {"v:\"a\"": {}}, "f:list": {"i:0": {}}}});
        let set = Set::from_fields_v1(&fields).unwrap();
        assert_eq!(set.to_fields_v1(), fields);
        let paths: Vec<_> = set.paths().iter().map(Path::to_string).collect();
        assert_eq!(
            paths,
            [
                ".metadata.labels",
                ".metadata.labels.a/b",
                ".spec.list[0]",
                ".spec.ports[port=80,proto=\"TCP\"]",
                ".spec.ports[port=80,proto=\"TCP\"].name",
                ".spec.tags[=\"a\"]"
            ]
        );
    }

    #[test]
    fn bad_sets_are_refused_and_unknown_steps_ignored() {
        for bad in [
            json!({"f": {}}),
            json!({"fx": {}}),
            json!({"k:[]": {}}),
            json!({"i:x": {}}),
            json!({"f:a": 1}),
            json!([]),
        ] {
            assert!(Set::from_fields_v1(&bad).is_err(), "{bad}");
        }
        assert_eq!(
            Set::from_fields_v1(&json!({"x:later": {"f:a": {}}, "f:a": {}})).unwrap(),
            Set::of(&["a"])
        );
    }
}
