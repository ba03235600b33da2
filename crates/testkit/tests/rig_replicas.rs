//! Three replicas of a hub on an etcd of three members, under load, while everything that can fail does: no write that
//! was acknowledged is lost, nobody reads what is stale, no watcher misses an event or gets one twice.

use anyhow::{Context as _, Result, ensure};
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::{
    Call, Etcd, EtcdOptions, FleetpassHub, HubOptions, Op, Process, SOON, Signal, Storage, eventually,
    is_linearizable, program, total,
};
use futures::StreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use kube::api::{DeleteParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const REPLICAS: usize = 3;
const REGISTERS: u64 = 4;
const CLIENTS: usize = 6;
const NAMESPACE: &str = "default";
/// How long everything goes well between two faults.
const CALM: Duration = Duration::from_secs(4);
/// etcd is full at this size.
const QUOTA: u64 = 48 << 20;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_whatever_fails() -> Result<()> {
    let quota = EtcdOptions { quota_bytes: Some(QUOTA) };
    let mut etcd = Etcd::start_with(3, &quota).await?;
    let mut hubs = replicas(&etcd).await?;
    let load = Load::start(&hubs).await?;
    let reference = tempfile::tempdir()?;
    let reference_log = reference.path().join("events");
    let etcdctl_watch = follow_etcd(&etcd, load.first_revision, &reference_log)?;

    let mut recoveries = Vec::new();
    for fault in Fault::ALL {
        tokio::time::sleep(CALM).await;
        let mend = fault.strike(&mut etcd, &mut hubs).await.with_context(|| format!("{fault:?}"))?;
        let began = Instant::now();
        if fault == Fault::Full {
            refuses_clearly(&hubs).await?;
            mend.mend(&mut etcd, &mut hubs).await?;
            recoveries.push((fault, load.recovered(Instant::now()).await?));
            continue;
        }
        recoveries.push((fault, load.recovered(began).await.with_context(|| format!("{fault:?}"))?));
        mend.mend(&mut etcd, &mut hubs).await?;
    }
    let takeover = controllers_find_a_new_leader(&mut hubs).await?;
    tokio::time::sleep(CALM).await;

    let seen = load.stop(&hubs, &reference_log).await?;
    etcdctl_watch.kill().await?;
    let recoveries = recoveries.iter().map(|(fault, took)| format!("{fault:?} {:.1} s", took.as_secs_f64()));
    total("replicas, recovery", &recoveries.collect::<Vec<_>>().join(", "))?;
    total(
        "replicas, controllers",
        &format!("a new leader works {:.1} s after SIGKILL", takeover.as_secs_f64()),
    )?;
    total("replicas, history", &seen)
}

async fn replicas(etcd: &Etcd) -> Result<Vec<FleetpassHub>> {
    let storage = |keys_of| Storage::Etcd { servers: etcd.endpoints(), keys_of };
    let first = FleetpassHub::start(&HubOptions { storage: storage(None), ..HubOptions::default() }).await?;
    let keys_of = Some(first.data_dir());
    let mut hubs = vec![first];
    while hubs.len() < REPLICAS {
        let options = HubOptions { storage: storage(keys_of.clone()), ..HubOptions::default() };
        hubs.push(FleetpassHub::start(&options).await?);
    }
    Ok(hubs)
}

/// What is done to the replicas and to etcd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    ReplicaKilled,
    LeaderKilled,
    LeaderStopped,
    FollowerStopped,
    Full,
}

/// How it is mended.
enum Mend {
    Replica(usize),
    Member(usize),
    Continue(usize),
    MakeRoom,
}

impl Fault {
    const ALL: [Self; 5] =
        [Self::ReplicaKilled, Self::LeaderKilled, Self::LeaderStopped, Self::FollowerStopped, Self::Full];

    async fn strike(self, etcd: &mut Etcd, hubs: &mut [FleetpassHub]) -> Result<Mend> {
        match self {
            Self::ReplicaKilled => {
                hubs[1].halt().await?;
                Ok(Mend::Replica(1))
            }
            Self::LeaderKilled => {
                let leader = etcd.leader().await?;
                etcd.kill(leader).await?;
                Ok(Mend::Member(leader))
            }
            Self::LeaderStopped | Self::FollowerStopped => {
                let leader = etcd.leader().await?;
                let member = if self == Self::LeaderStopped { leader } else { (leader + 1) % 3 };
                etcd.signal(member, Signal::STOP)?;
                Ok(Mend::Continue(member))
            }
            Self::Full => {
                fill(etcd).await?;
                Ok(Mend::MakeRoom)
            }
        }
    }
}

impl Mend {
    async fn mend(self, etcd: &mut Etcd, hubs: &mut [FleetpassHub]) -> Result<()> {
        match self {
            Self::Replica(index) => hubs[index].resume().await,
            Self::Member(index) => etcd.restart(index).await,
            Self::Continue(index) => etcd.signal(index, Signal::CONT),
            Self::MakeRoom => make_room(etcd).await,
        }
    }
}

/// Writes to etcd past the hub until it is full.
async fn fill(etcd: &Etcd) -> Result<()> {
    let junk = "x".repeat(1 << 20);
    for n in 0..2 * (QUOTA >> 20) {
        if let Err(error) = etcd.put(&format!("/junk/{n}"), &junk).await {
            ensure!(format!("{error:#}").contains("space exceeded"), "{error:#}");
            return Ok(());
        }
    }
    anyhow::bail!("etcd takes more than its quota")
}

/// What an operator does when etcd is full.
async fn make_room(etcd: &Etcd) -> Result<()> {
    etcd.etcdctl(&["del", "--prefix", "/junk/"]).await?;
    let status: Value = serde_json::from_str(&etcd.etcdctl(&["endpoint", "status", "-w", "json"]).await?)?;
    let revision = status[0]["Status"]["header"]["revision"].to_string();
    etcd.etcdctl(&["compact", &revision]).await?;
    etcd.etcdctl(&["defrag"]).await?;
    etcd.etcdctl(&["alarm", "disarm"]).await?;
    Ok(())
}

/// A full etcd: writes are refused with a reason, reads go on.
async fn refuses_clearly(hubs: &[FleetpassHub]) -> Result<()> {
    for hub in hubs {
        let maps: Api<ConfigMap> = Api::namespaced(hub.endpoint().admin().await?, NAMESPACE);
        let refused = eventually("a write is refused", SOON, async || {
            // Members learn of the alarm one after another: what is taken still has a name of its own.
            let mut map = config_map("", 0);
            map.metadata.name = None;
            map.metadata.generate_name = Some("too-much-".into());
            match maps.create(&PostParams::default(), &map).await {
                Err(kube::Error::Api(status)) => Some(status),
                _ => None,
            }
        });
        let refused = refused.await?;
        ensure!(refused.code == 500, "{refused:?}");
        ensure!(refused.message.contains("database space exceeded"), "{}", refused.message);
        maps.get(&register(0)).await.context("a read while etcd is full")?;
    }
    Ok(())
}

/// The replica whose controllers lead is killed; how long until another one's have made a ServiceAccount for a new
/// namespace.
async fn controllers_find_a_new_leader(hubs: &mut [FleetpassHub]) -> Result<Duration> {
    let leads = |hub: &FleetpassHub| hub.log().matches("fleetpass-controllers").count() > 0;
    let leaders: Vec<usize> = (0..hubs.len()).filter(|index| leads(&hubs[*index])).collect();
    let [.., leader] = leaders.as_slice() else { anyhow::bail!("no replica says that it leads") };
    let leader = *leader;
    hubs[leader].halt().await?;
    let began = Instant::now();
    let client = hubs[(leader + 1) % REPLICAS].endpoint().admin().await?;
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some("after-takeover".into());
    Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client, "after-takeover");
    eventually("the new leader makes the account default", SOON, async || accounts.get("default").await.ok())
        .await?;
    let took = began.elapsed();
    hubs[leader].resume().await?;
    Ok(took)
}

fn register(index: u64) -> String {
    format!("register-{index}")
}

fn config_map(name: &str, value: u64) -> ConfigMap {
    let mut map =
        ConfigMap { data: Some([("value".into(), value.to_string())].into()), ..ConfigMap::default() };
    map.metadata.name = Some(name.into());
    map
}

fn value_of(map: &ConfigMap) -> Result<u64> {
    Ok(map.data.as_ref().and_then(|data| data.get("value")).context("no value")?.parse()?)
}

/// Follows the hub's ConfigMaps in etcd, past the hub.
fn follow_etcd(etcd: &Etcd, first: u64, log: &Path) -> Result<Process> {
    let arguments = [
        format!("--endpoints={}", etcd.endpoints().join(",")),
        "--write-out=json".into(),
        "watch".into(),
        "--prefix".into(),
        format!("--rev={first}"),
        format!("/registry/configmaps/{NAMESPACE}/"),
    ];
    Process::start("etcdctl watch", &program("etcdctl")?, arguments, &[], log)
}

/// What clients and watchers have in common.
struct Shared {
    clients: Vec<Client>,
    stop: CancellationToken,
    values: AtomicU64,
    history: Mutex<Vec<(u64, Op)>>,
    /// When each client was last acknowledged a write, and when it had sent it.
    progress: Mutex<BTreeMap<usize, (Instant, Instant)>>,
    created: Mutex<BTreeSet<String>>,
    deleted: Mutex<BTreeSet<String>>,
}

/// An event as a watcher got it: the kind, the object's name, its resource version.
type Seen = (String, String, u64);

struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<Result<()>>,
    watchers: Vec<tokio::task::JoinHandle<Result<Vec<Seen>>>>,
    watched: Vec<Arc<AtomicU64>>,
    first_revision: u64,
}

impl Load {
    async fn start(hubs: &[FleetpassHub]) -> Result<Self> {
        let mut clients = Vec::new();
        for hub in hubs {
            clients.push(hub.endpoint().client(ADMIN_TOKEN).await?);
        }
        let maps: Api<ConfigMap> = Api::namespaced(clients[0].clone(), NAMESPACE);
        eventually("the namespace is complete", SOON, async || maps.get("kube-root-ca.crt").await.ok())
            .await?;
        let before = maps.list(&Default::default()).await?.metadata.resource_version.context("no version")?;
        for index in 0..REGISTERS {
            maps.create(&PostParams::default(), &config_map(&register(index), 0)).await?;
        }
        let shared = Arc::new(Shared {
            clients,
            stop: CancellationToken::new(),
            values: AtomicU64::new(1),
            history: Mutex::default(),
            progress: Mutex::default(),
            created: Mutex::default(),
            deleted: Mutex::default(),
        });
        let mut tasks = JoinSet::new();
        for client in 0..CLIENTS {
            tasks.spawn(work(shared.clone(), client));
        }
        let watched: Vec<_> = (0..REPLICAS).map(|_| Arc::new(AtomicU64::new(0))).collect();
        let watchers = watched
            .iter()
            .enumerate()
            .map(|(index, reached)| {
                tokio::spawn(watch(shared.clone(), index, before.clone(), reached.clone()))
            })
            .collect();
        Ok(Self { shared, clients: tasks, watchers, watched, first_revision: before.parse::<u64>()? + 1 })
    }

    /// Waits until every client was acknowledged a write that it sent after `fault`; how long that took.
    async fn recovered(&self, fault: Instant) -> Result<Duration> {
        let recovered = eventually("all clients write again", SOON, async || {
            let progress = self.shared.progress.lock().expect("no panic");
            let after = progress.values().filter(|(sent, _)| *sent > fault);
            (progress.len() == CLIENTS && after.count() == CLIENTS).then(Instant::now)
        });
        Ok(recovered.await? - fault)
    }

    /// Ends the load and judges what was seen.
    async fn stop(mut self, hubs: &[FleetpassHub], reference: &Path) -> Result<String> {
        self.shared.stop.cancel();
        while let Some(ended) = self.clients.join_next().await {
            ended??;
        }
        let client = hubs[0].endpoint().admin().await?;
        let maps: Api<ConfigMap> = Api::namespaced(client, NAMESPACE);
        // The last event, which all watchers are waited for to have.
        let last = maps.create(&PostParams::default(), &config_map("the-end", 0)).await?;
        let last: u64 = last.resource_version().context("no version")?.parse()?;
        eventually("all watchers have the last event", SOON, async || {
            self.watched.iter().all(|reached| reached.load(Ordering::Relaxed) >= last).then_some(())
        })
        .await?;
        for reached in &self.watched {
            reached.store(u64::MAX, Ordering::Relaxed);
        }
        let expected = eventually("etcdctl has the last event", SOON, async || {
            let events = read_reference(reference).ok()?;
            (events.last().map(|event| event.2) >= Some(last)).then_some(events)
        })
        .await?;
        let mut events = 0;
        for watcher in self.watchers {
            let seen = watcher.await??;
            ensure!(seen == expected, "{}", difference(&seen, &expected));
            events += seen.len();
        }
        let writes = judge(&self.shared, &maps).await?;
        Ok(format!(
            "{writes}; {events} events of {REPLICAS} watchers as etcd has them, none missing, none twice"
        ))
    }
}

/// Where a watcher and etcd part.
fn difference(seen: &[Seen], expected: &[Seen]) -> String {
    let at = seen.iter().zip(expected).take_while(|(seen, expected)| seen == expected).count();
    format!(
        "a watcher saw {} events, etcd has {}; after {at} the watcher has {:?}, etcd {:?}",
        seen.len(),
        expected.len(),
        seen.get(at),
        expected.get(at)
    )
}

/// One client: it reads and replaces registers, and makes and removes ConfigMaps, at one replica until that fails, then
/// at the next.
async fn work(shared: Arc<Shared>, client: usize) -> Result<()> {
    let mut replica = client % REPLICAS;
    for turn in 0_u64.. {
        if shared.stop.is_cancelled() {
            return Ok(());
        }
        let maps: Api<ConfigMap> = Api::namespaced(shared.clients[replica].clone(), NAMESPACE);
        let index = (turn + client as u64) % REGISTERS;
        let sent = Instant::now();
        let well =
            replace(&shared, &maps, index).await? && make_and_remove(&shared, &maps, client, turn).await?;
        if well {
            let now = Instant::now();
            shared.progress.lock().expect("no panic").insert(client, (sent, now));
        } else {
            replica = (replica + 1) % REPLICAS;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// An answer: what it is, a refusal, or nothing that tells what came of the request.
enum Answer<T> {
    Done(T),
    Conflict,
    NotDone,
    Unknown,
}

async fn ask<T>(request: impl Future<Output = kube::Result<T>>) -> Result<Answer<T>> {
    match tokio::time::timeout(PATIENCE, request).await {
        Ok(Ok(answer)) => Ok(Answer::Done(answer)),
        Ok(Err(kube::Error::Api(status))) => match status.code {
            409 => Ok(Answer::Conflict),
            429 | 503 => Ok(Answer::NotDone),
            500..=599 => Ok(Answer::Unknown),
            _ => anyhow::bail!("an answer that no failure explains: {status:?}"),
        },
        Ok(Err(_)) | Err(_) => Ok(Answer::Unknown),
    }
}

/// Reads a register and replaces what is there; false if the replica did not answer as it should.
async fn replace(shared: &Shared, maps: &Api<ConfigMap>, index: u64) -> Result<bool> {
    let note = |call, start| {
        let op = Op { call, start, end: Instant::now() };
        shared.history.lock().expect("no panic").push((index, op));
    };
    let start = Instant::now();
    let Answer::Done(mut map) = ask(maps.get(&register(index))).await? else { return Ok(false) };
    let from = value_of(&map)?;
    note(Call::Read(from), start);
    let to = shared.values.fetch_add(1, Ordering::Relaxed);
    map.data = config_map("", to).data;
    map.metadata.managed_fields = None;
    let start = Instant::now();
    let answer = ask(maps.replace(&register(index), &PostParams::default(), &map)).await?;
    match answer {
        Answer::Done(_) => note(Call::Replaced(from, to), start),
        Answer::Conflict => note(Call::Refused(from), start),
        Answer::NotDone => return Ok(false),
        Answer::Unknown => {
            note(Call::Unknown(from, to), start);
            return Ok(false);
        }
    }
    Ok(true)
}

/// Makes a ConfigMap, and removes every second one; false if the replica did not answer as it should.
async fn make_and_remove(shared: &Shared, maps: &Api<ConfigMap>, client: usize, turn: u64) -> Result<bool> {
    let name = format!("made-{client}-{turn}");
    match ask(maps.create(&PostParams::default(), &config_map(&name, turn))).await? {
        Answer::Done(_) => {}
        Answer::Conflict => anyhow::bail!("{name} is there before it was made"),
        Answer::NotDone | Answer::Unknown => return Ok(false),
    }
    if turn.is_multiple_of(2) {
        shared.created.lock().expect("no panic").insert(name);
        return Ok(true);
    }
    match ask(maps.delete(&name, &DeleteParams::default())).await? {
        Answer::Done(_) => {
            shared.deleted.lock().expect("no panic").insert(name);
            Ok(true)
        }
        Answer::Conflict | Answer::NotDone | Answer::Unknown => Ok(false),
    }
}

/// Follows the ConfigMaps from a version on, at one replica until that fails, then at the next, until it is told to end.
async fn watch(
    shared: Arc<Shared>,
    first: usize,
    from: String,
    reached: Arc<AtomicU64>,
) -> Result<Vec<Seen>> {
    let (mut seen, mut version, mut replica) = (Vec::new(), from, first);
    loop {
        let maps: Api<ConfigMap> = Api::namespaced(shared.clients[replica].clone(), NAMESPACE);
        let params = WatchParams::default().disable_bookmarks();
        if let Ok(Ok(events)) = tokio::time::timeout(PATIENCE, maps.watch(&params, &version)).await {
            let mut events = std::pin::pin!(events);
            loop {
                if reached.load(Ordering::Relaxed) == u64::MAX {
                    return Ok(seen);
                }
                let event = match tokio::time::timeout(Duration::from_millis(200), events.next()).await {
                    Err(_) => continue,
                    Ok(Some(Ok(event))) => event,
                    Ok(Some(Err(_)) | None) => break,
                };
                let (kind, map) = match event {
                    WatchEvent::Added(map) => ("put", map),
                    WatchEvent::Modified(map) => ("put", map),
                    WatchEvent::Deleted(map) => ("delete", map),
                    WatchEvent::Bookmark(_) => continue,
                    WatchEvent::Error(status) => anyhow::bail!("after {version}: {status:?}"),
                };
                version = map.resource_version().context("no version")?;
                let at = version.parse()?;
                seen.push((kind.into(), map.name_any(), at));
                reached.fetch_max(at, Ordering::Relaxed);
            }
        }
        replica = (replica + 1) % REPLICAS;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What etcdctl wrote: one response in each line.
fn read_reference(log: &Path) -> Result<Vec<Seen>> {
    use base64::Engine as _;
    let mut events = Vec::new();
    for line in std::fs::read_to_string(log)?.lines().filter(|line| line.starts_with('{')) {
        let response: Value = serde_json::from_str(line)?;
        for event in response["Events"].as_array().into_iter().flatten() {
            let kind = if event["type"] == 1 || event["type"] == "DELETE" { "delete" } else { "put" };
            let key = event["kv"]["key"].as_str().context("no key")?;
            let key = String::from_utf8(base64::engine::general_purpose::STANDARD.decode(key)?)?;
            let name = key.rsplit('/').next().unwrap_or_default();
            events.push((
                kind.into(),
                name.into(),
                event["kv"]["mod_revision"].as_u64().context("no revision")?,
            ));
        }
    }
    Ok(events)
}

/// Checks the histories of the registers, and that what was made and not removed is there.
async fn judge(shared: &Shared, maps: &Api<ConfigMap>) -> Result<String> {
    let history = shared.history.lock().expect("no panic").clone();
    let unknown = history.iter().filter(|(_, op)| matches!(op.call, Call::Unknown(..))).count();
    let replaced = history.iter().filter(|(_, op)| matches!(op.call, Call::Replaced(..))).count();
    for index in 0..REGISTERS {
        let mut ops: Vec<Op> = history.iter().filter(|(of, _)| *of == index).map(|(_, op)| *op).collect();
        let start = Instant::now();
        let last = value_of(&maps.get(&register(index)).await?)?;
        ops.push(Op { call: Call::Read(last), start, end: Instant::now() });
        let count = ops.len();
        let right = tokio::task::spawn_blocking(move || is_linearizable(0, &ops)).await?;
        ensure!(right, "the {count} calls to {} have no order that explains them", register(index));
    }
    let there: BTreeSet<String> =
        maps.list(&Default::default()).await?.items.iter().map(ConfigMap::name_any).collect();
    let (created, deleted) =
        (shared.created.lock().expect("no panic").clone(), shared.deleted.lock().expect("no panic").clone());
    let lost: Vec<_> = created.difference(&there).collect();
    ensure!(lost.is_empty(), "made and acknowledged, but not there: {lost:?}");
    let back: Vec<_> = deleted.intersection(&there).collect();
    ensure!(back.is_empty(), "removed and acknowledged, but there: {back:?}");
    let acknowledged = replaced + created.len() + 2 * deleted.len();
    Ok(format!(
        "{} calls to {REGISTERS} registers linearizable ({unknown} of unknown outcome); {acknowledged} acknowledged \
         writes, none lost",
        history.len()
    ))
}
