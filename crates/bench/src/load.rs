//! The load generator: so many connections over TLS with so many requests under way on each, as fast as the answers come
//! or at a given rate. It runs on one thread, so that what it costs can be told from what the server costs.

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use fleetpass_testkit::cluster::ADMIN_TOKEN;
use fleetpass_testkit::rig::Endpoint;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, LocalSet};
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// The version of HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Protocol {
    /// HTTP/1.1 with connections that are kept: one request at a time on each.
    Http1,
    /// HTTP/2.
    Http2,
}

/// How a server is asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    /// The version of HTTP.
    pub(crate) protocol: Protocol,
    /// How many connections.
    pub(crate) connections: usize,
    /// How many requests are under way on each; with HTTP/1.1 always one.
    pub(crate) streams: usize,
    /// How long it is asked before anything counts.
    pub(crate) warm_up: Duration,
    /// How long it is asked then.
    pub(crate) duration: Duration,
    /// Requests per second; without it as many as are answered.
    pub(crate) rate: Option<f64>,
}

/// Makes the n-th request: path and query in its target, the body; the credentials are added.
pub(crate) type Make = Arc<dyn Fn(u64) -> Request<Bytes> + Send + Sync>;

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    /// How long was measured, in seconds.
    pub(crate) seconds: f64,
    /// From a request (of a rate: from when it was due) to the end of its answer, in microseconds, sorted.
    pub(crate) micros: Vec<u32>,
}

impl Answers {
    /// Answers per second.
    pub(crate) fn rate(&self) -> f64 {
        self.micros.len() as f64 / self.seconds
    }

    /// The latency, in milliseconds, that this part (0 to 1) of the requests did not exceed.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let last = self.micros.len().saturating_sub(1);
        let at = (last as f64 * part).round() as usize;
        self.micros.get(at).map_or(f64::NAN, |micros| f64::from(*micros) / 1e3)
    }
}

/// A GET.
pub(crate) fn get(target: &str) -> Make {
    let target = target.to_owned();
    Arc::new(move |_| request("GET", &target, Bytes::new()))
}

/// A POST of the same body each time.
pub(crate) fn post(target: &str, body: &serde_json::Value) -> Make {
    let (target, body) = (target.to_owned(), Bytes::from(body.to_string()));
    Arc::new(move |_| request("POST", &target, body.clone()))
}

/// A request for JSON.
pub(crate) fn request(method: &str, target: &str, body: Bytes) -> Request<Bytes> {
    let mut request = Request::new(body);
    *request.method_mut() = method.parse().unwrap_or_default();
    *request.uri_mut() = target.parse().unwrap_or_default();
    if !request.body().is_empty() {
        let json = http::HeaderValue::from_static("application/json");
        request.headers_mut().insert(header::CONTENT_TYPE, json);
    }
    request
}

/// Asks a server as its administrator, on a thread of its own.
///
/// # Errors
///
/// A connection cannot be made or breaks, or an answer is neither 200 nor 201.
pub(crate) async fn run(endpoint: &Endpoint, plan: Plan, make: Make) -> Result<Answers> {
    let client = Client::new(endpoint)?;
    tokio::task::spawn_blocking(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(LocalSet::new().run_until(client.run(plan, make)))
    })
    .await?
}

/// How to reach one server as its administrator.
pub(crate) struct Client {
    address: SocketAddr,
    tls: ClientConfig,
}

/// What all slots share.
struct Shared {
    plan: Plan,
    make: Make,
    base: String,
    began: Instant,
    next: Cell<u64>,
    /// When requests are due, at a given rate.
    dues: Option<tokio::sync::Mutex<mpsc::UnboundedReceiver<Instant>>>,
    micros: RefCell<Vec<u32>>,
}

impl Shared {
    /// When the next request is to be asked; with a rate, when it was due. `None` when the time is over.
    async fn start(&self) -> Option<Instant> {
        let start = match &self.dues {
            None => Instant::now(),
            Some(dues) => dues.lock().await.recv().await?,
        };
        (start < self.began + self.plan.warm_up + self.plan.duration).then_some(start)
    }
}

/// Tells when requests are due, so many in a second until `end`. A thread sleeps more precisely than tokio's timers, which
/// go by milliseconds.
fn dues(rate: f64, began: Instant, end: Instant) -> mpsc::UnboundedReceiver<Instant> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for number in 0_u32.. {
            let due = began + Duration::from_secs_f64(f64::from(number) / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if due >= end || sender.send(due).is_err() {
                return;
            }
        }
    });
    receiver
}

impl Client {
    /// One for a server.
    ///
    /// # Errors
    ///
    /// Its authority is no certificate.
    pub(crate) fn new(endpoint: &Endpoint) -> Result<Self> {
        let mut roots = rustls::RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(endpoint.ca_pem.as_bytes()) {
            roots.add(certificate.context("the authority is no certificate")?)?;
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { address: endpoint.address(), tls })
    }

    async fn connect(&self, protocol: Protocol) -> Result<TlsStream<TcpStream>> {
        let mut tls = self.tls.clone();
        tls.alpn_protocols = vec![match protocol {
            Protocol::Http1 => b"http/1.1".to_vec(),
            Protocol::Http2 => b"h2".to_vec(),
        }];
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::IpAddress(self.address.ip().into());
        Ok(TlsConnector::from(Arc::new(tls)).connect(name, stream).await?)
    }

    /// A connection with HTTP/2; `drivers` keep it going.
    pub(crate) async fn http2(
        &self,
        drivers: &mut JoinSet<Result<()>>,
    ) -> Result<h2::client::SendRequest<Bytes>> {
        let stream = self.connect(Protocol::Http2).await?;
        let mut builder = h2::client::Builder::new();
        // Lists must not wait for the generator's permission.
        builder.initial_window_size(16 << 20).initial_connection_window_size(64 << 20);
        let (sender, driver) = builder.handshake(stream).await?;
        drivers.spawn_local(async move { driver.await.map_err(anyhow::Error::from) });
        Ok(sender)
    }

    /// Whether the server says that it is ready.
    pub(crate) async fn is_ready(&self) -> bool {
        let Ok(stream) = self.connect(Protocol::Http1).await else { return false };
        let Ok((mut sender, driver)) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await
        else {
            return false;
        };
        let driver = tokio::spawn(driver);
        let request = Request::get("/readyz").header(header::HOST, "127.0.0.1").body(Full::new(Bytes::new()));
        let Ok(request) = request else { return false };
        let ready = sender.send_request(request).await.is_ok_and(|answer| answer.status() == StatusCode::OK);
        driver.abort();
        ready
    }

    /// A GET for a connection with HTTP/2.
    pub(crate) fn http2_request(&self, target: &str) -> Result<Request<()>> {
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let uri = format!("https://{}{target}", self.address);
        Ok(Request::get(uri).header(header::AUTHORIZATION, bearer).body(())?)
    }

    async fn run(self, plan: Plan, make: Make) -> Result<Answers> {
        let mut slots = Vec::new();
        let mut drivers = JoinSet::new();
        for _ in 0..plan.connections {
            match plan.protocol {
                Protocol::Http1 => {
                    let stream = self.connect(plan.protocol).await?;
                    let (sender, driver) =
                        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
                    drivers.spawn_local(async move { driver.await.map_err(anyhow::Error::from) });
                    slots.push(Slot::Http1(sender));
                }
                Protocol::Http2 => {
                    let sender = self.http2(&mut drivers).await?;
                    slots.extend((0..plan.streams).map(|_| Slot::Http2(sender.clone())));
                }
            }
        }
        let began = Instant::now();
        let end = began + plan.warm_up + plan.duration;
        let shared = Rc::new(Shared {
            plan,
            make,
            base: format!("https://{}", self.address),
            began,
            next: Cell::new(0),
            dues: plan.rate.map(|rate| tokio::sync::Mutex::new(dues(rate, began, end))),
            micros: RefCell::new(Vec::new()),
        });
        let mut running = JoinSet::new();
        for slot in slots {
            running.spawn_local(slot.run(shared.clone()));
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        let mut micros = shared.micros.take();
        ensure!(!micros.is_empty(), "nothing was answered");
        micros.sort_unstable();
        Ok(Answers { seconds: plan.duration.as_secs_f64(), micros })
    }
}

/// One request at a time.
enum Slot {
    Http1(hyper::client::conn::http1::SendRequest<Full<Bytes>>),
    Http2(h2::client::SendRequest<Bytes>),
}

impl Slot {
    /// Asks until the time is over.
    async fn run(mut self, shared: Rc<Shared>) -> Result<()> {
        let from = shared.began + shared.plan.warm_up;
        let until = from + shared.plan.duration;
        while let Some(start) = shared.start().await {
            let number = shared.next.replace(shared.next.get() + 1);
            let status = self.ask(&shared, number).await?;
            let end = Instant::now();
            ensure!(matches!(status, StatusCode::OK | StatusCode::CREATED), "an answer is {status}");
            if (from..until).contains(&end) {
                let micros = end.duration_since(start).as_micros();
                shared.micros.borrow_mut().push(u32::try_from(micros).unwrap_or(u32::MAX));
            }
        }
        Ok(())
    }

    async fn ask(&mut self, shared: &Shared, number: u64) -> Result<StatusCode> {
        let (mut head, body) = (shared.make)(number).into_parts();
        let bearer = http::HeaderValue::from_str(&format!("Bearer {ADMIN_TOKEN}"))?;
        head.headers.insert(header::AUTHORIZATION, bearer);
        match self {
            Self::Http1(sender) => {
                head.headers.insert(header::HOST, http::HeaderValue::from_static("127.0.0.1"));
                sender.ready().await?;
                let response = sender.send_request(Request::from_parts(head, Full::new(body))).await?;
                let status = response.status();
                let mut body = response.into_body();
                while let Some(frame) = body.frame().await {
                    frame?;
                }
                Ok(status)
            }
            Self::Http2(sender) => {
                head.uri = format!("{}{}", shared.base, head.uri).parse()?;
                let mut ready = sender.clone().ready().await?;
                let (response, mut sending) =
                    ready.send_request(Request::from_parts(head, ()), body.is_empty())?;
                if !body.is_empty() {
                    sending.send_data(body, true)?;
                }
                let response = response.await?;
                let status = response.status();
                let mut body = response.into_body();
                while let Some(data) = body.data().await {
                    let length = data?.len();
                    body.flow_control().release_capacity(length)?;
                }
                Ok(status)
            }
        }
    }
}
