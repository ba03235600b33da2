//! A real Kubernetes control plane: etcd, kube-apiserver, kube-controller-manager.

use super::endpoint::Endpoint;
use super::etcd::Etcd;
use super::objects::install_accounts;
use super::pki::{Pki, write_private};
use super::process::Process;
use super::programs::{ATTEMPTS, TOKENS, free_port, program};
use crate::cluster::ADMIN_TOKEN;
use anyhow::{Context, Result, ensure};
use fleetpass_token::key::KeyKind;
use std::time::Duration;
use tempfile::TempDir;

/// The controllers that a cluster without nodes needs for identities, and what the recordings were made with.
const CONTROLLERS: &str = "namespace-controller,garbage-collector-controller,serviceaccount-controller,\
    serviceaccount-token-controller,legacy-serviceaccount-token-cleaner-controller,\
    root-ca-certificate-publisher-controller,clusterrole-aggregation-controller,\
    certificatesigningrequest-signing-controller,certificatesigningrequest-cleaner-controller";

/// How a cluster differs from the usual one.
#[derive(Debug, Clone)]
pub struct RealClusterOptions {
    /// `--service-account-max-token-expiration`, which shortens what is asked for.
    pub max_token_expiration: Option<Duration>,
    /// The key of service-account tokens.
    pub signing_key: KeyKind,
}

impl Default for RealClusterOptions {
    /// As the recordings were made: RSA.
    fn default() -> Self {
        Self { max_token_expiration: None, signing_key: KeyKind::Rsa2048 }
    }
}

/// A Kubernetes without nodes, on loopback, that has the ManagedServiceAccount; gone when it is dropped.
pub struct RealCluster {
    endpoint: Endpoint,
    folder: TempDir,
    arguments: Vec<String>,
    // Dropped in this order: clients before their servers.
    controllers: Option<Process>,
    server: Option<Process>,
    etcd: Etcd,
}

impl RealCluster {
    /// Starts one, and waits until it is ready.
    pub async fn start() -> Result<Self> {
        Self::start_with(&RealClusterOptions::default()).await
    }

    /// Starts one that differs from the usual.
    pub async fn start_with(options: &RealClusterOptions) -> Result<Self> {
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::try_start(options).await {
                Ok(cluster) => return Ok(cluster),
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("no attempt was made")?.context("Kubernetes does not start"))
    }

    async fn try_start(options: &RealClusterOptions) -> Result<Self> {
        let etcd = Etcd::start(1).await?;
        let folder = tempfile::tempdir()?;
        let pki = Pki::make(folder.path(), options.signing_key)?;
        let tokens = folder.path().join("tokens.csv");
        write_private(&tokens, TOKENS)?;
        let port = free_port()?;
        let endpoint = Endpoint::new(port, &pki.ca_pem);
        let mut arguments = vec![
            format!("--etcd-servers={}", etcd.endpoints().join(",")),
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            // A loopback address cannot be an endpoint of the Service `kubernetes`.
            "--endpoint-reconciler-type=none".into(),
            format!("--tls-cert-file={}", pki.path("serving.crt")),
            format!("--tls-private-key-file={}", pki.path("serving.key")),
            format!("--client-ca-file={}", pki.path("ca.crt")),
            format!("--token-auth-file={}", tokens.display()),
            "--service-account-issuer=https://kubernetes.default.svc".into(),
            format!("--service-account-key-file={}", pki.path("sa.pub")),
            format!("--service-account-signing-key-file={}", pki.path("sa.key")),
            "--authorization-mode=RBAC".into(),
            "--service-cluster-ip-range=10.0.0.0/24".into(),
        ];
        arguments.extend(
            options
                .max_token_expiration
                .map(|most| format!("--service-account-max-token-expiration={}s", most.as_secs())),
        );
        let mut cluster = Self { endpoint, folder, arguments, controllers: None, server: None, etcd };
        cluster.resume().await?;
        // Before the garbage collector starts, which looks for new kinds every half minute only.
        install_accounts(&cluster.endpoint.admin().await?).await?;
        cluster.start_controllers(&pki).await?;
        Ok(cluster)
    }

    /// Where it is.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The processes that answer requests: the API server and its etcd.
    pub fn processes(&self) -> Vec<u32> {
        self.server.iter().filter_map(Process::id).chain(self.etcd.processes()).collect()
    }

    /// Ends the API server at once (SIGKILL), as a crash would.
    pub async fn halt(&mut self) -> Result<()> {
        self.server.take().context("the API server is not running")?.kill().await
    }

    /// Starts the API server again, and waits until it is ready.
    pub async fn resume(&mut self) -> Result<()> {
        ensure!(self.server.is_none(), "the API server is running");
        let log = self.folder.path().join("kube-apiserver.log");
        let name = "kube-apiserver";
        let mut server = Process::start(name, &program(name)?, &self.arguments, &[], &log)?;
        let endpoint = self.endpoint.clone();
        server.ready(Duration::from_secs(120), async || endpoint.is_ready().await).await?;
        self.server = Some(server);
        Ok(())
    }

    async fn start_controllers(&mut self, pki: &Pki) -> Result<()> {
        let kubeconfig = self.folder.path().join("controllers.kubeconfig");
        self.endpoint.write_kubeconfig(&kubeconfig, ADMIN_TOKEN)?;
        let arguments = [
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--controllers={CONTROLLERS}"),
            format!("--service-account-private-key-file={}", pki.path("sa.key")),
            format!("--root-ca-file={}", pki.path("ca.crt")),
            format!("--cluster-signing-cert-file={}", pki.path("ca.crt")),
            format!("--cluster-signing-key-file={}", pki.path("ca.key")),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
        ];
        let name = "kube-controller-manager";
        let log = self.folder.path().join("kube-controller-manager.log");
        let mut controllers = Process::start(name, &program(name)?, &arguments, &[], &log)?;
        let endpoint = self.endpoint.clone();
        // Its controllers work once the first namespace has what they put there.
        let path = "/api/v1/namespaces/default/configmaps/kube-root-ca.crt";
        controllers.ready(Duration::from_secs(60), async || endpoint.has(path).await).await?;
        self.controllers = Some(controllers);
        Ok(())
    }
}
