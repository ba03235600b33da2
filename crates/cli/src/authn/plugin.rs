//! Exec plugins: programs that print a credential (`client.authentication.k8s.io`).

use super::{Answer, Credential, NoCredential, Until};
use fleetpass_apimachinery::json::Numbers;
use http::HeaderValue;
use kube::config::{ExecAuthCluster, ExecConfig, ExecInteractiveMode};
use rustls::sign::CertifiedKey;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};
use std::io::IsTerminal as _;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use zeroize::Zeroizing;

/// How long a plugin may take. client-go sets no limit, but behind it there is somebody at a terminal.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of its output is read: a token and a chain of certificates have a few kilobytes.
const MAX_OUTPUT: u64 = 1 << 20;
/// How much of what it says on standard error is told.
const MAX_WORDS: usize = 300;

/// A plugin, ready to be called.
pub(crate) struct Plugin {
    command: String,
    args: Vec<String>,
    env: Vec<(String, String)>,
    /// `client.authentication.k8s.io/v1`, or `…/v1beta1`: answers have to be of the same.
    api_version: String,
    mode: ExecInteractiveMode,
    cluster: Option<ExecAuthCluster>,
    install_hint: Option<String>,
}

impl Plugin {
    /// The plugin of a kubeconfig's user, checked as client-go does (`tools/clientcmd/validation.go`). It need not be there
    /// yet, and is not called.
    ///
    /// # Errors
    ///
    /// Something is missing in the kubeconfig, or is of a kind that is not known.
    pub(crate) fn new(config: &ExecConfig) -> anyhow::Result<Self> {
        let command = config.command.clone().filter(|command| !command.is_empty());
        let command = command.ok_or_else(|| anyhow::anyhow!("the exec plugin of its user has no command"))?;
        let refuse = |problem: String| anyhow::anyhow!("the exec plugin {command} of its user {problem}");
        let known = ["client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1"];
        let api_version = config.api_version.clone().unwrap_or_default();
        if !known.contains(&&*api_version) {
            return Err(refuse(format!(
                "has the apiVersion {api_version:?}; known are {}",
                known.join(" and ")
            )));
        }
        let mode = match (&config.interactive_mode, &*api_version) {
            (Some(mode), _) => mode.clone(),
            (None, "client.authentication.k8s.io/v1beta1") => ExecInteractiveMode::IfAvailable,
            (None, _) => {
                return Err(refuse("needs interactiveMode: Never, IfAvailable or Always".to_owned()));
            }
        };
        if mode == ExecInteractiveMode::Always && !std::io::stdin().is_terminal() {
            return Err(refuse(
                "wants to ask somebody (interactiveMode: Always), and nobody is there".to_owned(),
            ));
        }
        let mut env = Vec::new();
        for variable in config.env.iter().flatten() {
            let name = variable.get("name").filter(|name| !name.is_empty());
            let name = name.ok_or_else(|| refuse("has an environment variable without a name".to_owned()))?;
            env.push((name.clone(), variable.get("value").cloned().unwrap_or_default()));
        }
        Ok(Self {
            args: config.args.clone().unwrap_or_default(),
            env,
            api_version,
            mode,
            cluster: config.cluster.clone().filter(|_| config.provide_cluster_info),
            install_hint: config.install_hint.clone().filter(|hint| !hint.trim().is_empty()),
            command,
        })
    }

    /// Calls it.
    pub(super) async fn ask(&self) -> Result<Answer, NoCredential> {
        let failed = |why: String| NoCredential(format!("the exec plugin {} {why}", self.command));
        let run = tokio::time::timeout(PATIENCE, self.run()).await;
        let output = run
            .unwrap_or_else(|_| Err(format!("gave no answer within {} s", PATIENCE.as_secs())))
            .map_err(failed)?;
        read(&output, &self.api_version).map_err(failed)
    }

    /// What it prints; or what it did instead, as a part of a sentence.
    async fn run(&self) -> Result<Zeroizing<Vec<u8>>, String> {
        let interactive = self.mode != ExecInteractiveMode::Never && std::io::stdin().is_terminal();
        let mut command = Command::new(&self.command);
        command
            .args(&self.args)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .env("KUBERNETES_EXEC_INFO", self.info(interactive))
            .stdin(if interactive { Stdio::inherit() } else { Stdio::null() })
            .stdout(Stdio::piped())
            // A plugin that nobody sits before tells its troubles to our log.
            .stderr(if interactive { Stdio::inherit() } else { Stdio::piped() })
            .kill_on_drop(true);
        let mut child = command.spawn().map_err(|error| self.not_started(&error))?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let mut output = Zeroizing::new(Vec::new());
        let mut words = Vec::new();
        let reading = async {
            if let Some(stdout) = stdout {
                stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        let listening = async {
            if let Some(stderr) = stderr {
                stderr.take(MAX_OUTPUT).read_to_end(&mut words).await?;
            }
            Ok::<_, std::io::Error>(())
        };
        tokio::try_join!(reading, listening).map_err(|error| format!("cannot be read from: {error}"))?;
        let status = child.wait().await.map_err(|error| format!("is lost: {error}"))?;
        if status.success() {
            return Ok(output);
        }
        let how = match status.code() {
            Some(code) => format!("failed with exit code {code}"),
            None => format!("was ended ({status})"),
        };
        match last_line(&words) {
            Some(line) => Err(format!("{how}: {line}")),
            None => Err(how),
        }
    }

    fn not_started(&self, error: &std::io::Error) -> String {
        let why = match error.kind() {
            std::io::ErrorKind::NotFound => "is not there".to_owned(),
            _ => format!("cannot be started: {error}"),
        };
        match &self.install_hint {
            Some(hint) => format!("{why}. {}", hint.split_whitespace().collect::<Vec<_>>().join(" ")),
            None => why,
        }
    }

    /// What a plugin is told about who calls, and about the cluster if it wants to know.
    fn info(&self, interactive: bool) -> String {
        let mut spec = json!({"interactive": interactive});
        if let Some(cluster) = &self.cluster {
            spec["cluster"] = serde_json::to_value(cluster).unwrap_or_default();
        }
        json!({"kind": "ExecCredential", "apiVersion": self.api_version, "spec": spec}).to_string()
    }
}

/// The last thing that a plugin said, cut to a size for a log.
fn last_line(words: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(words);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    Some(line.chars().filter(|c| !c.is_control()).take(MAX_WORDS).collect())
}

/// Reads an answer. What is wrong with it is told without a word of it: it is the credential.
pub(super) fn read(output: &[u8], api_version: &str) -> Result<Answer, String> {
    let value = serde_json::from_slice::<Value>(output).ok().or_else(|| {
        // client-go takes YAML as well.
        fleetpass_codec::yaml::parse(output).ok()?.raw.to_value(Numbers::Go).ok()
    });
    let value = value.filter(Value::is_object).ok_or("printed no ExecCredential")?;
    if value["kind"] != "ExecCredential" {
        return Err("printed no ExecCredential".to_owned());
    }
    if value["apiVersion"] != api_version {
        return Err(format!(
            "printed another version of ExecCredential than the {api_version} of the kubeconfig"
        ));
    }
    let status = value.get("status").filter(|status| status.is_object()).ok_or("printed no status")?;
    let text = |name: &str| status[name].as_str().filter(|text| !text.is_empty());
    let until = match &status["expirationTimestamp"] {
        Value::Null => Until::Refused,
        time => {
            let time = time.as_str().and_then(|time| time.parse().ok());
            Until::Time(time.ok_or("printed an expirationTimestamp that is no time")?)
        }
    };
    let header: Option<HeaderValue> = match text("token") {
        Some(token) => {
            Credential::bearer(token).map_err(|_| "printed a token that no header can hold")?.header
        }
        None => None,
    };
    let identity = match (text("clientCertificateData"), text("clientKeyData")) {
        (Some(certificate), Some(key)) => Some(Arc::new(identity(certificate, key)?)),
        (None, None) => None,
        _ => return Err("printed only certificate or key, not both".to_owned()),
    };
    if header.is_none() && identity.is_none() {
        return Err("printed neither a token nor a certificate".to_owned());
    }
    Ok(Answer { credential: Credential { header, identity }, until })
}

fn identity(certificate: &str, key: &str) -> Result<CertifiedKey, String> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty()).ok_or("printed a certificate that is none")?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "printed a key that is none")?;
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    CertifiedKey::from_der(chain, key, &provider)
        .map_err(|_| "printed a certificate and a key that cannot be used together".to_owned())
}
