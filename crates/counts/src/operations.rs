//! How an operation is done: what comes before it, what is counted, and that it did what it should.

use crate::measure::{self, Allocated};
use crate::world::{Call, World};
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fleetpass_apiserver::body::Body;
use futures::FutureExt as _;
use http_body_util::BodyExt as _;
use serde_json::Value;
use tokio::runtime::Runtime;

/// Makes the call with a number: no two repetitions have the same.
pub(crate) type Make = fn(usize) -> Call;
/// Makes the call with a number, given the last answer of what came before it.
pub(crate) type MakeFrom = fn(usize, &Bytes) -> Call;

/// What comes before an operation, and is not counted.
#[derive(Clone, Copy)]
pub(crate) enum Before {
    Nothing,
    /// Once, before all repetitions.
    Once(Make),
    /// Before each repetition.
    Each(fn(usize) -> Vec<Call>),
}

/// What is done.
#[derive(Clone, Copy)]
pub(crate) enum Work {
    /// A request, from its head to the last byte of the answer.
    Call(Before, MakeFrom),
    /// A request, and then another one again and again until that has the answer that it should have.
    CallUntil(Make, Make),
    /// A change, until each of so many watchers has the event. The watches are opened before, at a resourceVersion.
    Event { watchers: usize, watch: fn(&str) -> Call, change: Make },
    /// The start of a server on a store.
    Start,
}

/// A row of the table.
#[derive(Clone, Copy)]
pub(crate) struct Operation {
    pub(crate) name: &'static str,
    /// How often it is done while it is counted, after so many times in which it is not. More for what is done quickly, so that
    /// what happens only now and then (a table that grows, a timer) does not matter.
    pub(crate) repetitions: usize,
    /// By how many percent a figure may differ.
    pub(crate) tolerance: u32,
    pub(crate) work: Work,
}

/// What a repetition of an operation was given.
enum Prepared {
    Call(Call),
    CallUntil(Call, Call),
    Event(Call),
    Start,
}

impl Operation {
    /// Does the operation, first to warm up, then counted.
    ///
    /// # Errors
    ///
    /// It did not do what it should.
    pub(crate) fn run(&self, runtime: &Runtime, world: &World) -> Result<Allocated> {
        let mut watchers = runtime.block_on(self.watch(world))?;
        let once = match self.work {
            Work::Call(Before::Once(make), _) => runtime.block_on(world.call(&make(0)))?,
            _ => Bytes::new(),
        };
        let mut counted = Allocated { times: 0, bytes: 0 };
        for round in 0..2 {
            let numbers = round * self.repetitions..(round + 1) * self.repetitions;
            let prepared = numbers.map(|number| runtime.block_on(self.prepare(world, number, &once)));
            let prepared = prepared.collect::<Result<Vec<_>>>()?;
            let work = || async {
                for repetition in prepared {
                    repetition.run(world, &mut watchers).await?;
                }
                Ok(())
            };
            // Both rounds through the same function: callgrind writes a file for each, of which the second one is meant.
            counted = measure::count(runtime, work().boxed_local())?;
        }
        for watcher in &mut watchers {
            runtime.block_on(watcher.end())?;
        }
        Ok(counted)
    }

    async fn watch(&self, world: &World) -> Result<Vec<Watcher>> {
        let Work::Event { watchers, watch, .. } = self.work else { return Ok(Vec::new()) };
        let newest: Value = serde_json::from_slice(&world.call(&Call::get("/api/v1/namespaces")).await?)?;
        let newest =
            newest["metadata"]["resourceVersion"].as_str().context("a list has a resourceVersion")?;
        let mut all = Vec::new();
        for _ in 0..watchers {
            let answer = world.open(watch(newest)).await?;
            ensure!(answer.status() == 200, "a watch is answered {}", answer.status());
            all.push(Watcher { body: answer.into_body() });
        }
        Ok(all)
    }

    async fn prepare(&self, world: &World, number: usize, once: &Bytes) -> Result<Prepared> {
        Ok(match self.work {
            Work::Call(before, make) => {
                let mut answer = once.clone();
                if let Before::Each(calls) = before {
                    for call in calls(number) {
                        answer = world.call(&call).await?;
                    }
                }
                Prepared::Call(make(number, &answer))
            }
            Work::CallUntil(call, until) => Prepared::CallUntil(call(number), until(number)),
            Work::Event { change, .. } => Prepared::Event(change(number)),
            Work::Start => Prepared::Start,
        })
    }
}

impl Prepared {
    async fn run(self, world: &World, watchers: &mut [Watcher]) -> Result<()> {
        match self {
            Prepared::Call(call) => drop(world.call(&call).await?),
            Prepared::CallUntil(call, until) => {
                world.call(&call).await?;
                while world.open(until.clone()).await?.status() != until.expected {
                    // What has to happen first happens on this thread.
                    tokio::task::yield_now().await;
                }
            }
            Prepared::Event(change) => {
                world.call(&change).await?;
                for watcher in watchers {
                    watcher.next().await?;
                }
            }
            Prepared::Start => drop(world.restarted().await?),
        }
        Ok(())
    }
}

/// A watch whose events are read one by one.
struct Watcher {
    body: Body,
}

impl Watcher {
    /// Waits for an event, which comes in one piece.
    async fn next(&mut self) -> Result<()> {
        let frame = self.body.frame().await.context("the watch has ended")?;
        frame.map_err(|error| anyhow::anyhow!("the watch breaks off: {error}"))?;
        Ok(())
    }

    /// Sees that there was one event for each change: otherwise less, or more, was counted.
    async fn end(&mut self) -> Result<()> {
        tokio::task::yield_now().await;
        ensure!(self.body.frame().now_or_never().is_none(), "there were more pieces than events");
        Ok(())
    }
}
