//! Where a credential is: found in kubeconfigs, read, and written back.

use super::edit;
use crate::clients;
use crate::files::{self, Access, Fault};
use crate::pki::Identity;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use kube::config::{AuthInfo, Kubeconfig};
use secrecy::ExposeSecret as _;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a client shows of itself.
#[derive(Debug)]
pub(super) enum Credential {
    /// A client certificate.
    Certificate(Place, Box<Identity>),
    /// A token that says when it began and when it ends.
    Token(Timestamp, Timestamp),
    /// Anything else: nothing is known of its end.
    Other,
}

/// Where a certificate or its key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Slot {
    /// In the kubeconfig itself.
    Embedded,
    /// In a file that it names.
    File(PathBuf),
}

/// Where certificate and key of a user are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    kubeconfig: PathBuf,
    user: String,
    certificate: Slot,
    key: Slot,
}

/// Files and what they are to hold.
pub(super) type Contents = Vec<(PathBuf, Zeroizing<Vec<u8>>)>;

/// How a file is read: from disk, or out of a Secret.
pub(super) type Read<'a> = &'a dyn Fn(&Path) -> anyhow::Result<Zeroizing<Vec<u8>>>;

/// The content of a file on disk, which may be on a volume that the kubelet wrote.
pub(super) fn from_disk(path: &Path) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    Ok(files::read_required(path, Access::Given)?)
}

/// The credential of the current context in kubeconfigs, of which, as for kubectl, the first that says something counts.
///
/// # Errors
///
/// A file cannot be read, or the certificate in it cannot be used.
pub(super) fn find(paths: &[PathBuf]) -> anyhow::Result<Credential> {
    match locate(paths)? {
        Located::Certificate(place) => {
            let identity = Box::new(place.read(&from_disk)?);
            Ok(Credential::Certificate(place, identity))
        }
        Located::Token(token) => Ok(token_lifetime(&token)
            .map_or(Credential::Other, |(begins, ends)| Credential::Token(begins, ends))),
        Located::Other => Ok(Credential::Other),
    }
}

/// When a service account's token begins and ends, by its file.
pub(super) fn token_file(path: &Path) -> anyhow::Result<Credential> {
    let token = from_disk(path)?;
    let token = std::str::from_utf8(&token).unwrap_or_default().trim();
    Ok(token_lifetime(token).map_or(Credential::Other, |(begins, ends)| Credential::Token(begins, ends)))
}

/// `iat` (or else the beginning of time as far as it matters: the end) and `exp` of a JWT. It is not verified: that is the
/// server's business.
fn token_lifetime(token: &str) -> Option<(Timestamp, Timestamp)> {
    let payload = token.split('.').nth(1)?;
    let claims = Zeroizing::new(URL_SAFE_NO_PAD.decode(payload.trim_end_matches('=')).ok()?);
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let time = |name: &str| {
        let seconds =
            claims[name].as_i64().or_else(|| claims[name].as_f64().map(|seconds| seconds as i64))?;
        Timestamp::from_second(seconds).ok()
    };
    let ends = time("exp")?;
    Some((time("iat").unwrap_or(ends), ends))
}

enum Located {
    Certificate(Place),
    Token(Zeroizing<String>),
    Other,
}

fn locate(paths: &[PathBuf]) -> anyhow::Result<Located> {
    let mut configs = Vec::new();
    for path in paths.iter().filter(|path| paths.len() == 1 || path.exists()) {
        let config = clients::read_kubeconfig(path)?;
        configs.push((path, config));
    }
    let current = configs
        .iter()
        .find_map(|(_, config)| config.current_context.as_deref().filter(|name| !name.is_empty()));
    let contexts = || configs.iter().flat_map(|(_, config)| &config.contexts);
    let context = contexts().find(|named| Some(named.name.as_str()) == current);
    let user = context.and_then(|named| named.context.as_ref()?.user.as_deref());
    let found = configs.iter().find_map(|(path, config)| {
        let named = config.auth_infos.iter().find(|named| Some(named.name.as_str()) == user)?;
        Some((*path, named))
    });
    let Some((path, named)) = found else { return Ok(Located::Other) };
    Ok(named.auth_info.as_ref().map_or(Located::Other, |info| located(path, &named.name, info)))
}

/// Which of its credentials a client shows: a certificate before a token, as an API server looks at them; of data and files
/// the data.
fn located(path: &Path, user: &str, info: &AuthInfo) -> Located {
    let slot = |data: Option<&str>, file: Option<&String>| match (data, file) {
        (Some(data), _) if !data.is_empty() => Some(Slot::Embedded),
        (_, Some(file)) if !file.is_empty() => Some(Slot::File(file.into())),
        _ => None,
    };
    let certificate = slot(info.client_certificate_data.as_deref(), info.client_certificate.as_ref());
    let key = slot(info.client_key_data.as_ref().map(|key| key.expose_secret()), info.client_key.as_ref());
    if let (Some(certificate), Some(key)) = (certificate, key) {
        let (kubeconfig, user) = (path.to_owned(), user.to_owned());
        return Located::Certificate(Place { kubeconfig, user, certificate, key });
    }
    if let Some(token) = &info.token {
        return Located::Token(Zeroizing::new(token.expose_secret().to_owned()));
    }
    let file = info.token_file.as_ref().and_then(|file| from_disk(Path::new(file)).ok());
    let token = file.as_ref().and_then(|file| std::str::from_utf8(file).ok());
    token.map_or(Located::Other, |token| Located::Token(Zeroizing::new(token.trim().to_owned())))
}

impl Place {
    /// The files that a renewal writes, each once.
    pub(super) fn files(&self) -> Vec<&Path> {
        // The key first: it is what must not be lost if only one of them could be written.
        let mut files = vec![self.file_of(&self.key)];
        if !files.contains(&self.file_of(&self.certificate)) {
            files.push(self.file_of(&self.certificate));
        }
        files
    }

    fn file_of<'a>(&'a self, slot: &'a Slot) -> &'a Path {
        match slot {
            Slot::Embedded => &self.kubeconfig,
            Slot::File(path) => path,
        }
    }

    /// Certificate and key as they are.
    ///
    /// # Errors
    ///
    /// A file cannot be read, or they are no pair.
    pub(super) fn read(&self, read: Read<'_>) -> anyhow::Result<Identity> {
        let part = |slot: &Slot, data: fn(&AuthInfo) -> Option<&str>| match slot {
            Slot::File(path) => read(path),
            Slot::Embedded => {
                let text = read(&self.kubeconfig)?;
                let damaged = || Fault::new(&self.kubeconfig, "is no kubeconfig with such a user", "");
                let text = std::str::from_utf8(&text).map_err(|_| damaged())?;
                let config = Kubeconfig::from_yaml(text).map_err(|_| damaged())?;
                let user = config.auth_infos.iter().find(|named| named.name == self.user);
                let data = user.and_then(|named| data(named.auth_info.as_ref()?)).ok_or_else(damaged)?;
                Ok(Zeroizing::new(STANDARD.decode(data).map_err(|_| damaged())?))
            }
        };
        let chain = part(&self.certificate, |info| info.client_certificate_data.as_deref())?;
        let key = part(&self.key, |info| info.client_key_data.as_ref().map(|key| key.expose_secret()))?;
        let file = self.file_of(&self.certificate);
        Ok(Identity::from_pem(&chain, &key).map_err(|error| Fault::new(file, error.to_string(), ""))?)
    }

    /// What the files are to hold for another identity.
    ///
    /// # Errors
    ///
    /// The kubeconfig cannot be read or changed.
    pub(super) fn contents(&self, read: Read<'_>, identity: &Identity) -> anyhow::Result<Contents> {
        let chain = identity.chain_pem().as_bytes();
        let key = identity.key_pem().expose_secret().as_bytes();
        let mut contents = Contents::new();
        let mut fields = Vec::new();
        let encoded = [STANDARD.encode(chain), STANDARD.encode(key)].map(Zeroizing::new);
        match &self.key {
            Slot::Embedded => fields.push(("client-key-data", encoded[1].as_str())),
            Slot::File(path) => contents.push((path.clone(), Zeroizing::new(key.to_vec()))),
        }
        match &self.certificate {
            Slot::Embedded => fields.push(("client-certificate-data", encoded[0].as_str())),
            Slot::File(path) => match contents.first_mut().filter(|(key, _)| key == path) {
                // One file for both.
                Some((_, content)) => *content = Zeroizing::new([key, chain].concat()),
                None => contents.push((path.clone(), Zeroizing::new(chain.to_vec()))),
            },
        }
        if !fields.is_empty() {
            let text = read(&self.kubeconfig)?;
            let fault = |error: edit::EditError| Fault::new(&self.kubeconfig, error.to_string(), "");
            let text = std::str::from_utf8(&text).map_err(|_| fault(edit::EditError::Unreadable))?;
            let edited = edit::replace(text, &self.user, &fields).map_err(fault)?;
            contents.push((self.kubeconfig.clone(), Zeroizing::new(edited.as_bytes().to_vec())));
        }
        Ok(contents)
    }

    /// Whether the files can be written at all: asked before a certificate is asked for that could not be kept.
    ///
    /// # Errors
    ///
    /// Which file cannot, and why.
    pub(super) fn require_writable(&self) -> Result<(), Fault> {
        self.files().into_iter().try_for_each(files::require_replaceable)
    }

    /// Whether the kubelet keeps the files, and writes them anew from a Secret.
    pub(super) fn is_on_volume(&self) -> bool {
        self.files().into_iter().all(files::is_on_projected_volume)
    }

    /// Writes certificate and key to where they were. Killed at any moment, it leaves the old pair, or the new one, or what
    /// [`Place::recover`] makes the new one of.
    ///
    /// # Errors
    ///
    /// A file cannot be written.
    pub(super) fn write(&self, identity: &Identity) -> anyhow::Result<()> {
        let contents = self.contents(&from_disk, identity)?;
        let several = contents.len() > 1;
        if several {
            let key = identity.key_pem().expose_secret();
            let pair = Zeroizing::new([key.as_bytes(), identity.chain_pem().as_bytes()].concat());
            files::write(&self.journal(), &pair)?;
        }
        for (path, content) in &contents {
            files::replace(path, content)?;
        }
        if several { Ok(files::remove(&self.journal())?) } else { Ok(()) }
    }

    /// Where a new pair is kept while its two files are written one after the other.
    fn journal(&self) -> PathBuf {
        let name = self.kubeconfig.file_name().unwrap_or_default().to_string_lossy();
        self.kubeconfig.with_file_name(format!(".{name}.renewal"))
    }

    /// Brings to its end what [`Place::write`] had begun when its process was killed. True if there was something.
    fn recover(&self) -> anyhow::Result<bool> {
        let Some(pair) = files::read(&self.journal(), Access::OwnerOnly)? else { return Ok(false) };
        let Ok(begun) = Identity::from_pem(&pair, &pair) else {
            // Not ours: what we write is there whole.
            anyhow::bail!("{} holds no certificate with its key: remove it", self.journal().display());
        };
        // A pair that fits and lives longer was written later, by somebody else.
        let later = |there: Identity| there.validity().not_after >= begun.validity().not_after;
        if self.read(&from_disk).is_ok_and(later) {
            files::remove(&self.journal())?;
            return Ok(false);
        }
        self.write(&begun)?;
        Ok(true)
    }
}

/// Before kubeconfigs are used: brings to its end a renewal in them that was cut off between two files.
///
/// # Errors
///
/// A file cannot be read or written.
pub(super) fn recover(paths: &[PathBuf]) -> anyhow::Result<()> {
    // Kubeconfigs that cannot be read are the loader's to complain of.
    if let Ok(Located::Certificate(place)) = locate(paths)
        && place.recover()?
    {
        let kubeconfig = place.kubeconfig.display();
        tracing::info!(%kubeconfig, "completed the renewal of a certificate that had been interrupted");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
