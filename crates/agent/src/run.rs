//! The agent as a service: its options, its loop, and a handle on it.

use crate::{
    ca::{CaBundle, CaSource},
    calls::Calls,
    claim::{Claim, Keeper},
    decide::Policy,
    events::Events,
    health::Health,
    identity::Identity,
    lease,
    marking::Marking,
    metrics::Metrics,
    news::{self, End, Failed, Name, News, Outcome},
    observe::Memory,
    reconcile::Context,
    side::{Kind, Side, peer::Peer},
    watch::{Signal, watch},
};
use fleetpass_api::{GoDuration, ManagedServiceAccount, clock::SharedClock, names};
use fleetpass_workqueue::{Next, Queue, queue};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::{Client, Resource};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

/// What an agent is told.
#[derive(Clone)]
pub struct Options {
    /// Name of the cluster: its namespace on the hub (`--cluster-name`).
    pub cluster: String,
    /// Namespace on the cluster in which the ServiceAccounts live (environment `NAMESPACE`).
    pub agent_namespace: String,
    /// Where the CA bundle of the cluster comes from.
    pub ca: CaSource,
    /// Audiences to request; empty for the cluster's default.
    pub audiences: Vec<String>,
    /// The longest validity that an account may ask for (`--max-validity`); none: whatever the cluster grants.
    pub max_validity: Option<GoDuration>,
    /// How often the cluster is asked whether a token is still good. At least a second.
    pub review_interval: Duration,
    /// How many accounts are worked on at the same time: it bounds the requests that wait at either side.
    pub concurrency: usize,
    /// How long a request may take. A reconcile makes a bounded number of them, so it has no limit of its own.
    pub request_timeout: Duration,
    /// How long a shutdown waits for reconciles under way.
    pub shutdown_grace: Duration,
    /// Whether to renew a Lease in the agent's namespace (`--lease-health-check`).
    pub lease: bool,
    /// How long the Lease on the hub lasts that names the cluster; renewed three times in that time. At least 3 seconds.
    pub hub_lease: Duration,
    /// The time.
    pub clock: SharedClock,
}

impl Options {
    /// The defaults for a cluster, whose CA is in the ConfigMap `kube-root-ca.crt`.
    pub fn new(cluster: impl Into<String>, clock: SharedClock) -> Self {
        Self {
            cluster: cluster.into(),
            agent_namespace: names::DEFAULT_AGENT_NAMESPACE.to_owned(),
            ca: CaSource::ConfigMap,
            audiences: Vec::new(),
            max_validity: None,
            review_interval: Duration::from_secs(10 * 60),
            concurrency: 128,
            request_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(10),
            lease: false,
            hub_lease: Duration::from_secs(60),
            clock,
        }
    }
}

/// Why an agent does not start.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// An option has no sense.
    #[error("{option} {problem}")]
    Option {
        /// Which, in the words of [`Options`].
        option: &'static str,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// The agent of one cluster, ready to run. A clone is the same agent: one at a time may run.
#[derive(Clone)]
pub struct Agent {
    context: Arc<Context>,
    health: Arc<Health>,
    options: Options,
}

/// A view of a running agent. Cheap to clone; stays usable after the agent ended.
#[derive(Clone)]
pub struct Handle {
    cluster: Arc<str>,
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    claim: Arc<Claim>,
}

impl Handle {
    /// Whether another cluster works under the name of this one, so that this agent has stopped working on accounts.
    pub fn is_name_in_use(&self) -> bool {
        self.claim.is_in_use()
    }

    /// Which sides answer, and whether all objects were seen.
    pub fn health(&self) -> &Health {
        &self.health
    }

    #[cfg(test)]
    pub(crate) async fn claim_confirms(&self) -> bool {
        self.claim.confirm().await
    }

    #[cfg(test)]
    pub(crate) fn claim_allows_work(&self) -> bool {
        self.claim.allows_work()
    }

    /// Tells when the agent's own credential for a side ends, for its metrics; `None` if that is not known. Whoever made the
    /// clients knows it. A warning is shown by `/readyz`.
    pub fn credential_ends(&self, side: Side, ends: Option<jiff::Timestamp>, warning: Option<String>) {
        self.metrics.credential_ends(side, ends);
        self.health.remark(side, warning);
    }

    /// The name of the cluster, which all metrics have as label.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The agent's metrics as OpenMetrics text.
    pub fn metrics(&self) -> String {
        self.metrics.text()
    }
}

/// The longest interval that makes a difference: no token that is worth a review lives longer.
const YEAR: u64 = 366 * 24 * 3600;
/// How many signals may wait; more, and the watches wait, and with them, by flow control, the servers.
const SIGNALS: usize = 1_024;

impl Agent {
    /// An agent between `hub` and `spoke` (the cluster). Sends nothing before [`Agent::run`].
    pub fn new(hub: Client, spoke: Client, options: Options) -> Result<(Self, Handle), Error> {
        let refuse = |option, problem| Err(Error::Option { option, problem });
        if options.cluster.is_empty() {
            return refuse("cluster", "is missing");
        }
        if options.agent_namespace.is_empty() {
            return refuse("agent_namespace", "is missing");
        }
        if options.concurrency == 0 {
            return refuse("concurrency", "must be at least 1");
        }
        if options.review_interval < Duration::from_secs(1) {
            return refuse("review_interval", "must be at least 1s");
        }
        if options.hub_lease < Duration::from_secs(3) {
            return refuse("hub_lease", "must be at least 3s");
        }
        // Of a file or a ConfigMap it is found out later, and said in the status: they may come to be.
        if options.ca == CaSource::Pem(Vec::new()) {
            return refuse("ca", "is empty");
        }
        let health = Arc::new(Health::default());
        let claim = Arc::new(Claim::new(options.hub_lease));
        let metrics =
            Arc::new(Metrics::new(&options.cluster, options.clock.clone(), health.clone(), claim.clone()));
        let peer = |side, client| Arc::new(Peer::new(side, client, options.request_timeout, health.clone()));
        let context = Arc::new(Context {
            calls: Calls {
                hub: peer(Side::Hub, hub),
                spoke: peer(Side::Cluster, spoke),
                cluster: options.cluster.clone(),
                agent_namespace: options.agent_namespace.clone(),
            },
            policy: Policy {
                cluster: options.cluster.clone(),
                agent_namespace: options.agent_namespace.clone(),
                audiences: options.audiences.clone(),
                longest_validity: options.max_validity.map(|limit| limit.as_secs()),
                review_seconds: options.review_interval.as_secs().min(YEAR) as i64,
                // Few objects are ever in the way; a look costs four reads.
                obstacle_seconds: 30,
            },
            ca: CaBundle::new(options.ca.clone()),
            hub: Identity::of(Side::Hub),
            marking: Marking::default(),
            claim: claim.clone(),
            clock: options.clock.clone(),
            metrics: metrics.clone(),
            events: Arc::new(Events::new(&options.cluster, options.clock.clone())),
        });
        let handle =
            Handle { cluster: options.cluster.as_str().into(), metrics, health: health.clone(), claim };
        Ok((Self { context, health, options }, handle))
    }

    /// Works until shut down; reconciles under way then have [`Options::shutdown_grace`] to end.
    pub async fn run(self, shutdown: CancellationToken) {
        let (queue, backlog) = queue(news::BACKOFF);
        let dispatcher = Dispatcher { news: Mutex::default(), queue };
        tracing::info!(cluster = self.options.cluster, "agent started");
        let options = fleetpass_workqueue::Options {
            jitter: news::jitter,
            grace: self.options.shutdown_grace,
            ..fleetpass_workqueue::Options::workers(self.options.concurrency)
        };
        let reconcile = |name| dispatcher.reconcile(name, self.context.clone());
        // A reconcile has told of its failure itself, with more than the queue knows.
        let work = backlog.work(options, shutdown.clone(), reconcile, |_, _| ());
        // Both end with the shutdown. What happens during the grace is not listened to: the lists of the next start
        // tell it again.
        let (unfinished, ()) = tokio::join!(work, self.listen(&dispatcher, shutdown));
        if unfinished > 0 {
            tracing::warn!("some accounts were still being worked on at the end of the shutdown's grace");
        }
        tracing::info!(cluster = self.options.cluster, "agent stopped");
    }

    /// Puts into the queue whoever something happened to, until shut down. The watches end with it.
    async fn listen(&self, dispatcher: &Dispatcher, shutdown: CancellationToken) {
        // Dropping the set aborts its tasks: they only read, but for the Lease, whose renewal is a single write.
        let mut helpers = JoinSet::new();
        let mut signals = self.start_watches(&mut helpers);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some(signal) = signals.recv() => dispatcher.accept(signal),
                () = self.health.recovered.notified() => dispatcher.queue.hurry(),
            }
        }
    }

    #[cfg(test)]
    pub(crate) fn context(&self) -> Arc<Context> {
        self.context.clone()
    }

    /// Starts everything that runs beside the work, as tasks of `helpers`; gives what the watches tell.
    fn start_watches(&self, helpers: &mut JoinSet<()>) -> mpsc::Receiver<Signal> {
        let (send, receive) = mpsc::channel(SIGNALS);
        let Calls { hub, spoke, cluster, agent_namespace } = &self.context.calls;
        let accounts = ManagedServiceAccount::url_path(&(), Some(cluster));
        helpers.spawn(watch(hub.clone(), accounts, Kind::Account, send.clone()));
        let secrets = Secret::url_path(&(), Some(cluster));
        helpers.spawn(watch(hub.clone(), secrets, Kind::Secret, send.clone()));
        let services = ServiceAccount::url_path(&(), Some(agent_namespace));
        helpers.spawn(watch(spoke.clone(), services, Kind::ServiceAccount, send));
        let clock = || self.options.clock.clone();
        let context = self.context.clone();
        let keeper = Keeper::new(context.claim.clone(), self.health.clone(), clock());
        helpers.spawn(async move { keeper.keep(&context.calls).await });
        let (events, client) = (self.context.events.clone(), hub.client());
        helpers.spawn(async move { events.post(client).await });
        if self.options.lease {
            let (health, claim) = (self.health.clone(), self.context.claim.clone());
            helpers.spawn(lease::keep(spoke.client(), agent_namespace.clone(), clock(), health, claim));
        }
        receive
    }
}

/// Tells the work queue which accounts have news, and the news how their reconciles ended.
///
/// The two have a lock each and are never locked together: `news` is let go before the queue is touched. A change
/// between the two is no danger, because an addition to the queue is never lost and one too many costs a few reads.
struct Dispatcher {
    /// A std mutex: it is held for one operation of the news, never across an `await`. The longest is a list, which
    /// goes through all names once.
    news: Mutex<News>,
    queue: Queue<Name>,
}

impl Dispatcher {
    /// A panic in an operation of the news leaves at worst an account that is looked at once too often.
    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn accept(&self, signal: Signal) {
        match signal {
            Signal::Changed(name, kind, change) => {
                if self.news().notify(&name, kind, change) {
                    self.queue.add(name);
                }
            }
            // The objects of the list came before it, one by one: this is about those that it lacks.
            Signal::Listed(kind, names) => {
                self.news().listed(kind, &names).into_iter().for_each(|name| self.queue.add(name));
            }
            Signal::Rewound(side) => {
                tracing::warn!(
                    side = side.as_str(),
                    "its revisions went back, as when an older backup is put in place: looking at all accounts anew"
                );
                self.news().rewound().into_iter().for_each(|name| self.queue.add(name));
            }
        }
    }

    /// One reconcile of one account. It is a task: accounts are worked on by all threads, and one whose reconcile
    /// panics has failed and is tried again, as if the agent had just started.
    ///
    /// Cancel safety: when this is dropped, at the end of the shutdown's grace, the reconcile is aborted at its next
    /// `await`. The request that is under way then may or may not be carried out; that is the crash that `decide` has
    /// an answer to.
    async fn reconcile(&self, name: Name, context: Arc<Context>) -> Result<Next, Failed> {
        // Begun before anything is read: a change from here on is kept as news until the end, because the reconcile may
        // have looked before it.
        let mut memory = self.news().begin(&name);
        let account = name.clone();
        let task = AbortOnDropHandle::new(tokio::spawn(async move {
            let outcome = context.reconcile(&account, &mut memory).await;
            (memory, outcome)
        }));
        let (memory, outcome) = task.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a reconcile ended in a panic");
            (Box::<Memory>::default(), Outcome::Failed { versions: None })
        });
        let End { result, again } = self.news().end(&name, memory, outcome);
        if again {
            // It is still running for the queue, which lets it come again afterwards.
            self.queue.add(name);
        }
        result
    }
}
