//! The table of kinds: built-in rows that never change, and rows that come and go with CRDs.
//!
//! It is the only place that knows which kinds there are: routing, discovery, OpenAPI and the registry all read it.

use crate::cache::RankedMap;
use crate::discovery::{Documents, GroupDocuments};
use crate::strategy::{Resource, Strategy, Subresource, Version};
use arc_swap::ArcSwap;
use fleetpass_apimachinery::status::GroupResource;
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

/// All kinds at one moment. A table is never changed: the next one shares all groups with it but the one that differs.
#[derive(Default)]
pub(crate) struct Kinds {
    /// Persistent, as the maps of rows: making the next table costs the logarithm of their number, whichever row changes.
    groups: RankedMap<Arc<str>, Arc<Group>>,
    /// The discovery documents of all groups together.
    documents: Documents,
}

/// The kinds of one group. Unchanged groups are shared by all tables, with what was derived from them.
#[derive(Default)]
pub(crate) struct Group {
    rows: RankedMap<Arc<str>, Arc<Row>>,
    /// How many of them no CRD made.
    builtin: usize,
    /// The discovery documents of the group, made when somebody asks.
    pub(crate) documents: GroupDocuments,
}

impl Group {
    /// The rows, by plural name.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.rows.iter().map(|(_, row)| row)
    }
}

impl Kinds {
    /// The row of a resource.
    pub(crate) fn get(&self, group: &str, plural: &str) -> Option<&Arc<Row>> {
        self.groups.get(group)?.rows.get(plural)
    }

    /// All rows, by group and plural.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Arc<Row>> {
        self.groups().flat_map(|(_, group)| group.rows())
    }

    /// All groups, by name.
    pub(crate) fn groups(&self) -> impl Iterator<Item = (&str, &Arc<Group>)> {
        self.groups.iter().map(|(name, group)| (&**name, group))
    }

    /// The group of that name.
    pub(crate) fn find_group(&self, group: &str) -> Option<&Arc<Group>> {
        self.groups.get(group)
    }

    /// The rows of a group.
    pub(crate) fn group(&self, group: &str) -> impl Iterator<Item = &Arc<Row>> {
        self.groups.get(group).into_iter().flat_map(|group| group.rows())
    }

    /// Whether a group is compiled in (it has a row that no CRD made).
    pub(crate) fn is_builtin_group(&self, group: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.builtin > 0)
    }

    /// The discovery documents of all groups together.
    pub(crate) fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The table with one row more, or with another in its place.
    fn with(&self, row: Arc<Row>) -> Self {
        let (group, plural) = (row.resource.group.as_str(), Arc::from(row.resource.plural.as_str()));
        let (mut rows, mut builtin) = self.parts(group);
        builtin += usize::from(!row.resource.custom);
        rows.insert(plural, Arc::clone(&row));
        self.with_group(group, rows, builtin)
    }

    /// The table without the row of a CRD.
    fn without(&self, group: &str, plural: &str) -> Self {
        let (mut rows, builtin) = self.parts(group);
        rows.remove(plural);
        self.with_group(group, rows, builtin)
    }

    fn parts(&self, group: &str) -> (RankedMap<Arc<str>, Arc<Row>>, usize) {
        self.groups.get(group).map(|group| (group.rows.clone(), group.builtin)).unwrap_or_default()
    }

    fn with_group(&self, name: &str, rows: RankedMap<Arc<str>, Arc<Row>>, builtin: usize) -> Self {
        let (name, mut groups) = (Arc::from(name), self.groups.clone());
        if rows.len() == 0 {
            groups.remove(&*name);
        } else {
            // Without the documents of the group as it was.
            let group = Group { rows, builtin, documents: GroupDocuments::default() };
            groups.insert(name, Arc::new(group));
        }
        Self { groups, documents: Documents::default() }
    }
}

/// The table of kinds, for many readers. A change replaces it as a whole, so readers take no lock, and a request that holds a
/// table sees one consistent state of it to its end.
pub(crate) struct Catalog {
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
        let empty = Kinds::default();
        let kinds = builtin.into_iter().fold(empty, |kinds, r| kinds.with(Arc::new(Row::new(r))));
        Self { kinds: ArcSwap::from_pointee(kinds) }
    }

    /// Puts the row of a CRD in place, beside all others or instead of the one that the CRD had. A CRD can never shadow a
    /// built-in kind.
    pub(crate) fn put_custom(&self, row: &Arc<Row>) {
        let (group, plural) = (&row.resource.group, &row.resource.plural);
        self.kinds.rcu(|kinds| match kinds.get(group, plural) {
            Some(there) if !there.resource.custom => Arc::clone(kinds),
            _ => Arc::new(kinds.with(Arc::clone(row))),
        });
    }

    /// Takes the row of a CRD away.
    pub(crate) fn remove_custom(&self, group: &str, plural: &str) {
        self.kinds.rcu(|kinds| match kinds.get(group, plural) {
            Some(there) if there.resource.custom => Arc::new(kinds.without(group, plural)),
            _ => Arc::clone(kinds),
        });
    }

    /// The table as it is now.
    pub(crate) fn kinds(&self) -> Arc<Kinds> {
        self.kinds.load_full()
    }
}
