use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

const BACKOFF: Backoff = Backoff::new(ms(10), ms(160));

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// A queue, and the moment to which its times are relative.
fn queue() -> (State<&'static str>, Instant) {
    (State::new(BACKOFF), Instant::now())
}

/// All keys that are ready, in order. They are running then.
fn start_all(queue: &mut State<&'static str>, now: Instant) -> Vec<&'static str> {
    std::iter::from_fn(|| queue.start(now)).collect()
}

#[test]
fn additions_are_merged_and_run_first_in_first_out() {
    let (mut queue, now) = queue();
    ["a", "b", "a", "c", "b"].into_iter().for_each(|key| queue.add(key));
    assert_eq!(start_all(&mut queue, now), ["a", "b", "c"]);
}

#[test]
fn a_key_that_is_added_while_it_runs_comes_again_afterwards_and_last() {
    let (mut queue, now) = queue();
    queue.add("a");
    assert_eq!(start_all(&mut queue, now), ["a"]);
    ["a", "a", "b"].into_iter().for_each(|key| queue.add(key));
    assert_eq!(start_all(&mut queue, now), ["b"]);
    queue.add("c");
    queue.succeeded(&"a");
    assert_eq!(start_all(&mut queue, now), ["c", "a"]);
    queue.succeeded(&"a");
    assert_eq!(start_all(&mut queue, now), [""; 0]);
}

#[test]
fn of_several_times_the_earliest_counts() {
    // Delays in milliseconds, and when the key becomes ready; afterwards nothing is left of it.
    for (delays, due) in [(&[30, 20, 40][..], 20), (&[20, 20], 20), (&[20, 0], 0), (&[0, 20], 0)] {
        let (mut queue, now) = queue();
        delays.iter().for_each(|delay| queue.add_after("a", ms(*delay), now));
        if due > 0 {
            assert_eq!(queue.next_due(), Some(now + ms(due)), "{delays:?}");
            assert_eq!(queue.start(now + ms(due - 1)), None, "{delays:?}");
        }
        assert_eq!(queue.start(now + ms(due)), Some("a"), "{delays:?}");
        assert_eq!(queue.next_due(), None, "{delays:?}");
        queue.succeeded(&"a");
        assert!(queue.is_empty(), "{delays:?}");
    }
}

#[test]
fn a_key_whose_time_comes_while_it_runs_comes_again_afterwards() {
    let (mut queue, now) = queue();
    queue.add("a");
    assert_eq!(start_all(&mut queue, now), ["a"]);
    queue.add_after("a", ms(10), now);
    assert_eq!(start_all(&mut queue, now + ms(10)), [""; 0]);
    assert_eq!(queue.next_due(), None, "only the end of the run makes room for it");
    queue.succeeded(&"a");
    assert_eq!(start_all(&mut queue, now + ms(10)), ["a"]);
}

#[test]
fn delayed_keys_become_ready_in_the_order_of_their_times() {
    let (mut queue, now) = queue();
    [("c", 3), ("a", 1), ("d", 3), ("b", 2), ("late", 4)]
        .into_iter()
        .for_each(|(key, delay)| queue.add_after(key, ms(delay), now));
    assert_eq!(start_all(&mut queue, now + ms(3)), ["a", "b", "c", "d"]);
}

#[test]
fn a_failing_key_waits_longer_each_time_until_it_succeeds() {
    let (mut queue, mut now) = queue();
    queue.add("a");
    for (earlier, delay) in [10, 20, 40, 80, 160, 160, 160].into_iter().enumerate() {
        assert_eq!(queue.start(now), Some("a"));
        let failures = u32::try_from(earlier).unwrap() + 1;
        assert_eq!(queue.failed(&"a", now, 0), Some(Retry { failures, delay: ms(delay) }));
        assert_eq!(queue.start(now + ms(delay - 1)), None);
        now += ms(delay);
    }
    assert_eq!(queue.start(now), Some("a"));
    queue.succeeded(&"a");
    assert!(queue.is_empty(), "the failures are forgotten");
    queue.add("a");
    assert_eq!(queue.start(now), Some("a"));
    assert_eq!(queue.failed(&"a", now, 250), Some(Retry { failures: 1, delay: ms(10) * 3 / 4 }));
}

#[test]
fn a_run_that_takes_too_long_is_a_failure_with_the_longest_delay() {
    let (mut queue, now) = queue();
    queue.add("a");
    assert_eq!(queue.start(now), Some("a"));
    assert_eq!(queue.ran_too_long(&"a", now), Some(Retry { failures: 1, delay: BACKOFF.last }));
    assert_eq!(queue.next_due(), Some(now + BACKOFF.last));
}

#[test]
fn a_failing_key_does_not_wait_if_it_was_added_meanwhile() {
    let (mut queue, now) = queue();
    queue.add("a");
    assert_eq!(queue.start(now), Some("a"));
    queue.add("a");
    assert!(queue.failed(&"a", now, 0).is_some());
    assert_eq!(queue.start(now), Some("a"), "added while it ran");
    assert!(queue.failed(&"a", now, 0).is_some());
    assert_eq!(queue.start(now), None);
    queue.add("a");
    assert_eq!(queue.start(now), Some("a"), "added while it waited");
    assert_eq!(queue.next_due(), None);
}

#[test]
fn hurry_retries_what_failed_and_nothing_else() {
    let (mut queue, now) = queue();
    ["first", "second", "running", "good"].into_iter().for_each(|key| queue.add(key));
    start_all(&mut queue, now);
    queue.failed(&"running", now, 0);
    queue.failed(&"second", now, 0);
    queue.failed(&"first", now, 500);
    queue.succeeded(&"good");
    queue.add_after("good", ms(30), now);
    assert_eq!(start_all(&mut queue, now + ms(5)), ["first"]);
    queue.failed(&"first", now, 900);
    queue.add("running");
    assert_eq!(start_all(&mut queue, now), ["running"]);
    queue.hurry();
    assert_eq!(start_all(&mut queue, now), ["first", "second"]);
    queue.succeeded(&"running");
    assert_eq!(start_all(&mut queue, now), ["running"], "that run may have begun before things were better");
    assert_eq!(queue.next_due(), Some(now + ms(30)));
}

#[test]
fn the_end_of_a_run_that_never_began_changes_nothing() {
    let (mut queue, now) = queue();
    queue.add("ready");
    queue.add_after("delayed", ms(10), now);
    for key in ["ready", "delayed", "unknown"] {
        queue.succeeded(&key);
        assert_eq!(queue.failed(&key, now, 0), None);
        assert_eq!(queue.ran_too_long(&key, now), None);
    }
    assert_eq!(start_all(&mut queue, now + ms(10)), ["ready", "delayed"]);
}

#[test]
fn no_delay_is_too_long() {
    let (mut queue, now) = queue();
    queue.add_after("a", Duration::MAX, now);
    assert_eq!(queue.start(now + Duration::from_secs(366 * 24 * 3600)), None);
    queue.add("a");
    assert_eq!(queue.start(now), Some("a"));
}

/// Something that happens to a queue. Times in milliseconds.
#[derive(Debug, Clone, Copy)]
enum Happening {
    Add(u8),
    AddAfter(u8, u64),
    Start,
    Succeeded(usize),
    Failed(usize),
    RanTooLong(usize),
    Hurry,
    Pass(u64),
}

fn happenings() -> impl Strategy<Value = Vec<Happening>> {
    let key = || 0..5_u8;
    let one = prop_oneof![
        4 => key().prop_map(Happening::Add),
        3 => (key(), 0..60_u64).prop_map(|(key, delay)| Happening::AddAfter(key, delay)),
        6 => Just(Happening::Start),
        2 => any::<usize>().prop_map(Happening::Succeeded),
        2 => any::<usize>().prop_map(Happening::Failed),
        1 => any::<usize>().prop_map(Happening::RanTooLong),
        1 => Just(Happening::Hurry),
        3 => (0..40_u64).prop_map(Happening::Pass),
    ];
    prop::collection::vec(one, 0..200)
}

/// The guarantees, written down as what they allow: beside the queue, only *when* each key is to run next.
struct World {
    queue: State<u8>,
    now: Instant,
    running: Vec<u8>,
    /// By when a run of the key has to be possible, if one is owed.
    owed: BTreeMap<u8, Instant>,
    failures: BTreeMap<u8, u32>,
    /// How often the second key began while the first was ready.
    overtaken: BTreeMap<(u8, u8), u32>,
}

impl World {
    fn new() -> Self {
        Self {
            queue: State::new(BACKOFF),
            now: Instant::now(),
            running: Vec::new(),
            owed: BTreeMap::new(),
            failures: BTreeMap::new(),
            overtaken: BTreeMap::new(),
        }
    }

    fn owe(&mut self, key: u8, at: Instant) {
        let owed = self.owed.entry(key).or_insert(at);
        *owed = at.min(*owed);
    }

    /// The keys that a free worker may be given.
    fn ready(&self) -> Vec<u8> {
        let due = self.owed.iter().filter(|(_, at)| **at <= self.now).map(|(key, _)| *key);
        due.filter(|key| !self.running.contains(key)).collect()
    }

    fn start(&mut self) -> Result<Option<u8>, TestCaseError> {
        let ready = self.ready();
        let started = self.queue.start(self.now);
        let Some(key) = started else {
            prop_assert!(ready.is_empty(), "{ready:?} could run");
            let next = self.owed.values().filter(|at| **at > self.now).min();
            prop_assert_eq!(self.queue.next_due(), next.copied());
            return Ok(None);
        };
        prop_assert!(!self.running.contains(&key), "{} runs twice at once", key);
        prop_assert!(ready.contains(&key), "{} runs without reason, or too early", key);
        for waiting in ready.into_iter().filter(|waiting| *waiting != key) {
            let times = self.overtaken.entry((waiting, key)).or_default();
            *times += 1;
            prop_assert!(*times <= 1, "{} overtook {} again", key, waiting);
        }
        self.overtaken.retain(|(waiting, _), _| *waiting != key);
        self.owed.remove(&key);
        self.running.push(key);
        Ok(started)
    }

    /// Takes one of the running keys out, if there is any.
    fn stop(&mut self, which: usize) -> Option<u8> {
        let index = which.checked_rem(self.running.len())?;
        Some(self.running.swap_remove(index))
    }

    fn succeed(&mut self, which: usize) {
        if let Some(key) = self.stop(which) {
            self.queue.succeeded(&key);
            self.failures.remove(&key);
        }
    }

    fn fail(&mut self, which: usize, too_long: bool) -> Result<(), TestCaseError> {
        let Some(key) = self.stop(which) else { return Ok(()) };
        let failures = self.failures.entry(key).or_default();
        let delay = if too_long { BACKOFF.last } else { BACKOFF.delay(*failures) };
        *failures += 1;
        let expected = Some(Retry { failures: *failures, delay });
        let retry = match too_long {
            true => self.queue.ran_too_long(&key, self.now),
            false => self.queue.failed(&key, self.now, 0),
        };
        prop_assert_eq!(retry, expected);
        self.owe(key, self.now + delay);
        Ok(())
    }

    fn happen(&mut self, happening: Happening) -> Result<(), TestCaseError> {
        match happening {
            Happening::Add(key) => {
                self.queue.add(key);
                self.owe(key, self.now);
            }
            Happening::AddAfter(key, delay) => {
                self.queue.add_after(key, ms(delay), self.now);
                self.owe(key, self.now + ms(delay));
            }
            Happening::Start => drop(self.start()?),
            Happening::Succeeded(which) => self.succeed(which),
            Happening::Failed(which) => self.fail(which, false)?,
            Happening::RanTooLong(which) => self.fail(which, true)?,
            Happening::Hurry => {
                self.queue.hurry();
                for key in self.failures.keys().copied().collect::<Vec<_>>() {
                    self.owe(key, self.now);
                }
            }
            Happening::Pass(millis) => self.now += ms(millis),
        }
        Ok(())
    }

    /// From here on all goes well: what is owed is done, and then nothing is left.
    fn end_well(mut self) -> Result<(), TestCaseError> {
        loop {
            self.now += ms(1_000);
            while self.start()?.is_some() {}
            if self.running.is_empty() {
                break;
            }
            while !self.running.is_empty() {
                self.succeed(0);
            }
        }
        prop_assert!(self.owed.is_empty());
        prop_assert!(self.queue.is_empty());
        Ok(())
    }
}

proptest! {
    #[test]
    fn the_guarantees_hold_whatever_happens(happenings in happenings()) {
        let mut world = World::new();
        for happening in happenings {
            world.happen(happening)?;
        }
        world.end_well()?;
    }

    /// However often a key is added, one that waits is next after those that waited before it.
    #[test]
    fn nobody_is_starved(others in 1..6_u8, rounds in 1..50_usize) {
        let mut queue = State::new(BACKOFF);
        let now = Instant::now();
        let mut begun = BTreeMap::<u8, usize>::new();
        (0..=others).for_each(|key| queue.add(key));
        for _ in 0..rounds * (usize::from(others) + 1) {
            let key = queue.start(now).expect("all are added again");
            *begun.entry(key).or_default() += 1;
            // Before and after, as a watch would do it.
            queue.add(key);
            queue.succeeded(&key);
            queue.add(key);
        }
        prop_assert!(begun.values().all(|times| *times == rounds), "{:?}", begun);
    }
}
