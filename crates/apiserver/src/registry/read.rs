//! get and list, from the watch cache alone: no read of an object ever goes to the store.

use super::conversion::present;
use super::engine::Registry;
use super::errors::cache_error;
use super::pages;
use super::resource_version::parse_revision;
use super::scope::Scope;
use super::search::Search;
use crate::cache::{Object, Objects};
use crate::catalog::Row;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::{FieldSelector, LabelSelector};
use fleetpass_codec::options::{ListOptions, VersionMatch};
use fleetpass_store::Revision;
use std::sync::Arc;

/// How many objects of a list are found before it is answered, at least if there are as many. The rest is found while the
/// answer is sent. Pages are mostly shorter than this.
const FOUND_AT_FIRST: usize = 1024;

/// The answer to a list.
#[derive(Debug, Clone)]
pub(crate) struct Listed {
    /// The revision at which this is the truth.
    pub revision: Revision,
    /// The first objects, ordered by namespace and name.
    pub objects: Vec<Arc<Object>>,
    /// Finds those that follow.
    pub rest: Option<Search>,
    /// Where the next page begins; empty: this was all.
    pub continue_token: String,
    /// How many objects follow; unknown with selectors.
    pub remaining: Option<usize>,
}

impl Listed {
    /// The same with all objects found. As many pointers as there are objects: not for answers to reads.
    pub(super) async fn all(mut self) -> Self {
        while let Some(rest) = self.rest.as_mut().filter(|rest| rest.goes_on()) {
            rest.advance(&mut self.objects);
            tokio::task::yield_now().await;
        }
        self.rest = None;
        self
    }
}

impl Registry {
    /// One object. Without a `resource_version` it is the newest; with one, any state that is not older
    /// (`resourceVersion` in the API concepts): `0` takes what the cache has without asking the store.
    pub(crate) async fn get(&self, scope: &Scope<'_>, resource_version: &str) -> Result<Arc<Object>, Status> {
        match resource_version {
            "" => self.wait_until_fresh().await?,
            text => {
                let revision = parse_revision(text).map_err(Status::plain_error)?;
                self.cache.wait_for_fresh(revision).await.map_err(cache_error)?;
            }
        }
        self.cache.get(&scope.key(scope.name)).ok_or_else(|| scope.not_found())
    }

    /// The objects of a resource that a query selects, at one revision. Linear in what it returns; with selectors other than of
    /// names and namespaces, linear in the objects of the namespace. They are not decoded, unless a field selector needs to look
    /// into them. Gives way to others between steps.
    pub(crate) async fn list(&self, scope: &Scope<'_>, query: &ListOptions) -> Result<Listed, Status> {
        let (revision, objects, after) = self.objects_for(scope, query).await?;
        let prefix = &scope.row.storage_prefix;
        let after = after.map(|start| format!("{prefix}/{start}").into());
        // With resourceVersion=0 a list is served whole from memory, whatever the limit.
        let limit = if query.resource_version == "0" { 0 } else { usize::try_from(query.limit).unwrap_or(0) };
        let wanted = if limit > 0 { limit } else { usize::MAX };
        let mut search = Search::new(scope, query, objects, after, wanted);
        let mut found = Vec::new();
        search.advance(&mut found);
        while search.goes_on() && found.len() < FOUND_AT_FIRST {
            tokio::task::yield_now().await;
            search.advance(&mut found);
        }
        let mut listed =
            Listed { revision, objects: found, rest: None, continue_token: String::new(), remaining: None };
        if limit > 0 {
            end_page(scope, query, &search, &mut listed).await;
        }
        listed.rest = search.goes_on().then_some(search);
        Ok(listed)
    }

    /// The objects at the revision that a query asks for, and the key behind which the page begins. The objects are a snapshot:
    /// writers go on and this list does not change.
    async fn objects_for(
        &self,
        scope: &Scope<'_>,
        query: &ListOptions,
    ) -> Result<(Revision, Objects, Option<String>), Status> {
        let prefix = &scope.row.storage_prefix;
        if !query.continue_token.is_empty() {
            if !matches!(query.resource_version.as_str(), "" | "0") {
                return Err(Status::bad_request(
                    "specifying resource version is not allowed when using continue",
                ));
            }
            let (revision, start) = pages::decode(&query.continue_token)?;
            let start =
                if scope.namespace.is_empty() { start } else { format!("{}/{start}", scope.namespace) };
            self.wait_until_fresh().await?;
            // "Inconsistent continue": the client prefers newer objects over starting again.
            let Some(revision) = revision else {
                let (revision, objects) = self.cache.snapshot(prefix);
                return Ok((revision, objects, Some(start)));
            };
            // All pages of a list show the revision of the first one, rewound from the present through the window of events.
            // Once that is forgotten, the client has to start over.
            let expired = |_| {
                Status::expired(
                    "The provided continue parameter is too old to display a consistent list result. \
                     You must start a new list without the continue parameter.",
                )
            };
            let objects = self.cache.snapshot_at(prefix, revision).map_err(expired)?;
            return Ok((revision, objects, Some(start)));
        }
        if query.resource_version.is_empty() {
            self.wait_until_fresh().await?;
            let (revision, objects) = self.cache.snapshot(prefix);
            return Ok((revision, objects, None));
        }
        let asked = parse_revision(&query.resource_version)
            .map_err(|why| Status::bad_request(format!("invalid resource version: {why}")))?;
        self.cache.wait_for_fresh(asked).await.map_err(cache_error)?;
        let exact = query.resource_version_match == Some(VersionMatch::Exact)
            // Without a match a limited list at a revision is exact (the "legacy" rule of the API concepts).
            || (query.resource_version_match.is_none() && query.limit > 0 && asked > 0);
        if exact {
            let objects = self.cache.snapshot_at(prefix, asked).map_err(cache_error)?;
            return Ok((asked, objects, None));
        }
        let (revision, objects) = self.cache.snapshot(prefix);
        Ok((revision, objects, None))
    }

    /// Whether the initial state of a watch with these selectors shows `object`.
    pub(super) fn selects(
        &self,
        scope: &Scope<'_>,
        labels: &LabelSelector,
        fields: &FieldSelector,
        object: &Object,
    ) -> bool {
        selects(scope.row, &scope.version.name, labels, fields, object, &|_, find| find())
    }

    /// Whether a watch with these selectors shows `object`. Its fields are remembered, because others look at the same event.
    pub(super) fn selects_of_event(
        &self,
        scope: &Scope<'_>,
        labels: &LabelSelector,
        fields: &FieldSelector,
        object: &Arc<Object>,
    ) -> bool {
        let version = (scope.row.resource.group.as_str(), scope.version.name.as_str());
        // Of an object that was stored under an earlier schema, watchers that began before the change see another form than those
        // that began after it.
        let alike = scope.row.is_uniform(object.revision);
        selects(scope.row, &scope.version.name, labels, fields, object, &|field, find| {
            if alike { self.selected.value(object, version, field, find) } else { find() }
        })
    }
}

/// Says in the list where the next page begins. The list's head has that in it, so the end of the page is looked for before the
/// page is sent.
async fn end_page(scope: &Scope<'_>, query: &ListOptions, search: &Search, listed: &mut Listed) {
    let mut end = search.clone();
    let mut passed = Vec::new();
    while end.goes_on() {
        tokio::task::yield_now().await;
        passed.clear();
        end.advance(&mut passed);
    }
    let Some(last) = end.reached() else { return };
    // The page is full, and another object follows. Whether a selector would select any of those that follow is not known, so the
    // next page may be empty, and `remainingItemCount` is left out (as in the API).
    let (more, behind) = end.behind();
    if end.is_full() && more {
        let last = &last[scope.row.storage_prefix.len() + 1..];
        let last = if scope.namespace.is_empty() { last } else { &last[scope.namespace.len() + 1..] };
        listed.continue_token = pages::encode(listed.revision, last);
        let selective = !query.labels.is_empty() || !query.fields.is_empty();
        listed.remaining = behind.filter(|_| !selective);
    }
}

/// Whether selectors fit an object. Fields other than name and namespace are the strategy's to read; `known` gives the value of
/// such a field, which the function it is given finds in the object.
pub(super) fn selects(
    row: &Row,
    version: &str,
    labels: &LabelSelector,
    fields: &FieldSelector,
    object: &Object,
    known: &dyn Fn(&str, &mut dyn FnMut() -> String) -> String,
) -> bool {
    if !labels.matches_sorted(&object.labels) {
        return false;
    }
    if fields.is_empty() {
        return true;
    }
    let (namespace, name) = object.namespace_and_name();
    // Decoded once, and only if a field other than name and namespace is selected by.
    let mut tree = None;
    fields.matches(|field| match field {
        "metadata.name" => name.to_string(),
        "metadata.namespace" => namespace.to_string(),
        other => known(other, &mut || {
            let tree = tree.get_or_insert_with(|| present(row, version, object));
            row.strategy().map(|strategy| strategy.selectable_field(tree, other)).unwrap_or_default()
        }),
    })
}
