//! How a transaction is judged and carried out: one rule for all engines of this crate.

use crate::contract::{Change, Entry, Event, Op, Revision, Txn};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::Arc;

/// The revisions of a key that exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Revisions {
    pub(crate) create: Revision,
    pub(crate) modified: Revision,
}

/// What an engine's keys look like to a transaction.
pub(crate) trait State {
    /// Why the engine cannot read or write; whoever gets it gives up the whole state.
    type Error;

    /// The revisions of `key`, or `None` if it does not exist.
    fn revisions(&self, key: &str) -> Result<Option<Revisions>, Self::Error>;
    /// Writes `key`.
    fn put(&mut self, key: &Arc<str>, value: &Bytes, revisions: Revisions) -> Result<(), Self::Error>;
    /// Removes `key`, which exists.
    fn remove(&mut self, key: &str) -> Result<(), Self::Error>;
}

/// What became of a transaction.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was carried out at the event's revision.
    Applied(Event),
    /// It changed nothing.
    Unchanged,
    /// The compare of this key does not hold; the state was not touched.
    Conflict(Arc<str>),
}

/// Refuses a transaction that no engine can carry out: see [`Txn`].
pub(crate) fn validate(txn: &Txn) -> Result<()> {
    let invalid = |reason: String| Err(Error::Invalid { reason });
    if txn.compares.iter().map(|c| &c.key).chain(txn.ops.iter().map(Op::key)).any(|key| key.is_empty()) {
        return invalid("a key is empty".into());
    }
    // Most transactions have one operation, and need no set.
    if txn.ops.len() > 1 {
        let mut seen = HashSet::with_capacity(txn.ops.len());
        if let Some(op) = txn.ops.iter().find(|op| !seen.insert(op.key())) {
            return invalid(format!("{} is in two operations", op.key()));
        }
    }
    Ok(())
}

/// Carries out a valid `txn` at revision `next`, if its compares hold. All of them are judged before
/// the first write, so a conflict leaves `state` as it was. Keys and values are shared with the event, not copied; the
/// transaction stays whole, so that an engine whose state failed can carry it out once more.
pub(crate) fn apply<S: State>(state: &mut S, txn: &Txn, next: Revision) -> Result<Outcome, S::Error> {
    for compare in &txn.compares {
        let present = state.revisions(&compare.key)?.map_or(0, |r| r.modified);
        if present != compare.mod_revision {
            return Ok(Outcome::Conflict(compare.key.clone()));
        }
    }
    let mut changes = Vec::with_capacity(txn.ops.len());
    for op in &txn.ops {
        // A key is in one operation at most (see `validate`), so the order of the operations does not matter here.
        let before = state.revisions(op.key())?;
        match (op, before) {
            (Op::Put { key, value }, before) => {
                let create = before.map_or(next, |r| r.create);
                state.put(key, value, Revisions { create, modified: next })?;
                changes.push(Change::Put(Entry {
                    key: key.clone(),
                    value: value.clone(),
                    create_revision: create,
                    mod_revision: next,
                }));
            }
            (Op::Delete { key }, Some(before)) => {
                state.remove(key)?;
                changes.push(Change::Delete {
                    key: key.clone(),
                    prev_create_revision: before.create,
                    prev_mod_revision: before.modified,
                });
            }
            (Op::Delete { .. }, None) => {}
        }
    }
    if changes.is_empty() {
        return Ok(Outcome::Unchanged);
    }
    Ok(Outcome::Applied(Event { revision: next, changes }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn malformed_transactions_are_refused() {
        let bad = [
            Txn::put("", "v"),
            Txn::delete("", 1),
            Txn::put("/a", "1").and(Txn::put("/a", "2")),
            Txn::put("/a", "1").and(Txn::remove("/b")).and(Txn::remove("/a")),
        ];
        for txn in bad {
            assert!(matches!(validate(&txn), Err(Error::Invalid { .. })), "{txn:?}");
        }
        let good = [Txn::default(), Txn::put("/a", "").and(Txn::remove("/b")), Txn::update("/a", "", 7)];
        for txn in good {
            validate(&txn).expect("a valid transaction");
        }
    }
}
