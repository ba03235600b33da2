//! A control plane from its data directory: store, certificates, keys, API server, controllers.
//!
//! ```text
//! DIRECTORY/
//!   store/          the objects (see fleetpass-store), unless they are on etcd (see the module `storage`)
//!   encryption.key  the keys that seal Secrets in the store
//!   pki/            certificates and signing keys (see the module `pki`)
//! ```
//!
//! Starting opens the store first: its lock keeps a second process out before anything is written.

use crate::control_plane::{ControlPlane, Jobs, Requests, Role, Tokens};
use crate::files::{self, Access, Fault};
use crate::keep::{Ensure, keep_fresh};
use crate::kubeconfig::{Wanted, administrator};
use crate::net;
use crate::pki::{Authority, Identity, Serving, open_signing_key, serving_names};
use crate::storage::{self, Opened, Storage};
use anyhow::Context as _;
use fleetpass_api::clock::SharedClock;
use fleetpass_apiserver::RequestLimits;
use fleetpass_apiserver::audit::{Log, RotatingFile, Rotation, Stdout};
use fleetpass_apiserver::tls::{ServingCertificate, server_config};
use fleetpass_auth::authn::TokenFile;
use fleetpass_store::Store;
use fleetpass_token::ring::KeyRing;
use jiff::SignedDuration;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// What a control plane is made of.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Its name: of its certificate authority, and of the context in its kubeconfig.
    pub name: String,
    /// Its data directory.
    pub directory: PathBuf,
    /// What it is for.
    pub role: Role,
    /// Where its administrator's kubeconfig is written.
    pub kubeconfig: PathBuf,
    /// Certificate and key files, instead of a certificate of its own.
    pub certificate: Option<CertificateFiles>,
    /// Further authorities for client certificates.
    pub client_ca_file: Option<PathBuf>,
    /// Static bearer tokens.
    pub token_auth_file: Option<PathBuf>,
    /// Issuers of service-account tokens; at least one.
    pub issuers: Vec<String>,
    /// Audiences of the API; empty for the issuers.
    pub api_audiences: Vec<String>,
    /// The longest lifetime of a token.
    pub max_token_expiration: Option<Duration>,
    /// The key that signs tokens, instead of one of its own.
    pub signing_key_file: Option<PathBuf>,
    /// Further keys that verify tokens.
    pub key_files: Vec<PathBuf>,
    /// Where its objects are.
    pub storage: Storage,
    /// Whether Secrets are sealed in the store.
    pub encrypt_secrets: bool,
    /// The audit log, if one is kept.
    pub audit_log: Option<AuditLog>,
    /// How much it does at once, and for how long.
    pub limits: RequestLimits,
}

/// Where the audit log goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AuditLog {
    /// To standard output.
    Stdout,
    /// To a file.
    File(PathBuf, Rotation),
}

impl AuditLog {
    fn open(&self, clock: &SharedClock) -> anyhow::Result<Log> {
        let log = match self {
            Self::Stdout => Log::start(Stdout),
            Self::File(path, rotation) => {
                Log::start(RotatingFile::open(path, *rotation, clock.clone()).context("--audit-log-path")?)
            }
        };
        log.context("the audit log cannot start")
    }
}

/// A serving certificate that somebody else looks after.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The chain, leaf first.
    pub chain: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// A running control plane.
pub struct Plane {
    /// Its name.
    pub name: String,
    /// Its URL, for clients on this machine.
    pub url: String,
    /// The certificates (PEM) that its clients trust.
    pub trust: String,
    /// Its certificate authority.
    pub authority: Arc<Authority>,
    /// Whether its data directory held objects before.
    pub continued: bool,
    control_plane: ControlPlane,
    store: Arc<dyn Store>,
    controllers: JoinSet<()>,
    servers: JoinSet<()>,
    stop_controllers: CancellationToken,
    stop_server: CancellationToken,
}

/// How long parts that were told to stop may take.
const GRACE: Duration = Duration::from_secs(15);
/// How often certificate files of somebody else are looked at.
const CERTIFICATE_FILES_INTERVAL: SignedDuration = SignedDuration::from_mins(1);

impl Plane {
    /// Starts everything and serves on the listener.
    ///
    /// # Errors
    ///
    /// A file cannot be used, or the data directory is in use, damaged or of a newer version: the error names the file
    /// and says what to do. What was there has not been changed.
    pub async fn start(
        settings: Settings,
        listener: TcpListener,
        clock: SharedClock,
    ) -> anyhow::Result<Self> {
        let bound = listener.local_addr().context("the listener has no address")?;
        let given = Given::read(&settings, &clock)?;
        let opened = storage::open(&settings).await?;
        let store = opened.store.clone();
        let started = Self::start_on(settings, given, listener, bound, clock, opened).await;
        if started.is_err() {
            store.close().await;
        }
        started
    }

    async fn start_on(
        settings: Settings,
        given: Given,
        listener: TcpListener,
        bound: SocketAddr,
        clock: SharedClock,
        opened: Opened,
    ) -> anyhow::Result<Self> {
        let local = net::local(bound);
        let url = format!("https://{local}");
        let audit = given.audit.clone();
        let own = {
            let (settings, url, now) = (settings.clone(), url.clone(), clock.now());
            tokio::task::spawn_blocking(move || Own::open(&settings, given, bound, url, now)).await??
        };
        let now = clock.now();
        let signs = own.tokens.ring.signer(now).map(|key| key.public().id().to_string()).unwrap_or_default();
        opened.agree(&own.authority, &signs, |id| own.tokens.ring.verifies(id, now)).await?;
        let external = match (bound.ip().is_unspecified(), net::hostname()) {
            (true, Some(name)) => format!("{name}:{}", bound.port()),
            _ => local.to_string(),
        };
        let (stop_server, stop_controllers) = (CancellationToken::new(), CancellationToken::new());
        let control_plane = ControlPlane::start(
            settings.role,
            opened.store.clone(),
            clock.clone(),
            own.tokens,
            Requests { external_address: external, audit, limits: settings.limits },
            stop_server.clone(),
        )
        .await?;
        let signer =
            own.authority.certificate_signer().context("the certificate authority cannot sign requests")?;
        let mut servers = JoinSet::new();
        servers.spawn(control_plane.serve(listener, own.tls));
        let elected = matches!(settings.storage, Storage::Etcd(_)).then(candidate).transpose()?;
        let jobs = Jobs { role: settings.role, trust: own.trust.clone(), authority: signer, elected };
        let controllers = control_plane.start_controllers(jobs, &clock, &stop_controllers);
        // Ends with the server; not a part whose end is a fault.
        tokio::spawn(keep_fresh(own.keep, clock, stop_server.clone()));
        Ok(Self {
            name: settings.name,
            url,
            trust: own.trust,
            authority: own.authority,
            continued: opened.continued,
            control_plane,
            store: opened.store,
            controllers,
            servers,
            stop_controllers,
            stop_server,
        })
    }

    /// A client without a socket, to whom everything is allowed.
    pub fn client(&self) -> kube::Client {
        self.control_plane.client()
    }

    /// Waits until a part ends that should not, and says which.
    pub async fn failed(&mut self) -> anyhow::Error {
        let part = tokio::select! {
            Some(_) = self.controllers.join_next() => "a controller",
            Some(_) = self.servers.join_next() => "the API server",
            else => "everything",
        };
        anyhow::anyhow!("{part} of {} ended unexpectedly", self.name)
    }

    /// Stops the controllers.
    pub async fn stop_controllers(&mut self) {
        self.stop_controllers.cancel();
        drain(&self.name, "controllers", &mut self.controllers).await;
    }

    /// Stops the API server; requests under way have some seconds to end.
    pub async fn stop_server(&mut self) {
        self.stop_server.cancel();
        drain(&self.name, "API server", &mut self.servers).await;
    }

    /// Closes the store, and writes what is left for the audit log.
    pub async fn close(self) {
        if tokio::time::timeout(GRACE, self.control_plane.flush_audit_log()).await.is_err() {
            tracing::warn!(plane = self.name, "the audit log could not be written in time");
        }
        self.store.close().await;
    }
}

/// Stops control planes in the order in which they depend on each other: all controllers, all servers, all stores.
pub async fn stop(mut planes: Vec<Plane>) {
    futures::future::join_all(planes.iter_mut().map(Plane::stop_controllers)).await;
    futures::future::join_all(planes.iter_mut().map(Plane::stop_server)).await;
    futures::future::join_all(planes.into_iter().map(Plane::close)).await;
}

/// The name of this process among the replicas of the hub.
fn candidate() -> anyhow::Result<String> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random)
        .map_err(|error| anyhow::anyhow!("the system gives no randomness: {error}"))?;
    let host = net::hostname().unwrap_or_else(|| "hub".into());
    Ok(format!("{host}_{:016x}", u64::from_be_bytes(random)))
}

async fn drain(name: &str, what: &str, tasks: &mut JoinSet<()>) {
    let all = async { while tasks.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all).await.is_err() {
        tracing::warn!(plane = name, what, "did not stop in time");
        tasks.abort_all();
    }
}

/// What the operator gave in files of his own; read before anything is written.
struct Given {
    certificate: Option<Identity>,
    client_cas: Vec<CertificateDer<'static>>,
    users: TokenFile,
    signing_key: Option<zeroize::Zeroizing<Vec<u8>>>,
    keys: Vec<zeroize::Zeroizing<Vec<u8>>>,
    audit: Option<Log>,
}

impl Given {
    fn read(settings: &Settings, clock: &SharedClock) -> anyhow::Result<Self> {
        let read = |flag: &'static str, path: &PathBuf| files::read_required(path, Access::Any).context(flag);
        let users = match &settings.token_auth_file {
            Some(path) => read_users(path).context("--token-auth-file")?,
            None => TokenFile::default(),
        };
        let certificate = settings.certificate.as_ref().map(CertificateFiles::read).transpose();
        let client_cas = settings.client_ca_file.as_deref().map(read_certificates).transpose();
        Ok(Self {
            certificate: certificate.context("--tls-cert-file and --tls-private-key-file")?,
            client_cas: client_cas.context("--client-ca-file")?.unwrap_or_default(),
            users,
            signing_key: settings
                .signing_key_file
                .as_ref()
                .map(|path| read("--service-account-signing-key-file", path))
                .transpose()?,
            keys: settings
                .key_files
                .iter()
                .map(|path| read("--service-account-key-file", path))
                .collect::<Result<_, _>>()?,
            audit: settings.audit_log.as_ref().map(|log| log.open(clock)).transpose()?,
        })
    }
}

fn read_users(path: &Path) -> Result<TokenFile, Fault> {
    let content = files::read_required(path, Access::Any)?;
    let text = std::str::from_utf8(&content).map_err(|_| Fault::new(path, "is not UTF-8 text", ""))?;
    TokenFile::parse(text).map_err(|error| Fault::new(path, format!("is refused: {error}"), ""))
}

impl CertificateFiles {
    fn read(&self) -> Result<Identity, Fault> {
        let chain = files::read_required(&self.chain, Access::Any)?;
        let key = files::read_required(&self.key, Access::Any)?;
        Identity::from_pem(&chain, &key).map_err(|error| {
            let file = if error == crate::pki::IdentityError::Key { &self.key } else { &self.chain };
            let problem = match error {
                crate::pki::IdentityError::Mismatch => {
                    format!("does not belong to the private key in {}", self.key.display())
                }
                error => error.to_string(),
            };
            Fault::new(file, problem, "")
        })
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let pem = files::read_required(path, Access::Any)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates
        .ok()
        .filter(|list| !list.is_empty())
        .ok_or_else(|| Fault::new(path, "holds no certificates that can be read", ""))
}

/// What the control plane made for itself, and what came of it together with what was given.
struct Own {
    authority: Arc<Authority>,
    trust: String,
    tls: Arc<rustls::ServerConfig>,
    tokens: Tokens,
    keep: Vec<Ensure>,
}

impl Own {
    fn open(
        settings: &Settings,
        given: Given,
        bound: SocketAddr,
        url: String,
        now: jiff::Timestamp,
    ) -> anyhow::Result<Self> {
        let directory = settings.directory.join("pki");
        files::create_directory(&directory)?;
        let authority = Arc::new(Authority::open(&directory, &settings.name, now)?);
        let mut keep: Vec<Ensure> = Vec::new();
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
        let signing_key = match &given.signing_key {
            Some(_) => None,
            None => Some(open_signing_key(&directory)?),
        };
        let ring = key_ring(settings, &given, signing_key.as_deref().map(Vec::as_slice))?;
        let kubeconfig = Wanted {
            path: settings.kubeconfig.clone(),
            cluster: settings.name.clone(),
            server: url,
            trust: trust.clone(),
            subject: administrator(),
            authority: authority.clone(),
        };
        kubeconfig.ensure(now)?;
        keep.push(Box::new(move |now| Ok(kubeconfig.ensure(now)?)));
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
            tokens: Tokens {
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

fn key_ring(settings: &Settings, given: &Given, own: Option<&[u8]>) -> anyhow::Result<KeyRing> {
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

fn renew(own: Serving, authority: Arc<Authority>, serving: Arc<ServingCertificate>) -> Ensure {
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
) -> Ensure {
    Box::new(move |now| {
        let identity = files.read()?;
        if shown != identity.chain() {
            serving.replace(identity.chain().to_vec(), identity.key()?)?;
            shown = identity.chain().to_vec();
            tracing::info!(file = %files.chain.display(), "serving a new certificate");
        }
        Ok(now.saturating_add(CERTIFICATE_FILES_INTERVAL)?)
    })
}
