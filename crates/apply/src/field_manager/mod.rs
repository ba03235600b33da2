//! Server-side apply, and keeping track of who owns what through all other writes
//! (`k8s.io/apimachinery/pkg/util/managedfields/internal`, `sigs.k8s.io/structured-merge-diff/merge/update.go`).

#[cfg(test)]
mod growth_tests;
mod kubectl;
mod printed;
#[cfg(test)]
mod tests;

use crate::error::{Conflicts, Error, Misfit, MisfitObject};
use crate::fieldpath::Set;
use crate::kind::PatchKind;
use crate::managed_fields::{
    Managed, Operation, Owned, Owner, is_reset, managed_fields, set_managed_fields, without_managed_fields,
};
use crate::typed::{
    Comparison, TypeRef, ValidationErrors, compare, merge, reconcile, remove, to_set, validate,
    with_named_parents, written,
};
use crate::value::{Found, equal};
use crate::words::PatchPart;
use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef, parse_group_version};
use fleetpass_schema::Schema;
use jiff::Timestamp;
use kubectl::{KUBECTL, renew_last_applied, still_as_applied};
use printed::fill_printed;
use serde_json::{Value, json};
use std::sync::LazyLock;

/// Who is said to own what was there before anybody's ownership was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that nobody owns (`stripmeta.go`): they are the server's, or tell which object it is.
static UNOWNED: LazyLock<Set> = LazyLock::new(|| {
    Set::of(&[
        "apiVersion",
        "kind",
        "metadata",
        "metadata.name",
        "metadata.namespace",
        "metadata.creationTimestamp",
        "metadata.selfLink",
        "metadata.uid",
        "metadata.clusterName",
        "metadata.generation",
        "metadata.managedFields",
        "metadata.resourceVersion",
    ])
});

/// The field manager of one write: who writes what kind of object, and all else that ownership of fields depends on
/// (`managedfields.FieldManager`).
///
/// ```
/// use fleetpass_apimachinery::gvk::GvkRef;
/// use fleetpass_apply::fieldpath::{PathElement, Set};
/// use fleetpass_apply::{Error, FieldManager};
/// use fleetpass_schema::openapi::builtin;
/// use serde_json::{Value, json};
///
/// let schema = builtin("io.k8s.api.core.v1.ConfigMap");
/// let none = Set::new();
/// let manager = |name| FieldManager {
///     name,
///     schema: &schema,
///     kind: GvkRef { group: "", version: "v1", kind: "ConfigMap" },
///     subresource: "",
///     reset_fields: &none,
///     known_versions: &["v1"],
///     now: "2026-01-01T00:00:00Z".parse().unwrap(),
/// };
/// let configuration = |color: &str| {
///     json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"color": color}})
/// };
///
/// let object = manager("alice").apply(None, &configuration("red"), false)?;
/// assert_eq!(object["metadata"]["managedFields"][0]["fieldsV1"], json!({"f:data": {"f:color": {}}}));
///
/// let error = manager("bob").apply(Some(&object), &configuration("blue"), false).unwrap_err();
/// let Error::Conflicts(conflicts) = error else { panic!("{error}") };
/// assert_eq!(conflicts.to_string(), "Apply failed with 1 conflict: conflict with \"alice\": .data.color");
/// assert_eq!(conflicts.conflicts[0].owner.manager, "alice");
/// assert_eq!(conflicts.conflicts[0].path.last(), Some(&PathElement::field("color")));
///
/// let object = manager("bob").apply(Some(&object), &configuration("blue"), true)?;
/// assert_eq!(object["data"], json!({"color": "blue"}));
/// # Ok::<(), Error>(())
/// ```
#[derive(Debug, Clone, Copy)]
pub struct FieldManager<'a> {
    /// The name of the manager ([`manager_name`](crate::manager_name)).
    pub name: &'a str,
    /// The schema of the kind in the version of the request; one with a Go type is a built-in kind.
    pub schema: &'a Schema,
    /// The kind, in the version of the request.
    pub kind: GvkRef<'a>,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// The fields that the write cannot change, such as `status` on the object itself (`GetResetFields`); writers do not
    /// come to own them.
    pub reset_fields: &'a Set,
    /// The `apiVersion`s in which the kind is known, this one included; entries of others are dropped. If there are none,
    /// no entry is. Entries of all known versions are taken to name the same fields: there is no conversion.
    pub known_versions: &'a [&'a str],
    /// The present moment.
    pub now: Timestamp,
}

impl FieldManager<'_> {
    /// Applies `configuration` (the decoded body) to the object that is served in the manager's version, or to nothing.
    /// Gives the object with its `managedFields`, not yet decoded, defaulted or validated; fields that the manager
    /// applied before, does not apply now, and that nobody else owns are gone. Fields that become empty may be null.
    ///
    /// `force` takes what others own.
    ///
    /// # Errors
    /// [`Error::NotAPatch`], [`Error::WrongKind`] and [`Error::ManagedFieldsGiven`] for such a configuration,
    /// [`Error::DoesNotFit`] where it or the object has values that its schema does not allow, [`Error::Conflicts`] unless
    /// `force`, [`Error::ManagedFields`] and [`Error::Unmergeable`] for a stored object that is out of order.
    pub fn apply(&self, live: Option<&Value>, configuration: &Value, force: bool) -> Result<Value, Error> {
        self.check_kind(configuration)?;
        let is_kubectl = self.name == KUBECTL;
        let mut applied = match self.apply_tracked(live, configuration, force)? {
            Attempt::Applied(applied) => applied,
            Attempt::Contested(contested) => {
                let allowed = match live.filter(|_| is_kubectl) {
                    Some(live) => still_as_applied(self.type_ref(), &self.kind.api_version(), live),
                    None => None,
                };
                let left = match &allowed {
                    Some(allowed) => contested
                        .into_iter()
                        .map(|(owner, fields)| (owner, fields.difference(allowed)))
                        .filter(|(_, fields)| !fields.is_empty())
                        .collect(),
                    None => contested,
                };
                let again = if left.is_empty() {
                    self.apply_tracked(live, configuration, true)?
                } else {
                    Attempt::Contested(left)
                };
                match again {
                    Attempt::Applied(applied) => applied,
                    Attempt::Contested(left) => return Err(Error::Conflicts(Conflicts::of(&left))),
                }
            }
        };
        if is_kubectl {
            renew_last_applied(&mut applied, configuration);
        }
        Ok(applied)
    }

    /// Sets the `metadata.managedFields` of `new`, which the manager is about to store in place of `live`, on every write
    /// but an apply. `new` may bring its own `managedFields`: well-formed entries are taken as the truth, an empty list
    /// (or one empty entry) forgets all owners, anything else is ignored. Objects without owners stay so.
    ///
    /// An object that does not fit the schema loses its owners, as with a real server (`FieldManager.UpdateNoErrors`):
    /// refusing it is the part of validation.
    pub fn update(&self, live: Option<&Value>, new: &mut Value) {
        let live_list = live.and_then(managed_fields);
        let from_live = || Managed::decode(live_list).unwrap_or_default();
        let managed = if self.subresource.is_empty() {
            let list = managed_fields(new);
            if is_reset(list) {
                Managed::default()
            } else {
                Managed::decode(list).ok().filter(|managed| !managed.0.is_empty()).unwrap_or_else(from_live)
            }
        } else {
            // Writers of a subresource cannot change who owns the object.
            from_live()
        };
        // Nobody owns this object, or not any more. To begin now would make this writer the owner of what it changes, and
        // nobody that of the rest; the next apply begins properly (`skipnonapplied.go`).
        if managed.0.is_empty() && live.is_some() {
            return set_managed_fields(new, None);
        }
        let old = live.map_or_else(|| self.empty_object(), |live| self.printed(live));
        let list = self
            .track(&old, &self.printed(new), managed, self.name)
            .ok()
            .and_then(|managed| managed.encode());
        set_managed_fields(new, list);
    }

    fn type_ref(&self) -> TypeRef<'_> {
        TypeRef::root(self.schema)
    }

    /// An object of the kind of which nothing is set.
    fn empty_object(&self) -> Value {
        self.filled(json!({"apiVersion": self.kind.api_version(), "kind": self.kind.kind}))
    }

    /// The object with the members that Go prints even when they are not set.
    fn printed(&self, object: &Value) -> Value {
        self.filled(without_managed_fields(object))
    }

    fn filled(&self, mut object: Value) -> Value {
        if self.schema.go_type.is_some() {
            fill_printed(self.schema, &mut object);
        }
        object
    }

    /// The managers of known versions, their sets as the present schema has it.
    fn reconciled(&self, managed: Managed) -> Managed {
        let known = |owned: &Owned| {
            self.known_versions.is_empty() || self.known_versions.contains(&owned.api_version.as_str())
        };
        let entries = managed.0.into_iter().filter(|(_, owned)| known(owned));
        Managed(
            entries
                .map(|(owner, owned)| {
                    (owner, Owned { fields: reconcile(self.type_ref(), &owned.fields), ..owned })
                })
                .collect(),
        )
    }

    fn check_kind(&self, configuration: &Value) -> Result<(), Error> {
        if !configuration.is_object() && !configuration.is_null() {
            return Err(Error::NotAPatch {
                kind: PatchKind::Apply,
                validated: false,
                part: PatchPart::Object,
                found: Found::from(configuration),
            });
        }
        let text = |name: &str| configuration.get(name).and_then(Value::as_str).unwrap_or("");
        let (group, version, kind) = match parse_group_version(text("apiVersion")) {
            Ok((group, version)) => (group, version, text("kind")),
            // Kubernetes speaks of no kind at all then.
            Err(_) => ("", "", ""),
        };
        if (GvkRef { group, version, kind }) == self.kind {
            return Ok(());
        }
        let found = GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() };
        Err(Error::WrongKind(found))
    }

    /// The managers of an object to which something is applied. One that nobody owned, because it was stored before
    /// anybody tracked that, is owned by [`BEFORE_FIRST_APPLY`]: the first applier is not to take all of it unasked.
    fn managers_before(&self, live: Option<&Value>) -> Result<Managed, Error> {
        let managed = Managed::decode(live.and_then(managed_fields)).map_err(Error::ManagedFields)?;
        match live {
            Some(live) if managed.0.is_empty() => self
                .track(&self.empty_object(), &self.printed(live), managed, BEFORE_FIRST_APPLY)
                .map_err(Error::Untracked),
            _ => Ok(managed),
        }
    }

    fn apply_tracked(
        &self,
        live: Option<&Value>,
        configuration: &Value,
        force: bool,
    ) -> Result<Attempt, Error> {
        // What is checked first is what a client hears of: the order of the checks is Kubernetes'.
        let managed = self.managers_before(live)?;
        if configuration.pointer("/metadata/managedFields").is_some_and(Value::is_array) {
            return Err(Error::ManagedFieldsGiven);
        }
        let schema = self.type_ref();
        validate(schema, configuration, false).map_err(|errors| {
            Error::DoesNotFit(self.misfit(MisfitObject::Configuration, configuration, errors))
        })?;
        let base = match live {
            Some(live) => without_managed_fields(live),
            None => json!({"apiVersion": self.kind.api_version(), "kind": self.kind.kind}),
        };
        validate(schema, &base, true)
            .map_err(|errors| Error::DoesNotFit(self.misfit(MisfitObject::Live, &base, errors)))?;
        let mut managed = self.reconciled(managed);
        let merged = merge(schema, &base, configuration).map_err(Error::Unmergeable)?;

        let me = Owner::new(self.name, Operation::Apply, "", self.subresource);
        let fields = to_set(schema, configuration).recursive_difference(self.reset_fields);
        let last = managed.0.remove(&me);
        let time = last.as_ref().and_then(|last| last.time);
        // Before pruning: what the manager applies now stays, though it owned it last time too.
        managed.0.insert(me.clone(), Owned { fields, api_version: self.kind.api_version(), time });
        let object = match last {
            Some(last) if !last.fields.is_empty() => prune(schema, &merged, &managed, &last.fields),
            _ => merged,
        };
        let comparison = compare(schema, &base, &object).excluding(self.reset_fields);
        let contested = take(&mut managed, &comparison, Some(&me), force);
        if !contested.is_empty() {
            return Ok(Attempt::Contested(contested));
        }

        let changed = !equal(&base, &object);
        if let Some(mine) = managed.0.get_mut(&me) {
            mine.fields = mine.fields.difference(&UNOWNED);
            if changed || live.is_none() {
                mine.time = Some(self.now);
            }
        }
        managed.0.retain(|_, owned| !owned.fields.is_empty());
        let mut object = if changed { object } else { base };
        set_managed_fields(&mut object, managed.encode());
        Ok(Attempt::Applied(object))
    }

    /// The managers after `name` turned `old` into `new` by an update.
    fn track(&self, old: &Value, new: &Value, managed: Managed, name: &str) -> Result<Managed, Box<Misfit>> {
        let schema = self.type_ref();
        for (which, object) in [(MisfitObject::UpdateNew, new), (MisfitObject::UpdateOld, old)] {
            validate(schema, object, true).map_err(|errors| self.misfit(which, object, errors))?;
        }
        let mut managed = self.reconciled(managed);
        let fields = if managed.0.is_empty() {
            // Nobody loses anything: each create and each TokenRequest comes here.
            written(schema, old, new, self.reset_fields, &UNOWNED)
        } else {
            let comparison = compare(schema, old, new).excluding(self.reset_fields);
            // An update takes what it changes from whoever owns it: with force there are no conflicts.
            take(&mut managed, &comparison, None, true);
            comparison.modified.union(&comparison.added).difference(&UNOWNED)
        };
        if !fields.is_empty() {
            let api_version = self.kind.api_version();
            let me = Owner::new(name, Operation::Update, &api_version, self.subresource);
            let fields = match managed.0.get(&me) {
                Some(previous) => previous.fields.union(&fields),
                None => fields,
            };
            managed.0.insert(me, Owned { fields, api_version, time: Some(self.now) });
        }
        managed.cap();
        Ok(managed)
    }

    fn misfit(&self, which: MisfitObject, object: &Value, errors: ValidationErrors) -> Box<Misfit> {
        let metadata = |name: &str| {
            let text = object.get("metadata").and_then(|metadata| metadata.get(name)).and_then(Value::as_str);
            text.unwrap_or("").to_string()
        };
        let GvkRef { group, version, kind } = self.kind;
        Box::new(Misfit {
            which,
            namespace: metadata("namespace"),
            name: metadata("name"),
            kind: GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() },
            errors,
        })
    }
}

/// `merged` without what the applier owned last time, unless somebody still owns it, itself included.
fn prune(schema: TypeRef<'_>, merged: &Value, managed: &Managed, last: &Set) -> Value {
    let named = |set: &Set| with_named_parents(Some(schema), set);
    let all = named(&to_set(schema, merged));
    let last = named(last);
    // First without all that it owned. Then without that, except what somebody owns: an element of a list goes as a whole,
    // so what others own in it has to be brought back. Then only that is taken away which it owned itself.
    let pruned = remove(schema, merged, &last);
    let mut owned = Set::new();
    managed.0.values().for_each(|more| owned.union_with(more.fields.clone()));
    let keep = named(&to_set(schema, &pruned)).union(&named(&owned));
    let pruned = remove(schema, merged, &all.difference(&keep));
    let gone = all.difference(&named(&to_set(schema, &pruned))).intersection(&last);
    remove(schema, merged, &gone)
}

/// What came of an apply.
enum Attempt {
    /// The object with its `managedFields`.
    Applied(Value),
    /// What others own of what would be changed, by owner; there is something, and no set is empty.
    Contested(Vec<(Owner, Set)>),
}

/// Takes from all managers but `except` what the write changes, and gives what is contested: without `force`, changing or
/// adding what somebody else owns is a conflict. Managers that own nothing any more are dropped.
fn take(
    managed: &mut Managed,
    comparison: &Comparison,
    except: Option<&Owner>,
    force: bool,
) -> Vec<(Owner, Set)> {
    let written = comparison.modified.union(&comparison.added);
    let mut conflicts = Vec::new();
    for (owner, owned) in managed.0.iter_mut().filter(|(owner, _)| Some(*owner) != except) {
        let contested = owned.fields.intersection(&written);
        owned.fields = owned.fields.difference(&contested).difference(&comparison.removed);
        if !force && !contested.is_empty() {
            conflicts.push((owner.clone(), contested));
        }
    }
    managed.0.retain(|_, owned| !owned.fields.is_empty());
    conflicts
}
