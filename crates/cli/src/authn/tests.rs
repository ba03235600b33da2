//! Real plugins (little shell scripts), and a server that says who it takes the client for.

use super::plugin::read;
use super::*;
use crate::transport::Way;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use kube::config::{AuthInfo, ExecConfig};
use parking_lot::Mutex as Lock;
use rcgen::{CertificateParams, DnType, Issuer, KeyPair};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::json;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;
use tokio::net::TcpListener;

/// An authority, and a server with a certificate of it that knows clients by tokens and by certificates.
struct World {
    directory: tempfile::TempDir,
    issuer: Issuer<'static, KeyPair>,
    authority: CertificateDer<'static>,
    address: SocketAddr,
    /// Tokens, and names in certificates, that the server takes.
    admitted: Arc<Lock<HashSet<String>>>,
    /// How many requests it refused.
    refused: Arc<Lock<usize>>,
}

impl World {
    async fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let authority = params.self_signed(&key).unwrap().der().clone();
        let issuer = Issuer::new(params, key);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let world = Self {
            directory: tempfile::tempdir().unwrap(),
            address: listener.local_addr().unwrap(),
            admitted: Arc::default(),
            refused: Arc::default(),
            issuer,
            authority,
        };
        world.serve(listener);
        world
    }

    /// A certificate and its key, in PEM.
    fn certificate(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        (params.signed_by(&key, &self.issuer).unwrap().pem(), key.serialize_pem())
    }

    fn serve(&self, listener: TcpListener) {
        use rustls_pki_types::pem::PemObject as _;
        let (certificate, key) = self.certificate("server");
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone()).unwrap();
        let verifier = rustls::server::WebPkiClientVerifier::builder(Arc::new(roots)).allow_unauthenticated();
        let mut tls = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()],
                PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap(),
            )
            .unwrap();
        tls.alpn_protocols = vec![b"h2".to_vec()];
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
        let (admitted, refused) = (self.admitted.clone(), self.refused.clone());
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, admitted, refused) = (acceptor.clone(), admitted.clone(), refused.clone());
                tokio::spawn(async move {
                    let tls = acceptor.accept(tcp).await.unwrap();
                    let shown = tls.get_ref().1.peer_certificates().map(|chain| common_name(&chain[0]));
                    let answer =
                        hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
                            let header =
                                request.headers().get("authorization").map(|value| value.to_str().unwrap());
                            let token =
                                header.map(|header| header.strip_prefix("Bearer ").unwrap().to_owned());
                            let known = |who: &String| admitted.lock().contains(who);
                            let who = token.filter(known).or(shown.clone().filter(known));
                            *refused.lock() += usize::from(who.is_none());
                            let status = if who.is_some() { 200 } else { 401 };
                            let body = json!({"who": who, "kind": "Status", "code": status}).to_string();
                            let response = Response::builder().status(status).body(body);
                            async move { response }
                        });
                    let io = TokioIo::new(tls);
                    let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, answer)
                        .await;
                });
            }
        });
    }

    fn admit(&self, who: &[&str]) {
        *self.admitted.lock() = who.iter().map(|who| who.to_string()).collect();
    }

    fn client(&self, user: AuthInfo) -> kube::Client {
        let mut config = kube::Config::new(format!("https://{}", self.address).parse().unwrap());
        config.root_cert = Some(vec![self.authority.to_vec()]);
        config.auth_info = user;
        Way::new(config, None, fleetpass_api::clock::system()).unwrap().client("default")
    }

    /// A script that counts its runs in `runs`, and answers with the contents of `answer`.
    fn plugin(&self) -> ExecConfig {
        let directory = self.directory.path().display();
        let script = format!("#!/bin/sh\necho run >> {directory}/runs\ncat {directory}/answer\n");
        exec_config(&write_script(self.directory.path(), "plugin", &script))
    }

    fn answers(&self, status: serde_json::Value) {
        let answer = json!({"apiVersion": V1, "kind": "ExecCredential", "status": status}).to_string();
        std::fs::write(self.directory.path().join("answer"), answer).unwrap();
    }

    fn runs(&self) -> usize {
        std::fs::read_to_string(self.directory.path().join("runs")).unwrap_or_default().lines().count()
    }
}

const V1: &str = "client.authentication.k8s.io/v1";

fn common_name(certificate: &[u8]) -> String {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).unwrap();
    parsed.subject().iter_common_name().next().unwrap().as_str().unwrap().to_owned()
}

fn write_script(directory: &Path, name: &str, text: &str) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = directory.join(name);
    // Moved into place: a file that is open for writing cannot be run, and another test may have forked meanwhile.
    let draft = directory.join(format!("{name}.draft"));
    std::fs::write(&draft, text).unwrap();
    std::fs::set_permissions(&draft, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(&draft, &path).unwrap();
    path.to_str().unwrap().to_owned()
}

fn exec_config(command: &str) -> ExecConfig {
    serde_json::from_value(json!({"apiVersion": V1, "command": command, "interactiveMode": "Never"})).unwrap()
}

fn user(exec: ExecConfig) -> AuthInfo {
    AuthInfo { exec: Some(exec), ..AuthInfo::default() }
}

/// Whom the server takes the client for, or why nobody knows.
async fn who(client: &kube::Client) -> Result<String, String> {
    let request = Request::get("/version").body(Vec::new()).unwrap();
    match client.request::<serde_json::Value>(request).await {
        Ok(answer) => Ok(answer["who"].as_str().unwrap().to_owned()),
        Err(kube::Error::Api(status)) => Err(status.code.to_string()),
        Err(kube::Error::Auth(kube::client::AuthError::AuthExec(why))) => Err(why),
        Err(error) => panic!("{error}"),
    }
}

/// As somebody would who tries again until the plugin is called again.
async fn until_known(client: &kube::Client) -> String {
    loop {
        match who(client).await {
            Ok(who) => return who,
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

#[tokio::test]
async fn a_token_without_an_end_is_kept_until_it_is_refused() {
    let world = World::new().await;
    world.admit(&["one"]);
    world.answers(json!({"token": "one"}));
    let client = world.client(user(world.plugin()));
    for _ in 0..3 {
        assert_eq!(who(&client).await.unwrap(), "one");
    }
    assert_eq!(world.runs(), 1);
    // Refused: asked again, and the same request succeeds.
    world.admit(&["two"]);
    world.answers(json!({"token": "two"}));
    assert_eq!(who(&client).await.unwrap(), "two");
    assert_eq!((world.runs(), *world.refused.lock()), (2, 1));
}

#[tokio::test]
async fn many_who_are_refused_ask_once_and_in_vain_not_at_once_again() {
    let world = World::new().await;
    world.answers(json!({"token": "one"}));
    let client = world.client(user(world.plugin()));
    let answers = futures::future::join_all((0..50).map(|_| who(&client))).await;
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap_err() == "401"), "{answers:?}");
    assert_eq!(world.runs(), 2, "once for the credential, once because it was refused");
}

#[tokio::test]
async fn a_token_is_asked_for_again_when_its_time_is_over() {
    let world = World::new().await;
    world.admit(&["one", "two"]);
    world.answers(json!({"token": "one", "expirationTimestamp": "2020-01-01T00:00:00Z"}));
    let client = world.client(user(world.plugin()));
    assert_eq!(who(&client).await.unwrap(), "one");
    world.answers(json!({"token": "two", "expirationTimestamp": "2999-01-01T00:00:00Z"}));
    assert_eq!(who(&client).await.unwrap(), "two");
    assert_eq!(who(&client).await.unwrap(), "two");
    assert_eq!((world.runs(), *world.refused.lock()), (2, 0));
}

#[tokio::test]
async fn a_plugins_certificate_is_shown_and_replaced() {
    let world = World::new().await;
    world.admit(&["old"]);
    let (certificate, key) = world.certificate("old");
    world.answers(json!({"clientCertificateData": certificate, "clientKeyData": key}));
    let client = world.client(user(world.plugin()));
    assert_eq!(who(&client).await.unwrap(), "old");
    assert_eq!(who(&client).await.unwrap(), "old");
    assert_eq!(world.runs(), 1);
    world.admit(&["new"]);
    let (certificate, key) = world.certificate("new");
    world.answers(json!({"clientCertificateData": certificate, "clientKeyData": key}));
    assert_eq!(who(&client).await.unwrap(), "new");
    assert_eq!(world.runs(), 2);
    // Both at once: the server chooses.
    let (certificate, key) = world.certificate("newest");
    world.admit(&["token"]);
    world.answers(json!({"token": "token", "clientCertificateData": certificate, "clientKeyData": key}));
    assert_eq!(until_known(&client).await, "token");
}

#[tokio::test]
async fn a_plugin_hears_what_its_kubeconfig_says() {
    let world = World::new().await;
    world.admit(&["t"]);
    let directory = world.directory.path();
    let script = format!(
        "#!/bin/sh\nprintf '%s|%s|%s|%s' \"$1\" \"$2\" \"$GREETING\" \"$KUBERNETES_EXEC_INFO\" > {}/heard\n\
         printf 'kind: ExecCredential\\napiVersion: client.authentication.k8s.io/v1beta1\\nstatus: {{token: t}}\\n'\n",
        directory.display()
    );
    write_script(directory, "talker", &script);
    // As a kubeconfig has it: the command beside the file, the old version, which has a default for interactiveMode.
    let authority = base64::Engine::encode(
        &base64::engine::general_purpose::STANDARD,
        pem::encode(&pem::Pem::new("CERTIFICATE", world.authority.to_vec())),
    );
    let kubeconfig = json!({
        "clusters": [{"name": "c", "cluster": {
            "server": format!("https://{}", world.address), "certificate-authority-data": authority,
            "extensions": [{"name": "client.authentication.k8s.io/exec", "extension": {"audience": "a"}}],
        }}],
        "users": [{"name": "u", "user": {"exec": {
            "apiVersion": "client.authentication.k8s.io/v1beta1", "command": "./talker", "args": ["one", "two words"],
            "env": [{"name": "GREETING", "value": "hello"}], "provideClusterInfo": true,
        }}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    });
    let path = directory.join("kubeconfig");
    std::fs::write(&path, kubeconfig.to_string()).unwrap();
    let loaded = crate::clients::Source::Files(vec![path]).load().await.unwrap();
    assert_eq!(who(&loaded.client()).await.unwrap(), "t");
    let heard = std::fs::read_to_string(directory.join("heard")).unwrap();
    let mut heard = heard.splitn(4, '|');
    assert_eq!((heard.next(), heard.next(), heard.next()), (Some("one"), Some("two words"), Some("hello")));
    let info: serde_json::Value = serde_json::from_str(heard.next().unwrap()).unwrap();
    assert_eq!((&info["kind"], &info["spec"]["interactive"]), (&json!("ExecCredential"), &json!(false)));
    let cluster = &info["spec"]["cluster"];
    assert_eq!(cluster["server"], format!("https://{}", world.address));
    assert_eq!((&cluster["config"]["audience"], cluster.get("proxy-url")), (&json!("a"), None));
    assert!(cluster["certificate-authority-data"].as_str().is_some_and(|data| !data.is_empty()));
}

#[tokio::test]
async fn a_plugin_that_is_missing_or_fails_is_named_with_what_to_do() {
    let world = World::new().await;
    let mut missing = exec_config("fleetpass-no-such-plugin");
    missing.install_hint = Some("Get it with\n  brew install it".to_owned());
    let error = who(&world.client(user(missing))).await.unwrap_err();
    let expected = "the exec plugin fleetpass-no-such-plugin is not there. Get it with brew install it";
    assert_eq!(error, expected);
    for (script, words) in [
        (
            "#!/bin/sh\necho first >&2\necho 'please log in' >&2\necho >&2\nexit 3\n",
            "failed with exit code 3: please log in",
        ),
        ("#!/bin/sh\nexit 1\n", "failed with exit code 1"),
        ("#!/bin/sh\nkill -9 $$\n", "was ended"),
        ("#!/bin/sh\necho 'token: s3cret'\n", "printed no ExecCredential"),
        ("#!/bin/sh\n", "printed no ExecCredential"),
    ] {
        let command = write_script(world.directory.path(), "faulty", script);
        let error = who(&world.client(user(exec_config(&command)))).await.unwrap_err();
        assert!(error.starts_with(&format!("the exec plugin {command} {words}")), "{error}");
        assert!(!error.contains("s3cret"), "{error}");
    }
    // It comes to be there later, and is called again.
    world.admit(&["late"]);
    let path = world.directory.path().join("late");
    let client = world.client(user(exec_config(path.to_str().unwrap())));
    who(&client).await.unwrap_err();
    write_script(
        world.directory.path(),
        "late",
        &std::fs::read_to_string(world.plugin().command.unwrap()).unwrap(),
    );
    world.answers(json!({"token": "late"}));
    assert_eq!(until_known(&client).await, "late");
}

/// The credential of a request that is given up on is there for the next one.
#[tokio::test]
async fn a_slow_plugin_is_not_ended_with_the_request_that_needs_it() {
    let world = World::new().await;
    world.admit(&["slow"]);
    world.answers(json!({"token": "slow"}));
    let directory = world.directory.path();
    let script = format!(
        "#!/bin/sh\necho run >> {0}/runs\nwhile ! [ -e {0}/go ]; do sleep 0.05; done\ncat {0}/answer\n",
        directory.display()
    );
    let client = world.client(user(exec_config(&write_script(directory, "slow", &script))));
    let first = tokio::spawn({
        let client = client.clone();
        async move { who(&client).await }
    });
    while world.runs() == 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    first.abort();
    let _ = first.await;
    std::fs::write(directory.join("go"), "").unwrap();
    assert_eq!(who(&client).await.unwrap(), "slow");
    assert_eq!(world.runs(), 1);
}

#[test]
fn kubeconfigs_that_describe_no_plugin_are_refused() {
    for (config, words) in [
        (json!({"apiVersion": V1, "interactiveMode": "Never"}), "has no command"),
        (json!({"command": "p", "interactiveMode": "Never"}), "apiVersion \"\""),
        (json!({"command": "p", "apiVersion": "client.authentication.k8s.io/v1alpha1"}), "known are"),
        (json!({"command": "p", "apiVersion": V1}), "needs interactiveMode"),
        (
            json!({"command": "p", "apiVersion": V1, "interactiveMode": "Never", "env": [{"value": "x"}]}),
            "without a name",
        ),
    ] {
        let error = Plugin::new(&serde_json::from_value(config.clone()).unwrap()).err().unwrap().to_string();
        assert!(error.contains(words), "{config}: {error}");
    }
}

#[test]
fn answers_are_read_as_by_client_go_and_never_quoted() {
    let (certificate, key) = ("-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "no key");
    let answer =
        |status: serde_json::Value| json!({"kind": "ExecCredential", "apiVersion": V1, "status": status});
    for (output, words) in [
        (json!({"kind": "Status", "apiVersion": V1, "status": {"token": "s3cret"}}), "no ExecCredential"),
        (
            json!({"kind": "ExecCredential", "apiVersion": "v1", "status": {"token": "s3cret"}}),
            "another version",
        ),
        (json!({"kind": "ExecCredential", "apiVersion": V1}), "no status"),
        (answer(json!({})), "neither a token nor a certificate"),
        (answer(json!({"token": ""})), "neither a token nor a certificate"),
        (answer(json!({"token": "s3cret\u{0}x"})), "no header can hold"),
        (answer(json!({"clientCertificateData": certificate})), "not both"),
        (answer(json!({"clientKeyData": key})), "not both"),
        (
            answer(json!({"token": "s3cret", "clientCertificateData": "s3cret", "clientKeyData": key})),
            "certificate that is none",
        ),
        (answer(json!({"clientCertificateData": certificate, "clientKeyData": key})), "key that is none"),
        (answer(json!({"token": "s3cret", "expirationTimestamp": "s3cret"})), "expirationTimestamp"),
    ] {
        let error = read(output.to_string().as_bytes(), V1).err().unwrap_or_default();
        assert!(error.contains(words) && !error.contains("s3cret"), "{output}: {error}");
    }
    let good = answer(json!({"token": "t", "expirationTimestamp": "2030-01-01T00:00:00Z"}));
    let good = read(good.to_string().as_bytes(), V1).ok().unwrap();
    assert!(matches!(good.until, Until::Time(end) if end.as_second() == 1_893_456_000));
    assert!(good.credential.header.is_some_and(|header| header == "Bearer t" && header.is_sensitive()));
}

#[tokio::test]
async fn a_token_file_is_read_again_when_the_token_is_refused() {
    let world = World::new().await;
    world.admit(&["one"]);
    let path = world.directory.path().join("token");
    std::fs::write(&path, "one\n").unwrap();
    let client =
        world.client(AuthInfo { token_file: Some(path.to_str().unwrap().to_owned()), ..AuthInfo::default() });
    assert_eq!(who(&client).await.unwrap(), "one");
    std::fs::write(&path, "two\n").unwrap();
    world.admit(&["two"]);
    assert_eq!(who(&client).await.unwrap(), "two");
}

#[tokio::test(start_paused = true)]
async fn a_token_file_that_is_replaced_counts_soon_and_one_that_is_away_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let source = |fallback: Option<&str>| {
        let fallback = fallback.map(|token| Arc::new(Credential::bearer(token).ok().unwrap()));
        Source::new(Origin::TokenFile { path: path.clone(), fallback }, fleetpass_api::clock::system())
    };
    let header = async |source: &Arc<Source>| {
        source
            .current()
            .await
            .map(|credential| credential.header.clone().unwrap().to_str().unwrap().to_owned())
    };
    let (file, both) = (source(None), source(Some("inline")));
    // Never there: the file is named; with a token in the kubeconfig, that counts until it is.
    let error = header(&file).await.unwrap_err().to_string();
    assert!(error.contains(path.to_str().unwrap()) && error.contains("cannot be used"), "{error}");
    assert_eq!(header(&both).await.unwrap(), "Bearer inline");
    for (content, seen) in [
        (Some("one\n"), "Bearer one"),
        (Some("two"), "Bearer two"),
        (None, "Bearer two"),
        // Half written.
        (Some(" \n"), "Bearer two"),
        (Some("a\u{1}b"), "Bearer two"),
        (Some("three"), "Bearer three"),
    ] {
        match content {
            Some(content) => std::fs::write(&path, content).unwrap(),
            None => std::fs::remove_file(&path).unwrap(),
        }
        tokio::time::advance(FILE_AGE).await;
        assert_eq!((header(&file).await.unwrap(), header(&both).await.unwrap()), (seen.into(), seen.into()));
    }
}

#[tokio::test]
async fn clients_go_on_with_files_that_were_replaced_and_not_with_half_of_them() {
    let world = World::new().await;
    let path = |name: &str| world.directory.path().join(name);
    let authority = pem::encode(&pem::Pem::new("CERTIFICATE", world.authority.to_vec()));
    std::fs::write(path("ca.crt"), authority).unwrap();
    let write_key = |key: &str| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::write(path("key"), key).unwrap();
        std::fs::set_permissions(path("key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    };
    let (certificate, key) = world.certificate("old");
    std::fs::write(path("crt"), certificate).unwrap();
    write_key(&key);
    let write = |server: &str| {
        let text = format!(
            "clusters: [{{name: c, cluster: {{server: '{server}', certificate-authority: ca.crt}}}}]\n\
             users: [{{name: u, user: {{client-certificate: crt, client-key: key}}}}]\n\
             contexts: [{{name: x, context: {{cluster: c, user: u}}}}]\ncurrent-context: x\n"
        );
        std::fs::write(path("kubeconfig"), text).unwrap();
    };
    write(&format!("https://{}", world.address));
    let source = crate::clients::Source::Files(vec![path("kubeconfig")]);
    let loaded = source.load().await.unwrap();
    let client = loaded.client();
    world.admit(&["old"]);
    assert_eq!(who(&client).await.unwrap(), "old");

    // The certificate of one pair, and the key of another: longer than it takes to look twice.
    let (certificate, key) = world.certificate("new");
    std::fs::write(path("crt"), certificate).unwrap();
    let mut next = std::pin::pin!(loaded.next(&source, crate::clients::AGENT));
    let early = tokio::time::timeout(Duration::from_secs(5), &mut next).await;
    assert!(early.is_err(), "half of a pair was used");
    write_key(&key);
    let mut next = next.await;
    assert!(next.same_server(&loaded));
    next.take_over(&loaded);
    world.admit(&["new"]);
    assert_eq!(who(&client).await.unwrap(), "new");

    // The client is the same after several replacements; another server is another matter.
    let (certificate, key) = world.certificate("newest");
    std::fs::write(path("crt"), certificate).unwrap();
    write_key(&key);
    let mut newest = next.next(&source, crate::clients::AGENT).await;
    newest.take_over(&next);
    world.admit(&["newest"]);
    assert_eq!(who(&client).await.unwrap(), "newest");
    write(&format!("https://localhost:{}", world.address.port()));
    assert!(!newest.next(&source, crate::clients::AGENT).await.same_server(&newest));
}
