//! Who is let in when there are many connections, and how a connection ends.

use anyhow::Context as _;
use bytes::Bytes;
use fleetpass_api::clock;
use fleetpass_apiserver::ConnectionLimits;
use fleetpass_cli::transport;
use fleetpass_store::MemoryStore;
use fleetpass_testkit::clients;
use fleetpass_testkit::cluster::{ADMIN_TOKEN, Cluster};
use futures::channel::mpsc;
use futures::{StreamExt as _, TryStreamExt as _};
use http::Request;
use http_body_util::{BodyExt as _, StreamBody};
use hyper::body::Frame;
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, ListParams, PostParams, WatchParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Longer than anything here takes, even on a machine that is busy.
const LONG: Duration = Duration::from_secs(60);

async fn cluster(connections: ConnectionLimits) -> anyhow::Result<Cluster> {
    let tune = |options: &mut fleetpass_apiserver::Options| options.connections = connections;
    Cluster::start_tuned(Arc::new(MemoryStore::default()), clock::system(), tune).await
}

async fn admin(cluster: &Cluster) -> anyhow::Result<kube::Client> {
    transport::connect(clients::config(cluster.address, &cluster.ca_pem, ADMIN_TOKEN).await?)
}

/// A connection over TLS, without a request.
async fn connect(cluster: &Cluster, protocol: &str) -> anyhow::Result<TlsStream<TcpStream>> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(cluster.ca_pem.as_bytes())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![protocol.into()];
    let tcp = TcpStream::connect(cluster.address).await?;
    Ok(TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost")?, tcp).await?)
}

/// The text of an answer over HTTP/1.1, up to where the server closes the connection.
async fn until_closed(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<String> {
    let mut answer = Vec::new();
    // Without the close_notify of TLS, which a connection that is cut off does not get, this is an error.
    tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await??;
    Ok(String::from_utf8(answer)?)
}

fn configmap(name: &str) -> anyhow::Result<ConfigMap> {
    Ok(serde_json::from_value(json!({"metadata": {"name": name}}))?)
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_make_room_for_each_other_and_agents_stay() -> anyhow::Result<()> {
    let limits =
        ConnectionLimits { all: 32, per_address: 32, unauthenticated: 4, ..ConnectionLimits::default() };
    let cluster = cluster(limits).await?;
    let agent = admin(&cluster).await?;
    let maps: Api<ConfigMap> = Api::namespaced(agent, "default");
    let mut watch = maps.watch(&WatchParams::default(), "0").await?.boxed();
    let mut strangers = Vec::new();
    for number in 0..100 {
        let protocol = if number % 2 == 0 { "h2" } else { "http/1.1" };
        strangers.push(connect(&cluster, protocol).await?);
    }
    // All but a few are told to go.
    let gone = strangers.iter_mut().map(|stream| async move {
        let mut answer = Vec::new();
        // Gracefully or not: what matters is that it ends.
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await?;
        anyhow::Ok(())
    });
    let gone: Vec<()> = futures::stream::iter(gone).buffer_unordered(100).take(90).try_collect().await?;
    assert_eq!(gone.len(), 90);
    // The agent's connection is what it was, and others get in.
    let other: Api<ConfigMap> = Api::namespaced(admin(&cluster).await?, "default");
    other.create(&PostParams::default(), &configmap("seen")?).await?;
    let seen = async {
        while let Some(event) = watch.try_next().await? {
            if let kube::core::WatchEvent::Added(map) = event
                && map.metadata.name.as_deref() == Some("seen")
            {
                return anyhow::Ok(());
            }
        }
        anyhow::bail!("the watch has ended")
    };
    tokio::time::timeout(LONG, seen).await?
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_that_do_not_go_on_make_room() -> anyhow::Result<()> {
    let limits = ConnectionLimits { handshakes: 2, ..ConnectionLimits::default() };
    let cluster = cluster(limits).await?;
    let mut silent = Vec::new();
    for _ in 0..10 {
        silent.push(TcpStream::connect(cluster.address).await?);
    }
    let namespaces = Api::<Namespace>::all(admin(&cluster).await?);
    tokio::time::timeout(LONG, namespaces.list(&ListParams::default())).await.context("let in")??;
    // Those that were before it in the backlog have been closed.
    let mut first = silent.swap_remove(0);
    assert_eq!(tokio::time::timeout(LONG, first.read(&mut [0; 1])).await?.unwrap_or(0), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_has_no_more_connections_than_it_may() -> anyhow::Result<()> {
    let limits =
        ConnectionLimits { all: 100, per_address: 3, unauthenticated: 10, ..ConnectionLimits::default() };
    let cluster = cluster(limits).await?;
    let mut watches = Vec::new();
    for _ in 0..3 {
        let maps: Api<ConfigMap> = Api::namespaced(admin(&cluster).await?, "default");
        watches.push(maps.watch(&WatchParams::default(), "0").await?.boxed());
    }
    // All three are at work, so none of them goes.
    assert!(connect(&cluster, "h2").await.is_err());
    watches.pop();
    Cluster::eventually("one may come when one has gone", async || connect(&cluster, "h2").await.is_ok())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn over_http1_requests_follow_each_other_until_the_client_has_enough() -> anyhow::Result<()> {
    let cluster = cluster(ConnectionLimits::default()).await?;
    let mut stream = connect(&cluster, "http/1.1").await?;
    stream.write_all(b"GET /livez HTTP/1.1\r\nhost: a\r\n\r\nGET /livez HTTP/1.1\r\nhost: a\r\n").await?;
    stream.write_all(b"connection: close\r\n\r\n").await?;
    let answers = until_closed(&mut stream).await?;
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 2, "{answers}");
    Ok(())
}

/// An answer over HTTP/1.1, of which the head is known to be complete.
async fn head(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(tokio::time::timeout(LONG, stream.read_u8()).await??);
    }
    Ok(String::from_utf8(head)?.to_ascii_lowercase())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_says_whether_its_connection_is_closed() -> anyhow::Result<()> {
    let cluster = cluster(ConnectionLimits::default()).await?;
    let maps = "POST /api/v1/namespaces/default/configmaps HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n";
    let authorized = format!("{maps}authorization: Bearer {ADMIN_TOKEN}\r\n");
    let large = 5 * 1024 * 1024;
    for (request, body, code, closes) in [
        ("GET /livez HTTP/1.1\r\nhost: a\r\n".to_owned(), 0, 200, false),
        ("GET /livez HTTP/1.1\r\nhost: a\r\nconnection: close\r\n".into(), 0, 200, true),
        ("GET /livez HTTP/1.0\r\n".into(), 0, 200, true),
        // Refused before the body is read; too large; read, and found to be no object.
        (format!("{maps}content-length: 1000\r\n"), 1000, 403, true),
        (format!("{maps}content-length: {large}\r\n"), large, 403, true),
        (format!("{authorized}content-length: {large}\r\n"), large, 413, true),
        (format!("{authorized}content-length: 1000\r\n"), 1000, 400, false),
    ] {
        let mut stream = connect(&cluster, "http/1.1").await?;
        stream.write_all(format!("{request}\r\n").as_bytes()).await?;
        // All of it before the answer is read, as simple clients do.
        stream.write_all(&vec![b'x'; body]).await.with_context(|| request.clone())?;
        stream.flush().await?;
        let head = head(&mut stream).await.with_context(|| request.clone())?;
        assert!(head.split(' ').nth(1) == Some(&code.to_string()), "{request}: {head}");
        assert_eq!(head.contains("\r\nconnection: close\r\n"), closes, "{request}: {head}");
        if closes {
            let body = until_closed(&mut stream).await?;
            assert!(body.starts_with('{') || body == "ok", "{body}");
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_over_http2_does_not_disturb_a_client_that_is_still_sending() -> anyhow::Result<()> {
    const PIECES: usize = 100;
    let cluster = cluster(ConnectionLimits::default()).await?;
    let stream = connect(&cluster, "h2").await?;
    let (client, driver) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
    tokio::spawn(driver);
    // One that is too large, and two that are refused without being read.
    for (token, code) in [(Some(ADMIN_TOKEN), 413), (Some("wrong"), 401), (None, 403)] {
        let sent = Arc::new(AtomicUsize::new(0));
        let counted = sent.clone();
        let pieces = futures::stream::iter(0..PIECES).map(move |_| {
            counted.fetch_add(1, Ordering::Relaxed);
            Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; 64 * 1024])))
        });
        let mut request = Request::post("https://localhost/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json");
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let answer = client.clone().send_request(request.body(StreamBody::new(pieces))?);
        let answer = tokio::time::timeout(LONG, answer).await??;
        assert_eq!(answer.status(), code);
        let body = answer.into_body().collect().await?.to_bytes();
        assert_eq!(serde_json::from_slice::<serde_json::Value>(&body)?["code"], code);
        // A reset would make the client stop.
        let all = async || sent.load(Ordering::Relaxed) == PIECES;
        Cluster::eventually(&format!("{code}: all is sent"), all).await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn large_bodies_wait_for_room_and_get_429_if_there_is_none() -> anyhow::Result<()> {
    // Room for one body.
    let cluster = cluster(ConnectionLimits { request_bytes: 1, ..ConnectionLimits::default() }).await?;
    let text = |size: usize| {
        let map = json!({"metadata": {"name": format!("m{size}")}, "data": {"text": "x".repeat(size)}});
        Bytes::from(map.to_string())
    };
    let post = async |pieces: mpsc::UnboundedReceiver<Bytes>| {
        let stream = connect(&cluster, "h2").await?;
        let (mut client, driver) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(driver);
        let request = Request::post("https://localhost/api/v1/namespaces/default/configmaps")
            .header("content-type", "application/json")
            .header("authorization", format!("Bearer {ADMIN_TOKEN}"))
            .body(StreamBody::new(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece)))))?;
        let answer = tokio::time::timeout(LONG, client.send_request(request)).await??;
        anyhow::Ok(answer)
    };
    let whole = |size| {
        let (sender, pieces) = mpsc::unbounded();
        sender.unbounded_send(text(size)).map(|()| pieces)
    };
    let large = text(1_900_000);
    let (first, pieces) = mpsc::unbounded();
    first.unbounded_send(large.slice(..1_899_000))?;
    let slow = post(pieces);
    let others = async {
        // The first one has to be there, all of it: otherwise this one takes of the room, and it may be the first one that is refused.
        Cluster::eventually("a body that waits", async || {
            let request = Request::get("/metrics").body(Vec::new()).expect("a request");
            let metrics = cluster.admin().request_text(request).await.unwrap_or_default();
            let buffered = metrics.lines().find_map(|l| l.strip_prefix("apiserver_buffered_request_bytes "));
            buffered.and_then(|bytes| bytes.parse().ok()).is_some_and(|bytes: usize| bytes >= 1_800_000)
        })
        .await?;
        let refused = post(whole(1_500_000)?).await?;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "1");
        // A small one needs no room.
        assert_eq!(post(whole(1000)?).await?.status(), 201);
        first.unbounded_send(large.slice(1_899_000..))?;
        drop(first);
        anyhow::Ok(())
    };
    let (slow, others) = tokio::join!(slow, others);
    others?;
    // Read to their ends: a ConfigMap has at most 1 MiB. The first one has sent nothing for two seconds while another one waited: on
    // a busy machine that is slow enough to be refused for it.
    let slow = slow?.status();
    assert!(slow == 422 || slow == 429, "{slow}");
    assert_eq!(post(whole(1_500_000)?).await?.status(), 422);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_answered_over_http2() -> anyhow::Result<()> {
    let cluster = cluster(ConnectionLimits::default()).await?;
    let maps: Api<ConfigMap> = Api::namespaced(admin(&cluster).await?, "default");
    for size in [4, 8, 16] {
        let mut map = configmap("large")?;
        map.data = Some([("text".to_owned(), "x".repeat(size << 20))].into());
        let created = tokio::time::timeout(LONG, maps.create(&PostParams::default(), &map)).await?;
        match created {
            Err(kube::Error::Api(status)) => {
                assert_eq!((status.code, &*status.reason), (413, "RequestEntityTooLarge"))
            }
            other => anyhow::bail!("{size} MiB: {other:?}"),
        }
    }
    // The connection is as good as before.
    maps.create(&PostParams::default(), &configmap("small")?).await?;
    Ok(())
}
