//! Clients, proxies and a server in this process. The server is known by a name that only the proxies can resolve.

use super::*;
use crate::transport::Way;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;

const SERVER: &str = "https://hub.example.com:6443";
/// Of the credentials that proxies are given here; nobody may print it.
const PASSWORD: &str = "p@ss:word";

/// Certificates for all that are here, and whoever trusts them.
struct Pki {
    certificate: CertificateDer<'static>,
    key: PrivateKeyDer<'static>,
}

impl Pki {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let names = ["hub.example.com".to_owned(), "127.0.0.1".to_owned()];
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        Self { certificate: made.cert.der().clone(), key }
    }

    fn acceptor(&self, protocols: &[&str]) -> TlsAcceptor {
        let mut config = rustls::ServerConfig::builder()
            .with_no_client_auth()
            .with_single_cert(vec![self.certificate.clone()], self.key.clone_key())
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }

    fn client(&self, proxy: Option<Proxy>, connect_timeout: Duration) -> kube::Client {
        let mut config = kube::Config::new(SERVER.parse().unwrap());
        config.root_cert = Some(vec![self.certificate.to_vec()]);
        config.connect_timeout = Some(connect_timeout);
        config.default_retry = false;
        Way::new(config, proxy, fleetpass_api::clock::system()).unwrap().client("default")
    }
}

/// An API server that says by which protocol it is asked.
async fn server(pki: &Pki, protocols: &[&str]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, acceptor) = (listener.local_addr().unwrap(), pki.acceptor(protocols));
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let tls = acceptor.accept(tcp).await.unwrap();
                let second = tls.get_ref().1.alpn_protocol() == Some(b"h2");
                let answer =
                    hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| async move {
                        let body = format!("{{\"protocol\": \"{:?}\"}}", request.version());
                        Ok::<_, std::convert::Infallible>(http::Response::new(body))
                    });
                let io = TokioIo::new(tls);
                let served = if second {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                        .serve_connection(io, answer)
                        .await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await
                };
                drop(served);
            });
        }
    });
    address
}

async fn ask(client: &kube::Client) -> Result<serde_json::Value, String> {
    let request = http::Request::get("/version").body(Vec::new()).unwrap();
    client.request(request).await.map_err(|error| {
        // Whoever prints it prints the last cause, all of them, or everything there is in it.
        let all = format!("{error:?}");
        format!("{} {all}", anyhow::Error::new(error).root_cause())
    })
}

/// What a proxy does with who comes.
#[derive(Clone, Copy)]
enum Behaviour {
    Connect,
    Answer(&'static str),
    Silence,
}

/// A proxy for CONNECT. What it was asked comes through the channel, one text for each connection.
async fn connect_proxy(
    server: SocketAddr,
    behaviour: Behaviour,
    tls: Option<TlsAcceptor>,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (sender, asked)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            let (sender, tls) = (sender.clone(), tls.clone());
            tokio::spawn(async move {
                match tls {
                    Some(tls) => tunnel(tls.accept(tcp).await.unwrap(), server, behaviour, sender).await,
                    None => tunnel(tcp, server, behaviour, sender).await,
                }
            });
        }
    });
    (address, asked)
}

async fn tunnel(
    mut client: impl AsyncRead + AsyncWrite + Unpin,
    server: SocketAddr,
    behaviour: Behaviour,
    asked: mpsc::UnboundedSender<String>,
) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    asked.send(String::from_utf8(head).unwrap()).unwrap();
    match behaviour {
        Behaviour::Connect => {
            let mut server = TcpStream::connect(server).await.unwrap();
            client.write_all(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n").await.unwrap();
            let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
        }
        Behaviour::Answer(answer) => client.write_all(answer.as_bytes()).await.unwrap(),
        Behaviour::Silence => std::future::pending().await,
    }
}

/// A SOCKS5 proxy (RFC 1928, 1929) that takes no other user than `user`, if there is one; and `reply` is its answer.
async fn socks_proxy(
    server: SocketAddr,
    user: Option<(&'static str, &'static str)>,
    reply: u8,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, (sender, asked)) = (listener.local_addr().unwrap(), mpsc::unbounded_channel());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                assert_eq!(client.read_u8().await.unwrap(), 5);
                let methods = read(&mut client).await;
                let method = if user.is_some() { 2 } else { 0 };
                assert!(methods.contains(&method), "{methods:?}");
                client.write_all(&[5, method]).await.unwrap();
                if let Some((name, password)) = user {
                    assert_eq!(client.read_u8().await.unwrap(), 1);
                    let given = (read(&mut client).await, read(&mut client).await);
                    let right = given == (name.as_bytes().to_vec(), password.as_bytes().to_vec());
                    client.write_all(&[1, u8::from(!right)]).await.unwrap();
                    if !right {
                        return;
                    }
                }
                // CONNECT to a name: the proxy resolves it.
                let mut head = [0; 4];
                client.read_exact(&mut head).await.unwrap();
                assert_eq!(head, [5, 1, 0, 3]);
                let host = String::from_utf8(read(&mut client).await).unwrap();
                let port = client.read_u16().await.unwrap();
                sender.send(format!("{host}:{port}")).unwrap();
                client.write_all(&[5, reply, 0, 1, 0, 0, 0, 0, 0, 0]).await.unwrap();
                if reply == 0 {
                    let mut server = TcpStream::connect(server).await.unwrap();
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            });
        }
    });
    (address, asked)
}

/// Bytes behind a byte with their number.
async fn read(client: &mut TcpStream) -> Vec<u8> {
    let length = client.read_u8().await.unwrap();
    let mut bytes = vec![0; length.into()];
    client.read_exact(&mut bytes).await.unwrap();
    bytes
}

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_server_is_reached_through_each_kind_of_proxy() {
    let pki = Pki::new();
    for (protocols, spoken) in
        [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")]
    {
        let server = server(&pki, protocols).await;
        for tls in [None, Some(pki.acceptor(&["h2", "http/1.1"])), Some(pki.acceptor(&[]))] {
            let scheme = if tls.is_some() { "https" } else { "http" };
            let (address, mut asked) = connect_proxy(server, Behaviour::Connect, tls).await;
            let proxy = Proxy::parse(&format!("{scheme}://me:p%40ss%3Aword@{address}")).unwrap();
            let client = pki.client(Some(proxy), LONG);
            assert_eq!(ask(&client).await.unwrap()["protocol"], spoken);
            let head = asked.recv().await.unwrap();
            assert!(head.starts_with("CONNECT hub.example.com:6443 HTTP/1.1\r\n"), "{head}");
            assert!(head.to_lowercase().contains("\r\nhost: hub.example.com:6443\r\n"), "{head}");
            // `me:p@ss:word`
            assert!(
                head.to_lowercase().contains("\r\nproxy-authorization: basic bwu6cebzczp3b3jk\r\n"),
                "{head}"
            );
            // The second request takes the same connection.
            ask(&client).await.unwrap();
            assert!(asked.try_recv().is_err());
        }
        for user in [None, Some(("me", PASSWORD))] {
            let (address, mut asked) = socks_proxy(server, user, 0).await;
            let given = if user.is_some() { "me:p%40ss%3Aword@" } else { "" };
            let proxy = Proxy::parse(&format!("socks5://{given}{address}")).unwrap();
            let client = pki.client(Some(proxy), LONG);
            assert_eq!(ask(&client).await.unwrap()["protocol"], spoken);
            assert_eq!(asked.recv().await.unwrap(), "hub.example.com:6443");
        }
    }
}

#[tokio::test]
async fn a_proxy_that_refuses_is_named_and_no_password_is() {
    let pki = Pki::new();
    let server = server(&pki, &["h2"]).await;
    for (answer, given, words) in [
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 2\r\n\r\nno",
            "",
            "write them into its URL",
        ),
        (
            "HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "me:p%40ss%3Aword@",
            "does not take those in its URL",
        ),
        ("HTTP/1.1 403 Forbidden\r\nContent-Length: 100\r\n\r\n", "me:p%40ss%3Aword@", "403 Forbidden"),
        ("HTTP/1.1 502 Bad Gateway\r\n\r\n", "", "502 Bad Gateway"),
        ("HTTP/1.1 302 Found\r\nLocation: /login\r\n\r\n", "", "302 Found"),
        ("HTTP/1.1 200 OK\r\n\r\nwelcome", "", "before the server was asked"),
        ("SSH-2.0-OpenSSH\r\n", "", "did not speak as a proxy does"),
        ("", "", "did not speak as a proxy does"),
    ] {
        let (address, _asked) = connect_proxy(server, Behaviour::Answer(answer), None).await;
        let proxy = Proxy::parse(&format!("http://{given}{address}")).unwrap();
        let error = ask(&pki.client(Some(proxy), LONG)).await.unwrap_err();
        let named =
            error.contains(&format!("the proxy http://{address} ")) && error.contains("hub.example.com:6443");
        assert!(named && error.contains(words), "{answer:?}: {error}");
        assert!(!error.contains("p%40ss") && !error.contains(PASSWORD) && !error.contains("me:"), "{error}");
    }
    for (user, given, reply, words) in [
        (Some(("me", "other")), "me:p%40ss%3Aword@", 0, "credentials not accepted"),
        (None, "", 2, "connection not allowed"),
        (None, "", 5, "connection refused"),
    ] {
        let (address, _asked) = socks_proxy(server, user, reply).await;
        let proxy = Proxy::parse(&format!("socks5h://{given}{address}")).unwrap();
        let error = ask(&pki.client(Some(proxy), LONG)).await.unwrap_err();
        assert!(
            error.contains(&format!("the proxy socks5h://{address} ")) && error.contains(words),
            "{error}"
        );
        assert!(!error.contains("p%40ss") && !error.contains(PASSWORD), "{error}");
    }
}

#[tokio::test]
async fn a_proxy_that_is_away_or_silent_or_unknown_is_named() {
    let pki = Pki::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = listener.local_addr().unwrap();
    drop(listener);
    for scheme in ["http", "https", "socks5"] {
        let proxy = Proxy::parse(&format!("{scheme}://me:secret@{away}")).unwrap();
        let error = ask(&pki.client(Some(proxy), LONG)).await.unwrap_err();
        let named = error.contains(&format!("the proxy {scheme}://{away} cannot be reached"));
        assert!(named && error.contains("refused") && !error.contains("secret"), "{error}");
    }
    // Trusted by nobody.
    let stranger = Pki::new();
    let (address, _asked) = connect_proxy(away, Behaviour::Connect, Some(stranger.acceptor(&[]))).await;
    let proxy = Proxy::parse(&format!("https://{address}")).unwrap();
    let error = ask(&pki.client(Some(proxy), LONG)).await.unwrap_err();
    assert!(
        error.contains(&format!("the proxy https://{address} ")) && error.contains("certificate"),
        "{error}"
    );

    let (address, _asked) = connect_proxy(away, Behaviour::Silence, None).await;
    let proxy = Proxy::parse(&format!("http://{address}")).unwrap();
    let error = ask(&pki.client(Some(proxy), Duration::from_secs(2))).await.unwrap_err();
    assert!(
        error.contains(&format!("the proxy http://{address} ")) && error.contains("within 1 s"),
        "{error}"
    );
}

/// The environment as it would be with these variables.
fn environment(variables: &'static [(&str, &str)]) -> Environment {
    let find =
        |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.to_string());
    Environment::read(find)
}

#[test]
fn the_environment_is_read_as_by_gos_programs() {
    for (variables, server, expected) in [
        (&[][..], "https://a.com", None),
        (&[("HTTPS_PROXY", "http://p:3128")], "https://a.com", Some("http://p:3128")),
        (&[("https_proxy", "http://p")], "https://a.com", Some("http://p:80")),
        (&[("HTTPS_PROXY", ""), ("https_proxy", "p:1")], "https://a.com", Some("http://p:1")),
        (&[("HTTPS_PROXY", "https://p"), ("https_proxy", "q")], "https://a.com", Some("https://p:443")),
        (&[("HTTPS_PROXY", "socks5://u:p@s/")], "https://a.com", Some("socks5://s:1080")),
        (&[("HTTPS_PROXY", "socks5h://[fd00::1]:9")], "https://a.com", Some("socks5h://[fd00::1]:9")),
        (&[("HTTP_PROXY", "p")], "https://a.com", None),
        (&[("HTTP_PROXY", "p"), ("HTTPS_PROXY", "q")], "http://a.com", Some("http://p:80")),
        (&[("ALL_PROXY", "p")], "https://a.com", Some("http://p:80")),
        (&[("all_proxy", "p"), ("HTTPS_PROXY", "q")], "https://a.com", Some("http://q:80")),
        (&[("HTTPS_PROXY", "p"), ("NO_PROXY", "a.com")], "https://x.a.com", None),
        (&[("HTTPS_PROXY", "p"), ("no_proxy", "10.0.0.0/8")], "https://10.96.0.1:443", None),
        (&[("HTTPS_PROXY", "p"), ("NO_PROXY", "a.com:6443")], "https://a.com:6443", None),
        (&[("HTTPS_PROXY", "p"), ("NO_PROXY", "a.com:443")], "https://a.com", None),
        (&[("HTTPS_PROXY", "p"), ("NO_PROXY", "a.com:443")], "http://a.com", None),
        (&[("HTTPS_PROXY", "p"), ("NO_PROXY", "a.com:6443")], "https://a.com", Some("http://p:80")),
        (&[("HTTPS_PROXY", "p")], "https://localhost:6443", None),
        (&[("HTTPS_PROXY", "p")], "https://127.0.0.1:6443", None),
        (&[("HTTPS_PROXY", "p")], "https://[::1]:6443", None),
        // Not looked at, so no error.
        (&[("HTTPS_PROXY", "ftp://u:p@x"), ("NO_PROXY", "*")], "https://a.com", None),
        (&[("HTTPS_PROXY", "ftp://u:p@x")], "https://127.0.0.1", None),
    ] {
        let found = environment(variables).proxy_for(&server.parse().unwrap()).unwrap();
        assert_eq!(found.map(|proxy| proxy.to_string()).as_deref(), expected, "{variables:?} {server}");
    }
}

#[test]
fn what_is_no_proxy_is_refused_without_its_password() {
    for url in
        ["ftp://u:secret@x", "socks4://u:secret@x", "http://u:sec ret@x", "http://", "http://u:secret@x:port"]
    {
        let server = "https://a.com".parse().unwrap();
        let variable = Some(("https_proxy", url.to_owned()));
        let environment = Environment { https: variable, ..Environment::default() };
        let error = format!("{:#}", environment.proxy_for(&server).unwrap_err());
        assert!(
            error.contains("https_proxy") && error.contains("socks5://") && !error.contains("sec"),
            "{error}"
        );
        let error = Proxy::of_kubeconfig(url).unwrap_err().to_string();
        assert!(
            error.contains("proxy-url") && error.contains("socks5://") && !error.contains("sec"),
            "{error}"
        );
    }
    // client-go wants a scheme there.
    Proxy::of_kubeconfig("proxy:3128").unwrap_err();
    let proxy = Proxy::of_kubeconfig("http://u:secret@proxy:3128").unwrap();
    assert_eq!(
        (format!("{proxy}"), format!("{proxy:?}")),
        ("http://proxy:3128".into(), "Proxy(http://proxy:3128)".into())
    );
}
