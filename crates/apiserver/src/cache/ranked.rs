//! A persistent ordered map that knows ranks: how many keys lie before a key, and so how many lie between two, without
//! walking from one to the other.
//!
//! It is a B+ tree. An inner node has, for each child, the child's least key and the number of entries below it; leaves
//! have the entries. A clone shares all nodes with the original. A change copies those nodes on its path that are shared, and
//! changes the others in place ([`Arc::make_mut`]), so clones that were taken stay as they are.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// The most entries of a leaf, and children of an inner node. A node that is shared is copied when it is changed: of larger
/// nodes that would be more, smaller ones would make the tree deeper.
const MOST: usize = 32;
/// A node with fewer is joined with its neighbour. Less than half of [`MOST`], so that inserting and removing one key in turn
/// does not split and join each time.
const FEWEST: usize = MOST / 4;

#[derive(Clone)]
enum Node<K, V> {
    Leaf(Vec<(K, V)>),
    Inner(Vec<Child<K, V>>),
}

#[derive(Clone)]
struct Child<K, V> {
    /// Not greater than any key below, and greater than all keys of the children before.
    least: K,
    /// How many entries are below.
    count: usize,
    node: Arc<Node<K, V>>,
}

/// The map.
#[derive(Clone)]
pub(crate) struct RankedMap<K, V> {
    root: Arc<Node<K, V>>,
    len: usize,
}

impl<K, V> Default for RankedMap<K, V> {
    fn default() -> Self {
        Self { root: Arc::new(Node::Leaf(Vec::new())), len: 0 }
    }
}

impl<K, V> RankedMap<K, V> {
    /// How many entries there are.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The value at `key`.
    pub(crate) fn get<Q: Ord + ?Sized>(&self, key: &Q) -> Option<&V>
    where
        K: Borrow<Q>,
    {
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(children) => node = &children.get(child_of(children, key))?.node,
                Node::Leaf(entries) => {
                    let at = entries.binary_search_by(|(known, _)| known.borrow().cmp(key)).ok()?;
                    return Some(&entries[at].1);
                }
            }
        }
    }

    /// How many keys a range that begins at `start` leaves out: those before an included one, and itself too if it is
    /// excluded. Logarithmic in the size of the map.
    pub(crate) fn rank<Q: Ord + ?Sized>(&self, start: Bound<&Q>) -> usize
    where
        K: Borrow<Q>,
    {
        let Some(key) = bound_key(start) else { return 0 };
        let mut before = 0;
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(children) => {
                    let at = child_of(children, key);
                    before += children[..at].iter().map(|child| child.count).sum::<usize>();
                    match children.get(at) {
                        Some(child) => node = &child.node,
                        None => return before,
                    }
                }
                Node::Leaf(entries) => return before + first_in(entries, start),
            }
        }
    }

    /// The entries from `start` on, in the order of their keys. Logarithmic in the size of the map until the first one, constant
    /// for each of the others.
    pub(crate) fn range<Q: Ord + ?Sized>(&self, start: Bound<&Q>) -> Iter<'_, K, V>
    where
        K: Borrow<Q>,
    {
        let mut above = Vec::new();
        let mut node = &*self.root;
        loop {
            match node {
                Node::Inner(children) => {
                    let at = bound_key(start).map_or(0, |key| child_of(children, key));
                    let mut rest = children[at..].iter();
                    match rest.next() {
                        Some(child) => node = &child.node,
                        None => return Iter { above, leaf: [].iter() },
                    }
                    above.push(rest);
                }
                Node::Leaf(entries) => {
                    return Iter { above, leaf: entries[first_in(entries, start)..].iter() };
                }
            }
        }
    }

    /// All entries, in the order of their keys.
    pub(crate) fn iter(&self) -> Iter<'_, K, V>
    where
        K: Ord,
    {
        self.range::<K>(Bound::Unbounded)
    }

    /// Whether both are the same map, not only equal ones: a clone of which neither has changed since.
    #[cfg(test)]
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.root, &other.root)
    }
}

impl<K: Ord + Clone, V: Clone> RankedMap<K, V> {
    /// Sets the value at `key`; gives the one that was there. The key is replaced too, so that it is not kept for longer than
    /// the value it came with.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        let (previous, split) = insert(&mut self.root, key, value, true);
        self.len += usize::from(previous.is_none());
        if let Some(right) = split {
            let left = std::mem::replace(&mut self.root, Arc::new(Node::Leaf(Vec::new())));
            // A node that was split is not empty.
            let children = [Child::of(left), Some(right)].into_iter().flatten().collect();
            self.root = Arc::new(Node::Inner(children));
        }
        previous
    }

    /// Takes out the value at `key`.
    pub(crate) fn remove<Q: Ord + ?Sized>(&mut self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        let removed = remove(&mut self.root, key)?;
        self.len -= 1;
        while let Node::Inner(children) = &*self.root
            && children.len() < 2
        {
            self.root = match children.first() {
                Some(only) => only.node.clone(),
                None => Arc::new(Node::Leaf(Vec::new())),
            };
        }
        Some(removed)
    }
}

impl<'a, K: Ord, V> IntoIterator for &'a RankedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = Iter<'a, K, V>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// The entries of a [`RankedMap`] from a key on.
pub(crate) struct Iter<'a, K, V> {
    /// The children that come after the one that is walked through, for each inner node on the way down.
    above: Vec<std::slice::Iter<'a, Child<K, V>>>,
    leaf: std::slice::Iter<'a, (K, V)>,
}

impl<'a, K, V> Iterator for Iter<'a, K, V> {
    type Item = (&'a K, &'a V);

    fn next(&mut self) -> Option<Self::Item> {
        #[cfg(test)]
        steps::count();
        loop {
            if let Some((key, value)) = self.leaf.next() {
                return Some((key, value));
            }
            let mut node = loop {
                match self.above.last_mut()?.next() {
                    Some(child) => break &*child.node,
                    None => self.above.pop(),
                };
            };
            while let Node::Inner(children) = node {
                let mut rest = children.iter();
                let first = rest.next()?;
                self.above.push(rest);
                node = &first.node;
            }
            if let Node::Leaf(entries) = node {
                self.leaf = entries.iter();
            }
        }
    }
}

/// Tests count how many entries are looked at, which unlike the time that it takes is the same on every machine.
#[cfg(test)]
pub(crate) mod steps {
    use std::cell::Cell;

    thread_local! {
        static STEPS: Cell<usize> = const { Cell::new(0) };
    }

    pub(super) fn count() {
        STEPS.set(STEPS.get() + 1);
    }

    /// How many entries this thread has looked at since it asked last.
    pub(crate) fn take() -> usize {
        STEPS.replace(0)
    }
}

fn bound_key<Q: ?Sized>(bound: Bound<&Q>) -> Option<&Q> {
    match bound {
        Bound::Included(key) | Bound::Excluded(key) => Some(key),
        Bound::Unbounded => None,
    }
}

/// Which child has `key`, if any has it.
fn child_of<K: Borrow<Q>, V, Q: Ord + ?Sized>(children: &[Child<K, V>], key: &Q) -> usize {
    children.partition_point(|child| child.least.borrow() <= key).saturating_sub(1)
}

/// The first entry of a leaf that is in a range that begins at `start`.
fn first_in<K: Borrow<Q>, V, Q: Ord + ?Sized>(entries: &[(K, V)], start: Bound<&Q>) -> usize {
    entries.partition_point(|(key, _)| match start {
        Bound::Included(start) => key.borrow().cmp(start) == Ordering::Less,
        Bound::Excluded(start) => key.borrow().cmp(start) != Ordering::Greater,
        Bound::Unbounded => false,
    })
}

impl<K, V> Node<K, V> {
    fn width(&self) -> usize {
        match self {
            Self::Leaf(entries) => entries.len(),
            Self::Inner(children) => children.len(),
        }
    }
}

impl<K: Clone, V> Child<K, V> {
    /// A node as a child; `None` for an empty one.
    fn of(node: Arc<Node<K, V>>) -> Option<Self> {
        let (least, count) = match &*node {
            Node::Leaf(entries) => (entries.first()?.0.clone(), entries.len()),
            Node::Inner(children) => {
                (children.first()?.least.clone(), children.iter().map(|child| child.count).sum())
            }
        };
        Some(Self { least, count, node })
    }
}

/// Inserts below `node`; gives the value that was there, and a new node that comes right of `node` if that had to be split.
/// `last` says that no key of the map is greater than those of `node`.
fn insert<K: Ord + Clone, V: Clone>(
    node: &mut Arc<Node<K, V>>,
    key: K,
    value: V,
    last: bool,
) -> (Option<V>, Option<Child<K, V>>) {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => match entries.binary_search_by(|(known, _)| known.cmp(&key)) {
            Ok(at) => (Some(std::mem::replace(&mut entries[at], (key, value)).1), None),
            Err(at) => {
                let right = put(entries, at, (key, value), last);
                (None, right.and_then(|right| Child::of(Arc::new(Node::Leaf(right)))))
            }
        },
        Node::Inner(children) => {
            let at = child_of(children, &key);
            let last = last && at + 1 == children.len();
            let child = &mut children[at];
            // Only before the first child; the others begin where the one before ends.
            if key < child.least {
                child.least = key.clone();
            }
            let (previous, split) = insert(&mut child.node, key, value, last);
            child.count += usize::from(previous.is_none());
            let Some(right) = split else { return (previous, None) };
            child.count -= right.count;
            let right = put(children, at + 1, right, last);
            (previous, right.and_then(|right| Child::of(Arc::new(Node::Inner(right)))))
        }
    }
}

/// Puts `item` into the list of a node; a full list is split, and its right part given back.
fn put<T>(items: &mut Vec<T>, at: usize, item: T, last: bool) -> Option<Vec<T>> {
    if items.len() < MOST {
        items.insert(at, item);
        return None;
    }
    // At the end of the map the left part stays full: a store is loaded in the order of the keys, and would fill nodes by half
    // only. Anywhere else that would leave nodes behind that have one entry, as many as a client wants.
    let half = if last && at == MOST { MOST } else { MOST / 2 };
    let mut right = items.split_off(half);
    if at > half || right.is_empty() {
        right.insert(at - half, item);
    } else {
        items.insert(at, item);
    }
    Some(right)
}

fn remove<K: Ord + Clone + Borrow<Q>, V: Clone, Q: Ord + ?Sized>(
    node: &mut Arc<Node<K, V>>,
    key: &Q,
) -> Option<V> {
    match Arc::make_mut(node) {
        Node::Leaf(entries) => {
            let at = entries.binary_search_by(|(known, _)| known.borrow().cmp(key)).ok()?;
            Some(entries.remove(at).1)
        }
        Node::Inner(children) => {
            let at = child_of(children, key);
            let child = children.get_mut(at)?;
            let removed = remove(&mut child.node, key)?;
            child.count -= 1;
            if child.node.width() < FEWEST {
                mend(children, at);
            }
            Some(removed)
        }
    }
}

/// Joins a child that has become small with a neighbour, or evens the two out.
fn mend<K: Ord + Clone, V: Clone>(children: &mut Vec<Child<K, V>>, at: usize) {
    if children[at].count == 0 {
        children.remove(at);
        return;
    }
    let at = at.saturating_sub(1);
    // An only child stays small: its parent is small too and will be joined with a neighbour of its own.
    if at + 1 == children.len() {
        return;
    }
    let right = children.remove(at + 1);
    let left = &mut children[at];
    let rest = match (Arc::make_mut(&mut left.node), Arc::unwrap_or_clone(right.node)) {
        (Node::Leaf(left), Node::Leaf(right)) => join(left, right).map(Node::Leaf),
        (Node::Inner(left), Node::Inner(right)) => join(left, right).map(Node::Inner),
        _ => unreachable!("all leaves of the tree have the same depth"),
    };
    left.count += right.count;
    if let Some(rest) = rest.and_then(|rest| Child::of(Arc::new(rest))) {
        left.count -= rest.count;
        children.insert(at + 1, rest);
    }
}

/// Appends `right` to `left`; of what is too much for one node the right half is given back.
fn join<T>(left: &mut Vec<T>, right: Vec<T>) -> Option<Vec<T>> {
    left.extend(right);
    (left.len() > MOST).then(|| left.split_off(left.len() / 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::cell::Cell;
    use std::collections::BTreeMap;

    thread_local! {
        static COMPARED: Cell<usize> = const { Cell::new(0) };
    }

    /// A key that counts how often it is compared.
    #[derive(Clone, PartialEq, Eq)]
    struct Counted(u32);

    impl PartialOrd for Counted {
        fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
            Some(self.cmp(other))
        }
    }

    impl Ord for Counted {
        fn cmp(&self, other: &Self) -> Ordering {
            COMPARED.set(COMPARED.get() + 1);
            self.0.cmp(&other.0)
        }
    }

    /// What is true of every tree: counts and least keys are right, all leaves have the same depth, and nodes are filled, but
    /// for those that hold the end of the map. Gives the depth.
    fn check(node: &Node<u32, u32>, last: bool, root: bool) -> usize {
        assert!(node.width() <= MOST && (last || root || node.width() >= FEWEST), "{}", node.width());
        let Node::Inner(children) = node else { return 1 };
        assert!(!root || children.len() > 1);
        let mut depths = Vec::new();
        for (at, child) in children.iter().enumerate() {
            let below: Vec<u32> =
                RankedMap { root: child.node.clone(), len: 0 }.iter().map(|(key, _)| *key).collect();
            assert_eq!(child.count, below.len());
            assert!(child.least <= below[0], "{} {}", child.least, below[0]);
            if let Some(next) = children.get(at + 1) {
                assert!(below[below.len() - 1] < next.least);
            }
            depths.push(check(&child.node, last && at + 1 == children.len(), false));
        }
        assert!(depths.iter().all(|depth| *depth == depths[0]));
        depths[0] + 1
    }

    fn same(map: &RankedMap<u32, u32>, model: &BTreeMap<u32, u32>) {
        assert_eq!(map.len(), model.len());
        assert!(map.iter().eq(model.iter()));
        check(&map.root, true, true);
    }

    proptest! {
        #[test]
        fn it_is_a_btree_map_whose_clones_stay_as_they_are(
            changes in prop::collection::vec((0..600_u32, prop::bool::weighted(0.6)), 0..1500),
            probes in prop::collection::vec(0..620_u32, 20),
        ) {
            let (mut map, mut model) = (RankedMap::default(), BTreeMap::new());
            let mut clones = Vec::new();
            for (at, (key, insert)) in changes.into_iter().enumerate() {
                let value = at as u32;
                if insert {
                    prop_assert_eq!(map.insert(key, value), model.insert(key, value));
                } else {
                    prop_assert_eq!(map.remove(&key), model.remove(&key));
                }
                if at % 400 == 0 {
                    clones.push((map.clone(), model.clone()));
                }
            }
            for (map, model) in clones.iter().chain([&(map, model)]) {
                same(map, model);
                for probe in &probes {
                    prop_assert_eq!(map.get(probe), model.get(probe));
                    for start in [Bound::Included(probe), Bound::Excluded(probe), Bound::Unbounded] {
                        let expected: Vec<_> = model.range((start, Bound::Unbounded)).collect();
                        prop_assert_eq!(map.rank(start), model.len() - expected.len());
                        prop_assert_eq!(map.range(start).collect::<Vec<_>>(), expected);
                    }
                }
            }
        }
    }

    #[test]
    fn it_shrinks_to_nothing_from_either_end_and_from_within() {
        for order in [0, 1, 2] {
            let (mut map, mut model) = (RankedMap::default(), BTreeMap::new());
            let mut keys: Vec<u32> = (0..3000).collect();
            for key in &keys {
                map.insert(*key, 0);
                model.insert(*key, 0);
            }
            match order {
                0 => {}
                1 => keys.reverse(),
                // In an order that has nothing to do with that of the keys: 1999 has no divisor in common with 3000.
                _ => keys.iter_mut().for_each(|key| *key = *key * 1999 % 3000),
            }
            for (at, key) in keys.iter().enumerate() {
                assert_eq!(map.remove(key), model.remove(key));
                if at % 97 == 0 {
                    same(&map, &model);
                }
            }
            assert_eq!((map.len(), map.iter().count(), map.rank(Bound::Included(&7))), (0, 0, 0));
        }
    }

    #[test]
    fn keys_that_come_in_order_fill_the_nodes() {
        let mut map = RankedMap::default();
        (0..32_768_u32).for_each(|key| {
            map.insert(key, key);
        });
        // 32 * 32 * 32: three levels are enough only if each node is full.
        assert_eq!(check(&map.root, true, true), 3);
    }

    #[test]
    fn clients_cannot_make_nodes_that_are_nearly_empty() {
        // Each key is the greatest of its leaf and not the greatest of the map.
        let mut map = RankedMap::default();
        (0..40_u32).for_each(|key| {
            map.insert(key, key);
        });
        map.insert(1_000_000, 0);
        (0..20_000).rev().for_each(|key| {
            map.insert(key + 100, key);
        });
        assert!(check(&map.root, true, true) <= 5);
    }

    #[test]
    fn ranks_and_pages_cost_the_logarithm_of_the_size() {
        let mut map = RankedMap::default();
        (0..100_000).for_each(|key| {
            map.insert(Counted(key), ());
        });
        let work = |what: &dyn Fn()| {
            COMPARED.set(0);
            steps::take();
            what();
            (COMPARED.get(), steps::take())
        };
        for key in [0, 1, 31, 50_000, 99_999] {
            let (compared, steps) =
                work(&|| assert_eq!(map.rank(Bound::Excluded(&Counted(key))), key as usize + 1));
            assert!(compared <= 30 && steps == 0, "{compared} {steps}");
            let page = || assert!(map.range(Bound::Included(&Counted(key))).take(500).count() > 0);
            let (compared, steps) = work(&page);
            assert!(compared <= 30 && steps <= 501, "{compared} {steps}");
        }
    }
}
