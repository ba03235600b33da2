//! The engine on a real etcd cluster, for hubs with several replicas.
//!
//! ```text
//!  get, list, commit ─► shared ─► layout (keys, sealing) ─► members ─► rpc ─► the preferred member of etcd
//!                                                              │ failed
//!                                                              └────────────► the next one
//!  watch ─► watcher: one watch stream at one member; after the last event at the next member
//!  compaction: in the background; raise: for migrations
//! ```
//!
//! # Guarantees
//! Reads are linearizable, whichever replica and whichever member they go through. A commit is etcd's transaction; what
//! was answered is on the disks of a majority. A commit that etcd did not answer is reported as of unknown outcome, and
//! never tried twice. While etcd has no room ([`room`]), writes are refused with its words and reads go on.
//!
//! # Revisions
//! They are etcd's own: its history begins at 1, and other users of the same etcd use some of them up. A watch tells of
//! those by events without changes.
//!
//! etcd 3.5.8 or later (3.4.25): earlier ones answer requests for progress wrongly.

mod compaction;
mod layout;
mod members;
mod raise;
mod room;
mod rpc;
mod shared;
mod watcher;

use crate::contract::{Entry, EventStream, Health, Listing, Op, Revision, Store, Txn};
use crate::error::{Error, OpenError, Result};
use crate::migrate::Target;
use crate::sealing::{Codec, Encryption};
use crate::transaction;
use async_trait::async_trait;
use futures::{StreamExt, stream};
use layout::{Layout, revision};
use members::{Failure, Members};
use parking_lot::Mutex;
use rpc::{Client, PutRequest, RangeRequest, revision_of};
use shared::{Awaited, PageError, Shared};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use watcher::Watcher;
use zeroize::Zeroizing;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);

/// Where the data is and how it is kept.
pub struct EtcdOptions {
    /// The URLs of the members, `http://…` or `https://…`; at least one.
    pub servers: Vec<String>,
    /// What all keys begin with in etcd, `/registry` for kube-apiserver.
    pub prefix: String,
    /// How to know the members and to be known by them; needed for `https`.
    pub tls: Option<EtcdTls>,
    /// Which values are sealed; `None`: none.
    pub encryption: Option<Encryption>,
    /// How often etcd forgets what is older than this; `None`: somebody else sees to it.
    pub compaction_interval: Option<Duration>,
}

/// Certificates for etcd.
pub struct EtcdTls {
    /// Authorities that the members' certificates come from, PEM.
    pub ca: Vec<u8>,
    /// Our own certificate chain and its key, PEM, if etcd asks for one.
    pub identity: Option<(Vec<u8>, Zeroizing<Vec<u8>>)>,
}

/// A store on etcd. Its clones are the same store.
#[derive(Clone)]
pub struct EtcdStore {
    shared: Arc<Shared>,
}

impl EtcdStore {
    /// Connects, and sees that etcd answers.
    ///
    /// # Errors
    ///
    /// [`OpenError::Etcd`]: a URL or certificate cannot be used, or no member answers within some seconds.
    pub async fn open(options: EtcdOptions) -> Result<Self, OpenError> {
        let servers = options.servers.join(",");
        let failed = |problem: String, remedy: &'static str| OpenError::Etcd {
            servers: servers.clone(),
            problem,
            remedy,
        };
        if options.servers.is_empty() {
            return Err(failed("no URL is given".into(), "name its members"));
        }
        let mut clients = Vec::new();
        for server in &options.servers {
            let endpoint = endpoint(server, options.tls.as_ref())
                .map_err(|problem| failed(format!("{server}: {problem}"), "correct the flags --etcd-*"))?;
            // Lazily, so that a member that is down when we start does not keep us from starting.
            clients.push((server.clone(), Client::new(endpoint.connect_lazy())));
        }
        let shared = Arc::new(Shared {
            members: Members::new(clients),
            layout: Layout::new(&options.prefix, Codec(options.encryption)),
            awaited: watch::Sender::new(Awaited::default()),
            full: Mutex::new(None),
            closed: AtomicBool::new(false),
        });
        shared.revision().await.map_err(|failure| {
            failed(failure.to_string(), "start it, or correct --etcd-servers and the certificates")
        })?;
        // Not joined anywhere: it ends when the store and its watchers are dropped.
        if let Some(interval) = options.compaction_interval {
            tokio::spawn(compaction::run(Arc::downgrade(&shared), interval));
        }
        Ok(Self { shared })
    }

    /// Reads a note that replicas keep for each other beside the store.
    ///
    /// # Errors
    ///
    /// [`Error::Unavailable`]: etcd does not answer.
    pub async fn note(&self, name: &str) -> Result<Option<String>> {
        let answer = self.shared.range(RangeRequest::only(self.shared.layout.note(name))).await?;
        Ok(answer.kvs.first().map(|note| String::from_utf8_lossy(&note.value).into_owned()))
    }

    /// Writes a note.
    ///
    /// # Errors
    ///
    /// As [`Store::commit`].
    pub async fn set_note(&self, name: &str, value: &str) -> Result<()> {
        let request = PutRequest { key: self.shared.layout.note(name).into(), value: value.into() };
        let write = self.shared.members.write(|mut client| {
            let request = request.clone();
            async move { client.put(request).await }
        });
        self.shared.note_write(write.await)?;
        Ok(())
    }
}

/// How a member is reached.
fn endpoint(server: &str, tls: Option<&EtcdTls>) -> Result<Endpoint, String> {
    let endpoint = Endpoint::from_shared(server.to_owned()).map_err(|error| error.to_string())?;
    let endpoint = endpoint.connect_timeout(CONNECT).tcp_nodelay(true);
    match endpoint.uri().scheme_str() {
        Some("http") => return Ok(endpoint),
        Some("https") => {}
        _ => return Err("a URL begins with http:// or https://".into()),
    }
    let tls = tls.ok_or("https needs --etcd-cafile, the authority of the members' certificates")?;
    let mut config = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(&tls.ca));
    if let Some((chain, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(chain, key.as_slice()));
    }
    endpoint.tls_config(config).map_err(|error| error.to_string())
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.shared.check()?;
        // A key that has no place in etcd was never written.
        let Ok(key) = self.shared.layout.etcd_key(key) else { return Ok(None) };
        let answer = self.shared.range(RangeRequest::only(key)).await?;
        Ok(answer.kvs.first().map(|kv| self.shared.layout.entry(kv)).transpose()?.flatten())
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.shared.check()?;
        let Some(prefix) = self.shared.layout.etcd_prefix(prefix) else {
            return Ok(Listing { revision: self.revision().await?, entries: Vec::new() });
        };
        loop {
            match self.shared.pages(&prefix).await {
                Ok(listing) => return Ok(listing),
                // It took longer than etcd remembers: begin again at the present.
                Err(PageError::Failure(Failure::Compacted)) => {}
                Err(PageError::Failure(failure)) => return Err(failure.into()),
                Err(PageError::Entry(error)) => return Err(error),
            }
        }
    }

    async fn commit(&self, txn: Txn) -> Result<Revision> {
        self.shared.check()?;
        transaction::validate(&txn)?;
        let request = self.shared.transaction(&txn)?;
        let write = self.shared.members.write(|mut client| {
            let request = request.clone();
            async move { client.txn(request).await }
        });
        let mut answer = write.await;
        // Deletions, and what reads only, go through while there is no room.
        if txn.ops.iter().any(|op| matches!(op, Op::Put { .. })) {
            answer = self.shared.note_write(answer);
        }
        let answer = answer?;
        if answer.succeeded {
            return Ok(revision(revision_of(answer.header.as_ref())));
        }
        Err(self.shared.conflict(&txn, &answer)?)
    }

    async fn revision(&self) -> Result<Revision> {
        self.shared.check()?;
        let revision = self.shared.revision().await?;
        // Who asks for the revision will wait until the events up to it have come: watchers are told to hurry, also where
        // another user of etcd wrote and no event is to come.
        self.shared.awaited.send_if_modified(|awaited| {
            let later = revision > awaited.revision;
            awaited.revision = awaited.revision.max(revision);
            later
        });
        Ok(revision)
    }

    async fn watch(&self, after: Revision) -> Result<EventStream> {
        self.shared.check()?;
        if let Some(oldest) = self.shared.compacted(after).await? {
            return Err(Error::Compacted { requested: after, oldest });
        }
        let watcher = Watcher::new(self.shared.clone(), after);
        Ok(stream::unfold(Some(watcher), Watcher::step).boxed())
    }

    fn health(&self) -> Health {
        self.shared.health()
    }

    async fn close(&self) {
        if self.shared.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        // Watchers end once they have delivered this revision. If etcd does not say it, they end at once.
        let last = self.shared.revision().await.unwrap_or(0);
        self.shared.awaited.send_modify(|awaited| {
            awaited.revision = awaited.revision.max(last);
            awaited.end = Some(last);
        });
    }
}

#[async_trait]
impl Target for EtcdStore {
    async fn raise(&self, revision: Revision) -> Result<()> {
        self.shared.check()?;
        Ok(raise::raise(&self.shared, revision).await?)
    }
}
