//! A control plane from its data directory: store, certificates, keys, API server, controllers.
//!
//! ```text
//! DIRECTORY/
//!   store/          the objects (see fleetpass-store), unless they are on etcd (see the module `storage`)
//!   encryption.key  the keys that seal Secrets in the store
//!   pki/            certificates and signing keys (see the module `pki`)
//! ```
//!
//! ```text
//! Settings ─► OperatorFiles ─► storage::open ─► Credentials ─► Server ─► listener, controllers, renewal
//!             read only        takes the lock   makes what is missing
//! ```
//!
//! What the operator gave is read first, and the store is opened before anything is written: its lock keeps a second
//! process out.

use crate::credentials::Credentials;
use crate::keep::keep_fresh;
use crate::net;
use crate::operator_files::OperatorFiles;
use crate::pki::Authority;
use crate::server::{ControllerOptions, RequestOptions, Server};
use crate::settings::{Settings, Storage};
use crate::storage::{self, Opened};
use anyhow::Context as _;
use fleetpass_api::clock::SharedClock;
use fleetpass_store::Store;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A running control plane.
pub(crate) struct ControlPlane {
    /// Its name.
    pub(crate) name: String,
    /// Its URL, for clients on this machine.
    pub(crate) url: String,
    /// The certificates (PEM) that its clients trust.
    pub(crate) trust: String,
    /// Its certificate authority.
    pub(crate) authority: Arc<Authority>,
    /// Whether its data directory held objects before.
    pub(crate) continued: bool,
    server: Server,
    store: Arc<dyn Store>,
    controllers: JoinSet<()>,
    servers: JoinSet<()>,
    // Two tokens: controllers end first, while the server that they are clients of still answers.
    stop_controllers: CancellationToken,
    stop_server: CancellationToken,
}

/// How long parts that were told to stop may take.
const GRACE: Duration = Duration::from_secs(15);

impl ControlPlane {
    /// Starts everything and serves on the listener.
    ///
    /// # Errors
    ///
    /// A file cannot be used, or the data directory is in use, damaged or of a newer version: the error names the file
    /// and says what to do. What was there has not been changed.
    pub(crate) async fn start(
        settings: Settings,
        listener: TcpListener,
        clock: SharedClock,
    ) -> anyhow::Result<Self> {
        let bound = listener.local_addr().context("the listener has no address")?;
        let given = OperatorFiles::read(&settings, &clock)?;
        let opened = storage::open(&settings).await?;
        let store = opened.store.clone();
        let started = Self::start_on(settings, given, listener, bound, clock, opened).await;
        // Closed here, so that the lock is free when the error is told and a second try does not meet it.
        if started.is_err() {
            store.close().await;
        }
        started
    }

    async fn start_on(
        settings: Settings,
        given: OperatorFiles,
        listener: TcpListener,
        bound: SocketAddr,
        clock: SharedClock,
        opened: Opened,
    ) -> anyhow::Result<Self> {
        let local = net::local(bound);
        let url = format!("https://{local}");
        let audit = given.audit.clone();
        // Files, and perhaps an RSA key to be made, which takes some hundred milliseconds: not on a thread of the runtime.
        let own = {
            let (settings, url, now) = (settings.clone(), url.clone(), clock.now());
            tokio::task::spawn_blocking(move || Credentials::open(&settings, given, bound, url, now))
                .await??
        };
        let now = clock.now();
        let signs = own.tokens.ring.signer(now).map(|key| key.public().id().to_string()).unwrap_or_default();
        // Before anything is served: a replica with other keys would hand out what the others refuse.
        opened.agree(&own.authority, &signs, |id| own.tokens.ring.verifies(id, now)).await?;
        // Where verifiers of tokens find our keys. Bound to all addresses, the machine's name says more than loopback.
        let external = match (bound.ip().is_unspecified(), net::hostname()) {
            (true, Some(name)) => format!("{name}:{}", bound.port()),
            _ => local.to_string(),
        };
        let (stop_server, stop_controllers) = (CancellationToken::new(), CancellationToken::new());
        let server = Server::start(
            settings.role,
            opened.store.clone(),
            clock.clone(),
            own.tokens,
            RequestOptions {
                external_address: external,
                audit,
                limits: settings.limits,
                connections: settings.connections,
            },
            stop_server.clone(),
        )
        .await?;
        let signer =
            own.authority.certificate_signer().context("the certificate authority cannot sign requests")?;
        server.ready_when_roles_are_aggregated(stop_server.clone());
        // The server first: the controllers' client is answered by it, in this process.
        let mut servers = JoinSet::new();
        servers.spawn(server.serve(listener, own.tls));
        // Only on etcd are there replicas; the lock on a data directory admits one process.
        let elected = matches!(settings.storage, Storage::Etcd(_)).then(candidate).transpose()?;
        let options =
            ControllerOptions { role: settings.role, trust: own.trust.clone(), authority: signer, elected };
        let controllers = server.start_controllers(options, &clock, &stop_controllers);
        // Ends with the server; not a part whose end is a fault.
        tokio::spawn(keep_fresh(own.keep, clock, stop_server.clone()));
        Ok(Self {
            name: settings.name,
            url,
            trust: own.trust,
            authority: own.authority,
            continued: opened.continued,
            server,
            store: opened.store,
            controllers,
            servers,
            stop_controllers,
            stop_server,
        })
    }

    /// A client without a socket, to whom everything is allowed.
    pub(crate) fn client(&self) -> kube::Client {
        self.server.client()
    }

    /// Waits until a part ends that should not, and says which.
    pub(crate) async fn failed(&mut self) -> anyhow::Error {
        let part = tokio::select! {
            Some(_) = self.controllers.join_next() => "a controller",
            Some(_) = self.servers.join_next() => "the API server",
            else => "everything",
        };
        anyhow::anyhow!("{part} of {} ended unexpectedly", self.name)
    }

    /// Stops the controllers.
    pub(crate) async fn stop_controllers(&mut self) {
        self.stop_controllers.cancel();
        drain(&self.name, "controllers", &mut self.controllers).await;
    }

    /// Stops the API server; requests under way have some seconds to end.
    pub(crate) async fn stop_server(&mut self) {
        self.stop_server.cancel();
        drain(&self.name, "API server", &mut self.servers).await;
    }

    /// Closes the store, and writes what is left for the audit log.
    pub(crate) async fn close(self) {
        if tokio::time::timeout(GRACE, self.server.flush_audit_log()).await.is_err() {
            tracing::warn!(plane = self.name, "the audit log could not be written in time");
        }
        // Last, and always: nothing writes any more, and the lock on the directory is let go.
        self.store.close().await;
    }
}

/// Stops control planes in the order in which they depend on each other: all controllers, all servers, all stores. Those
/// of the same kind side by side, so that one that is slow does not add to the others' time.
pub(crate) async fn stop(mut control_planes: Vec<ControlPlane>) {
    futures::future::join_all(control_planes.iter_mut().map(ControlPlane::stop_controllers)).await;
    futures::future::join_all(control_planes.iter_mut().map(ControlPlane::stop_server)).await;
    futures::future::join_all(control_planes.into_iter().map(ControlPlane::close)).await;
}

/// The name of this process among the replicas of the hub.
fn candidate() -> anyhow::Result<String> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)
        .map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
    let host = net::hostname().unwrap_or_else(|| "hub".into());
    Ok(format!("{host}_{:016x}", u64::from_be_bytes(random)))
}

async fn drain(name: &str, what: &str, tasks: &mut JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!(plane = name, what, "did not stop in time");
        // What was answered is durable. The store is closed next, whoever still uses it.
        tasks.abort_all();
    }
}
