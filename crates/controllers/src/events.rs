//! Events live for a while and go: nothing else ends them.
//!
//! # Flow
//! A pass lists the metadata of all Events, deletes those whose time is over, and sleeps until the next one's time is
//! over, or until one that does not exist yet could be over. Without events that is one list per lifetime.
//!
//! # Guarantees
//! An Event is deleted only a full lifetime after it was written last, as `metadata.managedFields` tells; at most half
//! a minute later than that.
//!
//! # Caveats
//! kube-apiserver binds Events to leases of etcd (`--event-ttl`); where such a server is behind the client, this finds
//! nothing to do.

use crate::Error;
use crate::live::{is_conflict, is_not_found};
use crate::sweep::sweep;
use fleetpass_api::clock::SharedClock;
use futures::{StreamExt as _, TryStreamExt as _};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

/// How many Events are deleted at once.
const AT_ONCE: usize = 16;
/// How many are listed at once.
const PAGE: u32 = 500;

/// When the object was written last: an Event that happens again is written again, and lives on.
fn written(meta: &ObjectMeta) -> Option<Timestamp> {
    let managed = meta.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
    managed.chain(&meta.creation_timestamp).map(|time| time.0).max()
}

/// Deletes Events that were not written for `lifetime`, until `stop`.
pub(crate) async fn run(
    client: Client,
    clock: SharedClock,
    lifetime: SignedDuration,
    stop: CancellationToken,
) {
    sweep("events", clock, lifetime, stop, |now| pass(&client, now, lifetime)).await;
}

async fn pass(client: &Client, now: Timestamp, lifetime: SignedDuration) -> Result<Option<Timestamp>, Error> {
    let events: Api<Event> = Api::all(client.clone());
    let mut params = ListParams::default().limit(PAGE);
    let mut next: Option<Timestamp> = None;
    loop {
        let page = events.list_metadata(&params).await?;
        let ends = page.items.into_iter().filter_map(|event| {
            let end = written(&event.metadata)?.checked_add(lifetime).ok()?;
            Some((event.metadata, end))
        });
        let (over, left): (Vec<_>, Vec<_>) = ends.partition(|(_, end)| *end <= now);
        next = left.into_iter().map(|(_, end)| end).chain(next).min();
        // Before the next page is asked for, so that no more than one page of names is kept.
        let deletions = futures::stream::iter(over).map(|(meta, _)| delete(client.clone(), meta));
        deletions.buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            None => return Ok(next),
            token => params.continue_token = token,
        }
    }
}

/// Deletes the Event unless it was written again.
async fn delete(client: Client, meta: ObjectMeta) -> Result<(), Error> {
    let events: Api<Event> = Api::namespaced(client, meta.namespace.as_deref().unwrap_or_default());
    let preconditions = Preconditions { uid: meta.uid, resource_version: meta.resource_version };
    let params = DeleteParams::default().preconditions(preconditions);
    match events.delete(meta.name.as_deref().unwrap_or_default(), &params).await {
        Err(error) if !is_not_found(&error) && !is_conflict(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn event(name: &str, created: &str, written: Option<&str>) -> Value {
        let managed: Vec<_> = written.map(|time| json!({"manager": "m", "time": time})).into_iter().collect();
        json!({"metadata": {"name": name, "namespace": "n", "uid": name, "resourceVersion": "3",
            "creationTimestamp": created, "managedFields": managed}})
    }

    #[tokio::test]
    async fn events_go_a_lifetime_after_they_were_written_last() {
        let deleted: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let log = deleted.clone();
        let client = server(move |request| {
            if request.method == "DELETE" {
                log.lock().unwrap().push((request.path, request.body));
                return Answer::refusal(409, json!({"reason": "Conflict"}));
            }
            if request.query.contains("continue=more") {
                return Answer::ok(
                    json!({"metadata": {}, "items": [event("new", "2026-01-01T00:50:00Z", None)]}),
                );
            }
            Answer::ok(json!({"metadata": {"continue": "more"}, "items": [
                event("old", "2026-01-01T00:00:00Z", None),
                event("repeated", "2026-01-01T00:00:00Z", Some("2026-01-01T00:40:00Z"))]}))
        });
        let now = "2026-01-01T01:00:00Z".parse().unwrap();
        let next = pass(&client, now, SignedDuration::from_hours(1)).await.unwrap();
        assert_eq!(next.unwrap().to_string(), "2026-01-01T01:40:00Z");
        let deleted = deleted.lock().unwrap();
        let paths: Vec<_> = deleted.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(paths, ["/api/v1/namespaces/n/events/old"]);
        assert_eq!(deleted[0].1["preconditions"], json!({"uid": "old", "resourceVersion": "3"}));
    }
}
