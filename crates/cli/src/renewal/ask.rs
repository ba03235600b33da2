//! Asking the hub for a certificate.

use super::{rules, subject};
use crate::clients::Loaded;
use crate::pki::Identity;
use anyhow::Context as _;
use fleetpass_api::clock::SharedClock;
use k8s_openapi::ByteString;
use k8s_openapi::api::certificates::v1::{
    CertificateSigningRequest, CertificateSigningRequestSpec, CertificateSigningRequestStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use rcgen::{KeyPair, PublicKeyData as _};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::{ExposeSecret as _, SecretString};
use std::time::Duration;

/// The signer of certificates for clients of the hub.
const SIGNER: &str = "kubernetes.io/kube-apiserver-client";
/// Approval and signature by controllers take a second or two. When they take this, somebody has to be told.
const PATIENCE: Duration = Duration::from_secs(120);
/// How often the hub is asked how it stands: at first, and at last.
const FIRST_POLL: Duration = Duration::from_millis(500);
const LAST_POLL: Duration = Duration::from_secs(60);
/// How often a new credential is shown to the hub before it counts as not taken: other servers of the hub may not know yet
/// what one of them has signed with.
const TRIALS: u32 = 5;

/// Why the certificate is not renewed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Trouble {
    #[error(
        "its files are on a volume of a Secret and cannot be written: name the Secret with --hub-kubeconfig-secret"
    )]
    Volume,
    #[error("a new one could not be kept: {0:#}")]
    Keep(anyhow::Error),
    #[error(
        "the hub does not let the agent create CertificateSigningRequests: bind the ClusterRole \
         open-cluster-management:managed-serviceaccount:agent-renewal to it, which `fleetpass install hub` prints"
    )]
    NotAllowed,
    #[error("the hub does not answer as it should: {0}")]
    Hub(String),
    #[error(
        "nobody has approved the CertificateSigningRequest {0} yet: `kubectl certificate approve {0}` does, once; always, a \
         Fleetpass hub or `fleetpass manager`"
    )]
    Unanswered(String),
    #[error("the CertificateSigningRequest {0} was denied: {1}")]
    Denied(String, String),
    #[error("the CertificateSigningRequest {0} failed: {1}")]
    Failed(String, String),
    #[error("the CertificateSigningRequest {0} was deleted before it was answered")]
    Gone(String),
    #[error("the certificate of the CertificateSigningRequest {0} is of no use: {1}")]
    Unfit(String, rules::Unfit),
    #[error(
        "the hub does not take the certificate that it issued for the CertificateSigningRequest {0}: {1}"
    )]
    NotTaken(String, String),
}

/// A byte of chance, for pauses.
pub(super) fn random() -> u8 {
    let mut byte = [0];
    // Without randomness all pauses are full: slower, and otherwise as good.
    let _ = getrandom::fill(&mut byte);
    byte[0]
}

/// How a request stands.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Pending,
    Issued(Vec<u8>),
    Denied(String),
    Failed(String),
}

/// How a request with this status stands. Denied and failed count before a certificate, which neither should have.
fn standing(status: Option<&CertificateSigningRequestStatus>) -> Standing {
    let conditions = status.and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let because = |kind: &str| {
        let condition =
            conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")?;
        let text = condition.message.clone().or_else(|| condition.reason.clone());
        Some(text.unwrap_or_else(|| "no reason given".into()))
    };
    if let Some(why) = because("Denied") {
        return Standing::Denied(why);
    }
    if let Some(why) = because("Failed") {
        return Standing::Failed(why);
    }
    match status.and_then(|status| status.certificate.as_ref()) {
        Some(pem) if !pem.0.is_empty() => Standing::Issued(pem.0.clone()),
        _ => Standing::Pending,
    }
}

/// A key, and a certificate that is asked for with it.
pub(super) struct Asked {
    old: CertificateDer<'static>,
    key: KeyPair,
    pem: String,
    seconds: i32,
}

impl Asked {
    /// A new key, and a request for a certificate like `old`.
    pub(super) fn new(old: &Identity) -> anyhow::Result<Self> {
        let leaf = old.chain().first().context("there is no certificate")?.clone();
        let key = KeyPair::generate().context("no new key could be made")?;
        let pem = subject::request(&leaf, &key)?;
        Ok(Self { old: leaf, key, pem, seconds: rules::asked_seconds(old.validity()) })
    }

    /// Asks, waits for the answer however long it takes, and tries it. What takes long, `complain` is told meanwhile.
    pub(super) async fn answer(
        &self,
        hub: &Loaded,
        cluster: &str,
        clock: &SharedClock,
        complain: impl Fn(&Trouble),
    ) -> Result<Identity, Trouble> {
        let client = hub.client();
        let name = self.send(&client, cluster).await?;
        let pem = poll(&client, &name, &complain).await?;
        let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&pem)
            .collect::<Result<_, _>>()
            .map_err(|_| Trouble::Unfit(name.clone(), rules::Unfit::Unreadable))?;
        let chain: Vec<&[u8]> = chain.iter().map(AsRef::as_ref).collect();
        let public_key = self.key.subject_public_key_info();
        rules::accept(&self.old, &chain, &public_key, clock.now())
            .map_err(|unfit| Trouble::Unfit(name.clone(), unfit))?;
        let key = SecretString::from(self.key.serialize_pem());
        let identity = Identity::from_pem(&pem, key.expose_secret().as_bytes())
            .map_err(|_| Trouble::Unfit(name.clone(), rules::Unfit::Key))?;
        try_out(hub, &identity, &name).await?;
        Ok(identity)
    }

    /// Sends the request, and gives its name.
    async fn send(&self, client: &Client, cluster: &str) -> Result<String, Trouble> {
        let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
        let request = CertificateSigningRequest {
            metadata: ObjectMeta {
                generate_name: Some(format!("fleetpass-agent-{cluster}-")),
                ..ObjectMeta::default()
            },
            spec: CertificateSigningRequestSpec {
                request: ByteString(self.pem.clone().into_bytes()),
                signer_name: SIGNER.into(),
                usages: Some(vec!["client auth".into(), "digital signature".into()]),
                expiration_seconds: Some(self.seconds),
                ..CertificateSigningRequestSpec::default()
            },
            status: None,
        };
        match requests.create(&PostParams::default(), &request).await {
            Ok(created) => {
                let name = created.metadata.name;
                name.ok_or_else(|| Trouble::Hub("it gave the request no name".into()))
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => Err(Trouble::NotAllowed),
            Err(error) => Err(Trouble::Hub(error.to_string())),
        }
    }
}

/// Waits for the certificate. There is no end to it: whoever approves by hand may take days, and another request would only
/// be one more to approve. Requests that nobody answers are deleted by the hub after a day.
async fn poll(client: &Client, name: &str, complain: &impl Fn(&Trouble)) -> Result<Vec<u8>, Trouble> {
    let requests: Api<CertificateSigningRequest> = Api::all(client.clone());
    let (mut waited, mut pause) = (Duration::ZERO, FIRST_POLL);
    loop {
        match requests.get_opt(name).await {
            Ok(None) => return Err(Trouble::Gone(name.into())),
            Ok(Some(request)) => match standing(request.status.as_ref()) {
                Standing::Issued(pem) => return Ok(pem),
                Standing::Denied(why) => return Err(Trouble::Denied(name.into(), why)),
                Standing::Failed(why) => return Err(Trouble::Failed(name.into(), why)),
                Standing::Pending if waited >= PATIENCE => complain(&Trouble::Unanswered(name.into())),
                Standing::Pending => {}
            },
            // The hub may be away for a while; the request is there.
            Err(error) if waited >= PATIENCE => complain(&Trouble::Hub(error.to_string())),
            Err(_) => {}
        }
        let now = pause - pause / 512 * u32::from(random());
        tokio::time::sleep(now).await;
        waited += now;
        pause = (pause * 2).min(LAST_POLL);
    }
}

/// Asks the hub for the request once more, as whoever the new certificate says.
async fn try_out(hub: &Loaded, identity: &Identity, name: &str) -> Result<(), Trouble> {
    let not_taken = |why: String| Trouble::NotTaken(name.to_owned(), why);
    let client = hub.client_with(identity.chain_pem(), identity.key_pem());
    let client = client.map_err(|error| not_taken(format!("{error:#}")))?;
    let requests: Api<CertificateSigningRequest> = Api::all(client);
    let mut pause = FIRST_POLL;
    for _ in 1..TRIALS {
        if requests.get_metadata(name).await.is_ok() {
            return Ok(());
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    requests.get_metadata(name).await.map(drop).map_err(|error| not_taken(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_request_stands_as_its_status_says() {
        let condition = |kind: &str, status: &str| json!({"type": kind, "status": status, "message": "m"});
        for (status, expected) in [
            (json!({}), Standing::Pending),
            (json!({"certificate": ""}), Standing::Pending),
            (json!({"conditions": [condition("Approved", "True")]}), Standing::Pending),
            (json!({"conditions": [condition("Denied", "False")]}), Standing::Pending),
            (json!({"certificate": "eA=="}), Standing::Issued(b"x".to_vec())),
            (json!({"conditions": [condition("Denied", "True")]}), Standing::Denied("m".into())),
            (
                json!({"conditions": [condition("Failed", "True")], "certificate": "eA=="}),
                Standing::Failed("m".into()),
            ),
            (
                json!({"conditions": [{"type": "Denied", "status": "True", "reason": "r"}]}),
                Standing::Denied("r".into()),
            ),
        ] {
            let parsed: CertificateSigningRequestStatus = serde_json::from_value(status.clone()).unwrap();
            assert_eq!(standing(Some(&parsed)), expected, "{status}");
        }
        assert_eq!(standing(None), Standing::Pending);
    }
}
