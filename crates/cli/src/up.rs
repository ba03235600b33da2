//! `fleetpass up`: a hub, clusters and their agents, in one process.

use crate::agent::AgentJob;
use crate::args::{DEFAULT_ISSUER, UpArgs};
use crate::clients::Source;
use crate::console::Console;
use crate::control_plane::{self, ControlPlane};
use crate::keep::{Renewal, keep_fresh};
use crate::kubeconfig::KubeconfigFile;
use crate::net;
use crate::open_files;
use crate::pki::ClientSubject;
use crate::proof::{Proof, Target, prove};
use crate::settings::{HubRole, Role, Settings, Storage};
use crate::signals::stop_on_signal;
use anyhow::Context as _;
use fleetpass_agent::{Options, spoke_manifests};
use fleetpass_api::clock::{self, SharedClock};
use fleetpass_api::features::FeatureGates;
use fleetpass_api::{ManagedServiceAccount, names};
use fleetpass_apiserver::{ConnectionLimits, RequestLimits};
use fleetpass_hub::join;
use kube::api::PostParams;
use kube::{Api, Client};
use serde_json::json;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The name of the account that is created for each cluster.
const SAMPLE: &str = "my-sample";
/// Without a flag to change it: `up` is for trying things out on one machine.
const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Starts everything, proves every token, and runs until a signal, or with `--exit-when-ready` until all is proved.
///
/// # Errors
///
/// Something cannot start, a token does not come, or a part ended.
pub(crate) async fn run(args: UpArgs) -> anyhow::Result<()> {
    let stop = stop_on_signal()?;
    let began = Instant::now();
    let console = Console::new();
    let listeners = net::bind_row(LOOPBACK, args.port, args.clusters + 1, "--port").await?;
    let heading = format!("hub and {} in {}", count(args.clusters), args.data_dir.display());
    console.line(&format!("\n{} {}\n", console.strong("fleetpass"), console.faint(&heading)));
    let clock = clock::system();
    let mut control_planes = Vec::new();
    let started = tokio::select! {
        started = start_control_planes(&args.data_dir, listeners, &clock, &console, &mut control_planes) => started.map(|()| true),
        () = stop.cancelled() => Ok(false),
    };
    // Whatever happens from here on, what has started is stopped in order: agents, then controllers, servers, stores.
    let result = match started {
        Ok(true) => {
            let mut agents = Agents::default();
            let result =
                prove_and_wait(&args, &console, &clock, &stop, began, &mut control_planes, &mut agents).await;
            let step = console.step("stopping");
            agents.stop().await;
            drop(step);
            result
        }
        Ok(false) => interrupted(&args),
        Err(error) => Err(error),
    };
    control_plane::stop(control_planes).await;
    if result.is_ok() && !args.exit_when_ready {
        console.line(&format!("Stopped. The state is in {}.", args.data_dir.display()));
    }
    result
}

fn interrupted(args: &UpArgs) -> anyhow::Result<()> {
    anyhow::ensure!(!args.exit_when_ready, "stopped before all was proved");
    Ok(())
}

/// Joins the clusters, starts the agents, proves the tokens, and waits.
async fn prove_and_wait(
    args: &UpArgs,
    console: &Console,
    clock: &SharedClock,
    stop: &CancellationToken,
    began: Instant,
    control_planes: &mut [ControlPlane],
    agents: &mut Agents,
) -> anyhow::Result<()> {
    let proofs = {
        let ready = get_ready(&args.data_dir, console, clock, control_planes, agents);
        tokio::select! {
            proofs = ready => proofs?,
            () = stop.cancelled() => return interrupted(args),
        }
    };
    let seconds = began.elapsed().as_secs_f64();
    for line in summary(console, &args.data_dir, &proofs, seconds, args.exit_when_ready) {
        console.line(&line);
    }
    if args.exit_when_ready {
        return Ok(());
    }
    // From here on a part that ends is a fault, whichever it is.
    let failures = control_planes.iter_mut().map(|control_plane| Box::pin(control_plane.failed()));
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        (error, ..) = futures::future::select_all(failures) => Err(error),
        error = agents.failed() => Err(error),
    }
}

/// Starts the hub, then the clusters side by side. Those that started are in `control_planes` also when another one did not.
async fn start_control_planes(
    directory: &Path,
    listeners: Vec<TcpListener>,
    clock: &SharedClock,
    console: &Console,
    control_planes: &mut Vec<ControlPlane>,
) -> anyhow::Result<()> {
    // All of them share the files of this process, and the agents' ends of the connections need some, too.
    let share = open_files::for_connections(open_files::raise()) / (2 * listeners.len().max(1));
    let connections = ConnectionLimits::of(share.min(ConnectionLimits::default().all));
    let mut rest: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(index, listener)| (settings(directory, index, connections), listener))
        .collect();
    // The lock on the hub's store is the lock on the whole directory: nothing else is touched without it.
    let clusters = rest.split_off(1);
    for (doing, batch) in [("starting the hub", rest), ("starting the clusters", clusters)] {
        let step = console.step(doing);
        let starting = batch.into_iter().map(|(settings, listener)| async {
            let name = settings.name.clone();
            ControlPlane::start(settings, listener, clock.clone())
                .await
                .with_context(|| format!("{name} cannot start"))
        });
        // All are waited for, also when one fails: those that started have to be stopped in order.
        let started = futures::future::join_all(starting).await;
        drop(step);
        let mut failure = None;
        for control_plane in started {
            match control_plane {
                Ok(control_plane) => {
                    let age = if control_plane.continued { "continued" } else { "new" };
                    console
                        .done(&control_plane.name, &format!("{}  {}", control_plane.url, console.faint(age)));
                    control_planes.push(control_plane);
                }
                Err(error) => failure = failure.or(Some(error)),
            }
        }
        if let Some(error) = failure {
            return Err(error);
        }
    }
    Ok(())
}

/// The hub has index 0, the clusters count from 1.
fn settings(directory: &Path, index: usize, connections: ConnectionLimits) -> Settings {
    let (name, role) = match index {
        0 => (
            "hub".to_owned(),
            Role::Hub(HubRole { features: FeatureGates { ephemeral_identity: true }, ..HubRole::default() }),
        ),
        index => (format!("cluster{index}"), Role::Cluster),
    };
    Settings {
        directory: directory.join(&name),
        kubeconfig: directory.join(format!("{name}.kubeconfig")),
        name,
        role,
        certificate: None,
        client_ca_file: None,
        token_auth_file: None,
        issuers: vec![DEFAULT_ISSUER.into()],
        api_audiences: Vec::new(),
        max_token_expiration: None,
        signing_key_file: None,
        key_files: Vec::new(),
        storage: Storage::Embedded,
        encrypt_secrets: true,
        audit_log: None,
        limits: RequestLimits::default(),
        connections,
    }
}

async fn get_ready(
    directory: &Path,
    console: &Console,
    clock: &SharedClock,
    control_planes: &[ControlPlane],
    agents: &mut Agents,
) -> anyhow::Result<Vec<Proof>> {
    let Some((hub, clusters)) = control_planes.split_first() else { return Ok(Vec::new()) };
    let step = console.step("joining the clusters");
    for cluster in clusters {
        let job = join_cluster(directory, clock, hub, cluster, agents)
            .await
            .with_context(|| format!("{} cannot join the hub", cluster.name))?;
        agents.start(job);
    }
    step.done("agents", &format!("one for each of {}", count(clusters.len())));

    let step = console.step("waiting for the tokens");
    // As a user would: with the kubeconfig, over the network.
    let loaded = Source::Files(vec![directory.join("hub.kubeconfig")]).load().await?;
    let client = loaded.client();
    let targets: Vec<_> = clusters.iter().map(Target::of).collect();
    let proving = targets.iter().map(|target| async {
        create_sample(&client, &target.cluster).await?;
        prove(&client, target, SAMPLE).await
    });
    let proofs = tokio::select! {
        proofs = futures::future::try_join_all(proving) => proofs?,
        error = agents.failed() => return Err(error),
    };
    step.done("tokens", &format!("{} of {} proved", proofs.len(), targets.len()));
    Ok(proofs)
}

/// Gives the agent its rights on both sides, and certificates to use them with.
async fn join_cluster(
    directory: &Path,
    clock: &SharedClock,
    hub: &ControlPlane,
    cluster: &ControlPlane,
    agents: &mut Agents,
) -> anyhow::Result<AgentJob> {
    let joined = join::join(&hub.client(), &cluster.name).await?;
    let subject = json!({"kind": "User", "name": joined.user});
    join::ensure(&cluster.client(), &spoke_manifests(names::DEFAULT_AGENT_NAMESPACE, &subject)).await?;
    let directory = directory.join("agents").join(&cluster.name);
    crate::files::create_directory(&directory)?;
    let mut side =
        |file: &str, control_plane: &ControlPlane, groups: Vec<String>| -> anyhow::Result<PathBuf> {
            let wanted = KubeconfigFile {
                path: directory.join(file),
                cluster: control_plane.name.clone(),
                server: control_plane.url.clone(),
                trust: control_plane.trust.clone(),
                subject: ClientSubject { user: joined.user.clone(), groups },
                authority: control_plane.authority.clone(),
            };
            wanted.ensure(clock.now())?;
            let path = wanted.path.clone();
            agents.keep(Box::new(move |now| Ok(wanted.ensure(now)?)), clock);
            Ok(path)
        };
    Ok(AgentJob {
        hub: Source::Files(vec![side("hub.kubeconfig", hub, joined.groups.clone())?]),
        spoke: Source::Files(vec![side("cluster.kubeconfig", cluster, Vec::new())?]),
        options: Options::new(&cluster.name, clock.clone()),
        ephemeral_identity: false,
        hub_secret: None,
        endpoints: Vec::new(),
        election: None,
    })
}

async fn create_sample(hub: &Client, cluster: &str) -> anyhow::Result<()> {
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(hub.clone(), cluster);
    match accounts.create(&PostParams::default(), &ManagedServiceAccount::new(cluster, SAMPLE)).await {
        Ok(_) => Ok(()),
        // From an earlier `up`, and perhaps changed by the user since: left as it is.
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("the ManagedServiceAccount {cluster}/{SAMPLE}")),
    }
}

/// The agents, and what keeps their certificates fresh.
#[derive(Default)]
struct Agents {
    stop: CancellationToken,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Agents {
    fn start(&mut self, job: AgentJob) {
        self.tasks.spawn(job.run(self.stop.clone()));
    }

    fn keep(&mut self, item: Renewal, clock: &SharedClock) {
        let keeping = keep_fresh(vec![item], clock.clone(), self.stop.clone());
        self.tasks.spawn(async move {
            keeping.await;
            Ok(())
        });
    }

    /// Waits until an agent ends that should not.
    async fn failed(&mut self) -> anyhow::Error {
        match self.tasks.join_next().await {
            Some(Ok(Err(error))) => error.context("an agent ended"),
            Some(Ok(Ok(()))) => anyhow::anyhow!("an agent ended unexpectedly"),
            Some(Err(error)) => anyhow::Error::new(error).context("an agent ended"),
            // No agents, no failures.
            None => std::future::pending().await,
        }
    }

    /// Agents end by themselves within their grace.
    async fn stop(&mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

/// What there is now, and what to try next.
fn summary(
    console: &Console,
    directory: &Path,
    proofs: &[Proof],
    seconds: f64,
    leaving: bool,
) -> Vec<String> {
    let mut lines = vec![String::new()];
    lines.push("Every token was shown to its cluster, which answered whose it is:".into());
    lines.push(String::new());
    for proof in proofs {
        let cluster = console.strong(&format!("{:<10}", proof.cluster));
        lines.push(format!("  {cluster}  {}", proof.user));
        let origin = format!("Secret {}/{SAMPLE} on the hub, expires {}", proof.cluster, proof.expires);
        lines.push(format!("  {:<10}  {}", "", console.faint(&origin)));
    }
    lines.push(String::new());
    let shown = |name: &str| shell_word(&directory.join(format!("{name}.kubeconfig")));
    lines.push(format!("Ready in {seconds:.1} s. Kubeconfigs:"));
    lines.push(String::new());
    lines.push(format!("  {}", shown("hub")));
    lines.extend(proofs.iter().map(|proof| format!("  {}", shown(&proof.cluster))));
    lines.push(String::new());
    if leaving {
        return lines;
    }
    if let Some(first) = proofs.first() {
        let (hub, cluster) = (shown("hub"), &first.cluster);
        lines.push("Try:".into());
        lines.push(String::new());
        lines.push(format!("  kubectl --kubeconfig {hub} get managedserviceaccounts -A"));
        lines.push(format!(
            "  kubectl --kubeconfig {hub} -n {cluster} describe managedserviceaccount {SAMPLE}"
        ));
        lines.push(format!(
            "  kubectl --kubeconfig {} -n {} get serviceaccounts",
            shown(cluster),
            names::DEFAULT_AGENT_NAMESPACE
        ));
        lines.push(format!(
            "  kubectl --kubeconfig {hub} -n {cluster} delete secret {SAMPLE}   # a fresh one comes"
        ));
        lines.push(String::new());
    }
    lines.push(console.faint("Ctrl-C stops everything; the state stays."));
    lines
}

fn count(clusters: impl TryInto<u64>) -> String {
    match clusters.try_into().unwrap_or(u64::MAX) {
        1 => "1 cluster".into(),
        n => format!("{n} clusters"),
    }
}

/// A path as one word of a shell command.
fn shell_word(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+=:,@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        text
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_a_shell() {
        for (path, word) in [
            (".fleetpass/hub.kubeconfig", ".fleetpass/hub.kubeconfig"),
            ("/tmp/my dir/a", "'/tmp/my dir/a'"),
            ("it's", r"'it'\''s'"),
            ("$HOME", "'$HOME'"),
        ] {
            assert_eq!(shell_word(Path::new(path)), word);
        }
    }

    #[test]
    fn every_plane_has_its_own_directory_and_kubeconfig() {
        let directory = Path::new("d");
        let limits = ConnectionLimits::default();
        let (hub, second) = (settings(directory, 0, limits), settings(directory, 2, limits));
        assert!(matches!(hub.role, Role::Hub(_)) && second.role == Role::Cluster);
        assert_eq!(hub.kubeconfig, Path::new("d/hub.kubeconfig"));
        assert_eq!((second.name.as_str(), second.directory.as_path()), ("cluster2", Path::new("d/cluster2")));
    }
}
