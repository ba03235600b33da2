//! Connections: straight to a server, or through a proxy.

use super::{Protocol, Proxy};
use futures::future::{BoxFuture, Either};
use http::header::{HOST, HeaderValue, PROXY_AUTHORIZATION, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::connect::proxy::SocksV5;
use hyper_util::rt::TokioIo;
use std::error::Error;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tower::{BoxError, Service, ServiceExt as _};

/// A connection to a server or to a proxy; the TLS in it is that with an `https` proxy.
type Stream = MaybeHttpsStream<TokioIo<TcpStream>>;

/// The way to a server.
#[derive(Clone)]
pub(crate) enum Route {
    /// Without a proxy.
    Direct(HttpConnector),
    /// Through a proxy.
    Via(Via),
}

/// A proxy as a connector.
#[derive(Clone)]
pub(crate) struct Via {
    proxy: Proxy,
    connector: HttpsConnector<HttpConnector>,
    /// How long the proxy may take. Less than connecting may take as a whole, or nobody would say that it was the proxy.
    patience: Duration,
}

/// Why a proxy gave no connection.
///
/// The causes are in the text and not behind `source`: whoever logs only the last cause of an error shall still name
/// the proxy.
#[derive(Debug, thiserror::Error)]
enum ProxyError {
    #[error("the proxy {proxy} cannot be reached: {cause}")]
    Away { proxy: String, cause: String },
    #[error("the proxy {proxy} gave no connection to {target} within {} s", patience.as_secs())]
    Silent { proxy: String, target: String, patience: Duration },
    #[error("the proxy {proxy} asks for credentials (407) before it connects to {target}: {}", credentials(*.given))]
    Credentials { proxy: String, target: String, given: bool },
    #[error("the proxy {proxy} refuses a connection to {target}: {answer}")]
    Refused { proxy: String, target: String, answer: String },
    #[error("the proxy {proxy} did not speak as a proxy does when asked for {target}: {cause}")]
    Broken { proxy: String, target: String, cause: String },
}

fn credentials(given: bool) -> &'static str {
    if given {
        "it does not take those in its URL"
    } else {
        "write them into its URL, as USER:PASSWORD@ before the host"
    }
}

impl Via {
    /// `tls` is how an `https` proxy is trusted: by the authorities that the server is trusted by, as in Go.
    pub(crate) fn new(
        proxy: Proxy,
        tcp: HttpConnector,
        tls: rustls::ClientConfig,
        patience: Duration,
    ) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        Self { proxy, connector, patience }
    }

    /// A connection through which the server hears what is sent, and nothing before it.
    async fn reach(mut self, server: Uri) -> Result<Stream, ProxyError> {
        let usual = if server.scheme_str() == Some("http") { 80 } else { 443 };
        let target = format!("{}:{}", server.host().unwrap_or_default(), server.port_u16().unwrap_or(usual));
        let patience = self.patience;
        let silent = ProxyError::Silent { proxy: self.proxy.to_string(), target: target.clone(), patience };
        let reaching = async {
            let stream = self.connect().await?;
            match self.proxy.protocol {
                Protocol::Http | Protocol::Https => self.tunnel(stream, &target).await,
                Protocol::Socks5 => self.socks(stream, &target).await,
            }
        };
        tokio::time::timeout(patience, reaching).await.unwrap_or(Err(silent))
    }

    /// A connection to the proxy itself.
    async fn connect(&mut self) -> Result<Stream, ProxyError> {
        let scheme = if self.proxy.protocol == Protocol::Https { "https" } else { "http" };
        let host = self.proxy.intercept.uri().host().unwrap_or_default();
        let away = |cause: String| ProxyError::Away { proxy: self.proxy.to_string(), cause };
        let address = format!("{scheme}://{host}:{}/", self.proxy.port());
        let address = address.parse::<Uri>().map_err(|error| away(error.to_string()))?;
        let connected = async { self.connector.ready().await?.call(address).await };
        connected.await.map_err(|error| away(causes(&*error)))
    }

    /// Asks for a tunnel (RFC 9110, 9.3.6).
    ///
    /// hyper-util has this too, but does not tell with what status a proxy refused.
    async fn tunnel(&self, stream: Stream, target: &str) -> Result<Stream, ProxyError> {
        let broken = |cause: String| ProxyError::Broken {
            proxy: self.proxy.to_string(),
            target: target.into(),
            cause,
        };
        let request = self.connect_request(target).map_err(|error| broken(error.to_string()))?;
        let (mut sender, connection) =
            http1::handshake::<_, Empty<Bytes>>(stream).await.map_err(|error| broken(causes(&error)))?;
        let opened = async {
            let response = sender.send_request(request).await.map_err(|error| broken(causes(&error)))?;
            self.judge(&response, target)?;
            hyper::upgrade::on(response).await.map_err(|error| broken(causes(&error)))
        };
        // Polled here and not in a task: a proxy that is given up on must not leave one behind.
        let (opened, connection) = (std::pin::pin!(opened), std::pin::pin!(connection.with_upgrades()));
        let tunnel = match futures::future::select(opened, connection).await {
            Either::Left((opened, _)) => opened,
            // Whatever ended it, the other side of it knows.
            Either::Right((_, opened)) => opened.await,
        }?;
        let parts = tunnel.downcast::<Stream>().map_err(|_| broken("the connection is lost".into()))?;
        // A server waits for its client to speak first, in TLS and in HTTP.
        if !parts.read_buf.is_empty() {
            return Err(broken("it sent something before the server was asked for anything".into()));
        }
        Ok(parts.io)
    }

    fn connect_request(&self, target: &str) -> Result<Request<Empty<Bytes>>, http::Error> {
        let mut request = Request::builder()
            .method(Method::CONNECT)
            .uri(target)
            .header(HOST, target)
            .header(USER_AGENT, HeaderValue::from_static(concat!("fleetpass/", env!("CARGO_PKG_VERSION"))));
        if let Some(credentials) = self.proxy.intercept.basic_auth() {
            request = request.header(PROXY_AUTHORIZATION, credentials);
        }
        request.body(Empty::new())
    }

    /// Any 2xx opens the tunnel.
    fn judge(&self, response: &Response<Incoming>, target: &str) -> Result<(), ProxyError> {
        let (proxy, target) = (self.proxy.to_string(), target.to_owned());
        match response.status() {
            status if status.is_success() => Ok(()),
            http::StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
                let given = self.proxy.intercept.basic_auth().is_some();
                Err(ProxyError::Credentials { proxy, target, given })
            }
            status => Err(ProxyError::Refused { proxy, target, answer: status.to_string() }),
        }
    }

    async fn socks(&self, stream: Stream, target: &str) -> Result<Stream, ProxyError> {
        let refused = |answer: String| ProxyError::Refused {
            proxy: self.proxy.to_string(),
            target: target.into(),
            answer,
        };
        let server =
            format!("http://{target}/").parse::<Uri>().map_err(|error| refused(error.to_string()))?;
        // The connection is there already; it could not say why it is not, inside of the other one.
        let mut stream = Some(stream);
        let given = tower::service_fn(move |_: Uri| {
            std::future::ready(stream.take().ok_or_else(|| std::io::Error::other("used before")))
        });
        let mut socks = SocksV5::new(self.proxy.intercept.uri().clone(), given);
        if let Some((user, password)) = self.proxy.intercept.raw_auth() {
            socks = socks.with_auth(user.to_owned(), password.to_owned());
        }
        socks.call(server).await.map_err(|error| refused(error.to_string()))
    }
}

impl Service<Uri> for Route {
    type Response = Stream;
    type Error = BoxError;
    type Future = BoxFuture<'static, Result<Stream, BoxError>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match self {
            Self::Direct(connector) => connector.poll_ready(context).map_err(Into::into),
            // It waits for its own connector when it is called.
            Self::Via(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, server: Uri) -> Self::Future {
        match self {
            Self::Direct(connector) => {
                let connecting = connector.call(server);
                Box::pin(async { Ok(MaybeHttpsStream::Http(connecting.await?)) })
            }
            Self::Via(via) => {
                let reaching = via.clone().reach(server);
                Box::pin(async { Ok(reaching.await?) })
            }
        }
    }
}

/// An error and what is behind it, in one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let more = cause.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        next = cause.source();
    }
    text
}
