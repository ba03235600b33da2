//! The table of kinds: built-in rows that never change, and rows that come and go with CRDs.
//!
//! It is the only place that knows which kinds there are: routing, discovery, OpenAPI and the registry all read it.

use crate::strategy::{Resource, Strategy, Subresource, Version};
use arc_swap::ArcSwap;
use fleetpass_apimachinery::status::GroupResource;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A row with what the registry asks of it again and again.
pub(crate) struct Row {
    /// The row itself.
    pub resource: Resource,
    /// Where its objects are stored: `/registry/secrets`, `/registry/example.com/widgets`.
    pub(crate) storage_prefix: String,
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Row")
            .field("group", &self.resource.group)
            .field("plural", &self.resource.plural)
            .finish()
    }
}

impl Row {
    /// A row of the table.
    pub(crate) fn new(resource: Resource) -> Self {
        let storage_prefix = match &resource.view {
            Some(view) => {
                let (group, plural) = view.stored_as();
                storage_prefix(group, plural)
            }
            None => storage_prefix(&resource.group, &resource.plural),
        };
        Self { resource, storage_prefix }
    }

    /// The served version of that name.
    pub(crate) fn version(&self, name: &str) -> Option<&Version> {
        self.resource.versions.iter().find(|v| v.name == name)
    }

    /// The strategy of a stored kind.
    pub(crate) fn strategy(&self) -> Option<&Arc<dyn Strategy>> {
        self.resource.strategy()
    }

    /// Group and plural, as messages print them.
    pub(crate) fn gr(&self) -> GroupResource<'_> {
        GroupResource { group: &self.resource.group, resource: &self.resource.plural }
    }

    /// Whether an object written at `revision` is stored in the form in which it is shown, so that its bytes can be served.
    pub(crate) fn is_uniform(&self, revision: fleetpass_store::Revision) -> bool {
        revision >= self.resource.uniform_since
    }

    /// The subresource of that name, if that version has it.
    pub(crate) fn subresource(&self, name: &str, version: &str) -> Option<&Subresource> {
        self.resource.subresources.iter().find(|s| s.name == name && s.is_in(version))
    }

    /// `apiVersion` in the storage version.
    pub(crate) fn storage_api_version(&self) -> String {
        match &self.resource.view {
            // The one view there is, `events.k8s.io/v1`, is stored as a core Event.
            Some(_) => "v1".into(),
            None => {
                fleetpass_apimachinery::gvk::api_version(&self.resource.group, &self.resource.storage_version)
            }
        }
    }
}

/// Where a resource is stored, as kube-apiserver lays out etcd (`/registry/...`): kinds of the groups that are
/// compiled in lie directly below, custom kinds and CRDs below their group.
pub(crate) fn storage_prefix(group: &str, plural: &str) -> String {
    // The exceptions are those of `pkg/kubeapiserver/default_storage_factory_builder.go`, for the kinds that there are here.
    let by_group = group.contains('.') && (!group.ends_with(".k8s.io") || group == "apiextensions.k8s.io");
    match (by_group, plural) {
        (true, _) => format!("/registry/{group}/{plural}"),
        (false, "nodes") => "/registry/minions".into(),
        (false, _) => format!("/registry/{plural}"),
    }
}

/// All kinds at one moment.
#[derive(Default)]
pub(crate) struct Kinds {
    rows: BTreeMap<(String, String), Arc<Row>>,
}

impl Kinds {
    /// The row of a resource.
    pub(crate) fn get(&self, group: &str, plural: &str) -> Option<&Arc<Row>> {
        // Two short allocations per request. Looking up with borrowed strings would need a key type of its own.
        self.rows.get(&(group.to_string(), plural.to_string()))
    }

    /// All rows, by group and plural.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.values()
    }

    /// The rows of a group.
    pub(crate) fn group<'a>(&'a self, group: &'a str) -> impl Iterator<Item = &'a Arc<Row>> {
        self.rows.values().filter(move |row| row.resource.group == group)
    }

    /// Whether a group is compiled in (it has a row that no CRD made).
    pub(crate) fn is_builtin_group(&self, group: &str) -> bool {
        self.group(group).any(|row| !row.resource.custom)
    }
}

/// The table of kinds, for many readers. A change replaces it as a whole, so readers take no lock, and a request that holds a
/// table sees one consistent state of it to its end.
pub(crate) struct Catalog {
    builtin: Vec<Arc<Row>>,
    kinds: ArcSwap<Kinds>,
}

impl std::fmt::Debug for Catalog {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.kinds.load().rows()).finish()
    }
}

impl Catalog {
    /// A table of the built-in rows alone.
    pub(crate) fn new(builtin: Vec<Resource>) -> Self {
        let builtin: Vec<_> = builtin.into_iter().map(|r| Arc::new(Row::new(r))).collect();
        let catalog = Self { builtin, kinds: ArcSwap::default() };
        catalog.set_custom(Vec::new());
        catalog
    }

    /// Replaces the rows that come from CRDs. A CRD can never shadow a built-in kind.
    pub(crate) fn set_custom(&self, custom: Vec<Resource>) {
        let mut rows = BTreeMap::new();
        // Built-in rows come last and overwrite: a CRD cannot take over `secrets`.
        let custom = custom.into_iter().map(|r| Arc::new(Row::new(r)));
        for row in custom.chain(self.builtin.iter().cloned()) {
            rows.insert((row.resource.group.clone(), row.resource.plural.clone()), row);
        }
        self.kinds.store(Arc::new(Kinds { rows }));
    }

    /// The table as it is now.
    pub(crate) fn kinds(&self) -> Arc<Kinds> {
        self.kinds.load_full()
    }
}
