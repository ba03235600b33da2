//! What a simulated API server answers, without network and clock: as kube-apiserver does, for the kinds that an agent
//! meets. What it does not serve is a 404, 405 or 415, as there.

use crate::{
    store::{Event, Key, Store},
    token::{self, AUDIENCE, Claims},
};
use serde_json::{Value, json};
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::sync::mpsc;

/// A resource that is served.
struct Resource {
    group: &'static str,
    version: &'static str,
    plural: &'static str,
    kind: &'static str,
    namespaced: bool,
    /// Whether its status is a subresource.
    status: bool,
}

const fn core(plural: &'static str, kind: &'static str, namespaced: bool) -> Resource {
    Resource { group: "", version: "v1", plural, kind, namespaced, status: false }
}

pub(crate) const ACCOUNTS: &str = "managedserviceaccounts";
pub(crate) const SECRETS: &str = "secrets";
pub(crate) const SERVICE_ACCOUNTS: &str = "serviceaccounts";
pub(crate) const NAMESPACES: &str = "namespaces";
pub(crate) const CONFIG_MAPS: &str = "configmaps";
pub(crate) const EVENTS: &str = "events";

static RESOURCES: [Resource; 8] = [
    core(NAMESPACES, "Namespace", false),
    core(SECRETS, "Secret", true),
    core(SERVICE_ACCOUNTS, "ServiceAccount", true),
    core(CONFIG_MAPS, "ConfigMap", true),
    core(EVENTS, "Event", true),
    Resource { group: "events.k8s.io", ..core(EVENTS, "Event", true) },
    Resource { group: "coordination.k8s.io", ..core("leases", "Lease", true) },
    Resource {
        group: "authentication.open-cluster-management.io",
        version: "v1beta1",
        status: true,
        ..core(ACCOUNTS, "ManagedServiceAccount", true)
    },
];

/// A request, read.
pub(crate) struct Call {
    pub(crate) method: http::Method,
    pub(crate) path: String,
    pub(crate) query: HashMap<String, String>,
    pub(crate) content_type: String,
    pub(crate) accept: String,
    pub(crate) body: Value,
}

/// What comes of a request.
pub(crate) enum Answer {
    Json(u16, Value),
    Watch(Watch),
    /// A watch that is let in, only to be told that what it wants is gone.
    Refused(Value),
}

/// A watch that was let in.
pub(crate) struct Watch {
    pub(crate) past: Vec<Arc<Event>>,
    pub(crate) to_come: mpsc::UnboundedReceiver<Arc<Event>>,
    /// Objects that were there at the beginning, if it was asked to begin with them.
    pub(crate) present: Vec<Arc<Value>>,
    /// Only events after this revision.
    pub(crate) after: u64,
    pub(crate) selector: Selector,
    pub(crate) form: Form,
    pub(crate) bookmarks: bool,
    pub(crate) timeout: Option<Duration>,
}

/// What a server says to a watch from a revision that it has not reached yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Future {
    /// Nothing, until it gets there: kube-apiserver.
    Silence,
    /// That it is gone: a Fleetpass hub.
    Gone,
}

/// Labels that an object must have, and the name.
#[derive(Default)]
pub(crate) struct Selector {
    labels: Vec<(String, Option<String>)>,
    name: Option<String>,
}

impl Selector {
    fn of(call: &Call) -> Self {
        let text = call.query.get("labelSelector").map(String::as_str).unwrap_or_default();
        let labels = text.split(',').filter(|part| !part.is_empty()).map(|part| match part.split_once('=') {
            Some((label, value)) => (label.to_owned(), Some(value.trim_start_matches('=').to_owned())),
            None => (part.to_owned(), None),
        });
        let field = call.query.get("fieldSelector").and_then(|field| field.strip_prefix("metadata.name="));
        Self { labels: labels.collect(), name: field.map(str::to_owned) }
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        let metadata = &object["metadata"];
        let labelled = |(label, value): &(String, Option<String>)| {
            let found = metadata["labels"][label].as_str();
            found.is_some() && (value.is_none() || value.as_deref() == found)
        };
        self.labels.iter().all(labelled) && self.name.as_deref().is_none_or(|name| metadata["name"] == name)
    }
}

/// Whether whole objects are asked for, or their metadata.
#[derive(Clone, Copy)]
pub(crate) struct Form {
    metadata_only: bool,
    api_version: (&'static str, &'static str),
    kind: &'static str,
}

impl Form {
    fn of(call: &Call, resource: &Resource) -> Self {
        let metadata_only = call.accept.contains("as=PartialObjectMetadata");
        Self { metadata_only, api_version: (resource.group, resource.version), kind: resource.kind }
    }

    pub(crate) fn show(self, object: &Value) -> Value {
        let mut shown = match self.metadata_only {
            true => json!({"metadata": object["metadata"]}),
            false => object.clone(),
        };
        shown["kind"] = json!(if self.metadata_only { "PartialObjectMetadata" } else { self.kind });
        shown["apiVersion"] = json!(self.version());
        shown
    }

    fn version(self) -> String {
        match self.api_version {
            _ if self.metadata_only => "meta.k8s.io/v1".to_owned(),
            ("", version) => version.to_owned(),
            (group, version) => format!("{group}/{version}"),
        }
    }

    fn list(self, items: Vec<Value>, revision: u64, next: Option<String>) -> Value {
        let kind = if self.metadata_only { "PartialObjectMetadata" } else { self.kind };
        let mut metadata = json!({"resourceVersion": revision.to_string()});
        // Absent at the end, never null.
        if let Some(next) = next {
            metadata["continue"] = json!(next);
        }
        json!({
            "kind": format!("{kind}List"), "apiVersion": self.version(), "metadata": metadata, "items": items,
        })
    }

    pub(crate) fn bookmark(self, revision: u64) -> Value {
        let object =
            json!({"metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null}});
        json!({"type": "BOOKMARK", "object": self.show(&object)})
    }
}

/// Where a request goes.
struct Route {
    resource: &'static Resource,
    namespace: String,
    name: Option<String>,
    subresource: Option<String>,
}

impl Route {
    fn of(path: &str) -> Option<Self> {
        let mut parts = path.trim_matches('/').split('/').peekable();
        let group = match parts.next()? {
            "api" => "",
            "apis" => parts.next()?,
            _ => return None,
        };
        let version = parts.next()?;
        let mut first = parts.next()?;
        let mut namespace = String::new();
        let mut name = parts.next();
        // `/api/v1/namespaces/x` is the namespace itself; with more behind it, a place.
        if first == NAMESPACES && parts.peek().is_some() && parts.peek() != Some(&"status") {
            namespace = name?.to_owned();
            first = parts.next()?;
            name = parts.next();
        }
        let resource = RESOURCES.iter().find(|resource| {
            resource.group == group && resource.version == version && resource.plural == first
        })?;
        if !resource.namespaced && !namespace.is_empty() {
            return None;
        }
        let subresource = parts.next().map(str::to_owned);
        Some(Self { resource, namespace, name: name.map(str::to_owned), subresource })
    }

    fn key(&self, name: &str) -> Key {
        Key::new(self.resource.plural, &self.namespace, name)
    }
}

/// The rest of a list that was begun: at one revision, as in a real server.
struct Rest {
    revision: u64,
    items: Vec<Arc<Value>>,
    until: Duration,
}

/// A server's state.
pub(crate) struct State {
    pub(crate) store: Store,
    /// Seals the tokens.
    pub(crate) key: u64,
    /// Tokens live no longer than this.
    pub(crate) longest_token: i64,
    pub(crate) future: Future,
    /// The longest page of a list. A server may give less than was asked for.
    pub(crate) page: usize,
    /// Whether a watch that comes too late is told so by an event, as kube-apiserver's cache does, or by the code of the
    /// answer.
    pub(crate) gone_by_event: bool,
    /// Says in every token that it is another; never the same twice, also after a backup was put back.
    issued: u64,
    rests: HashMap<String, Rest>,
}

impl State {
    pub(crate) fn new(key: u64, longest_token: i64, future: Future, page: usize) -> Self {
        Self {
            store: Store::new(),
            key,
            longest_token,
            future,
            page,
            gone_by_event: page.is_multiple_of(2),
            issued: 0,
            rests: HashMap::new(),
        }
    }

    /// What comes of a request at `now`, by this server's clock; `start` is the time of the simulation's beginning.
    pub(crate) fn answer(&mut self, call: &Call, now: Duration, start: i64) -> Answer {
        let moment = Moment { now, unix: start + now.as_secs() as i64 };
        match (call.method.as_str(), call.path.as_str()) {
            ("GET", "/version") => return Answer::Json(200, version()),
            ("POST", "/apis/authentication.k8s.io/v1/tokenreviews") => {
                return Answer::Json(201, self.review(&call.body, moment.unix));
            }
            _ => {}
        }
        let Some(route) = Route::of(&call.path) else {
            // Without a kind there are no details: the path is unknown, not the object.
            return Answer::Json(
                404,
                failure(404, "NotFound", "the server could not find the requested resource", None),
            );
        };
        let form = Form::of(call, route.resource);
        let result = match (call.method.as_str(), &route.name, route.subresource.as_deref()) {
            ("GET", None, None)
                if call.query.get("watch").is_some_and(|watch| watch == "1" || watch == "true") =>
            {
                match self.watch(call, &route, form) {
                    Ok(watch) => return Answer::Watch(watch),
                    Err((410, status)) if self.gone_by_event => return Answer::Refused(status),
                    Err(error) => Err(error),
                }
            }
            ("GET", None, None) => self.list(call, &route, form, moment),
            ("GET", Some(name), None) => self.get(&route, name, form),
            ("POST", None, None) => self.create(&route, &call.body, form, moment),
            ("POST", Some(name), Some("token")) if route.resource.plural == SERVICE_ACCOUNTS => {
                self.request_token(&route, name, &call.body, moment)
            }
            ("PUT", Some(name), None) => self.replace(&route, name, call.body.clone(), false, form, moment),
            ("PATCH", Some(name), sub)
                if sub.is_none() || (sub == Some("status") && route.resource.status) =>
            {
                self.patch(call, &route, name, form, moment)
            }
            ("PUT", Some(name), Some("status")) if route.resource.status => {
                self.replace(&route, name, call.body.clone(), true, form, moment)
            }
            ("DELETE", Some(name), None) => self.delete(&route, name, &call.body, form, moment),
            _ => Err((405, failure(405, "MethodNotAllowed", "the server does not allow this method", None))),
        };
        let (Ok((code, body)) | Err((code, body))) = result;
        Answer::Json(code, body)
    }

    fn get(&self, route: &Route, name: &str, form: Form) -> Result<(u16, Value), Refusal> {
        Ok((200, form.show(self.present(route, name)?)))
    }

    fn present(&self, route: &Route, name: &str) -> Result<&Arc<Value>, Refusal> {
        self.store.get(&route.key(name)).ok_or_else(|| not_found(route.resource.plural, name))
    }

    fn list(
        &mut self,
        call: &Call,
        route: &Route,
        form: Form,
        moment: Moment,
    ) -> Result<(u16, Value), Refusal> {
        self.rests.retain(|_, rest| rest.until > moment.now);
        let number = |key: &str| call.query.get(key).and_then(|text| text.parse::<u64>().ok());
        if number("resourceVersion").is_some_and(|version| version > self.store.revision()) {
            let mut status = failure(504, "Timeout", "Too large resource version", None);
            status["details"] =
                json!({"causes": [{"reason": "ResourceVersionTooLarge"}], "retryAfterSeconds": 1});
            return Err((504, status));
        }
        let Rest { revision, mut items, .. } =
            match call.query.get("continue").filter(|token| !token.is_empty()) {
                Some(token) => {
                    self.rests.remove(token).ok_or_else(|| expired("the continue token is too old"))?
                }
                None => {
                    let selector = Selector::of(call);
                    let all =
                        self.store.list(route.resource.plural, &route.namespace).map(|(_, object)| object);
                    let items = all.filter(|object| selector.matches(object)).cloned().collect();
                    Rest { revision: self.store.revision(), items, until: moment.now }
                }
            };
        let limit = number("limit").filter(|limit| *limit > 0).map(|limit| (limit as usize).min(self.page));
        let rest = items.split_off(limit.unwrap_or(items.len()).min(items.len()));
        let next = (!rest.is_empty()).then(|| {
            self.issued += 1;
            let token = format!("rest-{}", self.issued);
            let until = moment.now + Duration::from_secs(300);
            self.rests.insert(token.clone(), Rest { revision, items: rest, until });
            token
        });
        Ok((200, form.list(items.iter().map(|object| form.show(object)).collect(), revision, next)))
    }

    fn watch(&mut self, call: &Call, route: &Route, form: Form) -> Result<Watch, Refusal> {
        if call.query.get("sendInitialEvents").is_some_and(|text| text == "true") {
            let message =
                "sendInitialEvents is forbidden for watch unless the WatchList feature gate is enabled";
            return Err((422, failure(422, "Invalid", message, None)));
        }
        let selector = Selector::of(call);
        let version = call.query.get("resourceVersion").map(String::as_str).unwrap_or_default();
        let from: u64 = match version {
            "" => 0,
            text => text
                .parse()
                .map_err(|_| (400, failure(400, "BadRequest", "invalid resource version", None)))?,
        };
        let mut present = Vec::new();
        let after = if from == 0 {
            let all = self.store.list(route.resource.plural, &route.namespace).map(|(_, object)| object);
            present = all.filter(|object| selector.matches(object)).cloned().collect();
            self.store.revision()
        } else {
            from
        };
        if after > self.store.revision() && self.future == Future::Gone {
            return Err(expired("too large resource version"));
        }
        let place = (route.resource.plural, route.namespace.clone());
        let Some((past, to_come)) = self.store.watch(place, after) else {
            return Err(expired("too old resource version"));
        };
        let timeout =
            call.query.get("timeoutSeconds").and_then(|text| text.parse().ok()).map(Duration::from_secs);
        let bookmarks = call.query.get("allowWatchBookmarks").is_some_and(|text| text == "true");
        Ok(Watch { past, to_come, present, after, selector, form, bookmarks, timeout })
    }

    fn create(
        &mut self,
        route: &Route,
        sent: &Value,
        form: Form,
        moment: Moment,
    ) -> Result<(u16, Value), Refusal> {
        self.admit(route)?;
        let metadata = &sent["metadata"];
        let name = match (metadata["name"].as_str(), metadata["generateName"].as_str()) {
            (Some(name), _) => name.to_owned(),
            (None, Some(prefix)) => {
                self.issued += 1;
                format!("{prefix}{:x}", self.issued)
            }
            (None, None) => return Err((422, failure(422, "Invalid", "metadata.name is required", None))),
        };
        if !metadata["resourceVersion"].is_null() {
            let message = "resourceVersion should not be set on objects to be created";
            return Err((400, failure(400, "BadRequest", message, None)));
        }
        let key = route.key(&name);
        if self.store.get(&key).is_some() {
            let message = format!("{} \"{name}\" already exists", key.resource);
            return Err((409, failure(409, "AlreadyExists", &message, Some((key.resource, &name)))));
        }
        let mut object = sent.clone();
        if route.resource.status {
            object.as_object_mut().map(|object| object.remove("status"));
        }
        Ok((201, form.show(&self.store.create(key, object, moment.now, &moment.text()))))
    }

    /// Whether the namespace takes new objects.
    fn admit(&self, route: &Route) -> Result<(), Refusal> {
        if !route.resource.namespaced {
            return Ok(());
        }
        let name = &route.namespace;
        let Some(namespace) = self.store.get(&Key::new(NAMESPACES, "", name)) else {
            return Err(not_found(NAMESPACES, name));
        };
        if namespace["metadata"]["deletionTimestamp"].is_null() {
            return Ok(());
        }
        let message =
            format!("unable to create new content in namespace {name} because it is being terminated");
        let mut status = failure(403, "Forbidden", &message, Some((route.resource.plural, "")));
        status["details"]["causes"] =
            json!([{"reason": "NamespaceTerminating", "field": "metadata.namespace"}]);
        Err((403, status))
    }

    fn replace(
        &mut self,
        route: &Route,
        name: &str,
        mut sent: Value,
        status: bool,
        form: Form,
        moment: Moment,
    ) -> Result<(u16, Value), Refusal> {
        let present = self.present(route, name)?.clone();
        for precondition in ["resourceVersion", "uid"] {
            let wanted = &sent["metadata"][precondition];
            if !wanted.is_null() && *wanted != present["metadata"][precondition] {
                let plural = route.resource.plural;
                let message = format!(
                    "Operation cannot be fulfilled on {plural} \"{name}\": the object has been modified; please apply your \
                     changes to the latest version and try again"
                );
                return Err((409, failure(409, "Conflict", &message, Some((plural, name)))));
            }
        }
        if status {
            let written = sent["status"].take();
            sent = (*present).clone();
            sent["status"] = written;
        } else if route.resource.status {
            sent["status"] = present["status"].clone();
        }
        // What only the server says.
        for field in ["uid", "creationTimestamp", "generation", "deletionTimestamp", "name", "namespace"] {
            match &present["metadata"][field] {
                Value::Null => {
                    sent["metadata"].as_object_mut().map(|metadata| metadata.remove(field));
                }
                value => sent["metadata"][field] = value.clone(),
            }
        }
        for field in ["kind", "apiVersion"] {
            match present.get(field) {
                Some(value) => sent[field] = value.clone(),
                None => {
                    sent.as_object_mut().map(|object| object.remove(field));
                }
            }
        }
        if sent.get("status").is_some_and(Value::is_null) {
            sent.as_object_mut().map(|object| object.remove("status"));
        }
        Ok((200, form.show(&self.store.update(route.key(name), sent, moment.now))))
    }

    fn patch(
        &mut self,
        call: &Call,
        route: &Route,
        name: &str,
        form: Form,
        moment: Moment,
    ) -> Result<(u16, Value), Refusal> {
        if call.content_type != "application/merge-patch+json" {
            let message = format!("the body of the request was in an unknown format: {}", call.content_type);
            return Err((415, failure(415, "UnsupportedMediaType", &message, None)));
        }
        let mut patched = (**self.present(route, name)?).clone();
        // Without a precondition in the patch there is none.
        patched["metadata"]["resourceVersion"] = Value::Null;
        merge(&mut patched, &call.body);
        self.replace(route, name, patched, route.subresource.is_some(), form, moment)
    }

    fn delete(
        &mut self,
        route: &Route,
        name: &str,
        options: &Value,
        form: Form,
        moment: Moment,
    ) -> Result<(u16, Value), Refusal> {
        let present = self.present(route, name)?;
        for precondition in ["resourceVersion", "uid"] {
            let wanted = &options["preconditions"][precondition];
            if !wanted.is_null() && *wanted != present["metadata"][precondition] {
                let message = format!("the {precondition} in the precondition does not match");
                return Err((409, failure(409, "Conflict", &message, Some((route.resource.plural, name)))));
            }
        }
        let gone = self.store.delete(&route.key(name), moment.now).expect("it was there");
        Ok((200, form.show(&gone)))
    }

    fn request_token(
        &mut self,
        route: &Route,
        name: &str,
        sent: &Value,
        moment: Moment,
    ) -> Result<(u16, Value), Refusal> {
        let account = self.present(route, name)?;
        let asked = sent["spec"]["expirationSeconds"].as_i64().unwrap_or(3_600);
        if !(600..=1 << 32).contains(&asked) {
            let message = "spec.expirationSeconds: may not specify a duration less than 10 minutes";
            return Err((422, failure(422, "Invalid", message, None)));
        }
        let audiences: Vec<String> =
            serde_json::from_value(sent["spec"]["audiences"].clone()).unwrap_or_default();
        let claims = Claims {
            issued_at: moment.unix,
            expires_at: moment.unix + asked.min(self.longest_token),
            namespace: route.namespace.clone(),
            name: name.to_owned(),
            uid: account["metadata"]["uid"].as_str().unwrap_or_default().to_owned(),
            audiences: if audiences.is_empty() { vec![AUDIENCE.to_owned()] } else { audiences },
        };
        self.issued += 1;
        let mut answer = sent.clone();
        let expiry = Moment { now: moment.now, unix: claims.expires_at }.text();
        answer["status"] =
            json!({"token": token::issue(&claims, self.key, self.issued), "expirationTimestamp": expiry});
        Ok((201, answer))
    }

    /// Whether this cluster takes the token now: it issued it, it has not expired, and the ServiceAccount is the one
    /// that it was issued for.
    pub(crate) fn accepts(&self, token: &str, unix: i64) -> Result<Claims, Rejected> {
        let claims = token::open(token, self.key).ok_or(Rejected::Unknown)?;
        if claims.expires_at <= unix {
            return Err(Rejected::Expired(claims));
        }
        let account = self.store.get(&Key::new(SERVICE_ACCOUNTS, &claims.namespace, &claims.name));
        if account.is_some_and(|account| account["metadata"]["uid"] == claims.uid.as_str()) {
            Ok(claims)
        } else {
            Err(Rejected::AccountGone)
        }
    }

    fn review(&self, sent: &Value, unix: i64) -> Value {
        let wanted: Vec<String> =
            serde_json::from_value(sent["spec"]["audiences"].clone()).unwrap_or_default();
        let accepted = self.accepts(sent["spec"]["token"].as_str().unwrap_or_default(), unix);
        let status = match accepted {
            Ok(claims)
                if claims.audiences.iter().any(|audience| {
                    wanted.contains(audience) || (wanted.is_empty() && audience == AUDIENCE)
                }) =>
            {
                let Claims { namespace, name, uid, audiences, .. } = claims;
                let username = format!("system:serviceaccount:{namespace}:{name}");
                json!({"authenticated": true, "user": {"username": username, "uid": uid}, "audiences": audiences})
            }
            _ => json!({"user": {}, "error": "[invalid bearer token, service account token is not valid]"}),
        };
        json!({"kind": "TokenReview", "apiVersion": "authentication.k8s.io/v1", "metadata": {}, "spec": {}, "status": status})
    }
}

/// Why a token is not accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// This cluster did not issue it.
    Unknown,
    /// Its time is over.
    Expired(Claims),
    /// Its ServiceAccount is gone, or another one has the name.
    AccountGone,
}

type Refusal = (u16, Value);

#[derive(Clone, Copy)]
struct Moment {
    now: Duration,
    unix: i64,
}

impl Moment {
    fn text(self) -> String {
        jiff::Timestamp::from_second(self.unix).expect("simulations end before the year 9999").to_string()
    }
}

/// RFC 7386.
fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = json!({});
    }
    for (key, value) in patch {
        if value.is_null() {
            target.as_object_mut().map(|target| target.remove(key));
        } else {
            merge(&mut target[key.as_str()], value);
        }
    }
}

fn version() -> Value {
    json!({
        "major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "clean", "buildDate": "",
        "goVersion": "", "compiler": "gc", "platform": "linux/amd64",
    })
}

fn expired(message: &str) -> Refusal {
    (410, failure(410, "Expired", message, None))
}

fn not_found(plural: &str, name: &str) -> Refusal {
    (404, failure(404, "NotFound", &format!("{plural} \"{name}\" not found"), Some((plural, name))))
}

/// A `Status` that says no.
pub(crate) fn failure(code: u16, reason: &str, message: &str, about: Option<(&str, &str)>) -> Value {
    let mut status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason,
        "message": message,
    });
    if let Some((kind, name)) = about {
        status["details"] = json!({"kind": kind, "name": name});
    }
    status
}
