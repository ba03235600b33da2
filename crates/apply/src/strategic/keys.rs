//! How the elements of a list are told apart, and where those with a key are. Everything that is looked up in a list is looked
//! up here, by hash: a client decides how long both lists are, so to search one for each element of the other would take
//! quadratic time.

use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};

/// How elements of a list are told apart: maps by a key, others by themselves.
#[derive(Clone, Copy)]
pub(super) struct Key<'a> {
    /// The merge key; empty if there is none.
    pub(super) name: &'a str,
    /// Whether the elements are maps.
    pub(super) maps: bool,
}

impl Key<'_> {
    /// What tells this element apart.
    fn of<'v>(self, element: &'v Value) -> Identity<'v> {
        Identity(if self.maps { element.get(self.name) } else { Some(element) })
    }
}

/// What tells an element apart; `None` is a map without the key.
#[derive(Clone, Copy, Eq)]
pub(super) struct Identity<'v>(pub(super) Option<&'v Value>);

impl PartialEq for Identity<'_> {
    fn eq(&self, other: &Self) -> bool {
        work::count();
        self.0 == other.0
    }
}

impl Hash for Identity<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        work::count();
        self.0.hash(state);
    }
}

/// The position of the first element with each key.
pub(super) struct Positions<'v>(HashMap<Identity<'v>, usize>);

impl<'v> Positions<'v> {
    pub(super) fn of(list: &'v [Value], key: Key<'_>) -> Self {
        let mut positions = HashMap::with_capacity(list.len());
        for (position, element) in list.iter().enumerate() {
            positions.entry(key.of(element)).or_insert(position);
        }
        Self(positions)
    }

    /// Where the element, or the first one with its key, is.
    pub(super) fn find(&self, element: &Value, key: Key<'_>) -> Option<usize> {
        self.0.get(&key.of(element)).copied()
    }
}

/// The keys that occur in a list.
pub(super) struct Keys<'v>(HashSet<Identity<'v>>);

impl<'v> Keys<'v> {
    pub(super) fn of(list: &'v [Value], key: Key<'_>) -> Self {
        Self(list.iter().map(|element| key.of(element)).collect())
    }

    pub(super) fn contain(&self, element: &Value, key: Key<'_>) -> bool {
        self.0.contains(&key.of(element))
    }

    /// Adds what is told apart by this; returns whether it was not there before.
    pub(super) fn insert(&mut self, identity: Identity<'v>) -> bool {
        self.0.insert(identity)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn none() -> Self {
        Self(HashSet::new())
    }
}

/// Counts how often keys are hashed or compared, so that tests can see how the work grows.
pub(super) mod work {
    #[cfg(test)]
    std::thread_local! {
        static COUNT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    pub(in crate::strategic) fn count() {
        #[cfg(test)]
        COUNT.with(|count| count.set(count.get() + 1));
    }

    /// How much `act` counts.
    #[cfg(test)]
    pub(in crate::strategic) fn of(act: impl FnOnce()) -> usize {
        let before = COUNT.with(std::cell::Cell::get);
        act();
        COUNT.with(std::cell::Cell::get) - before
    }
}
