//! What has to hold, checked against the truth of the simulated world.
//!
//! The agent's promise is made for as much peace as it needs, so the checks know two things besides the objects:
//!
//! - **Calm** of a cluster: times in which its agent ran with a right clock and nothing was wrong with the hub, the
//!   cluster, or the ways to them. (Latency, cut and mute watches are part of calm: they are what a network is like.)
//! - **Disturbances** of an account: it was created or its validity changed, somebody changed its Secret or its
//!   ServiceAccount, a backup was put back. Each makes the account the agent's to repair.
//!
//! A token is *owed* ([`owed`]) when, since the last disturbance, one calm time was long enough for the repair
//! ([`REPAIR`]), and, if the token merely expired, one calm time in the last fifth of its life was long enough for a
//! refresh ([`REFRESH`]). An account that is owed a token and has none is a violation; so is a 401 that a reader gets
//! with a token that it read when a fresher one was owed.
//!
//! Between two changes of a Secret, what was owed stays owed. So it is enough to check before each change, and now and
//! then, to have checked every instant.

use crate::token::Claims;
use std::{collections::HashMap, time::Duration};

/// So long an agent may take to refresh a token once it can: a request may be on its way to nowhere for 30 seconds, the
/// longest backoff is 30 seconds, and the rest is for the requests themselves.
pub(crate) const REFRESH: Duration = Duration::from_secs(90);

/// So long an agent may take to repair what others did: it learns of it by a watch whose connection may be dead for
/// 295 seconds, or by a look that comes with the next list.
pub(crate) const REPAIR: Duration = Duration::from_secs(12 * 60);

/// The calm times of a cluster.
#[derive(Default)]
pub(crate) struct Calm {
    past: Vec<(Duration, Duration)>,
    since: Option<Duration>,
    /// How many things are wrong now.
    wrong: u32,
}

impl Calm {
    pub(crate) fn begin(&mut self, now: Duration) {
        self.since = (self.wrong == 0).then_some(now);
    }

    /// Something goes wrong.
    pub(crate) fn broken(&mut self, now: Duration) {
        self.wrong += 1;
        if let Some(since) = self.since.take() {
            self.past.push((since, now));
        }
    }

    /// Something that was wrong no longer is.
    pub(crate) fn mended(&mut self, now: Duration) {
        self.wrong -= 1;
        self.begin(now);
    }

    /// Whether one calm time of this length lies between `from` and `to`, which is not after now.
    pub(crate) fn lasted(&self, length: Duration, from: Duration, to: Duration) -> bool {
        let current = self.since.map(|since| (since, to));
        let enough = |(begin, end): &(Duration, Duration)| *end.min(&to) >= *begin.max(&from) + length;
        let recent = self.past.iter().rev().take_while(|(_, end)| *end > from);
        current.iter().chain(recent).any(enough)
    }
}

/// What the hub's Secret of an account holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Held {
    /// A token that the cluster accepts.
    Valid(Claims),
    /// A token whose time is over.
    Expired(Claims),
    /// Nothing, or nothing that the cluster accepts.
    Nothing,
}

/// Whether the agent has had its chance to give an account something better than this.
pub(crate) fn owed(held: &Held, disturbed: Duration, calm: &Calm, start: i64, now: Duration) -> bool {
    let repaired = || calm.lasted(REPAIR, disturbed, now);
    match held {
        Held::Valid(_) => false,
        Held::Nothing => repaired(),
        Held::Expired(claims) => {
            let last_fifth = claims.expires_at - start - claims.lifetime() / 5;
            let from = Duration::from_secs(u64::try_from(last_fifth).unwrap_or(0));
            repaired() && calm.lasted(REFRESH, from.max(disturbed), now)
        }
    }
}

/// Somebody who uses an account's token, and reads the Secret again every tenth of its life.
#[derive(Default)]
pub(crate) struct Reader {
    pub(crate) token: Option<String>,
    /// When it was read, and when it is to be read again.
    pub(crate) read_at: Duration,
    pub(crate) next: Duration,
    /// Whether the token was good when it was read.
    pub(crate) valid: bool,
}

/// What is known of an account besides its objects.
pub(crate) struct Record {
    pub(crate) disturbed: Duration,
    pub(crate) reader: Reader,
    /// When the account's validity changed last, and the lifetime of its tokens before.
    pub(crate) before: Option<(Duration, i64)>,
    /// When the cluster issued tokens, in the last hour.
    issued: Vec<Duration>,
}

impl Record {
    fn new(now: Duration) -> Self {
        Self { disturbed: now, reader: Reader::default(), before: None, issued: Vec::new() }
    }
}

/// What is known of a cluster and its agent besides the objects.
#[derive(Default)]
pub(crate) struct Books {
    pub(crate) calm: Calm,
    pub(crate) accounts: HashMap<String, Record>,
    /// When something happened that may cost a token for each account, such as a death of the agent, in the last hour.
    pub(crate) excuses: Vec<Duration>,
    /// How many things go on that may cost a token for every attempt: lost answers, a wrong clock. And when the last of
    /// them was over.
    costly: u32,
    costly_until: Duration,
}

const HOUR: Duration = Duration::from_secs(3_600);

/// Tokens in an hour that only lost answers and wrong clocks can explain: an attempt every half a minute, and the
/// quick ones at the beginning.
const COSTLY: usize = 140;

impl Books {
    pub(crate) fn record(&mut self, name: &str, now: Duration) -> &mut Record {
        self.accounts.entry(name.to_owned()).or_insert_with(|| Record::new(now))
    }

    /// Something happened to one account that makes it the agent's to repair.
    pub(crate) fn disturb(&mut self, name: &str, now: Duration) {
        self.record(name, now).disturbed = now;
        self.excuse(now);
    }

    /// Something happened to all accounts.
    pub(crate) fn disturb_all(&mut self, now: Duration) {
        self.accounts.values_mut().for_each(|record| record.disturbed = now);
        self.excuse(now);
    }

    pub(crate) fn costly_begins(&mut self) {
        self.costly += 1;
    }

    pub(crate) fn costly_ends(&mut self, now: Duration) {
        self.costly -= 1;
        self.costly_until = now;
    }

    /// Something happened that may cost a token.
    pub(crate) fn excuse(&mut self, now: Duration) {
        self.excuses.retain(|at| *at + HOUR > now);
        self.excuses.push(now);
    }

    /// A token was issued to an account whose tokens live so long. Gives how many there were in an hour and how many
    /// there may be, if there were too many.
    pub(crate) fn issued(&mut self, name: &str, lifetime: i64, now: Duration) -> Option<(usize, usize)> {
        let record = self.record(name, now);
        let before = record.before.filter(|(changed, _)| *changed + HOUR > now);
        let lifetime = before.map_or(lifetime, |(_, before)| before.min(lifetime));
        let issued = &mut record.issued;
        issued.retain(|at| *at + HOUR > now);
        issued.push(now);
        let count = issued.len();
        // One at 80 % of each lifetime, and the one that began before the hour.
        let regular = 3_600 * 10 / (lifetime * 7) + 2;
        let excuses = self.excuses.iter().filter(|at| **at + HOUR > now).count() * 2;
        let costly = if self.costly > 0 || self.costly_until + HOUR > now { COSTLY } else { 0 };
        let allowed = regular as usize + excuses + costly;
        (count > allowed).then_some((count, allowed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secs(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn claims(issued_at: i64, expires_at: i64) -> Claims {
        Claims {
            issued_at,
            expires_at,
            namespace: String::new(),
            name: String::new(),
            uid: String::new(),
            audiences: Vec::new(),
        }
    }

    /// Calm from 0 to 5000 and from 9000 on.
    fn calm() -> Calm {
        let mut calm = Calm::default();
        calm.begin(secs(0));
        calm.broken(secs(5_000));
        calm.broken(secs(6_000));
        calm.mended(secs(7_000));
        calm.mended(secs(9_000));
        calm
    }

    #[test]
    fn a_token_is_owed_once_there_was_calm_enough() {
        let calm = calm();
        for (held, disturbed, now, expected) in [
            // Refreshed in time in the first calm, had the agent tried.
            (Held::Expired(claims(0, 6_000)), 0, 6_000, true),
            // When the last fifth began, the calm was about to end.
            (Held::Expired(claims(0, 6_200)), 0, 6_200, false),
            // It had ended.
            (Held::Expired(claims(1_200, 6_200)), 0, 8_000, false),
            (Held::Expired(claims(1_200, 6_200)), 0, 9_089, false),
            (Held::Expired(claims(1_200, 6_200)), 0, 9_090, true),
            // Disturbed: the repair takes its time.
            (Held::Expired(claims(1_200, 6_200)), 8_000, 9_090, false),
            (Held::Nothing, 8_000, 9_719, false),
            (Held::Nothing, 8_000, 9_720, true),
            (Held::Nothing, 4_500, 9_719, false),
            (Held::Nothing, 4_000, 5_000, true),
            (Held::Valid(claims(0, 20_000)), 0, 10_000, false),
        ] {
            let held_text = format!("{held:?}, disturbed at {disturbed}, at {now}");
            assert_eq!(owed(&held, secs(disturbed), &calm, 0, secs(now)), expected, "{held_text}");
        }
    }

    #[test]
    fn more_tokens_than_there_is_cause_for_are_too_many() {
        let mut books = Books::default();
        let late = secs(10 * 3_600);
        // An hour's token: one by plan, and one on each side.
        let mut refused = None;
        for n in 0..9 {
            refused = refused.or(books.issued("a", 3_600, late + secs(n)));
        }
        assert_eq!(refused, Some((4, 3)));
    }
}
