//! What happens on both sides, as news. Metadata only: no token passes through a watch.
//!
//! kube has a watcher, which this does not use: it says that it begins before any server has answered, reads lines of any
//! length, and resumes at a revision that an older backup of the server does not have yet, where it waits for ever.

use crate::{
    news::{Change, Name},
    side::{
        Kind, Side,
        call::Call,
        cause::{Cause, is_expired},
        peer::{Failure, OBJECT_BYTES, PAGE_BYTES, Peer},
        state::WAITS,
    },
};
use fleetpass_api::names;
use http::Method;
use kube::{
    api::{ListParams, WatchParams},
    core::{Request as Builder, Status},
};
use lines::Lines;
use serde::Deserialize;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::Instant};

mod lines;

/// What a watch tells.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Signal {
    /// One object changed.
    Changed(Name, Kind, Change),
    /// These are all objects of the kind.
    Listed(Kind, HashSet<Name>),
    /// The revisions of the side went back: it is an older backup, or another store.
    Rewound(Side),
}

/// Objects on a page of a list, as client-go has it.
const PAGE: u32 = 500;
/// More objects than a cluster's namespace ever has: they are remembered by name, and each is worked on.
const MOST_OBJECTS: usize = 50_000;
/// Pages that all those come on.
const MOST_PAGES: usize = 2_000;
/// Names and versions are shorter in Kubernetes (253 characters, a number).
const MOST_TEXT: usize = 253;
/// How long a watch is asked for, and up to a fifth more, so that those of a fleet do not end together.
const WATCH_SECONDS: u32 = 250;
/// How much longer it may take: for a server, or what is in between, that does not end it.
const OVERTIME: Duration = Duration::from_secs(30);
/// A watch that ends sooner was none.
const BRIEF: Duration = Duration::from_secs(10);
/// A watch that is open for so long was let in.
const LET_IN: Duration = BRIEF;

/// Revisions do not go back more often: who puts one backup in place after another means the last.
const REWOUND: Duration = Duration::from_secs(5 * 60);

/// Watches until nobody listens: lists, watches from there on, and lists anew after whatever did not go by plan, so that it
/// never waits for a revision that a server does not know or will not come to. When all goes by plan it lists anew after
/// the second watch, which is about every nine minutes: no mistake, here or there, lasts longer.
///
/// Cancel safety: it may be dropped at any `await`. Nothing is lost for good: whoever watches anew begins with a list.
pub(crate) async fn watch(peer: Arc<Peer>, path: String, kind: Kind, signals: mpsc::Sender<Signal>) {
    let call = |query| Call::of(&Method::GET, &path, query);
    // The objects that the agent may change carry its label; all accounts are its business, and no user labels them.
    let selector = match kind {
        Kind::Account => None,
        Kind::Secret | Kind::ServiceAccount => {
            Some(format!("{}={}", names::LABEL_IS_MANAGED, names::LABEL_IS_MANAGED_VALUE))
        }
    };
    let mut watch = Watch {
        list: call(None),
        watch: call(Some("watch=true")),
        builder: Builder::new(path.clone()),
        returns: peer.health().returns(kind.side()),
        peer,
        kind,
        selector,
        signals,
        reconnect: Reconnect::default(),
        page_size: PAGE,
        objects: 0,
        rewound: None,
        newest: None,
    };
    loop {
        let wait = match watch.round().await {
            Ended::Unheard => return,
            Ended::Planned => Duration::ZERO,
            Ended::Expired => watch.reconnect.after_expiry(Instant::now(), random()),
            Ended::Returned => reconnect_wait(0, random()),
            Ended::Failed => watch.reconnect.after_failure(Instant::now(), random()),
        };
        tokio::time::sleep(wait.max(watch.quiet_for())).await;
    }
}

/// Why a list and the watches after it came to an end.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// It is time for another list.
    Planned,
    /// The server no longer has, or does not have yet, what happened since.
    Expired,
    /// The side came back after it had not been reachable: this watch may be about another past.
    Returned,
    /// Something went wrong. It has been noted.
    Failed,
    /// Nobody listens.
    Unheard,
}

struct Watch {
    peer: Arc<Peer>,
    builder: Builder,
    list: Call,
    watch: Call,
    kind: Kind,
    selector: Option<String>,
    signals: mpsc::Sender<Signal>,
    returns: tokio::sync::watch::Receiver<u64>,
    reconnect: Reconnect,
    /// How many objects to ask for at a time.
    page_size: u32,
    /// How many objects the last list had, and were added since.
    objects: usize,
    /// When revisions went back last.
    rewound: Option<Instant>,
    /// The highest revision that was seen.
    newest: Option<u64>,
}

/// Of a page of a list, what matters here.
#[derive(Deserialize)]
struct Page {
    #[serde(default)]
    metadata: PageMeta,
    items: Option<Vec<Item>>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: ItemMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct ItemMeta {
    name: String,
    uid: String,
    resource_version: String,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    type_: String,
    #[serde(borrow)]
    object: &'a serde_json::value::RawValue,
}

impl Page {
    /// Reads a page; says what is wrong with it otherwise. The parser's own words are not used: they quote values, and an
    /// annotation such as `kubectl.kubernetes.io/last-applied-configuration` may hold a Secret's data.
    fn read(answer: &[u8]) -> Result<Self, &'static str> {
        let page: Self = serde_json::from_slice(answer).map_err(|_| "it is not a list")?;
        let PageMeta { resource_version, next } = &page.metadata;
        if resource_version.is_empty() && next.is_empty() {
            return Err("a list without resourceVersion");
        }
        if !page.items.iter().flatten().all(|item| item.metadata.is_plausible()) {
            return Err("a list with an object that has no name or version");
        }
        Ok(page)
    }
}

impl ItemMeta {
    fn is_plausible(&self) -> bool {
        let fits = |text: &str| !text.is_empty() && text.len() <= MOST_TEXT;
        fits(&self.name) && fits(&self.resource_version)
    }
}

impl Watch {
    /// A list, and what happens from then on until there is a reason to list anew.
    async fn round(&mut self) -> Ended {
        let mut version = match self.list().await {
            Ok(version) => version,
            Err(ended) => return ended,
        };
        // What came back before this list is in it.
        self.returns.mark_unchanged();
        for _ in 0..2 {
            match self.stream(&mut version).await {
                Ended::Planned => (),
                ended => return ended,
            }
        }
        Ended::Planned
    }

    /// How long the server asked to be left alone.
    fn quiet_for(&self) -> Duration {
        let quiet_for = |call| self.peer.health().quiet_for(self.kind.side(), call);
        quiet_for(&self.list).max(quiet_for(&self.watch))
    }

    /// Lists all objects; gives the version of the list.
    async fn list(&mut self) -> Result<String, Ended> {
        let mut found = Vec::new();
        let mut params = ListParams { label_selector: self.selector.clone(), ..ListParams::default() };
        for _page in 0..MOST_PAGES {
            let result = self.page(&mut params).await;
            if result.is_err() {
                self.peer.note(&self.list, &result);
            }
            let Page { metadata, items } = result.map_err(|failure| ended(&failure))?;
            let items = items.into_iter().flatten().map(|item| item.metadata);
            found.extend(items.map(|item| (Name::from(item.name), item.resource_version)));
            if metadata.next.is_empty() {
                self.peer.note(&self.list, &Ok(()));
                self.rewound(&metadata.resource_version).await?;
                let names = found.iter().map(|(name, _)| name.clone()).collect();
                self.objects = found.len();
                for (name, version) in found {
                    self.tell(Signal::Changed(name, self.kind, Change::Is(version))).await?;
                }
                // Before it is worked off: ready means that the agent knows its objects, not that all of them are in
                // order.
                self.peer.health().listed(self.kind);
                self.page_size = PAGE;
                self.tell(Signal::Listed(self.kind, names)).await?;
                return Ok(metadata.resource_version);
            }
            if found.len() > MOST_OBJECTS {
                break;
            }
            params.continue_token = Some(metadata.next);
        }
        let many = Cause::TooLarge(
            format!("a list of more than {MOST_OBJECTS} objects, or {MOST_PAGES} pages, is not read").into(),
        );
        self.peer.note(&self.list, &Err::<(), _>(many.into()));
        Err(Ended::Failed)
    }

    /// One page. One that is too large is asked for in smaller ones, from then on.
    async fn page(&mut self, params: &mut ListParams) -> Result<Page, Failure> {
        loop {
            params.limit = Some(self.page_size);
            let request = self
                .builder
                .list_metadata(params)
                .map_err(|_| Cause::Junk("a token to continue that fits no request"))?;
            let result = self.peer.ask(&self.list, request, PAGE_BYTES, Page::read).await;
            match result {
                Err(Failure::Cause(Cause::TooLarge(_))) if self.page_size > 1 => {
                    self.page_size = (self.page_size / 8).max(1);
                }
                result => return result,
            }
        }
    }

    /// Says that revisions went back, if the version of a list shows it.
    async fn rewound(&mut self, version: &str) -> Result<(), Ended> {
        let Ok(version) = version.parse::<u64>() else { return Ok(()) };
        if self.newest.is_some_and(|newest| version < newest) {
            self.newest = Some(version);
            // A server whose revisions go up and down gets no attention beyond that: lists show what differs.
            let now = Instant::now();
            // And of the two watches of the hub one says it.
            if self.kind == Kind::Secret || self.rewound.is_some_and(|rewound| now < rewound + REWOUND) {
                return Ok(());
            }
            self.rewound = Some(now);
            self.tell(Signal::Rewound(self.kind.side())).await?;
        }
        self.saw(version);
        Ok(())
    }

    fn saw(&mut self, version: u64) {
        self.newest = self.newest.max(Some(version));
    }

    async fn tell(&self, signal: Signal) -> Result<(), Ended> {
        self.signals.send(signal).await.map_err(|_| Ended::Unheard)
    }

    /// Tells what happens from `version` on, and keeps that up to date. [`Ended::Planned`] if it may be taken up there.
    async fn stream(&mut self, version: &mut String) -> Ended {
        let seconds = WATCH_SECONDS + random() % (WATCH_SECONDS / 5);
        let params = WatchParams {
            label_selector: self.selector.clone(),
            timeout: Some(seconds),
            ..WatchParams::default()
        };
        let Ok(request) = self.builder.watch_metadata(&params, version) else { return Ended::Failed };
        let body = match self.peer.open(&self.watch, request).await {
            Ok(body) => body,
            Err(failure) => return ended(&failure),
        };
        let opened = Instant::now();
        let due = opened + Duration::from_secs(seconds.into());
        let mut lines = Lines::new(body, OBJECT_BYTES);
        let mut let_in = false;
        loop {
            let line = tokio::select! {
                line = lines.next() => line,
                () = tokio::time::sleep_until(opened + LET_IN), if !let_in => {
                    let_in = true;
                    self.peer.note(&self.watch, &Ok(()));
                    continue;
                }
                () = tokio::time::sleep_until(due + OVERTIME) => return Ended::Planned,
                Ok(()) = self.returns.changed() => return Ended::Returned,
            };
            let now = Instant::now();
            let failure = match line {
                Ok(Some(line)) => match self.event(&line, version).await {
                    // Sooner it says nothing: there are servers that send a bookmark and end.
                    Ok(()) if let_in => {
                        self.peer.note(&self.watch, &Ok(()));
                        continue;
                    }
                    Ok(()) => continue,
                    Err(Stop::Ended(ended)) => return ended,
                    Err(Stop::Failure(failure)) => Some(failure),
                },
                // As long as it was asked for.
                Ok(None) if now + Duration::from_secs(5) >= due => return Ended::Planned,
                // Sooner: the server goes away, or says that it knows better. Whether it is worth a word shows the list.
                Ok(None) if now < opened + BRIEF && self.reconnect.failures >= 2 => Some(Cause::Brief.into()),
                Err(Cause::Broken(_)) if now >= opened + BRIEF => None,
                Ok(None) => None,
                Err(cause) => Some(cause.into()),
            };
            return match failure {
                Some(failure) => {
                    self.peer.note(&self.watch, &Err::<(), _>(failure));
                    Ended::Failed
                }
                None => Ended::Failed,
            };
        }
    }

    /// One event of a watch.
    async fn event(&mut self, line: &[u8], version: &mut String) -> Result<(), Stop> {
        let junk = |what| Stop::Failure(Cause::Junk(what).into());
        let event: Event<'_> =
            serde_json::from_slice(line).map_err(|_| junk("a line of a watch that is no event"))?;
        if event.type_ == "ERROR" {
            return Err(self.error(event.object.get()));
        }
        let object: Item =
            serde_json::from_str(event.object.get()).map_err(|_| junk("an event without an object"))?;
        let ItemMeta { name, uid, resource_version } = object.metadata;
        if resource_version.is_empty() || resource_version.len().max(name.len()).max(uid.len()) > MOST_TEXT {
            return Err(junk("an event without a version"));
        }
        version.clone_from(&resource_version);
        if let Ok(version) = resource_version.parse() {
            self.saw(version);
        }
        let change = match event.type_.as_str() {
            "ADDED" | "MODIFIED" => Change::At(resource_version),
            "DELETED" => Change::Deleted { uid, version: resource_version },
            // A bookmark, or what later versions may send.
            _ => return Ok(()),
        };
        if name.is_empty() {
            return Err(junk("an event of an object without name"));
        }
        if event.type_ == "ADDED" {
            self.objects += 1;
            // Of those that went meanwhile the next list knows.
            if self.objects > MOST_OBJECTS {
                let what = format!("more than {MOST_OBJECTS} objects are not looked at");
                return Err(Stop::Failure(Cause::TooLarge(what.into()).into()));
            }
        }
        self.tell(Signal::Changed(name.into(), self.kind, change)).await.map_err(Stop::Ended)
    }

    /// What an event says that is an error.
    fn error(&self, status: &str) -> Stop {
        let Ok(status) = serde_json::from_str::<Status>(status) else {
            return Stop::Failure(Cause::Junk("an error that is no Status").into());
        };
        if is_expired(&status) {
            return Stop::Ended(Ended::Expired);
        }
        let wait = status.details.as_ref().map_or(0, |details| details.retry_after_seconds);
        let wait = (wait > 0).then(|| Duration::from_secs(wait.into()));
        match Cause::of_status(&self.watch, &status, wait) {
            Some(cause) => Stop::Failure(cause.into()),
            None => Stop::Failure(Failure::Status(Box::new(status))),
        }
    }
}

/// Why reading a watch stops.
enum Stop {
    Ended(Ended),
    Failure(Failure),
}

fn ended(failure: &Failure) -> Ended {
    match failure {
        Failure::Status(status) if is_expired(status) => Ended::Expired,
        _ => Ended::Failed,
    }
}

/// A watch that went on for so long was well: the next failure is a first one again. That it was taken up says little, since a
/// server that is overloaded lets many in before it fails them.
const STEADY: Duration = Duration::from_secs(60);

/// How long to wait after a failure that `earlier` ones came before: anything between nothing and the longest wait. All agents
/// of a fleet lose their hub in the same moment; less jitter would bring them back together, again and again. `random` is any
/// number.
fn reconnect_wait(earlier: u32, random: u32) -> Duration {
    WAITS.delay(earlier).saturating_mul(random) / u32::MAX
}

/// A random number. Without randomness the greatest, that is the longest wait.
fn random() -> u32 {
    getrandom::u32().unwrap_or(u32::MAX)
}

/// How often it failed, and so how long to wait.
#[derive(Debug, Default)]
struct Reconnect {
    failures: u32,
    /// When the last wait is over.
    waited: Option<Instant>,
}

impl Reconnect {
    /// The wait after a failure at `now`. Only time shows that a watch is well: see [`STEADY`].
    fn after_failure(&mut self, now: Instant, random: u32) -> Duration {
        if self.waited.is_some_and(|waited| now >= waited + STEADY) {
            self.failures = 0;
        }
        let wait = reconnect_wait(self.failures, random);
        self.failures = self.failures.saturating_add(1);
        self.waited = Some(now + wait);
        wait
    }

    /// The wait after a revision turned out to be none to begin from: none at first, but a server that says so of each is
    /// one that fails.
    fn after_expiry(&mut self, now: Instant, random: u32) -> Duration {
        let wait = self.after_failure(now, random);
        if self.failures > 1 {
            return wait;
        }
        self.waited = Some(now);
        Duration::ZERO
    }
}

#[cfg(test)]
mod tests;
