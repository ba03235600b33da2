//! Which objects a list or a watch can select at all, as far as its path and its field selector tell without looking at an
//! object. What names a namespace or an object is looked up, not searched for.

use super::scope::Scope;
use crate::cache::{Interest, Iter, Object, Objects, join_key, key_range};
use fleetpass_apimachinery::FieldSelector;
use std::ops::Bound;
use std::sync::Arc;

/// How many objects of a namespace are looked at in turn before the search for a name jumps. Below that, walking costs less
/// than finding the place to jump to.
const WALK: usize = 16;

/// How far a query reaches. Its selectors may narrow that further, so they have to be asked about each candidate.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach<'a> {
    prefix: &'a str,
    namespaced: bool,
    /// Empty: all namespaces, or the kind has none.
    namespace: &'a str,
    /// The only name that is selected.
    name: Option<&'a str>,
    /// Whether nothing can be selected: the terms contradict each other or the path.
    empty: bool,
}

impl<'a> Reach<'a> {
    /// The reach of a query of `scope` with these field terms.
    pub(super) fn of(scope: &Scope<'a>, fields: &'a FieldSelector) -> Self {
        let (prefix, namespaced) = (&scope.row.storage_prefix, scope.row.resource.namespaced);
        Self::new(prefix, namespaced, scope.namespace, fields)
    }

    /// The reach of a query of these field terms for a kind that is stored below `prefix`; `path` is the namespace of the path.
    pub(super) fn new(prefix: &'a str, namespaced: bool, path: &'a str, fields: &'a FieldSelector) -> Self {
        let name = fields.required_value("metadata.name");
        let field = fields.required_value("metadata.namespace");
        // A namespaced object has a namespace and any object a name, so neither can be required to be empty.
        let namespace = match field {
            Some(field) if namespaced && path.is_empty() => field,
            _ => path,
        };
        let contradiction = field.is_some_and(|field| field != namespace || (namespaced && field.is_empty()));
        Self { prefix, namespaced, namespace, name, empty: contradiction || name == Some("") }
    }

    /// What a watch of this reach has to be told of.
    pub(super) fn interest(&self) -> Interest<'a> {
        Interest { namespace: self.namespace, name: self.name.unwrap_or_default() }
    }

    /// The candidates among `objects`, in the order of their keys, behind the key `after`.
    pub(super) fn candidates<'o>(&'o self, objects: &'o Objects, after: Option<&str>) -> Candidates<'o> {
        if self.empty {
            return Candidates::One(None);
        }
        let (first, end) = key_range(self.prefix, self.namespace);
        let start = match after {
            Some(after) if after >= first.as_str() => Bound::Excluded(after),
            _ => Bound::Included(first.as_str()),
        };
        let everywhere = self.namespaced && self.namespace.is_empty();
        match self.name {
            Some(name) if everywhere => Candidates::Named(Named {
                reach: self,
                objects,
                name,
                rest: objects.range(start),
                namespace: "",
                walked: 0,
            }),
            Some(name) => {
                let key = join_key(self.prefix, self.namespace, name);
                let behind = after.is_none_or(|after| *key > *after);
                Candidates::One(objects.get(&*key).filter(|_| behind))
            }
            None => {
                let left = objects.rank(Bound::Included(end.as_str())).saturating_sub(objects.rank(start));
                Candidates::Range { rest: objects.range(start), left }
            }
        }
    }
}

/// Objects that a query may select.
pub(super) enum Candidates<'o> {
    /// Those between two keys.
    Range {
        /// They and what comes after them.
        rest: Iter<'o, Arc<str>, Arc<Object>>,
        /// How many of them there are.
        left: usize,
    },
    /// The only one, if it is there.
    One(Option<&'o Arc<Object>>),
    /// Those of one name in all namespaces.
    Named(Named<'o>),
}

impl Candidates<'_> {
    /// How many there are still, if that is known.
    pub(super) fn left(&self) -> Option<usize> {
        match self {
            Self::Range { left, .. } => Some(*left),
            Self::One(object) => Some(usize::from(object.is_some())),
            Self::Named(_) => None,
        }
    }
}

impl<'o> Iterator for Candidates<'o> {
    type Item = &'o Arc<Object>;

    fn next(&mut self) -> Option<Self::Item> {
        match self {
            Self::Range { rest, left } => {
                *left = left.checked_sub(1)?;
                rest.next().map(|(_, object)| object)
            }
            Self::One(object) => object.take(),
            Self::Named(named) => named.next(),
        }
    }
}

/// The search for a name in all namespaces: a few steps for each namespace, however many objects are in it.
pub(super) struct Named<'o> {
    reach: &'o Reach<'o>,
    objects: &'o Objects,
    name: &'o str,
    rest: Iter<'o, Arc<str>, Arc<Object>>,
    /// The namespace that the search is in, and how many of its objects it has looked at.
    namespace: &'o str,
    walked: usize,
}

impl<'o> Named<'o> {
    fn next(&mut self) -> Option<&'o Arc<Object>> {
        loop {
            let (_, object) = self.rest.next()?;
            let (namespace, name) = object.namespace_and_name();
            if namespace != self.namespace {
                (self.namespace, self.walked) = (namespace, 0);
            }
            if name == self.name {
                return Some(object);
            }
            self.walked += 1;
            if self.walked >= WALK {
                // To where the name is in this namespace, or behind the namespace if that is passed already.
                let prefix = self.reach.prefix;
                let to = if name < self.name {
                    join_key(prefix, namespace, self.name)
                } else {
                    key_range(prefix, namespace).1.into()
                };
                self.rest = self.objects.range(Bound::Included(&*to));
            }
        }
    }
}

/// How many bytes of candidates are gone through at once, by what that costs: about a millisecond.
const PIECE: usize = 128 * 1024;
/// What a candidate costs that is not decoded, in bytes that are.
const UNDECODED: usize = 128;

/// Says when a search through candidates has gone on for long enough, and others should have their turn.
#[derive(Debug)]
pub(super) struct Pace {
    /// Whether candidates have to be decoded.
    decodes: bool,
    left: usize,
}

impl Pace {
    /// The pace of a search with these field terms.
    pub(super) fn of(fields: &FieldSelector) -> Self {
        let in_key = |field: &str| matches!(field, "metadata.name" | "metadata.namespace");
        Self { decodes: fields.terms().iter().any(|term| !in_key(&term.field)), left: PIECE }
    }

    /// Whether candidates have to be decoded.
    pub(super) fn decodes(&self) -> bool {
        self.decodes
    }

    /// Whether the piece ends with this candidate; then the next one begins.
    pub(super) fn ends_with(&mut self, candidate: &Object) -> bool {
        let cost = UNDECODED + if self.decodes { candidate.size() } else { 0 };
        match self.left.checked_sub(cost) {
            Some(left) => self.left = left,
            None => self.left = PIECE,
        }
        self.left == PIECE
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::steps;

    const PREFIX: &str = "/registry/things";

    fn fields(text: &str) -> FieldSelector {
        FieldSelector::parse(text).unwrap()
    }

    fn objects(keys: impl IntoIterator<Item = String>) -> Objects {
        let mut objects = Objects::default();
        for key in keys {
            let key: Arc<str> = format!("{PREFIX}/{key}").into();
            let object = Object::new(key.clone(), 1, r#"{"metadata":{}}"#.into()).unwrap();
            objects.insert(key, Arc::new(object));
        }
        objects
    }

    /// What is found (below the prefix), and how many objects were looked at.
    fn found(reach: &Reach<'_>, objects: &Objects, after: Option<&str>) -> (Vec<String>, usize) {
        steps::take();
        let after = after.map(|after| format!("{PREFIX}/{after}"));
        let candidates = reach.candidates(objects, after.as_deref());
        let left = candidates.left();
        let keys: Vec<String> = candidates.map(|object| object.key[PREFIX.len() + 1..].into()).collect();
        assert!(left.is_none_or(|left| left == keys.len()), "{left:?} {keys:?}");
        (keys, steps::take())
    }

    #[test]
    fn a_query_reaches_what_its_path_and_its_fields_allow() {
        // `-` sorts before the slash, `0` and letters after it.
        let there = ["a-b/x", "a/x", "a/y", "a0/x", "aa/x", "b/y"];
        let objects = objects(there.map(String::from));
        for (path, selector, after, expected) in [
            ("", "", None, there.to_vec()),
            ("", "", Some("a/x"), there[2..].to_vec()),
            ("a", "", None, vec!["a/x", "a/y"]),
            ("a", "", Some("a/x"), vec!["a/y"]),
            ("a", "metadata.name=y", None, vec!["a/y"]),
            ("a", "metadata.name=y", Some("a/y"), vec![]),
            ("a", "metadata.name=z", None, vec![]),
            ("", "metadata.name=x", None, vec!["a-b/x", "a/x", "a0/x", "aa/x"]),
            ("", "metadata.name=x", Some("a/x"), vec!["a0/x", "aa/x"]),
            ("", "metadata.name=", None, vec![]),
            ("", "metadata.namespace=a", None, vec!["a/x", "a/y"]),
            ("", "metadata.namespace=a", Some("a/x"), vec!["a/y"]),
            // A token of another query: what it has passed is not shown, and nothing else.
            ("", "metadata.namespace=a", Some("a-b/x"), vec!["a/x", "a/y"]),
            ("", "metadata.namespace=a", Some("b/x"), vec![]),
            ("", "metadata.namespace=a,metadata.name=y", None, vec!["a/y"]),
            ("a", "metadata.namespace=b", None, vec![]),
            ("", "metadata.namespace=", None, vec![]),
            // Not narrowed: the selector itself decides.
            ("a", "metadata.name!=x", None, vec!["a/x", "a/y"]),
        ] {
            let fields = fields(selector);
            let reach = Reach::new(PREFIX, true, path, &fields);
            assert_eq!(found(&reach, &objects, after).0, expected, "{path} {selector} {after:?}");
        }
    }

    #[test]
    fn objects_of_the_cluster_have_names_and_no_namespace() {
        let objects = objects(["a", "b"].map(String::from));
        for (selector, expected) in [
            ("", vec!["a", "b"]),
            ("metadata.name=b", vec!["b"]),
            ("metadata.namespace=a", vec![]),
            ("metadata.namespace=", vec!["a", "b"]),
        ] {
            let fields = fields(selector);
            let reach = Reach::new(PREFIX, false, "", &fields);
            assert_eq!(found(&reach, &objects, None).0, expected, "{selector}");
        }
    }

    #[test]
    fn a_page_costs_its_own_length_wherever_it_is() {
        let objects = objects((0..50_000).map(|n| format!("ns{}/{n:05}", n % 3)));
        let fields = fields("");
        for (path, after, behind) in [
            ("", None, 50_000),
            ("", Some("ns1/00001"), 33_332),
            ("ns1", None, 16_667),
            ("ns1", Some("ns1/00001"), 16_666),
            ("ns1", Some("ns1/49999"), 0),
        ] {
            steps::take();
            let after = after.map(|after| format!("{PREFIX}/{after}"));
            let reach = Reach::new(PREFIX, true, path, &fields);
            let mut candidates = reach.candidates(&objects, after.as_deref());
            let page = candidates.by_ref().take(500).count();
            assert_eq!(candidates.left(), Some(behind - page));
            assert!(steps::take() <= 501, "{path} {after:?}");
        }
    }

    #[test]
    fn a_name_is_looked_up_in_each_namespace() {
        let large = (0..5).flat_map(|ns| (0..4_000).map(move |n| format!("large{ns}/{n:05}")));
        let small = (0..100).map(|ns| format!("small{ns:03}/02000"));
        let objects = objects(large.chain(small));
        for (name, in_large) in [("02000", 5), ("00000", 5), ("", 0), ("zzz", 0), ("03999", 5)] {
            let fields = fields(&format!("metadata.name={name}"));
            let (keys, steps) = found(&Reach::new(PREFIX, true, "", &fields), &objects, None);
            assert_eq!(keys.len(), if name == "02000" { 105 } else { in_large }, "{name}");
            // Twice a jump in each of the large ones, and one step for each of the small ones.
            assert!(steps <= 5 * (WALK + 3) + 101, "{name}: {steps}");
            let one = format!("metadata.name={name},metadata.namespace=large3");
            let fields = self::fields(&one);
            let (keys, steps) = found(&Reach::new(PREFIX, true, "", &fields), &objects, None);
            assert_eq!((keys.len(), steps), (in_large / 5, 0), "{name}");
        }
    }
    #[test]
    fn a_search_ends_in_pieces_that_take_alike() {
        let object = |size: usize| {
            let json = format!(r#"{{"metadata":{{}},"data":"{}"}}"#, "x".repeat(size));
            Object::new(format!("{PREFIX}/a/b").into(), 1, json.into()).unwrap()
        };
        let (small, large) = (object(100), object(2 * PIECE));
        for (selector, candidate, most) in [
            ("", &small, PIECE / UNDECODED),
            ("metadata.name!=x,metadata.namespace!=y", &large, PIECE / UNDECODED),
            ("type=x", &small, PIECE / (UNDECODED + 100)),
            ("type=x", &large, 0),
        ] {
            let mut pace = Pace::of(&fields(selector));
            let pieces: Vec<_> =
                (0..3).map(|_| (0..).take_while(|_| !pace.ends_with(candidate)).count()).collect();
            assert!(
                pieces.iter().all(|piece| *piece == pieces[0] && *piece <= most),
                "{selector}: {pieces:?}"
            );
            assert!(pieces[0] >= most / 2, "{selector}: {pieces:?}");
        }
    }
}
