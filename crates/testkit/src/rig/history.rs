//! Was a register linearizable? A checker of what clients of one key saw (Wing and Gong's search, with the memory of
//! Lowe's).
//!
//! Every call takes effect at one moment between its start and its end, or the history is refused. A call whose outcome
//! is unknown may take effect at any moment after its start, or never.

use std::collections::HashSet;
use tokio::time::Instant;

/// What a client did to the register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// It read this value.
    Read(u64),
    /// It replaced one value by another, and was told so.
    Replaced(u64, u64),
    /// It was told that the value is not the one that it wanted to replace.
    Refused(u64),
    /// It wanted to replace one value by another, and was not told what came of it.
    Unknown(u64, u64),
}

/// A call, and when it began and ended.
#[derive(Debug, Clone, Copy)]
pub struct Op {
    /// What it was.
    pub call: Call,
    /// When it was sent.
    pub start: Instant,
    /// When its answer was there.
    pub end: Instant,
}

impl Op {
    fn ends(&self) -> Option<Instant> {
        (!matches!(self.call, Call::Unknown(..))).then_some(self.end)
    }

    /// The register after it, if it can take effect on this value.
    fn apply(&self, value: u64) -> Option<u64> {
        match self.call {
            Call::Read(seen) => (seen == value).then_some(value),
            Call::Replaced(from, to) | Call::Unknown(from, to) => (from == value).then_some(to),
            Call::Refused(from) => (from != value).then_some(value),
        }
    }
}

/// Whether there is an order of the calls that explains what everybody saw, from the value `first` on.
pub fn is_linearizable(first: u64, history: &[Op]) -> bool {
    let mut ops = history.to_vec();
    ops.sort_by_key(|op| op.start);
    let done = vec![false; ops.len()];
    let mut seen: HashSet<(Vec<bool>, u64)> = HashSet::new();
    let mut open = vec![(done, first)];
    while let Some((done, value)) = open.pop() {
        let left = || ops.iter().enumerate().filter(|(index, _)| !done[*index]);
        // Nobody who was answered is left: unknown ones need not have happened.
        let Some(first_end) = left().filter_map(|(_, op)| op.ends()).min() else { return true };
        for (index, op) in left().take_while(|(_, op)| op.start <= first_end) {
            let Some(next) = op.apply(value) else { continue };
            let mut done = done.clone();
            done[index] = true;
            if seen.insert((done.clone(), next)) {
                open.push((done, next));
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Calls with their start and end in milliseconds.
    fn check(calls: &[(Call, u64, u64)]) -> bool {
        let zero = Instant::now();
        let at = |millis: &u64| zero + Duration::from_millis(*millis);
        let op = |(call, start, end): &(Call, u64, u64)| Op { call: *call, start: at(start), end: at(end) };
        is_linearizable(0, &calls.iter().map(op).collect::<Vec<_>>())
    }

    #[test]
    fn what_can_be_ordered_is_accepted() {
        assert!(check(&[]));
        assert!(check(&[(Call::Read(0), 0, 1), (Call::Replaced(0, 1), 2, 3), (Call::Read(1), 4, 5)]));
        // Overlapping: either order will do.
        assert!(check(&[(Call::Replaced(0, 1), 0, 10), (Call::Read(0), 1, 9), (Call::Read(1), 5, 12)]));
        assert!(check(&[
            (Call::Replaced(0, 1), 0, 9),
            (Call::Refused(0), 0, 9),
            (Call::Replaced(1, 2), 0, 9)
        ]));
        // An unknown write that is seen later, and one that never is.
        assert!(check(&[(Call::Unknown(0, 1), 0, 1), (Call::Read(0), 2, 3), (Call::Read(1), 4, 5)]));
        assert!(check(&[(Call::Unknown(0, 1), 0, 1), (Call::Replaced(0, 2), 2, 3), (Call::Read(2), 4, 5)]));
    }

    #[test]
    fn what_cannot_be_ordered_is_refused() {
        // A stale read after an acknowledged write.
        assert!(!check(&[(Call::Replaced(0, 1), 0, 1), (Call::Read(0), 2, 3)]));
        // A lost write: two replaced the same value.
        assert!(!check(&[(Call::Replaced(0, 1), 0, 9), (Call::Replaced(0, 2), 0, 9)]));
        // Time goes backwards between two readers.
        assert!(!check(&[(Call::Replaced(0, 1), 0, 9), (Call::Read(1), 1, 2), (Call::Read(0), 3, 4)]));
        // A value that nobody wrote, and a refusal without a reason.
        assert!(!check(&[(Call::Read(7), 0, 1)]));
        assert!(!check(&[(Call::Refused(0), 0, 1)]));
        // An unknown write cannot happen before it was asked for.
        assert!(!check(&[(Call::Read(1), 0, 1), (Call::Unknown(0, 1), 2, 3)]));
    }
}
