//! Kubeconfigs that this program writes: one cluster, one user with a client certificate, everything embedded.

use crate::files::{self, Access, Fault};
use crate::pki::{Authority, ClientSubject, Identity};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use kube::config::Kubeconfig;
use secrecy::ExposeSecret as _;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use zeroize::Zeroizing;

/// A kubeconfig that is to be on disk, and who issues the certificate in it.
#[derive(Clone)]
pub(crate) struct KubeconfigFile {
    /// Where.
    pub(crate) path: PathBuf,
    /// The name of cluster and context.
    pub(crate) cluster: String,
    /// The URL of the server.
    pub(crate) server: String,
    /// The certificates (PEM) that the client trusts.
    pub(crate) trust: String,
    /// Who the client is.
    pub(crate) subject: ClientSubject,
    /// Who says so.
    pub(crate) authority: Arc<Authority>,
}

impl KubeconfigFile {
    /// Sees to it that the file is there, and says when to look again. A file that says the same, with a fresh
    /// certificate, is left alone, with whatever else its user put into it; otherwise it is written anew, mode 0600.
    ///
    /// # Errors
    ///
    /// [`Fault`]: the file is there and is no kubeconfig, or cannot be read or written. Nothing was changed.
    pub(crate) fn ensure(&self, now: Timestamp) -> Result<Timestamp, Fault> {
        // OwnerOnly: it holds a key that we made, so a file that others may read is refused rather than used.
        if let Some(text) = files::read(&self.path, Access::OwnerOnly)?
            && let Some(renew_at) = self.standing(&text, now)?
        {
            return Ok(renew_at);
        }
        let identity = self
            .authority
            .issue_client(&self.subject, now)
            .map_err(|error| Fault::new(&self.path, format!("cannot be made: {error}"), ""))?;
        files::write(&self.path, self.render(&identity).as_bytes())?;
        Ok(identity.validity().renew_at())
    }

    /// When the certificate in this text is to be replaced; `None` if the text has to be.
    fn standing(&self, text: &[u8], now: Timestamp) -> Result<Option<Timestamp>, Fault> {
        let remedy = "remove it: another one is then written";
        let damaged = || Fault::new(&self.path, "is no kubeconfig: it is damaged or cut short", remedy);
        let text = std::str::from_utf8(text).map_err(|_| damaged())?;
        let config = Kubeconfig::from_yaml(text).map_err(|_| damaged())?;
        if config.clusters.is_empty() || config.auth_infos.is_empty() {
            return Err(damaged());
        }
        let cluster = config.clusters.iter().find(|named| named.name == self.cluster);
        let Some(cluster) = cluster.and_then(|named| named.cluster.as_ref()) else { return Ok(None) };
        let user = config.auth_infos.iter().find(|named| named.name == self.subject.user);
        let Some(user) = user.and_then(|named| named.auth_info.as_ref()) else { return Ok(None) };
        let decode = |data: &str| STANDARD.decode(data).map(Zeroizing::new).ok();
        let trust = cluster.certificate_authority_data.as_deref().and_then(decode);
        // Compared are server, trust and user. Whatever else is in the file is its user's.
        let current = cluster.server.as_deref() == Some(self.server.as_str())
            && trust.is_some_and(|pem| **pem == *self.trust.as_bytes());
        let certificate = user.client_certificate_data.as_deref().and_then(decode);
        let key = user.client_key_data.as_ref().and_then(|key| decode(key.expose_secret()));
        let identity = certificate.zip(key).and_then(|(chain, key)| Identity::from_pem(&chain, &key).ok());
        let renewal =
            identity.and_then(|identity| self.authority.client_renewal(&identity, &self.subject, now));
        Ok(renewal.filter(|_| current))
    }

    fn render(&self, identity: &Identity) -> Zeroizing<String> {
        let trust = STANDARD.encode(&self.trust);
        let chain = STANDARD.encode(identity.chain_pem());
        let key = Zeroizing::new(STANDARD.encode(identity.key_pem().expose_secret()));
        // A JSON string is a YAML string.
        let quote = |text: &str| serde_json::Value::from(text).to_string();
        let (cluster, user, server) = (quote(&self.cluster), quote(&self.subject.user), quote(&self.server));
        // Room for all of it, so that no copy of the key stays behind where the text outgrew its place.
        let mut out = Zeroizing::new(String::with_capacity(
            2 * (trust.len() + chain.len() + key.len())
                + 4 * (cluster.len() + user.len())
                + server.len()
                + 1024,
        ));
        let written = write!(
            out,
            "# Written by fleetpass, and written anew when the certificate in it grows old or the server moves.\n\
             apiVersion: v1\n\
             kind: Config\n\
             clusters:\n\
             - name: {cluster}\n  cluster:\n    server: {server}\n    certificate-authority-data: {trust}\n\
             users:\n\
             - name: {user}\n  user:\n    client-certificate-data: {chain}\n    client-key-data: {}\n\
             contexts:\n\
             - name: {cluster}\n  context:\n    cluster: {cluster}\n    user: {user}\n\
             current-context: {cluster}\n",
            *key
        );
        debug_assert!(written.is_ok(), "writing to a string does not fail");
        out
    }
}

/// The administrator of a control plane: a member of `system:masters`, to whom everything is allowed.
pub(crate) fn administrator() -> ClientSubject {
    ClientSubject { user: "fleetpass-admin".into(), groups: vec!["system:masters".into()] }
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::SignedDuration;
    use std::fs;

    fn start() -> Timestamp {
        "2026-01-01T00:00:00Z".parse().unwrap()
    }

    fn wanted(directory: &std::path::Path) -> KubeconfigFile {
        let authority = Arc::new(Authority::open(directory, "hub", start()).unwrap());
        KubeconfigFile {
            path: directory.join("admin.kubeconfig"),
            cluster: "hub".into(),
            server: "https://127.0.0.1:6443".into(),
            trust: authority.certificate_pem().into(),
            subject: administrator(),
            authority,
        }
    }

    #[test]
    fn kube_reads_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = wanted(dir.path());
        let renew_at = wanted.ensure(start()).unwrap();
        assert!(renew_at > start() + SignedDuration::from_hours(240 * 24));
        let config = Kubeconfig::read_from(&wanted.path).unwrap();
        assert_eq!(config.current_context.as_deref(), Some("hub"));
        let context = config.contexts[0].context.as_ref().unwrap();
        assert_eq!((context.cluster.as_str(), context.user.as_deref()), ("hub", Some("fleetpass-admin")));
        let cluster = config.clusters[0].cluster.as_ref().unwrap();
        assert_eq!(cluster.server.as_deref(), Some("https://127.0.0.1:6443"));
        let trust = STANDARD.decode(cluster.certificate_authority_data.as_ref().unwrap()).unwrap();
        assert_eq!(trust, wanted.trust.as_bytes());
        let user = config.auth_infos[0].auth_info.as_ref().unwrap();
        let chain = STANDARD.decode(user.client_certificate_data.as_ref().unwrap()).unwrap();
        let key = STANDARD.decode(user.client_key_data.as_ref().unwrap().expose_secret()).unwrap();
        let identity = Identity::from_pem(&chain, &key).unwrap();
        assert_eq!(wanted.authority.client_renewal(&identity, &administrator(), start()), Some(renew_at));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&wanted.path).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn a_file_is_rewritten_only_when_it_has_to_be() {
        let dir = tempfile::tempdir().unwrap();
        let first = wanted(dir.path());
        let renew_at = first.ensure(start()).unwrap();
        // What a user adds (`kubectl config set-context --current --namespace`) stays.
        let edited = fs::read_to_string(&first.path)
            .unwrap()
            .replace("    user: ", "    namespace: cluster1\n    user: ");
        fs::write(&first.path, &edited).unwrap();
        let text = || fs::read_to_string(&first.path).unwrap();
        assert_eq!(first.ensure(start()), Ok(renew_at));
        assert_eq!(text(), edited);

        let moved = KubeconfigFile { server: "https://127.0.0.1:7443".into(), ..first.clone() };
        moved.ensure(start()).unwrap();
        assert!(text().contains(":7443"));
        let other = KubeconfigFile { trust: "other".into(), ..first.clone() };
        other.ensure(start()).unwrap();
        assert!(text().contains(&STANDARD.encode("other")));
        first.ensure(start()).unwrap();
        let before = text();
        first.ensure(renew_at).unwrap();
        assert_ne!(text(), before, "an old certificate is replaced");
    }

    #[test]
    fn what_is_no_kubeconfig_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = wanted(dir.path());
        wanted.ensure(start()).unwrap();
        let whole = fs::read(&wanted.path).unwrap();
        for cut in [0, 10, 150, 300] {
            fs::write(&wanted.path, &whole[..cut]).unwrap();
            let fault = wanted.ensure(start()).unwrap_err();
            assert!(fault.file == wanted.path && fault.remedy.contains("remove it"), "{cut}: {fault}");
            assert_eq!(fs::read(&wanted.path).unwrap(), &whole[..cut]);
        }
    }
}
