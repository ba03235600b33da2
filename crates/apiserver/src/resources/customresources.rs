//! Custom resources: the row that a CustomResourceDefinition adds to the table of kinds, and the rules of its
//! objects (`apiextensions-apiserver/pkg/registry/customresource`, `pkg/apiserver/customresource_handler.go`).

mod columns;
mod definition;

pub(crate) use definition::Definition;

use self::columns::{VALUES_OF_A_ROW, cell, printer_columns};
use self::definition::CustomVersion;
use super::printers;
use super::stored::SUBRESOURCE_VERBS;
use crate::strategy::{
    Backing, Column, Context, Handler, LazySchema, Resource, ScalePaths, Strategy, Subresource, Version,
};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::validation::{metadata, names};
use fleetpass_schema::jsonpath;
use fleetpass_schema::{Effort, Schema, Type, custom_resource, defaulting, listtype, objectmeta, validation};
use jiff::Timestamp;
use serde_json::Value;
use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The verbs of a custom kind, in the order of its discovery document.
const VERBS: &[&str] = &["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];

/// The finalizers without a domain that give no warning.
const STANDARD_FINALIZERS: [&str; 3] = ["orphan", "foregroundDeletion", "kubernetes"];

/// A custom kind as its definition describes it now.
pub(crate) struct CustomKind {
    group: String,
    plural: String,
    kind: String,
    storage_version: String,
    /// Whether the definition is being deleted.
    terminating: bool,
    versions: BTreeMap<String, Arc<CustomVersion>>,
}

/// The row of a definition; `None` as long as it is not established.
///
/// # Errors
/// What keeps an established definition from being served: several versions that only a webhook can convert,
/// or no storage version.
pub fn row(definition: &Value) -> Result<Option<Resource>, String> {
    let definition = Definition::read(definition.to_string().as_bytes(), None);
    row_of(&definition.map_err(|e| e.to_string())?)
}

/// As [`row`], of a definition whose versions may have been compiled already.
pub(crate) fn row_of(definition: &Definition) -> Result<Option<Resource>, String> {
    let outline = &definition.outline;
    if !has_condition(outline, "Established") {
        return Ok(None);
    }
    let versions = meta::list(outline, &["spec", "versions"]);
    // A single version needs no conversion, so a webhook that is never called does no harm. With several, objects
    // would be shown in versions that nobody converted them to: such a definition is stored, and its kind is not
    // served.
    if versions.len() > 1 && meta::text(outline, &["spec", "conversion", "strategy"]) == "Webhook" {
        return Err("conversion webhooks are not supported".into());
    }
    let Some(storage) = versions.iter().find(|v| v["storage"] == true) else {
        return Err("no version is marked as storage version".into());
    };
    // Not `spec.names`: only names that were accepted are served (`customresource_handler.go`), or two definitions
    // could claim the same path.
    let names = |field: &str| meta::text(outline, &["status", "acceptedNames", field]).to_string();
    let texts = |field: &str| -> Vec<String> {
        let list = meta::list(outline, &["status", "acceptedNames", field]);
        list.iter().filter_map(Value::as_str).map(str::to_string).collect()
    };
    let group = meta::text(outline, &["spec", "group"]).to_string();
    let kind = Arc::new(CustomKind {
        group: group.clone(),
        plural: names("plural"),
        kind: names("kind"),
        storage_version: meta::text(storage, &["name"]).into(),
        terminating: has_condition(outline, "Terminating"),
        // Every version, served or not: an object may be stored in one that is not served any more, and is still
        // read by its schema.
        versions: definition
            .versions()
            .map(|(name, _, version)| (name.into(), Arc::clone(version)))
            .collect(),
    });
    let mut served: Vec<&Value> = versions.iter().filter(|v| v["served"] == true).collect();
    served.sort_by(|a, b| compare_versions(meta::text(b, &["name"]), meta::text(a, &["name"])));
    let best = served.iter().find(|v| v["deprecated"] != true).map(|v| meta::text(v, &["name"]));
    let mut selectable: Vec<String> =
        kind.versions.values().flat_map(|v| v.selectable.iter().map(|(label, _)| label.clone())).collect();
    // The row has one list for all versions; `is_selectable` says which of them the version of a request has.
    selectable.sort();
    selectable.dedup();
    Ok(Some(Resource {
        group,
        plural: names("plural"),
        singular: names("singular"),
        kind: names("kind"),
        list_kind: names("listKind"),
        short_names: texts("shortNames"),
        categories: texts("categories"),
        namespaced: meta::text(outline, &["spec", "scope"]) == "Namespaced",
        verbs: VERBS.iter().map(ToString::to_string).collect(),
        versions: served.iter().map(|v| shown_version(outline, v, &kind, best)).collect(),
        storage_version: kind.storage_version.clone(),
        selectable_fields: selectable,
        subresources: subresources(&kind, &served),
        backing: Backing::Stored(Arc::new(Objects { kind, status: false })),
        delete_returns_object: false,
        view: None,
        custom: true,
        // Filled in by `definitions`, which knows since when the schemas are as they are.
        uniform_since: 0,
    }))
}

fn has_condition(definition: &Value, kind: &str) -> bool {
    meta::list(definition, &["status", "conditions"])
        .iter()
        .any(|c| c["type"] == kind && c["status"] == "True")
}

/// A served version; `best` is the first in discovery's order that is not deprecated.
fn shown_version(definition: &Value, version: &Value, kind: &CustomKind, best: Option<&str>) -> Version {
    let name = meta::text(version, &["name"]);
    let mut columns = vec![Column::name()];
    for column in printer_columns(version) {
        let text = |field: &str| meta::text(&column, &[field]);
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {}", text("jsonPath")),
            given => given.into(),
        };
        let priority = column.get("priority").and_then(Value::as_i64).unwrap_or_default();
        columns.push(Column::new(text("name"), text("type"), text("format"), &description, priority));
    }
    let deprecation = (version["deprecated"] == true).then(|| {
        version
            .get("deprecationWarning")
            .and_then(Value::as_str)
            .map_or_else(|| default_deprecation(definition, name, best), str::to_string)
    });
    Version {
        name: name.into(),
        schema: kind.version(name).map_or_else(|| LazySchema::of_crd(""), |v| v.schema.clone()),
        columns: Arc::new(columns),
        deprecation,
    }
}

/// `GROUP/VERSION KIND is deprecated[; use GROUP/VERSION KIND]`: the best of the newer served versions, which is the best of all
/// (`best`) if that is newer.
fn default_deprecation(definition: &Value, name: &str, best: Option<&str>) -> String {
    let group = meta::text(definition, &["spec", "group"]);
    let kind = meta::text(definition, &["spec", "names", "kind"]);
    let mut message = format!("{group}/{name} {kind} is deprecated");
    if let Some(better) = best.filter(|best| compare_versions(name, best) == Ordering::Less) {
        message.push_str(&format!("; use {group}/{better} {kind}"));
    }
    message
}

fn subresources(kind: &Arc<CustomKind>, served: &[&Value]) -> Vec<Subresource> {
    // By version, because each version of a definition says for itself which subresources it has.
    let served = || {
        let names = served.iter().map(|v| meta::text(v, &["name"]));
        names.filter_map(|name| Some((name, kind.version(name)?)))
    };
    let mut out = Vec::new();
    // Versions with the same paths share one subresource; there is one for each different set of paths.
    let mut scales: BTreeMap<&ScalePaths, Vec<String>> = BTreeMap::new();
    for (name, scale) in served().filter_map(|(name, v)| Some((name, v.scale.as_ref()?))) {
        scales.entry(scale).or_default().push(name.into());
    }
    for (scale, versions) in scales {
        out.push(Subresource {
            name: "scale",
            body: Some(("autoscaling", "v1", "Scale")),
            schema: None,
            verbs: SUBRESOURCE_VERBS,
            handler: Handler::Scale(Arc::new(scale.clone())),
            versions: Some(versions),
        });
    }
    let with_status: Vec<String> = served().filter(|(_, v)| v.status).map(|(name, _)| name.into()).collect();
    if !with_status.is_empty() {
        out.push(Subresource {
            name: "status",
            body: None,
            schema: None,
            verbs: SUBRESOURCE_VERBS,
            handler: Handler::Update(Arc::new(Objects { kind: Arc::clone(kind), status: true })),
            versions: Some(with_status),
        });
    }
    out
}

/// The order of versions (`k8s.io/apimachinery/pkg/version/helpers.go`): GA, beta, alpha, then all other names;
/// the greater is the better one.
pub(crate) fn compare_versions(a: &str, b: &str) -> Ordering {
    match (stability(a), stability(b)) {
        (Some(a), Some(b)) => a.cmp(&b),
        (Some(_), None) => Ordering::Greater,
        (None, Some(_)) => Ordering::Less,
        // Names that are no versions go by the alphabet; the first one is the best.
        (None, None) => Reverse(a).cmp(&Reverse(b)),
    }
}

/// `v1`, `v2beta3`: how stable, major, minor.
fn stability(version: &str) -> Option<(u8, u64, u64)> {
    let rest = version.strip_prefix('v')?;
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (major, tail) = rest.split_at(digits);
    // Rust's `parse` takes a leading `+`, which is no version to Kubernetes.
    let number = |text: &str| -> Option<u64> { text.parse().ok().filter(|_| !text.starts_with(['0', '+'])) };
    let major = number(major)?;
    if tail.is_empty() {
        return Some((2, major, 0));
    }
    let (level, minor) = match (tail.strip_prefix("beta"), tail.strip_prefix("alpha")) {
        (Some(minor), _) => (1, minor),
        (_, Some(minor)) => (0, minor),
        _ => return None,
    };
    Some((level, major, number(minor)?))
}

impl CustomKind {
    fn version_of(&self, object: &Value) -> Option<&CustomVersion> {
        let api_version = meta::text(object, &["apiVersion"]);
        self.version(api_version.rsplit('/').next().unwrap_or_default())
    }

    /// A stored object as a request to `version` sees it: refreshed by the schema of the version in which it
    /// was stored, then without what `version` does not know, under its `apiVersion`.
    pub(crate) fn shown(&self, object: &mut Value, version: &str) {
        if let Some(stored) = self.version_of(object) {
            custom_resource::refresh(object, &stored.schema);
        }
        if let (Some(members), Some(asked)) = (object.as_object_mut(), self.version(version)) {
            let api_version = format!("{}/{version}", self.group);
            // Conversion with the strategy None changes `apiVersion` and prunes by the other schema. Within a
            // version, the refresh above has done all there is to do.
            if members.get("apiVersion").and_then(Value::as_str) != Some(&api_version) {
                members.insert("apiVersion".into(), api_version.into());
                custom_resource::convert(object, &asked.schema);
            }
        }
    }

    /// `kind` and `apiVersion` of a body.
    fn validate_type(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let expected = format!("{}/{}", self.group, ctx.version);
        for (field, expected) in [("kind", &self.kind), ("apiVersion", &expected)] {
            let given = meta::text(object, &[field]);
            if given != expected {
                errors.push(Error::invalid(&Path::new(field), given, format!("must be {expected}")));
            }
        }
        errors
    }
}

/// The rules of the objects of a custom kind, and of their status.
struct Objects {
    kind: Arc<CustomKind>,
    status: bool,
}

impl Objects {
    fn rules(&self, ctx: &Context<'_>) -> Option<&CustomVersion> {
        self.kind.version(ctx.version)
    }

    fn validate_new(&self, ctx: &Context<'_>, version: &CustomVersion, object: &Value) -> ErrorList {
        let root = Path::default();
        // The order of `customResourceStrategy.Validate` (`registry/customresource/strategy.go`). It is the order
        // of the causes in the answer, and the rules come last because they are asked only about values of the
        // right types and sizes.
        let mut errors = validation::validate(&root, &version.schema, object);
        validate_scale(version, object, false, &mut errors);
        errors.append(objectmeta::validate_embedded(object, &version.schema));
        errors.append(listtype::validate(&root, &version.schema, object));
        // The registry has said what is wrong with the metadata. It counts here too: also then rules are not asked.
        let metadata = metadata::validate(object, !ctx.namespace.is_empty(), &names::is_dns1123_subdomain);
        validate_rules(version, object, None, &metadata, &mut errors);
        errors
    }

    /// `metadata` is what is wrong with the metadata.
    fn validate_changed(
        &self,
        version: &CustomVersion,
        new: &Value,
        old: &Value,
        metadata: &ErrorList,
    ) -> ErrorList {
        let root = Path::default();
        let mut errors = ErrorList::new();
        // On `/status` the schema is asked about the status alone (`status_strategy.go`): where the spec became
        // invalid under a newer schema, controllers can still report so.
        if self.status {
            if let (Some(status), Some(schema)) = (new.get("status"), version.schema.properties.get("status"))
            {
                let before = old.get("status").unwrap_or(&Value::Null);
                errors.append(validation::validate_update(&Path::new("status"), schema, status, before));
            }
        } else {
            errors.append(validation::validate_update(&root, &version.schema, new, old));
        }
        validate_scale(version, new, self.status, &mut errors);
        if !self.status {
            errors.append(objectmeta::validate_embedded(new, &version.schema));
        }
        // Ratcheting: an object that had duplicates before its list became a set can still be changed otherwise.
        if listtype::validate(&root, &version.schema, old).is_empty() {
            errors.append(listtype::validate(&root, &version.schema, new));
        }
        validate_rules(version, new, Some(old), metadata, &mut errors);
        errors
    }
}

impl Strategy for Objects {
    /// Rules are evaluated, for up to the budget that the API allows them, and they and the schema may have to be compiled.
    fn is_heavy(&self) -> bool {
        self.kind.versions.values().any(|version| version.is_heavy)
    }

    fn default(&self, object: &mut Value) {
        // The version that the object names, which on a write is that of the path: `validate_type` refuses any
        // other.
        if let Some(version) = self.kind.version_of(object) {
            defaulting::default(object, &version.schema);
        }
    }

    fn admit(&self, _ctx: &Context<'_>, object: &mut Value, old: Option<&Value>) -> Result<(), Status> {
        // New objects could keep the cleanup from ever ending. Changes stay allowed: controllers have to take their
        // finalizers off.
        if old.is_none() && self.kind.terminating {
            let resource = GroupResource { group: &self.kind.group, resource: &self.kind.plural };
            let why = "create not allowed while custom resource definition is terminating";
            return Err(Status::forbidden(resource, meta::name(object), why));
        }
        Ok(())
    }

    fn prepare_for_create(&self, ctx: &Context<'_>, object: &mut Value) {
        if self.rules(ctx).is_some_and(|v| v.status)
            && let Some(members) = object.as_object_mut()
        {
            members.remove("status");
        }
        meta::metadata_mut(object).insert("generation".into(), 1.into());
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        if self.status {
            // A write to `/status` changes the status and the record of who owns which field; all other metadata
            // stays as it was (`statusStrategy.PrepareForUpdate`).
            let mut kept = old.clone();
            for (field, in_metadata) in [("status", false), ("managedFields", true)] {
                let given = if in_metadata { new["metadata"].get(field) } else { new.get(field) };
                let target =
                    if in_metadata { meta::metadata_mut(&mut kept) } else { meta::as_map_mut(&mut kept) };
                match given {
                    Some(value) => target.insert(field.into(), value.clone()),
                    None => target.remove(field),
                };
            }
            *new = kept;
            return;
        }
        // With the subresource, only `/status` writes the status; without it, the status is a field like any other,
        // also for the generation.
        if self.rules(ctx).is_some_and(|v| v.status) {
            meta::keep(new, old, "status");
        }
        let mut generation = meta::generation(old);
        if differs(new, old) {
            generation += 1;
        }
        meta::metadata_mut(new).insert("generation".into(), generation.into());
    }

    fn validate(&self, ctx: &Context<'_>, object: &Value) -> ErrorList {
        // Of another kind or version the schema would only find errors that say nothing to the client.
        let errors = self.kind.validate_type(ctx, object);
        match self.rules(ctx) {
            Some(version) if errors.is_empty() => self.validate_new(ctx, version, object),
            _ => errors,
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = self.kind.validate_type(ctx, new);
        if errors.is_empty() {
            // What is wrong with metadata is said once by the registry and once more here, as a real server does.
            errors.append(metadata::validate_update(new, old));
            if let Some(version) = self.rules(ctx) {
                let found = self.validate_changed(version, new, old, &errors);
                errors.append(found);
            }
        }
        errors
    }

    fn show(&self, object: &mut Value, version: &str) {
        self.kind.shown(object, version);
    }

    fn canonicalize(&self, object: &mut Value) {
        // An object is kept, and answered, as the schema of the stored version has it.
        if let Some(stored) = self.kind.version(&self.kind.storage_version) {
            custom_resource::refresh(object, &stored.schema);
        }
    }

    fn warnings(&self, _ctx: &Context<'_>, object: &Value, old: Option<&Value>) -> Vec<String> {
        if self.status {
            return Vec::new();
        }
        fn finalizers(object: &Value) -> BTreeSet<&str> {
            meta::list(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
        }
        let before = old.map(finalizers).unwrap_or_default();
        finalizers(object).difference(&before).flat_map(|f| finalizer_warnings(f)).collect()
    }

    fn allow_unconditional_update(&self) -> bool {
        false
    }

    fn is_selectable(&self, version: &str, label: &str) -> bool {
        self.kind.version(version).is_some_and(|v| v.selectable.iter().any(|(l, _)| l == label))
    }

    fn selectable_field(&self, object: &Value, label: &str) -> String {
        let Some(version) = self.kind.version_of(object) else { return String::new() };
        let path = version.selectable.iter().find(|(l, _)| l == label).map(|(_, path)| path);
        // A selectable field is a chain of names, of which each is one step.
        let found = path.and_then(|path| path.first(object, &mut Effort::new(VALUES_OF_A_ROW)));
        // Absent, null and empty are all the empty string: a field selector cannot tell them apart.
        found.filter(|v| !v.is_null()).map(jsonpath::print).unwrap_or_default()
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let mut cells = vec![printers::name(object)];
        if let Some(version) = self.kind.version_of(object) {
            let mut effort = Effort::new(VALUES_OF_A_ROW);
            let columns = version.columns.iter();
            cells.extend(columns.map(|(path, kind)| cell(path, kind, object, now, &mut effort)));
        }
        cells
    }
}

/// The CEL rules of the schema. They are not run on values whose types or sizes are wrong (`hasBlockingErr`): they could not
/// be evaluated, or would cost more than was estimated.
fn validate_rules(
    version: &CustomVersion,
    new: &Value,
    old: Option<&Value>,
    metadata: &ErrorList,
    errors: &mut ErrorList,
) {
    let Some(rules) = version.rules() else { return };
    if validation::blocks_rules(metadata) || validation::blocks_rules(errors) {
        let detail = "some validation rules were not checked because the object was invalid; correct the existing \
                      errors to complete validation";
        errors.push(Error::invalid(&Path::default(), Value::Null, detail));
    } else {
        errors.append(rules.validate(new, old));
    }
}

/// Whether anything but the metadata differs, which is what makes a new generation.
fn differs(new: &Value, old: &Value) -> bool {
    let rest = |object: &Value| {
        let mut object = object.clone();
        meta::as_map_mut(&mut object).remove("metadata");
        object
    };
    rest(new) != rest(old)
}

/// Why a finalizer is badly named (`validateKubeFinalizerName`). Warnings, because custom resources with such finalizers exist.
fn finalizer_warnings(finalizer: &str) -> Vec<String> {
    let at = format!("metadata.finalizers: {}", fleetpass_apimachinery::field::go_quote(finalizer));
    let mut warnings: Vec<String> =
        names::is_qualified_name(finalizer).into_iter().map(|m| format!("{at}: {m}")).collect();
    if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
        let path = if finalizer.contains('.') { " including a path (/)" } else { "" };
        warnings.push(format!(
            "{at}: prefer a domain-qualified finalizer name{path} to avoid accidental conflicts with other \
             finalizer writers"
        ));
    }
    warnings
}

/// The errors of the numbers and of the selector that the scale subresource shows; absent ones are fine.
fn validate_scale(version: &CustomVersion, object: &Value, status_only: bool, errors: &mut ErrorList) {
    let Some(scale) = &version.scale else { return };
    if !status_only {
        validate_replicas(&scale.spec_replicas, object, errors);
    }
    validate_replicas(&scale.status_replicas, object, errors);
    if let Some(path) = scale.label_selector.as_deref().filter(|p| !p.is_empty())
        && let Some(value) = at_simple_path(object, path).filter(|v| !v.is_string())
    {
        let why = wrong_type(path, value, "string");
        errors.push(Error::invalid(&Path::new(path), "", why));
    }
}

fn validate_replicas(path: &str, object: &Value, errors: &mut ErrorList) {
    let at = Path::new(path);
    let Some(value) = at_simple_path(object, path) else { return };
    match value.as_i64() {
        None => errors.push(Error::invalid(&at, 0, wrong_type(path, value, "int64"))),
        Some(count) if count < 0 => {
            errors.push(Error::invalid(&at, count, "should be a non-negative integer"));
        }
        Some(count) if count > i64::from(i32::MAX) => {
            let detail = format!("should be less than or equal to {}", i32::MAX);
            errors.push(Error::invalid(&at, count, detail));
        }
        Some(_) => {}
    }
}

/// What `unstructured.NestedInt64` and its relatives say of a value of another type
/// (`k8s.io/apimachinery/pkg/apis/meta/v1/unstructured/helpers.go`).
fn wrong_type(path: &str, value: &Value, expected: &str) -> String {
    let (shown, found) = match value {
        Value::Null => ("<nil>".into(), "<nil>"),
        Value::Bool(b) => (b.to_string(), "bool"),
        Value::Number(_) => (jsonpath::print(value), if value.is_f64() { "float64" } else { "int64" }),
        Value::String(s) => (s.clone(), "string"),
        Value::Array(_) => (value.to_string(), "[]interface {}"),
        Value::Object(_) => (value.to_string(), "map[string]interface {}"),
    };
    format!("{path} accessor error: {shown} is of the type {found}, expected {expected}")
}

/// The value at a "simple JSON path", as kube-apiserver calls a path of plain names: `.spec.replicas`.
pub(crate) fn at_simple_path<'a>(object: &'a Value, path: &str) -> Option<&'a Value> {
    path.trim_start_matches('.').split('.').try_fold(object, |value, name| value.get(name))
}

/// Whether a field selector may name a field with that schema.
pub(super) fn is_selectable_type(schema: &Schema) -> bool {
    !schema.int_or_string && matches!(schema.kind, Some(Type::String | Type::Boolean | Type::Integer))
}

#[cfg(test)]
#[path = "customresources_tests.rs"]
mod tests;
