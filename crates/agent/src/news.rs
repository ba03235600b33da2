//! What happened to the accounts, and whether it is work.
//!
//! `kube::runtime::Controller` reconciles objects that exist, and forgets those that went. The agent must act when
//! an account is *gone* (it may not set a finalizer: the upstream addon's agent has no right to change an account,
//! and ours runs with the same rights), so its unit of work is a name, not an object.
//!
//! News that a reconcile has already taken into account, among them the echo of its own writes, cause no work. That is
//! all there is here: it is told what happened, and says whose turn it makes. When that is, and how long a failed
//! account waits, is for the work queue ([`fleetpass_workqueue`]), into which the run loop puts the names.

use crate::{decide::spread, observe::Memory, side::Kind};
use fleetpass_workqueue::{Backoff, Next};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

/// An account's name.
pub(crate) type Name = Arc<str>;

/// What happened to an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// It came to be as it is at this resourceVersion.
    At(String),
    /// It is as it is at this resourceVersion, by a list.
    Is(String),
    /// It was deleted, at this resourceVersion: the server said so.
    Deleted { uid: String, version: String },
    /// A list lacks it.
    Gone,
}

/// The objects that a reconcile left behind; `None` where there is none of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Versions {
    pub(crate) account: Option<String>,
    pub(crate) secret: Option<String>,
    pub(crate) service_account: Option<String>,
}

/// How a reconcile ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All is as it should be; look again after `wait`.
    Settled { versions: Versions, wait: Option<Duration> },
    /// It did not work out: try again, later each time. `versions` as far as they are known.
    Failed { versions: Option<Versions> },
}

impl Versions {
    fn of(&self, kind: Kind) -> Option<&str> {
        match kind {
            Kind::Account => self.account.as_deref(),
            Kind::Secret => self.secret.as_deref(),
            Kind::ServiceAccount => self.service_account.as_deref(),
        }
    }

    fn is_empty(&self) -> bool {
        self.account.is_none() && self.secret.is_none() && self.service_account.is_none()
    }

    /// Whether the change was part of what the reconcile saw or did. Resource versions of one kind are compared
    /// as numbers, which Kubernetes has promised since 1.35 (KEP-5504); what is no number counts as news.
    fn cover(&self, kind: Kind, change: &Change) -> bool {
        let at_most = |version: &String, known: &str| match (version.parse::<u64>(), known.parse::<u64>()) {
            (Ok(version), Ok(known)) => version <= known,
            _ => false,
        };
        match (change, self.of(kind)) {
            // Not an earlier one either: revisions go back when an older backup is put in place. A list that is older than
            // what the reconcile wrote costs a look.
            (Change::Is(version), known) => known == Some(version.as_str()),
            (Change::At(version) | Change::Deleted { version, .. }, Some(known)) => at_most(version, known),
            // The reconcile found it gone, or deleted it.
            (Change::Gone | Change::Deleted { .. }, None) => true,
            // There was none of ours and now there is; or a list lacks what the reconcile saw.
            (Change::At(_), None) | (Change::Gone, Some(_)) => false,
        }
    }
}

/// How long an account waits after failures.
pub(crate) const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(30));

/// How many thousandths of that it is spared: up to a quarter, so that accounts that failed together do not come back
/// together.
pub(crate) fn jitter(name: &Name) -> u32 {
    spread(&[name, "backoff"], 250) as u32
}

/// A reconcile did not work out. It has said why.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Failed;

/// What follows from the end of a reconcile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// What the work queue is told of the run.
    pub(crate) result: Result<Next, Failed>,
    /// Something happened meanwhile that the reconcile does not cover: it is the account's turn again.
    pub(crate) again: bool,
}

#[derive(Default)]
struct Entry {
    /// `None` while a reconcile runs, which has it then, and before the first. In a box, so that it moves between here
    /// and there as a pointer.
    memory: Option<Box<Memory>>,
    /// What the last reconcile left behind. `None` before the first, and after one to which the hub did not answer:
    /// then every change is news.
    settled: Option<Versions>,
    /// What happened since the last reconcile began: of each kind the latest change, which stands for those before it.
    news: HashMap<Kind, Change>,
    /// The UID of the account, if the last that its watch said is that it was deleted.
    deleted: Option<String>,
    /// During the reconcile that runs, the revisions of a side went back: what it saw may be of before.
    rewound: bool,
    /// Between [`News::begin`] and [`News::end`]. What happens meanwhile is weighed at the end, when it is known what
    /// the reconcile wrote itself.
    running: bool,
}

impl Entry {
    /// Whether something happened that the last reconcile has not taken into account.
    fn has_news(&self) -> bool {
        let fresh = |(kind, change): (&Kind, &Change)| {
            self.settled.as_ref().is_none_or(|settled| !settled.cover(*kind, change))
        };
        self.news.iter().any(fresh)
    }
}

/// More names than servers that are in order give: of each kind no more than half of that is listed.
const MOST_NAMES: usize = 100_000;

/// All accounts of which something is known.
#[derive(Default)]
pub(crate) struct News(HashMap<Name, Entry>);

impl News {
    /// An object of that name changed. Gives whether it is the account's turn; during a reconcile, that is told at its
    /// [`end`](News::end).
    #[must_use]
    pub(crate) fn notify(&mut self, name: &Name, kind: Kind, change: Change) -> bool {
        // A server that makes names up gets no memory for them. What there is shows the next list, once there is room.
        if self.0.len() >= MOST_NAMES && !self.0.contains_key(name) {
            return false;
        }
        let entry = self.0.entry(name.clone()).or_default();
        match (kind, &change) {
            (Kind::Account, Change::Deleted { uid, .. }) => {
                entry.deleted = Some(uid.clone()).filter(|uid| !uid.is_empty());
            }
            (Kind::Account, Change::At(_) | Change::Is(_)) => entry.deleted = None,
            // What a list lacks says no more than what was said of it before.
            _ => {}
        }
        entry.news.insert(kind, change);
        !entry.running && entry.has_news()
    }

    /// All objects of a kind were listed: those not in the list are gone. Gives the accounts whose turn it is. This is
    /// how deletions are noticed that happened while a watch was broken; those from before the agent started show as a
    /// ServiceAccount or a Secret with our label and without an account. Takes time linear in the number of accounts.
    #[must_use]
    pub(crate) fn listed(&mut self, kind: Kind, names: &HashSet<Name>) -> Vec<Name> {
        let missing: Vec<Name> = self.0.keys().filter(|name| !names.contains(*name)).cloned().collect();
        missing.into_iter().filter(|name| self.notify(name, kind, Change::Gone)).collect()
    }

    /// The revisions of a side went back: no version says any more what has been taken into account. Gives the accounts whose
    /// turn it is, all of them.
    #[must_use]
    pub(crate) fn rewound(&mut self) -> Vec<Name> {
        let mut turns = Vec::new();
        for (name, entry) in &mut self.0 {
            entry.settled = None;
            // What was deleted may be there again.
            entry.deleted = None;
            entry.rewound = entry.running;
            if !entry.running {
                turns.push(name.clone());
            }
        }
        turns
    }

    /// A reconcile of the account begins, with this memory.
    pub(crate) fn begin(&mut self, name: &Name) -> Box<Memory> {
        let entry = self.0.entry(name.clone()).or_default();
        entry.running = true;
        entry.rewound = false;
        // The reconcile reads everything live, after this: it takes all that happened so far into account.
        entry.news.clear();
        let mut memory = entry.memory.take().unwrap_or_default();
        memory.deleted.clone_from(&entry.deleted);
        memory
    }

    /// That reconcile came back. An account of which nothing is left is forgotten.
    pub(crate) fn end(&mut self, name: &Name, memory: Box<Memory>, outcome: Outcome) -> End {
        let (result, settled) = match outcome {
            Outcome::Settled { versions, wait } => (Ok(wait.map_or(Next::Wait, Next::After)), Some(versions)),
            Outcome::Failed { versions } => (Err(Failed), versions),
        };
        // The entry is there: only this function takes entries out, and there is one reconcile per account at a time.
        let entry = self.0.entry(name.clone()).or_default();
        entry.running = false;
        entry.memory = Some(memory);
        let rewound = std::mem::take(&mut entry.rewound);
        entry.settled = settled.filter(|_| !rewound);
        let again = rewound || entry.has_news();
        if !again {
            entry.news.clear();
            // Or every account that ever was would be kept. One that waits for its time is not gone.
            if result == Ok(Next::Wait) && entry.settled.as_ref().is_some_and(Versions::is_empty) {
                self.0.remove(name);
            }
        }
        End { result, again }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{observe::Review, token::Token};
    use fleetpass_workqueue::State;
    use jiff::Timestamp;
    use tokio::time::Instant;

    /// The news and the work queue together, as the run loop has them.
    struct Agent {
        news: News,
        queue: State<Name>,
    }

    impl Agent {
        fn notify(&mut self, name: &Name, kind: Kind, change: Change) {
            if self.news.notify(name, kind, change) {
                self.queue.add(name.clone());
            }
        }

        fn listed(&mut self, kind: Kind, names: &HashSet<Name>) {
            self.news.listed(kind, names).into_iter().for_each(|name| self.queue.add(name));
        }

        fn begin(&mut self, now: Instant) -> Option<Name> {
            let name = self.queue.start(now)?;
            self.news.begin(&name);
            Some(name)
        }

        fn end(&mut self, name: &Name, outcome: Outcome, now: Instant) {
            let End { result, again } = self.news.end(name, Box::default(), outcome);
            if again {
                self.queue.add(name.clone());
            }
            match result {
                Err(Failed) => assert!(self.queue.failed(name, now, jitter(name)).is_some()),
                Ok(next) => {
                    self.queue.succeeded(name);
                    if let Next::After(wait) = next {
                        self.queue.add_after(name.clone(), wait, now);
                    }
                }
            }
        }
    }

    fn versions(account: u64, secret: u64, service_account: u64) -> Versions {
        let text = |version: u64| (version > 0).then(|| version.to_string());
        Versions { account: text(account), secret: text(secret), service_account: text(service_account) }
    }

    fn settled(versions: Versions) -> Outcome {
        Outcome::Settled { versions, wait: Some(Duration::from_secs(60)) }
    }

    /// An agent that reconciles the account `name`, because it was seen at that version.
    fn start(name: &str, version: u64) -> (Agent, Name, Instant) {
        let mut agent = Agent { news: News::default(), queue: State::new(BACKOFF) };
        let name: Name = name.into();
        let now = Instant::now();
        agent.notify(&name, Kind::Account, Change::At(version.to_string()));
        assert_eq!(agent.begin(now), Some(name.clone()));
        (agent, name, now)
    }

    #[test]
    fn an_echo_of_its_own_writes_is_no_news() {
        let (mut agent, name, now) = start("a", 5);
        agent.notify(&name, Kind::ServiceAccount, Change::At("3".into()));
        agent.notify(&name, Kind::Secret, Change::At("6".into()));
        assert!(agent.begin(now).is_none(), "one at a time");
        agent.end(&name, settled(versions(7, 6, 3)), now);
        agent.notify(&name, Kind::Account, Change::At("7".into()));
        assert!(agent.begin(now).is_none());
        agent.notify(&name, Kind::Account, Change::At("8".into()));
        assert!(agent.begin(now).is_some());
    }

    #[test]
    fn news_during_a_reconcile_are_kept() {
        let (mut agent, name, now) = start("a", 5);
        agent.notify(&name, Kind::Secret, Change::Deleted { uid: "u".into(), version: "9".into() });
        agent.end(&name, settled(versions(7, 6, 3)), now);
        assert!(agent.begin(now).is_some());
    }

    #[test]
    fn what_a_list_lacks_is_gone() {
        let (mut agent, name, now) = start("a", 5);
        agent.end(&name, settled(versions(7, 6, 3)), now);
        agent.listed(Kind::Account, &HashSet::from([name.clone()]));
        assert!(agent.begin(now).is_none());
        agent.listed(Kind::Account, &HashSet::new());
        assert!(agent.begin(now).is_some());
        agent.end(&name, Outcome::Settled { versions: versions(0, 0, 0), wait: None }, now);
        assert_eq!(agent.news.0.len(), 0, "an account that is gone is forgotten");
        assert!(agent.queue.is_empty());
    }

    #[test]
    fn a_list_that_shows_what_was_settled_is_no_news_and_any_other_is() {
        let (mut agent, name, now) = start("a", 5);
        agent.end(&name, settled(versions(7, 6, 3)), now);
        for (kind, version) in [(Kind::Account, "7"), (Kind::Secret, "6"), (Kind::ServiceAccount, "3")] {
            agent.notify(&name, kind, Change::Is(version.into()));
        }
        assert!(agent.begin(now).is_none());
        // As an event this is an echo; in a list it is a Secret of before, that came back with a backup.
        agent.notify(&name, Kind::Secret, Change::At("4".into()));
        assert!(agent.begin(now).is_none());
        agent.notify(&name, Kind::Secret, Change::Is("4".into()));
        assert!(agent.begin(now).is_some());
    }

    #[test]
    fn when_revisions_go_back_it_is_everybodys_turn() {
        let (mut agent, name, now) = start("a", 5);
        assert_eq!(agent.news.rewound(), [] as [Name; 0], "it has its turn");
        agent.end(&name, settled(versions(7, 6, 3)), now);
        assert!(agent.begin(now).is_some(), "what it saw may be of before");
        agent.end(&name, settled(versions(7, 6, 3)), now);
        assert!(agent.begin(now).is_none());
        assert_eq!(agent.news.rewound(), std::slice::from_ref(&name));
        // The same number says nothing any more.
        agent.notify(&name, Kind::Account, Change::At("7".into()));
        assert!(agent.begin(now).is_some());
    }

    #[test]
    fn waits_longer_after_each_failure_and_not_once_the_side_is_back() {
        let (mut agent, name, mut now) = start("a", 5);
        let mut last = Duration::ZERO;
        for _ in 0..20 {
            // The echo of the failure's own report must not shorten the wait.
            agent.notify(&name, Kind::Account, Change::At("6".into()));
            agent.end(&name, Outcome::Failed { versions: Some(versions(6, 0, 0)) }, now);
            let at = agent.queue.next_due().unwrap();
            let wait = at - now;
            assert!(wait >= last && wait <= Duration::from_secs(30), "{wait:?}");
            assert!(agent.begin(now).is_none());
            (last, now) = (wait, at);
            assert!(agent.begin(now).is_some());
        }
        assert!(last >= Duration::from_secs(30) * 3 / 4, "{last:?}");
        agent.end(&name, Outcome::Failed { versions: None }, now);
        agent.queue.hurry();
        assert!(agent.begin(now).is_some());
        assert_eq!(agent.queue.next_due(), None);
    }

    #[test]
    fn looks_again_when_it_is_time() {
        let (mut agent, name, now) = start("a", 5);
        agent.end(&name, settled(versions(7, 6, 3)), now);
        assert!(agent.begin(now + Duration::from_secs(59)).is_none());
        assert!(agent.begin(now + Duration::from_secs(60)).is_some());
    }

    #[test]
    fn the_memory_goes_from_one_reconcile_to_the_next() {
        let (mut agent, name, now) = start("a", 5);
        let review =
            Review { token: Token::new("t".into()).fingerprint(), accepted: true, at: Timestamp::MIN };
        let memory = Memory { review: Some(review), ..Memory::default() };
        agent.news.end(&name, Box::new(memory), settled(versions(7, 6, 3)));
        agent.queue.succeeded(&name);
        agent.notify(&name, Kind::Account, Change::At("8".into()));
        assert_eq!(agent.queue.start(now), Some(name.clone()));
        assert_eq!(agent.news.begin(&name).review, Some(review));
    }

    #[test]
    fn that_the_account_was_deleted_is_known_until_the_watch_says_otherwise() {
        let (mut agent, name, now) = start("a", 5);
        let deleted = || Change::Deleted { uid: "u".into(), version: "9".into() };
        type Round = (Vec<(Kind, Change)>, Option<&'static str>);
        let rounds: [Round; 5] = [
            (vec![(Kind::Account, deleted())], Some("u")),
            // What goes with it, and a list that lacks it, say nothing against that.
            (vec![(Kind::Secret, Change::Gone), (Kind::Account, Change::Gone)], Some("u")),
            (vec![(Kind::Account, Change::At("12".into()))], None),
            (vec![(Kind::Secret, deleted())], None),
            (vec![(Kind::Account, deleted()), (Kind::Account, Change::Is("3".into()))], None),
        ];
        for (changes, expected) in rounds {
            agent.end(&name, Outcome::Failed { versions: None }, now);
            changes.into_iter().for_each(|(kind, change)| agent.notify(&name, kind, change));
            agent.queue.hurry();
            assert_eq!(agent.queue.start(now), Some(name.clone()));
            assert_eq!(agent.news.begin(&name).deleted.as_deref(), expected);
        }
        agent.end(&name, Outcome::Failed { versions: None }, now);
        agent.notify(&name, Kind::Account, deleted());
        assert_eq!(agent.news.rewound().as_slice(), std::slice::from_ref(&name));
        assert_eq!(agent.news.begin(&name).deleted, None, "a hub of before has it again");
    }
}
