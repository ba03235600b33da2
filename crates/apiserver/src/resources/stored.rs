//! The catalog rows of built-in kinds whose objects are stored, and what those rows have in common.

use crate::strategy::{Backing, Column, Resource, Strategy, Version};
use fleetpass_schema::openapi::builtin;
use std::sync::Arc;

/// The verbs of a stored kind, in discovery's order.
pub(super) const ALL_VERBS: &[&str] =
    &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// The verbs of a subresource that shows and changes its parent.
pub(super) const SUBRESOURCE_VERBS: &[&str] = &["get", "patch", "update"];

/// What tells one stored built-in kind from another, for [`resource`].
pub(super) struct StoredKind {
    pub(super) group: &'static str,
    pub(super) version: &'static str,
    pub(super) kind: &'static str,
    pub(super) plural: &'static str,
    /// The name of the kind's schema in the OpenAPI document.
    pub(super) definition: &'static str,
    /// Whether its objects live in namespaces.
    pub(super) namespaced: bool,
    pub(super) short_names: &'static [&'static str],
    /// What a field selector may name beside `metadata.name` and `metadata.namespace`.
    pub(super) selectable_fields: &'static [&'static str],
    pub(super) columns: Vec<Column>,
}

/// The catalog row of a stored built-in kind with one version and no subresources, as most have; a kind that differs changes
/// the row that it is given.
pub(super) fn resource(kind: StoredKind, strategy: Arc<dyn Strategy>) -> Resource {
    let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
    Resource {
        group: kind.group.into(),
        plural: kind.plural.into(),
        singular: kind.kind.to_lowercase(),
        kind: kind.kind.into(),
        list_kind: format!("{}List", kind.kind),
        short_names: owned(kind.short_names),
        // What follows is right for most kinds; those for which it is not change it in their files.
        categories: Vec::new(),
        namespaced: kind.namespaced,
        verbs: owned(ALL_VERBS),
        versions: vec![Version {
            name: kind.version.into(),
            schema: builtin(kind.definition).into(),
            columns: Arc::new(kind.columns),
            deprecation: None,
        }],
        storage_version: kind.version.into(),
        selectable_fields: owned(kind.selectable_fields),
        backing: Backing::Stored(strategy),
        subresources: Vec::new(),
        delete_returns_object: false,
        view: None,
        custom: false,
        uniform_since: 0,
    }
}
