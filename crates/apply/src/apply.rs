//! Server-side apply, and keeping track of who owns what through all other writes
//! (`k8s.io/apimachinery/pkg/util/managedfields/internal`, `sigs.k8s.io/structured-merge-diff/merge/update.go`).

use super::combine::{Comparison, compare, merge, written};
use super::fields::{PathElement, Set, path_text, same};
use super::go_text::json_kind;
use super::managed::{Identity, Managed, Operation, Owned, is_reset};
use super::shape::Shape;
use super::typed::{reconcile, remove, to_set, validate, with_named_parents};
use fleetpass_apimachinery::status::{Cause, Details, Status};
use fleetpass_schema::{Schema, Type};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

/// Who is said to own what was there before anybody's ownership was tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";
/// The manager that also keeps kubectl's own record of what it applied.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How many bytes the annotations of an object may have.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// Fields that nobody owns (`stripmeta.go`).
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

/// What is written: the kind in the version of the request, and the facts of the request that ownership depends on.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The schema of the kind in this version; one with a Go type is a built-in kind.
    pub schema: &'a Schema,
    /// The API group; empty for core.
    pub group: &'a str,
    /// The version of the request.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// The subresource that is written; empty for the object itself.
    pub subresource: &'a str,
    /// The fields that the strategy resets on this write, such as `status` on the object itself
    /// (`GetResetFields`); writers do not come to own them.
    pub reset: &'a Set,
    /// The `apiVersion`s in which the kind is known, this one included; entries of others are dropped. Entries of all
    /// known versions are taken to name the same fields.
    pub known: &'a [&'a str],
    /// The present moment.
    pub now: Timestamp,
}

impl Target<'_> {
    /// `group/version`, or the version alone in the core group.
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.into() } else { format!("{}/{}", self.group, self.version) }
    }

    fn shape(&self) -> Shape<'_> {
        Shape::root(self.schema)
    }

    /// An object of the kind of which nothing is set.
    fn empty_object(&self) -> Value {
        self.filled(json!({"apiVersion": self.api_version(), "kind": self.kind}))
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
        let known = |owned: &Owned| self.known.is_empty() || self.known.contains(&owned.api_version.as_str());
        let entries = managed.0.into_iter().filter(|(_, owned)| known(owned));
        Managed(
            entries
                .map(|(id, owned)| (id, Owned { fields: reconcile(self.shape(), &owned.fields), ..owned }))
                .collect(),
        )
    }
}

/// A field that somebody else owns.
struct Conflict {
    owner: Identity,
    path: Vec<PathElement>,
}

enum ApplyError {
    Conflicts(Vec<Conflict>),
    Refused(Status),
}

impl From<Status> for ApplyError {
    fn from(status: Status) -> Self {
        Self::Refused(status)
    }
}

/// Applies `patch` (the decoded body) for `manager` to the object that is served in the target's version, or to
/// nothing. Gives the object with its `managedFields`, not yet decoded, defaulted or validated; fields that the
/// manager applied before, does not apply now, and that nobody else owns are gone. Fields that become empty may be
/// null.
///
/// Errors: 400 for another kind or version and for a body with `managedFields`, 409 for conflicts unless `force`,
/// 500 for values that do not fit the schema.
pub fn apply(
    target: &Target<'_>,
    live: Option<&Value>,
    patch: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, Status> {
    check_kind(target, patch)?;
    let mut applied = match apply_tracked(target, live, patch, manager, force) {
        Err(ApplyError::Conflicts(conflicts)) if manager == KUBECTL => {
            let left = live
                .and_then(|live| allowed_conflicts(target, live))
                .map(|allowed| conflicts.iter().filter(|c| !allowed.has(&c.path)).count());
            match left {
                Some(0) => apply_tracked(target, live, patch, manager, true),
                Some(_) => {
                    let allowed = live.and_then(|live| allowed_conflicts(target, live)).unwrap_or_default();
                    Err(ApplyError::Conflicts(
                        conflicts.into_iter().filter(|c| !allowed.has(&c.path)).collect(),
                    ))
                }
                None => Err(ApplyError::Conflicts(conflicts)),
            }
        }
        other => other,
    }
    .map_err(|error| match error {
        ApplyError::Conflicts(conflicts) => conflict_status(&conflicts),
        ApplyError::Refused(status) => status,
    })?;
    if manager == KUBECTL {
        renew_last_applied(&mut applied, patch);
    }
    Ok(applied)
}

/// Sets the `metadata.managedFields` of `new`, which `manager` is about to store in place of `live`, on every write
/// but an apply. `new` may bring its own `managedFields`: well-formed entries are taken as the truth, an empty list
/// (or one empty entry) forgets all owners, anything else is ignored. Objects without owners stay so.
///
/// An object that does not fit the schema loses its owners, as with a real server (`FieldManager.UpdateNoErrors`):
/// refusing it is the part of validation.
pub fn update(target: &Target<'_>, live: Option<&Value>, new: &mut Value, manager: &str) {
    let live_list = live.and_then(managed_fields);
    let from_live = || Managed::decode(live_list).unwrap_or_default();
    let managed = if target.subresource.is_empty() {
        let list = managed_fields(new);
        if is_reset(list) {
            Managed::default()
        } else {
            Managed::decode(list).ok().filter(|managed| !managed.0.is_empty()).unwrap_or_else(from_live)
        }
    } else {
        from_live()
    };
    if managed.0.is_empty() && live.is_some() {
        return set_managed_fields(new, None);
    }
    let old = live.map_or_else(|| target.empty_object(), |live| target.printed(live));
    let list =
        track(target, &old, &target.printed(new), managed, manager).ok().and_then(|managed| managed.encode());
    set_managed_fields(new, list);
}

/// Takes back the times in `new`'s `managedFields` if nothing but times changed, so that the write is none
/// (`IgnoreManagedFieldsTimestampsTransformer` in `k8s.io/apiserver/pkg/endpoints/handlers/fieldmanager`).
pub fn keep_times(new: &mut Value, old: &Value) {
    let (Some(new_list), Some(old_list)) = (managed_fields(new), managed_fields(old)) else { return };
    let timeless = |list: &Value| {
        let mut list = list.clone();
        for entry in list.as_array_mut().into_iter().flatten() {
            if let Value::Object(entry) = entry {
                entry.remove("time");
            }
        }
        list
    };
    if timeless(new_list) == timeless(old_list) && without_managed_fields(new) == without_managed_fields(old)
    {
        let list = old_list.clone();
        set_managed_fields(new, Some(list));
    }
}

fn check_kind(target: &Target<'_>, patch: &Value) -> Result<(), Status> {
    if !patch.is_object() && !patch.is_null() {
        return Err(Status::bad_request(format!(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go \
             value of type map[string]interface {{}}",
            json_kind(patch)
        )));
    }
    let text = |name: &str| patch.get(name).and_then(Value::as_str).unwrap_or("");
    let (group, version, kind) = match text("apiVersion") {
        "" | "/" => ("", "", text("kind")),
        both => match both.split_once('/') {
            None => ("", both, text("kind")),
            Some((group, version)) if !version.contains('/') => (group, version, text("kind")),
            Some(_) => ("", "", ""),
        },
    };
    if (group, version, kind) == (target.group, target.version, target.kind) {
        Ok(())
    } else {
        Err(Status::bad_request(format!("invalid object type: {group}/{version}, Kind={kind}")))
    }
}

fn apply_tracked(
    target: &Target<'_>,
    live: Option<&Value>,
    patch: &Value,
    manager: &str,
    force: bool,
) -> Result<Value, ApplyError> {
    let mut managed = Managed::decode(live.and_then(managed_fields))
        .map_err(|e| Status::plain_error(format!("failed to decode managed fields: {e}")))?;
    if let (true, Some(live)) = (managed.0.is_empty(), live) {
        managed = track(target, &target.empty_object(), &target.printed(live), managed, BEFORE_FIRST_APPLY)
            .map_err(|e| {
            Status::plain_error(format!("failed to create manager for existing fields: {e}"))
        })?;
    }
    if patch.pointer("/metadata/managedFields").is_some_and(Value::is_array) {
        return Err(Status::bad_request("metadata.managedFields must be nil").into());
    }
    let shape = target.shape();
    validate(shape, patch, false).map_err(|e| {
        Status::plain_error(format!("failed to create typed patch object ({}): {e}", describe(target, patch)))
    })?;
    let base = match live {
        Some(live) => without_managed_fields(live),
        None => json!({"apiVersion": target.api_version(), "kind": target.kind}),
    };
    validate(shape, &base, true).map_err(|e| {
        Status::plain_error(format!("failed to create typed live object ({}): {e}", describe(target, &base)))
    })?;
    managed = target.reconciled(managed);
    let merged = merge(shape, &base, patch)
        .map_err(|e| Status::plain_error(format!("failed to merge config: {e}")))?;

    let me = Identity::new(manager, Operation::Apply, "", target.subresource);
    let fields = to_set(shape, patch).recursive_difference(target.reset);
    let owned = |time| Owned { fields: fields.clone(), api_version: target.api_version(), time };
    let last = managed.0.remove(&me);
    let time = last.as_ref().and_then(|last| last.time);
    managed.0.insert(me.clone(), owned(time));
    let object = match last {
        Some(last) if !last.fields.is_empty() => prune(shape, &merged, &managed, &last.fields),
        _ => merged,
    };
    let comparison = compare(shape, &base, &object).excluding(target.reset);
    take(&mut managed, &comparison, Some(&me), force).map_err(ApplyError::Conflicts)?;

    let changed = !same(&base, &object);
    if let Some(mine) = managed.0.get_mut(&me) {
        mine.fields = mine.fields.difference(&UNOWNED);
        if changed || live.is_none() {
            mine.time = Some(target.now);
        }
    }
    managed.0.retain(|_, owned| !owned.fields.is_empty());
    let mut object = if changed { object } else { base };
    set_managed_fields(&mut object, managed.encode());
    Ok(object)
}

/// `merged` without what the applier owned last time, unless somebody still owns it, itself included.
fn prune(shape: Shape<'_>, merged: &Value, managed: &Managed, last: &Set) -> Value {
    let named = |set: &Set| with_named_parents(Some(shape), set);
    let all = named(&to_set(shape, merged));
    let last = named(last);
    // Without everything that it owned; then without that except what is owned; then without only that of it
    // which it owned itself.
    let pruned = remove(shape, merged, &last);
    let owned = managed.0.values().fold(Set::new(), |all, owned| all.union(&owned.fields));
    let keep = named(&to_set(shape, &pruned)).union(&named(&owned));
    let pruned = remove(shape, merged, &all.difference(&keep));
    let gone = all.difference(&named(&to_set(shape, &pruned))).intersection(&last);
    remove(shape, merged, &gone)
}

/// Takes from all managers but `except` what the write changes. Without `force`, owning what is changed or added is
/// a conflict. Managers that own nothing any more are dropped.
fn take(
    managed: &mut Managed,
    comparison: &Comparison,
    except: Option<&Identity>,
    force: bool,
) -> Result<(), Vec<Conflict>> {
    let written = comparison.modified.union(&comparison.added);
    let mut conflicts = Vec::new();
    for (identity, owned) in managed.0.iter_mut().filter(|(id, _)| Some(*id) != except) {
        let contested = owned.fields.intersection(&written);
        if !force {
            let paths = contested.paths().into_iter();
            conflicts.extend(paths.map(|path| Conflict { owner: identity.clone(), path }));
        }
        owned.fields = owned.fields.difference(&contested).difference(&comparison.removed);
    }
    managed.0.retain(|_, owned| !owned.fields.is_empty());
    if conflicts.is_empty() { Ok(()) } else { Err(conflicts) }
}

/// The managers after `manager` turned `old` into `new` by an update.
fn track(
    target: &Target<'_>,
    old: &Value,
    new: &Value,
    managed: Managed,
    manager: &str,
) -> Result<Managed, String> {
    let shape = target.shape();
    for (what, object) in [("new", new), ("live", old)] {
        validate(shape, object, true).map_err(|e| {
            format!("failed to convert {what} object ({}) to smd typed: {e}", describe(target, object))
        })?;
    }
    let mut managed = target.reconciled(managed);
    let fields = if managed.0.is_empty() {
        // Nobody loses anything: each create and each TokenRequest comes here.
        written(shape, old, new, target.reset, &UNOWNED)
    } else {
        let comparison = compare(shape, old, new).excluding(target.reset);
        // With force nothing conflicts.
        let _ = take(&mut managed, &comparison, None, true);
        comparison.modified.union(&comparison.added).difference(&UNOWNED)
    };
    if !fields.is_empty() {
        let api_version = target.api_version();
        let me = Identity::new(manager, Operation::Update, &api_version, target.subresource);
        let fields = match managed.0.get(&me) {
            Some(previous) => previous.fields.union(&fields),
            None => fields,
        };
        managed.0.insert(me, Owned { fields, api_version, time: Some(target.now) });
    }
    managed.cap();
    Ok(managed)
}

/// `namespace/name; group/version, Kind=kind`, as errors name an object.
fn describe(target: &Target<'_>, object: &Value) -> String {
    let metadata = |name: &str| {
        object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str).unwrap_or("").to_string()
    };
    format!(
        "{}/{}; {}/{}, Kind={}",
        metadata("namespace"),
        metadata("name"),
        target.group,
        target.version,
        target.kind
    )
}

fn conflict_status(conflicts: &[Conflict]) -> Status {
    let causes = conflicts
        .iter()
        .map(|conflict| Cause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {}", conflict.owner.in_conflicts()),
            field: path_text(&conflict.path),
        })
        .collect();
    let message = match conflicts {
        [one] => format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            one.owner.in_conflicts(),
            path_text(&one.path)
        ),
        many => {
            let mut lines = Vec::new();
            let mut owner = None;
            // They are sorted by owner, as the managers are.
            for conflict in many {
                if owner != Some(&conflict.owner) {
                    lines.push(format!("conflicts with {}:", conflict.owner.in_conflicts()));
                    owner = Some(&conflict.owner);
                }
                lines.push(format!("- {}", path_text(&conflict.path)));
            }
            format!("Apply failed with {} conflicts: {}", many.len(), lines.join("\n"))
        }
    };
    let mut status = Status::new(409, "Conflict", message);
    status.details = Some(Box::new(Details { causes, ..Details::default() }));
    status
}

/// The fields that kubectl recorded as applied by itself, before the server did, and that are still as it applied
/// them; `None` if there is no usable record.
fn allowed_conflicts(target: &Target<'_>, live: &Value) -> Option<Set> {
    let record = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    let applied: Value = serde_json::from_str(record).ok()?;
    if applied.get("apiVersion")?.as_str()? != target.api_version() {
        return None;
    }
    let shape = target.shape();
    validate(shape, &applied, false).ok()?;
    validate(shape, live, false).ok()?;
    let comparison = compare(shape, &applied, live);
    let changed = comparison.modified.union(&comparison.added).union(&comparison.removed);
    Some(to_set(shape, &applied).difference(&changed))
}

/// Renews kubectl's record of what it applied, if the object has one.
fn renew_last_applied(object: &mut Value, patch: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = patch.clone();
    if let Some(mine) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        mine.remove(LAST_APPLIED);
    }
    annotations.insert(LAST_APPLIED.into(), format!("{applied}\n").into());
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}

fn managed_fields(object: &Value) -> Option<&Value> {
    object.get("metadata")?.get("managedFields")
}

fn without_managed_fields(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    object
}

fn set_managed_fields(object: &mut Value, list: Option<Value>) {
    let Value::Object(members) = object else { return };
    match (members.get_mut("metadata"), list) {
        (Some(Value::Object(metadata)), Some(list)) => {
            metadata.insert("managedFields".into(), list);
        }
        (Some(Value::Object(metadata)), None) => {
            metadata.remove("managedFields");
        }
        (_, Some(list)) => {
            members.insert("metadata".into(), json!({"managedFields": list}));
        }
        (_, None) => {}
    }
}

/// Adds what Go prints of a built-in kind's value although it is not set: structs, and fields without `omitempty`.
fn fill_printed(schema: &Schema, value: &mut Value) {
    match value {
        Value::Object(members) => {
            for (name, field) in &schema.properties {
                let is_struct =
                    field.default.as_ref().is_some_and(|d| d.as_object().is_some_and(Map::is_empty));
                let always = match field.go_type {
                    Some(_) => !field.go.omit_empty && !field.go.omit_zero,
                    None => schema.required.contains(name),
                };
                if (is_struct || always) && !members.contains_key(name) {
                    members.insert(name.clone(), unset(field, is_struct));
                }
                if let Some(member) = members.get_mut(name) {
                    fill_printed(field, member);
                }
            }
            if let Some(additional) = &schema.additional {
                let declared = &schema.properties;
                members
                    .iter_mut()
                    .filter(|(name, _)| !declared.contains_key(*name))
                    .for_each(|(_, member)| fill_printed(additional, member));
            }
        }
        Value::Array(items) => {
            if let Some(item) = &schema.items {
                items.iter_mut().for_each(|value| fill_printed(item, value));
            }
        }
        _ => {}
    }
}

/// What Go prints for a field that is not set.
fn unset(field: &Schema, is_struct: bool) -> Value {
    match field.kind {
        Some(Type::Object) if is_struct => json!({}),
        Some(Type::String) if field.format.is_none() => "".into(),
        Some(Type::Integer | Type::Number) => 0.into(),
        Some(Type::Boolean) => false.into(),
        _ => Value::Null,
    }
}
