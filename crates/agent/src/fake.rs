//! Two API servers that fit on a page, for the tests of the shell: objects in a map, answers as kube-apiserver's.

use crate::{side::call::Call, token::forge};
use bytes::Bytes;
use fleetpass_api::clock::Clock;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use jiff::Timestamp;
use kube::{Client, client::Body};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
};

type Answer = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// What a server does instead of answering.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// It answers with this code, headers and body.
    Answer(u16, Vec<(&'static str, &'static str)>, Value),
    /// It answers with this code and text.
    Text(u16, &'static str),
    /// It sends and sends.
    Endless,
    /// It breaks off in the middle of an answer.
    Cut,
    /// It says nothing.
    Silence,
}

/// What is logged, one line each.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Logs what this thread does from now on.
    pub(crate) fn begin() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_ansi(false)
            .with_max_level(tracing::Level::INFO)
            .finish();
        (log, tracing::subscriber::set_default(subscriber))
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap().lines().map(str::to_owned).collect()
    }
}

/// A clock that stands still until it is set.
pub(crate) struct FakeClock(pub(crate) AtomicI64);

impl Clock for FakeClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.0.load(Ordering::SeqCst)).unwrap()
    }
}

#[derive(Default)]
pub(crate) struct State {
    /// By URL path.
    pub(crate) objects: BTreeMap<String, Value>,
    /// Every request that is no read: method and path.
    pub(crate) writes: Vec<String>,
    pub(crate) reads: usize,
    /// Answers 503 to everything.
    pub(crate) away: bool,
    /// Answers 403 to requests whose method and path begin with one of these.
    pub(crate) forbidden: Vec<&'static str>,
    /// Keeps no annotations, as under a policy that takes out those that it does not know.
    pub(crate) strips_annotations: bool,
    /// What it does instead, when it is asked to do this (`get secrets`); and how often it was.
    pub(crate) fault: Option<(&'static str, Fault)>,
    pub(crate) faults: usize,
    pub(crate) version: u64,
}

/// A server; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Server {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) now: Option<Arc<FakeClock>>,
}

impl Server {
    pub(crate) fn client(&self) -> Client {
        let server = self.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let server = server.clone();
            async move {
                let (parts, body) = request.into_parts();
                let bytes = body.collect().await.unwrap().to_bytes();
                let query = parts.uri.query().unwrap_or_default().to_owned();
                match server.fault(&parts.method, parts.uri.path(), &query) {
                    Some(Fault::Silence) => std::future::pending().await,
                    Some(fault) => Ok::<_, Infallible>(fault.answer()),
                    None => Ok(server.answer(&parts.method, parts.uri.path(), &query, &bytes)),
                }
            }
        });
        Client::new(service, "default")
    }

    pub(crate) fn put(&self, path: &str, object: Value) {
        let mut state = self.state.lock().unwrap();
        state.store(path, object);
    }

    pub(crate) fn get(&self, path: &str) -> Option<Value> {
        self.state.lock().unwrap().objects.get(path).cloned()
    }

    pub(crate) fn take_writes(&self) -> Vec<String> {
        std::mem::take(&mut self.state.lock().unwrap().writes)
    }

    fn fault(&self, method: &Method, path: &str, query: &str) -> Option<Fault> {
        let call = Call::of(method, path, Some(query));
        let resource = call.resource.split('.').next().unwrap_or_default();
        let subresource = call.resource.split_once('/').map(|(_, subresource)| format!("/{subresource}"));
        let name = format!("{} {resource}{}", call.verb, subresource.unwrap_or_default());
        let mut state = self.state.lock().unwrap();
        let (of, fault) = state.fault.clone()?;
        if of != name && of != format!("{} {}", call.verb, call.resource) {
            return None;
        }
        state.faults += 1;
        Some(fault)
    }

    fn answer(&self, method: &Method, path: &str, query: &str, body: &[u8]) -> Response<Answer> {
        let mut state = self.state.lock().unwrap();
        if state.away {
            return status(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable", "");
        }
        let request = format!("{method} {path}");
        if state.forbidden.iter().any(|forbidden| request.starts_with(forbidden)) {
            return status(StatusCode::FORBIDDEN, "Forbidden", "");
        }
        if query.contains("watch=") {
            // Open, and silent for ever.
            let silence = futures::stream::pending::<Result<http_body::Frame<Bytes>, io::Error>>();
            return Response::new(http_body_util::StreamBody::new(silence).boxed_unsync());
        }
        let name = path.rsplit('/').next().unwrap_or_default().to_owned();
        let sent = serde_json::from_slice::<Value>(body).unwrap_or_default();
        if method == Method::GET {
            state.reads += 1;
            if let Some(object) = state.objects.get(path) {
                return ok(object);
            }
            let named = !["secrets", "serviceaccounts", "managedserviceaccounts"].contains(&name.as_str());
            if named {
                return status(StatusCode::NOT_FOUND, "NotFound", &name);
            }
            let prefix = format!("{path}/");
            let items: Vec<_> = state
                .objects
                .iter()
                .filter(|(at, _)| at.starts_with(&prefix))
                .map(|(_, o)| o.clone())
                .collect();
            return ok(&json!({"metadata": {"resourceVersion": state.version.to_string()}, "items": items}));
        }
        state.writes.push(request);
        match (method, path) {
            (&Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews") => {
                ok(&json!({"spec": {}, "status": self.review(&state, &sent)}))
            }
            (&Method::POST, path) if path.ends_with("/token") => self.issue(&state, path, &sent),
            (&Method::POST, path) => {
                let name = sent["metadata"]["name"].as_str().unwrap().to_owned();
                let path = format!("{path}/{name}");
                if state.objects.contains_key(&path) {
                    return status(StatusCode::CONFLICT, "AlreadyExists", &name);
                }
                ok(&state.store(&path, sent))
            }
            (&Method::PUT, path) => {
                let Some(present) = state.objects.get(path) else {
                    return status(StatusCode::NOT_FOUND, "NotFound", &name);
                };
                if present["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] {
                    return status(StatusCode::CONFLICT, "Conflict", &name);
                }
                ok(&state.store(path, sent))
            }
            (&Method::PATCH, path) => {
                let path = path.trim_end_matches("/status");
                let Some(mut present) = state.objects.get(path).cloned() else {
                    return status(StatusCode::NOT_FOUND, "NotFound", &name);
                };
                if present["metadata"]["resourceVersion"] != sent["metadata"]["resourceVersion"] {
                    return status(StatusCode::CONFLICT, "Conflict", &name);
                }
                if sent["status"].is_object() {
                    present["status"] = sent["status"].clone();
                }
                for (key, value) in sent["metadata"]["annotations"].as_object().into_iter().flatten() {
                    present["metadata"]["annotations"][key] = value.clone();
                }
                ok(&state.store(path, present))
            }
            (_, path) => match state.objects.remove(path) {
                Some(object) => ok(&object),
                None => status(StatusCode::NOT_FOUND, "NotFound", &name),
            },
        }
    }

    fn issue(&self, state: &State, path: &str, sent: &Value) -> Response<Answer> {
        let account = path.trim_end_matches("/token");
        let (Some(object), Some(clock)) = (state.objects.get(account), &self.now) else {
            return status(StatusCode::NOT_FOUND, "NotFound", account.rsplit('/').next().unwrap());
        };
        let metadata = &object["metadata"];
        let subject = format!(
            "system:serviceaccount:{}:{}",
            metadata["namespace"].as_str().unwrap(),
            metadata["name"].as_str().unwrap()
        );
        let now = clock.now().as_second();
        let seconds = sent["spec"]["expirationSeconds"].as_i64().unwrap();
        let id = state.writes.len() as u64;
        let token = forge(&subject, metadata["uid"].as_str().unwrap(), now, now + seconds, id);
        ok(&json!({"spec": sent["spec"], "status": {"token": token, "expirationTimestamp": null}}))
    }

    fn review(&self, state: &State, sent: &Value) -> Value {
        let token = crate::token::Token::new(sent["spec"]["token"].as_str().unwrap().to_owned());
        let claims = token.claims().filter(|claims| {
            state.objects.values().any(|object| object["metadata"]["uid"] == claims.account_uid.as_str())
        });
        match claims {
            Some(claims) => json!({"authenticated": true, "user": {"username": claims.subject}}),
            None => json!({"error": "unknown", "user": {}}),
        }
    }
}

impl State {
    fn store(&mut self, path: &str, mut object: Value) -> Value {
        if self.strips_annotations
            && let Some(metadata) = object["metadata"].as_object_mut()
        {
            metadata.remove("annotations");
        }
        self.version += 1;
        object["metadata"]["resourceVersion"] = self.version.to_string().into();
        if object["metadata"]["uid"].is_null() {
            object["metadata"]["uid"] = format!("uid-{}", self.version).into();
        }
        self.objects.insert(path.to_owned(), object.clone());
        object
    }
}

fn ok(object: &Value) -> Response<Answer> {
    whole(object.to_string().into())
}

fn whole(body: Bytes) -> Response<Answer> {
    Response::new(http_body_util::Full::new(body).map_err(|never| match never {}).boxed_unsync())
}

impl Fault {
    fn answer(self) -> Response<Answer> {
        use futures::stream;
        let frame = |bytes: &'static [u8]| http_body::Frame::data(Bytes::from_static(bytes));
        let of = |body: stream::BoxStream<'static, io::Result<http_body::Frame<Bytes>>>| {
            Response::new(http_body_util::StreamBody::new(body).boxed_unsync())
        };
        match self {
            Self::Answer(code, headers, body) => {
                let mut response = ok(&body);
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                for (name, value) in headers {
                    response.headers_mut().insert(name, value.parse().unwrap());
                }
                response
            }
            Self::Text(code, text) => {
                let mut response = whole(text.into());
                *response.status_mut() = StatusCode::from_u16(code).unwrap();
                response
            }
            Self::Endless => of(Box::pin(stream::repeat_with(move || Ok(frame(&[b'a'; 65536]))))),
            Self::Cut => {
                let broken = Err(io::Error::from(io::ErrorKind::ConnectionReset));
                of(Box::pin(stream::iter([Ok(frame(b"{\"type\":")), broken])))
            }
            Self::Silence => of(Box::pin(stream::pending())),
        }
    }
}

fn status(code: StatusCode, reason: &str, name: &str) -> Response<Answer> {
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code.as_u16(),
        "reason": reason, "message": format!("{name}: {reason}"), "details": {"name": name},
    });
    let mut response = ok(&body);
    *response.status_mut() = code;
    response
}
