//! One hub with many clusters: agents in this process, whose watches and writes on the hub are real and go over TLS.

use crate::pace::Pace;
use crate::plot::Plot;
use crate::proc::{cpu_seconds, resident_mb};
use crate::report::{Goal, Section};
use anyhow::{Context as _, Result, ensure};
use fleetpass_agent::{Agent, CaSource, Handle, Options};
use fleetpass_api::{ManagedServiceAccount, clock, names};
use fleetpass_testkit::cluster::Cluster;
use fleetpass_testkit::rig::{ControlPlane, HubOptions};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use kube::Client;
use kube::api::{Api, PostParams};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::{self, watcher};
use serde_json::json;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Accounts of each cluster.
const ACCOUNTS: usize = 5;
/// How long a step may take with the largest fleet.
const PATIENCE: Duration = Duration::from_secs(900);
/// Requests under way while the fleet is built.
const PARALLEL: usize = 32;

struct Measured {
    clusters: usize,
    /// Of the hub, when all agents watch and there are no accounts.
    joined_mb: f64,
    /// Of the hub, when all accounts have tokens.
    served_mb: f64,
    /// Until every account of the fleet had a token, when all were created at once.
    storm_seconds: f64,
    /// What the hub used for one token of the storm.
    storm_cpu_ms: f64,
    /// The hub's share of a processor while nothing happens.
    idle_cpu: f64,
    /// From the creation of an account to its Secret, of single accounts, in milliseconds, sorted.
    latencies: Vec<f64>,
}

/// Measures fleets of several sizes.
///
/// # Errors
///
/// Something is refused, or tokens do not come.
pub(crate) async fn measure(pace: &Pace) -> Result<Section> {
    let mut section = Section::new(
        "The fleet",
        "One hub in a process of its own; in the benchmark's process an agent for each cluster with credentials and connections \
         of its own, watches and writes over TLS, Leases renewed; one API server in that process takes the part of all \
         clusters. 5 accounts for each cluster are created at once (the storm); then single accounts, 20 in a second: the time \
         from the request that creates one to the event that its Secret is there. All of it shares the cores with the hub.",
        &[
            "clusters",
            "accounts",
            "hub MB, joined",
            "hub MB, served",
            "KB per cluster",
            "storm s",
            "hub CPU ms per token",
            "hub idle CPU %",
            "token p50 ms",
            "token p99 ms",
        ],
    );
    let sizes: &[usize] = if pace.quick { &[5] } else { &[100, 1_000, 5_000] };
    let mut fleets: Vec<Measured> = Vec::new();
    for clusters in sizes {
        let fleet = run(*clusters, pace).await?;
        section.row([
            fleet.clusters.into(),
            (fleet.clusters * ACCOUNTS).into(),
            fleet.joined_mb.into(),
            fleet.served_mb.into(),
            (1e3 * fleet.served_mb / fleet.clusters as f64).into(),
            fleet.storm_seconds.into(),
            fleet.storm_cpu_ms.into(),
            (100.0 * fleet.idle_cpu).into(),
            quantile(&fleet.latencies, 0.5).into(),
            quantile(&fleet.latencies, 0.99).into(),
        ]);
        fleets.push(fleet);
    }
    if let Some(largest) = fleets.last() {
        let what = format!("{} clusters × {ACCOUNTS} accounts", largest.clusters);
        let memory = Goal::at_most(&format!("{what}: hub"), 600.0, largest.served_mb, "MB", "");
        let p99 = quantile(&largest.latencies, 0.99) / 1e3;
        section.goals.push(memory);
        section.goals.push(Goal::at_most(&format!("{what}: token reaches the hub, p99"), 1.0, p99, "s", ""));
    }
    let points = |of: fn(&Measured) -> f64| fleets.iter().map(|f| (f.clusters as f64, of(f))).collect();
    section.plots.push(Plot {
        file: "fleet-memory".into(),
        title: "Memory of the hub".into(),
        x: "clusters".into(),
        y: "MB".into(),
        lines: vec![
            ("all agents watch".into(), points(|fleet| fleet.joined_mb)),
            ("5 accounts each have tokens".into(), points(|fleet| fleet.served_mb)),
        ],
    });
    Ok(section)
}

fn quantile(sorted: &[f64], part: f64) -> f64 {
    let at = (sorted.len().saturating_sub(1) as f64 * part).round() as usize;
    sorted.get(at).copied().unwrap_or(f64::NAN)
}

/// The agents of a fleet; they end with it.
struct Agents {
    handles: Vec<Handle>,
    _stop: DropGuard,
}

async fn run(clusters: usize, pace: &Pace) -> Result<Measured> {
    let hub = ControlPlane::fleetpass(&HubOptions::default()).await?;
    let process = hub.processes();
    let admin = hub.endpoint().admin().await?;
    let cluster = Cluster::start().await?;
    let agents = join_all(&hub, &admin, &cluster, clusters).await?;
    wait("all agents watch", async || agents.handles.iter().all(|handle| handle.health().is_ready())).await?;
    tokio::time::sleep(pace.span(5.0)).await;
    let joined_mb = resident_mb(&process)?;

    let seen = Seen::start(admin.clone());
    let before = cpu_seconds(&process)?;
    let began = Instant::now();
    let names = (0..clusters).flat_map(|c| (0..ACCOUNTS).map(move |a| (name_of(c), format!("account-{a}"))));
    futures::stream::iter(names)
        .map(|(cluster, name)| create(&admin, cluster, name))
        .buffer_unordered(PARALLEL)
        .try_collect::<()>()
        .await?;
    let total = clusters * ACCOUNTS;
    wait("all accounts have tokens", async || seen.count() >= total).await?;
    let storm_seconds = began.elapsed().as_secs_f64();
    tokio::time::sleep(pace.span(5.0)).await;
    let after = cpu_seconds(&process)?;
    let served_mb = resident_mb(&process)?;

    let idle = pace.span(20.0);
    tokio::time::sleep(idle).await;
    let idle_cpu = (cpu_seconds(&process)? - after) / idle.as_secs_f64();
    let latencies = singles(&admin, &seen, clusters, pace.count(400, 10)).await?;
    let storm_cpu_ms = 1e3 * (after - before) / total as f64;
    Ok(Measured { clusters, joined_mb, served_mb, storm_seconds, storm_cpu_ms, idle_cpu, latencies })
}

fn name_of(cluster: usize) -> String {
    format!("cluster-{cluster:04}")
}

/// Lets all clusters join, and starts their agents.
async fn join_all(hub: &ControlPlane, admin: &Client, cluster: &Cluster, count: usize) -> Result<Agents> {
    let stop = CancellationToken::new();
    let handles = futures::stream::iter(0..count)
        .map(|number| {
            let (spoke, stop) = (cluster.admin(), stop.clone());
            async move {
                let name = name_of(number);
                fleetpass_hub::join::join(admin, &name).await?;
                let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &name);
                let request = TokenRequest::default();
                let account = fleetpass_hub::join::AGENT_SERVICE_ACCOUNT;
                let token = accounts.create_token_request(account, &PostParams::default(), &request).await?;
                let token = token.status.and_then(|status| status.token).context("no token for an agent")?;
                // As `fleetpass agent` has it, and each with connections of its own, as it is with processes.
                let hub = fleetpass_cli::transport::connect(hub.endpoint().config(&token).await?)?;
                let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}}))?;
                Api::all(spoke.clone()).create(&PostParams::default(), &namespace).await?;
                let mut options = Options::new(&name, clock::system());
                options.agent_namespace = name;
                options.ca = CaSource::Pem(AUTHORITY.into());
                options.lease = true;
                let (agent, handle) = Agent::new(hub, spoke, options)?;
                tokio::spawn(agent.run(stop));
                anyhow::Ok(handle)
            }
        })
        .buffer_unordered(PARALLEL)
        .try_collect()
        .await?;
    Ok(Agents { handles, _stop: stop.drop_guard() })
}

/// As long as an authority's certificate usually is; nobody reads it.
const AUTHORITY: &str = include_str!("authority.pem");

async fn create(admin: &Client, cluster: String, name: String) -> Result<()> {
    let account: ManagedServiceAccount =
        serde_json::from_value(json!({"metadata": {"name": name}, "spec": {"rotation": {}}}))?;
    Api::namespaced(admin.clone(), &cluster).create(&PostParams::default(), &account).await?;
    Ok(())
}

async fn wait(what: &str, condition: impl AsyncFn() -> bool) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        ensure!(Instant::now() < deadline, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

/// Single accounts, one after the other at a steady rate, spread over the clusters.
async fn singles(admin: &Client, seen: &Seen, clusters: usize, count: usize) -> Result<Vec<f64>> {
    let mut ticks = tokio::time::interval(Duration::from_millis(50));
    let mut began = Vec::new();
    for number in 0..count {
        ticks.tick().await;
        let (cluster, name) = (name_of(number * 37 % clusters), format!("single-{number}"));
        began.push((format!("{cluster}/{name}"), Instant::now()));
        create(admin, cluster, name).await?;
    }
    wait("single accounts have tokens", async || began.iter().all(|(name, _)| seen.at(name).is_some()))
        .await?;
    let mut latencies: Vec<f64> = began
        .iter()
        .filter_map(|(name, at)| Some(seen.at(name)?.duration_since(*at).as_secs_f64() * 1e3))
        .collect();
    latencies.sort_by(f64::total_cmp);
    Ok(latencies)
}

/// When each Secret of the fleet was first seen by a watcher of all namespaces.
struct Seen {
    times: Arc<Mutex<HashMap<String, Instant>>>,
    _stop: DropGuard,
}

impl Seen {
    fn start(client: Client) -> Self {
        let times: Arc<Mutex<HashMap<String, Instant>>> = Arc::default();
        let stop = CancellationToken::new();
        let (kept, over) = (times.clone(), stop.clone());
        let labels = format!("{}={}", names::LABEL_IS_MANAGED, names::LABEL_IS_MANAGED_VALUE);
        let secrets = Api::<PartialObjectMeta<Secret>>::all(client);
        tokio::spawn(over.run_until_cancelled_owned(async move {
            let mut events = std::pin::pin!(watcher(secrets, watcher::Config::default().labels(&labels)));
            while let Some(event) = events.next().await {
                let Ok(watcher::Event::Apply(secret) | watcher::Event::InitApply(secret)) = event else {
                    continue;
                };
                let metadata = secret.metadata;
                let name = format!(
                    "{}/{}",
                    metadata.namespace.unwrap_or_default(),
                    metadata.name.unwrap_or_default()
                );
                let mut times = kept.lock().unwrap_or_else(PoisonError::into_inner);
                times.entry(name).or_insert_with(Instant::now);
            }
        }));
        Self { times, _stop: stop.drop_guard() }
    }

    fn count(&self) -> usize {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn at(&self, name: &str) -> Option<Instant> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied()
    }
}
