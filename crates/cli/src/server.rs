//! How API server and controllers are started, and with what: no other file here knows how to.

use crate::process_metrics;
use crate::settings::{HubRole, Role};
use anyhow::Context as _;
use fleetpass_api::clock::SharedClock;
use fleetpass_api::definition::account_definition;
use fleetpass_apimachinery::user::{ALL_AUTHENTICATED, SYSTEM_MASTERS, UserInfo};
use fleetpass_apiserver::audit::Log;
use fleetpass_apiserver::{ApiServer, ConnectionLimits, Options, RequestLimits};
use fleetpass_auth::authn::ServiceAccounts;
use fleetpass_auth::authn::TokenFile;
use fleetpass_controllers::leader::{self, Election, Identity, Standing};
use fleetpass_controllers::{CertificateAuthority, TokenIssuer};
use fleetpass_hub::manager::Manager;
use fleetpass_hub::{join, roles};
use fleetpass_store::Store;
use fleetpass_token::claims::{LegacyClaims, Lifetimes};
use fleetpass_token::ring::KeyRing;
use secrecy::SecretString;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// How tokens are issued and checked, and by whom requests may be made.
pub(crate) struct TokenOptions {
    /// The keys of service-account tokens.
    pub(crate) ring: KeyRing,
    /// The issuers: the first issues, all are accepted.
    pub(crate) issuers: Vec<String>,
    /// The audiences of the API.
    pub(crate) api_audiences: Vec<String>,
    /// The longest lifetime of a token, if it is limited.
    pub(crate) max_expiration: Option<Duration>,
    /// Static bearer tokens.
    pub(crate) users: TokenFile,
}

/// How requests are answered.
pub(crate) struct RequestOptions {
    /// `host:port`, for the documents that lead verifiers of the server's tokens to its keys.
    pub(crate) external_address: String,
    /// Where the server says who did what.
    pub(crate) audit: Option<Log>,
    /// How much it does at once, and for how long.
    pub(crate) limits: RequestLimits,
    /// How many connections it has at once.
    pub(crate) connections: ConnectionLimits,
}

/// What the controllers are for, and what they work with.
pub(crate) struct ControllerOptions {
    /// Those of a hub look after ManagedServiceAccounts as well.
    pub(crate) role: Role,
    /// The certificates (PEM) that the server's clients trust.
    pub(crate) trust: String,
    /// It issues client certificates for CertificateSigningRequests.
    pub(crate) authority: CertificateAuthority,
    /// The name of this process if there are replicas, of which one leads; without it the controllers work at once.
    pub(crate) elected: Option<String>,
}

/// A running API server without its listener.
pub(crate) struct Server(ApiServer);

impl Server {
    /// Starts an API server on a store.
    ///
    /// # Errors
    ///
    /// What is in the store cannot be served, or the options make no sense.
    pub(crate) async fn start(
        role: Role,
        store: Arc<dyn Store>,
        clock: SharedClock,
        tokens: TokenOptions,
        requests: RequestOptions,
        stop: CancellationToken,
    ) -> anyhow::Result<Self> {
        // Before anything is read: half of a fleet's objects would look like a fleet, and garbage collection would begin.
        fleetpass_store::migrate::refuse_unfinished(&*store).await?;
        let crds = match role {
            Role::Hub(hub) => vec![account_definition(hub.max_validity)?],
            Role::Cluster => Vec::new(),
        };
        let options = Options {
            store,
            clock,
            key_ring: tokens.ring,
            issuers: tokens.issuers,
            api_audiences: tokens.api_audiences,
            lifetimes: Lifetimes {
                max_seconds: tokens
                    .max_expiration
                    .map(|max| i64::try_from(max.as_secs()).unwrap_or(i64::MAX)),
                ..Lifetimes::default()
            },
            token_users: tokens.users,
            external_address: requests.external_address,
            jwks_uri: None,
            crds,
            audit: requests.audit,
            limits: requests.limits,
            connections: requests.connections,
        };
        ApiServer::start(options, stop).await.map(Self).context("the API server cannot start")
    }

    /// A client without a socket, to whom everything is allowed: kube-apiserver's loopback user
    /// (`user.APIServerUser` in k8s.io/apiserver).
    pub(crate) fn client(&self) -> kube::Client {
        let user = UserInfo {
            name: "system:apiserver".into(),
            groups: vec![SYSTEM_MASTERS.into(), ALL_AUTHENTICATED.into()],
            ..UserInfo::default()
        };
        kube::Client::new(self.0.client_service(user), "default")
    }

    /// Lets the server be ready only when ClusterRoles that are made of others have their rules: a user of `view`, `edit` or
    /// `admin` would be refused by a new one. Whichever replica's controllers do it.
    pub(crate) fn ready_when_roles_are_aggregated(&self, stop: CancellationToken) {
        const NAME: &str = "aggregated-roles";
        let (server, client) = (self.0.clone(), self.client());
        server.await_for_ready(NAME);
        tokio::spawn(async move {
            // Looked at, not watched: it is a moment after the start.
            while !matches!(fleetpass_controllers::roles_are_aggregated(&client).await, Ok(true)) {
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(50)) => {}
                    () = stop.cancelled() => return,
                }
            }
            server.has_come(NAME);
        });
    }

    /// Serves the listener until the server is stopped.
    pub(crate) fn serve(
        &self,
        listener: TcpListener,
        tls: Arc<rustls::ServerConfig>,
    ) -> impl Future<Output = ()> + Send + 'static {
        let server = self.0.clone();
        async move { server.serve(listener, tls).await }
    }

    /// Waits until the audit log is written.
    pub(crate) async fn flush_audit_log(&self) {
        self.0.flush_audit_log().await;
    }

    /// Starts the controllers.
    pub(crate) fn start_controllers(
        &self,
        given: ControllerOptions,
        clock: &SharedClock,
        stop: &CancellationToken,
    ) -> JoinSet<()> {
        let mut tasks = JoinSet::new();
        let mut options = fleetpass_controllers::Options::default();
        options.root_ca = Some(given.trust);
        // Not through the API: a TokenRequest cannot ask for the tokens without end that Secrets hold.
        options.token_issuer =
            Some(Arc::new(Issuer { accounts: self.0.accounts().clone(), clock: clock.clone() }));
        options.client_authority = Some(Arc::new(given.authority));
        let election = |lease: &str| {
            let candidate = given.elected.clone()?;
            Some(Identity { namespace: "kube-system".into(), lease: lease.into(), candidate })
        };
        // Two Leases: one for the controllers, which hold it themselves, and one for what only a hub does.
        options.leader_election = election("fleetpass-controllers");
        let controllers = fleetpass_controllers::run(self.client(), options, clock.clone(), stop.clone());
        tasks.spawn(async move {
            if let Err(error) = controllers.await {
                tracing::error!(%error, "the controllers have ended");
            }
        });
        if let Role::Hub(HubRole { features, .. }) = given.role {
            let manager = Manager::new(HUB_ELECTION, clock.clone(), features).without_orphans();
            let manager = Arc::new(manager);
            let (client, shown) = (self.client(), manager.clone());
            self.0.add_metrics(move || process_metrics::with_process(&shown.metrics(), ""));
            let term = move |ends| hub_term(client.clone(), manager.clone(), ends);
            match election(HUB_ELECTION) {
                None => tasks.spawn(term(stop.clone())),
                Some(identity) => {
                    let (client, clock, stop) = (self.client(), clock.clone(), stop.clone());
                    let election =
                        Election { field_manager: "fleetpass-hub".into(), ..Election::from(identity) };
                    let standing = watch::Sender::new(Standing::Unknown);
                    tasks.spawn(leader::run(client, clock, election, standing, stop, term))
                }
            };
        }
        tasks
    }
}

/// The election of the replica that does what only a hub does.
const HUB_ELECTION: &str = "fleetpass-accounts";

/// What only a hub does, until `ends`.
async fn hub_term(client: kube::Client, manager: Arc<Manager>, ends: CancellationToken) {
    tokio::join!(grant(&client, &ends), manager.term(client.clone(), ends.clone()));
}

/// Gives agents the right to renew their certificates, and people with `view`, `edit` or `admin` theirs to accounts, as a
/// server gives its bootstrap roles: at every start.
async fn grant(client: &kube::Client, ends: &CancellationToken) {
    const RETRY: Duration = Duration::from_secs(5);
    let manifests = [join::renewal_manifests(), roles::account_roles()].concat();
    while let Err(error) = join::ensure(client, &manifests).await {
        tracing::warn!(%error, "agents and people cannot be given their rights; trying again");
        tokio::select! {
            () = tokio::time::sleep(RETRY) => {}
            () = ends.cancelled() => return,
        }
    }
}

/// Issues the tokens that live in Secrets, with the key that signs all tokens of the server.
struct Issuer {
    accounts: Arc<ServiceAccounts>,
    clock: SharedClock,
}

impl TokenIssuer for Issuer {
    fn issue(&self, claims: &LegacyClaims) -> Result<SecretString, Box<dyn std::error::Error + Send + Sync>> {
        let ring = self.accounts.ring();
        let signer = ring.signer(self.clock.now()).ok_or("no key signs tokens now")?;
        Ok(signer.sign(claims)?)
    }
}
