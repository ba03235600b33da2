//! Who is let in, and who has to go when there is no room. No I/O, no clock: moments are durations since the server began to
//! listen.
//!
//! A connection is a **stranger** until a request on it was authenticated, or its client certificate was verified; then it is
//! **known**. Room is made in this order: strangers without requests, strangers with requests, known ones without requests. Known
//! ones with requests (agents watch) stay, whatever comes. Of strangers those go first whose address has most of them, so that
//! one address that opens thousands of connections takes them from itself.
//!
//! Who has to go is closed gracefully (GOAWAY; what is under way is answered) and still counts as open until it is gone; so
//! room is made a little before there is none. One that takes its time is cut off when the room is needed.

use super::activity::{Activity, Doing};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// How many connections a server has at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectionLimits {
    /// `--max-connections`: all of them. It should leave room in the process's limit of open files.
    pub all: usize,
    /// `--max-connections-per-address`: those of one IPv4 address, or of one IPv6 network of 64 bits.
    pub per_address: usize,
    /// `--max-unauthenticated-connections`: those that have not been authenticated yet.
    pub unauthenticated: usize,
    /// `--max-tls-handshakes`: TLS handshakes at once.
    pub handshakes: usize,
    /// `--max-buffered-requests-mb`: bytes of request bodies that have not come to their end. An eighth of them for each
    /// connection.
    pub request_bytes: usize,
    /// `--max-unread-answers-mb`: bytes of large answers that their clients have not read. An eighth of them for each
    /// connection.
    pub answer_bytes: usize,
}

impl ConnectionLimits {
    /// The limits that follow from how many connections there may be: half of them for one address, since a whole fleet may
    /// come from behind one, and at most 1,000 that are not authenticated.
    pub fn of(all: usize) -> Self {
        Self {
            all,
            per_address: (all / 2).max(1),
            unauthenticated: (all / 4).clamp(1, 1000),
            handshakes: 64,
            request_bytes: 64 << 20,
            answer_bytes: 128 << 20,
        }
    }
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self::of(20_000)
    }
}

/// Where connections come from, as far as limits are concerned: an IPv4 address, or the network of 64 bits of an IPv6 address,
/// of which one host may have all addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Origin(IpAddr);

impl Origin {
    pub(super) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                Self(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into())
            }
            v4 => Self(v4),
        }
    }
}

/// Why a connection is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Refusal {
    /// There are as many as there may be, and none of them can go.
    Full,
    /// So it is with those of its address.
    Address,
}

/// What has to be done with a connection that has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Going {
    /// It is told, and ends when what is under way is answered.
    Gracefully(u64),
    /// It is cut off.
    AtOnce(u64),
}

/// What came of an arrival.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrival {
    /// The new connection's number.
    pub(super) admitted: Result<u64, Refusal>,
    /// Those that have to go.
    pub(super) going: Vec<Going>,
}

/// A connection without requests for so long is idle. A younger one may be about to send its first request, and is spared as
/// long as there are others: or nobody would get through while connections come and go by the hundred.
const IDLE_AFTER: Duration = Duration::from_secs(5);
/// How long nobody looks for an idle known connection again after none was found: there may be tens of thousands.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// All connections.
pub(super) struct Table {
    limits: ConnectionLimits,
    next: u64,
    // A connection is in exactly one of the three. By number.
    strangers: BTreeMap<u64, Entry>,
    known: BTreeMap<u64, Entry>,
    /// Told to go, in the order in which they were told.
    closing: VecDeque<Closing>,
    /// How many of each origin are among `strangers` and `known`; no zeros.
    origins: HashMap<Origin, Count>,
    /// Before that moment no known connection is idle.
    none_idle_before: Duration,
}

struct Entry {
    origin: Origin,
    activity: Arc<Activity>,
}

struct Closing {
    id: u64,
    activity: Arc<Activity>,
    /// Whether it was known when it was told.
    known: bool,
}

#[derive(Default)]
struct Count {
    strangers: usize,
    all: usize,
    /// Before that moment none of its known connections is idle.
    none_idle_before: Duration,
}

/// Whom to take: the greatest goes.
type Rank = (bool, Class, usize, Reverse<(Duration, u64)>);

/// From those that stay to those that go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Class {
    /// It has come, or was last heard, a moment ago.
    Fresh,
    /// It has requests under way.
    Busy,
    Idle,
}

impl Table {
    pub(super) fn new(limits: ConnectionLimits) -> Self {
        Self {
            limits,
            next: 0,
            strangers: BTreeMap::new(),
            known: BTreeMap::new(),
            closing: VecDeque::new(),
            origins: HashMap::new(),
            none_idle_before: Duration::ZERO,
        }
    }

    /// How many strangers and known ones there are; those that were told to go do not count.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.strangers.len(), self.known.len())
    }

    /// Somebody connects. While there is room this is a look into a map; otherwise it is linear in the number of strangers, and
    /// at most once in [`LOOK_AGAIN`] (for all and for each address) in that of all connections.
    pub(super) fn arrive(&mut self, address: IpAddr, activity: Arc<Activity>, now: Duration) -> Arrival {
        let origin = Origin::of(address);
        let mut going = Vec::new();
        let admitted = self.make_room(origin, now, &mut going).map(|()| {
            let id = self.next;
            self.next += 1;
            self.strangers.insert(id, Entry { origin, activity });
            let count = self.origins.entry(origin).or_default();
            count.strangers += 1;
            count.all += 1;
            id
        });
        Arrival { admitted, going }
    }

    fn make_room(&mut self, origin: Origin, now: Duration, going: &mut Vec<Going>) -> Result<(), Refusal> {
        let ours = |table: &Self| table.origins.get(&origin).map_or(0, |count| count.all);
        if ours(self) >= self.limits.per_address && !self.send_away(Some(origin), now, going) {
            return Err(Refusal::Address);
        }
        if self.strangers.len() >= self.limits.unauthenticated.max(1) {
            // There is one: the limit is at least 1. It makes no difference to those who are known.
            self.send_away_stranger(None, now, going);
        }
        // A sixteenth is left for those that take a moment to close.
        let all = self.limits.all.max(1);
        if self.strangers.len() + self.known.len() >= all - all / 16 {
            self.send_away(None, now, going);
        }
        // Of strangers that were told to go, only a sixteenth may take their time.
        let slow = self.closing.iter().filter(|closing| !closing.known).count();
        if slow > (self.limits.unauthenticated / 16).max(1) {
            self.cut_off(going);
        }
        let open = |table: &Self| table.strangers.len() + table.known.len() + table.closing.len();
        while open(self) >= all {
            if !self.cut_off(going) {
                return Err(Refusal::Full);
            }
        }
        Ok(())
    }

    /// Tells one to go: a stranger, or else an idle known one.
    fn send_away(&mut self, origin: Option<Origin>, now: Duration, going: &mut Vec<Going>) -> bool {
        self.send_away_stranger(origin, now, going) || self.send_away_known(origin, now, going)
    }

    fn send_away_stranger(&mut self, origin: Option<Origin>, now: Duration, going: &mut Vec<Going>) -> bool {
        let strangers = self.strangers.iter();
        let fair = self.limits.unauthenticated / 4;
        let rank = |id: u64, entry: &Entry| -> Rank {
            let (class, since) = class(&entry.activity, now);
            let many = self.origins.get(&entry.origin).map_or(0, |count| count.strangers);
            // An address with more than its share comes first, whatever its connections do; of several the one with most.
            (many > fair, class, many, Reverse((since, id)))
        };
        let from_here = strangers.filter(|(_, entry)| origin.is_none_or(|origin| entry.origin == origin));
        let Some(id) = from_here.max_by_key(|(id, entry)| rank(**id, entry)).map(|(id, _)| *id) else {
            return false;
        };
        self.tell(id, going);
        true
    }

    fn send_away_known(&mut self, origin: Option<Origin>, now: Duration, going: &mut Vec<Going>) -> bool {
        let ours = origin.and_then(|origin| self.origins.get(&origin)).map(|count| count.none_idle_before);
        if now < self.none_idle_before || ours.is_some_and(|before| now < before) {
            return false;
        }
        let idle = self.known.iter().filter_map(|(id, entry)| {
            let here = origin.is_none_or(|origin| entry.origin == origin);
            let (class, since) = class(&entry.activity, now);
            (here && class == Class::Idle).then_some((since, *id))
        });
        match idle.min() {
            Some((_, id)) => {
                self.tell(id, going);
                true
            }
            None => {
                match origin {
                    None => self.none_idle_before = now + LOOK_AGAIN,
                    Some(origin) => {
                        self.origins.entry(origin).or_default().none_idle_before = now + LOOK_AGAIN;
                    }
                }
                false
            }
        }
    }

    fn tell(&mut self, id: u64, going: &mut Vec<Going>) {
        let taken = self.strangers.remove(&id).map(|entry| (entry, false));
        let Some((entry, known)) = taken.or_else(|| self.known.remove(&id).map(|entry| (entry, true))) else {
            return;
        };
        self.uncount(entry.origin, known);
        self.closing.push_back(Closing { id, activity: entry.activity, known });
        going.push(Going::Gracefully(id));
    }

    /// Cuts off the oldest of those that were told to go: a stranger, or a known one without requests.
    fn cut_off(&mut self, going: &mut Vec<Going>) -> bool {
        let may_be_cut =
            |closing: &Closing| !closing.known || !matches!(closing.activity.doing(), Doing::Busy(_));
        let Some(at) = self.closing.iter().position(may_be_cut) else { return false };
        let Some(Closing { id, .. }) = self.closing.remove(at) else { return false };
        // Told a moment ago, for this very arrival: once is enough.
        going.retain(|other| *other != Going::Gracefully(id));
        going.push(Going::AtOnce(id));
        true
    }

    fn uncount(&mut self, origin: Origin, known: bool) {
        let Some(count) = self.origins.get_mut(&origin) else { return };
        count.all -= 1;
        if !known {
            count.strangers -= 1;
        }
        if count.all == 0 {
            self.origins.remove(&origin);
        }
    }

    /// A stranger has turned out to be somebody. One that was told to go goes nevertheless, and comes back as known.
    pub(super) fn authenticated(&mut self, id: u64) {
        let Some(entry) = self.strangers.remove(&id) else { return };
        if let Some(count) = self.origins.get_mut(&entry.origin) {
            count.strangers -= 1;
        }
        self.known.insert(id, entry);
    }

    /// A connection has ended, for whatever reason; what is not known is ignored.
    pub(super) fn gone(&mut self, id: u64) {
        if let Some(entry) = self.strangers.remove(&id) {
            self.uncount(entry.origin, false);
        } else if let Some(entry) = self.known.remove(&id) {
            self.uncount(entry.origin, true);
        } else {
            self.closing.retain(|closing| closing.id != id);
        }
    }
}

fn class(activity: &Activity, now: Duration) -> (Class, Duration) {
    match activity.doing() {
        Doing::Busy(since) => (Class::Busy, since),
        Doing::Head(since) | Doing::Quiet(since) if now.saturating_sub(since) >= IDLE_AFTER => {
            (Class::Idle, since)
        }
        Doing::Head(since) | Doing::Quiet(since) => (Class::Fresh, since),
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
