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
use tokio::{sync::mpsc, time::Instant};

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

/// How soon a side that is away is asked whether it is back; later ones come with the waits of [`reconnect_wait`]. Also how long
/// the answer may take.
const PROBE: Duration = Duration::from_secs(5);

/// Asks a side that is away whether it is back: a watch that is taken up again says nothing before something happens.
pub(crate) async fn probe(client: kube::Client, side: Side, health: Arc<Health>) {
    let mut silent = 0_u32;
    loop {
        let more = if silent == 0 { Duration::ZERO } else { reconnect_wait(silent, random()) };
        tokio::time::sleep(PROBE + more).await;
        if health.answers(side) {
            silent = 0;
        } else if let Ok(Ok(_)) = tokio::time::timeout(PROBE, client.apiserver_version()).await {
            health.answered(side);
            silent = 0;
        } else {
            silent = silent.saturating_add(1);
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

/// The longest waits between attempts to take up a watch, from one failure to the next.
const RECONNECT: fleetpass_workqueue::Backoff =
    fleetpass_workqueue::Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// A watch that went on for so long was well: the next failure is a first one again. That it was taken up says little, since a
/// server that is overloaded lets many in before it fails them.
const STEADY: Duration = Duration::from_secs(60);

/// How long to wait after a failure that `earlier` ones came before: anything between nothing and the longest wait. All agents
/// of a fleet lose their hub in the same moment; less jitter would bring them back together, again and again. `random` is any
/// number.
fn reconnect_wait(earlier: u32, random: u32) -> Duration {
    RECONNECT.delay(earlier).saturating_mul(random) / u32::MAX
}

/// A random number. Without randomness the greatest, that is the longest wait.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

/// [`reconnect_wait`] as kube wants it.
#[derive(Debug, Default)]
struct Reconnect {
    failures: u32,
    /// When the last wait is over.
    waited: Option<Instant>,
}

impl Reconnect {
    /// The wait after a failure at `now`.
    fn after_failure(&mut self, now: Instant, random: u32) -> Duration {
        if self.waited.is_some_and(|waited| now >= waited + STEADY) {
            self.failures = 0;
        }
        let wait = reconnect_wait(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        self.waited = Some(now + wait);
        wait
    }
}

impl Iterator for Reconnect {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after_failure(Instant::now(), random()))
    }
}

impl Backoff for Reconnect {
    /// Called for whatever the watcher says that is no error, also for what it says before it has asked anything. Only time
    /// shows whether a watch is well: see [`STEADY`].
    fn reset(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_anywhere_below_a_ceiling_that_doubles() {
        for (earlier, seconds) in [(0, 1), (1, 2), (2, 4), (3, 8), (4, 16), (5, 30), (6, 30), (u32::MAX, 30)]
        {
            let ceiling = Duration::from_secs(seconds);
            assert_eq!(reconnect_wait(earlier, 0), Duration::ZERO);
            assert_eq!(reconnect_wait(earlier, u32::MAX), ceiling);
            let half = reconnect_wait(earlier, u32::MAX / 2);
            assert!(half > ceiling * 49 / 100 && half < ceiling * 51 / 100, "{earlier}: {half:?}");
        }
    }

    #[test]
    fn only_a_watch_that_lasts_forgets_the_failures_before_it() {
        let start = Instant::now();
        let mut reconnect = Reconnect::default();
        let mut now = start;
        for seconds in [1, 2, 4, 8, 16, 30, 30] {
            // It was taken up again, and failed a moment later.
            reconnect.reset();
            let wait = reconnect.after_failure(now, u32::MAX);
            assert_eq!(wait, Duration::from_secs(seconds));
            now += wait + Duration::from_secs(1);
        }
        now += STEADY;
        assert_eq!(reconnect.after_failure(now, u32::MAX), Duration::from_secs(1));
    }
}
