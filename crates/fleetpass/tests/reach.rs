//! How the program reaches servers: what its environment and its kubeconfigs make of it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// The program, killed at the end of a test.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn fleetpass(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fleetpass"));
    command.args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    for name in ["RUST_LOG", "HUB_KUBECONFIG", "NAMESPACE", "KUBERNETES_SERVICE_HOST", "KUBECONFIG"] {
        command.env_remove(name);
    }
    for name in ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(name);
    }
    command.envs(environment.iter().copied());
    command
}

fn kubeconfig(path: &Path, server: &str, proxy: Option<&str>) -> String {
    let proxy = proxy.map(|url| format!(", proxy-url: '{url}'")).unwrap_or_default();
    let text = format!(
        "clusters: [{{name: c, cluster: {{server: '{server}'{proxy}}}}}]\nusers: [{{name: u, user: {{token: t}}}}]\n\
         contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
    );
    fs::write(path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

/// What comes first on the next connection.
fn first_line(listener: &TcpListener) -> String {
    let (mut stream, _) = listener.accept().unwrap();
    let mut line = Vec::new();
    let mut byte = [0];
    while !line.ends_with(b"\r\n") {
        stream.read_exact(&mut byte).unwrap();
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

#[test]
fn agents_and_managers_go_through_the_proxy_of_their_kubeconfig_or_environment() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { directory.path().join(name) };
    let (of_environment, environment) = listener();
    let (of_kubeconfig, named) = listener();
    let hub = kubeconfig(&file("hub"), "https://hub.example.com:6443", None);
    let spoke = kubeconfig(&file("spoke"), "https://cluster.example.com", Some(&named));
    let quiet = ["--metrics-bind-address=0", "--health-probe-bind-address=0"];
    let arguments = ["agent", "--cluster-name=a", "--kubeconfig", &hub, "--spoke-kubeconfig", &spoke];
    // The kubeconfig counts before the environment, and NO_PROXY says nothing about it.
    let variables = [("https_proxy", &*environment), ("NO_PROXY", "cluster.example.com")];
    let _agent = Program(fleetpass(&[&arguments[..], &quiet[..]].concat(), &variables).spawn().unwrap());
    assert_eq!(first_line(&of_environment), "CONNECT hub.example.com:6443 HTTP/1.1\r\n");
    assert_eq!(first_line(&of_kubeconfig), "CONNECT cluster.example.com:443 HTTP/1.1\r\n");

    let (of_manager, everything) = listener();
    let arguments = ["manager", "--leader-elect=false", "--kubeconfig", &hub];
    let variables = [("ALL_PROXY", &*everything)];
    let _manager = Program(fleetpass(&[&arguments[..], &quiet[..]].concat(), &variables).spawn().unwrap());
    assert_eq!(first_line(&of_manager), "CONNECT hub.example.com:6443 HTTP/1.1\r\n");
}

#[test]
fn a_proxy_that_is_none_ends_the_start_with_words_and_without_its_password() {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| -> PathBuf { directory.path().join(name) };
    let direct = kubeconfig(&file("direct"), "https://hub.example.com:6443", None);
    let broken = kubeconfig(&file("broken"), "https://hub.example.com:6443", Some("ftp://me:secret@proxy"));
    for (hub, variables, words) in [
        (&direct, &[("HTTPS_PROXY", "ftp://me:secret@proxy")][..], "HTTPS_PROXY is no URL of a proxy"),
        (&broken, &[], "its proxy-url is no URL of a proxy"),
    ] {
        let arguments = ["agent", "--cluster-name=a", "--kubeconfig", hub, "--spoke-kubeconfig", hub];
        let output = fleetpass(&arguments, variables).stderr(Stdio::piped()).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(words) && error.lines().count() == 1 && !error.contains("secret"), "{error}");
    }
}

/// Starts a program that has much to say, reads its first line, and closes the pipe, as `head -1` would.
fn start_and_stop_listening(command: &mut Command) -> Program {
    let mut child = command.env("RUST_LOG", "trace").stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::with_capacity(1, child.stderr.take().unwrap()).read_line(&mut line).unwrap();
    assert!(!line.is_empty());
    Program(child)
}

fn terminate(mut program: Program) -> Option<i32> {
    let id = program.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    program.0.wait().unwrap().code()
}

#[test]
fn an_agent_whose_log_nobody_reads_any_more_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let hub = kubeconfig(&directory.path().join("hub"), "https://hub.example.com:6443", None);
    let (proxy, url) = listener();
    let arguments = ["agent", "--cluster-name=a", "--kubeconfig", &hub, "--spoke-kubeconfig", &hub];
    let quiet = ["--metrics-bind-address=0", "--health-probe-bind-address=0"];
    let mut command = fleetpass(&[&arguments[..], &quiet[..]].concat(), &[("HTTPS_PROXY", &url)]);
    let agent = start_and_stop_listening(&mut command);
    // Every attempt has lines in the log; several tasks make them.
    for _ in 0..8 {
        let (mut stream, _) = proxy.accept().unwrap();
        let _ = stream.write_all(b"HTTP/1.1 403 Forbidden\r\n\r\n");
    }
    assert_eq!(terminate(agent), Some(0));
}

#[test]
fn a_hub_whose_log_nobody_reads_any_more_goes_on() {
    let directory = tempfile::tempdir().unwrap();
    let data = directory.path().join("hub");
    let arguments = ["hub", "--secure-port=0", "--data-dir", data.to_str().unwrap()];
    let hub = start_and_stop_listening(&mut fleetpass(&arguments, &[]));
    let admin = data.join("admin.kubeconfig");
    while !admin.exists() {
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    let text = fs::read_to_string(admin).unwrap();
    let server = text.split("https://").nth(1).unwrap().split(['"', '\n', '\'']).next().unwrap();
    for _ in 0..8 {
        // No TLS: refused, with a line in the log, and by a hub that is still there.
        let mut stream = std::net::TcpStream::connect(server).unwrap();
        let _ = stream.write_all(b"GET / HTTP/1.0\r\n\r\n");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(terminate(hub), Some(0));
}

#[test]
fn what_prints_is_quiet_about_a_reader_who_has_read_enough() {
    for arguments in
        [&["install", "hub"][..], &["install", "cluster", "--cluster=a", "--side=hub"], &["--help"]]
    {
        let mut child =
            fleetpass(arguments, &[]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.success() && !said.contains("error") && !said.contains("panic"),
            "{arguments:?}: {said}"
        );
    }
}
