//! watch as an HTTP answer: one event after the other, until its time is up, the client goes, or the server stops
//! (`k8s.io/apiserver/pkg/endpoints/handlers/watch.go`).
//!
//! The stream is pulled: hyper asks for the next line when the connection has room for it, so a client that reads slowly slows
//! down this stream and nothing else. Its events wait in the bounded queue of its watcher; when that is full, the cache ends
//! the watch ([`crate::cache`]) and the client begins a new one at the last revision it has seen.
//!
//! What is sent of an event is made once for all watchers who want it in the same form ([`crate::cache::Form`]): in JSON and as
//! metadata in JSON it is the stored text with another head, in all other forms a tree that is encoded.
//!
//! [`Stream::next`] is dropped when the client goes away. That is safe at any point: an event that was taken from the queue is
//! lost only together with the stream.

use super::body::{self, Content};
use super::render::{self, IncludeObject, Renderer};
use super::reply::Reply;
use super::resource_request::ResourceRequest;
use super::state::ServerState;
use crate::cache::{Delivery, EventKind, Form, Object, event_line, metadata_line};
use crate::catalog::Row;
use crate::registry::{Scope, WatchItem, Watching, random_u64};
use crate::strategy::{Strategy, Version, WriteOptions};
use bytes::Bytes;
use fleetpass_apimachinery::gvk::api_version;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_codec::negotiate::{self, MediaType, MetaVersion, Output, TargetKind};
use fleetpass_codec::protobuf;
use http::Method;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::pin::Pin;
use std::sync::Arc;
use tokio_util::sync::WaitForCancellationFutureOwned;

/// Begins a watch and answers with its stream.
pub(super) async fn watch(
    request: &ResourceRequest<'_>,
    strategy: &Arc<dyn Strategy>,
) -> Result<Reply, Status> {
    let context = request.context;
    let output = negotiate::output_stream(context.accept(), request.endpoint())?;
    let renderer = request.renderer_for(output)?;
    let mut options = request.list_options(&**strategy)?;
    // `GET .../NAME?watch=1` is a watch of the collection with a selector for one name (`handlers/get.go`).
    if !context.info.name.is_empty() && context.info.parts.len() > 1 {
        options.fields.require("metadata.name", &context.info.name);
    }
    let write = WriteOptions::default();
    let mut scope = request.scope(&**strategy, &write);
    scope.name = "";
    let default_timeout = request.state.limits.watch(random_u64());
    let watching = request.state.registry.watch(&scope, &options, default_timeout).await?;
    let stream = Stream {
        state: request.state.clone(),
        row: request.row.clone(),
        version: request.version.clone(),
        strategy: strategy.clone(),
        namespace: scope.namespace.to_string(),
        user: context.user.clone(),
        write: WriteOptions::default(),
        form: Rendering::new(&renderer, request.row),
        watching,
        stop: Box::pin(request.state.stop.clone().cancelled_owned()),
        first: true,
        ended: false,
    };
    // Counted down by `Stream::drop`: every way in which a watch can end is a drop.
    stream.state.metrics.watches.inc();
    let content_type = match output.media {
        MediaType::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let mut reply = Reply::new(200, content_type, Bytes::new());
    // HEAD gets the head alone; the watch that was begun ends with `stream`, here.
    if context.method != Method::HEAD {
        reply.body = Content::Stream(body::stream(futures::stream::unfold(Box::new(stream), Stream::next)));
    }
    Ok(reply)
}

/// What an event in JSON takes from the stored text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Splice {
    /// The whole object.
    Object,
    /// Its metadata.
    Metadata(MetaVersion),
}

/// The form in which a client wants its events.
struct Rendering {
    accepted: Output,
    include: IncludeObject,
    api_version: String,
    /// `None`: nothing can be spliced, so each event is made from a tree.
    splice: Option<Splice>,
    /// The name of what is spliced.
    spliced: Form,
    /// The name of what is made from trees.
    made: Form,
}

impl Rendering {
    fn new(renderer: &Renderer<'_>, row: &Arc<Row>) -> Self {
        let Output { media, convert_to, .. } = renderer.accepted;
        let api_version = api_version(&row.resource.group, &renderer.version.name);
        let splice = match convert_to {
            _ if media != MediaType::Json => None,
            None => Some(Splice::Object),
            // Clients name the list type they would accept from a list; the events carry single objects.
            Some((TargetKind::PartialObjectMetadata | TargetKind::PartialObjectMetadataList, version)) => {
                Some(Splice::Metadata(version))
            }
            Some((TargetKind::Table, _)) => None,
        };
        let spliced = match splice {
            // Not of one API version alone: the metadata is the same in all of them.
            Some(Splice::Metadata(version)) => format!("metadata {}", version.api_version()),
            Some(Splice::Object) | None => format!("json {api_version}"),
        };
        let made = format!("{media:?} {convert_to:?} {:?} {api_version}", renderer.include);
        Self {
            accepted: renderer.accepted,
            include: renderer.include,
            api_version,
            splice,
            spliced: Form::new(spliced),
            // Columns, and how older objects are shown, change with the definition of a kind, which makes a new row.
            made: Form::made_with(made, row.clone()),
        }
    }

    fn is_table(&self) -> bool {
        matches!(self.accepted.convert_to, Some((TargetKind::Table, _)))
    }
}

/// A watch that is being sent. It owns all it needs, because it outlives its request; among that is the row of the catalog as
/// it was when the watch began, so a CRD that changes does not change the form of events under way.
struct Stream {
    state: Arc<ServerState>,
    row: Arc<Row>,
    version: Version,
    strategy: Arc<dyn Strategy>,
    namespace: String,
    user: Arc<UserInfo>,
    write: WriteOptions,
    form: Rendering,
    watching: Watching,
    /// The end of the server. One for all events: to wait anew for each takes a lock that all watches share.
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Whether no event has been sent yet: the first one of a Table brings its columns.
    first: bool,
    /// Whether an event was sent after which there can be none, such as `ERROR`.
    ended: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.state.metrics.watches.dec();
    }
}

impl Stream {
    /// The next line, with the stream to take the one after it from. Boxed, because `unfold` moves it for each event.
    async fn next(mut self: Box<Self>) -> Option<(Bytes, Box<Self>)> {
        if self.ended {
            return None;
        }
        let state = self.state.clone();
        let item = {
            let scope = Scope {
                row: &self.row,
                version: &self.version,
                user: &self.user,
                namespace: &self.namespace,
                name: "",
                subresource: "",
                strategy: &*self.strategy,
                options: &self.write,
                user_agent: "",
                now: state.registry.now(),
            };
            // In this order: where an event waits, nothing else is asked. Events cease with the server, which takes no writes then.
            tokio::select! {
                biased;
                item = self.watching.next(&state.registry, &scope) => item?,
                // A graceful shutdown must not wait for the end of a watch, which may be an hour away.
                () = &mut self.stop => return None,
            }
        };
        let line = self.line(item);
        self.first = false;
        Some((line, self))
    }

    fn line(&mut self, item: WatchItem) -> Bytes {
        let line = match item {
            WatchItem::Object { kind, object, shared } => self.object(kind, &object, shared.as_deref()),
            WatchItem::Bookmark { revision, initial_events_end } => {
                let mut metadata = json!({"resourceVersion": revision.to_string()});
                // By this annotation clients know that they have the whole state (`sendInitialEvents`, KEP-3157).
                if initial_events_end {
                    metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                }
                let object = json!({"kind": self.row.resource.kind, "apiVersion": self.form.api_version,
                    "metadata": metadata});
                self.tree("BOOKMARK", object, self.now())
            }
            WatchItem::Error(status) => {
                // The client has to act on it, with a new list and a new watch; nothing can follow.
                self.ended = true;
                self.frame("ERROR", &status.to_json())
            }
        };
        // The head is sent, so a failure cannot become a status code any more; ending the stream makes the client start over.
        self.ended |= line.is_empty();
        line
    }

    /// The moment that events tell ages by: that of the event, not of the request. To the second, so that those who are told in
    /// the same second share a Table; ages are no finer.
    fn now(&self) -> Timestamp {
        let now = self.state.registry.now();
        if self.form.is_table() { Timestamp::from_second(now.as_second()).unwrap_or(now) } else { now }
    }

    /// An event about an object, where no selector has changed it (`shared`) in the bytes that other watchers of the same form
    /// get.
    fn object(&mut self, kind: EventKind, object: &Object, shared: Option<&Delivery>) -> Bytes {
        // A view changes what is around the metadata.
        let whole = self.row.resource.view.is_none();
        let splice = self
            .form
            .splice
            .filter(|splice| self.row.is_uniform(object.revision) && (whole || *splice != Splice::Object));
        let mut told = None;
        if self.form.is_table() {
            let now = self.now();
            self.form.made.set_variant(now.as_second().unsigned_abs() << 1 | u64::from(self.first));
            told = Some(now);
        }
        let this = &*self;
        let encode = || match splice {
            Some(Splice::Object) => {
                event_line(kind.as_str(), object, &this.row.resource.kind, &this.form.api_version)
            }
            Some(Splice::Metadata(version)) => metadata_line(kind.as_str(), object, version.api_version()),
            None => {
                let now = told.unwrap_or_else(|| this.now());
                this.tree(kind.as_str(), this.renderer(now).present(object), now)
            }
        };
        match shared {
            Some(delivery) => {
                let form = if splice.is_some() { &this.form.spliced } else { &this.form.made };
                delivery.encoded(form, encode)
            }
            None => encode(),
        }
    }

    fn renderer(&self, now: Timestamp) -> Renderer<'_> {
        Renderer {
            row: &self.row,
            version: &self.version,
            accepted: self.form.accepted,
            include: self.form.include,
            now,
        }
    }

    /// An event with an object in the form that the client wants; empty if it has none.
    fn tree(&self, kind: &str, object: Value, now: Timestamp) -> Bytes {
        let shown = match self.form.accepted.convert_to {
            Some((TargetKind::Table, version)) => {
                let mut metadata = Map::new();
                if let Some(revision) = object.pointer("/metadata/resourceVersion") {
                    metadata.insert("resourceVersion".into(), revision.clone());
                }
                let renderer = self.renderer(now);
                renderer.table(version, metadata, vec![renderer.table_row(&object, version)], self.first)
            }
            Some((TargetKind::PartialObjectMetadataList | TargetKind::PartialObjectMetadata, version)) => {
                render::partial(&object, version)
            }
            None => object,
        };
        self.frame(kind, &shown)
    }

    /// An event as it goes over the wire: a line of JSON, or a length-prefixed protobuf message; empty if it cannot be written.
    fn frame(&self, kind: &str, object: &Value) -> Bytes {
        if self.form.accepted.media != MediaType::Protobuf {
            return line(kind, object);
        }
        protobuf::watch_frame(kind, object).map(Bytes::from).unwrap_or_else(|error| {
            tracing::error!(%error, kind = self.row.resource.kind, "an event cannot be written as protobuf");
            Bytes::new()
        })
    }
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut out = format!("{{\"type\":\"{kind}\",\"object\":").into_bytes();
    out.extend(crate::cache::encode(object));
    out.extend_from_slice(b"}\n");
    out.into()
}
