//! The servers that are measured side by side.

use anyhow::Result;
use fleetpass_testkit::rig::{ControlPlane, HubOptions, RealClusterOptions};
use fleetpass_token::key::{KeyKind, SigningKey};
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, PostParams};
use secrecy::ExposeSecret as _;
use serde_json::json;
use std::io::Write as _;

/// Whose server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    /// `fleetpass hub`.
    Fleetpass,
    /// kube-apiserver with an etcd of one member.
    Kubernetes,
}

impl Program {
    /// Ours, theirs.
    pub(crate) const BOTH: [Self; 2] = [Self::Fleetpass, Self::Kubernetes];
}

/// As it is called in tables.
pub(crate) fn program_name(program: Program) -> &'static str {
    match program {
        Program::Fleetpass => "fleetpass",
        Program::Kubernetes => "kube-apiserver",
    }
}

/// Starts one that signs tokens with such a key, and has the ServiceAccount `robot` in the namespace `bench`.
///
/// # Errors
///
/// It does not start.
pub(crate) async fn start(program: Program, key: KeyKind) -> Result<ControlPlane> {
    let plane = match program {
        Program::Kubernetes => {
            let options = RealClusterOptions { signing_key: key, ..RealClusterOptions::default() };
            ControlPlane::kubernetes(&options).await?
        }
        Program::Fleetpass => {
            // A temporary file is its owner's alone; the hub reads it once, at its start.
            let mut file = tempfile::NamedTempFile::new()?;
            file.write_all(SigningKey::generate_pem(key)?.expose_secret().as_bytes())?;
            let flags = vec![format!("--service-account-signing-key-file={}", file.path().display())];
            ControlPlane::fleetpass(&HubOptions { flags, ..HubOptions::default() }).await?
        }
    };
    let client = plane.endpoint().admin().await?;
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": "bench"}}))?;
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await?;
    let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "robot"}}))?;
    Api::namespaced(client, "bench").create(&PostParams::default(), &account).await?;
    Ok(plane)
}
