//! The command line of the upstream addon (open-cluster-management-io/managed-serviceaccount, `cmd`), so that its Deployments run
//! this program as they are.
//!
//! Called as `msa`, the program is `fleetpass` with upstream's defaults for `agent` and `manager`; called as `agent` or
//! `manager`, it is `msa agent` or `msa manager`.

use clap::{Args, ValueEnum};
use std::ffi::{OsStr, OsString};
use std::path::Path;

/// What upstream's agent listens on without being told: all addresses, and the probe of its Deployment.
const AGENT: [&str; 3] =
    ["--metrics-bind-address=:38080", "--health-probe-bind-address=:38081", "--liveness-bind-address=:8000"];
/// The same of its manager, which takes part in no election without being told. The Lease is upstream's (`LeaderElectionID` in
/// `cmd/manager/manager.go`), so that the two wait for each other.
const MANAGER: [&str; 4] = [
    "--metrics-bind-address=:38080",
    "--health-probe-bind-address=:38081",
    "--leader-elect=false",
    "--leader-elect-resource-name=managed-serviceaccount-addon-manager",
];

/// The arguments of the process as `fleetpass` takes them.
pub(super) fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut given = given.into_iter();
    let program = given.next().unwrap_or_else(|| "fleetpass".into());
    let mut rest: Vec<OsString> = given.collect();
    let name = Path::new(&program).file_stem().and_then(OsStr::to_str).unwrap_or_default().to_owned();
    if matches!(&*name, "agent" | "manager") {
        rest.insert(0, name.clone().into());
    }
    let command = rest.first().and_then(|word| word.to_str()).unwrap_or_default().to_owned();
    if !matches!(&*command, "agent" | "manager") {
        return std::iter::once(program).chain(rest).collect();
    }
    // In front of what is given, which counts.
    let defaults: &[&str] = match (&*name, &*command) {
        ("msa" | "agent" | "manager", "agent") => &AGENT,
        ("msa" | "agent" | "manager", _) => &MANAGER,
        _ => &[],
    };
    let flags = rest.iter().skip(1).map(|word| normalized(word));
    let words = std::iter::once(command.into()).chain(defaults.iter().map(Into::into)).chain(flags);
    std::iter::once(program).chain(words).collect()
}

/// A flag with `-` for `_` in its name, as upstream's flags are read (`WordSepNormalizeFunc` in k8s.io/component-base).
fn normalized(word: &OsStr) -> OsString {
    let Some(flag) = word.to_str().filter(|word| word.starts_with("--")) else { return word.to_owned() };
    match flag.split_once('=') {
        Some((name, value)) => format!("{}={value}", name.replace('_', "-")).into(),
        None => flag.replace('_', "-").into(),
    }
}

/// The flags of klog, by which programs of Kubernetes log.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct KlogArgs {
    /// How much is logged.
    #[arg(short = 'v', long = "v", value_name = "LEVEL", hide = true)]
    v: Option<i32>,
    /// How much is logged by which file.
    #[arg(long, value_name = "PATTERNS", hide = true)]
    vmodule: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    logtostderr: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    alsologtostderr: Option<bool>,
    #[arg(long, hide = true)]
    stderrthreshold: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    legacy_stderr_threshold_behavior: Option<bool>,
    #[arg(long, hide = true)]
    log_dir: Option<String>,
    #[arg(long, hide = true)]
    log_file: Option<String>,
    #[arg(long, hide = true)]
    log_file_max_size: Option<u64>,
    #[arg(long, hide = true)]
    log_backtrace_at: Option<String>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    skip_headers: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    skip_log_headers: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    one_output: Option<bool>,
    #[arg(long, hide = true, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    add_dir_header: Option<bool>,
}

impl KlogArgs {
    /// Says which of them were given, and what to use instead.
    pub(crate) fn tell(&self) {
        let given = [
            ("-v", self.v.is_some()),
            ("--vmodule", self.vmodule.is_some()),
            ("--logtostderr", self.logtostderr.is_some()),
            ("--alsologtostderr", self.alsologtostderr.is_some()),
            ("--stderrthreshold", self.stderrthreshold.is_some()),
            ("--legacy-stderr-threshold-behavior", self.legacy_stderr_threshold_behavior.is_some()),
            ("--log-dir", self.log_dir.is_some()),
            ("--log-file", self.log_file.is_some()),
            ("--log-file-max-size", self.log_file_max_size.is_some()),
            ("--log-backtrace-at", self.log_backtrace_at.is_some()),
            ("--skip-headers", self.skip_headers.is_some()),
            ("--skip-log-headers", self.skip_log_headers.is_some()),
            ("--one-output", self.one_output.is_some()),
            ("--add-dir-header", self.add_dir_header.is_some()),
        ];
        let given: Vec<_> = given.into_iter().filter_map(|(flag, given)| given.then_some(flag)).collect();
        if !given.is_empty() {
            let flags = given.join(", ");
            tracing::info!(
                flags,
                "flags of klog change nothing here: RUST_LOG says what is logged, to standard error"
            );
        }
    }
}

/// What upstream's manager is told about the agents that it installs.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UpstreamManagerArgs {
    /// Who installs the agents.
    #[arg(long, value_enum, hide = true)]
    deploy_mode: Option<DeployMode>,
    #[arg(long, hide = true)]
    agent_image_name: Option<String>,
    #[arg(long, hide = true)]
    agent_image_pull_secret: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeployMode {
    #[value(name = "Deployment")]
    Deployment,
    #[value(name = "AddOnTemplate")]
    AddOnTemplate,
}

impl UpstreamManagerArgs {
    /// Says what is not done here, where upstream's would.
    pub(crate) fn tell(&self) {
        let installs = self.agent_image_name.is_some() || self.agent_image_pull_secret.is_some();
        if installs && self.deploy_mode != Some(DeployMode::AddOnTemplate) {
            tracing::warn!(
                "this manager installs no agents on clusters, whatever --agent-image-name says: use the chart's AddOnTemplate \
                 (hubDeployMode=AddOnTemplate), or `fleetpass install cluster`"
            );
        }
    }
}
