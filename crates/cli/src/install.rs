//! `fleetpass install`: what a Kubernetes needs to be a hub or a managed cluster, as YAML for `kubectl apply -f -`.
//!
//! The manifests are those that our own hub and `up` put in place; they hold no value that a server would set or change,
//! so that applying them again changes nothing. `deploy/` keeps what is printed.

use crate::args::{ClusterArgs, HUB_KUBECONFIG_SECRET, HubManifestArgs, InstallArgs, Side};
use anyhow::Context as _;
use fleetpass_agent::InCluster;
use fleetpass_api::definition::{LONGEST_VALIDITY, account_definition};
use fleetpass_api::names;
use fleetpass_codec::yaml;
use fleetpass_hub::{join, manifests};
use serde_json::Value;
use std::io::Write as _;

/// What is printed: YAML documents below a comment, and a remark for whoever does not see them.
struct Printed {
    yaml: String,
    remark: Option<&'static str>,
}

const NO_DEPLOYMENT: &str = "without --image no Deployment is printed, only what it would run with";

/// Prints the manifests to standard output.
///
/// # Errors
///
/// An argument belongs to the other side, or standard output cannot be written.
pub(crate) fn run(args: &InstallArgs) -> anyhow::Result<()> {
    let printed = match args {
        InstallArgs::Hub(args) => hub(args)?,
        InstallArgs::Cluster(args) => cluster(args)?,
    };
    if let Some(remark) = printed.remark {
        // Piped into kubectl, the comment in the YAML is seen by nobody.
        let _ = writeln!(std::io::stderr(), "note: {remark}");
    }
    // Flushed here, so that a full disk is an error and not lost at exit.
    let mut output = std::io::stdout().lock();
    match output.write_all(printed.yaml.as_bytes()).and_then(|()| output.flush()) {
        // Whoever reads has read enough: `fleetpass install hub | head`.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("standard output"),
    }
}

fn hub(args: &HubManifestArgs) -> anyhow::Result<Printed> {
    let mut command = "fleetpass install hub".to_owned();
    add(&mut command, "namespace", &args.namespace, manifests::DEFAULT_MANAGER_NAMESPACE);
    add(&mut command, "image", args.image.as_deref().unwrap_or_default(), "");
    add(&mut command, "feature-gates", &args.feature_gates.to_string(), "");
    let limit = args.max_validity.to_string();
    add(&mut command, "max-validity", &limit, &LONGEST_VALIDITY.to_string());
    let about = if args.image.is_some() { "" } else { "\nThere is no Deployment: no --image was given." };
    let comment = format!(
        "Printed by `{command}`.\n\
         On the hub: the kind ManagedServiceAccount, and the namespace and rights of the manager. It reads Secrets'\n\
         metadata only, but a right to list is a right to read: RBAC knows no smaller one. It approves agents' renewals of\n\
         their certificates, for which a ClusterRole lets agents ask.\n\
         Whoever has the roles view, edit or admin in a namespace may see or change its accounts.{about}"
    );
    let manager = manifests::Manager {
        namespace: &args.namespace,
        image: args.image.as_deref(),
        features: args.feature_gates,
    };
    let mut manifests = vec![account_definition(args.max_validity)?];
    manifests.extend(manager.manifests());
    let remark = args.image.is_none().then_some(NO_DEPLOYMENT);
    Ok(Printed { yaml: documents(&comment, &manifests), remark })
}

fn cluster(args: &ClusterArgs) -> anyhow::Result<Printed> {
    let command = command(args);
    match args.side {
        Side::Hub => {
            anyhow::ensure!(args.image.is_none(), "--image: on the hub side of a cluster nothing runs");
            let comment = format!(
                "Printed by `{command}`.\n\
                 On the hub: the namespace of {} and the rights of its agent in it; elsewhere it may only see\n\
                 whether that namespace and kube-system are there.\n\
                 An agent with a client certificate has them by its organization, the Group of the RoleBinding; one\n\
                 with a token, by the ServiceAccount.",
                args.cluster
            );
            let manifests = join::hub_manifests(&args.cluster, args.feature_gates);
            Ok(Printed { yaml: documents(&comment, &manifests), remark: None })
        }
        Side::Cluster => Ok(on_cluster(args, &command)),
    }
}

fn on_cluster(args: &ClusterArgs, command: &str) -> Printed {
    let about = match args.image {
        Some(_) => format!(
            "Its pod waits for the Secret {}, whose key \"kubeconfig\" is the kubeconfig of the hub.",
            args.hub_kubeconfig_secret
        ),
        None => "There is no Deployment: no --image was given.".to_owned(),
    };
    let comment = format!(
        "Printed by `{command}`.\n\
         On the cluster: the agent's namespace and its rights, which end there but for asking whether a token is good\n\
         and which cluster this is.\n\
         {about}"
    );
    let agent = InCluster {
        cluster: &args.cluster,
        namespace: &args.namespace,
        image: args.image.as_deref(),
        hub_kubeconfig_secret: &args.hub_kubeconfig_secret,
        features: args.feature_gates,
    };
    let remark = args.image.is_none().then_some(NO_DEPLOYMENT);
    Printed { yaml: documents(&comment, &agent.manifests()), remark }
}

/// The command line that prints the same.
fn command(args: &ClusterArgs) -> String {
    let side = match args.side {
        Side::Hub => "hub",
        Side::Cluster => "cluster",
    };
    let mut command = format!("fleetpass install cluster --cluster {} --side {side}", args.cluster);
    if args.side == Side::Cluster {
        add(&mut command, "namespace", &args.namespace, names::DEFAULT_AGENT_NAMESPACE);
        add(&mut command, "image", args.image.as_deref().unwrap_or_default(), "");
        add(&mut command, "hub-kubeconfig-secret", &args.hub_kubeconfig_secret, HUB_KUBECONFIG_SECRET);
    }
    add(&mut command, "feature-gates", &args.feature_gates.to_string(), "");
    command
}

/// Adds a flag to a command line, unless it says what is usual.
fn add(command: &mut String, flag: &str, value: &str, usual: &str) {
    if value != usual {
        command.push_str(&format!(" --{flag}={value}"));
    }
}

/// YAML documents below a comment.
fn documents(comment: &str, manifests: &[Value]) -> String {
    let mut text: String = comment.lines().map(|line| format!("# {line}\n")).collect();
    for (index, manifest) in manifests.iter().enumerate() {
        if index > 0 {
            text.push_str("---\n");
        }
        text.push_str(&yaml::print(manifest));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Cli, Command};
    use clap::Parser as _;
    use std::path::Path;

    fn printed(line: &str) -> anyhow::Result<Printed> {
        let words = ["fleetpass", "install"].into_iter().chain(line.split_whitespace());
        let Command::Install(args) = Cli::try_parse_from(words)?.command else { panic!("{line}") };
        match args {
            InstallArgs::Hub(args) => hub(&args),
            InstallArgs::Cluster(args) => cluster(&args),
        }
    }

    fn kinds(yaml: &str) -> Vec<String> {
        yaml.lines().filter_map(|line| line.strip_prefix("kind: ")).map(str::to_owned).collect()
    }

    /// `UPDATE_DEPLOY=1` writes the files instead.
    #[test]
    fn deploy_is_what_is_printed() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy");
        for (file, line) in [
            ("hub.yaml", "hub"),
            ("hub-cluster1.yaml", "cluster --cluster cluster1 --side hub"),
            ("cluster-agent.yaml", "cluster --cluster cluster1 --side cluster"),
        ] {
            let path = folder.join(file);
            let yaml = printed(line).unwrap().yaml;
            assert!(yaml.starts_with(&format!("# Printed by `fleetpass install {line}`.\n")), "{yaml}");
            if std::env::var_os("UPDATE_DEPLOY").is_some() {
                std::fs::write(&path, &yaml).unwrap();
            }
            assert!(std::fs::read_to_string(&path).unwrap() == yaml, "deploy/{file} is not what is printed");
        }
    }

    #[test]
    fn a_deployment_needs_an_image_and_what_is_missing_is_said() {
        let without = printed("cluster --cluster c --side cluster").unwrap();
        assert!(without.remark.is_some() && without.yaml.contains("# There is no Deployment"));
        assert!(!kinds(&without.yaml).contains(&"Deployment".to_owned()));
        let with =
            printed("cluster --cluster c --side cluster --image x/y:1 --hub-kubeconfig-secret s").unwrap();
        assert!(with.remark.is_none() && with.yaml.contains("secretName: s"));
        assert_eq!(kinds(&with.yaml).last().unwrap(), "Deployment");
        let command =
            "fleetpass install cluster --cluster c --side cluster --image=x/y:1 --hub-kubeconfig-secret=s";
        assert!(with.yaml.starts_with(&format!("# Printed by `{command}`.\n")), "{}", with.yaml);
        assert!(printed("cluster --cluster c --side hub").unwrap().remark.is_none());
        let without = printed("hub").unwrap();
        assert!(without.remark.is_some() && !kinds(&without.yaml).contains(&"Deployment".to_owned()));
        let with = printed("hub --image x/y:1 --namespace n --feature-gates EphemeralIdentity=true").unwrap();
        assert!(with.remark.is_none() && with.yaml.contains("- --feature-gates=EphemeralIdentity=true\n"));
        let kinds = kinds(&with.yaml);
        assert_eq!((kinds[0].as_str(), kinds[11].as_str()), ("CustomResourceDefinition", "Deployment"));
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, words) in [
            ("cluster --cluster c --side hub --image i", "nothing runs"),
            ("cluster --cluster c", "--side"),
            ("cluster --side hub", "--cluster"),
            ("cluster --cluster Not_A_Label --side hub", "RFC 1123"),
            ("cluster --cluster c --side cluster --namespace a/b", "RFC 1123"),
            ("cluster --cluster c --side spoke", "possible values: hub, cluster"),
        ] {
            let error = printed(line).err().map_or_else(|| "accepted".into(), |error| error.to_string());
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
