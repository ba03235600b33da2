//! Random operations against a model that is too simple to be wrong.

use super::harness::{Harness, take};
use crate::{Change, Compare, Entry, Error, Event, Listing, Op, Revision, Txn};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const KEYS: [&str; 7] = ["/a", "/a/1", "/a/2", "/a/é", "/a0", "/b/1", "b"];
const PREFIXES: [&str; 6] = ["", "/", "/a", "/a/", "/b/", "/none"];

#[derive(Debug, Clone)]
enum Step {
    Commit { compares: Vec<(usize, Expect)>, puts: Vec<(usize, Vec<u8>)>, deletes: Vec<usize> },
    Get(usize),
    List(usize),
    Reopen,
}

/// The revision that a compare expects of its key.
#[derive(Debug, Clone, Copy)]
enum Expect {
    /// What the key has.
    Present,
    /// 0.
    Absent,
    /// What the key does not have.
    Other(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let key = || 0..KEYS.len();
    let expect = prop_oneof![
        6 => Just(Expect::Present),
        1 => Just(Expect::Absent),
        1 => (1..40_u64).prop_map(Expect::Other),
    ];
    let value = vec(any::<u8>(), 0..40);
    let commit = (vec((key(), expect), 0..3), vec((key(), value), 0..3), vec(key(), 0..2));
    prop_oneof![
        12 => commit.prop_map(|(compares, puts, deletes)| Step::Commit { compares, puts, deletes }),
        2 => key().prop_map(Step::Get),
        3 => (0..PREFIXES.len()).prop_map(Step::List),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    entries: BTreeMap<String, Entry>,
    revision: Revision,
    events: Vec<Event>,
}

impl Model {
    fn mod_revision(&self, key: &str) -> Revision {
        self.entries.get(key).map_or(0, |e| e.mod_revision)
    }

    /// The transaction of a step, in this state. A key has one operation at most: the first.
    fn txn(&self, compares: &[(usize, Expect)], puts: &[(usize, Vec<u8>)], deletes: &[usize]) -> Txn {
        let compare = |&(key, expect): &(usize, Expect)| {
            let present = self.mod_revision(KEYS[key]);
            let mod_revision = match expect {
                Expect::Present => present,
                Expect::Absent => 0,
                Expect::Other(n) => present + n,
            };
            Compare { key: KEYS[key].into(), mod_revision }
        };
        let mut seen = BTreeSet::new();
        let puts =
            puts.iter().map(|(key, value)| Op::Put { key: KEYS[*key].into(), value: value.clone().into() });
        let deletes = deletes.iter().map(|key| Op::Delete { key: KEYS[*key].into() });
        let ops = puts.chain(deletes).filter(|op| seen.insert(op.key().clone())).collect();
        Txn { compares: compares.iter().map(compare).collect(), ops }
    }

    /// The answer to a transaction: a revision, or the key of the conflict.
    fn commit(&mut self, txn: &Txn) -> Result<Revision, Arc<str>> {
        let holds = |c: &&Compare| self.mod_revision(&c.key) != c.mod_revision;
        if let Some(failed) = txn.compares.iter().find(holds) {
            return Err(failed.key.clone());
        }
        let next = self.revision + 1;
        let mut changes = Vec::new();
        for op in &txn.ops {
            let before = self.entries.remove(&**op.key());
            match op {
                Op::Put { key, value } => {
                    let entry = Entry {
                        key: key.clone(),
                        value: value.clone(),
                        create_revision: before.map_or(next, |e| e.create_revision),
                        mod_revision: next,
                    };
                    self.entries.insert(key.to_string(), entry.clone());
                    changes.push(Change::Put(entry));
                }
                Op::Delete { key } => changes.extend(before.map(|e| Change::Delete {
                    key: key.clone(),
                    prev_create_revision: e.create_revision,
                    prev_mod_revision: e.mod_revision,
                })),
            }
        }
        if !changes.is_empty() {
            self.revision = next;
            self.events.push(Event { revision: next, changes });
        }
        Ok(self.revision)
    }

    fn list(&self, prefix: &str) -> Listing {
        let entries = self.entries.iter().filter(|(key, _)| key.starts_with(prefix));
        Listing { revision: self.revision, entries: entries.map(|(_, e)| e.clone()).collect() }
    }
}

/// Any sequence of operations has the answers, the lists and the events that a plain map has; the
/// engine is reopened in between.
pub fn agrees_with_the_model<H: Harness>(new: impl Fn() -> H) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&vec(step(), 1..40), |steps| {
        runtime.block_on(agrees(&new(), &steps));
        Ok(())
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

async fn agrees(harness: &impl Harness, steps: &[Step]) {
    let mut model = Model::default();
    let mut store = harness.open().await;
    let mut watch = store.watch(0).await.unwrap();
    for step in steps {
        match step {
            Step::Commit { compares, puts, deletes } => {
                let txn = model.txn(compares, puts, deletes);
                match (model.commit(&txn), store.commit(txn).await) {
                    (Ok(expected), Ok(revision)) => assert_eq!(revision, expected),
                    (Err(expected), Err(Error::Conflict { key, current })) => {
                        assert_eq!(key, expected);
                        assert_eq!(current.as_ref(), model.entries.get(&*key));
                    }
                    (expected, answer) => panic!("{answer:?} instead of {expected:?}"),
                }
            }
            Step::Get(key) => {
                let entry = store.get(KEYS[*key]).await.unwrap();
                assert_eq!(entry.as_ref(), model.entries.get(KEYS[*key]));
            }
            Step::List(prefix) => {
                assert_eq!(store.list(PREFIXES[*prefix]).await.unwrap(), model.list(PREFIXES[*prefix]));
            }
            Step::Reopen => {
                expect_events(&mut watch, &mut model).await;
                store = harness.reopen(store).await;
                watch = store.watch(model.revision).await.unwrap();
            }
        }
        assert_eq!(store.revision().await.unwrap(), model.revision);
    }
    expect_events(&mut watch, &mut model).await;
    assert_eq!(store.list("").await.unwrap(), model.list(""));
    store.close().await;
}

/// The watch has exactly the events that the model has had since the last call.
async fn expect_events(watch: &mut crate::EventStream, model: &mut Model) {
    let expected = std::mem::take(&mut model.events);
    let events = take(watch, expected.len()).await;
    assert!(events.iter().map(|event| &**event).eq(&expected), "{events:?} instead of {expected:?}");
}
