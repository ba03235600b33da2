//! The document while operations change it. An operation costs about what its path and its value are long, however large the
//! document is: a list is kept in pieces, so that to put something at its front does not shift all that is behind it.

use super::Refused;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// A part of the document.
pub(super) enum Node {
    /// Nothing below has been changed so far.
    Whole(Value),
    /// An object that some path leads through.
    Object(BTreeMap<String, Node>),
    /// A list that some path leads through.
    List(Pieces),
}

impl Node {
    /// Takes the value apart, one level deep. Whatever is taken apart stays so: each container costs once what it holds.
    pub(super) fn open(&mut self) {
        match self {
            Self::Whole(Value::Object(members)) => {
                let members = std::mem::take(members);
                *self = Self::Object(
                    members.into_iter().map(|(name, value)| (name, Self::Whole(value))).collect(),
                );
            }
            Self::Whole(Value::Array(elements)) => {
                *self = Self::List(Pieces::from(std::mem::take(elements)));
            }
            _ => {}
        }
    }

    /// A copy as JSON.
    pub(super) fn to_value(&self) -> Value {
        match self {
            Self::Whole(value) => value.clone(),
            Self::Object(members) => Value::Object(
                members.iter().map(|(name, member)| (name.clone(), member.to_value())).collect::<Map<_, _>>(),
            ),
            Self::List(list) => Value::Array(list.iter().map(Self::to_value).collect()),
        }
    }

    /// The JSON that it has become.
    pub(super) fn into_value(self) -> Value {
        match self {
            Self::Whole(value) => value,
            Self::Object(members) => Value::Object(
                members.into_iter().map(|(name, member)| (name, member.into_value())).collect::<Map<_, _>>(),
            ),
            Self::List(list) => {
                Value::Array(list.pieces.into_iter().flatten().map(Self::into_value).collect())
            }
        }
    }

    /// Whether it is this value. Compares no more than the value holds.
    pub(super) fn equals(&self, other: &Value) -> bool {
        match (self, other) {
            (Self::Whole(value), other) => value == other,
            (Self::Object(members), Value::Object(others)) => {
                members.len() == others.len()
                    && members.iter().zip(others).all(|((name, member), (other_name, other))| {
                        name == other_name && member.equals(other)
                    })
            }
            (Self::List(list), Value::Array(others)) => {
                list.len == others.len()
                    && list.iter().zip(others).all(|(element, other)| element.equals(other))
            }
            _ => false,
        }
    }

    /// How many containers lie within each other; takes from `budget` what it looks at.
    ///
    /// # Errors
    /// [`Refused::GrowsTooMuch`] if that is more than the budget.
    pub(super) fn depth(&self, budget: &mut usize) -> Result<usize, Refused> {
        fn deepest<'a>(parts: impl Iterator<Item = &'a Node>, budget: &mut usize) -> Result<usize, Refused> {
            let mut deepest = 0;
            for part in parts {
                deepest = deepest.max(part.depth(budget)?);
            }
            Ok(deepest + 1)
        }
        *budget = budget.checked_sub(1).ok_or(Refused::GrowsTooMuch)?;
        match self {
            Self::Whole(value) => measure(value, budget),
            Self::Object(members) => deepest(members.values(), budget),
            Self::List(list) => deepest(list.iter(), budget),
        }
    }
}

/// How many containers lie within each other.
pub(super) fn depth_of(value: &Value) -> usize {
    let mut unbounded = usize::MAX;
    measure(value, &mut unbounded).unwrap_or(usize::MAX)
}

/// As [`Node::depth`].
fn measure(value: &Value, budget: &mut usize) -> Result<usize, Refused> {
    *budget = budget.checked_sub(1).ok_or(Refused::GrowsTooMuch)?;
    let mut deepest = 0;
    match value {
        Value::Object(members) => {
            for member in members.values() {
                deepest = deepest.max(measure(member, budget)?);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                deepest = deepest.max(measure(element, budget)?);
            }
        }
        _ => return Ok(0),
    }
    Ok(deepest + 1)
}

/// A list in pieces. To find a position takes as many steps as there are pieces, to put something there shifts no more than
/// one piece: with a million elements that is a thousand of either, which is little beside reading the operation.
pub(super) struct Pieces {
    /// Each has between one and twice [`PIECE`] elements.
    pieces: Vec<Vec<Node>>,
    len: usize,
}

/// How many elements a piece has when the list is taken apart.
const PIECE: usize = 1024;

impl From<Vec<Value>> for Pieces {
    fn from(elements: Vec<Value>) -> Self {
        let len = elements.len();
        let mut pieces = Vec::with_capacity(len.div_ceil(PIECE));
        let mut elements = elements.into_iter().map(Node::Whole);
        loop {
            let piece: Vec<Node> = elements.by_ref().take(PIECE).collect();
            if piece.is_empty() {
                return Self { pieces, len };
            }
            pieces.push(piece);
        }
    }
}

impl Pieces {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    fn iter(&self) -> impl Iterator<Item = &Node> {
        self.pieces.iter().flatten()
    }

    /// The piece that has the position, and where in it. What is behind the last element is in the last piece.
    fn locate(&self, position: usize) -> Option<(usize, usize)> {
        let mut rest = position;
        for (number, piece) in self.pieces.iter().enumerate() {
            work::count(1);
            if rest < piece.len() || (number + 1 == self.pieces.len() && rest == piece.len()) {
                return Some((number, rest));
            }
            rest = rest.checked_sub(piece.len())?;
        }
        None
    }

    /// The element at the position.
    pub(super) fn get_mut(&mut self, position: usize) -> Option<&mut Node> {
        let (piece, place) = self.locate(position)?;
        self.pieces.get_mut(piece)?.get_mut(place)
    }

    /// Puts the element before the one that is at the position, which is at most the length.
    pub(super) fn insert(&mut self, position: usize, element: Node) -> Option<()> {
        if self.pieces.is_empty() {
            self.pieces.push(Vec::new());
        }
        let (number, place) = self.locate(position)?;
        let piece = self.pieces.get_mut(number)?;
        work::count(piece.len() - place);
        piece.insert(place, element);
        self.len += 1;
        if piece.len() > 2 * PIECE {
            let behind = piece.split_off(PIECE);
            self.pieces.insert(number + 1, behind);
        }
        Some(())
    }

    /// Takes the element at the position out.
    pub(super) fn remove(&mut self, position: usize) -> Option<Node> {
        let (number, place) = self.locate(position)?;
        let piece = self.pieces.get_mut(number)?;
        if place >= piece.len() {
            return None;
        }
        work::count(piece.len() - place);
        let element = piece.remove(place);
        self.len -= 1;
        if piece.is_empty() {
            self.pieces.remove(number);
        }
        Some(element)
    }
}

/// Counts the steps and shifts within lists, so that tests can see how the work grows.
mod work {
    #[cfg(test)]
    std::thread_local! {
        static COUNT: std::cell::Cell<usize> = const { std::cell::Cell::new(0) };
    }

    #[cfg_attr(not(test), allow(unused_variables))]
    pub(super) fn count(steps: usize) {
        #[cfg(test)]
        COUNT.with(|count| count.set(count.get() + steps));
    }

    /// How much `act` counts.
    #[cfg(test)]
    pub(in crate::json_patch) fn of(act: impl FnOnce()) -> usize {
        let before = COUNT.with(std::cell::Cell::get);
        act();
        COUNT.with(std::cell::Cell::get) - before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn list(len: usize) -> Pieces {
        Pieces::from((0..len).map(Value::from).collect::<Vec<_>>())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn pieces_are_a_list(len in 0..3000usize, changes in prop::collection::vec((any::<bool>(), any::<prop::sample::Index>()), 0..200)) {
            let mut pieces = list(len);
            let mut model: Vec<Value> = (0..len).map(Value::from).collect();
            for (number, (put, at)) in changes.into_iter().enumerate() {
                if put || model.is_empty() {
                    let at = at.index(model.len() + 1);
                    model.insert(at, json!(["new", number]));
                    prop_assert!(pieces.insert(at, Node::Whole(json!(["new", number]))).is_some());
                } else {
                    let at = at.index(model.len());
                    prop_assert!(pieces.get_mut(at).is_some_and(|node| node.equals(&model[at])));
                    let gone = model.remove(at);
                    prop_assert_eq!(pieces.remove(at).map(Node::into_value), Some(gone));
                }
                prop_assert_eq!(pieces.len(), model.len());
            }
            prop_assert!(pieces.get_mut(model.len()).is_none() && pieces.remove(model.len()).is_none());
            let node = Node::List(pieces);
            prop_assert!(node.equals(&Value::Array(model.clone())));
            prop_assert_eq!(node.to_value(), Value::Array(model.clone()));
            prop_assert_eq!(node.into_value(), Value::Array(model));
        }
    }

    #[test]
    fn pieces_grow_and_empty() {
        let mut pieces = list(0);
        for number in 0..5 * PIECE {
            pieces.insert(0, Node::Whole(number.into())).unwrap();
        }
        assert!(pieces.pieces.len() >= 3 && pieces.pieces.iter().all(|piece| piece.len() <= 2 * PIECE));
        for number in (0..5 * PIECE).rev() {
            assert_eq!(pieces.remove(0).map(Node::into_value), Some(number.into()));
        }
        assert!(pieces.pieces.is_empty() && pieces.len() == 0);
    }

    #[test]
    fn an_operation_costs_little_however_long_the_list_is() {
        let steps = |len: usize| {
            let mut pieces = list(len);
            work::of(|| {
                for at in 0..1000 {
                    let node = pieces.remove(len - 1 - at).unwrap();
                    pieces.insert(at, node).unwrap();
                }
            })
        };
        // Shifting lists as a whole takes 64 times as much for the longer one, 32 million steps for each of these.
        let (short, long) = (steps(16 * PIECE), steps(1024 * PIECE));
        assert!(long < 4 * short, "{short} {long}");
    }
}
