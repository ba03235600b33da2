//! The arguments of `fleetpass install`.

use super::values::validity_limit;
use clap::{Args, Subcommand, ValueEnum};
use fleetpass_api::GoDuration;
use fleetpass_api::definition::LONGEST_VALIDITY;
use fleetpass_api::features::FeatureGates;
use fleetpass_api::names;
use fleetpass_apimachinery::validation::names::{is_dns1123_label, is_dns1123_subdomain};
use fleetpass_hub::manifests::DEFAULT_MANAGER_NAMESPACE;

/// The arguments of `fleetpass install`.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum InstallArgs {
    /// Print what a Kubernetes needs to be a hub
    ///
    /// The CustomResourceDefinition of ManagedServiceAccount, as `fleetpass hub` serves it; the namespace and rights of
    /// `fleetpass manager` and, given its image, its Deployment.
    #[command(after_long_help = "Example:\n  \
        fleetpass install hub --image registry.example.com/fleetpass:0.1.0 |\n      \
        kubectl --context hub apply --server-side -f -")]
    Hub(HubManifestArgs),
    /// Print what the agent of one cluster needs
    ///
    /// With `--side hub`, on the hub: the cluster's namespace, and the agent's rights in it. With `--side cluster`, on the
    /// cluster: the agent's namespace and rights and, given its image, its Deployment.
    #[command(after_long_help = "Examples:\n  \
        fleetpass install cluster --cluster cluster1 --side hub | kubectl --context hub apply --server-side -f -\n  \
        fleetpass install cluster --cluster cluster1 --side cluster --image registry.example.com/fleetpass:0.1.0 |\n      \
        kubectl --context cluster1 apply --server-side -f -")]
    Cluster(ClusterArgs),
}

/// The arguments of `fleetpass install hub`.
#[derive(Debug, Clone, Args)]
pub(crate) struct HubManifestArgs {
    /// The namespace of the manager
    #[arg(long, value_name = "NAME", default_value = DEFAULT_MANAGER_NAMESPACE, value_parser = label)]
    pub(crate) namespace: String,
    /// The image of the manager's Deployment; its entry point is fleetpass. Without it there is no Deployment
    #[arg(long, value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) image: Option<String>,
    /// The longest spec.rotation.validity of an account. 10m to 2^32 s
    #[arg(long, value_name = "DURATION", default_value_t = LONGEST_VALIDITY, value_parser = validity_limit)]
    pub(crate) max_validity: GoDuration,
    /// Switches: with EphemeralIdentity=true the manager deletes accounts whose time is over, and may
    #[arg(long, value_name = "NAME=BOOL", default_value = "", hide_default_value = true)]
    pub(crate) feature_gates: FeatureGates,
}

/// The arguments of `fleetpass install cluster`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ClusterArgs {
    /// The name of the cluster: its namespace on the hub
    #[arg(long, value_name = "NAME", value_parser = label)]
    pub(crate) cluster: String,
    /// For which side
    #[arg(long, value_name = "SIDE")]
    pub(crate) side: Side,
    /// The namespace of the agent on the cluster
    #[arg(long, value_name = "NAME", default_value = names::DEFAULT_AGENT_NAMESPACE, value_parser = label)]
    #[arg(help_heading = "With --side cluster")]
    pub(crate) namespace: String,
    /// The image of the agent's Deployment; its entry point is fleetpass. Without it there is no Deployment
    #[arg(long, value_name = "IMAGE", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    #[arg(help_heading = "With --side cluster")]
    pub(crate) image: Option<String>,
    /// The Secret in that namespace whose key "kubeconfig" is the kubeconfig of the hub
    #[arg(long, value_name = "NAME", default_value = HUB_KUBECONFIG_SECRET, value_parser = subdomain)]
    #[arg(help_heading = "With --side cluster")]
    pub(crate) hub_kubeconfig_secret: String,
    /// Switches: with EphemeralIdentity=true the agent deletes accounts whose time is over, and may
    #[arg(long, value_name = "NAME=BOOL", default_value = "", hide_default_value = true)]
    pub(crate) feature_gates: FeatureGates,
}

/// One of an agent's sides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Side {
    /// Where the accounts are.
    Hub,
    /// Where the tokens are good.
    Cluster,
}

/// The Secret with the hub's kubeconfig, by the name that the upstream addon's manager gives it
/// (open-cluster-management-io/addon-framework, `pkg/agent/inteface.go`).
pub(crate) const HUB_KUBECONFIG_SECRET: &str = "managed-serviceaccount-hub-kubeconfig";

/// The name of a namespace (RFC 1123).
fn label(text: &str) -> Result<String, String> {
    name(text, is_dns1123_label(text, false))
}

/// The name of a Secret.
fn subdomain(text: &str) -> Result<String, String> {
    name(text, is_dns1123_subdomain(text, false))
}

fn name(text: &str, problems: Vec<String>) -> Result<String, String> {
    problems.into_iter().next().map_or_else(|| Ok(text.to_owned()), Err)
}
