//! Certificates for approved CertificateSigningRequests of the signer `kubernetes.io/kube-apiserver-client`.
//!
//! # Flow
//! A request that changes comes into the queue, is read, and if it is approved, has not failed and has no certificate
//! yet, the authority signs it and the certificate is written into its status.
//! (`pkg/controller/certificates/signer/signer.go`.)
//!
//! # Guarantees
//! Nothing is signed that is not approved; nothing is approved here. A request that can never be signed gets the
//! condition `Failed` with the reason. A certificate is written only onto the request that was read.
//!
//! # Caveats
//! Requests for other signers are left to others.

use super::authority::{CertificateAuthority, Request, Usages, lifetime};
use crate::Error;
use crate::discovery::ResourceType;
use crate::live::{api, patcher};
use crate::monitor::{Event, Observer};
use crate::queue::{Backlog, Next, Queue, queue, work};
use fleetpass_api::clock::SharedClock;
use fleetpass_apimachinery::time::rfc3339;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::certificates::v1::CertificateSigningRequest;
use kube::api::Patch;
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The signer that this controller is.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// How long to wait after a change: whoever approves often writes more than once, and should not be in a race with
/// the certificate.
const GATHER: Duration = Duration::from_millis(250);

struct Listener(Queue<String>);

impl Observer for Listener {
    fn observe(&self, resource: &Arc<ResourceType>, event: &Event) {
        if resource.is("certificates.k8s.io", "certificatesigningrequests")
            && let Event::Apply(object) | Event::InitApply(object) = event
            && let Some(name) = &object.metadata.name
        {
            self.0.add_after(name.clone(), GATHER);
        }
    }
}

/// Signs requests.
pub(crate) struct Signer {
    client: Client,
    authority: Arc<CertificateAuthority>,
    longest: SignedDuration,
    clock: SharedClock,
}

/// The signer, its backlog, and what must observe the resources. No certificate lives longer than `longest`.
pub(crate) fn signer(
    client: Client,
    authority: Arc<CertificateAuthority>,
    longest: SignedDuration,
    clock: SharedClock,
) -> (Signer, Backlog<String>, Box<dyn Observer>) {
    let (queue, backlog) = queue();
    (Signer { client, authority, longest, clock }, backlog, Box::new(Listener(queue)))
}

/// Signs until `stop`.
pub(crate) async fn run(signer: Signer, backlog: Backlog<String>, stop: CancellationToken) {
    // Two, so that one signs while the other waits for the server: more would not sign faster.
    work("certificates", backlog, 2, stop, |name| signer.reconcile(name)).await;
}

/// Whether the request waits for a certificate of this signer.
fn is_due(request: &CertificateSigningRequest) -> bool {
    let status = request.status.as_ref();
    let has = |kind: &str| {
        let conditions = status.and_then(|status| status.conditions.as_ref()).into_iter().flatten();
        conditions.into_iter().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let issued = status.and_then(|status| status.certificate.as_ref()).is_some_and(|pem| !pem.0.is_empty());
    request.spec.signer_name == SIGNER && has("Approved") && !has("Denied") && !has("Failed") && !issued
}

/// What the certificate of a client may be used for.
///
/// # Errors
/// Why these usages are none of a client, in the words of kube-controller-manager.
fn usages(asked: &[String]) -> Result<Usages, String> {
    let mut usages = Usages::default();
    let mut client_auth = false;
    for usage in asked {
        match usage.as_str() {
            "client auth" => client_auth = true,
            "digital signature" => usages.digital_signature = true,
            "key encipherment" => usages.key_encipherment = true,
            other => return Err(format!("invalid usage for client certificate: {other}")),
        }
    }
    if client_auth {
        Ok(usages)
    } else {
        Err("missing required usage for client certificate: client auth".into())
    }
}

/// The conditions of the request and that it failed.
fn failed(request: &CertificateSigningRequest, why: &str, now: Timestamp) -> Value {
    let conditions = request.status.as_ref().and_then(|status| status.conditions.clone());
    let mut conditions: Vec<Value> =
        conditions.into_iter().flatten().map(|condition| json!(condition)).collect();
    // A merge patch replaces the list whole: the conditions that are there have to be said again.
    conditions.push(
        json!({"type": "Failed", "status": "True", "reason": "SignerValidationFailure", "message": why,
        "lastUpdateTime": rfc3339(now)}),
    );
    json!({"conditions": conditions})
}

impl Signer {
    async fn reconcile(&self, name: String) -> Result<Next, Error> {
        let requests: Api<CertificateSigningRequest> = Api::all(self.client.clone());
        let Some(request) = requests.get_opt(&name).await?.filter(is_due) else { return Ok(Next::Wait) };
        let status = self.answer(&request)?;
        // With the version that was read: a request that was denied in this moment must not get its certificate.
        let patch =
            json!({"metadata": {"resourceVersion": request.metadata.resource_version}, "status": status});
        let requests = api(&self.client, &ApiResource::erase::<CertificateSigningRequest>(&()), None);
        requests.patch_status(&name, &patcher(), &Patch::Merge(&patch)).await?;
        Ok(Next::Wait)
    }

    /// What becomes of the request's status.
    fn answer(&self, request: &CertificateSigningRequest) -> Result<Value, Error> {
        let now = self.clock.now();
        let asked = request.spec.usages.as_deref().unwrap_or_default();
        let parsed =
            usages(asked).and_then(|usages| Ok((usages, Request::from_pem(&request.spec.request.0)?)));
        let (usages, parsed) = match parsed {
            Ok(parsed) => parsed,
            Err(why) => return Ok(failed(request, &why, now)),
        };
        let lifetime = lifetime(request.spec.expiration_seconds, self.longest);
        // 128 random bits: nobody keeps a count of serial numbers, and a guessable one helps forgers of signatures.
        let mut serial = [0; 16];
        getrandom::fill(&mut serial)
            .map_err(|_| Error::Incomplete("no randomness for a serial number".into()))?;
        let certificate = self.authority.sign(&parsed, usages, lifetime, now, serial)?;
        Ok(json!({"certificate": k8s_openapi::ByteString(certificate.into_bytes())}))
    }
}

#[cfg(test)]
mod tests {
    use super::super::authority::{expiry, tests};
    use super::*;
    use crate::mock::{Answer, server};
    use std::sync::Mutex;

    fn request(conditions: Value, usages: Value) -> Value {
        let pem = k8s_openapi::ByteString(tests::request("robot").into_bytes());
        json!({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
            "metadata": {"name": "r", "resourceVersion": "4"},
            "spec": {"request": pem, "signerName": SIGNER, "usages": usages, "expirationSeconds": 3600},
            "status": {"conditions": conditions}})
    }

    fn parsed(value: Value) -> CertificateSigningRequest {
        serde_json::from_value(value).unwrap()
    }

    fn approved() -> Value {
        json!([{"type": "Approved", "status": "True"}])
    }

    #[test]
    fn only_approved_requests_for_this_signer_without_certificate_are_due() {
        let good = request(approved(), json!(["client auth"]));
        assert!(is_due(&parsed(good.clone())));
        assert!(!is_due(&parsed(request(json!([]), json!(["client auth"])))));
        for kind in ["Denied", "Failed"] {
            let mut refused = good.clone();
            refused["status"]["conditions"]
                .as_array_mut()
                .unwrap()
                .push(json!({"type": kind, "status": "True"}));
            assert!(!is_due(&parsed(refused)), "{kind}");
        }
        let mut issued = good.clone();
        issued["status"]["certificate"] = json!("eA==");
        assert!(!is_due(&parsed(issued)));
        let mut foreign = good;
        foreign["spec"]["signerName"] = json!("example.com/mine");
        assert!(!is_due(&parsed(foreign)));
    }

    #[test]
    fn usages_of_clients() {
        let check = |asked: &[&str]| usages(&asked.iter().map(|usage| (*usage).into()).collect::<Vec<_>>());
        assert!(check(&["client auth", "digital signature"]).unwrap().digital_signature);
        assert_eq!(
            check(&["digital signature"]).unwrap_err(),
            "missing required usage for client certificate: client auth"
        );
        assert_eq!(
            check(&["client auth", "server auth"]).unwrap_err(),
            "invalid usage for client certificate: server auth"
        );
    }

    /// What is written when the request has these usages.
    async fn written(asked: Value) -> Value {
        let writes: Arc<Mutex<Vec<Value>>> = Arc::default();
        let log = writes.clone();
        let object = request(approved(), asked);
        let client = server(move |request| {
            if request.method == "PATCH" {
                assert!(request.path.ends_with("/certificatesigningrequests/r/status"), "{}", request.path);
                log.lock().unwrap().push(request.body);
            }
            Answer::ok(object.clone())
        });
        let (authority, _) = tests::authority(&rcgen::PKCS_ECDSA_P256_SHA256);
        let year = SignedDuration::from_hours(24 * 365);
        let (signer, _backlog, _) = signer(client, authority.into(), year, Arc::new(At));
        assert_eq!(signer.reconcile("r".into()).await.unwrap(), Next::Wait);
        let mut writes = writes.lock().unwrap();
        assert_eq!(writes.len(), 1);
        assert_eq!(writes[0]["metadata"]["resourceVersion"], "4");
        writes.remove(0)["status"].take()
    }

    struct At;
    impl fleetpass_api::clock::Clock for At {
        fn now(&self) -> Timestamp {
            "2026-05-01T12:00:00Z".parse().unwrap()
        }
    }

    #[tokio::test]
    async fn an_approved_request_gets_its_certificate() {
        let status = written(json!(["client auth"])).await;
        let pem: k8s_openapi::ByteString = serde_json::from_value(status["certificate"].clone()).unwrap();
        assert_eq!(expiry(&pem.0), Some("2026-05-01T13:00:00Z".parse().unwrap()));
        assert!(status.get("conditions").is_none());
    }

    #[tokio::test]
    async fn a_request_that_cannot_be_signed_is_told_why() {
        let status = written(json!(["server auth"])).await;
        assert_eq!(status["conditions"][0]["type"], "Approved");
        assert_eq!(status["conditions"][1]["reason"], "SignerValidationFailure");
        assert_eq!(status["conditions"][1]["message"], "invalid usage for client certificate: server auth");
    }
}
