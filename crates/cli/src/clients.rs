//! Clients: from kubeconfigs as kubectl reads them, or from the service account of a pod.

use crate::files;
use crate::proxy::{self, Proxy};
use crate::transport::Way;
use anyhow::Context as _;
use base64::Engine as _;
use fleetpass_agent::CaSource;
use fleetpass_api::clock;
use http::header::{HeaderValue, USER_AGENT};
use kube::config::{KubeConfigOptions, Kubeconfig};
use secrecy::{ExposeSecret as _, SecretString};
use std::ffi::OsString;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often kubeconfigs, and the files that they name, are looked at. Looked at and not watched: they may be on a volume
/// of a Secret, where the kubelet swaps a link, or on a network file system, which tells nobody.
const RELOAD_INTERVAL: Duration = Duration::from_secs(3);
/// How long files that changed have to stay as they are before they are used: somebody may still be writing them, and a
/// certificate and its key are two files.
const SETTLED: Duration = Duration::from_millis(500);

/// For whom a configuration is read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Program {
    /// By this name it is told in `metadata.managedFields` and in audit logs.
    pub(crate) name: &'static str,
    /// Whether requests that a server is too busy for are sent again, without the program's knowing.
    pub(crate) retries: bool,
}

/// Agents have waits of their own, which know the side, all that is asked of it, and what it asked for.
pub(crate) const AGENT: Program =
    Program { name: concat!("fleetpass-agent/", env!("CARGO_PKG_VERSION")), retries: false };

/// Where the configuration of a client comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// Kubeconfigs, merged: of each name the first one counts.
    Files(Vec<PathBuf>),
    /// The service account of the pod that this process runs in.
    InCluster,
}

/// What a [`Source`] gave.
pub(crate) struct Loaded {
    /// How to reach the server, and as whom.
    pub(crate) config: kube::Config,
    /// The same as something to send requests by.
    way: Way,
    /// Through what the server is reached.
    proxy: Option<Proxy>,
    /// Where the certificates that the client trusts come from.
    pub(crate) ca: CaSource,
    /// The files that were read.
    files: Vec<PathBuf>,
    /// Of the contents of each. Only compared within the process, so any hash will do.
    fingerprint: Vec<u64>,
}

impl Source {
    /// kubectl's rules (`clientcmd.NewDefaultClientConfigLoadingRules` in client-go): the file that was named, or
    /// those of `KUBECONFIG`, or `~/.kube/config`.
    pub(crate) fn kubectl(
        named: Option<PathBuf>,
        environment: Option<OsString>,
        home: Option<PathBuf>,
    ) -> Option<Self> {
        if let Some(named) = named {
            return Some(Self::Files(vec![named]));
        }
        let list: Vec<PathBuf> = environment
            .map(|value| std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect())
            .unwrap_or_default();
        if !list.is_empty() {
            return Some(Self::Files(list));
        }
        home.map(|home| Self::Files(vec![home.join(".kube/config")]))
    }

    /// controller-runtime's rules (`pkg/client/config`): the file that was named, those of `KUBECONFIG`, the service
    /// account of the pod (as `KUBERNETES_SERVICE_HOST`, here `pod`, tells it is one), or `~/.kube/config`.
    pub(crate) fn controller(
        named: Option<PathBuf>,
        environment: Option<OsString>,
        pod: bool,
        home: Option<PathBuf>,
    ) -> Option<Self> {
        match Self::kubectl(named, environment, None) {
            Some(files) => Some(files),
            None if pod => Some(Self::InCluster),
            None => Self::kubectl(None, None, home),
        }
    }

    /// Reads it, for an agent.
    ///
    /// # Errors
    ///
    /// A file is missing, malformed or incomplete, or this is no pod.
    pub(crate) async fn load(&self) -> anyhow::Result<Loaded> {
        let loaded = self.load_as(AGENT).await;
        match self {
            Self::Files(_) => loaded,
            Self::InCluster => loaded.context("give the cluster's kubeconfig with --spoke-kubeconfig"),
        }
    }

    /// Reads it, for a program.
    ///
    /// # Errors
    ///
    /// As [`Source::load`].
    pub(crate) async fn load_as(&self, program: Program) -> anyhow::Result<Loaded> {
        match self {
            Self::Files(paths) => load_files(paths, program).await,
            Self::InCluster => {
                let mut config = kube::Config::incluster().context("this is no pod of a cluster")?;
                let ca = config.root_cert_file.clone().map_or(CaSource::ConfigMap, CaSource::File);
                introduce(&mut config, program);
                let proxy = proxy::Environment::of_process().proxy_for(&config.cluster_url)?;
                let way = Way::new(config.clone(), proxy.clone(), clock::system())?;
                // Token and CA are read again by the client itself.
                Ok(Loaded { config, way, proxy, ca, files: Vec::new(), fingerprint: fingerprint(&[]) })
            }
        }
    }
}

impl Loaded {
    /// A client, which goes on with what takes over from this.
    pub(crate) fn client(&self) -> kube::Client {
        self.way.client(&self.config.default_namespace)
    }

    /// A client of the same server that shows another certificate, both PEM.
    ///
    /// # Errors
    ///
    /// Certificate or key are none.
    pub(crate) fn client_with(&self, chain: &str, key: &SecretString) -> anyhow::Result<kube::Client> {
        let mut config = self.config.clone();
        let encoding = base64::engine::general_purpose::STANDARD;
        let auth = &mut config.auth_info;
        auth.client_certificate_data = Some(encoding.encode(chain));
        auth.client_key_data = Some(encoding.encode(key.expose_secret()).into());
        (auth.client_certificate, auth.client_key) = (None, None);
        Ok(Way::new(config, self.proxy.clone(), clock::system())?.client(&self.config.default_namespace))
    }

    /// Whether the other one is the same server, asked for the same: another credential or proxy, or another trust, which
    /// clients that are at work need not hear of.
    pub(crate) fn same_server(&self, other: &Self) -> bool {
        let asked = |side: &Self| {
            let (config, user) = (&side.config, &side.config.auth_info);
            let url = config.cluster_url.clone();
            let extra = user.impersonate_user_extra.clone();
            (
                url,
                config.default_namespace.clone(),
                user.impersonate.clone(),
                user.impersonate_groups.clone(),
                extra,
            )
        };
        asked(self) == asked(other)
    }

    /// Clients of `former` send their next requests by this.
    pub(crate) fn take_over(&mut self, former: &Self) {
        former.way.replace(&self.way);
        self.way = former.way.clone();
    }

    /// Waits until one of the files has another content with which they can be used.
    pub(crate) async fn next(&self, source: &Source, program: Program) -> Self {
        let mut told = String::new();
        loop {
            tokio::time::sleep(RELOAD_INTERVAL).await;
            let seen = self.look().await;
            if seen == self.fingerprint {
                continue;
            }
            tokio::time::sleep(SETTLED).await;
            if self.look().await != seen {
                continue;
            }
            let error = match source.load_as(program).await {
                Ok(next) => return next,
                Err(error) => format!("{error:#}"),
            };
            // Tried again at every look, because the files that a new kubeconfig names may still come. Told once.
            if error != told {
                tracing::warn!("a kubeconfig changed and cannot be used, going on as before: {error}");
                told = error;
            }
        }
    }

    /// The fingerprint of the files as they are now. Off the reactor: a network file system may keep one waiting.
    async fn look(&self) -> Vec<u64> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || fingerprint(&files))
            .await
            .unwrap_or_else(|_| self.fingerprint.clone())
    }
}

fn introduce(config: &mut kube::Config, program: Program) {
    config.headers.push((USER_AGENT, HeaderValue::from_static(program.name)));
    config.default_retry = program.retries;
}

/// The error of a parser without what it quotes from the file, which may be a token or a key: the lines after the first show
/// the place, and what stands in quotation marks is a value.
fn without_content(error: &str) -> String {
    let line = error.lines().next().unwrap_or_default();
    let parts = line.split('"').enumerate();
    parts.map(|(index, part)| if index % 2 == 0 { part } else { "\"…\"" }).collect()
}

/// Reads a kubeconfig.
///
/// # Errors
///
/// It cannot be read, or is none. The error names the file, and quotes nothing of what is in it.
pub(crate) fn read_kubeconfig(path: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(path).map_err(|error| {
        let why = without_content(&error.to_string());
        anyhow::anyhow!("the kubeconfig {} cannot be used: {why}", path.display())
    })
}

async fn load_files(paths: &[PathBuf], program: Program) -> anyhow::Result<Loaded> {
    // Each before it is read, so that a change in between is seen later.
    let mut fingerprints = fingerprint(paths);
    let mut merged = Kubeconfig::default();
    let mut found = false;
    for path in paths {
        // Of several files kubectl passes over those that are missing.
        if paths.len() > 1 && !path.exists() {
            continue;
        }
        let file = read_kubeconfig(path)?;
        // kubectl takes keys that everybody can read. We do not, whichever flag names the file.
        let keys =
            file.auth_infos.iter().filter_map(|user| user.auth_info.as_ref()?.client_key_data.as_ref());
        if keys.into_iter().any(|key| !key.expose_secret().is_empty()) {
            files::require_private(path)?;
        }
        merged = merged.merge(file).context("the kubeconfigs cannot be merged")?;
        found = true;
    }
    let shown = paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ");
    anyhow::ensure!(found, "none of the kubeconfigs exists: {shown}");
    // Those too that the kubeconfig only names: certificates are rotated there while the kubeconfig stays as it is.
    let mut read = paths.to_vec();
    let (cluster, user) = current(&merged);
    read.extend(cluster.iter().filter_map(|c| c.certificate_authority.as_ref()).map(PathBuf::from));
    let of_user = |user: &kube::config::AuthInfo| [user.client_certificate.clone(), user.client_key.clone()];
    read.extend(user.iter().flat_map(of_user).flatten().map(PathBuf::from));
    for path in user.iter().filter_map(|user| user.client_key.as_ref()) {
        files::require_private(Path::new(path))?;
    }
    fingerprints.extend(fingerprint(read.get(paths.len()..).unwrap_or_default()));
    let named_proxy =
        cluster.as_ref().and_then(|cluster| cluster.proxy_url.clone()).filter(|url| !url.is_empty());
    let ca = cluster.map_or(Ok(CaSource::ConfigMap), ca_source)?;
    // kube would ask the environment by rules of its own, and refuse what these do not need. It does not where a kubeconfig
    // names a proxy, which is taken out again below.
    for cluster in merged.clusters.iter_mut().filter_map(|named| named.cluster.as_mut()) {
        cluster.proxy_url = Some("http://decided.below.invalid".to_owned());
    }
    let mut config = kube::Config::from_custom_kubeconfig(merged, &KubeConfigOptions::default())
        .await
        .with_context(|| format!("the kubeconfig {shown} cannot be used"))?;
    introduce(&mut config, program);
    config.proxy_url = None;
    if let Some(cluster) = config.auth_info.exec.as_mut().and_then(|exec| exec.cluster.as_mut()) {
        cluster.proxy_url = named_proxy.clone();
    }
    let proxy = match named_proxy {
        Some(url) => Proxy::of_kubeconfig(&url).map(Some),
        None => proxy::Environment::of_process().proxy_for(&config.cluster_url),
    };
    let way = proxy.and_then(|proxy| {
        let way = Way::new(config.clone(), proxy.clone(), clock::system())?;
        Ok((way, proxy))
    });
    let (way, proxy) = way.with_context(|| format!("the kubeconfig {shown} cannot be used"))?;
    Ok(Loaded { config, way, proxy, ca, files: read, fingerprint: fingerprints })
}

/// Cluster and user of the current context.
fn current(config: &Kubeconfig) -> (Option<kube::config::Cluster>, Option<kube::config::AuthInfo>) {
    let name = config.current_context.as_deref().unwrap_or_default();
    let context = config.contexts.iter().find(|c| c.name == name).and_then(|c| c.context.as_ref());
    let Some(context) = context else { return (None, None) };
    let cluster = config.clusters.iter().find(|c| c.name == context.cluster).and_then(|c| c.cluster.clone());
    let user = config.auth_infos.iter().find(|u| Some(&u.name) == context.user.as_ref());
    (cluster, user.and_then(|u| u.auth_info.clone()))
}

/// The data counts before the file, as for kubectl. Without either, the cluster itself has to say what its CA is.
fn ca_source(cluster: kube::config::Cluster) -> anyhow::Result<CaSource> {
    match (cluster.certificate_authority_data, cluster.certificate_authority) {
        (Some(data), _) if !data.is_empty() => {
            let pem = base64::engine::general_purpose::STANDARD.decode(data);
            Ok(CaSource::Pem(pem.context("certificate-authority-data of the kubeconfig is not base64")?))
        }
        (_, Some(path)) if !path.is_empty() => Ok(CaSource::File(path.into())),
        _ => Ok(CaSource::ConfigMap),
    }
}

fn fingerprint(files: &[PathBuf]) -> Vec<u64> {
    let of = |path: &PathBuf| {
        let mut hasher = DefaultHasher::new();
        // Wiped: a kubeconfig may hold keys. A file that is missing counts as a content of its own.
        let content = std::fs::read(path).ok().map(zeroize::Zeroizing::new);
        content.as_ref().map(|content| content.as_slice()).hash(&mut hasher);
        hasher.finish()
    };
    files.iter().map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_file_then_the_environment_then_home() {
        let files = |paths: &[&str]| Some(Source::Files(paths.iter().map(PathBuf::from).collect()));
        for (named, environment, home, expected) in [
            (Some("a"), Some("b:c"), Some("/h"), files(&["a"])),
            (None, Some("b::c"), Some("/h"), files(&["b", "c"])),
            (None, Some(""), Some("/h"), files(&["/h/.kube/config"])),
            (None, Some(":"), None, None),
            (None, None, None, None),
        ] {
            let environment = environment.map(OsString::from);
            assert_eq!(Source::kubectl(named.map(Into::into), environment, home.map(Into::into)), expected);
        }
    }

    #[test]
    fn a_controller_in_a_pod_uses_its_service_account_unless_told_otherwise() {
        let home = || Some(PathBuf::from("/h"));
        let files = |path: &str| Some(Source::Files(vec![path.into()]));
        let named = Source::controller(Some("a".into()), Some("b".into()), true, home());
        assert_eq!(named, files("a"));
        assert_eq!(Source::controller(None, Some("b".into()), true, home()), files("b"));
        assert_eq!(Source::controller(None, Some("".into()), true, home()), Some(Source::InCluster));
        assert_eq!(Source::controller(None, None, false, home()), files("/h/.kube/config"));
        assert_eq!(Source::controller(None, None, false, None), None);
    }

    #[tokio::test]
    async fn relative_paths_are_relative_to_the_file_and_changes_are_seen() {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let authority =
            crate::pki::Authority::open(dir.path(), "test", fleetpass_api::clock::system().now()).unwrap();
        std::fs::write(dir.path().join("my-ca.pem"), authority.certificate_pem()).unwrap();
        let path = dir.path().join("config");
        let text = "clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1', certificate-authority: my-ca.pem}}]\n\
                    users: [{name: u, user: {token: t}}]\n\
                    contexts: [{name: x, context: {cluster: c, user: u}}]\n\
                    current-context: x\n";
        std::fs::write(&path, text).unwrap();
        let missing = dir.path().join("missing");
        let loaded = Source::Files(vec![missing.clone(), path]).load().await.unwrap();
        assert_eq!(loaded.config.cluster_url.to_string(), "https://127.0.0.1:1/");
        assert_eq!(loaded.ca, CaSource::File(dir.path().join("my-ca.pem")));
        assert_eq!(loaded.look().await, loaded.fingerprint);
        std::fs::write(dir.path().join("my-ca.pem"), "").unwrap();
        assert_ne!(loaded.look().await, loaded.fingerprint);

        let error = Source::Files(vec![missing]).load().await.err().unwrap();
        assert!(format!("{error:#}").contains("missing"), "{error:#}");
    }

    #[tokio::test]
    async fn an_error_says_where_it_is_and_quotes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        for text in [
            "users:\n- user: {token: s3cret}\n  nome: u\n",
            "users: s3cret\n",
            "users:\n- {name: u, user: {token: [s3cret]}}\n",
            "users:\n- {name: u, user: {client-key-data: {a: s3cret}}}\n",
            "users:\n- name: u\n  user:\n    token: \"s3cret\n",
            "clusters: [{name: c, cluster: {insecure-skip-tls-verify: s3cret}}]\n",
        ] {
            std::fs::write(&path, text).unwrap();
            let error = format!("{:#}", Source::Files(vec![path.clone()]).load().await.err().unwrap());
            let named = error.contains(path.to_str().unwrap()) && error.lines().count() == 1;
            assert!(named && !error.contains("s3cret"), "{text}: {error}");
            assert!(error.contains("line "), "{text}: {error}");
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn keys_that_others_may_read_are_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("user.key");
        std::fs::write(&key, "key").unwrap();
        let config = dir.path().join("config");
        for (user, file) in
            [("client-key: user.key, client-certificate: user.crt", &key), ("client-key-data: a2V5", &config)]
        {
            let text = format!(
                "clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:1'}}}}]\n\
                 users: [{{name: u, user: {{{user}}}}}]\n\
                 contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\n\
                 current-context: x\n"
            );
            std::fs::write(&config, text).unwrap();
            for (path, mode) in [(&key, 0o600), (&config, 0o600), (file, 0o644)] {
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
            }
            let error = Source::Files(vec![config.clone()]).load().await.err().unwrap();
            let error = format!("{error:#}");
            assert!(error.contains(&*file.to_string_lossy()) && error.contains("chmod 600"), "{error}");
        }
    }
}
