//! Renewals of agents' certificates: a CertificateSigningRequest in which an agent asks for the name that it has is
//! approved.
//!
//! kube-controller-manager does the same for kubelets (`pkg/controller/certificates/approver/sarapprove.go`): it looks
//! whether the requester asks for its own name, and asks by a SubjectAccessReview on a subresource that nobody serves
//! whether the requester is one of those who may. Here that is `certificatesigningrequests/selfagentclient`, a right
//! that only agents are given ([`crate::join::renewal_manifests`]).
//!
//! # Guarantees
//!
//! - Who gets a certificate has its name and its groups already, by what the API server wrote into the request.
//! - Nothing is denied. What is no renewal may be somebody else's to decide, or an administrator's.
//! - A decision is written onto the request that was read, and onto no other.

use crate::control::control;
use fleetpass_api::clock::SharedClock;
use fleetpass_workqueue::Next;
use jiff::Timestamp;
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    certificates::v1::CertificateSigningRequest,
};
use kube::{
    Api, Client, ResourceExt as _,
    api::{Patch, PatchParams, PostParams},
    runtime::{reflector::ObjectRef, watcher},
};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use x509_parser::{
    certification_request::X509CertificationRequest,
    oid_registry::{OID_X509_COMMON_NAME, OID_X509_ORGANIZATION_NAME},
    prelude::FromDer as _,
};

/// The signer of certificates for clients of the API server.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// The subresource of `certificatesigningrequests` that a right to `create` is needed on. Nobody serves it.
pub(crate) const SUBRESOURCE: &str = "selfagentclient";
/// What a certificate may be used for: what agents need (the first two), and what RSA keys are often given besides.
const USAGES: [&str; 3] = ["client auth", "digital signature", "key encipherment"];
/// The group that the API server adds by itself.
const AUTHENTICATED: &str = "system:authenticated";
/// Users whose credentials are not certificates, or who have an approver of their own. A certificate for one of the
/// former would outlive the token with which it was asked for.
const OTHERS: [&str; 2] = ["system:serviceaccount:", "system:node:"];
/// Time to the next attempt after one that failed.
const RETRY: Duration = Duration::from_secs(5);

/// Why a request is left to others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NotOurs {
    Signer,
    Decided,
    Usages,
    /// It is no request for a certificate, or was not signed with the key that is in it.
    Malformed,
    /// It asks for names of servers, or for what else a certificate may have beside its subject.
    Extensions,
    Name,
    Groups,
}

/// Whether somebody asks for no more than the certificate that it has.
fn is_renewal(request: &CertificateSigningRequest) -> Result<(), NotOurs> {
    let spec = &request.spec;
    if spec.signer_name != SIGNER {
        return Err(NotOurs::Signer);
    }
    let status = request.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    if !conditions.is_empty() || status.is_some_and(|status| status.certificate.is_some()) {
        return Err(NotOurs::Decided);
    }
    let usages = spec.usages.as_deref().unwrap_or_default();
    if !usages.iter().all(|usage| USAGES.contains(&usage.as_str())) || !usages.contains(&USAGES[0].to_owned())
    {
        return Err(NotOurs::Usages);
    }
    let (rest, pem) = x509_parser::pem::parse_x509_pem(&spec.request.0).map_err(|_| NotOurs::Malformed)?;
    if pem.label != "CERTIFICATE REQUEST" || !rest.trim_ascii().is_empty() {
        return Err(NotOurs::Malformed);
    }
    let (rest, csr) = X509CertificationRequest::from_der(&pem.contents).map_err(|_| NotOurs::Malformed)?;
    if !rest.is_empty() || csr.verify_signature().is_err() {
        return Err(NotOurs::Malformed);
    }
    let subject = &csr.certification_request_info.subject;
    if !csr.certification_request_info.attributes().is_empty() {
        return Err(NotOurs::Extensions);
    }
    let user = spec.username.as_deref().unwrap_or_default();
    let groups: Vec<&str> = spec.groups.iter().flatten().map(String::as_str).collect();
    let mut names = 0;
    for attribute in subject.iter_attributes() {
        // Whatever is not text cannot be compared with what the API server understands by it.
        let value = attribute.as_str().map_err(|_| NotOurs::Malformed)?;
        if *attribute.attr_type() == OID_X509_COMMON_NAME {
            names += 1;
            if value != user || OTHERS.iter().any(|prefix| value.starts_with(prefix)) {
                return Err(NotOurs::Name);
            }
        } else if *attribute.attr_type() == OID_X509_ORGANIZATION_NAME {
            if value == AUTHENTICATED || !groups.contains(&value) {
                return Err(NotOurs::Groups);
            }
        } else {
            // Kubernetes reads a user's UID from another attribute, and may come to read more.
            return Err(NotOurs::Name);
        }
    }
    if names == 1 && !user.is_empty() { Ok(()) } else { Err(NotOurs::Name) }
}

/// The question whether the requester is one of those whose renewals are approved.
fn review(request: &CertificateSigningRequest) -> SubjectAccessReview {
    let spec = &request.spec;
    SubjectAccessReview {
        spec: SubjectAccessReviewSpec {
            user: spec.username.clone(),
            groups: spec.groups.clone(),
            uid: spec.uid.clone(),
            extra: spec.extra.clone(),
            resource_attributes: Some(ResourceAttributes {
                group: Some("certificates.k8s.io".into()),
                resource: Some("certificatesigningrequests".into()),
                subresource: Some(SUBRESOURCE.into()),
                verb: Some("create".into()),
                ..ResourceAttributes::default()
            }),
            ..SubjectAccessReviewSpec::default()
        },
        ..SubjectAccessReview::default()
    }
}

/// The approval, for the request as it was read.
fn approval(request: &CertificateSigningRequest, now: Timestamp) -> Value {
    let second = Timestamp::from_second(now.as_second()).unwrap_or(now);
    json!({
        "metadata": {"uid": request.metadata.uid, "resourceVersion": request.metadata.resource_version},
        // The list as it will be: it was empty, or there would be nothing to decide.
        "status": {"conditions": [{
            "type": "Approved", "status": "True", "reason": "AgentRenewal",
            "message": "An agent of the fleet renews the certificate that it has.",
            "lastUpdateTime": second.to_string(),
        }]},
    })
}

struct Context {
    client: Client,
    clock: SharedClock,
    approved: Counter,
}

/// Approves renewals until shut down; counts them in `approved`.
pub(crate) async fn run(client: Client, clock: SharedClock, approved: Counter, shutdown: CancellationToken) {
    let api: Api<CertificateSigningRequest> = Api::all(client.clone());
    let failed = |request: &ObjectRef<_>, error: &kube::Error| {
        tracing::warn!(request = request.name, %error, "the renewal of a certificate could not be approved");
    };
    let select = watcher::Config::default().fields(&format!("spec.signerName={SIGNER}"));
    let context = Arc::new(Context { client, clock, approved });
    let reconcile = |request| reconcile(request, context.clone());
    control(api, select, RETRY, reconcile, failed, &Notify::new(), shutdown).await;
}

async fn reconcile(
    request: Arc<CertificateSigningRequest>,
    context: Arc<Context>,
) -> Result<Next, kube::Error> {
    let (name, user) = (request.name_any(), request.spec.username.as_deref().unwrap_or_default());
    if let Err(why) = is_renewal(&request) {
        tracing::debug!(request = name, ?why, "not a renewal");
        return Ok(Next::Wait);
    }
    let reviews: Api<SubjectAccessReview> = Api::all(context.client.clone());
    let review = reviews.create(&PostParams::default(), &review(&request)).await?;
    if !review.status.is_some_and(|status| status.allowed && status.denied != Some(true)) {
        tracing::debug!(request = name, user, "not an agent's");
        return Ok(Next::Wait);
    }
    let requests: Api<CertificateSigningRequest> = Api::all(context.client.clone());
    let approval = Patch::Merge(approval(&request, context.clock.now()));
    match requests.patch_subresource("approval", &name, &PatchParams::default(), &approval).await {
        Ok(_) => {
            context.approved.inc();
            tracing::info!(request = name, user, "approved the renewal of an agent's certificate");
        }
        // Gone or changed: its own event is on the way.
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {}
        Err(error) => return Err(error),
    }
    Ok(Next::Wait)
}

#[cfg(test)]
mod tests;
