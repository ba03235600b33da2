//! Many watchers of the same objects.

use crate::load::Client;
use anyhow::{Context as _, Result, ensure};
use fleetpass_testkit::rig::Endpoint;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, LocalSet};
use tokio::time::Instant;

/// Watches on one connection: kube-apiserver allows a hundred streams.
const STREAMS: usize = 100;
/// How long the last event may take.
const PATIENCE: Duration = Duration::from_secs(300);
/// The namespace in which nothing else happens.
const NAMESPACE: &str = "default";
const NAME: &str = "watched";

/// Watches that are open.
pub(crate) struct Watchers {
    count: usize,
    /// How many events each of them waits for; the watches end when they have them.
    wanted: watch::Sender<usize>,
    thread: JoinHandle<Result<usize>>,
}

/// What watching cost.
#[derive(Debug, Clone)]
pub(crate) struct FanOut {
    /// Events that were received, by all watchers together.
    pub(crate) events: usize,
    /// From the first change to the last event.
    pub(crate) seconds: f64,
    /// What the server used.
    pub(crate) cpu_seconds: f64,
}

impl Watchers {
    /// Opens so many watches, and waits until all are open.
    ///
    /// # Errors
    ///
    /// The server refuses one.
    pub(crate) async fn start(endpoint: &Endpoint, count: usize) -> Result<Self> {
        let client = Client::new(endpoint)?;
        let (wanted, wants) = watch::channel(0);
        let (opened, mut open) = mpsc::unbounded_channel();
        let thread = tokio::task::spawn_blocking(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(LocalSet::new().run_until(watch_all(client, count, wants, opened)))
        });
        for _ in 0..count {
            if open.recv().await.is_none() {
                thread.await??;
                anyhow::bail!("a watch is not open");
            }
        }
        Ok(Self { count, wanted, thread })
    }

    /// Changes an object so many times, and waits until every watcher has seen all of it.
    ///
    /// # Errors
    ///
    /// A change is refused, a watch ends early, or the events do not come.
    pub(crate) async fn see(self, client: &kube::Client, events: usize) -> Result<FanOut> {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
        self.wanted.send(events).context("the watches have ended")?;
        let began = Instant::now();
        for number in 0..events {
            // The first one creates it.
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": NAME}, "data": {"number": number.to_string(),
                "text": "some text that is as long as a line of a usual configuration file is"}});
            maps.patch(NAME, &PatchParams::apply("bench").force(), &Patch::Apply(&map)).await?;
        }
        let seen = tokio::time::timeout(PATIENCE, self.thread).await.context("events are missing")???;
        let seconds = began.elapsed().as_secs_f64();
        ensure!(seen == self.count * events, "{seen} events of {}", self.count * events);
        Ok(FanOut { events: seen, seconds, cpu_seconds: f64::NAN })
    }
}

async fn watch_all(
    client: Client,
    count: usize,
    wants: watch::Receiver<usize>,
    opened: mpsc::UnboundedSender<()>,
) -> Result<usize> {
    let mut watches = tokio::task::JoinSet::new();
    let mut drivers = tokio::task::JoinSet::new();
    let target =
        format!("/api/v1/namespaces/{NAMESPACE}/configmaps?watch=1&fieldSelector=metadata.name%3D{NAME}");
    let mut left = count;
    while left > 0 {
        let sender = client.http2(&mut drivers).await?;
        for _ in 0..left.min(STREAMS) {
            let request = client.http2_request(&target)?;
            let (sender, wants, opened) = (sender.clone(), wants.clone(), opened.clone());
            watches.spawn_local(watch_one(sender, request, wants, opened));
        }
        left -= left.min(STREAMS);
    }
    let mut seen = 0;
    while let Some(ended) = watches.join_next().await {
        seen += ended??;
    }
    Ok(seen)
}

/// Counts the lines of one watch, until there are as many as are wanted.
async fn watch_one(
    sender: h2::client::SendRequest<bytes::Bytes>,
    request: http::Request<()>,
    mut wants: watch::Receiver<usize>,
    opened: mpsc::UnboundedSender<()>,
) -> Result<usize> {
    let mut sender = sender.ready().await?;
    let (response, _) = sender.send_request(request, true)?;
    let response = response.await?;
    ensure!(response.status() == 200, "a watch is answered with {}", response.status());
    let mut body = response.into_body();
    opened.send(()).context("nobody waits for the watches")?;
    let wanted = *wants.wait_for(|wanted| *wanted > 0).await?;
    let mut seen = 0;
    while seen < wanted {
        let data = body.data().await.context("a watch ended early")??;
        body.flow_control().release_capacity(data.len())?;
        seen += data.iter().filter(|byte| **byte == b'\n').count();
    }
    Ok(seen)
}
