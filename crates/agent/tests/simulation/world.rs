//! The simulated world: a hub, clusters with their agents, users, backups, and what befalls them.

use crate::{
    api::{ACCOUNTS, CONFIG_MAPS, EVENTS, NAMESPACES, SECRETS, SERVICE_ACCOUNTS},
    checks::Checks,
    random::Random,
    schedule::{self, Act, Deed, Place, Size},
    server::{Link, MachineClock, Server, Time},
    store::{Backup, Key},
    weather::{Reaper, Sky, Weather},
};
use fleetpass_agent::{Agent, Options};
use fleetpass_api::names;
use serde_json::{Value, json};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub(crate) const AGENT_NAMESPACE: &str = names::DEFAULT_AGENT_NAMESPACE;
/// A ServiceAccount of somebody else, on every cluster, and an account of the same name, which gets nothing.
pub(crate) const BYSTANDER: &str = "bystander";

/// Lifetimes that accounts ask for, from the shortest that there are to a month.
const VALIDITIES: [&str; 8] = ["10m", "10m", "30m", "1h", "6h", "24h", "168h", "720h"];

/// A cluster with its agent.
pub(crate) struct Site {
    pub(crate) name: String,
    pub(crate) server: Arc<Server>,
    pub(crate) hub_link: Arc<Link>,
    pub(crate) cluster_link: Arc<Link>,
    pub(crate) clock: Arc<MachineClock>,
    pub(crate) reaper: Arc<Reaper>,
    /// How long the agent stays away when it dies the next time.
    down: Mutex<Duration>,
}

pub(crate) struct World {
    pub(crate) checks: Arc<Checks>,
    random: Random,
    backups: HashMap<usize, Vec<Backup>>,
    /// Secrets whose owner was gone at the last look of the garbage collector.
    orphans: HashSet<Key>,
    names: u64,
    agents: JoinSet<()>,
}

/// How often the hub's own controllers look: its garbage collector, and the end of old Events.
const UPKEEP: Duration = Duration::from_secs(45);
/// The peace at the end, after which nothing may be left over: time for the repair, and for the garbage collector.
const PEACE: Duration = Duration::from_secs(45 * 60);
/// The hub's place among the backups; clusters have their numbers.
const HUB: usize = usize::MAX;

impl World {
    pub(crate) fn new(size: Size, random: &mut Random) -> Self {
        let time = Time::begin();
        let hub = Server::new("hub", time, i64::MAX, random);
        let mut sites = Vec::new();
        for number in 0..size.clusters {
            // A few clusters grant less than is asked for.
            let longest = *random.pick(&[i64::MAX, i64::MAX, i64::MAX, 86_400]);
            let server = Server::new(&format!("cluster{number}"), time, longest, random);
            let reaper = Arc::new(Reaper::default());
            sites.push(Arc::new(Site {
                name: server.name.clone(),
                hub_link: Link::new(&server.name, hub.clone(), reaper.clone()),
                cluster_link: Link::new(&server.name, server.clone(), reaper.clone()),
                server,
                clock: Arc::new(MachineClock::new(time)),
                reaper,
                down: Mutex::default(),
            }));
        }
        let checks = Checks::new(time, hub, sites);
        let mut world = Self {
            checks,
            random: random.fork(),
            backups: HashMap::new(),
            orphans: HashSet::new(),
            names: 0,
            agents: JoinSet::new(),
        };
        world.furnish(size);
        world
    }

    /// What is there before the agents come.
    fn furnish(&mut self, size: Size) {
        let checks = self.checks.clone();
        self.put(&checks.hub, Key::new(NAMESPACES, "", "kube-system"), json!({}));
        for (number, site) in checks.sites.iter().enumerate() {
            self.put(&checks.hub, Key::new(NAMESPACES, "", &site.name), json!({}));
            self.put(&site.server, Key::new(NAMESPACES, "", "kube-system"), json!({}));
            self.put(&site.server, Key::new(NAMESPACES, "", AGENT_NAMESPACE), json!({}));
            self.root_ca(number);
            self.put(&site.server, Key::new(SERVICE_ACCOUNTS, AGENT_NAMESPACE, BYSTANDER), json!({}));
            self.put(&checks.hub, Key::new(ACCOUNTS, &site.name, BYSTANDER), account("1h"));
            for _ in 0..size.accounts {
                self.create_account(number);
            }
        }
        self.backup(HUB);
        (0..size.clusters).for_each(|number| self.backup(number));
    }

    /// Runs it to the end, and checks all the way.
    pub(crate) async fn run(mut self, size: Size, schedule: Vec<(Duration, Act)>) -> Arc<Checks> {
        let time = self.checks.time;
        for number in 0..self.checks.sites.len() {
            self.checks.books(number).calm.begin(time.now());
            if size.agents {
                self.agents.spawn(supervise(self.checks.clone(), number, size));
            }
        }
        let end = Duration::from_secs(size.days * 86_400);
        let mut acts = schedule.into_iter().peekable();
        let (mut upkeep, mut check) = (UPKEEP, size.check);
        while time.now() < end + PEACE {
            let act = acts.peek().map(|(at, _)| *at);
            let next = [act, Some(upkeep), Some(check), self.checks.next_reading()];
            let next = next.into_iter().flatten().min().expect("there is always upkeep");
            time.until(next).await;
            if act == Some(next) {
                let (_, act) = acts.next().expect("it was peeked at");
                self.perform(act);
            }
            if upkeep <= next {
                self.upkeep();
                upkeep = next + UPKEEP;
            }
            if check <= next {
                self.checks.check_all();
                check = next + size.check;
            }
            self.checks.read(next);
            if self.checks.failed() {
                break;
            }
        }
        // Dropped before the last look, which no agent shall disturb.
        drop(self.agents);
        if !self.checks.failed() {
            self.checks.at_the_end();
        }
        self.checks
    }

    fn put(&self, server: &Server, key: Key, object: Value) {
        let now = server.time.now();
        let wall = jiff::Timestamp::from_second(server.time.unix()).unwrap().to_string();
        server.state.lock().unwrap().store.create(key, object, now, &wall);
    }

    fn root_ca(&self, site: usize) {
        let server = &self.checks.sites[site].server;
        let key = Key::new(CONFIG_MAPS, AGENT_NAMESPACE, names::ROOT_CA_CONFIG_MAP);
        let there = {
            let store = &server.state.lock().unwrap().store;
            store.get(&Key::new(NAMESPACES, "", AGENT_NAMESPACE)).is_none() || store.get(&key).is_some()
        };
        if !there {
            let bundle = format!("CA of {}", server.name);
            self.put(server, key, json!({"data": {"ca.crt": bundle}}));
        }
    }

    fn sky(&self, place: Place) -> &Sky {
        let sites = &self.checks.sites;
        match place {
            Place::Hub => &self.checks.hub.sky,
            Place::Cluster(number) => &sites[number].server.sky,
            Place::HubLink(number) => &sites[number].hub_link.sky,
            Place::ClusterLink(number) => &sites[number].cluster_link.sky,
        }
    }

    /// The links that a place's connections go over.
    fn links(&self, place: Place) -> Vec<&Link> {
        let sites = &self.checks.sites;
        match place {
            Place::Hub => sites.iter().map(|site| &*site.hub_link).collect(),
            Place::HubLink(number) => vec![&*sites[number].hub_link],
            Place::Cluster(number) | Place::ClusterLink(number) => vec![&*sites[number].cluster_link],
        }
    }

    /// The clusters whose agents feel what happens there.
    fn touched(&self, place: Place) -> Vec<usize> {
        match place {
            Place::Hub => (0..self.checks.sites.len()).collect(),
            Place::Cluster(number) | Place::HubLink(number) | Place::ClusterLink(number) => vec![number],
        }
    }

    fn perform(&mut self, act: Act) {
        self.checks.note(&act);
        let now = self.checks.time.now();
        match act {
            Act::Begin { place, number, weather } => {
                self.sky(place).begin(number, weather);
                for site in self.touched(place) {
                    let books = &mut *self.checks.books(site);
                    books.calm.broken(now);
                    if matches!(weather, Weather::Lossy(_)) {
                        books.costly_begins();
                    }
                }
                // What refuses connections has lost the old ones; what is silent has not.
                if matches!(weather, Weather::Refused | Weather::Certificate | Weather::Denied(_)) {
                    self.links(place).into_iter().for_each(Link::cut);
                }
            }
            Act::Over { place, number } => {
                let over = self.sky(place).over(number);
                for site in self.touched(place) {
                    let books = &mut *self.checks.books(site);
                    books.calm.mended(now);
                    if matches!(over, Some(Weather::Lossy(_))) {
                        books.costly_ends(now);
                    }
                }
            }
            Act::Cut(place) => self.links(place).into_iter().for_each(Link::cut),
            Act::Mute(place) => self.links(place).into_iter().for_each(Link::mute),
            Act::Backup(Place::Cluster(number)) => self.backup(number),
            Act::Backup(_) => self.backup(HUB),
            Act::Restore(Place::Cluster(number), pick) => self.restore(number, pick),
            Act::Restore(_, pick) => self.restore(HUB, pick),
            Act::ClockWrong { cluster, ahead } => {
                self.checks.sites[cluster].clock.ahead_seconds.store(ahead, Ordering::Relaxed);
                let books = &mut *self.checks.books(cluster);
                books.calm.broken(now);
                books.costly_begins();
            }
            Act::ClockRight { cluster } => {
                self.checks.sites[cluster].clock.ahead_seconds.store(0, Ordering::Relaxed);
                let books = &mut *self.checks.books(cluster);
                books.calm.mended(now);
                books.costly_ends(now);
            }
            Act::Kill { cluster, at, down } => {
                let site = &self.checks.sites[cluster];
                *site.down.lock().unwrap() = down;
                match at {
                    Some((after, death)) => site.reaper.order(after, death),
                    None => site.reaper.strikes.notify_one(),
                }
            }
            Act::NamespaceTerminates(site) => self.namespace_terminates(site),
            Act::NamespaceGone(site) => self.namespace_gone(site),
            Act::NamespaceBack(site) => {
                let server = self.checks.sites[site].server.clone();
                let key = Key::new(NAMESPACES, "", AGENT_NAMESPACE);
                let there = server.state.lock().unwrap().store.get(&key).is_some();
                if !there {
                    self.put(&server, key, json!({}));
                    self.put(&server, Key::new(SERVICE_ACCOUNTS, AGENT_NAMESPACE, BYSTANDER), json!({}));
                }
            }
            Act::RootCaBack(site) => {
                self.root_ca(site);
                self.checks.books(site).disturb_all(now);
                self.checks.books(site).calm.mended(now);
            }
            Act::User { cluster, deed, pick } => self.user(cluster, deed, pick),
        }
    }

    fn server(&self, place: usize) -> Arc<Server> {
        if place == HUB { self.checks.hub.clone() } else { self.checks.sites[place].server.clone() }
    }

    fn backup(&mut self, place: usize) {
        let backup = self.server(place).state.lock().unwrap().store.backup();
        let backups = self.backups.entry(place).or_default();
        backups.push(backup);
        if backups.len() > 6 {
            backups.remove(0);
        }
    }

    fn restore(&mut self, place: usize, pick: u64) {
        let server = self.server(place);
        let now = self.checks.time.now();
        // What was kept after the one that is put back is of a past that did not happen.
        let backups = self.backups.get_mut(&place).expect("there is a first one");
        backups.truncate(pick as usize % backups.len() + 1);
        let backup = backups.last().expect("one is left").clone();
        let sites: Vec<usize> =
            if place == HUB { (0..self.checks.sites.len()).collect() } else { vec![place] };
        if place == HUB {
            self.checks.check_all();
            // Validities may go back too.
            for site in &sites {
                self.accounts(*site).iter().for_each(|name| self.checks.validity_changes(*site, name));
            }
        }
        server.state.lock().unwrap().store.restore(&backup);
        for site in sites {
            for name in self.accounts(site) {
                self.checks.watch(site, &name);
            }
            self.checks.books(site).disturb_all(now);
        }
    }

    fn accounts(&self, site: usize) -> Vec<String> {
        self.checks.accounts(site)
    }

    fn namespace_terminates(&self, site: usize) {
        let now = self.checks.time.now();
        self.checks.books(site).calm.broken(now);
        let server = &self.checks.sites[site].server;
        let wall = jiff::Timestamp::from_second(server.time.unix()).unwrap().to_string();
        let store = &mut server.state.lock().unwrap().store;
        let key = Key::new(NAMESPACES, "", AGENT_NAMESPACE);
        if let Some(namespace) = store.get(&key) {
            let mut namespace = (**namespace).clone();
            namespace["metadata"]["deletionTimestamp"] = json!(wall);
            store.update(key, namespace, now);
        }
    }

    fn namespace_gone(&self, site: usize) {
        let now = self.checks.time.now();
        self.checks.books(site).disturb_all(now);
        let store = &mut self.checks.sites[site].server.state.lock().unwrap().store;
        let all: Vec<Key> = [SERVICE_ACCOUNTS, CONFIG_MAPS, "leases", EVENTS]
            .into_iter()
            .flat_map(|resource| {
                store.list(resource, AGENT_NAMESPACE).map(|(key, _)| key.clone()).collect::<Vec<_>>()
            })
            .chain([Key::new(NAMESPACES, "", AGENT_NAMESPACE)])
            .collect();
        for key in all {
            store.delete(&key, now);
        }
    }

    fn create_account(&mut self, site: usize) {
        // Now and then a name that was used before: another UID.
        let fresh = self.names < 3 || self.random.permille(700);
        let number = if fresh {
            self.names += 1;
            self.names
        } else {
            self.random.between(1, self.names)
        };
        let name = format!("account{number}");
        let key = Key::new(ACCOUNTS, &self.checks.sites[site].name, &name);
        let there = self.checks.hub.state.lock().unwrap().store.get(&key).is_some();
        if !there {
            let validity = *self.random.pick(&VALIDITIES);
            self.put(&self.checks.hub, key, account(validity));
            self.checks.created(site, &name);
        }
    }

    fn user(&mut self, site: usize, deed: Deed, pick: u64) {
        let now = self.checks.time.now();
        let accounts = self.accounts(site);
        let namespace = self.checks.sites[site].name.clone();
        if deed == Deed::CreateAccount || accounts.is_empty() {
            return self.create_account(site);
        }
        let name = &accounts[pick as usize % accounts.len()];
        let checks = self.checks.clone();
        let secret = Key::new(SECRETS, &namespace, name);
        if matches!(deed, Deed::DeleteSecret | Deed::AlterSecret | Deed::DeleteAccount | Deed::ChangeValidity)
        {
            checks.check(site, name);
        }
        match deed {
            Deed::DeleteAccount => {
                checks.hub.state.lock().unwrap().store.delete(&Key::new(ACCOUNTS, &namespace, name), now);
                checks.deleted(site, name);
                return;
            }
            Deed::ChangeValidity => {
                let validity = *self.random.pick(&VALIDITIES);
                let key = Key::new(ACCOUNTS, &namespace, name);
                checks.validity_changes(site, name);
                change(&checks.hub, &key, |account| {
                    account["spec"]["rotation"]["validity"] = json!(validity)
                });
            }
            Deed::DeleteSecret => {
                checks.hub.state.lock().unwrap().store.delete(&secret, now);
            }
            Deed::AlterSecret => {
                let other = Key::new(SECRETS, &namespace, self.random.pick::<String>(&accounts));
                let others =
                    checks.hub.state.lock().unwrap().store.get(&other).map(|it| it["data"]["token"].clone());
                let token = match self.random.below(3) {
                    0 => others.unwrap_or_default(),
                    1 => json!("bm9uc2Vuc2U="),
                    _ => Value::Null,
                };
                change(&checks.hub, &secret, |secret| {
                    if token.is_null() {
                        secret["data"].as_object_mut().map(|data| data.remove("token"));
                    } else {
                        secret["data"]["token"] = token;
                    }
                });
            }
            Deed::DeleteServiceAccount => {
                let key = Key::new(SERVICE_ACCOUNTS, AGENT_NAMESPACE, name);
                checks.sites[site].server.state.lock().unwrap().store.delete(&key, now);
            }
            Deed::CreateAccount => {}
        }
        checks.books(site).disturb(name, now);
    }

    /// What the hub's controllers do: Secrets whose owner is gone go, and old Events.
    fn upkeep(&mut self) {
        if self.checks.hub.sky.now().is_some() {
            return;
        }
        let now = self.checks.time.now();
        let hub = self.checks.hub.clone();
        let orphans: HashSet<Key> = {
            let store = &hub.state.lock().unwrap().store;
            let owners: HashSet<&str> = store
                .list(ACCOUNTS, "")
                .filter_map(|(_, account)| account["metadata"]["uid"].as_str())
                .collect();
            let gone = |secret: &Value| {
                let references =
                    secret["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
                let there = |owner: &Value| owner["uid"].as_str().is_some_and(|uid| owners.contains(uid));
                !references.is_empty() && !references.iter().any(there)
            };
            store.list(SECRETS, "").filter(|(_, secret)| gone(secret)).map(|(key, _)| key.clone()).collect()
        };
        // At the second look: garbage collection takes its time.
        for key in orphans.intersection(&self.orphans) {
            crate::server::Observer::before_secret(&*self.checks, &key.namespace, &key.name);
            hub.state.lock().unwrap().store.delete(key, now);
        }
        self.orphans = orphans;
        let long_ago = jiff::Timestamp::from_second(hub.time.unix() - 3_600).unwrap().to_string();
        let store = &mut hub.state.lock().unwrap().store;
        let old =
            |event: &Value| event["metadata"]["creationTimestamp"].as_str().is_some_and(|at| at < &*long_ago);
        let old: Vec<Key> =
            store.list(EVENTS, "").filter(|(_, event)| old(event)).map(|(key, _)| key.clone()).collect();
        for key in old {
            store.delete(&key, now);
        }
    }
}

fn account(validity: &str) -> Value {
    json!({
        "apiVersion": "authentication.open-cluster-management.io/v1beta1", "kind": "ManagedServiceAccount",
        "metadata": {}, "spec": {"rotation": {"enabled": true, "validity": validity}},
    })
}

fn change(server: &Server, key: &Key, how: impl FnOnce(&mut Value)) {
    let now = server.time.now();
    let store = &mut server.state.lock().unwrap().store;
    if let Some(object) = store.get(key) {
        let mut object = (**object).clone();
        how(&mut object);
        store.update(key.clone(), object, now);
    }
}

/// Runs the agent of a cluster, again and again: it dies when the reaper says so, and remembers nothing.
async fn supervise(checks: Arc<Checks>, number: usize, size: Size) {
    let site = checks.sites[number].clone();
    loop {
        let options = Options {
            review_interval: size.review,
            hub_lease: size.hub_lease,
            lease: true,
            ..Options::new(&*site.name, site.clock.clone())
        };
        let (agent, _handle) =
            Agent::new(site.hub_link.client(), site.cluster_link.client(), options).unwrap();
        tokio::select! {
            () = agent.run(CancellationToken::new()) => checks.violation(number, "the agent stopped by itself"),
            // Dropping the agent ends it wherever it is: at any await.
            () = site.reaper.strikes.notified() => {}
        }
        checks.died(number);
        let down = *site.down.lock().unwrap();
        tokio::time::sleep(down).await;
        let now = checks.time.now();
        checks.books(number).calm.mended(now);
    }
}

/// A simulation of this size, from this seed.
pub(crate) async fn simulate(size: Size, seed: u64) -> Arc<Checks> {
    let mut random = Random::new(seed);
    let schedule = schedule::write(size, random.fork());
    World::new(size, &mut random).run(size, schedule).await
}
