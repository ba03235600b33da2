//! The server's own certificate, and the key that signs service-account tokens.

use super::authority::{Authority, Purpose, cannot_make};
use super::identity::Identity;
use crate::files::{self, Access, Fault};
use fleetpass_token::key::{KeyKind, SigningKey};
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The names and addresses by which a server is reached: the loopback ones, those that clients within a Kubernetes
/// cluster use, the address it is bound to, and the name of the machine.
pub(crate) fn serving_names(bind: IpAddr, hostname: Option<&str>) -> Vec<String> {
    let mut names: Vec<String> = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
        "127.0.0.1",
        "::1",
    ]
    .map(str::to_owned)
    .into();
    if !bind.is_unspecified() {
        names.push(bind.to_string());
    }
    // What is no DNS name (an underscore is common) cannot be asked for in TLS either.
    names.extend(hostname.map(str::to_ascii_lowercase).filter(|name| is_dns_name(name)));
    let mut unique = Vec::with_capacity(names.len());
    for name in names {
        if !unique.contains(&name) {
            unique.push(name);
        }
    }
    unique
}

fn is_dns_name(name: &str) -> bool {
    let label = |label: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(inner) && !label.starts_with('-')
    };
    name.len() <= 253 && name.split('.').all(label)
}

/// Where a server's certificate lies (`serving.pem`), and for which names it is.
#[derive(Debug, Clone)]
pub(crate) struct Serving {
    path: PathBuf,
    names: Vec<String>,
}

impl Serving {
    /// The certificate in `directory`, for the names of [`serving_names`].
    pub(crate) fn new(directory: &Path, names: Vec<String>) -> Self {
        Self { path: directory.join("serving.pem"), names }
    }

    /// The certificate and when it is to be replaced. The one on disk is kept while it is fresh, for these names and
    /// of this authority; otherwise another one is made and written first.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the file is damaged, or cannot be read or written. Nothing was changed.
    pub(crate) fn ensure(
        &self,
        authority: &Authority,
        now: Timestamp,
    ) -> Result<(Identity, Timestamp), Fault> {
        if let Some(pem) = files::read(&self.path, Access::OwnerOnly)? {
            let identity = Identity::from_pem(&pem, &pem).map_err(|error| {
                Fault::new(&self.path, error.to_string(), "remove it: another one is then made")
            })?;
            // All of our names have to be in it; further ones, of an earlier start, do no harm.
            let covered = self.names.iter().all(|name| identity.facts().names.contains(name));
            match authority.renewal(identity.facts(), now) {
                Some(at) if covered => return Ok((identity, at)),
                _ => tracing::info!(file = %self.path.display(), "making a new serving certificate"),
            }
        }
        let identity = authority
            .issue(&Purpose::Server(&self.names), now)
            .map_err(|error| cannot_make(&self.path, &error))?;
        let key = identity.key_pem().expose_secret();
        // Key and chain in one file that is replaced at once: there is no moment at which they do not fit.
        let mut pem = Zeroizing::new(String::with_capacity(key.len() + identity.chain_pem().len()));
        pem.push_str(key);
        pem.push_str(identity.chain_pem());
        files::write(&self.path, pem.as_bytes())?;
        let at = identity.validity().renew_at();
        Ok((identity, at))
    }
}

/// The PEM text of the key in `directory` (`sa.key`) that signs service-account tokens; made if there is none. Takes
/// some hundred milliseconds then: call it where blocking is allowed.
///
/// # Errors
///
/// [`Fault`]: the file is damaged, or cannot be read or written. Nothing was changed.
pub(crate) fn open_signing_key(directory: &Path) -> Result<Zeroizing<Vec<u8>>, Fault> {
    let path = directory.join("sa.key");
    if let Some(pem) = files::read(&path, Access::OwnerOnly)? {
        SigningKey::from_pem(&pem).map_err(|error| {
            let remedy = "restore it from a backup; or remove it: another one is then made, and all tokens that \
                          it signed end at once";
            Fault::new(&path, format!("holds no usable key: {error}"), remedy)
        })?;
        return Ok(pem);
    }
    let pem = SigningKey::generate_pem(KeyKind::Rsa2048)
        .map_err(|error| Fault::new(&path, format!("cannot be made: {error}"), ""))?;
    files::write(&path, pem.expose_secret().as_bytes())?;
    Ok(Zeroizing::new(pem.expose_secret().as_bytes().to_vec()))
}
