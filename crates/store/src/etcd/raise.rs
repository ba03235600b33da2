//! Moves etcd's revision on, for a store that takes the place of one with greater revisions.
//!
//! etcd has no request for that: a revision is the number of writes. So a note is written as often as it takes, many
//! times at once, and the history that comes of it is compacted away on the way.

use super::layout::{etcd_revision, revision};
use super::members::Failure;
use super::rpc::{CompactionRequest, PutRequest, revision_of};
use super::shared::Shared;
use crate::contract::Revision;
use futures::{StreamExt as _, TryStreamExt as _, stream};

/// How many writes are under way at a time; etcd puts those that come together on disk together.
const AT_ONCE: usize = 512;
/// How many writes there are between two compactions.
const HISTORY: Revision = 100_000;

/// Writes until the revision is `to` at least.
pub(super) async fn raise(shared: &Shared, to: Revision) -> Result<(), Failure> {
    loop {
        let now = shared.revision().await?;
        if now >= to {
            return Ok(());
        }
        // The number of writes is an estimate: others may write too. The loop asks again.
        let writes = stream::iter(0..(to - now).min(HISTORY)).map(|_| write(shared));
        let reached = writes.buffer_unordered(AT_ONCE).try_fold(0, async |a, b| Ok(a.max(b))).await?;
        // Every HISTORY revisions: etcd keeps each one until then, and has a quota for its database.
        if reached / HISTORY > now / HISTORY {
            compact(shared, reached).await?;
        }
    }
}

async fn write(shared: &Shared) -> Result<Revision, Failure> {
    let request = PutRequest { key: shared.layout.note("revision").into(), value: Vec::new() };
    let written = shared.members.write(|mut client| {
        let request = request.clone();
        async move { client.put(request).await }
    });
    Ok(revision(revision_of(written.await?.header.as_ref())))
}

async fn compact(shared: &Shared, to: Revision) -> Result<(), Failure> {
    let revision = etcd_revision(to);
    let compacted = shared
        .members
        .write(|mut client| async move { client.compact(CompactionRequest { revision }).await });
    match compacted.await {
        // Somebody else went further.
        Ok(_) | Err(Failure::Compacted) => Ok(()),
        Err(failure) => Err(failure),
    }
}
