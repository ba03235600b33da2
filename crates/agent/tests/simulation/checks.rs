//! The checks at work: they look at the simulated world, ask [`crate::oracle`], and keep what they find.

use crate::{
    api::{ACCOUNTS, Rejected, SECRETS, SERVICE_ACCOUNTS},
    oracle::{Books, Held, REFRESH, REPAIR, owed},
    schedule::{Act, Place},
    server::{Observer, START, Server, Time},
    store::Key,
    token::{self, Claims},
    world::{AGENT_NAMESPACE, BYSTANDER, Site},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use fleetpass_api::{GoDuration, names};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

/// What was seen in a simulation: the figures of a report, and the proof that the checks had something to check.
#[derive(Debug, Default, Clone)]
pub(crate) struct Figures {
    /// Looks at accounts.
    pub(crate) looks: u64,
    /// Looks at which the account held a valid token.
    pub(crate) valid: u64,
    /// Looks at which it held none, and had an excuse.
    pub(crate) excused: u64,
    pub(crate) readings: u64,
    /// Readers that were refused, and had an excuse.
    pub(crate) refused: u64,
    pub(crate) tokens: u64,
    pub(crate) deaths: u64,
    pub(crate) requests: u64,
    pub(crate) acts: u64,
}

pub(crate) struct Checks {
    pub(crate) time: Time,
    pub(crate) hub: Arc<Server>,
    pub(crate) sites: Vec<Arc<Site>>,
    books: Vec<Mutex<Books>>,
    /// When which reader is to read again.
    readings: Mutex<BinaryHeap<Reverse<(Duration, usize, String)>>>,
    violations: Mutex<Vec<String>>,
    figures: Mutex<Figures>,
    /// The last acts, for the report of a violation.
    chronicle: Mutex<VecDeque<(Duration, Act)>>,
    /// The requests of each agent in the hour that runs.
    hours: Mutex<Duration>,
}

/// Requests that an agent may make in an hour, whatever happens: for itself (three watches, probes, leases, each at
/// most every few seconds), and for each account (a handful of requests for each attempt, at most two attempts a
/// minute, and twice that for users' doings).
const REQUESTS_PER_AGENT: u64 = 4_000;
const REQUESTS_PER_ACCOUNT: u64 = 1_500;

impl Checks {
    pub(crate) fn new(time: Time, hub: Arc<Server>, sites: Vec<Arc<Site>>) -> Arc<Self> {
        let checks = Arc::new(Self {
            time,
            books: sites.iter().map(|_| Mutex::default()).collect(),
            readings: Mutex::default(),
            violations: Mutex::default(),
            figures: Mutex::default(),
            chronicle: Mutex::default(),
            hours: Mutex::default(),
            hub,
            sites,
        });
        for server in checks.sites.iter().map(|site| &site.server).chain([&checks.hub]) {
            let observer: Arc<dyn Observer> = checks.clone();
            assert!(server.observer.set(observer).is_ok(), "a server has one observer");
        }
        checks
    }

    pub(crate) fn books(&self, site: usize) -> MutexGuard<'_, Books> {
        self.books[site].lock().unwrap()
    }

    fn figures(&self) -> MutexGuard<'_, Figures> {
        self.figures.lock().unwrap()
    }

    pub(crate) fn report(&self) -> Figures {
        self.figures().clone()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        self.violations.lock().unwrap().clone()
    }

    pub(crate) fn failed(&self) -> bool {
        !self.violations.lock().unwrap().is_empty()
    }

    /// The names of a cluster's accounts, without the one that nobody can serve.
    pub(crate) fn accounts(&self, site: usize) -> Vec<String> {
        let store = &self.hub.state.lock().unwrap().store;
        let all = store.list(ACCOUNTS, &self.sites[site].name).map(|(key, _)| key.name.clone());
        all.filter(|name| name != BYSTANDER).collect()
    }

    pub(crate) fn note(&self, act: &Act) {
        self.figures().acts += 1;
        let mut chronicle = self.chronicle.lock().unwrap();
        chronicle.push_back((self.time.now(), *act));
        if chronicle.len() > 4_000 {
            chronicle.pop_front();
        }
    }

    /// Something that must not be. Told with what happened to that cluster before.
    pub(crate) fn violation(&self, site: usize, what: &str) {
        let now = self.time.now();
        let about = |act: &Act| match *act {
            Act::Begin { place, .. } | Act::Over { place, .. } | Act::Cut(place) | Act::Mute(place) => {
                touches(place, site)
            }
            Act::Backup(_) => false,
            Act::Restore(place, _) => touches(place, site),
            Act::ClockWrong { cluster, .. } | Act::ClockRight { cluster } => cluster == site,
            Act::Kill { cluster, .. } | Act::User { cluster, .. } => cluster == site,
            Act::NamespaceTerminates(cluster)
            | Act::NamespaceGone(cluster)
            | Act::NamespaceBack(cluster)
            | Act::RootCaBack(cluster) => cluster == site,
        };
        let chronicle = self.chronicle.lock().unwrap();
        let before = chronicle.iter().rev().filter(|(_, act)| about(act)).take(25);
        let before: Vec<String> =
            before.map(|(at, act)| format!("  {:>8} s {act:?}", at.as_secs())).collect();
        let name = &self.sites[site].name;
        let text = format!(
            "at {} s, {name}: {what}\nbefore that, last first:\n{}",
            now.as_secs(),
            before.join("\n")
        );
        self.violations.lock().unwrap().push(text);
    }

    pub(crate) fn died(&self, site: usize) {
        let now = self.time.now();
        self.figures().deaths += 1;
        let mut books = self.books(site);
        books.calm.broken(now);
        books.excuse(now);
    }

    pub(crate) fn created(&self, site: usize, name: &str) {
        let now = self.time.now();
        self.books(site).disturb(name, now);
        self.watch(site, name);
    }

    pub(crate) fn deleted(&self, site: usize, name: &str) {
        self.books(site).accounts.remove(name);
    }

    /// Somebody begins to read the account's Secret, if nobody does.
    pub(crate) fn watch(&self, site: usize, name: &str) {
        let now = self.time.now();
        let mut books = self.books(site);
        let reader = &mut books.record(name, now).reader;
        if reader.next == Duration::ZERO {
            reader.next = now + Duration::from_secs(60);
            self.readings.lock().unwrap().push(Reverse((reader.next, site, name.to_owned())));
        }
    }

    pub(crate) fn validity_changes(&self, site: usize, name: &str) {
        let now = self.time.now();
        let lifetime = self.lifetime(site, name);
        self.books(site).record(name, now).before = Some((now, lifetime));
    }

    /// The lifetime that the account's tokens have.
    fn lifetime(&self, site: usize, name: &str) -> i64 {
        let key = Key::new(ACCOUNTS, &self.sites[site].name, name);
        let account = self.hub.state.lock().unwrap().store.get(&key).cloned();
        let validity =
            account.and_then(|account| Some(account["spec"]["rotation"]["validity"].as_str()?.to_owned()));
        let seconds = validity.map_or(600, |text| text.parse::<GoDuration>().expect("a lifetime").as_secs());
        seconds.min(self.sites[site].server.state.lock().unwrap().longest_token)
    }

    /// The token in the account's Secret.
    fn token(&self, site: usize, name: &str) -> Option<String> {
        let store = &self.hub.state.lock().unwrap().store;
        let secret = store.get(&Key::new(SECRETS, &self.sites[site].name, name))?;
        String::from_utf8(STANDARD.decode(secret["data"]["token"].as_str()?).ok()?).ok()
    }

    /// What the cluster says to a token that is meant for this account.
    fn judge(&self, site: usize, name: &str, token: &str) -> Held {
        let state = self.sites[site].server.state.lock().unwrap();
        let ours = |claims: &Claims| claims.name == name && claims.namespace == AGENT_NAMESPACE;
        match state.accepts(token, self.time.unix()) {
            Ok(claims) if ours(&claims) => Held::Valid(claims),
            Err(Rejected::Expired(claims)) if ours(&claims) => Held::Expired(claims),
            Ok(_) | Err(_) => Held::Nothing,
        }
    }

    /// Checks one account as it is now.
    pub(crate) fn check(&self, site: usize, name: &str) {
        let account = Key::new(ACCOUNTS, &self.sites[site].name, name);
        if name == BYSTANDER || self.hub.state.lock().unwrap().store.get(&account).is_none() {
            return;
        }
        let now = self.time.now();
        let held = self.token(site, name).map_or(Held::Nothing, |token| self.judge(site, name, &token));
        let owed = {
            let mut books = self.books(site);
            let disturbed = books.record(name, now).disturbed;
            owed(&held, disturbed, &books.calm, START, now).then_some(disturbed)
        };
        {
            let mut figures = self.figures();
            figures.looks += 1;
            match held {
                Held::Valid(_) => figures.valid += 1,
                _ => figures.excused += 1,
            }
        }
        if let Some(disturbed) = owed {
            let what =
                format!("{name} holds {}; disturbed last at {} s", relative(&held), disturbed.as_secs());
            self.violation(site, &what);
        }
    }

    pub(crate) fn check_all(&self) {
        for site in 0..self.sites.len() {
            for name in self.accounts(site) {
                self.check(site, &name);
            }
        }
        self.count_requests();
    }

    /// No agent storms its servers.
    fn count_requests(&self) {
        let now = self.time.now();
        {
            let mut hour = self.hours.lock().unwrap();
            if now < *hour + Duration::from_secs(3_600) {
                return;
            }
            *hour = now;
        }
        for (number, site) in self.sites.iter().enumerate() {
            let requests = site.reaper.take_requests();
            self.figures().requests += requests;
            let accounts = self.books(number).accounts.len() as u64;
            let allowed = REQUESTS_PER_AGENT + REQUESTS_PER_ACCOUNT * accounts;
            if requests > allowed {
                self.violation(number, &format!("{requests} requests in an hour; {allowed} are allowed"));
            }
        }
    }

    pub(crate) fn next_reading(&self) -> Option<Duration> {
        self.readings.lock().unwrap().peek().map(|Reverse((at, ..))| *at)
    }

    /// Lets all those read whose time has come.
    pub(crate) fn read(&self, now: Duration) {
        loop {
            let (site, name) = {
                let mut readings = self.readings.lock().unwrap();
                match readings.peek() {
                    Some(Reverse((at, ..))) if *at <= now => {}
                    _ => return,
                }
                let Reverse((_, site, name)) = readings.pop().expect("it was peeked at");
                (site, name)
            };
            if let Some(next) = self.read_one(site, &name, now) {
                if let Some(record) = self.books(site).accounts.get_mut(&name) {
                    record.reader.next = next;
                }
                self.readings.lock().unwrap().push(Reverse((next, site, name)));
            }
        }
    }

    /// A reader uses its token for the last time, then reads the Secret again. Gives when it is to do so the next time;
    /// `None` if the account is gone.
    fn read_one(&self, site: usize, name: &str, now: Duration) -> Option<Duration> {
        let (token, read_at, fresh, due) = {
            let mut books = self.books(site);
            let reader = &mut books.accounts.get_mut(name)?.reader;
            // An earlier account of this name had a reader too: only the one that is due goes on.
            if reader.next != now {
                return None;
            }
            (reader.token.take(), reader.read_at, reader.valid, reader.next)
        };
        self.figures().readings += 1;
        if let Some(token) = &token {
            let held = self.judge(site, name, token);
            if !matches!(held, Held::Valid(_)) {
                self.refused(site, name, &held, read_at, fresh);
            }
        }
        // A hub that is away is read later; the old token is not used meanwhile.
        if self.hub.sky.now().is_some() {
            return Some(due + Duration::from_secs(20));
        }
        let key = self.sites[site].server.state.lock().unwrap().key;
        let Some(token) = self.token(site, name) else { return Some(due + Duration::from_secs(60)) };
        let lifetime = token::open(&token, key).map_or(600, |claims| claims.lifetime());
        let valid = matches!(self.judge(site, name, &token), Held::Valid(_));
        let mut books = self.books(site);
        let reader = &mut books.accounts.get_mut(name)?.reader;
        (reader.token, reader.read_at, reader.valid) = (Some(token), now, valid);
        Some(now + Duration::from_secs(lifetime.max(600) as u64 / 10))
    }

    /// A reader got a 401 with a token that it read at `read_at`, when it was `valid` or not.
    fn refused(&self, site: usize, name: &str, held: &Held, read_at: Duration, valid: bool) {
        self.figures().refused += 1;
        let books = self.books(site);
        let Some(record) = books.accounts.get(name) else { return };
        let disturbed = record.disturbed;
        if disturbed > read_at {
            return;
        }
        let guilty = match held {
            Held::Expired(claims) => {
                // Either there was time for a refresh in the last fifth before the reading, or nothing was wrong at all
                // from well before the token was due. (Of the shortest tokens, half of the last fifth is too short for
                // the first.)
                let quarter = claims.expires_at - START - claims.lifetime() / 4;
                let quarter = Duration::from_secs(u64::try_from(quarter).unwrap_or(0));
                let all = read_at.saturating_sub(quarter);
                let undisturbed = books.calm.lasted(REPAIR, disturbed, read_at);
                owed(held, disturbed, &books.calm, START, read_at)
                    || (undisturbed && all >= REFRESH && books.calm.lasted(all, quarter, read_at))
            }
            // It was good when it was read, and nobody but the agent can have spoilt it since.
            _ if valid => disturbed + REPAIR < read_at,
            _ => owed(held, disturbed, &books.calm, START, read_at),
        };
        drop(books);
        if guilty {
            let what = format!(
                "a reader of {name} got a 401 with what it read at {} s: {}; disturbed last at {} s",
                read_at.as_secs(),
                relative(held),
                disturbed.as_secs()
            );
            self.violation(site, &what);
        }
    }

    /// After the time of peace nothing is left over, nothing is missing, and what is others' is untouched.
    pub(crate) fn at_the_end(&self) {
        self.check_all();
        for (number, site) in self.sites.iter().enumerate() {
            let accounts = self.accounts(number);
            let managed = |server: &Server, resource, namespace: &str| -> Vec<String> {
                let store = &server.state.lock().unwrap().store;
                let ours = store.list(resource, namespace).filter(|(_, object)| {
                    object["metadata"]["labels"][names::LABEL_IS_MANAGED] == names::LABEL_IS_MANAGED_VALUE
                });
                ours.map(|(key, _)| key.name.clone()).collect()
            };
            for (what, found) in [
                ("ServiceAccounts", managed(&site.server, SERVICE_ACCOUNTS, AGENT_NAMESPACE)),
                ("Secrets", managed(&self.hub, SECRETS, &site.name)),
            ] {
                if found != accounts {
                    self.violation(number, &format!("{what} at the end: {found:?}; accounts: {accounts:?}"));
                }
            }
            let bystander = Key::new(SERVICE_ACCOUNTS, AGENT_NAMESPACE, BYSTANDER);
            let there = site.server.state.lock().unwrap().store.get(&bystander).is_some();
            if !there {
                self.violation(number, "somebody else's ServiceAccount is gone");
            }
            for name in accounts {
                self.check_status(number, &name);
            }
        }
    }

    fn check_status(&self, site: usize, name: &str) {
        let key = Key::new(ACCOUNTS, &self.sites[site].name, name);
        let account = self.hub.state.lock().unwrap().store.get(&key).cloned();
        let status = account.map(|account| account["status"].clone()).unwrap_or_default();
        for wanted in [names::CONDITION_SECRET_CREATED, names::CONDITION_TOKEN_REPORTED] {
            let conditions = status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default();
            if !conditions.iter().any(|found| found["type"] == wanted && found["status"] == "True") {
                self.violation(site, &format!("at the end {name} is not {wanted}: {status}"));
            }
        }
        let held = self.token(site, name).map_or(Held::Nothing, |token| self.judge(site, name, &token));
        if !matches!(held, Held::Valid(_)) {
            self.violation(site, &format!("at the end {name} holds {}", relative(&held)));
        }
    }
}

/// What is held, with times as the chronicle has them.
fn relative(held: &Held) -> String {
    let of =
        |claims: &Claims| format!("from {} s to {} s", claims.issued_at - START, claims.expires_at - START);
    match held {
        Held::Valid(claims) => format!("a good token, {}", of(claims)),
        Held::Expired(claims) => format!("an expired token, {}", of(claims)),
        Held::Nothing => "nothing that the cluster accepts".to_owned(),
    }
}

/// Whether the agent of the cluster feels what happens at the place.
fn touches(place: Place, site: usize) -> bool {
    match place {
        Place::Hub => true,
        Place::Cluster(number) | Place::HubLink(number) | Place::ClusterLink(number) => number == site,
    }
}

impl Observer for Checks {
    fn before_secret(&self, namespace: &str, name: &str) {
        if let Some(site) = self.sites.iter().position(|site| site.name == namespace) {
            self.check(site, name);
        }
    }

    fn token_issued(&self, cluster: &str, name: &str) {
        let Some(site) = self.sites.iter().position(|site| site.name == cluster) else { return };
        self.figures().tokens += 1;
        let now = self.time.now();
        let lifetime = self.lifetime(site, name);
        let too_many = self.books(site).issued(name, lifetime, now);
        if let Some((count, allowed)) = too_many {
            self.violation(site, &format!("{count} tokens of {name} in an hour; {allowed} are allowed"));
        }
    }
}
