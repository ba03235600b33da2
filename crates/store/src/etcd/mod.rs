//! The engine on a real etcd cluster, for hubs with several replicas.
//!
//! # Guarantees
//! Reads are linearizable, whichever replica and whichever member they go through. A commit is etcd's transaction; what
//! was answered is on the disks of a majority. A commit that etcd did not answer is reported as of unknown outcome, and
//! never tried twice.
//!
//! # Revisions
//! They are etcd's own: its history begins at 1, and other users of the same etcd use some of them up. A watch tells of
//! those by events without changes.
//!
//! etcd 3.5.8 or later (3.4.25): earlier ones answer questions for progress wrongly.

mod compaction;
mod feed;
mod layout;
mod members;
mod raise;
mod rpc;

use crate::contract::{Entry, EventStream, Listing, Op, Revision, Store, Txn};
use crate::error::{Error, OpenError, Result};
use crate::migrate::Target;
use crate::sealing::{Codec, Encryption};
use crate::transaction;
use async_trait::async_trait;
use feed::{Feed, Wanted};
use futures::{StreamExt, stream};
use layout::{Layout, etcd_revision, prefix_end, revision};
use members::{Failure, Members};
use rpc::{
    Client, Compare, PutRequest, RangeRequest, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest,
    revision_of,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tonic::Status;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use zeroize::Zeroizing;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(2);
/// How many entries of a listing are asked for at once.
const PAGE: i64 = 1000;

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

/// What a store and its feeds have in common.
struct Shared {
    members: Members,
    layout: Layout,
    wanted: watch::Sender<Wanted>,
    closed: AtomicBool,
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
            clients.push((server.clone(), Client::new(endpoint.connect_lazy())));
        }
        let shared = Arc::new(Shared {
            members: Members::new(clients),
            layout: Layout::new(&options.prefix, Codec(options.encryption)),
            wanted: watch::Sender::new(Wanted::default()),
            closed: AtomicBool::new(false),
        });
        shared.revision().await.map_err(|failure| {
            failed(failure.to_string(), "start it, or correct --etcd-servers and the certificates")
        })?;
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
        write.await?;
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

impl Shared {
    fn check(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    async fn range(&self, request: RangeRequest) -> Result<rpc::RangeResponse, Failure> {
        let read = self.members.read(|mut client| {
            let request = request.clone();
            async move { client.range(request).await }
        });
        read.await
    }

    /// The revision of etcd now.
    async fn revision(&self) -> Result<Revision, Failure> {
        let request = RangeRequest { count_only: true, ..RangeRequest::only(self.layout.note("none")) };
        Ok(revision(revision_of(self.range(request).await?.header.as_ref())))
    }

    /// All entries with a prefix (as it is in etcd), read page by page at one revision.
    async fn pages(&self, prefix: &str) -> Result<Listing, PageError> {
        let mut request = RangeRequest {
            range_end: prefix_end(prefix),
            limit: PAGE,
            ..RangeRequest::only(prefix.to_owned())
        };
        let mut entries = Vec::new();
        loop {
            let page = self.range(request.clone()).await.map_err(PageError::Failure)?;
            if request.revision == 0 {
                request.revision = revision_of(page.header.as_ref());
            }
            for kv in &page.kvs {
                entries.extend(self.layout.entry(kv).map_err(PageError::Entry)?);
            }
            match page.kvs.into_iter().next_back() {
                Some(last) if page.more => {
                    request.key = last.key;
                    request.key.push(0);
                }
                _ => return Ok(Listing { revision: revision(request.revision), entries }),
            }
        }
    }

    /// Whether events after a revision are gone: the oldest revision then that a watch can start after.
    async fn compacted(&self, after: Revision) -> Result<Option<Revision>> {
        let first = etcd_revision(after.saturating_add(1));
        let only = RangeRequest::only(self.layout.note("none"));
        match self.range(RangeRequest { count_only: true, revision: first, ..only }).await {
            Ok(_) | Err(Failure::Future) => Ok(None),
            Err(Failure::Compacted) => Ok(Some(self.oldest(first).await?)),
            Err(failure) => Err(failure.into()),
        }
    }

    /// The oldest revision that a watch can start after: a watch from before it is told.
    async fn oldest(&self, compacted: i64) -> Result<Revision> {
        let create = WatchCreateRequest {
            key: self.layout.note("none").into(),
            start_revision: compacted,
            ..WatchCreateRequest::default()
        };
        let read = self.members.read(|mut client| {
            let create = create.clone();
            async move {
                let mut watch = client.watch(create).await?;
                while let Some(response) = watch.message().await? {
                    if response.compact_revision > 0 {
                        return Ok(response.compact_revision);
                    }
                }
                Err(Status::unavailable("the watch ended without an answer"))
            }
        });
        Ok(revision(read.await?).saturating_sub(1))
    }

    /// etcd's transaction for one of ours. If a compare does not hold, it reads what the compares are about.
    fn transaction(&self, txn: &Txn) -> Result<TxnRequest> {
        let mut request = TxnRequest::default();
        for compare in &txn.compares {
            let key = self.layout.inward(&compare.key)?;
            request.compare.push(Compare::mod_revision(key.clone(), etcd_revision(compare.mod_revision)));
            request.failure.push(RequestOp::range(key));
        }
        for op in &txn.ops {
            let key = self.layout.inward(op.key())?;
            request.success.push(match op {
                Op::Put { key: name, value } => RequestOp::put(key, self.layout.encode(name, value)?),
                Op::Delete { .. } => RequestOp::delete(key),
            });
        }
        Ok(request)
    }

    /// The first compare that does not hold, from what a rejected transaction read.
    fn conflict(&self, txn: &Txn, answer: &TxnResponse) -> Result<Error> {
        for (compare, response) in txn.compares.iter().zip(&answer.responses) {
            let found = response.range.as_ref().and_then(|range| range.kvs.first());
            let current = found.map(|kv| self.layout.entry(kv)).transpose()?.flatten();
            if current.as_ref().map_or(0, |entry| entry.mod_revision) != compare.mod_revision {
                return Ok(Error::Conflict { key: compare.key.clone(), current });
            }
        }
        Err(Error::Unavailable { reason: "etcd rejected a transaction whose compares hold".into() })
    }
}

/// Why a listing was not read.
enum PageError {
    Failure(Failure),
    Entry(Error),
}

#[async_trait]
impl Store for EtcdStore {
    async fn get(&self, key: &str) -> Result<Option<Entry>> {
        self.shared.check()?;
        let Ok(key) = self.shared.layout.inward(key) else { return Ok(None) };
        let answer = self.shared.range(RangeRequest::only(key)).await?;
        Ok(answer.kvs.first().map(|kv| self.shared.layout.entry(kv)).transpose()?.flatten())
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.shared.check()?;
        let Some(prefix) = self.shared.layout.inward_prefix(prefix) else {
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
        let answer = write.await?;
        if answer.succeeded {
            return Ok(revision(revision_of(answer.header.as_ref())));
        }
        Err(self.shared.conflict(&txn, &answer)?)
    }

    async fn revision(&self) -> Result<Revision> {
        self.shared.check()?;
        let revision = self.shared.revision().await?;
        self.shared.wanted.send_if_modified(|wanted| {
            let later = revision > wanted.revision;
            wanted.revision = wanted.revision.max(revision);
            later
        });
        Ok(revision)
    }

    async fn watch(&self, after: Revision) -> Result<EventStream> {
        self.shared.check()?;
        if let Some(oldest) = self.shared.compacted(after).await? {
            return Err(Error::Compacted { requested: after, oldest });
        }
        let feed = Feed::new(self.shared.clone(), after);
        Ok(stream::unfold(Some(feed), Feed::step).boxed())
    }

    async fn close(&self) {
        if self.shared.closed.swap(true, Ordering::Relaxed) {
            return;
        }
        let last = self.shared.revision().await.unwrap_or(0);
        self.shared.wanted.send_modify(|wanted| {
            wanted.revision = wanted.revision.max(last);
            wanted.end = Some(last);
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
