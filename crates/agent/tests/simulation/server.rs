//! A simulated API server and the ways to it: time, weather and watches around the answers of [`crate::api`].

use crate::{
    api::{Answer, Call, Form, Future, SECRETS, State, Watch, failure},
    random::Random,
    store::Event,
    weather::{Death, Reaper, Sky, Weather},
};
use bytes::Bytes;
use fleetpass_api::clock::Clock;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt as _, combinators::UnsyncBoxBody};
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::{
    io::{Error, ErrorKind},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The time of all simulations' beginning, in seconds since 1970.
pub(crate) const START: i64 = 1_800_000_000;

/// The true time: what has passed of the simulation.
#[derive(Clone, Copy)]
pub(crate) struct Time(Instant);

impl Time {
    pub(crate) fn begin() -> Self {
        Self(Instant::now())
    }

    pub(crate) fn now(self) -> Duration {
        self.0.elapsed()
    }

    pub(crate) fn unix(self) -> i64 {
        START + self.now().as_secs() as i64
    }

    pub(crate) async fn until(self, moment: Duration) {
        tokio::time::sleep_until(self.0 + moment).await;
    }
}

/// The clock of a machine, which may be wrong.
pub(crate) struct MachineClock {
    time: Time,
    pub(crate) ahead_seconds: AtomicI64,
}

impl MachineClock {
    pub(crate) fn new(time: Time) -> Self {
        Self { time, ahead_seconds: AtomicI64::new(0) }
    }
}

impl Clock for MachineClock {
    fn now(&self) -> Timestamp {
        let millis = self.time.now().as_millis() as i64 + self.ahead_seconds.load(Ordering::Relaxed) * 1_000;
        Timestamp::from_millisecond(START * 1_000 + millis).unwrap()
    }
}

/// Is told of what matters to the checks, before or when it happens.
pub(crate) trait Observer: Send + Sync {
    /// A Secret of the hub is about to change, perhaps.
    fn before_secret(&self, namespace: &str, name: &str);
    /// A cluster issued a token.
    fn token_issued(&self, cluster: &str, name: &str);
}

pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) time: Time,
    pub(crate) state: Mutex<State>,
    /// The weather of the server itself: for all who ask it.
    pub(crate) sky: Sky,
    random: Mutex<Random>,
    pub(crate) observer: OnceLock<Arc<dyn Observer>>,
}

impl Server {
    pub(crate) fn new(name: &str, time: Time, longest_token: i64, random: &mut Random) -> Arc<Self> {
        let future = *random.pick(&[Future::Silence, Future::Gone]);
        let page = random.between(2, 9) as usize;
        let state = State::new(random.next(), longest_token, future, page);
        Arc::new(Self {
            name: name.to_owned(),
            time,
            state: Mutex::new(state),
            sky: Sky::default(),
            random: Mutex::new(random.fork()),
            observer: OnceLock::new(),
        })
    }

    fn serve(&self, call: &Call) -> Answer {
        let observer = self.observer.get();
        // Outside the lock: the observer looks at the state as it is.
        if let Some(observer) = observer
            && call.method != http::Method::GET
            && let Some((namespace, name)) = written(call, SECRETS)
        {
            observer.before_secret(&namespace, &name);
        }
        let answer = self.state.lock().unwrap().answer(call, self.time.now(), START);
        if let (Some(observer), Answer::Json(201, _)) = (observer, &answer)
            && let Some(name) = call.path.strip_suffix("/token").and_then(|path| path.rsplit('/').next())
        {
            observer.token_issued(&self.name, name);
        }
        answer
    }

    fn millis(&self, low: u64, high: u64) -> Duration {
        Duration::from_millis(self.random.lock().unwrap().between(low, high))
    }

    fn permille(&self, of_thousand: u64) -> bool {
        self.random.lock().unwrap().permille(of_thousand)
    }
}

/// Namespace and name of the object of this resource to which the call goes.
fn written(call: &Call, plural: &str) -> Option<(String, String)> {
    let (_, rest) = call.path.split_once("/namespaces/")?;
    let mut parts = rest.split('/');
    let (namespace, resource) = (parts.next()?, parts.next()?);
    let name = parts.next().or(call.body["metadata"]["name"].as_str())?;
    (resource == plural).then(|| (namespace.to_owned(), name.to_owned()))
}

/// The way from one agent's machine to one server.
pub(crate) struct Link {
    pub(crate) server: Arc<Server>,
    pub(crate) sky: Sky,
    pub(crate) reaper: Arc<Reaper>,
    /// Cancelled and replaced: all connections that are open break.
    cut: Mutex<CancellationToken>,
    /// Watches that were opened before the last change of this are mute: their connection is dead, and nobody noticed.
    mute: AtomicU64,
    /// Whether to print all that goes over it.
    trace: bool,
}

/// Prints what happens, for whoever looks for the cause of a violation.
#[allow(clippy::print_stderr)]
fn trace(time: Time, place: &str, what: std::fmt::Arguments<'_>) {
    eprintln!("{:>10.3} s {place}: {what}", time.now().as_secs_f64());
}

/// After what time without a byte a client gives a connection up: the read timeout of kube's `Config`.
const READ_TIMEOUT: Duration = Duration::from_secs(295);
/// And after what time it gives up connecting.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);

type Reply = Response<UnsyncBoxBody<Bytes, Error>>;

impl Link {
    pub(crate) fn new(cluster: &str, server: Arc<Server>, reaper: Arc<Reaper>) -> Arc<Self> {
        Arc::new(Self {
            trace: std::env::var("SIMULATION_TRACE").is_ok_and(|traced| traced == cluster),
            server,
            sky: Sky::default(),
            reaper,
            cut: Mutex::default(),
            mute: AtomicU64::new(0),
        })
    }

    /// A client on this way, as a new process makes one.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let link = self.clone();
        let service = tower::service_fn(move |request| {
            let link = link.clone();
            async move { link.carry(request).await }
        });
        Client::new(service, "default")
    }

    pub(crate) fn cut(&self) {
        std::mem::take(&mut *self.cut.lock().unwrap()).cancel();
    }

    pub(crate) fn mute(&self) {
        self.mute.fetch_add(1, Ordering::Relaxed);
    }

    fn weather(&self) -> Option<Weather> {
        self.sky.now().or_else(|| self.server.sky.now())
    }

    /// Carries a request there and the answer back, as far as the weather allows.
    async fn carry(self: Arc<Self>, request: Request<Body>) -> Result<Reply, Error> {
        let call = read(request).await;
        let asked =
            self.trace.then(|| format!("{} {} {:?} {}", call.method, call.path, call.query, call.body));
        let result = self.exchange(call).await;
        if let Some(asked) = asked {
            let answered = result.as_ref().map(Reply::status);
            trace(self.server.time, &self.server.name, format_args!("{asked}: {answered:?}"));
        }
        result
    }

    async fn exchange(self: &Arc<Self>, call: Call) -> Result<Reply, Error> {
        let death = self.reaper.request();
        if death == Some(Death::BeforeRequest) {
            self.die().await;
        }
        let server = &self.server;
        let latency = server.millis(1, 15);
        tokio::time::sleep(latency).await;
        let mut lost = false;
        match self.weather() {
            None => {}
            Some(Weather::Refused) => return Err(ErrorKind::ConnectionRefused.into()),
            Some(Weather::Certificate) => {
                return Err(Error::new(ErrorKind::InvalidData, "invalid peer certificate: UnknownIssuer"));
            }
            Some(Weather::Silent) => {
                // A new connection, or one from the pool.
                let new = server.permille(500);
                tokio::time::sleep(if new { CONNECT_TIMEOUT } else { READ_TIMEOUT }).await;
                return Err(ErrorKind::TimedOut.into());
            }
            Some(Weather::Error(code)) => {
                return Ok(refuse(
                    code,
                    "InternalError",
                    "the server is currently unable to handle the request",
                ));
            }
            Some(Weather::TooMany { retry_after }) => {
                let mut reply = refuse(429, "TooManyRequests", "too many requests, please try again later");
                reply.headers_mut().insert("retry-after", retry_after.into());
                return Ok(reply);
            }
            Some(Weather::Denied(401)) => return Ok(refuse(401, "Unauthorized", "Unauthorized")),
            Some(Weather::Denied(code)) => {
                return Ok(refuse(code, "Forbidden", "the user has no right to do this"));
            }
            Some(Weather::Lossy(of_thousand)) => lost = server.permille(of_thousand),
            Some(Weather::Slow(longest)) => {
                tokio::time::sleep(server.millis(0, longest.as_millis() as u64)).await
            }
        }
        let answer = server.serve(&call);
        if death == Some(Death::AfterRequest) {
            self.die().await;
        }
        if lost {
            if server.permille(300) {
                tokio::time::sleep(READ_TIMEOUT).await;
            }
            return Err(ErrorKind::ConnectionReset.into());
        }
        tokio::time::sleep(latency).await;
        Ok(match answer {
            Answer::Json(code, body) => reply(code, &body),
            Answer::Refused(status) => reply(200, &json!({"type": "ERROR", "object": status})),
            Answer::Watch(watch) => Response::new(self.stream(watch)),
        })
    }

    /// The agent dies here: it never sees an answer.
    async fn die(&self) {
        self.reaper.strikes.notify_one();
        std::future::pending().await
    }

    /// The events of a watch, as a body that goes on.
    fn stream(self: &Arc<Self>, watch: Watch) -> UnsyncBoxBody<Bytes, Error> {
        let timeout = watch.timeout.unwrap_or(Duration::from_secs(1_800));
        let flow = Flow {
            cut: self.cut.lock().unwrap().clone(),
            opened: self.mute.load(Ordering::Relaxed),
            end: Instant::now() + timeout,
            link: self.clone(),
            bookmark: Instant::now() + BOOKMARK,
            last: Instant::now(),
            backlog: watch.past.clone(),
            watch,
        };
        let frames = futures::stream::unfold(Some(flow), |flow| async {
            let mut flow = flow?;
            match flow.next().await? {
                Ok(line) => Some((Ok(Frame::data(line)), Some(flow))),
                Err(error) => Some((Err(error), None)),
            }
        });
        http_body_util::StreamBody::new(frames).boxed_unsync()
    }
}

/// How often a watch is told how far it has come (k8s.io/apiserver, `pkg/storage/cacher`: about every minute).
const BOOKMARK: Duration = Duration::from_secs(60);

/// A watch that is open.
struct Flow {
    link: Arc<Link>,
    watch: Watch,
    backlog: Vec<Arc<Event>>,
    cut: CancellationToken,
    opened: u64,
    end: Instant,
    bookmark: Instant,
    /// When the client heard something last.
    last: Instant,
}

impl Flow {
    /// The next line; `None` at the watch's regular end.
    async fn next(&mut self) -> Option<Result<Bytes, Error>> {
        let cut = self.cut.clone();
        let line = tokio::select! {
            biased;
            () = cut.cancelled() => return Some(Err(ErrorKind::ConnectionReset.into())),
            line = self.say() => line?,
        };
        if !self.passes().await {
            tokio::time::sleep_until(self.last + READ_TIMEOUT).await;
            return Some(Err(ErrorKind::TimedOut.into()));
        }
        self.last = Instant::now();
        Some(Ok(line))
    }

    /// What the server says next; `None` when it ends the watch.
    async fn say(&mut self) -> Option<Bytes> {
        loop {
            let Watch { to_come, present, selector, form, after, bookmarks, .. } = &mut self.watch;
            if let Some(object) = present.pop() {
                return Some(line(&json!({"type": "ADDED", "object": form.show(&object)})));
            }
            if !self.backlog.is_empty() {
                let event = self.backlog.remove(0);
                match show(&event, selector, *form) {
                    Some(shown) => return Some(shown),
                    None => continue,
                }
            }
            tokio::select! {
                biased;
                event = to_come.recv() => {
                    // None: the server was started anew.
                    let event = event?;
                    if event.revision > *after && let Some(shown) = show(&event, selector, *form) {
                        return Some(shown);
                    }
                }
                () = tokio::time::sleep_until(self.end) => return None,
                () = tokio::time::sleep_until(self.bookmark), if *bookmarks => {
                    self.bookmark = Instant::now() + BOOKMARK;
                    // A server that has not come as far as the watch says nothing.
                    let revision = self.link.server.state.lock().unwrap().store.revision();
                    if revision > *after {
                        return Some(line(&form.bookmark(revision)));
                    }
                }
            }
        }
    }

    /// Waits while nothing comes through; false if the connection died meanwhile.
    async fn passes(&self) -> bool {
        let silent = || match self.link.weather() {
            Some(Weather::Silent) => true,
            _ => self.link.mute.load(Ordering::Relaxed) != self.opened,
        };
        while silent() {
            if self.last.elapsed() >= READ_TIMEOUT || self.link.mute.load(Ordering::Relaxed) != self.opened {
                return false;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        !self.cut.is_cancelled()
    }
}

/// An event for a watch that selects: an object that begins to match is added, one that ends to do so deleted.
fn show(event: &Event, selector: &crate::api::Selector, form: Form) -> Option<Bytes> {
    let matched =
        |object: &Option<Arc<Value>>| object.as_ref().is_some_and(|object| selector.matches(object));
    let kind = match (matched(&event.before), matched(&event.after)) {
        (false, true) => "ADDED",
        (true, true) => "MODIFIED",
        (true, false) => "DELETED",
        (false, false) => return None,
    };
    Some(line(&json!({"type": kind, "object": form.show(&event.object)})))
}

fn line(event: &Value) -> Bytes {
    Bytes::from(format!("{event}\n"))
}

async fn read(request: Request<Body>) -> Call {
    let (parts, body) = request.into_parts();
    let bytes = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let header =
        |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let query = parts.uri.query().unwrap_or_default().split('&').filter_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        Some((key.to_owned(), unescape(value)))
    });
    Call {
        path: parts.uri.path().to_owned(),
        query: query.collect(),
        content_type: header("content-type").to_owned(),
        accept: header("accept").to_owned(),
        body: serde_json::from_slice(&bytes).unwrap_or_default(),
        method: parts.method,
    }
}

/// Undoes the escapes of a query.
fn unescape(text: &str) -> String {
    let mut parts = text.split('%');
    let mut plain = parts.next().unwrap_or_default().replace('+', " ");
    for part in parts {
        let (code, rest) = part.split_at(part.len().min(2));
        plain.push(u8::from_str_radix(code, 16).map_or('?', char::from));
        plain.push_str(&rest.replace('+', " "));
    }
    plain
}

fn reply(code: u16, body: &Value) -> Reply {
    let body = http_body_util::Full::new(Bytes::from(body.to_string())).map_err(|never| match never {});
    Response::builder()
        .status(code)
        .header("content-type", "application/json")
        .body(body.boxed_unsync())
        .unwrap()
}

fn refuse(code: u16, reason: &str, message: &str) -> Reply {
    reply(code, &failure(code, reason, message, None))
}
