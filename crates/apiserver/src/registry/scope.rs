//! What a request to the registry is about, and what a write answers.

use crate::cache::join_key;
use crate::catalog::Row;
use crate::strategy::{Strategy, Version, WriteOptions};
use fleetpass_apimachinery::field::ErrorList;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::user::UserInfo;
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// One request to the registry: of which kind, in which version, about which object, by whom and with which options. It
/// borrows all of it, so it is cheap to make and to vary (`Scope { name, ..scope }`).
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    /// The kind.
    pub row: &'a Arc<Row>,
    /// The version that the client speaks.
    pub version: &'a Version,
    /// The user who makes the request, after impersonation.
    pub user: &'a UserInfo,
    /// The namespace, or empty.
    pub namespace: &'a str,
    /// The name, or empty.
    pub name: &'a str,
    /// The subresource, or empty.
    pub subresource: &'a str,
    /// The strategy of the resource or subresource.
    pub strategy: &'a dyn Strategy,
    /// dry run, field manager.
    pub options: &'a WriteOptions,
    /// `User-Agent`, from which a field manager is named if the client names none.
    pub user_agent: &'a str,
    /// The moment at which the request is handled.
    pub now: Timestamp,
}

/// An object that was written (or would have been, in a dry run).
pub(crate) struct Written {
    /// The object, with its resource version unless nothing was stored.
    pub object: Value,
    /// Whether it is new.
    pub created: bool,
    /// What the client should be warned of.
    pub warnings: Vec<String>,
}

/// The object may be a Secret: it is never printed.
impl std::fmt::Debug for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Written")
            .field("created", &self.created)
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl<'a> Scope<'a> {
    pub(super) fn gr(&self) -> GroupResource<'a> {
        GroupResource { group: &self.row.resource.group, resource: &self.row.resource.plural }
    }

    pub(crate) fn key(&self, name: &str) -> Arc<str> {
        join_key(&self.row.storage_prefix, self.namespace, name)
    }

    pub(super) fn not_found(&self) -> Status {
        Status::not_found(self.gr(), self.name)
    }

    /// 422 about an object: it is spoken of under the kind that its body names, which for custom resources may be
    /// the error itself.
    pub(super) fn invalid(&self, object: &Value, errors: &ErrorList) -> Status {
        let kind = match meta::text(object, &["kind"]) {
            "" => self.row.resource.kind.as_str(),
            kind => kind,
        };
        let name = if self.name.is_empty() { meta::name(object) } else { self.name };
        Status::invalid(&self.row.resource.group, kind, name, errors)
    }
}
