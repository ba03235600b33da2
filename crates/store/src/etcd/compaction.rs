//! Lets etcd forget the past: what is older than an interval, by whichever replica is first.
//!
//! A note in etcd carries the revision up to which the next compaction may go. Once an interval a replica tries to renew
//! it; only one that finds the note as it was an interval ago succeeds, and compacts to what the note said then.
//! (kube-apiserver does the same: `storage/etcd3/compact.go`.)

use super::members::Failure;
use super::rpc::{Client, CompactionRequest, Compare, RequestOp, TxnRequest, revision_of};
use super::shared::Shared;
use std::sync::Weak;
use std::time::Duration;
use tonic::Status;

/// The note as this replica saw it last.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Seen {
    /// How often it was written.
    version: i64,
    /// The revision of etcd then.
    revision: i64,
}

/// Compacts once an interval until the store is gone. It holds the store weakly: a task that is never joined must not keep
/// alive what it works for.
pub(super) async fn run(shared: Weak<Shared>, interval: Duration) {
    let mut seen = Seen::default();
    loop {
        tokio::time::sleep(interval).await;
        let Some(shared) = shared.upgrade() else { return };
        match attempt(&shared, seen).await {
            Ok(now) => seen = now,
            Err(reason) => tracing::warn!(%reason, "etcd was not compacted"),
        }
    }
}

/// One attempt; how the note was found or left. Of the replicas that have seen the same version one succeeds, and compacts;
/// the others only learn of the new one.
async fn attempt(shared: &Shared, seen: Seen) -> Result<Seen, Failure> {
    let key = shared.layout.note("compaction");
    let (now, renewed) = shared.members.write(|client| renew(client, key.clone(), seen)).await?;
    if renewed && seen.revision > 0 {
        let compacted = shared.members.write(|mut client| async move {
            client.compact(CompactionRequest { revision: seen.revision }).await
        });
        match compacted.await {
            // Somebody else went further.
            Ok(_) | Err(Failure::Compacted) => tracing::debug!(seen.revision, "etcd was compacted"),
            Err(failure) => return Err(failure),
        }
    }
    Ok(now)
}

/// Writes the note if it is as it was seen; else reads it.
async fn renew(mut client: Client, key: String, seen: Seen) -> Result<(Seen, bool), Status> {
    let request = TxnRequest {
        compare: vec![Compare::version(key.clone(), seen.version)],
        success: vec![RequestOp::put(key.clone(), seen.revision.to_string())],
        failure: vec![RequestOp::range(key)],
    };
    let answer = client.txn(request).await?;
    let revision = revision_of(answer.header.as_ref());
    if answer.succeeded {
        return Ok((Seen { version: seen.version + 1, revision }, true));
    }
    let found = answer.responses.into_iter().find_map(|response| response.range?.kvs.into_iter().next());
    Ok((Seen { version: found.map_or(0, |note| note.version), revision }, false))
}
