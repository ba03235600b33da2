//! The command line. Flags that mean the same as kube-apiserver's or the upstream addon agent's have their names.

mod install;
mod manager;
mod migrate;
mod upstream;
mod values;

pub(crate) use install::HUB_KUBECONFIG_SECRET;
pub(crate) use install::{ClusterArgs, HubManifestArgs, InstallArgs, Side};
pub(crate) use manager::ManagerArgs;
pub(crate) use migrate::{Location, MigrateArgs};
pub(crate) use values::EndpointAddress;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{ArgAction, Args, Parser, Subcommand};
use fleetpass_api::GoDuration;
use fleetpass_api::definition::LONGEST_VALIDITY;
use fleetpass_api::features::FeatureGates;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;
use values::{
    agent_gates, duration, endpoint, file, issuer, max_token_expiration, request_timeout, validity_limit,
};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default())
    .placeholder(AnsiColor::Cyan.on_default());

/// A fresh, valid token for a service account on any cluster of a fleet
///
/// A hub that speaks the Kubernetes API, and an agent for each managed cluster. For every ManagedServiceAccount in a
/// cluster's namespace on the hub, the agent keeps a ServiceAccount on its cluster and a token for it in a Secret on
/// the hub, renewed before it expires.
#[derive(Debug, Parser)]
#[command(name = "fleetpass", version, styles = STYLES, max_term_width = 100)]
#[command(after_help = "Begin with `fleetpass up`: a hub, two clusters and their agents, in one process.")]
#[command(
    after_long_help = "Begin with `fleetpass up`: a hub, two clusters and their agents, in one process.\n\n\
    Environment:\n  \
      RUST_LOG  what is logged, e.g. debug or fleetpass_agent=debug,warn\n  \
      NO_COLOR  no colour, whatever its value"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

impl Cli {
    /// The command line of this process. A wrong one, or a question for help, ends it.
    pub fn of_process() -> Self {
        Self::parse_from(upstream::arguments(std::env::args_os()))
    }
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a hub, some clusters and their agents, in one process
    ///
    /// Every cluster is an API server of its own with its own store, certificate authority and signing key. A sample
    /// ManagedServiceAccount is created for each, and each token is proved: it is shown to its cluster, which is asked
    /// whose it is. Everything keeps running until Ctrl-C or SIGTERM. The state lies in the data directory: a second
    /// `up` continues where the first one stopped.
    Up(UpArgs),
    /// Run the hub: an API server with its controllers
    ///
    /// Certificates and keys that are not given are made at the first start and kept in the data directory. A kubeconfig
    /// for the administrator is written to DATA_DIR/admin.kubeconfig.
    Hub(Box<HubArgs>),
    /// Run the agent of one cluster
    ///
    /// It keeps a token on the hub for every ManagedServiceAccount in its cluster's namespace there. Hub and cluster may
    /// each be a Fleetpass or any Kubernetes (1.22 or later). Kubeconfigs are read again when they change.
    Agent(AgentArgs),
    /// Run the hub's controllers on a Kubernetes
    ///
    /// For a hub that is a Kubernetes and no Fleetpass: it deletes ManagedServiceAccounts whose time is over and Secrets
    /// whose account is gone, and serves metrics of the fleet. Of several managers one works at a time, elected by a Lease.
    Manager(ManagerArgs),
    /// Move a hub's objects to another store
    ///
    /// From the embedded store of a data directory to an etcd, or back; the hubs have to be stopped. What was copied is
    /// compared, and the source is not changed. Revisions do not go back for those who watched it.
    Migrate(MigrateArgs),
    /// Print what a Kubernetes needs to be a hub or a managed cluster
    ///
    /// YAML for `kubectl apply --server-side -f -`: applied again, it changes nothing.
    #[command(subcommand)]
    Install(InstallArgs),
}

/// The arguments of `fleetpass up`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Examples:\n  \
    fleetpass up\n  \
    fleetpass up --clusters 5 --port 7443\n  \
    fleetpass up --data-dir \"$(mktemp -d)\" --port 0 --exit-when-ready\n  \
    kubectl --kubeconfig .fleetpass/hub.kubeconfig get managedserviceaccounts -A")]
pub(crate) struct UpArgs {
    /// How many clusters: cluster1, cluster2, …
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=100))]
    pub(crate) clusters: u16,
    /// Where the state and the kubeconfigs lie
    #[arg(long, value_name = "DIR", default_value = ".fleetpass")]
    pub(crate) data_dir: PathBuf,
    /// The hub's port; the clusters take the next ones. With 0, each takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 6443)]
    pub(crate) port: u16,
    /// Stop with exit code 0 once every token is proved
    #[arg(long)]
    pub(crate) exit_when_ready: bool,
}

/// The arguments of `fleetpass hub`.
#[derive(Debug, Clone, Args)]
#[command(after_long_help = "Examples:\n  \
    fleetpass hub\n  \
    fleetpass hub --data-dir /var/lib/fleetpass --bind-address 0.0.0.0 --token-auth-file tokens.csv\n  \
    kubectl --kubeconfig .fleetpass/hub/admin.kubeconfig get namespaces")]
pub(crate) struct HubArgs {
    /// Where the hub keeps its objects, certificates and keys
    #[arg(long, value_name = "DIR", default_value = ".fleetpass/hub")]
    pub(crate) data_dir: PathBuf,

    /// The address to listen on; 0.0.0.0 or :: for all
    #[arg(long, value_name = "IP", default_value = "127.0.0.1", help_heading = "Serving")]
    pub(crate) bind_address: IpAddr,
    /// The port of HTTPS; with 0, a free one
    #[arg(long, value_name = "PORT", default_value_t = 6443, help_heading = "Serving")]
    pub(crate) secure_port: u16,
    /// The serving certificate and its chain (PEM), instead of one that is made. Read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_private_key_file", help_heading = "Serving")]
    pub(crate) tls_cert_file: Option<PathBuf>,
    /// The key of --tls-cert-file (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert_file", help_heading = "Serving")]
    pub(crate) tls_private_key_file: Option<PathBuf>,

    /// Further authorities (PEM) for client certificates: common name is the user, organizations are groups
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    pub(crate) client_ca_file: Option<PathBuf>,
    /// Static bearer tokens, a CSV file: token,user,uid,"group1,group2"
    #[arg(long, value_name = "FILE", help_heading = "Authentication")]
    pub(crate) token_auth_file: Option<PathBuf>,
    /// The audiences of the API, separated by commas. Default: the issuers
    #[arg(long, value_name = "NAMES", value_delimiter = ',', help_heading = "Authentication")]
    pub(crate) api_audiences: Vec<String>,

    /// The issuer of service-account tokens. May be repeated: the first issues, all are accepted
    #[arg(long, value_name = "URL", default_value = DEFAULT_ISSUER, value_parser = issuer)]
    #[arg(help_heading = "Service-account tokens")]
    pub(crate) service_account_issuer: Vec<String>,
    /// The private key (PEM) that signs tokens, instead of one that is made
    #[arg(long, value_name = "FILE", help_heading = "Service-account tokens")]
    pub(crate) service_account_signing_key_file: Option<PathBuf>,
    /// Further keys (PEM, public or private) that verify tokens. May be repeated
    #[arg(long, value_name = "FILE", help_heading = "Service-account tokens")]
    pub(crate) service_account_key_file: Vec<PathBuf>,
    /// The longest lifetime of a token, e.g. 24h; requests for more get this. 1h to 2^32 s
    #[arg(long, value_name = "DURATION", value_parser = max_token_expiration)]
    #[arg(help_heading = "Service-account tokens")]
    pub(crate) service_account_max_token_expiration: Option<Duration>,

    /// The longest spec.rotation.validity of a ManagedServiceAccount; more is refused. 10m to 2^32 s
    #[arg(long, value_name = "DURATION", default_value_t = LONGEST_VALIDITY, value_parser = validity_limit)]
    #[arg(help_heading = "ManagedServiceAccounts")]
    pub(crate) max_validity: GoDuration,

    /// Where the objects are kept instead of the data directory
    #[command(flatten)]
    pub(crate) etcd: EtcdArgs,
    /// Whether Secrets are encrypted in the store, with the key in DATA_DIR/encryption.key
    #[arg(long, value_name = "BOOL", default_value_t = true, action = ArgAction::Set, help_heading = "Storage")]
    pub(crate) encrypt_secrets: bool,

    /// How many requests that read are answered at once; watches do not count. Further ones get 429. 0: no limit
    #[arg(long, value_name = "N", default_value_t = 400, help_heading = "Limits")]
    pub(crate) max_requests_inflight: u32,
    /// How many requests that write are answered at once. 0: no limit
    #[arg(long, value_name = "N", default_value_t = 200, help_heading = "Limits")]
    pub(crate) max_mutating_requests_inflight: u32,
    /// How long an answer may take before the client gets 504; watches are not meant
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = request_timeout)]
    #[arg(help_heading = "Limits")]
    pub(crate) request_timeout: Duration,
    /// How many connections are open at once. 0: as many as the limit of open files allows, up to 20000
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Limits")]
    pub(crate) max_connections: u32,
    /// How many connections one IPv4 address, or one /64 network of IPv6, may have. 0: half of all
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Limits")]
    pub(crate) max_connections_per_address: u32,
    /// How many connections may be open on which nobody was authenticated. 0: a quarter of all, up to 1000
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Limits")]
    pub(crate) max_unauthenticated_connections: u32,
    /// How many TLS handshakes are under way at once; others wait
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(help_heading = "Limits")]
    pub(crate) max_tls_handshakes: u32,
    /// How many megabytes of request bodies are kept while they come; others wait, then get 429
    #[arg(long, value_name = "MB", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(help_heading = "Limits")]
    pub(crate) max_buffered_requests_mb: u32,
    /// How many megabytes of large answers may be unread; clients that read slowly wait, then get 429
    #[arg(long, value_name = "MB", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    #[arg(help_heading = "Limits")]
    pub(crate) max_unread_answers_mb: u32,
    /// How many seconds a watch lasts, up to twice as long, if its client names no time
    #[arg(long, value_name = "SECONDS", default_value_t = 1800, help_heading = "Limits")]
    pub(crate) min_request_timeout: u32,

    /// Write who did what to this file, as lines of JSON; - for standard output. Default: no audit log
    #[arg(long, value_name = "FILE", value_parser = file, help_heading = "Audit")]
    pub(crate) audit_log_path: Option<PathBuf>,
    /// For how many days full audit logs are kept; 0: for ever
    #[arg(long, value_name = "DAYS", default_value_t = 366, help_heading = "Audit")]
    pub(crate) audit_log_maxage: u32,
    /// How many full audit logs are kept; 0: all
    #[arg(long, value_name = "N", default_value_t = 100, help_heading = "Audit")]
    pub(crate) audit_log_maxbackup: u32,
    /// The megabytes after which an audit log is full; 0: it never is
    #[arg(long, value_name = "MB", default_value_t = 100, help_heading = "Audit")]
    pub(crate) audit_log_maxsize: u32,

    /// Switches: EphemeralIdentity=true honours spec.ttlSecondsAfterCreation
    #[arg(long, value_name = "NAME=BOOL", default_value = "", hide_default_value = true)]
    pub(crate) feature_gates: FeatureGates,
}

/// An etcd cluster.
#[derive(Debug, Clone, Args)]
pub(crate) struct EtcdArgs {
    /// Keep the objects on etcd instead of in the data directory: the URLs of its members, separated by commas. Hubs with
    /// the same etcd and the same keys are replicas of each other
    #[arg(id = "etcd_servers", long = "etcd-servers", value_name = "URLS", value_delimiter = ',')]
    #[arg(help_heading = "Storage")]
    pub(crate) servers: Vec<String>,
    /// The authority (PEM) of the certificates of etcd's members
    #[arg(id = "etcd_cafile", long = "etcd-cafile", value_name = "FILE", requires = "etcd_servers")]
    #[arg(help_heading = "Storage")]
    pub(crate) cafile: Option<PathBuf>,
    /// The client certificate (PEM) for etcd
    #[arg(id = "etcd_certfile", long = "etcd-certfile", value_name = "FILE")]
    #[arg(requires_all = ["etcd_servers", "etcd_keyfile", "etcd_cafile"], help_heading = "Storage")]
    pub(crate) certfile: Option<PathBuf>,
    /// The key of --etcd-certfile (PEM)
    #[arg(id = "etcd_keyfile", long = "etcd-keyfile", value_name = "FILE", requires = "etcd_certfile")]
    #[arg(help_heading = "Storage")]
    pub(crate) keyfile: Option<PathBuf>,
    /// What all keys in etcd begin with
    #[arg(
        long = "etcd-prefix",
        value_name = "PREFIX",
        default_value = "/registry",
        help_heading = "Storage"
    )]
    pub(crate) prefix: String,
    /// How often etcd is told to forget what is older than this; 0: never
    #[arg(long = "etcd-compaction-interval", value_name = "DURATION", default_value = "5m")]
    #[arg(value_parser = duration, help_heading = "Storage")]
    pub(crate) compaction_interval: Duration,
}

/// The arguments of `fleetpass agent`.
#[derive(Debug, Clone, Args)]
// Of a flag that is given twice the last one counts, as upstream's flags are read.
#[command(args_override_self = true)]
#[command(after_long_help = "Examples:\n  \
    fleetpass agent --cluster-name cluster1 --kubeconfig hub.kubeconfig --spoke-kubeconfig cluster1.kubeconfig\n  \
    fleetpass agent --cluster-name cluster1 --kubeconfig /etc/hub/kubeconfig   (in a pod of the cluster)")]
pub(crate) struct AgentArgs {
    /// The name of the cluster: its namespace on the hub
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) cluster_name: String,
    /// The kubeconfig of the hub. Default: the file(s) of $KUBECONFIG, else ~/.kube/config
    #[arg(long, value_name = "FILE", env = "HUB_KUBECONFIG")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The kubeconfig of the cluster. Default: the service account of the pod that the agent runs in
    #[arg(long, value_name = "FILE")]
    pub(crate) spoke_kubeconfig: Option<PathBuf>,
    /// The Secret of the cluster that the kubeconfig of the hub is mounted from: there the agent puts its renewed certificate.
    /// Default: it writes the files
    #[arg(long, value_name = "NAME", env = "HUB_KUBECONFIG_SECRET")]
    #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) hub_kubeconfig_secret: Option<String>,
    /// The namespace of the service accounts on the cluster. Default: the pod's, else
    /// open-cluster-management-agent-addon
    #[arg(long = "namespace", value_name = "NAME", env = "NAMESPACE")]
    pub(crate) namespace: Option<String>,
    /// The longest spec.rotation.validity that this cluster's agent requests; accounts with a longer one are told. 10m to
    /// 2^32 s. Default: whatever the cluster grants
    #[arg(long, alias = "max-token-validity", value_name = "DURATION", value_parser = validity_limit)]
    pub(crate) max_validity: Option<GoDuration>,
    /// Where /metrics is served; :PORT for all addresses, 0 for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:38080", value_parser = endpoint)]
    pub(crate) metrics_bind_address: EndpointAddress,
    /// Where /healthz and /readyz are served; :PORT for all addresses, 0 for nowhere
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:38081", value_parser = endpoint)]
    pub(crate) health_probe_bind_address: EndpointAddress,
    /// Renew a Lease in the agent's namespace while the agent is well
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) lease_health_check: bool,
    /// Where /healthz is served besides; as `msa agent`, :8000, where the upstream agent's Deployment looks for it
    #[arg(long, value_name = "ADDRESS", default_value = "0", value_parser = endpoint)]
    pub(crate) liveness_bind_address: EndpointAddress,
    /// Switches: EphemeralIdentity=true honours spec.ttlSecondsAfterCreation
    #[arg(long, value_name = "NAME=BOOL", default_value = "", hide_default_value = true, value_parser = agent_gates)]
    pub(crate) feature_gates: FeatureGates,
    /// Whether several agents of the cluster elect one that works, by a Lease in the agent's namespace; without it, run
    /// one only
    #[arg(long, value_name = "BOOL", default_value_t = false, action = ArgAction::Set)]
    #[arg(num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) leader_elect: bool,
    /// Flags of the upstream agent that change nothing here
    #[command(flatten)]
    pub(crate) klog: upstream::KlogArgs,
}

/// The issuer unless told otherwise, as kubeadm sets it up.
pub(crate) const DEFAULT_ISSUER: &str = "https://kubernetes.default.svc";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    fn parse(line: &str) -> Result<Command, String> {
        called_as(&format!("fleetpass {line}"))
    }

    /// With the name of the program.
    fn called_as(line: &str) -> Result<Command, String> {
        let words = upstream::arguments(line.split_whitespace().map(Into::into));
        Cli::try_parse_from(words).map(|cli| cli.command).map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_has_its_defaults() {
        let Command::Up(args) = parse("up").unwrap() else { panic!() };
        assert_eq!((args.clusters, args.port, args.exit_when_ready), (2, 6443, false));
        assert_eq!(args.data_dir, PathBuf::from(".fleetpass"));
        let Command::Up(args) = parse("up --clusters 5 --port 0 --data-dir d --exit-when-ready").unwrap()
        else {
            panic!()
        };
        assert_eq!((args.clusters, args.port, args.exit_when_ready), (5, 0, true));
    }

    #[test]
    fn the_hub_takes_the_flags_of_kube_apiserver() {
        let line = "hub --data-dir D --bind-address 127.0.0.1 --secure-port 6443 --tls-cert-file c \
            --tls-private-key-file k --client-ca-file ca --token-auth-file F --service-account-issuer https://a \
            --service-account-issuer b --service-account-signing-key-file s --service-account-key-file v1 \
            --service-account-key-file v2 --service-account-max-token-expiration 24h0m0s --api-audiences x,y \
            --feature-gates=EphemeralIdentity=true --encrypt-secrets=false --audit-log-path /var/log/audit.log \
            --audit-log-maxage 30 --audit-log-maxbackup 10 --audit-log-maxsize 5";
        let Command::Hub(args) = parse(line).unwrap() else { panic!() };
        assert_eq!(args.service_account_issuer, ["https://a", "b"]);
        assert_eq!(args.api_audiences, ["x", "y"]);
        assert_eq!(args.service_account_key_file, [PathBuf::from("v1"), PathBuf::from("v2")]);
        assert_eq!(args.service_account_max_token_expiration, Some(Duration::from_secs(86_400)));
        assert!(args.feature_gates.ephemeral_identity && !args.encrypt_secrets);
        assert_eq!(args.audit_log_path, Some("/var/log/audit.log".into()));
        assert_eq!((args.audit_log_maxage, args.audit_log_maxbackup, args.audit_log_maxsize), (30, 10, 5));
        let Command::Hub(args) = parse("hub").unwrap() else { panic!() };
        assert_eq!(args.service_account_issuer, [DEFAULT_ISSUER]);
        assert!(args.bind_address.is_loopback() && args.encrypt_secrets && args.api_audiences.is_empty());
        assert!(args.etcd.servers.is_empty());
        let line = "hub --etcd-servers=https://a:2379,https://b:2379 --etcd-cafile=ca --etcd-certfile=c \
            --etcd-keyfile=k --etcd-prefix=/fleet --etcd-compaction-interval=0";
        let Command::Hub(args) = parse(line).unwrap() else { panic!() };
        assert_eq!(args.etcd.servers, ["https://a:2379", "https://b:2379"]);
        assert_eq!((args.etcd.prefix.as_str(), args.etcd.compaction_interval), ("/fleet", Duration::ZERO));
        assert_eq!(args.etcd.certfile.zip(args.etcd.keyfile), Some(("c".into(), "k".into())));
        assert_eq!(args.audit_log_path, None);
        assert_eq!(
            (args.audit_log_maxage, args.audit_log_maxbackup, args.audit_log_maxsize),
            (366, 100, 100)
        );
    }

    #[test]
    fn the_agent_takes_the_flags_of_the_addon() {
        // As the addon's manifests start it.
        let line = "agent --leader-elect=false --cluster-name=cluster1 --kubeconfig=/etc/hub/kubeconfig \
            --lease-health-check=true --feature-gates=EphemeralIdentity=true --metrics-bind-address=:38080 \
            --health-probe-bind-address=0 --spoke-kubeconfig s";
        let Command::Agent(args) = parse(line).unwrap() else { panic!() };
        assert_eq!(args.cluster_name, "cluster1");
        assert_eq!(args.kubeconfig, Some("/etc/hub/kubeconfig".into()));
        assert!(args.lease_health_check && args.feature_gates.ephemeral_identity);
        assert_eq!(
            args.metrics_bind_address,
            endpoint("[::]:38080")
                .map(|mut a| {
                    a.0.push(([0, 0, 0, 0], 38080).into());
                    a
                })
                .unwrap()
        );
        assert_eq!(args.health_probe_bind_address.0, []);
        assert!(!args.leader_elect);
        let Command::Agent(args) =
            parse("agent --cluster-name a --lease-health-check --leader-elect").unwrap()
        else {
            panic!()
        };
        assert!(args.lease_health_check && args.leader_elect);
        assert_eq!(args.liveness_bind_address.0, []);
        assert_eq!(args.metrics_bind_address, endpoint("localhost:38080").unwrap());
    }

    /// The containers of `pkg/addon/manager/manifests/charts/managed-serviceaccount-agent/templates/deployment.yaml` and
    /// `charts/managed-serviceaccount/templates/{addontemplate,manager-deployment}.yaml`, as the charts render them.
    #[test]
    fn upstreams_deployments_run_as_they_are() {
        let everywhere = |port| endpoint(&format!(":{port}")).unwrap();
        for line in [
            "/msa agent --leader-elect=false --cluster-name=cluster1 --kubeconfig=/etc/hub/kubeconfig \
             --lease-health-check=true",
            "/msa agent --leader-elect=true --cluster-name=cluster1 --kubeconfig=/managed/hub-kubeconfig/kubeconfig \
             --feature-gates=EphemeralIdentity=true",
            "/agent --cluster-name=cluster1 --feature-gates=EphemeralIdentity=true,ClusterProfile=true -v=4",
            "agent --cluster_name cluster1 --leader_elect --v 2 --logtostderr --log_dir=/tmp --stderrthreshold=INFO",
            "/usr/bin/msa agent --cluster-name=a --cluster-name=cluster1",
        ] {
            let Command::Agent(args) = called_as(line).unwrap_or_else(|e| panic!("{line}: {e}")) else {
                panic!()
            };
            assert_eq!(args.cluster_name, "cluster1", "{line}");
            let bound =
                [args.metrics_bind_address, args.health_probe_bind_address, args.liveness_bind_address];
            assert_eq!(bound, [everywhere(38080), everywhere(38081), everywhere(8000)], "{line}");
            assert_eq!(
                args.leader_elect,
                line.contains("elect=true") || line.contains("leader_elect "),
                "{line}"
            );
            assert_eq!(args.feature_gates.ephemeral_identity, line.contains("EphemeralIdentity"), "{line}");
        }
        for line in [
            "/msa manager --leader-elect=true --deploy-mode=Deployment --metrics-bind-address=:38080 \
             --agent-image-name=quay.io/open-cluster-management/managed-serviceaccount:latest \
             --feature-gates=EphemeralIdentity=true,ClusterProfile=false --agent-image-pull-secret=s",
            "/manager --deploy-mode=AddOnTemplate --feature-gates=EphemeralIdentity=true,ClusterProfile=0",
        ] {
            let Command::Manager(args) = called_as(line).unwrap_or_else(|e| panic!("{line}: {e}")) else {
                panic!()
            };
            let bound = [args.metrics_bind_address, args.health_probe_bind_address];
            assert_eq!(bound, [everywhere(38080), everywhere(38081)], "{line}");
            assert_eq!(args.leader_elect, line.contains("elect=true"), "{line}");
            assert_eq!(args.leader_elect_resource_name, "managed-serviceaccount-addon-manager");
            assert!(args.feature_gates.ephemeral_identity, "{line}");
        }
        // What is given counts, and under our own name all is as it was.
        let line = "msa agent --cluster-name=a --liveness-bind-address=0 --metrics-bind-address=127.0.0.1:1";
        let Command::Agent(args) = called_as(line).unwrap() else { panic!() };
        assert_eq!(
            (args.liveness_bind_address.0.len(), args.metrics_bind_address),
            (0, endpoint("127.0.0.1:1").unwrap())
        );
        let Command::Manager(args) = called_as("fleetpass manager").unwrap() else { panic!() };
        assert!(args.leader_elect && args.leader_elect_resource_name == "fleetpass-manager");
        assert!(matches!(called_as("msa up"), Ok(Command::Up(_))));
    }

    #[test]
    fn mistakes_are_explained() {
        for (line, words) in [
            ("up --clusters 0", "1..=100"),
            ("up --port 65536", "65536"),
            ("hub --tls-cert-file c", "--tls-private-key-file"),
            ("hub --tls-private-key-file k", "--tls-cert-file"),
            ("hub --bind-address localhost", "invalid IP address"),
            ("hub --service-account-issuer=", "must not be empty"),
            ("hub --service-account-issuer=a:b:c", "not a valid URL"),
            ("hub --service-account-max-token-expiration 59m", "between 1 hour and 2^32 seconds"),
            ("hub --service-account-max-token-expiration=-2h", "must not be negative"),
            ("hub --service-account-max-token-expiration 2000000h", "between 1 hour and 2^32 seconds"),
            ("hub --service-account-max-token-expiration soon", "soon"),
            ("hub --feature-gates=Nonsense=true", "unrecognized feature gate: Nonsense"),
            ("hub --etcd-cafile x", "--etcd-servers"),
            ("hub --etcd-servers https://e:2379 --etcd-cafile a --etcd-certfile c", "--etcd-keyfile"),
            ("hub --etcd-servers https://e:2379 --etcd-certfile c --etcd-keyfile k", "--etcd-cafile"),
            ("hub --etcd-compaction-interval=-1s", "must not be negative"),
            ("hub --audit-log-path=", "must not be empty"),
            ("hub --audit-log-maxsize=-1", "--audit-log-maxsize"),
            ("hub --audit-policy-file x", "unexpected argument"),
            ("hub --max-requests-inflight=-1", "--max-requests-inflight"),
            ("hub --request-timeout 0s", "must be more than 0"),
            ("hub --request-timeout=-1s", "must not be negative"),
            ("hub --min-request-timeout 1m", "--min-request-timeout"),
            ("agent", "--cluster-name"),
            (
                "agent --cluster-name a --feature-gates=Other=true",
                "known are EphemeralIdentity, ClusterProfile",
            ),
            ("manager --feature-gates=ClusterProfile=true", "is not supported"),
            ("hub --feature-gates=ClusterProfile=true", "is not supported"),
            ("manager --deploy-mode=Helm", "AddOnTemplate"),
            ("agent --cluster-name=", "--cluster-name"),
            ("agent --cluster-name a --metrics-bind-address here", "IP:PORT"),
            ("agent --cluster-name a --max-validity 9m", "between 10 minutes"),
            ("agent --cluster-name a --max-validity 1d", "1d"),
            ("agent --cluster-name a --metrics-bind-address :99999", "no port"),
            ("", "Usage"),
        ] {
            let error = parse(line).err().unwrap_or_else(|| "accepted".into());
            assert!(error.contains(words), "{line}: {error}");
        }
    }
}
