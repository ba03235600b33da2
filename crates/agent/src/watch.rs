//! What happens on both sides, as news. Metadata only: no token passes through a watch.

use crate::{
    health::Health,
    news::{Change, Name},
    side::{Kind, Side},
};
use fleetpass_api::names;
use futures::StreamExt as _;
use kube::{
    Api,
    core::{ObjectMeta, PartialObjectMeta},
    runtime::{
        WatchStreamExt as _,
        utils::Backoff,
        watcher::{self, watcher},
    },
};
use serde::de::DeserializeOwned;
use std::{collections::HashSet, fmt::Debug, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum Signal {
    /// One object changed.
    Changed(Name, Kind, Change),
    /// These are all objects of the kind.
    Listed(Kind, HashSet<Name>),
}

/// Watches until nobody listens. A watch that breaks is taken up where it ended; if the server no longer has what
/// happened since (410 Gone), it begins anew with a list.
///
/// Cancel safety: it may be dropped at any `await`. Nothing is lost for good: whoever watches anew begins with a list.
pub(crate) async fn watch<K>(
    api: Api<PartialObjectMeta<K>>,
    kind: Kind,
    signals: mpsc::Sender<Signal>,
    health: Arc<Health>,
) where
    PartialObjectMeta<K>: kube::Resource + Clone + DeserializeOwned + Debug + Send + 'static,
    K: Clone + Debug + Send + 'static,
{
    // The objects that the agent may change carry its label; all accounts are its business, and no user labels them.
    let config = match kind {
        Kind::Account => watcher::Config::default(),
        Kind::Secret | Kind::ServiceAccount => watcher::Config::default().labels(&format!(
            "{}={}",
            names::LABEL_IS_MANAGED,
            names::LABEL_IS_MANAGED_VALUE
        )),
    };
    let mut events = std::pin::pin!(watcher(api, config).backoff(Reconnect::default()));
    let mut listed = HashSet::new();
    while let Some(event) = events.next().await {
        let signal = match event {
            Err(error) => {
                tracing::debug!(?kind, error = %brief(&error), "watch interrupted");
                if is_silence(&error) {
                    health.failed(kind.side());
                } else if let Some(why) = refusal(&error) {
                    health.refused(kind.side(), why);
                }
                continue;
            }
            Ok(event) => {
                health.answered(kind.side());
                health.admitted(kind.side());
                read(event, kind, &mut listed)
            }
        };
        // Before it is worked off: ready means that the agent knows its objects, not that all of them are in order.
        if let Some(Signal::Listed(..)) = signal {
            health.listed(kind);
        }
        if let Some(signal) = signal
            && signals.send(signal).await.is_err()
        {
            return;
        }
    }
}

fn read<K>(
    event: watcher::Event<PartialObjectMeta<K>>,
    kind: Kind,
    listed: &mut HashSet<Name>,
) -> Option<Signal> {
    let changed = |metadata: ObjectMeta, gone: bool| {
        let name: Name = metadata.name?.into();
        let version = metadata.resource_version;
        let change = match gone {
            true => Change::Gone(version),
            false => Change::At(version.unwrap_or_default()),
        };
        Some((name, change))
    };
    match event {
        watcher::Event::Init => {
            // A list that broke off halfway says nothing about what is gone.
            listed.clear();
            None
        }
        watcher::Event::InitApply(object) => {
            let (name, change) = changed(object.metadata, false)?;
            listed.insert(name.clone());
            Some(Signal::Changed(name, kind, change))
        }
        watcher::Event::InitDone => Some(Signal::Listed(kind, std::mem::take(listed))),
        watcher::Event::Apply(object) => {
            changed(object.metadata, false).map(|(name, change)| Signal::Changed(name, kind, change))
        }
        watcher::Event::Delete(object) => {
            changed(object.metadata, true).map(|(name, change)| Signal::Changed(name, kind, change))
        }
    }
}

/// How often a side that is away is asked whether it is back; also how long the answer may take.
const PROBE: Duration = Duration::from_secs(5);

/// Asks a side that is away whether it is back: a watch that is taken up again says nothing before something happens.
pub(crate) async fn probe(client: kube::Client, side: Side, health: Arc<Health>) {
    loop {
        tokio::time::sleep(PROBE).await;
        if !health.answers(side)
            && let Ok(Ok(_)) = tokio::time::timeout(PROBE, client.apiserver_version()).await
        {
            health.answered(side);
        }
    }
}

/// What a server said that does not let the agent in.
fn refusal(error: &watcher::Error) -> Option<&str> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => {
            matches!(status.code, 401 | 403).then_some(status.message.as_str())
        }
        _ => None,
    }
}

/// Whether the error means that the other side did not answer at all.
fn is_silence(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(error)
        | watcher::Error::WatchStartFailed(error)
        | watcher::Error::WatchFailed(error) => match error {
            // As `calls` has it: it answers, and says that it cannot work now.
            kube::Error::Api(status) => status.code == 429 || status.code >= 500,
            kube::Error::SerdeError(_) => false,
            _ => true,
        },
        watcher::Error::WatchError(_) | watcher::Error::NoResourceVersion => false,
    }
}

/// The error without what the server sent. The parser quotes values that it did not expect, and an annotation such as
/// `kubectl.kubernetes.io/last-applied-configuration` may hold a Secret's data.
fn brief(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(kube::Error::SerdeError(_))
        | watcher::Error::WatchFailed(kube::Error::SerdeError(_)) => "unreadable answer".to_owned(),
        error => error.to_string(),
    }
}

/// Waits between attempts to take up a watch. kube's own begin at 0.8 and end at 30 seconds: too long for an agent that
/// is to be back at work soon after its hub is.
const RECONNECT: fleetpass_workqueue::Backoff =
    fleetpass_workqueue::Backoff::new(Duration::from_millis(100), Duration::from_secs(10));

/// [`RECONNECT`] as kube wants it.
#[derive(Debug, Default)]
struct Reconnect {
    failures: u32,
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = RECONNECT.delay(self.failures);
        self.failures = self.failures.saturating_add(1);
        Some(wait)
    }
}

impl Backoff for Reconnect {
    fn reset(&mut self) {
        *self = Self::default();
    }
}
