//! The certificates, keys and kubeconfig with which a control plane serves, and what keeps them fresh.

use crate::files::{self, Fault};
use crate::keep::Renewal;
use crate::kubeconfig::{KubeconfigFile, administrator};
use crate::net;
use crate::operator_files::OperatorFiles;
use crate::pki::{Authority, Identity, Serving, open_signing_key, serving_names};
use crate::server::TokenOptions;
use crate::settings::{CertificateFiles, Settings};
use fleetpass_apiserver::tls::{ServingCertificate, server_config};
use fleetpass_token::ring::KeyRing;
use jiff::SignedDuration;
use rustls_pki_types::CertificateDer;
use std::net::SocketAddr;
use std::sync::Arc;

/// How often certificate files of somebody else are looked at.
const CERTIFICATE_FILES_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

/// What the control plane made for itself and keeps in `pki/`, together with what the operator gave.
pub(crate) struct Credentials {
    /// The authority that this control plane made for itself.
    pub(crate) authority: Arc<Authority>,
    /// The certificates (PEM) that clients have to trust.
    pub(crate) trust: String,
    /// With what TLS is served.
    pub(crate) tls: Arc<rustls::ServerConfig>,
    /// The keys and users that tokens are checked with.
    pub(crate) tokens: TokenOptions,
    /// What has to be renewed while the control plane runs.
    pub(crate) keep: Vec<Renewal>,
}

impl Credentials {
    /// Opens or makes what the settings do not give, and writes the administrator's kubeconfig. Blocks: files are read and
    /// written, and keys made.
    ///
    /// # Errors
    ///
    /// A file cannot be used; the error names it. What was there has not been changed.
    pub(crate) fn open(
        settings: &Settings,
        given: OperatorFiles,
        bound: SocketAddr,
        url: String,
        now: jiff::Timestamp,
    ) -> anyhow::Result<Self> {
        let directory = settings.directory.join("pki");
        files::create_directory(&directory)?;
        let authority = Arc::new(Authority::open(&directory, &settings.name, now)?);
        let mut keep: Vec<Renewal> = Vec::new();
        // The certificate that was given, which is followed, or one of our own, which is renewed. Clients trust accordingly.
        let (serving, trust) = match (&given.certificate, &settings.certificate) {
            (Some(identity), Some(files)) => {
                let serving = ServingCertificate::new(identity.chain().to_vec(), identity.key()?)?;
                keep.push(follow_files(files.clone(), serving.clone(), identity.chain().to_vec()));
                (serving, trust_of(identity))
            }
            _ => {
                let own = Serving::new(&directory, serving_names(bound.ip(), net::hostname().as_deref()));
                let (identity, _) = own.ensure(&authority, now)?;
                let serving = ServingCertificate::new(identity.chain().to_vec(), identity.key()?)?;
                keep.push(renew(own, authority.clone(), serving.clone()));
                (serving, authority.certificate_pem().to_owned())
            }
        };
        // None is made where one was given: it would lie there, and be taken for the one that signs.
        let signing_key = match &given.signing_key {
            Some(_) => None,
            None => Some(open_signing_key(&directory)?),
        };
        let ring = key_ring(settings, &given, signing_key.as_deref().map(Vec::as_slice))?;
        let kubeconfig = KubeconfigFile {
            path: settings.kubeconfig.clone(),
            cluster: settings.name.clone(),
            server: url,
            trust: trust.clone(),
            subject: administrator(),
            authority: authority.clone(),
        };
        // Now and not only by the renewal: it has to be there when the start is reported.
        kubeconfig.ensure(now)?;
        keep.push(Box::new(move |now| Ok(kubeconfig.ensure(now)?)));
        // Our own authority always, as agents and administrators have their certificates from it.
        let mut client_cas = vec![authority.certificate().clone()];
        client_cas.extend(given.client_cas.iter().cloned());
        let api_audiences = match settings.api_audiences.as_slice() {
            [] => settings.issuers.clone(),
            some => some.to_vec(),
        };
        Ok(Self {
            tls: server_config(serving, &client_cas)?,
            authority,
            trust,
            tokens: TokenOptions {
                ring,
                issuers: settings.issuers.clone(),
                api_audiences,
                max_expiration: settings.max_token_expiration,
                users: given.users,
            },
            keep,
        })
    }
}

fn key_ring(settings: &Settings, given: &OperatorFiles, own: Option<&[u8]>) -> anyhow::Result<KeyRing> {
    // One by one first, so that an error can name the file.
    for (path, pem) in settings.key_files.iter().zip(&given.keys) {
        fleetpass_token::key::VerifyingKey::from_pem(pem)
            .map_err(|error| Fault::new(path, format!("holds no usable key: {error}"), ""))?;
    }
    let signing = match (&given.signing_key, own) {
        (Some(given), _) => given.as_slice(),
        (None, own) => own.unwrap_or_default(),
    };
    let path = settings.signing_key_file.clone().unwrap_or_else(|| settings.directory.join("pki/sa.key"));
    KeyRing::from_pem(signing, &given.keys.iter().map(|pem| pem.as_slice()).collect::<Vec<_>>())
        .map_err(|error| Fault::new(&path, format!("holds no usable key: {error}"), "").into())
}

/// What clients have to trust where the certificate was given: those who issued it, or itself if it comes alone.
fn trust_of(identity: &Identity) -> String {
    let mut blocks = identity.chain_pem().split_inclusive("-----END CERTIFICATE-----\n");
    let leaf = blocks.next().unwrap_or_default();
    let issuers: String = blocks.collect();
    if issuers.is_empty() { leaf.to_owned() } else { issuers }
}

fn renew(own: Serving, authority: Arc<Authority>, serving: Arc<ServingCertificate>) -> Renewal {
    // The certificate that is served. The first call sets it again, which changes nothing.
    let mut shown: Option<Vec<CertificateDer<'static>>> = None;
    Box::new(move |now| {
        let (identity, renew_at) = own.ensure(&authority, now)?;
        if shown.as_deref() != Some(identity.chain()) {
            serving.replace(identity.chain().to_vec(), identity.key()?)?;
            shown = Some(identity.chain().to_vec());
        }
        Ok(renew_at)
    })
}

fn follow_files(
    files: CertificateFiles,
    serving: Arc<ServingCertificate>,
    mut shown: Vec<CertificateDer<'static>>,
) -> Renewal {
    Box::new(move |now| {
        // While the two files are replaced one after the other they do not fit, which is an error here: what is served
        // stays, and the next look comes in a minute.
        let identity = files.read()?;
        if shown != identity.chain() {
            serving.replace(identity.chain().to_vec(), identity.key()?)?;
            shown = identity.chain().to_vec();
            tracing::info!(file = %files.chain.display(), "serving a new certificate");
        }
        Ok(now.saturating_add(CERTIFICATE_FILES_INTERVAL)?)
    })
}
