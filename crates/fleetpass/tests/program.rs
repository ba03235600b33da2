//! The program as a user runs it: its exit codes, its words, its files.

use fleetpass_api::{ManagedServiceAccount, names};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{ObjectMeta, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, Client, Config};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

fn fleetpass(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetpass"));
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .env_remove("HUB_KUBECONFIG")
        .env_remove("NAMESPACE")
        .env_remove("KUBERNETES_SERVICE_HOST");
    command
}

fn run(arguments: &[&str]) -> Output {
    fleetpass(arguments).stdin(Stdio::null()).output().expect("the program starts")
}

fn up_once(directory: &Path) -> Output {
    let directory = directory.to_str().unwrap();
    run(&["up", "--data-dir", directory, "--clusters", "1", "--port", "0", "--exit-when-ready"])
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All files below a directory but those of the stores.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![directory.to_owned()];
    while let Some(next) = pending.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if !path.ends_with("store") {
                    pending.push(path);
                }
            } else {
                found.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(|_| ()).unwrap() }
    }
}

#[test]
fn up_proves_its_tokens_and_continues_where_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let first = up_once(&state);
    let user = "system:serviceaccount:open-cluster-management-agent-addon:my-sample";
    assert!(first.status.success(), "{}", text(&first.stderr));
    assert!(text(&first.stdout).contains(user) && !text(&first.stdout).contains("continued"));
    for kubeconfig in ["hub.kubeconfig", "cluster1.kubeconfig"] {
        assert!(text(&first.stdout).contains(state.join(kubeconfig).to_str().unwrap()));
        Kubeconfig::read_from(state.join(kubeconfig)).unwrap();
    }
    let before = files(&state);

    let second = up_once(&state);
    assert!(second.status.success(), "{}", text(&second.stderr));
    assert_eq!(text(&second.stdout).matches("continued").count(), 2, "{}", text(&second.stdout));
    // The ports are others, so the kubeconfigs are; certificates and keys stay.
    let keys = |files: &BTreeMap<PathBuf, Vec<u8>>| -> Vec<_> {
        let is_key = |path: &Path| path.extension().is_some_and(|extension| extension != "kubeconfig");
        files.iter().filter(|(path, _)| is_key(path)).map(|(p, c)| (p.clone(), c.clone())).collect()
    };
    assert_eq!(keys(&files(&state)), keys(&before));
    assert_eq!(keys(&before).len(), 10, "{:?}", before.keys());

    faults_are_named(dir.path(), &state);
}

/// Every fault of a data directory ends the program with one line that names the file, and changes nothing.
fn faults_are_named(work: &Path, state: &Path) {
    type Spoil = fn(&Path);
    let cases: &[(&str, Spoil, &str)] = &[
        ("hub/pki/ca.key", |p| fs::remove_file(p).unwrap(), "is missing although ca.crt is there"),
        ("hub/pki/ca.key", |p| cut(p), "cut short"),
        ("hub/pki/ca.crt", |p| cut(p), "cut short"),
        ("hub/pki/serving.pem", |p| cut(p), "remove it"),
        ("cluster1/pki/sa.key", |p| cut(p), "no usable key"),
        ("hub/encryption.key", |p| fs::remove_file(p).unwrap(), "encrypted Secrets"),
        ("hub/encryption.key", |p| cut(p), "not a key file"),
        ("hub/store/store.redb", |p| cut(p), "damaged"),
        ("hub.kubeconfig", |p| cut(p), "is no kubeconfig"),
        ("agents/cluster1/hub.kubeconfig", |p| cut(p), "is no kubeconfig"),
    ];
    for (index, (file, spoil, words)) in cases.iter().enumerate() {
        let copied = work.join(format!("copy{index}"));
        copy(state, &copied);
        let path = copied.join(file);
        spoil(&path);
        let before = files(&copied);
        let output = up_once(&copied);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{file}: {error}");
        let line = error.lines().find(|line| line.starts_with("error: ")).unwrap_or_default();
        assert!(line.contains(path.to_str().unwrap()) && line.contains(words), "{file}: {error}");
        let after = files(&copied);
        let rewritten = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "kubeconfig");
        for (name, content) in &before {
            assert!(
                after.get(name) == Some(content) || rewritten(name) && *name != path,
                "{file}: {name:?} changed"
            );
        }
    }
}

fn cut(path: &Path) {
    let whole = fs::read(path).unwrap();
    fs::write(path, &whole[..whole.len() / 3]).unwrap();
}

#[test]
fn mistakes_end_with_one_line() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::write(path("tokens"), "only,two\n").unwrap();
    fs::write(path("not-pem"), "hello").unwrap();
    let data = path("data");
    for (arguments, words) in [
        (vec!["up", "--data-dir", &data, "--port", &port], format!("port {port} is taken")),
        (
            vec!["hub", "--data-dir", &data, "--secure-port", &port],
            "choose another port with --secure-port".into(),
        ),
        (vec!["hub", "--data-dir", &data, "--secure-port", "0", "--token-auth-file", &path("x")], path("x")),
        (
            vec!["hub", "--data-dir", &data, "--secure-port", "0", "--token-auth-file", &path("tokens")],
            "line 1".into(),
        ),
        (
            vec!["hub", "--data-dir", &data, "--secure-port", "0", "--client-ca-file", &path("not-pem")],
            path("not-pem"),
        ),
        (
            vec![
                "agent",
                "--cluster-name",
                "a",
                "--kubeconfig",
                &path("no"),
                "--spoke-kubeconfig",
                &path("no"),
            ],
            path("no"),
        ),
        (vec!["agent", "--cluster-name", "a", "--kubeconfig", &path("no")], "--spoke-kubeconfig".into()),
        (vec!["manager", "--kubeconfig", &path("no")], path("no")),
    ] {
        let output = run(&arguments);
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(error.starts_with("error: ") && error.contains(&words), "{arguments:?}: {error}");
        assert!(!Path::new(&data).exists(), "{arguments:?}: nothing is made");
    }
    assert_eq!(run(&["hub", "--no-such-flag"]).status.code(), Some(2));
    assert!(text(&run(&["--version"]).stdout).starts_with("fleetpass "));
}

/// A process that is killed if the test ends early.
struct Running(Child);

impl Running {
    fn start(arguments: &[&str]) -> Self {
        Self(
            fleetpass(arguments)
                .stdin(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("the program starts"),
        )
    }

    /// Asks it to stop, and expects it to.
    async fn stop(mut self) {
        let asked = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status().unwrap();
        assert!(asked.success());
        let stopped = async {
            loop {
                match self.0.try_wait().unwrap() {
                    Some(status) => return status,
                    None => tokio::time::sleep(Duration::from_millis(20)).await,
                }
            }
        };
        let status = tokio::time::timeout(Duration::from_secs(30), stopped).await.expect("it stops in time");
        assert!(status.success(), "{status}");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A client with that kubeconfig, once the server answers.
async fn client(path: &Path) -> Client {
    let connected = async {
        loop {
            if let Ok(config) = Kubeconfig::read_from(path)
                && let Ok(config) =
                    Config::from_custom_kubeconfig(config, &KubeConfigOptions::default()).await
                && let Ok(client) = Client::try_from(config)
                && client.apiserver_version().await.is_ok()
            {
                return client;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), connected).await.expect("the server answers")
}

/// The manager that holds the Lease, once it is none of `former`.
async fn leader(hub: &Client, former: &[&str]) -> String {
    holder_of(hub, "default", "fleetpass-manager", former).await
}

async fn holder_of(client: &Client, namespace: &str, lease: &str, former: &[&str]) -> String {
    let leases: Api<Lease> = Api::namespaced(client.clone(), namespace);
    let holder = |lease: Option<&Lease>| {
        let holder = lease?.spec.as_ref()?.holder_identity.clone()?;
        (!holder.is_empty() && !former.contains(&holder.as_str())).then_some(holder)
    };
    let elected = await_condition(leases, lease, |lease: Option<&Lease>| holder(lease).is_some());
    let lease = tokio::time::timeout(Duration::from_secs(60), elected).await.expect("someone leads in time");
    holder(lease.unwrap().as_ref()).unwrap()
}

#[tokio::test]
async fn managers_take_over_from_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("hub").to_str().unwrap().to_owned();
    let hub = Running::start(&["hub", "--data-dir", &data, "--secure-port", "0"]);
    let kubeconfig = Path::new(&data).join("admin.kubeconfig");
    let on_hub = client(&kubeconfig).await;
    let manager = |lease: &str, renew: &str, retry: &str| {
        Running::start(&[
            "manager",
            "--feature-gates=EphemeralIdentity=true",
            "--metrics-bind-address=127.0.0.1:0",
            "--health-probe-bind-address=0",
            &format!("--kubeconfig={}", kubeconfig.display()),
            &format!("--leader-elect-lease-duration={lease}"),
            &format!("--leader-elect-renew-deadline={renew}"),
            &format!("--leader-elect-retry-period={retry}"),
        ])
    };
    // Its Lease holds for hours: whoever has it before that got it because it was given up.
    let first = manager("3h", "2h", "1h");
    let its = leader(&on_hub, &[]).await;
    let second = manager("2s", "1500ms", "500ms");
    first.stop().await;
    let others = leader(&on_hub, &[&its]).await;
    let third = manager("2s", "1500ms", "500ms");
    drop(second);
    leader(&on_hub, &[&its, &others]).await;

    create_namespace(&on_hub, "cluster1").await;
    let mut passing = ManagedServiceAccount::new("cluster1", "passing");
    passing.spec.ttl_seconds_after_creation = Some(1);
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(on_hub.clone(), "cluster1");
    let passing = accounts.create(&PostParams::default(), &passing).await.unwrap();
    let uid = passing.metadata.uid.unwrap();
    let gone = await_condition(accounts, "passing", conditions::is_deleted(&uid));
    tokio::time::timeout(Duration::from_secs(30), gone).await.expect("its time is over").unwrap();
    third.stop().await;
    hub.stop().await;
}

async fn create_namespace(client: &Client, name: &str) {
    let metadata = ObjectMeta { name: Some(name.into()), ..ObjectMeta::default() };
    let namespace = Namespace { metadata, ..Namespace::default() };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
}

#[tokio::test]
async fn hub_and_agent_run_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let start = |data: &str| Running::start(&["hub", "--data-dir", data, "--secure-port", "0"]);
    // A cluster is an API server like any other.
    let (hub_data, cluster_data) = (path("hub"), path("cluster"));
    let (hub, cluster) = (start(&hub_data), start(&cluster_data));
    let kubeconfig = |data: &str| Path::new(data).join("admin.kubeconfig");
    let on_hub = client(&kubeconfig(&hub_data)).await;
    let on_cluster = client(&kubeconfig(&cluster_data)).await;
    create_namespace(&on_hub, "cluster1").await;
    create_namespace(&on_cluster, "agents").await;
    let agent = Running(
        fleetpass(&["agent", "--cluster-name", "cluster1", "--metrics-bind-address", "127.0.0.1:0"])
            .args(["--health-probe-bind-address", "0", "--spoke-kubeconfig"])
            .arg(kubeconfig(&cluster_data))
            .env("HUB_KUBECONFIG", kubeconfig(&hub_data))
            .env("NAMESPACE", "agents")
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    let accounts: Api<ManagedServiceAccount> = Api::namespaced(on_hub.clone(), "cluster1");
    accounts.create(&PostParams::default(), &ManagedServiceAccount::new("cluster1", "robot")).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(on_hub, "cluster1");
    let has_token = |secret: Option<&Secret>| {
        let data = secret.and_then(|secret| secret.data.as_ref());
        data.is_some_and(|data| data.contains_key(names::SECRET_KEY_TOKEN))
    };
    let secret = tokio::time::timeout(Duration::from_secs(30), await_condition(secrets, "robot", has_token));
    let secret = secret.await.expect("a token comes in time").unwrap().unwrap();
    let ca = fs::read(Path::new(&cluster_data).join("pki/ca.crt")).unwrap();
    assert_eq!(secret.data.unwrap()[names::SECRET_KEY_CA].0, ca, "the CA is the cluster's");
    agent.stop().await;
    hub.stop().await;
    cluster.stop().await;
}

/// As upstream's AddOnTemplate starts them: `/msa agent --leader-elect=true`.
#[cfg(unix)]
#[tokio::test]
async fn agents_of_a_cluster_take_over_from_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let start = |data: &str| Running::start(&["hub", "--data-dir", data, "--secure-port", "0"]);
    let (hub_data, cluster_data) = (path("hub"), path("cluster"));
    let (hub, cluster) = (start(&hub_data), start(&cluster_data));
    let kubeconfig = |data: &str| Path::new(data).join("admin.kubeconfig");
    let on_hub = client(&kubeconfig(&hub_data)).await;
    let on_cluster = client(&kubeconfig(&cluster_data)).await;
    create_namespace(&on_hub, "cluster1").await;
    create_namespace(&on_cluster, "agents").await;
    let msa = dir.path().join("msa");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_fleetpass"), &msa).unwrap();
    let agent = || {
        let mut command = Command::new(&msa);
        command
            .args(["agent", "--leader-elect=true", "--cluster-name=cluster1", "--lease-health-check=true"])
            .args(["--feature-gates=EphemeralIdentity=true,ClusterProfile=false", "-v=2"])
            .arg(format!("--kubeconfig={}", kubeconfig(&hub_data).display()))
            .arg(format!("--spoke-kubeconfig={}", kubeconfig(&cluster_data).display()))
            // Its own addresses are the same for all.
            .args(["--metrics-bind-address=0", "--health-probe-bind-address=0", "--liveness-bind-address=0"])
            .env_remove("RUST_LOG")
            .env("NAMESPACE", "agents")
            .stderr(Stdio::null());
        Running(command.spawn().unwrap())
    };
    let token = async |name: &str| {
        let accounts: Api<ManagedServiceAccount> = Api::namespaced(on_hub.clone(), "cluster1");
        accounts.create(&PostParams::default(), &ManagedServiceAccount::new("cluster1", name)).await.unwrap();
        let secrets: Api<Secret> = Api::namespaced(on_hub.clone(), "cluster1");
        let there = await_condition(secrets, name, |secret: Option<&Secret>| secret.is_some());
        tokio::time::timeout(Duration::from_secs(60), there).await.expect("a token comes in time").unwrap();
    };
    let lease = "managed-serviceaccount-addon-agent";
    let first = agent();
    let its = holder_of(&on_cluster, "agents", lease, &[]).await;
    token("one").await;
    let second = agent();
    token("two").await;
    assert_eq!(holder_of(&on_cluster, "agents", lease, &[]).await, its, "the second one waits");
    // Given up in order, it is taken at once.
    first.stop().await;
    holder_of(&on_cluster, "agents", lease, &[&its]).await;
    token("three").await;
    second.stop().await;
    hub.stop().await;
    cluster.stop().await;
}
