//! watch as an HTTP answer: one event after the other, until its time is up, the client goes, or the server stops.

use super::body::{self, Content};
use super::render::Renderer;
use super::reply::Reply;
use super::resource_request::ResourceRequest;
use super::state::ServerState;
use crate::cache::{Event, EventKind, Object};
use crate::catalog::Row;
use crate::registry::{Scope, WatchItem, Watching, present, random_u64};
use crate::strategy::{Strategy, Version, WriteOptions};
use bytes::Bytes;
use fleetpass_apimachinery::gvk::api_version;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_codec::negotiate::{self, MediaType, TargetKind};
use fleetpass_codec::protobuf;
use http::Method;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Begins a watch and answers with its stream.
pub(super) async fn watch(
    request: &ResourceRequest<'_>,
    strategy: &Arc<dyn Strategy>,
) -> Result<Reply, Status> {
    let context = request.context;
    let output = negotiate::output_stream(context.accept(), request.endpoint())?;
    let renderer = request.renderer_for(output)?;
    let mut options = request.list_options(&**strategy)?;
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
        form: Rendering { accepted: renderer.accepted, include: renderer.include },
        watching,
        first: true,
        ended: false,
    };
    stream.state.metrics.watches.inc();
    let content_type = match output.media {
        MediaType::Protobuf => "application/vnd.kubernetes.protobuf;stream=watch",
        _ => "application/json",
    };
    let mut reply = Reply::new(200, content_type, Bytes::new());
    if context.method != Method::HEAD {
        reply.body = Content::Stream(body::stream(futures::stream::unfold(Box::new(stream), Stream::next)));
    }
    Ok(reply)
}

struct Rendering {
    accepted: negotiate::Output,
    include: super::render::IncludeObject,
}

/// A watch that is being sent; it owns all it needs, for it outlives its request.
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
    first: bool,
    ended: bool,
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.state.metrics.watches.dec();
    }
}

impl Stream {
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
            tokio::select! {
                item = self.watching.next(&state.registry, &scope) => item?,
                () = state.stop.cancelled() => return None,
            }
        };
        let line = self.line(item);
        self.first = false;
        Some((line, self))
    }

    fn api_version(&self) -> String {
        api_version(&self.row.resource.group, &self.version.name)
    }

    fn line(&mut self, item: WatchItem) -> Bytes {
        match item {
            WatchItem::Object { kind, object, shared } => self.object(kind, &object, shared.as_deref()),
            WatchItem::Bookmark { revision, initial_events_end } => {
                let mut metadata = json!({"resourceVersion": revision.to_string()});
                if initial_events_end {
                    metadata["annotations"] = json!({"k8s.io/initial-events-end": "true"});
                }
                let object = json!({"kind": self.row.resource.kind, "apiVersion": self.api_version(),
                    "metadata": metadata});
                self.event("BOOKMARK", object)
            }
            WatchItem::Error(status) => {
                self.ended = true;
                self.frame("ERROR", &status.to_json())
            }
        }
    }

    fn object(&mut self, kind: EventKind, object: &Object, shared: Option<&Event>) -> Bytes {
        let as_stored = self.row.is_uniform(object.revision) && self.row.resource.view.is_none();
        let text = self.form.accepted.media == MediaType::Json;
        if as_stored && text && self.form.accepted.convert_to.is_none() {
            let (name, version) = (self.row.resource.kind.as_str(), self.api_version());
            return match shared {
                Some(event) => event.line(name, &version),
                None => crate::cache::event_line(kind.as_str(), object, name, &version),
            };
        }
        self.event(kind.as_str(), present(&self.row, &self.version.name, object))
    }

    /// An event with an object in the form that the client wants.
    fn event(&mut self, kind: &str, object: Value) -> Bytes {
        let renderer = Renderer {
            row: &self.row,
            version: &self.version,
            accepted: self.form.accepted,
            include: self.form.include,
            now: self.state.registry.now(),
        };
        let shown = match self.form.accepted.convert_to {
            Some((TargetKind::Table, version)) => {
                let mut metadata = Map::new();
                if let Some(revision) = object.pointer("/metadata/resourceVersion") {
                    metadata.insert("resourceVersion".into(), revision.clone());
                }
                renderer.table(version, metadata, vec![renderer.table_row(&object, version)], self.first)
            }
            // Whoever asks for lists of metadata gets events of metadata.
            Some((TargetKind::PartialObjectMetadataList | TargetKind::PartialObjectMetadata, version)) => {
                super::render::partial(&object, version)
            }
            None => object,
        };
        self.frame(kind, &shown)
    }

    /// An event as it goes ended the wire.
    fn frame(&mut self, kind: &str, object: &Value) -> Bytes {
        if self.form.accepted.media != MediaType::Protobuf {
            return line(kind, object);
        }
        protobuf::watch_frame(kind, object).map(Bytes::from).unwrap_or_else(|error| {
            tracing::error!(%error, kind = self.row.resource.kind, "an event cannot be written as protobuf");
            self.ended = true;
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
