//! The keys that an object gives more than once.

use super::Raw;
use std::collections::{HashMap, HashSet};

/// The paths of all of them, as [`Raw::duplicates`] gives them.
pub(super) fn paths(raw: &Raw<'_>) -> Vec<String> {
    const MOST: usize = 100;
    const MAX_LENGTH: usize = 256 * 1024;
    // The depth is the client's choice, so the stack is explicit. The length of keys is too: the text of a path is made
    // only for what is reported, or a long key above many members would be copied for each of them.
    let mut places = Places { all: vec![(0, Part::Index(0))], known: HashMap::new() };
    let mut found: Vec<usize> = Vec::new();
    let mut stack: Vec<Visit<'_>> = vec![Visit::new(raw, 0)];
    while let Some(top) = stack.last_mut() {
        let (place, Some((part, child, duplicate))) = (top.place, top.next()) else {
            stack.pop();
            continue;
        };
        let is_container = matches!(child, Raw::Array(_) | Raw::Object(_));
        // Most values are scalars with a key of their own, and need no place.
        if !duplicate && !is_container {
            continue;
        }
        let child_place = places.below(place, part);
        // `found` has at most `MOST` elements, so searching it does not make the walk quadratic.
        if duplicate && !found.contains(&child_place) {
            found.push(child_place);
            if found.len() == MOST {
                break;
            }
        }
        if is_container {
            stack.push(Visit::new(child, child_place));
        }
    }
    let (mut paths, mut length): (Vec<String>, usize) = (Vec::new(), 0);
    for place in found {
        let path = places.path(place);
        length += path.len();
        // Different places may print alike: the key `a.b`, and `b` below `a`.
        if !paths.contains(&path) {
            paths.push(path);
        }
        if length > MAX_LENGTH {
            break;
        }
    }
    paths
}

/// One step of a path: from a container to something in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Part<'a> {
    Index(usize),
    Key(&'a str),
}

/// The paths to places in a tree, as a tree themselves: each place is a number, and knows the place above it and the last step.
/// So a path takes constant space however long its keys are.
struct Places<'a> {
    /// By number; the first is the root, whose own entry means nothing.
    all: Vec<(usize, Part<'a>)>,
    /// The same the other way round, so that equal paths get equal numbers.
    known: HashMap<(usize, Part<'a>), usize>,
}

impl<'a> Places<'a> {
    /// The place one step below another. The values of duplicate keys are in the same place.
    fn below(&mut self, above: usize, part: Part<'a>) -> usize {
        *self.known.entry((above, part)).or_insert_with(|| {
            self.all.push((above, part));
            self.all.len() - 1
        })
    }

    /// The path from the root, as text.
    fn path(&self, mut place: usize) -> String {
        let mut parts = Vec::new();
        while place != 0 {
            let (above, part) = self.all[place];
            parts.push(part);
            place = above;
        }
        let mut path = String::new();
        for part in parts.into_iter().rev() {
            match part {
                Part::Index(index) => path.push_str(&format!("[{index}]")),
                Part::Key(key) if path.is_empty() => path.push_str(key),
                Part::Key(key) => path.extend([".", key]),
            }
        }
        path
    }
}

/// A container that is being walked through.
struct Visit<'a> {
    value: &'a Raw<'a>,
    place: usize,
    /// The index of the child that comes next.
    next: usize,
    /// The keys of the children before it.
    seen: HashSet<&'a str>,
}

impl<'a> Visit<'a> {
    fn new(value: &'a Raw<'a>, place: usize) -> Self {
        Self { value, place, next: 0, seen: HashSet::new() }
    }
    /// The next child with the step to it, and whether its key was there before.
    fn next(&mut self) -> Option<(Part<'a>, &'a Raw<'a>, bool)> {
        let index = self.next;
        self.next += 1;
        match self.value {
            Raw::Array(items) => items.get(index).map(|item| (Part::Index(index), item, false)),
            Raw::Object(members) => {
                members.get(index).map(|(key, value)| (Part::Key(key), value, !self.seen.insert(key)))
            }
            _ => None,
        }
    }
}
