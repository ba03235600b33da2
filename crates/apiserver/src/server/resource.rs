//! Requests for resources: which kind, which verb, and how its body and options are read
//! (`k8s.io/apiserver/pkg/endpoints/handlers`).

use super::Inner;
use super::action;
use super::handler::{Asked, Failure, Reply};
use super::render::{self, Form};
use super::streaming;
use crate::alias;
use crate::catalog::{Row, Table};
use crate::registry::{PatchRequest, Scope, Written};
use crate::strategy::{Backing, Handler, Strategy, Subresource, Version, WriteOptions};
use bytes::Bytes;
use fleetpass_apimachinery::gvk::GvkRef;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apply::PatchKind;
use fleetpass_codec::body::{self, FieldValidation};
use fleetpass_codec::negotiate::{self, Endpoint, MediaType, Output};
use fleetpass_codec::options::{self, ListOptions, Write, WriteQuery};
use fleetpass_codec::patch;
use fleetpass_schema::custom;
use http::HeaderMap;
use http::header::CONTENT_TYPE;
use parking_lot::Mutex;
use serde_json::Value;
use std::future::Future;
use std::sync::Arc;

/// Media types that documents name for others.
pub(super) const MEDIA_ALIASES: &[(&str, MediaType)] = &[(alias::MEDIA_TYPE, MediaType::Yaml)];

/// A request whose kind is known.
pub(super) struct Call<'a> {
    pub(super) inner: &'a Arc<Inner>,
    pub(super) asked: &'a Asked,
    pub(super) row: &'a Arc<Row>,
    pub(super) version: &'a Version,
    pub(super) subresource: Option<&'a Subresource>,
    /// What the client is warned of, whatever the answer.
    warnings: Mutex<Vec<String>>,
}

/// Answers a request for a resource. `read` reads the body when it is wanted.
pub(super) async fn serve(
    inner: &Arc<Inner>,
    asked: &Asked,
    read: impl Future<Output = Result<Bytes, Status>> + Send,
) -> Result<Reply, Failure> {
    let table = inner.registry.catalog().table();
    let info = &asked.info;
    let Some(row) = table.get(&info.group, &info.resource) else { return missing(&table, asked) };
    let Some(version) = row.version(&info.version) else { return missing(&table, asked) };
    let warnings: Vec<String> = version.deprecation.iter().cloned().collect();
    let failed = |status| Failure { status, warnings: warnings.clone() };
    let subresource = match info.subresource.as_str() {
        "" => None,
        name => match row.subresource(name, &version.name) {
            Some(subresource) => Some(subresource),
            // The handler of custom resources speaks of the object, whether it is there or not.
            None if row.resource.custom => return Err(failed(Status::not_found(row.gr(), &info.name))),
            None => return missing(&table, asked),
        },
    };
    if info.is_too_deep() || !scope_fits(row, asked) {
        return missing(&table, asked);
    }
    let call = Call { inner, asked, row, version, subresource, warnings: Mutex::new(warnings) };
    let result = call.dispatch(read).await;
    let warnings = call.warnings.into_inner();
    match result {
        Ok(mut reply) => {
            reply.warnings.splice(0..0, warnings);
            Ok(reply)
        }
        Err(status) => Err(Failure { status, warnings }),
    }
}

/// The answer for a resource, version or subresource that is not there. Groups that are compiled in answer for
/// themselves; whatever only a CRD could serve is simply not there.
fn missing(table: &Table, asked: &Asked) -> Result<Reply, Failure> {
    if table.is_builtin_group(&asked.info.group) {
        return Err(Status::unknown_path().into());
    }
    Ok(Reply::no_such_path())
}

/// Whether the path has a namespace where the kind has one. Without it, namespaced kinds have only collections.
fn scope_fits(row: &Row, asked: &Asked) -> bool {
    let info = &asked.info;
    let in_namespace =
        info.path.contains("/namespaces/") && info.parts.first().is_some_and(|p| p != "namespaces");
    if row.strategy().is_none() && info.subresource.is_empty() {
        // Reviews have one path each.
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
    let value = parsed
        .raw
        .to_value(fleetpass_apimachinery::json::Numbers::Go)
        .map_err(|e| Status::bad_request(e.to_string()))?;
    match meta::namespace(&value) {
        "" => Err(Status::bad_request(
            "metadata.namespace is missing in the body: this path names no namespace, so the body must",
        )),
        namespace => Ok(alias::collection(namespace)),
    }
}

impl<'a> Call<'a> {
    /// The media types that the documents of this kind name for others.
    pub(super) fn media_aliases(&self) -> &'static [(&'static str, MediaType)] {
        if self.row.resource.group == alias::GROUP { MEDIA_ALIASES } else { &[] }
    }

    pub(super) fn warn(&self, warnings: Vec<String>) {
        self.warnings.lock().extend(warnings);
    }

    fn is_item(&self) -> bool {
        self.asked.info.parts.len() > 1
    }

    /// What may be done with the resource, subresource or collection that the path names.
    fn allows(&self, verb: &str) -> bool {
        if let Some(subresource) = self.subresource {
            return subresource.verbs.contains(&verb);
        }
        let of_item = matches!(verb, "get" | "update" | "patch" | "delete");
        let of_collection = matches!(verb, "list" | "create" | "deletecollection");
        let fits = verb == "watch" || (if self.is_item() { of_item } else { of_collection });
        // A namespaced kind across all namespaces can only be read.
        let everywhere = self.row.resource.namespaced && self.asked.info.namespace.is_empty();
        fits && !(everywhere && matches!(verb, "create" | "deletecollection"))
            && self.row.resource.verbs.iter().any(|v| v == verb)
    }

    /// How a verb is refused: by the router, or, for custom resources, by their handler.
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
        let verb = self.asked.info.verb.as_str();
        if !self.allows(verb) {
            return Err(self.refuse_verb(verb));
        }
        if verb == "patch" {
            // The router looks at a patch's type before anything else.
            PatchKind::from_content_type(self.asked.content_type(), self.row.resource.custom)?;
        }
        let has_body = self.asked.headers.get(CONTENT_TYPE).is_some()
            || self.asked.headers.get("content-length").is_some_and(|l| l != "0");
        negotiate::route(self.asked.accept(), self.endpoint(), self.asked.method.as_str(), has_body)?;
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

    pub(super) fn endpoint(&self) -> Endpoint {
        let table = self.row.strategy().is_some()
            && !matches!(self.subresource.map(|s| &s.handler), Some(Handler::Create(_)));
        let watchable =
            self.asked.method == http::Method::GET && !self.is_item() && self.row.strategy().is_some();
        Endpoint { custom: self.row.resource.custom, table, watchable }
    }

    /// The form of the answer, or 406.
    pub(super) fn form(&self) -> Result<Form<'a>, Status> {
        let asked = self.asked;
        let accepted =
            negotiate::output(asked.accept(), self.endpoint(), asked.query.pairs(), asked.user_agent())?;
        self.form_of(accepted)
    }

    pub(super) fn form_of(&self, accepted: Output) -> Result<Form<'a>, Status> {
        let include = render::include_object(&self.asked.query, accepted)?;
        Ok(Form { row: self.row, version: self.version, accepted, include, now: self.asked.now })
    }

    pub(super) fn scope(&self, strategy: &'a dyn Strategy, options: &'a WriteOptions) -> Scope<'a> {
        let info = &self.asked.info;
        Scope {
            row: self.row,
            version: self.version,
            user: &self.asked.user,
            namespace: if self.row.resource.namespaced { &info.namespace } else { "" },
            name: if self.is_item() || self.subresource.is_some() { &info.name } else { "" },
            subresource: &info.subresource,
            strategy,
            options,
            user_agent: self.asked.user_agent(),
            now: self.asked.now,
        }
    }

    fn reply(&self, code: u16, form: &Form<'_>, bytes: Bytes, warnings: Vec<String>) -> Reply {
        Reply::new(code, form.accepted.media.as_str(), bytes).warned(warnings)
    }

    fn written(&self, form: &Form<'_>, written: Written) -> Result<Reply, Status> {
        let code = if written.created { 201 } else { 200 };
        Ok(self.reply(code, form, form.tree(&written.object)?, written.warnings))
    }

    async fn get(&self, strategy: &Arc<dyn Strategy>) -> Result<Reply, Status> {
        let form = self.form()?;
        let version = self.asked.query.get("resourceVersion").unwrap_or_default();
        let options = WriteOptions::default();
        let object = self.inner.registry.get(&self.scope(&**strategy, &options), version).await?;
        Ok(self.reply(200, &form, form.stored(&object)?, Vec::new()))
    }

    /// List options, checked against the fields that this kind lets a selector name.
    pub(super) fn list_options(&self, strategy: &dyn Strategy) -> Result<ListOptions, Status> {
        let options = options::list(self.asked.query.pairs())?;
        let resource = &self.row.resource;
        let mut supported: Vec<String> = resource.selectable_fields.clone();
        supported.retain(|label| strategy.is_selectable(&self.version.name, label));
        supported.push("metadata.name".into());
        if resource.namespaced || !resource.custom {
            supported.push("metadata.namespace".into());
        }
        let listed = !resource.custom && resource.selectable_fields.is_empty();
        options::check_fields(&options.fields, &supported, listed)?;
        Ok(options)
    }

    async fn list(&self, strategy: &Arc<dyn Strategy>) -> Result<Reply, Status> {
        let form = self.form()?;
        let list = self.list_options(&**strategy)?;
        let options = WriteOptions::default();
        let listed = self.inner.registry.list(&self.scope(&**strategy, &options), &list).await?;
        Ok(self.reply(200, &form, form.list(&listed)?, Vec::new()))
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
                |version: &str| self.row.version(version).map_or(&self.version.schema, |v| &v.schema);
            body::decode_custom(bytes, format, target, validation, |value, version| {
                custom::decode(value, schema(version))
            })?
        } else {
            body::decode_builtin(bytes, format, target, &self.version.schema, validation)?
        };
        let mut object = decoded.value;
        strategy.default(&mut object);
        self.warn(decoded.warnings);
        self.asked.notes.object(&object);
        Ok(object)
    }

    async fn create(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let form = self.form()?;
        let media = negotiate::input(self.asked.content_type(), self.media_aliases())?;
        let bytes = read.await?;
        let query = options::write(self.asked.query.pairs(), Write::Create)?;
        let object = self.decode(&bytes, media, &**strategy, query.field_validation)?;
        let options = write_options(&query);
        let written = self.inner.registry.create(&self.scope(&**strategy, &options), object).await?;
        self.written(&form, written)
    }

    async fn update(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let form = self.form()?;
        let bytes = read.await?;
        let query = options::write(self.asked.query.pairs(), Write::Update)?;
        let media = negotiate::input(self.asked.content_type(), self.media_aliases())?;
        let object = self.decode(&bytes, media, &**strategy, query.field_validation)?;
        let options = write_options(&query);
        let written = self.inner.registry.update(&self.scope(&**strategy, &options), object).await?;
        self.written(&form, written)
    }

    async fn patch(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let kind = PatchKind::from_content_type(self.asked.content_type(), self.row.resource.custom)?;
        let form = self.form()?;
        let bytes = read.await?;
        let write = if kind == PatchKind::Apply { Write::Apply } else { Write::Patch };
        let query = options::write(self.asked.query.pairs(), write)?;
        let request = patch_request(kind, &bytes, &query)?;
        let options = write_options(&query);
        let written = self.inner.registry.patch(&self.scope(&**strategy, &options), &request).await?;
        self.written(&form, written)
    }

    /// The options of a deletion. A body that is not empty must say what it is.
    fn delete_options(&self, bytes: &[u8]) -> Result<options::DeleteOptions, Status> {
        let format = if bytes.is_empty() {
            body::Format::Json
        } else {
            negotiate::input(self.asked.content_type(), self.media_aliases())?.format()
        };
        options::delete(bytes, format, self.asked.query.pairs())
    }

    async fn delete(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let form = self.form()?;
        let request = self.delete_options(&read.await?)?;
        let options = WriteOptions { dry_run: request.dry_run, ..WriteOptions::default() };
        let scope = self.scope(&**strategy, &options);
        let deleted = self.inner.registry.delete(&scope, &request).await?;
        if deleted.gone && !self.row.resource.delete_returns_object {
            let status = render::deleted(self.row, scope.name, &deleted.object);
            self.asked.notes.deleted(&status);
            let plain = Output { convert_to: None, ..form.accepted };
            return Ok(self.reply(200, &form, render::encode(&status, plain)?, Vec::new()));
        }
        // Only who asked for it by the old name is told that it is not gone yet.
        let code = if !deleted.gone && request.orphan_dependents == Some(false) { 202 } else { 200 };
        Ok(self.reply(code, &form, form.tree(&deleted.object)?, Vec::new()))
    }

    async fn delete_collection(
        &self,
        strategy: &Arc<dyn Strategy>,
        read: impl Future<Output = Result<Bytes, Status>> + Send,
    ) -> Result<Reply, Status> {
        let form = self.form()?;
        let list = self.list_options(&**strategy)?;
        let request = self.delete_options(&read.await?)?;
        let options = WriteOptions { dry_run: request.dry_run, ..WriteOptions::default() };
        let scope = self.scope(&**strategy, &options);
        let listed = self.inner.registry.delete_collection(&scope, &list, &request).await?;
        Ok(self.reply(200, &form, form.list(&listed)?, Vec::new()))
    }
}

pub(super) fn write_options(query: &WriteQuery) -> WriteOptions {
    WriteOptions { dry_run: query.dry_run, field_manager: query.field_manager.clone() }
}

/// Reads the document of a patch.
fn patch_request(kind: PatchKind, bytes: &[u8], query: &WriteQuery) -> Result<PatchRequest, Status> {
    let validation = query.field_validation;
    let read = patch::read(kind, bytes, validation)?;
    Ok(PatchRequest {
        kind,
        document: read.value,
        duplicates: read.duplicates,
        validation,
        force: query.force,
    })
}
