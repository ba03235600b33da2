//! The arguments of `fleetpass manager`.

use super::upstream::{KlogArgs, UpstreamManagerArgs};
use super::values::{EndpointAddress, duration, endpoint};
use clap::{ArgAction, Args};
use fleetpass_api::features::FeatureGates;
use fleetpass_hub::manifests::MANAGER;
use std::path::PathBuf;
use std::time::Duration;

/// The arguments of `fleetpass manager`.
#[derive(Debug, Clone, Args)]
// Of a flag that is given twice the last one counts, as upstream's flags are read.
#[command(args_override_self = true)]
#[command(after_long_help = "Examples:\n  \
    fleetpass manager --kubeconfig hub.kubeconfig --leader-elect-resource-namespace fleetpass\n  \
    fleetpass manager   (in a pod of the hub; `fleetpass install hub` prints what it needs)")]
pub(crate) struct ManagerArgs {
    /// The kubeconfig of the hub. Default: the file(s) of $KUBECONFIG, else the service account of the pod, else
    /// ~/.kube/config
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Where /metrics is served; :PORT for all addresses, 0 for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:38082", value_parser = endpoint)]
    pub(crate) metrics_bind_address: EndpointAddress,
    /// Where /healthz and /readyz are served; :PORT for all addresses, 0 for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:38083", value_parser = endpoint)]
    pub(crate) health_probe_bind_address: EndpointAddress,
    /// Switches: EphemeralIdentity=true honours spec.ttlSecondsAfterCreation
    #[arg(long, value_name = "NAME=BOOL", default_value = "", hide_default_value = true)]
    pub(crate) feature_gates: FeatureGates,

    /// Flags of the upstream manager that change nothing here
    #[command(flatten)]
    pub(crate) upstream: UpstreamManagerArgs,
    /// As above
    #[command(flatten)]
    pub(crate) klog: KlogArgs,

    /// Whether managers elect one that works; without it, run one only
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    #[arg(help_heading = "Leader election")]
    pub(crate) leader_elect: bool,
    /// The namespace of the Lease. Default: the pod's, or that of the kubeconfig's context
    #[arg(long, value_name = "NAME", help_heading = "Leader election")]
    pub(crate) leader_elect_resource_namespace: Option<String>,
    /// The name of the Lease
    #[arg(long, value_name = "NAME", default_value = MANAGER, help_heading = "Leader election")]
    pub(crate) leader_elect_resource_name: String,
    /// After what time without renewal another manager takes over
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = duration)]
    #[arg(help_heading = "Leader election")]
    pub(crate) leader_elect_lease_duration: Duration,
    /// After what time a manager that cannot renew the Lease stops working
    #[arg(long, value_name = "DURATION", default_value = "10s", value_parser = duration)]
    #[arg(help_heading = "Leader election")]
    pub(crate) leader_elect_renew_deadline: Duration,
    /// How often the Lease is asked for or renewed
    #[arg(long, value_name = "DURATION", default_value = "2s", value_parser = duration)]
    #[arg(help_heading = "Leader election")]
    pub(crate) leader_elect_retry_period: Duration,
}
