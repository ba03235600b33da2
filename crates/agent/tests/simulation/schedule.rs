//! What will happen in a simulation, made from its seed before it begins.

use crate::{
    random::Random,
    weather::{Death, Weather},
};
use std::time::Duration;

/// How large a simulation is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) clusters: usize,
    pub(crate) accounts: usize,
    pub(crate) days: u64,
    /// Deaths of agents, besides those that any schedule has.
    pub(crate) kills: usize,
    /// Whether there are agents at all: without, the checks have to find fault.
    pub(crate) agents: bool,
    /// How often an agent asks whether a token is still good.
    pub(crate) review: Duration,
    /// How long the agents' Leases on the hub last. The longer, the fewer requests a simulation has to carry.
    pub(crate) hub_lease: Duration,
    /// How often all accounts are checked.
    pub(crate) check: Duration,
}

/// Where something happens. A link is one cluster's agent's way to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Hub,
    Cluster(usize),
    HubLink(usize),
    ClusterLink(usize),
}

/// What users do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    CreateAccount,
    DeleteAccount,
    ChangeValidity,
    DeleteSecret,
    /// Another text, another account's token, no token.
    AlterSecret,
    DeleteServiceAccount,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Act {
    Begin {
        place: Place,
        number: u64,
        weather: Weather,
    },
    Over {
        place: Place,
        number: u64,
    },
    /// All connections break.
    Cut(Place),
    /// Open connections die without a word.
    Mute(Place),
    Backup(Place),
    /// One of the backups is put back; the number picks it.
    Restore(Place, u64),
    /// The clock of the agent's machine goes wrong by so many seconds, for a while.
    ClockWrong {
        cluster: usize,
        ahead: i64,
    },
    ClockRight {
        cluster: usize,
    },
    /// The agent dies, now or at a request, and comes back after a while.
    Kill {
        cluster: usize,
        at: Option<(u32, Death)>,
        down: Duration,
    },
    /// The agent's namespace on the cluster is deleted, and comes back.
    NamespaceTerminates(usize),
    NamespaceGone(usize),
    NamespaceBack(usize),
    RootCaBack(usize),
    /// A user does something to an account; the number picks which.
    User {
        cluster: usize,
        deed: Deed,
        pick: u64,
    },
}

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// Kinds of events that can be left out.
///
/// All are on. One that the agent does not bear yet is switched off here, with the reason, so that the rest is tested.
struct Kinds {
    hub_restores: bool,
    cluster_restores: bool,
    clocks: bool,
    namespaces: bool,
    mutes: bool,
}

const KINDS: Kinds =
    Kinds { hub_restores: true, cluster_restores: true, clocks: true, namespaces: true, mutes: true };

struct Writer {
    random: Random,
    end: u64,
    acts: Vec<(Duration, Act)>,
    numbers: u64,
}

/// Everything that will happen, in order.
pub(crate) fn write(size: Size, mut random: Random) -> Vec<(Duration, Act)> {
    let mut writer = Writer { random: random.fork(), end: size.days * DAY, acts: Vec::new(), numbers: 0 };
    writer.weather(Place::Hub, 8 * HOUR, 2 * HOUR);
    writer.backups(Place::Hub, 6 * DAY, KINDS.hub_restores);
    for cluster in 0..size.clusters {
        writer.cluster(cluster);
    }
    for _ in 0..size.kills {
        let at = writer.random.below(writer.end);
        let cluster = writer.random.below(size.clusters as u64) as usize;
        writer.kill(cluster, at);
    }
    let mut acts = writer.acts;
    // Stable: what was written first happens first.
    acts.sort_by_key(|(at, _)| *at);
    acts
}

impl Writer {
    fn add(&mut self, at: u64, act: Act) {
        // Everything is over by the end, so that there is a time of peace to look at.
        self.acts.push((Duration::from_secs(at.min(self.end)), act));
    }

    /// Moments that are so far apart on average.
    fn moments(&mut self, apart: u64) -> Vec<u64> {
        let mut moments = Vec::new();
        let mut at = 0;
        loop {
            at += self.random.between(1, 2 * apart);
            if at >= self.end {
                return moments;
            }
            moments.push(at);
        }
    }

    fn cluster(&mut self, cluster: usize) {
        self.weather(Place::Cluster(cluster), 10 * HOUR, 3 * HOUR);
        self.weather(Place::HubLink(cluster), 12 * HOUR, HOUR);
        self.weather(Place::ClusterLink(cluster), 12 * HOUR, HOUR);
        self.backups(Place::Cluster(cluster), 8 * DAY, KINDS.cluster_restores);
        for place in [Place::HubLink(cluster), Place::ClusterLink(cluster)] {
            for at in self.moments(2 * HOUR) {
                self.add(at, Act::Cut(place));
            }
            for at in self.moments(8 * HOUR) {
                if KINDS.mutes {
                    self.add(at, Act::Mute(place));
                }
            }
        }
        for at in self.moments(12 * HOUR) {
            self.kill(cluster, at);
        }
        for at in self.moments(2 * DAY) {
            if KINDS.clocks {
                self.clock(cluster, at);
            }
        }
        for at in self.moments(4 * DAY) {
            if KINDS.namespaces {
                let gone = at + self.random.between(2, 20);
                let back = gone + self.random.between(1, 20 * MINUTE);
                self.add(at, Act::NamespaceTerminates(cluster));
                self.add(gone, Act::NamespaceGone(cluster));
                self.add(back, Act::NamespaceBack(cluster));
                self.add(back + 3, Act::RootCaBack(cluster));
            }
        }
        for at in self.moments(3 * HOUR) {
            let deed = *self.random.pick(&[
                Deed::CreateAccount,
                Deed::CreateAccount,
                Deed::DeleteAccount,
                Deed::DeleteAccount,
                Deed::ChangeValidity,
                Deed::DeleteSecret,
                Deed::AlterSecret,
                Deed::DeleteServiceAccount,
            ]);
            let pick = self.random.next();
            self.add(at, Act::User { cluster, deed, pick });
        }
    }

    fn weather(&mut self, place: Place, apart: u64, longest: u64) {
        for at in self.moments(apart) {
            self.numbers += 1;
            let number = self.numbers;
            let weather = match self.random.below(10) {
                0 | 1 => Weather::Refused,
                2 => Weather::Silent,
                3 => Weather::Certificate,
                4 => Weather::Error(*self.random.pick(&[500, 502, 503, 504])),
                5 => Weather::TooMany { retry_after: self.random.between(1, 30) },
                6 => Weather::Denied(401),
                7 => Weather::Denied(403),
                8 => Weather::Lossy(self.random.between(50, 900)),
                _ => Weather::Slow(Duration::from_secs(self.random.between(1, 40))),
            };
            // Many are short, a few are long.
            let short = self.random.permille(600);
            let longest = if short { longest.min(5 * MINUTE) } else { longest };
            let over = at + self.random.between(5, longest);
            self.add(at, Act::Begin { place, number, weather });
            self.add(over, Act::Over { place, number });
        }
    }

    fn backups(&mut self, place: Place, apart: u64, restored: bool) {
        for at in self.moments(4 * HOUR) {
            self.add(at, Act::Backup(place));
        }
        for at in self.moments(apart) {
            let pick = self.random.next();
            if restored {
                self.add(at, Act::Restore(place, pick));
            }
        }
    }

    fn clock(&mut self, cluster: usize, at: u64) {
        let seconds = self.random.between(20, 15 * MINUTE) as i64;
        let ahead = if self.random.permille(500) { seconds } else { -seconds };
        let right = at + self.random.between(MINUTE, 3 * HOUR);
        self.add(at, Act::ClockWrong { cluster, ahead });
        self.add(right, Act::ClockRight { cluster });
    }

    fn kill(&mut self, cluster: usize, at: u64) {
        let when = *self.random.pick(&[None, Some(Death::BeforeRequest), Some(Death::AfterRequest)]);
        let after = self.random.below(40) as u32;
        let down = match self.random.below(10) {
            0 => self.random.between(MINUTE, HOUR),
            _ => self.random.between(0, 30),
        };
        let at_request = when.map(|death| (after, death));
        self.add(at, Act::Kill { cluster, at: at_request, down: Duration::from_secs(down) });
    }
}
