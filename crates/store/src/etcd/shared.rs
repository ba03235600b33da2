//! What a store and its watchers have in common: the members, the layout of keys, and the questions that both ask etcd.

use super::layout::{Layout, etcd_revision, prefix_end, revision};
use super::members::{Failure, Members};
use super::rpc::{
    Compare, RangeRequest, RangeResponse, RequestOp, TxnRequest, TxnResponse, WatchCreateRequest, revision_of,
};
use crate::contract::{Listing, Op, Revision, Txn};
use crate::error::{Error, Result};
use parking_lot::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::watch;
use tonic::Status;

/// How many entries of a listing are asked for at once.
const PAGE: i64 = 1000;

/// What the store asks of its watchers.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Awaited {
    /// Somebody waits for this revision: watchers ask etcd for their progress until they have reached it. Never goes back.
    pub(super) revision: Revision,
    /// The store is closed: watchers end after this revision.
    pub(super) end: Option<Revision>,
}

/// What a store and its watchers have in common. Watchers hold it too, so it outlives a store that was dropped while
/// somebody reads its events.
pub(super) struct Shared {
    pub(super) members: Members,
    pub(super) layout: Layout,
    pub(super) awaited: watch::Sender<Awaited>,
    /// Why etcd takes no writes, while it takes none. Held for a moment.
    pub(super) full: Mutex<Option<String>>,
    /// Set once, by closing. Relaxed is enough: nothing else is published by it.
    pub(super) closed: AtomicBool,
}

impl Shared {
    pub(super) fn check(&self) -> Result<()> {
        if self.closed.load(Ordering::Relaxed) { Err(Error::Closed) } else { Ok(()) }
    }

    pub(super) async fn range(&self, request: RangeRequest) -> Result<RangeResponse, Failure> {
        let read = self.members.read(|mut client| {
            let request = request.clone();
            async move { client.range(request).await }
        });
        read.await
    }

    /// The revision of etcd now.
    pub(super) async fn revision(&self) -> Result<Revision, Failure> {
        let request = RangeRequest { count_only: true, ..RangeRequest::only(self.layout.note("none")) };
        Ok(revision(revision_of(self.range(request).await?.header.as_ref())))
    }

    /// All entries with a prefix (as it is in etcd), read page by page at one revision.
    pub(super) async fn pages(&self, prefix: &str) -> Result<Listing, PageError> {
        let mut request = RangeRequest {
            range_end: prefix_end(prefix),
            limit: PAGE,
            ..RangeRequest::only(prefix.to_owned())
        };
        let mut entries = Vec::new();
        loop {
            let page = self.range(request.clone()).await.map_err(PageError::Failure)?;
            // The first page is of the present, and says which revision that is; the others are read there, so that the
            // listing is of one moment however long it takes.
            if request.revision == 0 {
                request.revision = revision_of(page.header.as_ref());
            }
            for kv in &page.kvs {
                entries.extend(self.layout.entry(kv).map_err(PageError::Entry)?);
            }
            match page.kvs.into_iter().next_back() {
                Some(last) if page.more => {
                    // The smallest key behind the last one.
                    request.key = last.key;
                    request.key.push(0);
                }
                _ => return Ok(Listing { revision: revision(request.revision), entries }),
            }
        }
    }

    /// Whether events after a revision are gone: the oldest revision then that a watch can start after.
    pub(super) async fn compacted(&self, after: Revision) -> Result<Option<Revision>> {
        // Any read at an old revision tells whether it is compacted; one that counts a key that is not there costs nothing.
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
    pub(super) fn transaction(&self, txn: &Txn) -> Result<TxnRequest> {
        let mut request = TxnRequest::default();
        for compare in &txn.compares {
            let key = self.layout.etcd_key(&compare.key)?;
            request.compare.push(Compare::mod_revision(key.clone(), etcd_revision(compare.mod_revision)));
            request.failure.push(RequestOp::range(key));
        }
        for op in &txn.ops {
            let key = self.layout.etcd_key(op.key())?;
            request.success.push(match op {
                Op::Put { key: name, value } => RequestOp::put(key, self.layout.encode(name, value)?),
                Op::Delete { .. } => RequestOp::delete(key),
            });
        }
        Ok(request)
    }

    /// The first compare that does not hold, from what a rejected transaction read.
    pub(super) fn conflict(&self, txn: &Txn, answer: &TxnResponse) -> Result<Error> {
        for (compare, response) in txn.compares.iter().zip(&answer.responses) {
            let found = response.range.as_ref().and_then(|range| range.kvs.first());
            let current = found.map(|kv| self.layout.entry(kv)).transpose()?.flatten();
            if current.as_ref().map_or(0, |entry| entry.mod_revision) != compare.mod_revision {
                return Ok(Error::Conflict { key: compare.key.clone(), current });
            }
        }
        // Not to be answered as a conflict: the caller would read, find what it expected, and try for ever.
        Err(Error::Unavailable { reason: "etcd rejected a transaction whose compares hold".into() })
    }
}

/// Why a listing was not read.
pub(super) enum PageError {
    Failure(Failure),
    Entry(Error),
}
