//! What the operator gave in files of his own: certificates, keys, users, the audit log.

use crate::files::{self, Access, Fault};
use crate::pki::{Identity, IdentityError};
use crate::settings::{AuditLog, CertificateFiles, Settings};
use anyhow::Context as _;
use fleetpass_api::clock::SharedClock;
use fleetpass_apiserver::audit::{Log, RotatingFile, Stdout};
use fleetpass_auth::authn::TokenFile;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What the operator gave in files of his own; read before anything is written.
pub(crate) struct OperatorFiles {
    // Empty or None where the settings name nothing.
    pub(crate) certificate: Option<Identity>,
    pub(crate) client_cas: Vec<CertificateDer<'static>>,
    pub(crate) users: TokenFile,
    pub(crate) signing_key: Option<Zeroizing<Vec<u8>>>,
    pub(crate) keys: Vec<Zeroizing<Vec<u8>>>,
    pub(crate) audit: Option<Log>,
}

impl OperatorFiles {
    pub(crate) fn read(settings: &Settings, clock: &SharedClock) -> anyhow::Result<Self> {
        // The flag in front of every error: the operator knows what he gave, not what we call it.
        let read =
            |flag: &'static str, path: &PathBuf| files::read_required(path, Access::Given).context(flag);
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
    let content = files::read_required(path, Access::Given)?;
    let text = std::str::from_utf8(&content).map_err(|_| Fault::new(path, "is not UTF-8 text", ""))?;
    TokenFile::parse(text).map_err(|error| Fault::new(path, format!("is refused: {error}"), ""))
}

impl CertificateFiles {
    pub(crate) fn read(&self) -> Result<Identity, Fault> {
        let chain = files::read_required(&self.chain, Access::Given)?;
        let key = files::read_required(&self.key, Access::Given)?;
        Identity::from_pem(&chain, &key).map_err(|error| {
            let file = if error == IdentityError::Key { &self.key } else { &self.chain };
            let problem = match error {
                IdentityError::Mismatch => {
                    format!("does not belong to the private key in {}", self.key.display())
                }
                error => error.to_string(),
            };
            Fault::new(file, problem, "")
        })
    }
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let pem = files::read_required(path, Access::Given)?;
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    certificates
        .ok()
        .filter(|list| !list.is_empty())
        .ok_or_else(|| Fault::new(path, "holds no certificates that can be read", ""))
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
