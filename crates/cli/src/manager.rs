//! `fleetpass manager`: the hub's controllers on any Kubernetes.

use crate::args::ManagerArgs;
use crate::clients::{Loaded, Program, Source};
use crate::endpoints::listen;
use crate::net;
use crate::process_metrics;
use crate::signals::stop_on_signal;
use anyhow::Context as _;
use fleetpass_agent::{Endpoint, Observed, serve};
use fleetpass_api::clock::{self, SharedClock};
use fleetpass_controllers::Identity;
use fleetpass_controllers::leader::{self, Election, Standing, Timing};
use fleetpass_hub::manager::Manager;
use fleetpass_hub::manifests::MANAGER;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

const PROGRAM: Program =
    Program { name: concat!("fleetpass-manager/", env!("CARGO_PKG_VERSION")), retries: true };

/// Runs the manager until a signal.
///
/// # Errors
///
/// The kubeconfig or an address cannot be used, or the times of the election contradict each other.
pub(crate) async fn run(args: ManagerArgs) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    args.klog.tell();
    args.upstream.tell();
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let source = Source::controller(args.kubeconfig.clone(), std::env::var_os("KUBECONFIG"), pod, home)
        .context("the hub is not known: give its kubeconfig with --kubeconfig")?;
    let hub = source.load_as(PROGRAM).await.context("the hub cannot be reached")?;
    let election = args.leader_elect.then(|| election(&args, &hub)).transpose()?;
    let endpoints = [
        (Endpoint::Metrics, "--metrics-bind-address", args.metrics_bind_address),
        (Endpoint::Probes, "--health-probe-bind-address", args.health_probe_bind_address),
    ];
    // Bound once: other than an agent, the manager serves the same view through all its lives.
    let listeners = listen(&endpoints).await?;
    let clock = clock::system();
    let service = Service {
        manager: Arc::new(Manager::new(&args.leader_elect_resource_name, clock.clone(), args.feature_gates)),
        standing: watch::Sender::new(Standing::Unknown),
        election,
        clock,
    };
    // What the probes say outlives the work, not the other way round.
    let end = CancellationToken::new();
    let mut servers = JoinSet::new();
    for (endpoint, listener) in listeners {
        servers.spawn(serve(listener, endpoint, service.view(), end.clone()));
    }
    let result = service.work(&source, hub, &stop).await;
    end.cancel();
    while servers.join_next().await.is_some() {}
    tracing::info!("manager stopped");
    result
}

/// The election as the flags have it.
fn election(args: &ManagerArgs, hub: &Loaded) -> anyhow::Result<Election> {
    let timing = Timing::new(
        args.leader_elect_lease_duration,
        args.leader_elect_renew_deadline,
        args.leader_elect_retry_period,
    )
    .context("--leader-elect-lease-duration, --leader-elect-renew-deadline, --leader-elect-retry-period")?;
    let identity = Identity {
        namespace: args
            .leader_elect_resource_namespace
            .clone()
            .unwrap_or_else(|| hub.config.default_namespace.clone()),
        lease: args.leader_elect_resource_name.clone(),
        candidate: net::candidate()?,
    };
    Ok(Election { identity, timing, field_manager: MANAGER.to_owned() })
}

/// The manager as a service.
struct Service {
    manager: Arc<Manager>,
    standing: watch::Sender<Standing>,
    /// None: it works without asking anybody.
    election: Option<Election>,
    clock: SharedClock,
}

impl Service {
    fn view(&self) -> View {
        View { manager: self.manager.clone(), standing: self.standing.subscribe() }
    }

    /// Works until stopped. When the kubeconfig, or a file that it names, changes, it goes on with it, and begins anew if that
    /// is another hub; if it cannot be used, it goes on with what it has.
    async fn work(&self, source: &Source, mut hub: Loaded, stop: &CancellationToken) -> anyhow::Result<()> {
        loop {
            let end = stop.child_token();
            let mut life = std::pin::pin!(self.live(hub.client(), end.clone()));
            let next = loop {
                let mut next = tokio::select! {
                    () = &mut life => return Ok(()),
                    next = hub.next(source, PROGRAM) => next,
                };
                if !next.same_server(&hub) {
                    break next;
                }
                tracing::info!("the kubeconfig changed: going on with it");
                next.take_over(&hub);
                hub = next;
            };
            tracing::info!("the kubeconfig changed: beginning anew with it");
            // Waited for: the Lease is given back, or the next life would have to wait until it runs out.
            end.cancel();
            life.await;
            hub = next;
        }
    }

    /// Takes part in the election until the end.
    async fn live(&self, client: kube::Client, end: CancellationToken) {
        let term = |ends| self.manager.term(client.clone(), ends);
        match &self.election {
            Some(election) => {
                let (clock, standing) = (self.clock.clone(), self.standing.clone());
                leader::run(client.clone(), clock, election.clone(), standing, end, term).await;
            }
            None => {
                self.standing.send_replace(Standing::Leading);
                term(end).await;
            }
        }
    }
}

/// What scrapers and probes see.
#[derive(Clone)]
struct View {
    manager: Arc<Manager>,
    standing: watch::Receiver<Standing>,
}

impl Observed for View {
    fn metrics(&self) -> String {
        process_metrics::with_process(&self.manager.metrics(), "")
    }

    fn awaits(&self) -> Option<String> {
        match *self.standing.borrow() {
            Standing::Unknown => Some("the hub did not answer yet".to_owned()),
            // A manager that waits for its turn is ready: a Deployment of several would never be complete otherwise.
            Standing::Waiting | Standing::Leading => None,
        }
    }

    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }
}
