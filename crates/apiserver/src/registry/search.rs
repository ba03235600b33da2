//! The objects that a query selects, found little by little. A list of a hundred thousand objects is sent while they are found;
//! one that its client does not read keeps a snapshot, which shares all with the cache, and not a pointer to each of them.

use super::candidates::{Pace, Reach};
use super::read::selects;
use super::scope::Scope;
use crate::cache::{Object, Objects};
use crate::catalog::Row;
use fleetpass_apimachinery::{FieldSelector, LabelSelector};
use fleetpass_codec::options::ListOptions;
use std::sync::Arc;

/// A search through a snapshot. It owns all it needs, because it may go on after its request was answered. A clone goes on from
/// the same place and finds the same.
#[derive(Clone)]
pub(crate) struct Search {
    objects: Objects,
    row: Arc<Row>,
    version: String,
    namespace: String,
    labels: LabelSelector,
    fields: FieldSelector,
    /// The key behind which it goes on: of the object that was looked at last.
    after: Option<Arc<str>>,
    /// How many objects are still wanted.
    wanted: usize,
    /// Whether all were looked at.
    ended: bool,
}

impl std::fmt::Debug for Search {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Search").field("row", &self.row).field("after", &self.after).finish_non_exhaustive()
    }
}

impl Search {
    /// A search for the first `wanted` objects in a snapshot, behind the key `after`.
    pub(super) fn new(
        scope: &Scope<'_>,
        query: &ListOptions,
        objects: Objects,
        after: Option<Arc<str>>,
        wanted: usize,
    ) -> Self {
        Self {
            objects,
            row: scope.row.clone(),
            version: scope.version.name.clone(),
            namespace: scope.namespace.into(),
            labels: query.labels.clone(),
            fields: query.fields.clone(),
            after,
            wanted,
            ended: false,
        }
    }

    /// A search for all objects of a row in a snapshot.
    #[cfg(test)]
    pub(crate) fn of_all(row: &Arc<Row>, objects: Objects) -> Self {
        Self {
            objects,
            row: row.clone(),
            version: row.resource.versions[0].name.clone(),
            namespace: String::new(),
            labels: LabelSelector::default(),
            fields: FieldSelector::default(),
            after: None,
            wanted: usize::MAX,
            ended: false,
        }
    }

    /// Whether more may be found.
    pub(crate) fn goes_on(&self) -> bool {
        !self.ended && self.wanted > 0
    }

    /// Whether objects have to be decoded to be found.
    pub(crate) fn decodes(&self) -> bool {
        Pace::of(&self.fields).decodes()
    }

    /// Whether all that was wanted is found.
    pub(super) fn is_full(&self) -> bool {
        self.wanted == 0
    }

    /// The key of the object that was looked at last: of the last one that was found, if none is wanted any more.
    pub(super) fn reached(&self) -> Option<&Arc<str>> {
        self.after.as_ref()
    }

    /// Whether there are objects behind what was looked at that might be selected, and how many if that is known.
    pub(super) fn behind(&self) -> (bool, Option<usize>) {
        let reach = self.reach();
        let mut candidates = reach.candidates(&self.objects, self.after.as_deref());
        let more = candidates.next().is_some();
        (more, candidates.left().map(|left| left + usize::from(more)))
    }

    /// Looks at some more objects, and adds those that are selected to `found`.
    pub(crate) fn advance(&mut self, found: &mut impl Extend<Arc<Object>>) {
        let (mut pace, mut reached, mut wanted) = (Pace::of(&self.fields), None, self.wanted);
        let reach = self.reach();
        let mut candidates = reach.candidates(&self.objects, self.after.as_deref());
        let ended = loop {
            if wanted == 0 {
                break false;
            }
            let Some(object) = candidates.next() else { break true };
            if selects(&self.row, &self.version, &self.labels, &self.fields, object, &|_, find| find()) {
                found.extend(Some(object.clone()));
                wanted -= 1;
            }
            reached = Some(&object.key);
            if pace.ends_with(object) {
                break false;
            }
        };
        let reached = reached.cloned();
        (self.ended, self.wanted) = (ended, wanted);
        self.after = reached.or_else(|| self.after.take());
    }

    fn reach(&self) -> Reach<'_> {
        Reach::new(&self.row.storage_prefix, self.row.resource.namespaced, &self.namespace, &self.fields)
    }
}
