//! Old CertificateSigningRequests are removed: there is no other end for them.
//! (`pkg/controller/certificates/cleaner/cleaner.go`.)
//!
//! # Guarantees
//! A request that was issued, denied or failed goes an hour after that, one that nobody cared for a day after it was
//! made, and an issued one when its certificate has ended.
//!
//! # Caveats
//! A request that is approved but never issued stays, as it does in Kubernetes.

use super::authority::expiry;
use crate::Error;
use crate::sweep::sweep;
use fleetpass_api::clock::SharedClock;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::{DeleteParams, ListParams, Preconditions};
use kube::{Api, Client};
use tokio_util::sync::CancellationToken;

/// For how long what was decided stays.
const DECIDED: SignedDuration = SignedDuration::from_hours(1);
/// For how long what was not decided stays.
const PENDING: SignedDuration = SignedDuration::from_hours(24);

/// When the request is to be removed, as things are.
fn end(request: &CertificateSigningRequest) -> Option<Timestamp> {
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if conditions.is_empty() {
        return Some(request.metadata.creation_timestamp.as_ref()?.0 + PENDING);
    }
    let certificate = status.and_then(|status| status.certificate.as_ref()).filter(|pem| !pem.0.is_empty());
    // The earliest counts: a request may have been approved and have failed since.
    let ends = conditions.iter().filter_map(|condition| {
        let decided = condition.last_update_time.as_ref().map(|time| time.0 + DECIDED);
        match condition.type_.as_str() {
            "Denied" | "Failed" => decided,
            "Approved" => [decided, expiry(&certificate?.0)].into_iter().flatten().min(),
            _ => None,
        }
    });
    ends.min()
}

/// Removes old requests until `stop`.
pub(crate) async fn run(client: Client, clock: SharedClock, stop: CancellationToken) {
    let requests: Api<CertificateSigningRequest> = Api::all(client);
    sweep("certificate-requests", clock, DECIDED, stop, |now| pass(&requests, now)).await;
}

async fn pass(requests: &Api<CertificateSigningRequest>, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let mut params = ListParams::default().limit(100);
    let mut next: Option<Timestamp> = None;
    loop {
        let page = requests.list(&params).await?;
        for request in &page.items {
            let Some(end) = end(request) else { continue };
            if end > now {
                next = Some(next.map_or(end, |next| next.min(end)));
                continue;
            }
            let name = request.metadata.name.as_deref().unwrap_or_default();
            // The version too: a request that was approved in this moment is no longer an old one that nobody cared
            // for.
            let preconditions = Preconditions {
                uid: request.metadata.uid.clone(),
                resource_version: request.metadata.resource_version.clone(),
            };
            match requests.delete(name, &DeleteParams::default().preconditions(preconditions)).await {
                // It changed or went meanwhile: the next pass sees what it is now.
                Err(error) if !crate::live::is_not_found(&error) && !crate::live::is_conflict(&error) => {
                    return Err(error.into());
                }
                _ => tracing::debug!(name, "removed an old certificate signing request"),
            }
        }
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            None => return Ok(next),
            token => params.continue_token = token,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::{Answer, server};
    use serde_json::{Value, json};
    use std::sync::{Arc, Mutex};

    fn request(name: &str, status: Value) -> Value {
        json!({"metadata": {"name": name, "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"request": "", "signerName": "a/b"}, "status": status})
    }

    fn condition(kind: &str, time: &str) -> Value {
        json!({"type": kind, "status": "True", "lastUpdateTime": time})
    }

    #[test]
    fn ends() {
        let end =
            |status| end(&serde_json::from_value(request("r", status)).unwrap()).map(|end| end.to_string());
        assert_eq!(end(json!({})).as_deref(), Some("2026-01-02T00:00:00Z"));
        let at = "2026-01-01T05:00:00Z";
        let later = Some("2026-01-01T06:00:00Z");
        assert_eq!(end(json!({"conditions": [condition("Denied", at)]})).as_deref(), later);
        assert_eq!(end(json!({"conditions": [condition("Failed", at)]})).as_deref(), later);
        assert_eq!(end(json!({"conditions": [condition("Approved", at)]})), None);
        assert_eq!(
            end(json!({"conditions": [condition("Approved", at)], "certificate": "eA=="})).as_deref(),
            later
        );
        assert_eq!(end(json!({"conditions": [condition("Mine", at)]})), None);
    }

    #[tokio::test]
    async fn a_pass_removes_what_is_over_and_tells_what_comes_next() {
        let deleted: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
        let log = deleted.clone();
        let client = server(move |http| match http.method.as_str() {
            "GET" => Answer::ok(json!({"metadata": {}, "items": [
                request("over", json!({"conditions": [condition("Denied", "2026-01-01T01:00:00Z")]})),
                request("pending", json!({})),
                request("denied", json!({"conditions": [condition("Denied", "2026-01-01T02:00:00Z")]}))]})),
            _ => {
                log.lock().unwrap().push((http.path, http.body));
                Answer::ok(json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}))
            }
        });
        let now = "2026-01-01T02:30:00Z".parse().unwrap();
        let next = pass(&Api::all(client), now).await.unwrap();
        assert_eq!(next.unwrap().to_string(), "2026-01-01T03:00:00Z");
        let deleted = deleted.lock().unwrap();
        assert_eq!(deleted.len(), 1);
        assert!(deleted[0].0.ends_with("/over"));
        assert_eq!(deleted[0].1["preconditions"]["uid"], "over");
    }
}
