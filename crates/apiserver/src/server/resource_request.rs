//! A request for a resource, as the handlers of its verbs see it.

use super::context::RequestContext;
use super::render::{self, Renderer};
use super::state::ServerState;
use crate::alias;
use crate::catalog::Row;
use crate::registry::Scope;
use crate::strategy::{Handler, Strategy, Subresource, Version, WriteOptions};
use fleetpass_apimachinery::status::Status;
use fleetpass_codec::negotiate::{self, Endpoint, MediaType, Output};
use fleetpass_codec::options::{self, ListOptions, WriteQuery};
use parking_lot::Mutex;
use std::sync::Arc;

/// Media types that stand for another one; only for the kind whose published API document uses them ([`alias`]).
pub(super) const MEDIA_ALIASES: &[(&str, MediaType)] = &[(alias::MEDIA_TYPE, MediaType::Yaml)];

/// A request whose kind is known.
pub(super) struct ResourceRequest<'a> {
    pub(super) state: &'a Arc<ServerState>,
    pub(super) context: &'a RequestContext,
    pub(super) row: &'a Arc<Row>,
    pub(super) version: &'a Version,
    pub(super) subresource: Option<&'a Subresource>,
    /// What the client is warned of, whatever the answer. Behind a lock because handlers share the request immutably and their
    /// futures must be `Send`; it is held for a push only.
    pub(super) warnings: Mutex<Vec<String>>,
}

impl<'a> ResourceRequest<'a> {
    /// The additional media types of this kind's bodies.
    pub(super) fn media_aliases(&self) -> &'static [(&'static str, MediaType)] {
        if self.row.resource.group == alias::GROUP { MEDIA_ALIASES } else { &[] }
    }

    pub(super) fn warn(&self, warnings: Vec<String>) {
        self.warnings.lock().extend(warnings);
    }

    /// Whether the path names one object.
    pub(super) fn is_item(&self) -> bool {
        self.context.info.parts.len() > 1
    }

    /// What content negotiation needs to know: whether Tables and watches make sense here.
    pub(super) fn endpoint(&self) -> Endpoint {
        let table = self.row.strategy().is_some()
            && !matches!(self.subresource.map(|s| &s.handler), Some(Handler::Create(_)));
        let watchable =
            self.context.method == http::Method::GET && !self.is_item() && self.row.strategy().is_some();
        Endpoint { custom: self.row.resource.custom, table, watchable }
    }

    /// The form of the answer, or 406.
    pub(super) fn renderer(&self) -> Result<Renderer<'a>, Status> {
        let context = self.context;
        let accepted = negotiate::output(
            context.accept(),
            self.endpoint(),
            context.query.pairs(),
            context.user_agent(),
        )?;
        self.renderer_for(accepted)
    }

    pub(super) fn renderer_for(&self, accepted: Output) -> Result<Renderer<'a>, Status> {
        let include = render::include_object(&self.context.query, accepted)?;
        Ok(Renderer { row: self.row, version: self.version, accepted, include, now: self.context.now })
    }

    pub(super) fn scope(&self, strategy: &'a dyn Strategy, options: &'a WriteOptions) -> Scope<'a> {
        let info = &self.context.info;
        Scope {
            row: self.row,
            version: self.version,
            user: &self.context.user,
            namespace: if self.row.resource.namespaced { &info.namespace } else { "" },
            name: if self.is_item() || self.subresource.is_some() { &info.name } else { "" },
            subresource: &info.subresource,
            strategy,
            options,
            user_agent: self.context.user_agent(),
            now: self.context.now,
        }
    }

    /// List options, checked against the fields that this kind lets a selector name.
    pub(super) fn list_options(&self, strategy: &dyn Strategy) -> Result<ListOptions, Status> {
        let options = options::list(self.context.query.pairs())?;
        let resource = &self.row.resource;
        let mut supported: Vec<String> = resource.selectable_fields.clone();
        supported.retain(|label| strategy.is_selectable(&self.version.name, label));
        supported.push("metadata.name".into());
        if resource.namespaced || !resource.custom {
            supported.push("metadata.namespace".into());
        }
        // Built-in kinds without fields of their own use the default conversion function, which words its refusal differently.
        let listed = !resource.custom && resource.selectable_fields.is_empty();
        options::check_fields(&options.fields, &supported, listed)?;
        Ok(options)
    }
}

pub(super) fn write_options(query: &WriteQuery) -> WriteOptions {
    WriteOptions { dry_run: query.dry_run, field_manager: query.field_manager.clone() }
}
