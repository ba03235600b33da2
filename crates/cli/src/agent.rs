//! `fleetpass agent`, and the agents of `fleetpass up`.

use crate::args::{AgentArgs, EndpointAddress};
use crate::clients::{AGENT, Loaded, Source};
use crate::endpoints::listen;
use crate::net;
use crate::process_metrics;
use crate::renewal::{self, Renewer, SecretRef, Watched};
use crate::signals::stop_on_signal;
use anyhow::Context as _;
use fleetpass_agent::{Agent, Endpoint, Handle, Observed, Options, Side, serve};
use fleetpass_api::{clock, names};
use fleetpass_controllers::Identity;
use fleetpass_controllers::leader::{self, Election, Standing, Timing};
use fleetpass_hub::{Counter, Scope, ttl};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How long to wait for an address that the agent's former life may still hold.
const REBIND: Duration = Duration::from_millis(100);

/// An agent, and where it finds its two sides.
pub(crate) struct AgentJob {
    /// The hub.
    pub(crate) hub: Source,
    /// The cluster.
    pub(crate) spoke: Source,
    /// How it works; where the cluster's CA bundle comes from is found in `spoke`.
    pub(crate) options: Options,
    /// Whether it deletes accounts on the hub whose time is over, as the upstream addon's agent does.
    pub(crate) ephemeral_identity: bool,
    /// The Secret on the cluster that the files of the hub's kubeconfig come from, if that is so.
    pub(crate) hub_secret: Option<String>,
    /// What it serves, the flag that says where, and where.
    pub(crate) endpoints: Vec<(Endpoint, &'static str, EndpointAddress)>,
    /// Of several agents of the cluster the one works that holds this Lease on the cluster. None: this is the only one.
    pub(crate) election: Option<Election>,
}

/// Runs the agent of one cluster until a signal.
///
/// # Errors
///
/// A kubeconfig or an address cannot be used.
pub(crate) async fn run(args: AgentArgs) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    let hub = Source::kubectl(args.kubeconfig, std::env::var_os("KUBECONFIG"), home)
        .context("the hub is not known: give its kubeconfig with --kubeconfig")?;
    let spoke = args.spoke_kubeconfig.map_or(Source::InCluster, |path| Source::Files(vec![path]));
    let mut options = Options::new(args.cluster_name, clock::system());
    options.agent_namespace = match args.namespace.filter(|namespace| !namespace.is_empty()) {
        Some(namespace) => namespace,
        // In a pod its namespace, which is where its rights are.
        None if spoke == Source::InCluster => spoke.load().await?.config.default_namespace,
        None => names::DEFAULT_AGENT_NAMESPACE.to_owned(),
    };
    options.lease = args.lease_health_check;
    options.max_validity = args.max_validity;
    let endpoints = vec![
        (Endpoint::Metrics, "--metrics-bind-address", args.metrics_bind_address),
        (Endpoint::Probes, "--health-probe-bind-address", args.health_probe_bind_address),
        (Endpoint::Probes, "--liveness-bind-address", args.liveness_bind_address),
    ];
    let election = args.leader_elect.then(|| election(&options.agent_namespace)).transpose()?;
    let ephemeral_identity = args.feature_gates.ephemeral_identity;
    let hub_secret = args.hub_kubeconfig_secret;
    AgentJob { hub, spoke, options, ephemeral_identity, hub_secret, endpoints, election }.run(stop).await
}

/// The election among the agents of a cluster: by the upstream agent's Lease (`LeaderElectionID` in its `cmd/agent/agent.go`),
/// so that the two wait for each other too, and with the times of controller-runtime.
fn election(namespace: &str) -> anyhow::Result<Election> {
    let identity = Identity {
        namespace: namespace.to_owned(),
        lease: names::AGENT_ELECTION_LEASE.to_owned(),
        candidate: net::candidate()?,
    };
    Ok(Election { identity, timing: Timing::default(), field_manager: "fleetpass-agent".to_owned() })
}

impl AgentJob {
    /// Works until stopped. When a kubeconfig, or a certificate that it names, changes, the agent goes on with it, and begins
    /// anew if that is about another server; if it cannot be used, the agent goes on with what it has.
    ///
    /// # Errors
    ///
    /// A kubeconfig or an address cannot be used, or the options make no sense.
    pub(crate) async fn run(self, stop: CancellationToken) -> anyhow::Result<()> {
        // The listeners are taken before the first life, so that a port that is taken is an error of the start. A later life
        // binds anew: a listener belongs to the servers of one life, and ends with them.
        let mut sides = Some(self.load().await?);
        let mut listeners = Some(listen(&self.endpoints).await?);
        while let Some((hub, spoke)) = sides.take() {
            let listeners = match listeners.take() {
                Some(listeners) => listeners,
                None => self.listen_again(&stop).await,
            };
            sides = self.live(hub, spoke, listeners, &stop).await?;
        }
        Ok(())
    }

    async fn load(&self) -> anyhow::Result<(Loaded, Loaded)> {
        renewal::recover(&self.hub).await;
        let hub = self.hub.load().await.context("the hub cannot be reached")?;
        let spoke = self.spoke.load().await.context("the cluster cannot be reached")?;
        Ok((hub, spoke))
    }

    async fn listen_again(&self, stop: &CancellationToken) -> Vec<(Endpoint, TcpListener)> {
        loop {
            match listen(&self.endpoints).await {
                Ok(listeners) => return listeners,
                // The next life is told to stop at once; it needs no listeners for that.
                Err(_) if stop.is_cancelled() => return Vec::new(),
                Err(error) => {
                    tracing::warn!("{error:#}");
                    tokio::time::sleep(REBIND).await;
                }
            }
        }
    }

    /// One life of the agent; what the next one begins with, if there is one.
    async fn live(
        &self,
        mut hub: Loaded,
        mut spoke: Loaded,
        listeners: Vec<(Endpoint, TcpListener)>,
        stop: &CancellationToken,
    ) -> anyhow::Result<Option<(Loaded, Loaded)>> {
        let options = Options { ca: spoke.ca.clone(), ..self.options.clone() };
        let (agent, handle) =
            Agent::new(hub.client(), spoke.client(), options).context("the agent cannot start")?;
        let standing = watch::Sender::new(Standing::Unknown);
        let turn = self.election.is_some().then(|| standing.subscribe());
        let view = View { handle: handle.clone(), turn };
        // An agent that ends lets the probes end too, not the other way round.
        let end = stop.child_token();
        let mut helpers = JoinSet::new();
        for (endpoint, listener) in listeners {
            helpers.spawn(serve(listener, endpoint, view.clone(), end.clone()));
        }
        let (watched, renewer) = self.credentials(&spoke, &handle);
        for watched in watched {
            helpers.spawn(watched.run(end.clone()));
        }
        helpers.spawn(renewer.run(end.clone()));
        let (on_hub, on_cluster) = (hub.client(), spoke.client());
        let term = |ends: CancellationToken| self.term(agent.clone(), on_hub.clone(), ends);
        // The agent is never dropped while it works: it is told to stop and waited for, so that no step is cut off in the
        // middle. Dropping `next` loses nothing, as it only reads.
        let mut running = std::pin::pin!(async {
            match &self.election {
                Some(election) => {
                    let clock = self.options.clock.clone();
                    leader::run(on_cluster, clock, election.clone(), standing, end.clone(), term).await;
                }
                None => term(end.clone()).await,
            }
        });
        let next = loop {
            let (next, side) = tokio::select! {
                () = &mut running => break None,
                next = hub.next(&self.hub, AGENT) => (next, Side::Hub),
                next = spoke.next(&self.spoke, AGENT) => (next, Side::Cluster),
            };
            let former = if side == Side::Hub { &mut hub } else { &mut spoke };
            // Of another server nothing is known, another authority of the cluster has to get into all Secrets; and an agent
            // that waits because a side refuses it must not wait on.
            let same = next.same_server(former) && (side == Side::Hub || next.ca == former.ca);
            let goes_on = same && view.awaits().is_none();
            let next = std::mem::replace(former, next);
            let cluster = &self.options.cluster;
            if goes_on {
                former.take_over(&next);
                tracing::info!(cluster, "the kubeconfig of the {} changed: going on with it", side.as_str());
            } else {
                tracing::info!(
                    cluster,
                    "the kubeconfig of the {} changed: beginning anew with it",
                    side.as_str()
                );
                break Some((hub, spoke));
            }
        };
        end.cancel();
        if next.is_some() {
            running.await;
        }
        while helpers.join_next().await.is_some() {}
        Ok(next)
    }

    /// The work of the agent whose turn it is, until its end.
    async fn term(&self, agent: Agent, hub: kube::Client, end: CancellationToken) {
        let deleting = async {
            if self.ephemeral_identity {
                let scope = Scope::Cluster(self.options.cluster.clone());
                let clock = self.options.clock.clone();
                ttl::run(hub, scope, clock, Counter::default(), end.clone()).await;
            }
        };
        tokio::join!(agent.run(end.clone()), deleting);
    }

    /// Who looks after the agent's own credentials.
    fn credentials(&self, spoke: &Loaded, handle: &Handle) -> ([Watched; 2], Renewer) {
        let watched = |side, source: &Source| {
            Watched::new(side, source.clone(), handle.clone(), self.options.clock.clone())
        };
        let (of_hub, of_cluster) = (watched(Side::Hub, &self.hub), watched(Side::Cluster, &self.spoke));
        let namespace = match self.spoke {
            // The Secret is mounted, so it is in the namespace of the pod.
            Source::InCluster => spoke.config.default_namespace.clone(),
            Source::Files(_) => self.options.agent_namespace.clone(),
        };
        let secret =
            self.hub_secret.clone().map(|name| SecretRef { client: spoke.client(), namespace, name });
        let renewer = Renewer { watched: of_hub.clone(), cluster: self.options.cluster.clone(), secret };
        ([of_hub, of_cluster], renewer)
    }
}

/// What scrapers and probes see of an agent that may have to wait for its turn.
#[derive(Clone)]
struct View {
    handle: Handle,
    /// Whether it is its turn. None: there is no election.
    turn: Option<watch::Receiver<Standing>>,
}

impl Observed for View {
    fn metrics(&self) -> String {
        process_metrics::with_process(&self.handle.metrics(), &format!("cluster={:?}", self.handle.cluster()))
    }

    fn awaits(&self) -> Option<String> {
        match self.turn.as_ref().map(|turn| *turn.borrow()) {
            // Ready, as of all who wait only one is wanted: a Deployment of several would never be complete otherwise.
            Some(Standing::Waiting) => None,
            Some(Standing::Unknown) => Some("the cluster did not answer yet, where the Lease is".to_owned()),
            Some(Standing::Leading) | None => self.handle.awaits(),
        }
    }

    fn remarks(&self) -> Vec<String> {
        self.handle.remarks()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_that_waits_for_its_turn_is_ready_and_one_that_does_not_know_is_not() {
        let silent = || {
            kube::Client::new(
                tower::service_fn(|_: http::Request<kube::client::Body>| {
                    std::future::pending::<Result<http::Response<kube::client::Body>, kube::Error>>()
                }),
                "d",
            )
        };
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let options = Options::new("cluster1", clock::system());
        let (_agent, handle) = Agent::new(silent(), silent(), options).unwrap();
        let standing = watch::Sender::new(Standing::Unknown);
        let view = View { handle: handle.clone(), turn: Some(standing.subscribe()) };
        assert!(view.awaits().is_some_and(|what| what.contains("the cluster did not answer")));
        standing.send_replace(Standing::Waiting);
        assert_eq!(view.awaits(), None);
        standing.send_replace(Standing::Leading);
        assert!(view.awaits().is_some(), "nothing is listed yet");
        assert_eq!(View { handle, turn: None }.awaits(), view.awaits());
    }
}
