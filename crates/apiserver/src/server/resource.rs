//! Requests for resources: which kind, which verb, and how its body and options are read
//! (`k8s.io/apiserver/pkg/endpoints/handlers`).

use super::action;
use super::body::Content;
use super::context::RequestContext;
use super::limits;
use super::list::List;
use super::list_body::{Admit, Place, Streamed, Task};
use super::offload;
use super::render::{self, Renderer};
use super::reply::{Failure, Reply};
use super::resource_request::{MEDIA_ALIASES, ResourceRequest, write_options};
use super::state::ServerState;
use super::streaming;
use crate::alias;
use crate::catalog::{Kinds, Row};
use crate::registry::{Listed, PatchRequest, Scope, Written, patch_status};
use crate::strategy::{Backing, Handler, Strategy, WriteOptions};
use crate::work::{Flow, Full};
use bytes::Bytes;
use fleetpass_apimachinery::gvk::GvkRef;
use fleetpass_apimachinery::json::Raw;
use fleetpass_apimachinery::status::Status;
use fleetpass_apply::PatchKind;
use fleetpass_codec::body::{self, FieldValidation};
use fleetpass_codec::negotiate::{self, MediaType, Output};
use fleetpass_codec::options::{self, Write, WriteQuery};
use fleetpass_codec::patch;
use fleetpass_schema::{custom_resource, go};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use parking_lot::Mutex;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;

/// Answers a request for a resource. `read` reads the body; it is awaited only once everything that the head of the request can
/// be refused for has been checked.
pub(super) async fn serve(
    state: &Arc<ServerState>,
    context: &RequestContext,
    read: impl Future<Output = Result<Bytes, Status>> + Send,
) -> Result<Reply, Failure> {
    // One table for the whole request: a CRD that changes meanwhile replaces the table and leaves this one as it is.
    let kinds = state.registry.catalog().kinds();
    let info = &context.info;
    let Some(row) = kinds.get(&info.group, &info.resource) else { return not_served(&kinds, context) };
    let Some(version) = row.version(&info.version) else { return not_served(&kinds, context) };
    let warnings: Vec<String> = version.deprecation.iter().cloned().collect();
    let failed = |status| Failure { status, warnings: warnings.clone() };
    let subresource = match info.subresource.as_str() {
        "" => None,
        name => match row.subresource(name, &version.name) {
            Some(subresource) => Some(subresource),
            // For built-in kinds the router answers; the handler of custom resources gets every path below its group and
            // answers about the object, even without looking for it (`customresource_handler.go`).
            None if row.resource.custom => return Err(failed(Status::not_found(row.gr(), &info.name))),
            None => return not_served(&kinds, context),
        },
    };
    if info.is_too_deep() || !scope_fits(row, context) {
        return not_served(&kinds, context);
    }
    let request =
        ResourceRequest { state, context, row, version, subresource, warnings: Mutex::new(warnings) };
    let result = request.dispatch(read).await;
    let warnings = request.warnings.into_inner();
    match result {
        Ok(mut reply) => {
            reply.warnings.splice(0..0, warnings);
            Ok(reply)
        }
        Err(status) => Err(Failure { status, warnings }),
    }
}

/// The answer for a resource, version or subresource that is not served. In a built-in group that is a `Status`; anywhere else,
/// where only a CRD could serve it, plain text: kube-apiserver has no handler for such a path and its router answers.
fn not_served(kinds: &Kinds, context: &RequestContext) -> Result<Reply, Failure> {
    if kinds.is_builtin_group(&context.info.group) {
        return Err(Status::unknown_path().into());
    }
    Ok(Reply::no_such_path())
}

/// Whether the path has a namespace where the kind has one. Without it, namespaced kinds have only collections.
fn scope_fits(row: &Row, context: &RequestContext) -> bool {
    let info = &context.info;
    let in_namespace =
        info.path.contains("/namespaces/") && info.parts.first().is_some_and(|p| p != "namespaces");
    if row.strategy().is_none() && info.subresource.is_empty() {
        // A kind that is not stored has one path, that of its collection.
        return in_namespace == row.resource.namespaced && info.parts.len() < 2;
    }
    if row.resource.namespaced { in_namespace || info.parts.len() < 2 } else { !in_namespace }
}

/// The path that a POST without a namespace in its path stands for: the namespace is in the body.
pub(super) fn collection_of_alias(bytes: &Bytes, headers: &HeaderMap) -> Result<String, Status> {
    let content_type = headers.get(CONTENT_TYPE).and_then(|v| v.to_str().ok());
    let media = negotiate::input(content_type, MEDIA_ALIASES)?;
    let format = media.format();
    let parsed = body::parse(bytes, format).map_err(Status::bad_request)?;
    // Only looked at: the object is decoded, and refused in the words for its kind, when the path is known.
    match parsed.raw.get("metadata").and_then(|metadata| metadata.get("namespace")) {
        Some(Raw::String(namespace)) if !namespace.is_empty() => Ok(alias::collection(namespace)),
        _ => Err(Status::bad_request(
            "metadata.namespace is missing in the body: this path names no namespace, so the body must",
        )),
    }
}

impl<'a> ResourceRequest<'a> {
    /// Whether the path, be it that of an object, a subresource or a collection, can be used with this verb.
    fn allows_verb(&self, verb: &str) -> bool {
        if let Some(subresource) = self.subresource {
            return subresource.verbs.contains(&verb);
        }
        let of_item = matches!(verb, "get" | "update" | "patch" | "delete");
        let of_collection = matches!(verb, "list" | "create" | "deletecollection");
        let fits = verb == "watch" || (if self.is_item() { of_item } else { of_collection });
        // A namespaced kind across all namespaces can only be read.
        let everywhere = self.row.resource.namespaced && self.context.info.namespace.is_empty();
        fits && !(everywhere && matches!(verb, "create" | "deletecollection"))
            && self.row.resource.verbs.iter().any(|v| v == verb)
    }

    /// How a verb is refused: in the router's words, or for custom resources in those of their handler, which gets all verbs.
    fn refuse_verb(&self, verb: &str) -> Status {
        if !self.row.resource.custom {
            return Status::method_not_allowed();
        }
        match verb {
            "update" | "patch" if !self.is_item() => Status::bad_request("name must be provided"),
            _ => Status::method_not_supported(self.row.gr(), verb),
        }
    }

    async fn dispatch(
        &self,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let verb = self.context.info.verb.as_str();
        if !self.allows_verb(verb) {
            return Err(self.refuse_verb(verb));
        }
        if verb == "patch" {
            // go-restful matches `Content-Type` when it routes: 415 comes before 406 and before the body is read.
            PatchKind::from_content_type(self.context.content_type(), self.row.resource.custom)
                .map_err(patch_status)?;
        }
        // go-restful's routing again: it decides by the headers whether there is a body whose type must fit.
        let has_body = self.context.headers.get(CONTENT_TYPE).is_some()
            || self.context.headers.get("content-length").is_some_and(|l| l != "0");
        negotiate::route(self.context.accept(), self.endpoint(), self.context.method.as_str(), has_body)?;
        if let Some(bytes) = self.heavy_bytes(verb) {
            offload::step_aside(self.state, &self.context.user, bytes).await?;
        }
        match (verb, self.subresource.map(|s| &s.handler), &self.row.resource.backing) {
            ("create", Some(Handler::Create(_)), _) | ("create", None, Backing::Virtual(_)) => {
                action::create(self, read).await
            }
            (_, Some(Handler::Scale(paths)), _) => super::scale::serve(self, paths, read).await,
            (_, Some(Handler::Update(strategy)), _) => self.stored(verb, strategy, read).await,
            (_, None, Backing::Stored(strategy)) => self.stored(verb, strategy, read).await,
            _ => Err(Status::method_not_allowed()),
        }
    }

    /// Of a request that writes and may keep a core busy whatever the length of its body, how many bytes will be decoded: a patch
    /// of a few bytes decodes, validates and compares all of a large object.
    fn heavy_bytes(&self, verb: &str) -> Option<usize> {
        if !matches!(verb, "create" | "update" | "patch" | "delete") {
            return None;
        }
        // Actions are as heavy as their bodies.
        let acts = matches!(self.subresource.map(|s| &s.handler), Some(Handler::Create(_)));
        let strategy = self.row.strategy().filter(|_| !acts)?;
        let options = WriteOptions::default();
        let key = || self.scope(&**strategy, &options).key(&self.context.info.name);
        let stored = self.is_item().then(|| self.state.registry.cache().get(&key())).flatten();
        let stored = stored.map_or(0, |object| object.size());
        // What the client says of its body, which has not come yet. One that comes in chunks says nothing; it is bounded all the
        // same, and so are those that come at once.
        let body = self.context.header(CONTENT_LENGTH).and_then(|length| length.parse().ok());
        let bytes = stored.max(body.unwrap_or_default());
        (strategy.is_heavy() || stored > offload::HEAVY_BYTES).then_some(bytes)
    }

    async fn stored(
        &self,
        verb: &str,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        match verb {
            "get" => self.get(strategy).await,
            "list" => self.list(strategy).await,
            "watch" => streaming::watch(self, strategy).await,
            "create" => self.create(strategy, read).await,
            "update" => self.update(strategy, read).await,
            "patch" => self.patch(strategy, read).await,
            "delete" => self.delete(strategy, read).await,
            "deletecollection" => self.delete_collection(strategy, read).await,
            _ => Err(Status::method_not_allowed()),
        }
    }

    fn reply(&self, code: u16, renderer: &Renderer<'_>, bytes: Bytes, warnings: Vec<String>) -> Reply {
        Reply::new(code, renderer.accepted.media.as_str(), bytes).warned(warnings)
    }

    fn written(&self, renderer: &Renderer<'_>, written: Written) -> Result<Reply, Status> {
        let code = if written.created { 201 } else { 200 };
        Ok(self.reply(code, renderer, renderer.tree(&written.object)?, written.warnings))
    }

    async fn get(&self, strategy: &Arc<dyn Strategy>) -> Result<Reply, Status> {
        let renderer = self.renderer()?;
        let version = self.context.query.get("resourceVersion").unwrap_or_default();
        let options = WriteOptions::default();
        let object = self.state.registry.get(&self.scope(&**strategy, &options), version).await?;
        // JSON copies the stored bytes; all other forms are made from a tree.
        if !renderer.is_plain() && object.size() > offload::HEAVY_BYTES {
            offload::step_aside(self.state, &self.context.user, object.size()).await?;
        }
        Ok(self.reply(200, &renderer, renderer.stored(&object)?, Vec::new()))
    }

    async fn list(&self, strategy: &Arc<dyn Strategy>) -> Result<Reply, Status> {
        let renderer = self.renderer()?;
        let list = self.list_options(&**strategy)?;
        let options = WriteOptions::default();
        let listed = self.state.registry.list(&self.scope(&**strategy, &options), &list).await?;
        self.listed(&renderer, listed).await
    }

    /// Answers with a list: at once if it is small, else while it is made.
    async fn listed(&self, renderer: &Renderer<'_>, listed: Listed) -> Result<Reply, Status> {
        let list = List::new(renderer, self.row, listed)?;
        if let Some(bytes) = list.whole().await? {
            return Ok(self.reply(200, renderer, bytes, Vec::new()));
        }
        let mut reply = self.reply(200, renderer, Bytes::new(), Vec::new());
        let (state, user) = (self.state.clone(), self.context.user.clone());
        // In the flow of the user, as all that is done for them.
        let admit: Admit = Arc::new(move || {
            let ticket = state.pools.heavy.admit(Flow::of(&user))?;
            Ok(Box::new(|job| Box::pin(ticket.spawn(job)) as Task) as Place)
        });
        reply.body = Content::List(Streamed::new(list, self.context.deadline, admit));
        Ok(reply)
    }

    fn target(&self) -> GvkRef<'a> {
        let resource = &self.row.resource;
        GvkRef { group: &resource.group, version: &self.version.name, kind: &resource.kind }
    }

    /// Decodes and defaults a body of the kind.
    fn decode(
        &self,
        bytes: &[u8],
        media: MediaType,
        strategy: &dyn Strategy,
        validation: FieldValidation,
    ) -> Result<Value, Status> {
        let target = self.target();
        let format = media.format();
        let decoded = if self.row.resource.custom {
            let schema =
                |version: &str| &**self.row.version(version).map_or(&self.version.schema, |v| &v.schema);
            body::decode_custom(bytes, format, target, validation, |value, version| {
                custom_resource::decode(value, schema(version)).map_err(|e| go::Words(&e).to_string())
            })?
        } else {
            body::decode_builtin(bytes, format, target, &self.version.schema, validation)?
        };
        let mut object = decoded.value;
        strategy.default(&mut object);
        // Kept in the request and not in the result, so that they reach the client with a refusal of validation as well.
        self.warn(decoded.warnings);
        self.context.notes.object(&object);
        Ok(object)
    }

    async fn create(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        // In the order of `create.go`: 406, 415, the body, the options, decoding. A request with several faults is told the
        // first of them.
        let renderer = self.renderer()?;
        let media = negotiate::input(self.context.content_type(), self.media_aliases())?;
        let bytes = read.await?;
        let query = options::write(self.context.query.pairs(), Write::Create)?;
        let object = self.decode(&bytes, media, &**strategy, query.field_validation)?;
        let options = write_options(&query);
        let written = self.state.registry.create(&self.scope(&**strategy, &options), object).await?;
        self.written(&renderer, written)
    }

    async fn update(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let renderer = self.renderer()?;
        // `update.go` looks at the media type last.
        let bytes = read.await?;
        let query = options::write(self.context.query.pairs(), Write::Update)?;
        let media = negotiate::input(self.context.content_type(), self.media_aliases())?;
        let object = self.decode(&bytes, media, &**strategy, query.field_validation)?;
        let options = write_options(&query);
        let written = self.state.registry.update(&self.scope(&**strategy, &options), object).await?;
        self.written(&renderer, written)
    }

    async fn patch(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let kind = PatchKind::from_content_type(self.context.content_type(), self.row.resource.custom)
            .map_err(patch_status)?;
        let renderer = self.renderer()?;
        let bytes = read.await?;
        let write = if kind == PatchKind::Apply { Write::Apply } else { Write::Patch };
        let query = options::write(self.context.query.pairs(), write)?;
        let request = patch_request(kind, &bytes, &query)?;
        let options = write_options(&query);
        let written = self.state.registry.patch(&self.scope(&**strategy, &options), &request).await?;
        self.written(&renderer, written)
    }

    /// The options of a deletion. A body that is not empty must say what it is.
    fn delete_options(&self, bytes: &[u8]) -> Result<options::DeleteOptions, Status> {
        let format = if bytes.is_empty() {
            body::Format::Json
        } else {
            negotiate::input(self.context.content_type(), self.media_aliases())?.format()
        };
        options::delete(bytes, format, self.context.query.pairs())
    }

    async fn delete(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let renderer = self.renderer()?;
        let request = self.delete_options(&read.await?)?;
        let options = WriteOptions { dry_run: request.dry_run, ..WriteOptions::default() };
        let scope = self.scope(&**strategy, &options);
        let deleted = self.state.registry.delete(&scope, &request).await?;
        if deleted.gone && !self.row.resource.delete_returns_object {
            let status = render::deleted(self.row, scope.name, &deleted.object);
            self.context.notes.deleted(&status);
            let plain = Output { convert_to: None, ..renderer.accepted };
            return Ok(self.reply(200, &renderer, render::encode(&status, plain)?, Vec::new()));
        }
        // 202 for an object that is still there only with the deprecated `orphanDependents=false`; every other client has
        // always got 200, and `delete.go` keeps it so.
        let code = if !deleted.gone && request.orphan_dependents == Some(false) { 202 } else { 200 };
        Ok(self.reply(code, &renderer, renderer.tree(&deleted.object)?, Vec::new()))
    }

    async fn delete_collection(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let renderer = self.renderer()?;
        let list = self.list_options(&**strategy)?;
        let request = self.delete_options(&read.await?)?;
        // The deletion may outlive the request, so it owns what it needs.
        let (state, row, version) = (self.state.clone(), self.row.clone(), self.version.clone());
        let (strategy, user) = (strategy.clone(), self.context.user.clone());
        let (namespace, now) =
            (self.scope(&*strategy, &WriteOptions::default()).namespace.to_string(), self.context.now);
        let work = async move {
            let options = WriteOptions { dry_run: request.dry_run, ..WriteOptions::default() };
            let scope = Scope {
                row: &row,
                version: &version,
                user: &user,
                namespace: &namespace,
                name: "",
                subresource: "",
                strategy: &*strategy,
                options: &options,
                user_agent: "",
                now,
            };
            state.registry.delete_collection(&scope, &list, &request).await
        };
        let (pool, user, stop) = (&self.state.pools.heavy, &self.context.user, &self.state.stop);
        let listed = self.state.outliving.run(pool, user, stop, work).await.map_err(|Full| {
            self.state.metrics.refused(Flow::of(user));
            limits::overloaded()
        })??;
        self.listed(&renderer, listed).await
    }
}

/// Reads the document of a patch.
fn patch_request(kind: PatchKind, bytes: &[u8], query: &WriteQuery) -> Result<PatchRequest, Status> {
    let validation = query.field_validation;
    let read = patch::read(kind, bytes, validation).map_err(patch_status)?;
    Ok(PatchRequest {
        kind,
        document: read.value,
        duplicates: read.duplicates,
        validation,
        force: query.force,
    })
}
