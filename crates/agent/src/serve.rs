//! Metrics and probes over plain HTTP, for a scraper and a kubelet.

use crate::run::Handle;
use bytes::Bytes;
use fleetpass_api::exposition;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{net::TcpListener, sync::Semaphore, task::JoinSet};
use tokio_util::sync::CancellationToken;

/// More connections than scrapers and probes ever hold. At the limit new ones wait in the kernel's backlog.
const MOST_CONNECTIONS: usize = 64;
/// How long a client may take to send the head of its request: a slot must not be held for ever.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

/// What a listener serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Endpoint {
    /// `/metrics` (`--metrics-bind-address`).
    Metrics,
    /// `/healthz`: the process runs; `/readyz`: it does its work (`--health-probe-bind-address`).
    Probes,
}

/// What tells how it is. Cheap to clone.
pub trait Observed: Clone + Send + Sync + 'static {
    /// Its metrics as OpenMetrics text.
    fn metrics(&self) -> String;

    /// What it still waits for; `None` once it is ready.
    fn awaits(&self) -> Option<String>;

    /// What an operator should know although it is ready: shown, and decides nothing.
    fn remarks(&self) -> Vec<String>;
}

impl Observed for Handle {
    fn metrics(&self) -> String {
        Handle::metrics(self)
    }

    fn awaits(&self) -> Option<String> {
        if self.is_name_in_use() {
            let why = "ClusterNameInUse: another cluster works under this --cluster-name, the log says which";
            return Some(why.to_owned());
        }
        self.health().awaits()
    }

    fn remarks(&self) -> Vec<String> {
        self.health().remarks()
    }
}

/// Serves the endpoint on the listener until shut down; connections end at once then.
pub async fn serve(
    listener: TcpListener,
    endpoint: Endpoint,
    observed: impl Observed,
    shutdown: CancellationToken,
) {
    let slots = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // A connection that is dropped in `accept` after it was taken is closed: its client connects again.
        let accepted = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept(&listener, &slots) => accepted,
            Some(_) = connections.join_next() => continue,
        };
        let Some((stream, slot)) = accepted else { continue };
        let observed = observed.clone();
        connections.spawn(async move {
            // The answer is made before the future, so nothing of the request has to outlive the call.
            let service = service_fn(move |request: Request<Incoming>| {
                let accept = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok());
                let answer = answer(endpoint, request.method(), request.uri().path(), accept, &observed);
                async move { Ok::<_, Infallible>(answer) }
            });
            let served = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .serve_connection(TokioIo::new(stream), service)
                .await;
            if let Err(error) = served {
                tracing::debug!(%error, "connection ended");
            }
            drop(slot);
        });
    }
}

type Accepted = (tokio::net::TcpStream, tokio::sync::OwnedSemaphorePermit);

/// The next connection, with the slot that it takes. The slot comes first, so that nothing is accepted that would then
/// have to wait.
async fn accept(listener: &TcpListener, slots: &Arc<Semaphore>) -> Option<Accepted> {
    let slot = slots.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((stream, _)) => Some((stream, slot)),
        Err(error) => {
            tracing::warn!(%error, "cannot accept a connection");
            // Out of descriptors, most likely: trying again at once would only burn the processor.
            tokio::time::sleep(Duration::from_millis(100)).await;
            None
        }
    }
}

fn answer(
    endpoint: Endpoint,
    method: &Method,
    path: &str,
    accept: Option<&str>,
    observed: &impl Observed,
) -> Response<Full<Bytes>> {
    const PLAIN: &str = "text/plain; charset=utf-8";
    let (status, kind, body) = match (method, endpoint, path) {
        (&Method::GET | &Method::HEAD, Endpoint::Metrics, "/metrics") => {
            let (kind, text) = exposition::answer(accept, observed.metrics());
            (StatusCode::OK, kind, text)
        }
        // That it answers is the answer: a side that is away must not get the agent restarted.
        (&Method::GET | &Method::HEAD, Endpoint::Probes, "/healthz" | "/livez") => {
            (StatusCode::OK, PLAIN, "ok".to_owned())
        }
        (&Method::GET | &Method::HEAD, Endpoint::Probes, "/readyz") => match observed.awaits() {
            None => {
                let lines = std::iter::once("ok".to_owned())
                    .chain(observed.remarks().into_iter().map(|remark| format!("warning: {remark}")));
                (StatusCode::OK, PLAIN, lines.collect::<Vec<_>>().join("\n"))
            }
            Some(what) => (StatusCode::SERVICE_UNAVAILABLE, PLAIN, what),
        },
        (&Method::GET | &Method::HEAD, ..) => {
            (StatusCode::NOT_FOUND, PLAIN, "404 page not found\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, PLAIN, "405 method not allowed\n".to_owned()),
    };
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Agent, Options, fake::Server};

    #[tokio::test]
    async fn answers_scrapers_and_probes() {
        let server = Server::default();
        let options = Options::new("cluster1", fleetpass_api::clock::system());
        let (_agent, handle) = Agent::new(server.client(), server.client(), options).unwrap();
        let ask = |endpoint, method, path| answer(endpoint, &method, path, None, &handle).status().as_u16();
        assert_eq!(ask(Endpoint::Metrics, Method::GET, "/metrics"), 200);
        assert_eq!(ask(Endpoint::Metrics, Method::GET, "/healthz"), 404);
        assert_eq!(ask(Endpoint::Probes, Method::GET, "/healthz"), 200);
        assert_eq!(ask(Endpoint::Probes, Method::HEAD, "/readyz"), 503, "nothing seen yet");
        assert_eq!(ask(Endpoint::Probes, Method::POST, "/healthz"), 405);
    }
}
