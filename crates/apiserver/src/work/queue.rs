//! Which flow is next: a fair queue. Pure; what an item is and how long it took are given to it.
//!
//! Each flow has a virtual time, the time that its items have used. The flow with the least goes next, so over time all flows
//! that have something to do get the same share, however many items they have and however long each takes. A flow that comes
//! back after a pause starts at the present virtual time: pauses are not saved up for a burst
//! (start-time fair queueing, as `fair queuing for server requests` in KEP-1040).

use super::flow::{Flow, FlowId};
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::time::Duration;

/// The flow, or the queue as a whole, has as many members as it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many requests, please try again later")]
pub(crate) struct Full;

/// What one flow has in a queue at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FlowLoad {
    /// The flow's name.
    pub(crate) name: Box<str>,
    /// Items that wait for their turn.
    pub(crate) queued: usize,
    /// Members that do not: they run, or wait for something else than a turn.
    pub(crate) running: usize,
}

struct State<T> {
    name: Box<str>,
    exempt: bool,
    /// Microseconds that the flow has used, beginning at the queue's `now` when it came.
    used: u64,
    /// Admitted and not yet gone: those with an item in `waiting`, those whose item was taken, those that will push one later.
    members: usize,
    waiting: VecDeque<T>,
}

/// Items of many flows, taken out fairly.
///
/// Invariant: `ready` has an entry `(!exempt, used, id)` for exactly the flows whose `waiting` is not empty.
pub(super) struct FairQueue<T> {
    flows: HashMap<FlowId, State<T>>,
    /// Ordered by whose turn it is; exempt flows first, since `false` sorts before `true`.
    ready: BTreeSet<(bool, u64, FlowId)>,
    /// The virtual time: that of the flow that was taken from last. It never goes back.
    now: u64,
    members: usize,
    max_members: usize,
    max_members_of_flow: usize,
}

impl<T> FairQueue<T> {
    /// A queue of at most `max_members` in all, and `max_members_of_flow` of each flow.
    pub(super) fn new(max_members: usize, max_members_of_flow: usize) -> Self {
        Self {
            flows: HashMap::new(),
            ready: BTreeSet::new(),
            now: 0,
            members: 0,
            max_members,
            max_members_of_flow,
        }
    }

    /// Lets one more member of a flow in. Each is answered for by one [`FairQueue::leave`].
    ///
    /// # Errors
    /// [`Full`], unless the flow is exempt.
    pub(super) fn admit(&mut self, flow: Flow<'_>) -> Result<(), Full> {
        let of_flow = self.flows.get(&flow.id).map_or(0, |state| state.members);
        let full = self.members >= self.max_members || of_flow >= self.max_members_of_flow;
        if full && !flow.exempt {
            return Err(Full);
        }
        self.members += 1;
        let now = self.now;
        let state = self.flows.entry(flow.id).or_insert_with(|| State {
            name: flow.name.into(),
            exempt: flow.exempt,
            used: now,
            members: 0,
            waiting: VecDeque::new(),
        });
        if state.members == 0 {
            state.used = state.used.max(now);
        }
        state.members += 1;
        Ok(())
    }

    /// A member has gone.
    pub(super) fn leave(&mut self, id: FlowId) {
        let Some(state) = self.flows.get_mut(&id) else { return };
        self.members -= 1;
        state.members -= 1;
        // What a flow has used beyond its share is remembered until the others have caught up. Otherwise one that sends its
        // requests one after the other would start afresh with each.
        if state.members == 0 && state.waiting.is_empty() && state.used <= self.now {
            self.flows.remove(&id);
        }
    }

    /// An item of a member waits for its turn. Items of one flow are taken in the order in which they came.
    pub(super) fn push(&mut self, id: FlowId, item: T) {
        let now = self.now;
        // An item may come after its member has left: a task that was cancelled is scheduled once more, to be dropped.
        let state = self.flows.entry(id).or_insert_with(|| State {
            name: Box::default(),
            exempt: false,
            used: now,
            members: 0,
            waiting: VecDeque::new(),
        });
        if state.waiting.is_empty() {
            self.ready.insert((!state.exempt, state.used, id));
        }
        state.waiting.push_back(item);
    }

    /// The item whose turn it is.
    pub(super) fn pop(&mut self) -> Option<(FlowId, T)> {
        let Some(&(ordinary, used, id)) = self.ready.first() else {
            // Nobody waits, so there is nothing to be fair about: forget what was used.
            self.flows.retain(|_, state| state.members > 0);
            return None;
        };
        let state = self.flows.get_mut(&id)?;
        let item = state.waiting.pop_front()?;
        if state.waiting.is_empty() {
            self.ready.remove(&(ordinary, used, id));
        }
        if ordinary {
            self.now = self.now.max(used);
        }
        Some((id, item))
    }

    /// An item that was taken has used so much time.
    pub(super) fn charge(&mut self, id: FlowId, took: Duration) {
        let Some(state) = self.flows.get_mut(&id) else { return };
        let before = (!state.exempt, state.used, id);
        // At least one: even what takes no time moves its flow behind the others.
        state.used += u64::try_from(took.as_micros()).unwrap_or(u64::MAX / 2).max(1);
        if self.ready.remove(&before) {
            self.ready.insert((!state.exempt, state.used, id));
        }
        if state.members == 0 && state.waiting.is_empty() && state.used <= self.now {
            self.flows.remove(&id);
        }
    }

    /// What each flow has in the queue now, in no particular order.
    pub(super) fn loads(&self) -> Vec<FlowLoad> {
        let loads = self.flows.values().filter(|state| state.members > 0).map(|state| {
            let queued = state.waiting.len();
            FlowLoad { name: state.name.clone(), queued, running: state.members.saturating_sub(queued) }
        });
        loads.collect()
    }

    /// Takes out all items, in no particular order.
    pub(super) fn drain(&mut self) -> Vec<T> {
        self.ready.clear();
        self.flows.values_mut().flat_map(|state| std::mem::take(&mut state.waiting)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flow(id: u64) -> Flow<'static> {
        Flow { id: FlowId::new(id), name: "flow", exempt: id == 0 }
    }

    /// Takes one item and charges its flow.
    fn take(queue: &mut FairQueue<u64>, micros: u64) -> Option<u64> {
        let (id, item) = queue.pop()?;
        queue.charge(id, Duration::from_micros(micros));
        Some(item)
    }

    #[test]
    fn a_flood_delays_the_flow_that_floods() {
        let mut queue = FairQueue::new(100_000, 100_000);
        for _ in 0..50_000 {
            queue.admit(flow(1)).unwrap();
            queue.push(FlowId::new(1), 1);
        }
        for _ in 0..1_000 {
            take(&mut queue, 1_000);
        }
        queue.admit(flow(2)).unwrap();
        queue.push(FlowId::new(2), 2);
        // At most one more of the flood goes first: the one at which virtual time stands.
        assert!((0..2).any(|_| take(&mut queue, 1_000) == Some(2)));
    }

    #[test]
    fn many_requests_one_after_the_other_are_no_way_to_the_front() {
        let mut queue = FairQueue::new(100, 100);
        let (greedy, modest) = (FlowId::new(1), FlowId::new(2));
        queue.admit(flow(2)).unwrap();
        (0..1_000).for_each(|_| queue.push(modest, 2));
        let mut used = [0_u64; 3];
        for _ in 0..300 {
            // It is there for one item only, which takes ten times as long, and comes again at once.
            queue.admit(flow(1)).unwrap();
            queue.push(greedy, 1);
            while let Some((id, item)) = queue.pop() {
                let micros = if item == 1 { 1_000 } else { 100 };
                used[item as usize] += micros;
                queue.charge(id, Duration::from_micros(micros));
                if item == 1 {
                    break;
                }
            }
            queue.leave(greedy);
            if used[2] == 100 * 1_000 {
                break;
            }
        }
        assert!(used[1] <= used[2] + 2_000, "{used:?}");
    }

    #[test]
    fn a_pause_is_not_saved_up() {
        let mut queue = FairQueue::new(100_000, 100_000);
        (1..=2).for_each(|id| queue.admit(flow(id)).unwrap());
        (0..1_000).for_each(|_| queue.push(FlowId::new(1), 1));
        (0..500).for_each(|_| assert!(take(&mut queue, 1_000).is_some()));
        queue.leave(FlowId::new(2));
        queue.admit(flow(2)).unwrap();
        (0..1_000).for_each(|_| queue.push(FlowId::new(2), 2));
        let taken: Vec<_> = (0..100).filter_map(|_| take(&mut queue, 1_000)).collect();
        let of_second = taken.iter().filter(|item| **item == 2).count();
        assert!((49..=51).contains(&of_second), "{of_second} of 100");
    }

    #[test]
    fn limits_are_of_each_flow_and_of_all() {
        let mut queue = FairQueue::<u64>::new(3, 2);
        assert_eq!([1, 1, 1].map(|id| queue.admit(flow(id))), [Ok(()), Ok(()), Err(Full)]);
        assert_eq!([2, 3].map(|id| queue.admit(flow(id))), [Ok(()), Err(Full)]);
        assert_eq!(queue.admit(flow(0)), Ok(()), "exempt");
        queue.leave(FlowId::new(0));
        queue.leave(FlowId::new(1));
        assert_eq!(queue.admit(flow(1)), Ok(()));
    }

    #[test]
    fn who_is_exempt_goes_first() {
        let mut queue = FairQueue::new(100, 100);
        for id in [1, 2, 0] {
            queue.admit(flow(id)).unwrap();
            (0..3).for_each(|_| queue.push(FlowId::new(id), id));
        }
        let taken: Vec<_> = (0..9).filter_map(|_| take(&mut queue, 1_000)).collect();
        assert_eq!(taken, [0, 0, 0, 1, 2, 1, 2, 1, 2]);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_and_nothing_stays(
            steps in proptest::collection::vec((0_u64..4, 0_u8..4, 0_u64..2_000), 0..200),
        ) {
            let mut queue = FairQueue::new(1_000, 1_000);
            let (mut inside, mut taken, mut pushed) = (Vec::new(), 0, 0);
            for (id, what, micros) in steps {
                match what {
                    0 => {
                        queue.admit(flow(id)).unwrap();
                        inside.push(id);
                    }
                    1 if inside.contains(&id) => {
                        queue.push(FlowId::new(id), id);
                        pushed += 1;
                    }
                    2 => taken += usize::from(take(&mut queue, micros).is_some()),
                    _ => {
                        if let Some(at) = inside.iter().position(|other| *other == id) {
                            inside.swap_remove(at);
                            queue.leave(FlowId::new(id));
                        }
                    }
                }
            }
            while take(&mut queue, 1).is_some() {
                taken += 1;
            }
            prop_assert_eq!(taken, pushed);
            inside.into_iter().for_each(|id| queue.leave(FlowId::new(id)));
            // The queue is idle: it forgets them all.
            prop_assert!(queue.pop().is_none());
            prop_assert!(queue.flows.is_empty() && queue.ready.is_empty() && queue.members == 0);
        }
    }
}
