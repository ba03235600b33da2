//! Counting what a request costs.

use crate::world::{Answer, Request, World};
use cap::Cap;
use std::alloc::System;

/// More than a request may ever need, and less than what the machine has: what wants more ends this program instead of
/// others.
const MOST: usize = 4 << 30;

/// Counts what all threads allocate.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, MOST);

/// What a request has allocated, in bytes.
pub(crate) struct Work {
    /// All in all.
    pub(crate) allocated: usize,
    /// At most at the same time, beyond what was there before. The peak of all that was done so far: it says something about
    /// the request only if that is the largest one.
    pub(crate) peak: usize,
}

/// Makes a request and counts.
pub(crate) fn request(world: &World, request: Request) -> (Work, Answer) {
    let (total, live) = (ALLOCATOR.total_allocated(), ALLOCATOR.allocated());
    let answer = growth_of_one_request(world, request);
    let work = Work {
        allocated: ALLOCATOR.total_allocated() - total,
        peak: ALLOCATOR.max_allocated().saturating_sub(live),
    };
    (work, answer)
}

/// The request itself. callgrind begins to count when this function is entered and stops when it returns: it is told the name,
/// so that name has to be unique and the function has to be one.
#[inline(never)]
fn growth_of_one_request(world: &World, request: Request) -> Answer {
    world.call(request)
}
