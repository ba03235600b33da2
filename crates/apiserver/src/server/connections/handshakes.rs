//! How many TLS handshakes are under way at once, and whose place is given to another. No I/O, no clock.
//!
//! A handshake costs a signature, so of thousands of clients that come at once a few are served quickly instead of all of them
//! slowly; the others wait in the kernel's backlog. A client that does not go on with its handshake keeps its place only while
//! nobody else wants it.

use super::table::Origin;
use std::collections::VecDeque;
use std::time::Duration;

/// How long a handshake keeps its place although others wait.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);
/// The same if its address has more than a quarter of all places. A client that means it has its first bytes here when its
/// connection is accepted.
pub(super) const LITTLE_PATIENCE: Duration = Duration::from_millis(250);

/// The handshakes under way, in the order in which they began.
#[derive(Debug)]
pub(super) struct Handshakes {
    /// At least 1.
    places: usize,
    under_way: VecDeque<Handshake>,
}

#[derive(Debug, Clone, Copy)]
struct Handshake {
    id: u64,
    origin: Origin,
    began: Duration,
    /// It has been told to give up, and has not ended yet. Its place counts as free.
    told: bool,
}

/// Whether one more handshake may begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It may.
    Free,
    /// It may, once this one has been told to give up.
    TakenFrom(u64),
    /// Not before then, unless one ends.
    NotBefore(Duration),
}

impl Handshakes {
    pub(super) fn new(places: usize) -> Self {
        Self { places: places.max(1), under_way: VecDeque::new() }
    }

    /// Begins one. [`Handshakes::place`] said that it may.
    pub(super) fn begin(&mut self, id: u64, origin: Origin, now: Duration) {
        self.under_way.push_back(Handshake { id, origin, began: now, told: false });
    }

    /// Forgets one that is done or has failed; what is not known is ignored.
    pub(super) fn end(&mut self, id: u64) {
        self.under_way.retain(|handshake| handshake.id != id);
    }

    /// Whether there is a place for somebody who waits for one. The oldest one that has had its time goes. Linear in the
    /// number of places.
    pub(super) fn place(&mut self, now: Duration) -> Place {
        let taken = || self.under_way.iter().filter(|handshake| !handshake.told);
        if taken().count() < self.places {
            return Place::Free;
        }
        // Those that were told to give up hardly take a moment. If they do, the machine is busy, and more of them would not
        // make it faster.
        if self.under_way.len() >= 2 * self.places {
            return Place::NotBefore(now + LITTLE_PATIENCE);
        }
        let due = |handshake: &Handshake| {
            let same = taken().filter(|other| other.origin == handshake.origin).count();
            handshake.began + if same > self.places / 4 { LITTLE_PATIENCE } else { PATIENCE }
        };
        let Some((at, id)) = taken().map(|handshake| (due(handshake), handshake.id)).min() else {
            return Place::Free;
        };
        if at > now {
            return Place::NotBefore(at);
        }
        self.under_way.iter_mut().filter(|handshake| handshake.id == id).for_each(|h| h.told = true);
        Place::TakenFrom(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(n: u8) -> Origin {
        Origin::of([192, 0, 2, n].into())
    }

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn who_waits_gets_the_place_of_the_one_that_is_overdue() {
        let mut handshakes = Handshakes::new(8);
        for n in 0..8 {
            assert_eq!(handshakes.place(ms(n)), Place::Free);
            // Each from an address of its own.
            handshakes.begin(n, origin(n as u8), ms(n));
        }
        assert_eq!(handshakes.place(ms(10)), Place::NotBefore(PATIENCE));
        assert_eq!(handshakes.place(PATIENCE), Place::TakenFrom(0));
        handshakes.begin(8, origin(8), PATIENCE);
        assert_eq!(handshakes.place(PATIENCE), Place::NotBefore(PATIENCE + ms(1)));
        handshakes.end(0);
        // Ends by itself, in time.
        handshakes.end(5);
        handshakes.end(5);
        assert_eq!(handshakes.place(PATIENCE), Place::Free);
    }

    #[test]
    fn an_address_with_many_slow_ones_makes_room_first() {
        let mut handshakes = Handshakes::new(8);
        handshakes.begin(0, origin(0), ms(0));
        for n in 1..8 {
            handshakes.begin(n, origin(1), ms(100));
        }
        assert_eq!(handshakes.place(ms(100)), Place::NotBefore(ms(100) + LITTLE_PATIENCE));
        let now = ms(100) + LITTLE_PATIENCE;
        let mut gone = Vec::new();
        while let Place::TakenFrom(id) = handshakes.place(now) {
            gone.push(id);
            handshakes.begin(100 + id, origin(2 + id as u8), now);
        }
        // It keeps two, a quarter of all; so does whoever is slow and alone.
        assert_eq!(gone, [1, 2, 3, 4, 5]);
    }

    #[test]
    fn those_who_do_not_give_up_are_not_replaced_without_end() {
        let mut handshakes = Handshakes::new(4);
        let mut begun = 0;
        // None of them ever ends.
        for now in (0..100).map(|n| ms(n * 2000)) {
            if !matches!(handshakes.place(now), Place::NotBefore(_)) {
                handshakes.begin(begun, origin(begun as u8), now);
                begun += 1;
            }
        }
        assert_eq!(begun, 8);
    }
}
