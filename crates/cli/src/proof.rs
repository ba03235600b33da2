//! Whether a projected token is what it should be: shown to its cluster, which is asked whose it is.

use crate::control_plane::ControlPlane;
use anyhow::{Context as _, bail, ensure};
use fleetpass_api::{ManagedServiceAccount, names};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::{Api, Client, Config};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use secrecy::SecretString;
use std::time::Duration;

/// How long a token may take to come, from the first agent's start.
const PATIENCE: Duration = Duration::from_secs(60);
/// The pause before looking again.
const PAUSE: Duration = Duration::from_millis(50);

/// What a cluster said about a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    /// The cluster.
    pub(crate) cluster: String,
    /// The user that the token authenticates as.
    pub(crate) user: String,
    /// When the token expires, as the account's status says; RFC 3339.
    pub(crate) expires: String,
}

/// Where a cluster is, as whoever reads the Secret would know it.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// The cluster's name.
    pub(crate) cluster: String,
    /// The URL of its API.
    pub(crate) url: String,
}

impl Target {
    /// That cluster.
    pub(crate) fn of(control_plane: &ControlPlane) -> Self {
        Self { cluster: control_plane.name.clone(), url: control_plane.url.clone() }
    }
}

/// Waits for the account's token, and proves it. Everything is read with `hub`, and nothing else is known of the
/// cluster but its URL: the token and the CA in the Secret have to suffice.
///
/// # Errors
///
/// There is no good token within a minute; the error says what the account's status and the cluster said last.
pub(crate) async fn prove(hub: &Client, target: &Target, account: &str) -> anyhow::Result<Proof> {
    let mut last = None;
    // Asked again and again instead of watched: it has to end in a minute, and its last error is what the user needs.
    let attempts = async {
        loop {
            match attempt(hub, target, account).await {
                Ok(proof) => return proof,
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    if let Ok(proof) = tokio::time::timeout(PATIENCE, attempts).await {
        return Ok(proof);
    }
    let error = last.unwrap_or_else(|| anyhow::anyhow!("the hub did not answer"));
    Err(error.context(format!("{} has no good token after {} s", target.cluster, PATIENCE.as_secs())))
}

async fn attempt(hub: &Client, target: &Target, account: &str) -> anyhow::Result<Proof> {
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(hub.clone(), &target.cluster);
    let found = accounts.get(account).await.context("the ManagedServiceAccount cannot be read")?;
    let status = found.status.unwrap_or_default();
    let reported = status.condition(names::CONDITION_TOKEN_REPORTED);
    match reported {
        Some(condition) if condition.status == "True" => {}
        Some(condition) => bail!("{}: {}", condition.reason, condition.message),
        None => bail!("the agent has not reported a token yet"),
    }
    let expires = status.expiration_timestamp.context("the status has no expirationTimestamp")?.0.to_string();
    let secrets: Api<Secret> = Api::namespaced(hub.clone(), &target.cluster);
    let secret = secrets.get(account).await.context("the Secret cannot be read")?;
    let user = who_am_i(&target.url, &secret).await.context("the cluster does not know the token")?;
    // The account's own user, and not just any that the cluster knows.
    let expected = names::service_account_user(names::DEFAULT_AGENT_NAMESPACE, account);
    ensure!(user == expected, "the token is that of {user}, not of {expected}");
    Ok(Proof { cluster: target.cluster.clone(), user, expires })
}

/// Who the cluster at `url` takes the bearer of the Secret's token for.
async fn who_am_i(url: &str, secret: &Secret) -> anyhow::Result<String> {
    let data = secret.data.as_ref().context("the Secret is empty")?;
    let entry = |key: &'static str| data.get(key).with_context(|| format!("the Secret has no {key}"));
    let authorities: Vec<_> = CertificateDer::pem_slice_iter(&entry(names::SECRET_KEY_CA)?.0)
        .map(|certificate| certificate.map(|der| der.to_vec()))
        .collect::<Result<_, _>>()
        .map_err(|_| anyhow::anyhow!("{} of the Secret is not PEM", names::SECRET_KEY_CA))?;
    let token = std::str::from_utf8(&entry(names::SECRET_KEY_TOKEN)?.0)
        .map_err(|_| anyhow::anyhow!("{} of the Secret is not text", names::SECRET_KEY_TOKEN))?;
    // Not from a kubeconfig and not with our own transport: as a stranger would who has the Secret and nothing else.
    let mut config = Config::new(url.parse()?);
    config.root_cert = Some(authorities);
    config.auth_info.token = Some(SecretString::from(token));
    let reviews: Api<SelfSubjectReview> = Api::all(Client::try_from(config)?);
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await?;
    let user = review.status.and_then(|status| status.user_info).and_then(|user| user.username);
    user.context("the cluster's answer names no user")
}
