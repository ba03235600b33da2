//! Counting.

use anyhow::Result;
use futures::future::LocalBoxFuture;
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use std::alloc::System;
use tokio::runtime::Runtime;

/// Counts what all threads allocate.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// What was allocated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocated {
    /// How often, including allocations that grew.
    pub(crate) times: usize,
    /// How many bytes. What was given back meanwhile counts too.
    pub(crate) bytes: usize,
}

/// Does the work, and counts.
///
/// # Errors
///
/// Those of the work.
pub(crate) fn count(runtime: &Runtime, work: LocalBoxFuture<'_, Result<()>>) -> Result<Allocated> {
    let before = ALLOCATOR.stats();
    let result = counted_repetitions(runtime, work);
    let change = ALLOCATOR.stats() - before;
    result?;
    // stats_alloc counts the bytes by which an allocation grew among those that were allocated.
    Ok(Allocated { times: change.allocations + change.reallocations, bytes: change.bytes_allocated })
}

/// The work itself. callgrind begins to count when this function is entered and writes what it has counted when it returns: it
/// is told the name, so the function has to be one, with a name that no compiler changes, hence without type parameters.
#[inline(never)]
fn counted_repetitions(runtime: &Runtime, work: LocalBoxFuture<'_, Result<()>>) -> Result<()> {
    std::hint::black_box(runtime.block_on(work))
}
