//! Connections that do not come about, to real sockets and with real certificates.

use super::{condition, options, status};
use crate::{
    Agent, Options,
    calls::{Calls, Content},
    decide::TokenRequestSpec,
    fake::{Log, Server},
    observe::Memory,
    side::{Side, call::Call, peer::Failure},
    token::{Token, forge},
};
use http::Request;
use kube::{Client, Config};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::WebPkiClientVerifier,
};
use serde_json::json;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

/// An authority for certificates, all of one name.
struct Authority {
    certificate: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// A server with a certificate of this authority.
    fn server(&self, change: impl FnOnce(&mut CertificateParams)) -> Arc<ServerConfig> {
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_no_client_auth().with_single_cert(vec![certificate], key);
        Arc::new(config.unwrap())
    }

    /// A server that takes only clients with certificates, which ours has none of.
    fn server_for_certificates(&self) -> Arc<ServerConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let verifier = WebPkiClientVerifier::builder(Arc::new(roots)).build().unwrap();
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap().der().clone();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder().with_client_cert_verifier(verifier);
        Arc::new(config.with_single_cert(vec![certificate], key).unwrap())
    }
}

/// What listens at an address.
enum Listens {
    Nothing,
    Tls(Arc<ServerConfig>),
    PlainHttp,
    HangsUp,
    Silence,
}

/// Answers whatever it is sent with a 404 about the object `robot`.
async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut read = [0; 4096];
    let body = status(404, "NotFound", json!({"name": "robot"})).to_string();
    while matches!(stream.read(&mut read).await, Ok(1..)) {
        let head = format!(
            "HTTP/1.1 404 Not Found\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        if stream.write_all(format!("{head}{body}").as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn listen(listens: Listens) -> (SocketAddr, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let acceptor = match &listens {
            Listens::Nothing => return drop(listener),
            Listens::Tls(config) => Some(TlsAcceptor::from(config.clone())),
            _ => None,
        };
        let mut kept = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            match (&listens, acceptor.clone()) {
                (_, Some(acceptor)) => {
                    tokio::spawn(async move {
                        if let Ok(stream) = acceptor.accept(stream).await {
                            answer(stream).await;
                        }
                    });
                }
                (Listens::PlainHttp, _) => drop(tokio::spawn(answer(stream))),
                (Listens::Silence, _) => kept.push(stream),
                _ => drop(stream),
            }
        }
    });
    (address, AbortOnDropHandle::new(task))
}

fn client(address: SocketAddr, authority: &Authority) -> Client {
    let mut config = Config::new(format!("https://{address}").parse().unwrap());
    config.root_cert = Some(vec![authority.certificate.to_vec()]);
    config.default_retry = false;
    Client::try_from(config).unwrap()
}

/// Every kind of call to that side; what each said.
async fn call_all(
    side: Side,
    make: impl Fn() -> Arc<crate::reconcile::Context>,
) -> Vec<(&'static str, String)> {
    let token = Token::new(forge("system:serviceaccount:n:robot", "u1", 0, 3_600, 1));
    let wanted = TokenRequestSpec { audiences: Vec::new(), expiration_seconds: 3_600 };
    let mut said = Vec::new();
    let mut add = |call, result: Result<(), crate::calls::CallError>| {
        said.push((call, result.err().map_or_else(|| "nothing".to_owned(), |error| error.to_string())));
    };
    // With an agent of its own each: none is kept from asking by what another found.
    let calls = || make();
    match side {
        Side::Cluster => {
            add("get", calls().calls.service_account("robot").await.map(drop));
            add("token", calls().calls.request_token("robot", &wanted).await.map(drop));
            add("review", calls().calls.review("robot", &token, &[]).await.map(drop));
            add("delete", calls().calls.delete_service_account("robot", "u1").await);
        }
        Side::Hub => {
            let content = Content { account_uid: "u1", token: &token, ca: b"ca", record: "" };
            add("get", calls().calls.account("robot").await.map(drop));
            add("write", calls().calls.write_secret("robot", &content, None).await.map(drop));
            add("patch", calls().calls.patch_status("robot", &json!({})).await.map(drop));
        }
    }
    for query in ["", "?watch=true"] {
        let context = make();
        let Calls { hub, spoke, .. } = &context.calls;
        let peer = if side == Side::Hub { hub } else { spoke };
        let path = format!("/api/v1/namespaces/cluster1/secrets{query}");
        let request = Request::get(path).body(Vec::new()).unwrap();
        let call = Call::of(request.method(), request.uri().path(), request.uri().query());
        let failure = match query {
            "" => peer.call(&call, request, 1_024, |_| Ok(())).await.err(),
            _ => peer.open(&call, request).await.err(),
        };
        let Some(Failure::Cause(cause)) = failure else { panic!("{failure:?}") };
        said.push((call.verb, cause.to_string()));
    }
    said
}

struct Row {
    name: &'static str,
    listens: Listens,
    cause: &'static str,
    says: &'static str,
    /// Is in the log beside that.
    and: &'static str,
    reason: &'static str,
}

fn rows(authority: &Authority) -> Vec<Row> {
    let row = |name, listens, cause, says| Row {
        name,
        listens,
        cause,
        says,
        and: "",
        reason: "ClusterUnreachable",
    };
    let elsewhere = CertificateParams::new(vec!["elsewhere.example".to_owned()]).unwrap().subject_alt_names;
    vec![
        row("nobody listens", Listens::Nothing, "connect", "no connection: "),
        row("it hangs up", Listens::HangsUp, "connect", "no connection: "),
        row(
            "another authority",
            Listens::Tls(Authority::new("other").server(|_| ())),
            "certificate",
            "UnknownIssuer",
        ),
        row(
            "another authority of that name",
            Listens::Tls(Authority::new("ours").server(|_| ())),
            "certificate",
            "BadSignature",
        ),
        Row {
            and: "; the clock here says 20",
            ..row(
                "not yet valid",
                Listens::Tls(authority.server(|params| params.not_before = date_time_ymd(2900, 1, 1))),
                "clock",
                "its certificate is valid from 2900-01-01T00:00:00Z only: the clock here is behind",
            )
        },
        Row {
            and: "; the clock here says 20",
            ..row(
                "expired",
                Listens::Tls(authority.server(|params| params.not_after = date_time_ymd(2001, 2, 3))),
                "clock",
                "its certificate expired at 2001-02-03T00:00:00Z",
            )
        },
        row(
            "another name",
            Listens::Tls(authority.server(|params| params.subject_alt_names = elsewhere)),
            "certificate",
            "its certificate is not valid for 127.0.0.1, only for ",
        ),
        row("no TLS", Listens::PlainHttp, "certificate", "no TLS connection: "),
        Row {
            reason: "ClusterRefused",
            ..row(
                "a certificate is asked for",
                Listens::Tls(authority.server_for_certificates()),
                "client_certificate",
                "the server does not take the agent's certificate: CertificateRequired",
            )
        },
        row("silence", Listens::Silence, "silence", "no answer within "),
    ]
}

#[tokio::test]
async fn why_there_is_no_connection_is_said() {
    let authority = Authority::new("ours");
    for Row { name, listens, cause, says, and, reason } in rows(&authority) {
        let (address, _server) = listen(listens).await;
        let (log, _guard) = Log::begin();
        let fake = Server { now: Some(super::clock()), ..Server::default() };
        // Whoever is silent is waited for; nobody else takes long.
        let patience = if cause == "silence" { 300 } else { 30_000 };
        let short = Options { request_timeout: Duration::from_millis(patience), ..options(&fake) };
        for side in Side::ALL {
            let make = || {
                let [hub, spoke] = match side {
                    Side::Hub => [client(address, &authority), fake.client()],
                    Side::Cluster => [fake.client(), client(address, &authority)],
                };
                Agent::new(hub, spoke, short.clone()).unwrap().0.context()
            };
            for (call, said) in call_all(side, make).await {
                assert!(said.contains(says), "{name}, {side:?}, {call}: {said}");
                // Of the clock a condition says nothing: it would change each time.
                assert!(and.is_empty() || !said.contains(and), "{name}, {side:?}, {call}: {said}");
            }
        }
        let lines = log.lines();
        let said = lines.iter().filter(|line| line.contains("fleetpass_agent::health"));
        assert!(said.clone().count() > 1, "{name}");
        for line in said {
            assert!(line.contains(says) && line.contains(and), "{name}: {line}");
        }

        fake.put(super::ACCOUNT, super::account());
        let (agent, handle) = Agent::new(fake.client(), client(address, &authority), short).unwrap();
        let mut memory = Memory::default();
        for _ in 0..3 {
            agent.context().claim.grant();
            agent.context().reconcile("robot", &mut memory).await;
        }
        let condition = condition(&fake);
        assert_eq!(condition["reason"], reason, "{name}: {condition}");
        assert!(condition["message"].as_str().unwrap().contains(says), "{name}: {condition}");
        assert!(handle.metrics().contains(&format!("cause=\"{cause}\"}} 1")), "{name}: {}", handle.metrics());
        let awaits = handle.health().awaits().unwrap();
        assert!(awaits.contains(says), "{name}: {awaits}");
    }
}

#[tokio::test]
async fn a_server_that_proves_itself_is_let_in() {
    let authority = Authority::new("ours");
    let (address, _server) = listen(Listens::Tls(authority.server(|_| ()))).await;
    let fake = Server { now: Some(super::clock()), ..Server::default() };
    let (agent, handle) = Agent::new(client(address, &authority), fake.client(), options(&fake)).unwrap();
    assert!(agent.context().calls.account("robot").await.unwrap().is_none());
    let metrics = handle.metrics();
    assert!(
        metrics.contains("{cluster=\"cluster1\",side=\"hub\",state=\"admitted\",cause=\"none\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("{cluster=\"cluster1\",side=\"cluster\",state=\"connecting\",cause=\"none\"} 1"),
        "{metrics}"
    );
    assert!(
        metrics.contains("fleetpass_agent_side_seconds_since_answer{cluster=\"cluster1\",side=\"hub\"} "),
        "{metrics}"
    );
    assert!(
        !metrics
            .contains("fleetpass_agent_side_seconds_since_answer{cluster=\"cluster1\",side=\"cluster\"} "),
        "{metrics}"
    );
}
