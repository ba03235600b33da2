//! What makes a schema structural (`apiextensions-apiserver/pkg/apiserver/schema/validation.go`), and whether its
//! defaults fit (`schema/defaulting/validation.go`).

use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_schema::{Effort, Pattern, Schema, crd, go, objectmeta, pruning, validation};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Where a node of a schema stands; the root has rules of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

type Props = Map<String, Value>;

fn text<'a>(props: &'a Props, field: &str) -> &'a str {
    props.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn flag(props: &Props, field: &str) -> bool {
    props.get(field) == Some(&Value::Bool(true))
}

fn child<'a>(props: &'a Props, field: &str) -> Option<&'a Props> {
    props.get(field).and_then(Value::as_object)
}

fn children<'a>(props: &'a Props, field: &str) -> impl Iterator<Item = (&'a String, &'a Props)> {
    let members = props.get(field).and_then(Value::as_object).into_iter().flatten();
    members.filter_map(|(name, value)| Some((name, value.as_object()?)))
}

fn listed<'a>(props: &'a Props, field: &str) -> impl Iterator<Item = (usize, &'a Props)> {
    let list = props.get(field).and_then(Value::as_array).into_iter().flatten();
    list.enumerate().filter_map(|(index, value)| Some((index, value.as_object()?)))
}

/// Why a schema has no structural form at all; other checks report the same things in better words.
pub(super) fn unsupported(schema: &Value) -> Option<String> {
    let props = schema.as_object()?;
    for field in
        ["id", "$schema", "$ref", "patternProperties", "dependencies", "additionalItems", "definitions"]
    {
        let given = props.get(field).is_some_and(|v| match v {
            Value::String(text) => !text.is_empty(),
            Value::Object(members) => !members.is_empty(),
            _ => true,
        });
        if given {
            // Go prints `$schema` without its dollar sign, and `$ref` with it.
            let field = field.strip_prefix("$s").map_or(field, |_| "schema");
            return Some(format!("OpenAPIV3Schema '{field}' is not supported"));
        }
    }
    if props.get("items").is_some_and(Value::is_array) {
        return Some("OpenAPIV3Schema 'items' must be a schema, but is an array".into());
    }
    if props.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
        return Some(
            "internal error: 'x-kubernetes-preserve-unknown-fields' must be true or undefined".into(),
        );
    }
    let single = ["items", "not", "additionalProperties"].into_iter().filter_map(|f| props.get(f));
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|f| props.get(f)?.as_array()).flatten();
    let maps = props.get("properties").and_then(Value::as_object).into_iter().flat_map(|m| m.values());
    single.chain(lists).chain(maps).find_map(unsupported)
}

/// The errors of a schema that is not structural, sorted as kube-apiserver sorts them.
pub(super) fn validate_structural(path: &Path, schema: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(props) = schema.as_object() {
        invariants(props, Level::Root, path, &mut errors);
        value_completeness(props, Some(props), path, path, &mut errors);
    }
    // Go sorts them by their text because its maps have no order; so the order is part of the answer.
    errors.sort_by_text();
    errors
}

/// What holds at every node outside of junctors (`validateStructuralInvariants`).
fn invariants(props: &Props, level: Level, path: &Path, errors: &mut ErrorList) {
    let kind = text(props, "type");
    let embedded = flag(props, "x-kubernetes-embedded-resource");
    let int_or_string = flag(props, "x-kubernetes-int-or-string");
    let preserve = flag(props, "x-kubernetes-preserve-unknown-fields");
    let properties = child(props, "properties");
    if kind == "array" && child(props, "items").is_none() {
        errors.push(Error::required(&path.child("items"), "must be specified"));
    }
    if let Some(items) = child(props, "items") {
        invariants(items, Level::Item, &path.child("items"), errors);
    }
    for (name, property) in children(props, "properties") {
        invariants(property, Level::Field, &path.child("properties").key(name), errors);
    }
    if let Some(additional) = props.get("additionalProperties") {
        let at = path.child("additionalProperties");
        if level == Level::Root {
            errors.push(Error::forbidden(&at, "must not be used at the root"));
        }
        if let Some(additional) = additional.as_object() {
            invariants(additional, Level::Field, &at, errors);
        }
        if embedded {
            errors.push(Error::forbidden(&at, "must not be used if x-kubernetes-embedded-resource is set"));
        }
    }
    for (field, given) in
        [("x-kubernetes-preserve-unknown-fields", preserve), ("x-kubernetes-embedded-resource", embedded)]
    {
        if int_or_string && given {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(Error::invalid(&path.child(field), true, detail));
        }
    }
    // The one junctor that may speak of types: what int-or-string means, spelled out alone or as the first of
    // `allOf` (`isIntOrStringAnyOfPattern`, `isIntOrStringAllOfPattern`).
    let either = json!([{"type": "integer"}, {"type": "string"}]);
    let skip_any_of = props.get("anyOf") == Some(&either);
    let skip_first = props.get("allOf").and_then(|a| a.get(0)?.get("anyOf")) == Some(&either);
    value_validation(props, skip_any_of, skip_first, path, errors);
    let at = path.child("type");
    if embedded && kind != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(match kind {
            "" => Error::required(&at, detail),
            kind => Error::invalid(&at, kind, detail),
        });
    } else if kind.is_empty() && !int_or_string && !preserve {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        errors.push(Error::required(&at, detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        errors.push(Error::invalid(&at, kind, "must be object at the root"));
    }
    meta_fields(props, level, level == Level::Root || embedded, path, errors);
    if embedded && !preserve && properties.is_none_or(Map::is_empty) {
        let detail = "must not be empty if x-kubernetes-embedded-resource is true without \
                      x-kubernetes-preserve-unknown-fields";
        errors.push(Error::required(&path.child("properties"), detail));
    }
}

/// `apiVersion`, `kind` and `metadata` are implied in every resource, so a schema may restate their types and little else.
fn meta_fields(props: &Props, level: Level, check: bool, path: &Path, errors: &mut ErrorList) {
    let Some(properties) = child(props, "properties") else { return };
    let at = path.child("properties");
    for name in ["kind", "apiVersion"] {
        if let Some(property) = child(properties, name).filter(|_| check)
            && text(property, "type") != "string"
        {
            let kind = text(property, "type");
            errors.push(Error::invalid(&at.key(name).child("type"), kind, "must be string"));
        }
    }
    let Some(metadata) = child(properties, "metadata") else { return };
    let at = at.key("metadata");
    if check && text(metadata, "type") != "object" {
        errors.push(Error::invalid(&at.child("type"), text(metadata, "type"), "must be object"));
    }
    // Metadata is validated by the server for all kinds; only names may be limited further.
    if level == Level::Root {
        let mut rest = metadata.clone();
        rest.remove("type");
        rest.remove("default");
        let only_names = child(metadata, "properties")
            .is_some_and(|p| p.keys().all(|name| matches!(name.as_str(), "name" | "generateName")));
        if only_names {
            rest.remove("properties");
        }
        if !rest.is_empty() {
            let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
            errors.push(Error::forbidden(&at, detail));
        }
    }
}

/// The junctors and the pattern of a node (`validateValueValidation`). The two flags leave out the junctor that only says what
/// int-or-string means.
fn value_validation(props: &Props, skip_any_of: bool, skip_first: bool, path: &Path, errors: &mut ErrorList) {
    if !skip_any_of {
        for (index, nested) in listed(props, "anyOf") {
            nested_validation(nested, false, &path.child("anyOf").index(index), errors);
        }
    }
    for (index, nested) in listed(props, "allOf") {
        let skip = skip_first && index == 0;
        nested_validation(nested, skip, &path.child("allOf").index(index), errors);
    }
    for (index, nested) in listed(props, "oneOf") {
        nested_validation(nested, false, &path.child("oneOf").index(index), errors);
    }
    if let Some(nested) = child(props, "not") {
        nested_validation(nested, false, &path.child("not"), errors);
    }
    let pattern = text(props, "pattern");
    if let Some(why) = Pattern::new(pattern).error() {
        let detail = format!("must be a valid regular expression, but isn't: {}", go::Words(&why));
        errors.push(Error::invalid(&path.child("pattern"), pattern, detail));
    }
}

/// Below a logical junctor (`allOf`, `anyOf`, `oneOf`, `not`) a schema may limit values, not declare structure
/// (`validateNestedValueValidation`): pruning and defaulting look at the structure outside of junctors only.
fn nested_validation(props: &Props, skip_any_of: bool, path: &Path, errors: &mut ErrorList) {
    value_validation(props, skip_any_of, false, path, errors);
    if let Some(items) = child(props, "items") {
        nested_validation(items, false, &path.child("items"), errors);
    }
    for (name, property) in children(props, "properties") {
        nested_validation(property, false, &path.child("properties").key(name), errors);
    }
    let mut forbid = |field: &str, detail: &str| errors.push(Error::forbidden(&path.child(field), detail));
    // Set, as Go sees it: its zero values count as absent.
    let given = |field: &str| match props.get(field) {
        None | Some(Value::Null) => false,
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Bool(set)) => *set,
        Some(Value::Array(list)) => !list.is_empty(),
        Some(_) => true,
    };
    if given("type") {
        forbid("type", "must be empty to be structural");
    }
    if given("additionalProperties") {
        forbid("additionalProperties", "must be undefined to be structural");
    }
    if given("default") {
        forbid("default", "must be undefined to be structural");
    }
    for field in ["title", "description"] {
        if given(field) {
            forbid(field, "must be empty to be structural");
        }
    }
    if given("nullable") {
        forbid("nullable", "must be false to be structural");
    }
    for field in [
        "x-kubernetes-preserve-unknown-fields",
        "x-kubernetes-embedded-resource",
        "x-kubernetes-int-or-string",
    ] {
        if given(field) {
            forbid(field, "must be false to be structural");
        }
    }
    if given("x-kubernetes-list-map-keys") {
        forbid("x-kubernetes-list-map-keys", "must be empty to be structural");
    }
    for field in ["x-kubernetes-list-type", "x-kubernetes-map-type"] {
        if given(field) {
            forbid(field, "must be undefined to be structural");
        }
    }
    if given("x-kubernetes-validations") {
        forbid("x-kubernetes-validations", "must be empty to be structural");
    }
    if child(props, "properties").is_some_and(|p| p.contains_key("metadata")) {
        let at = path.child("properties").key("metadata");
        errors.push(Error::forbidden(&at, "must not be specified in a nested context"));
    }
}

/// Every field that is named below a junctor must be declared outside of it as well (`validateValueValidationCompleteness`):
/// it would be pruned before the junctor could see it.
fn value_completeness(
    props: &Props,
    structure: Option<&Props>,
    path: &Path,
    value_path: &Path,
    errors: &mut ErrorList,
) {
    if let Some(nested) = child(props, "not") {
        nested_completeness(nested, structure, path, &value_path.child("not"), errors);
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        for (index, nested) in listed(props, field) {
            nested_completeness(nested, structure, path, &value_path.child(field).index(index), errors);
        }
    }
}

/// One schema of a junctor; `structure` is what is declared at the same place outside of it.
fn nested_completeness(
    props: &Props,
    structure: Option<&Props>,
    path: &Path,
    value_path: &Path,
    errors: &mut ErrorList,
) {
    let Some(structure) = structure else {
        errors.push(Error::required(path, format!("because it is defined in {value_path}")));
        return;
    };
    value_completeness(props, Some(structure), path, value_path, errors);
    if let Some(items) = child(props, "items") {
        nested_completeness(
            items,
            child(structure, "items"),
            &path.child("items"),
            &value_path.child("items"),
            errors,
        );
    }
    for (name, property) in children(props, "properties") {
        let at = path.child("properties").key(name);
        let value_at = value_path.child("properties").key(name);
        let declared = child(structure, "properties").and_then(|p| child(p, name));
        nested_completeness(property, declared, &at, &value_at, errors);
    }
}

/// A step from a resource down to where a default stands.
#[derive(Clone)]
enum Around {
    Member(String),
    Element,
}

/// The errors of the defaults in a structural schema, which are validated within `effort`.
pub(super) fn validate_defaults(path: &Path, schema: &Value, effort: &mut Effort) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(props) = schema.as_object() {
        let mut root = props.clone();
        // The root is a resource like an embedded one, with metadata that defaults may touch.
        root.insert("x-kubernetes-embedded-resource".into(), true.into());
        let parsed = Arc::new(crd::schema(&root.clone().into()));
        let place = Place { root: Arc::clone(&parsed), around: Vec::new(), inside_meta: false };
        Defaults { errors: &mut errors, effort }.node(path, &root, &parsed, &place);
    }
    errors
}

/// The resource that a default lies in, and the way to it.
struct Place {
    /// Shared: there is a place for each node of the schema.
    root: Arc<Schema>,
    /// The steps from the root of that resource. Copied at each node, so a schema costs nodes times depth; the depth of
    /// bodies is limited (`json::MAX_KEPT_DEPTH`).
    around: Vec<Around>,
    /// Whether it lies in `metadata`, `apiVersion` or `kind`, where it must result in valid metadata.
    inside_meta: bool,
}

impl Place {
    fn below(&self, step: Around, inside_meta: bool) -> Self {
        let mut around = self.around.clone();
        around.push(step);
        Self { root: Arc::clone(&self.root), around, inside_meta }
    }

    /// The smallest resource that has `value` at this place.
    fn surround(&self, value: &Value) -> Value {
        let mut out = value.clone();
        for (depth, step) in self.around.iter().enumerate().rev() {
            out = match step {
                Around::Element => json!([out]),
                Around::Member(name) => json!({ name: out }),
            };
            if depth == 0
                && let Some(root) = out.as_object_mut()
            {
                // Any kind will do, only the metadata is looked at.
                root.entry("apiVersion").or_insert_with(|| "validation/v1".into());
                root.entry("kind").or_insert_with(|| "Validation".into());
            }
        }
        out
    }
}

/// A walk over the defaults of a schema.
struct Defaults<'a> {
    errors: &'a mut ErrorList,
    effort: &'a mut Effort,
}

impl Defaults<'_> {
    /// Looks at the defaults of a node and of all below it, but not in maps: Go does not follow `additionalProperties` here.
    /// `schema` is what `props` says.
    fn node(&mut self, path: &Path, props: &Props, schema: &Arc<Schema>, place: &Place) {
        let embedded = flag(props, "x-kubernetes-embedded-resource");
        let own;
        let place = if embedded {
            // An embedded resource has metadata of its own: defaults below it are completed to that resource, not to
            // the one around it.
            own = Place { root: Arc::clone(schema), around: Vec::new(), inside_meta: false };
            &own
        } else {
            place
        };
        if let Some(default) = props.get("default").filter(|d| !d.is_null()) {
            let wrong = default_errors(&path.child("default"), schema, default, place, self.effort);
            self.errors.append(wrong);
        }
        if let (Some(items), Some(schema)) = (child(props, "items"), &schema.items) {
            self.node(&path.child("items"), items, schema, &place.below(Around::Element, place.inside_meta));
        }
        for (name, property) in children(props, "properties") {
            let Some(schema) = schema.properties.get(name) else { continue };
            let meta = matches!(name.as_str(), "metadata" | "apiVersion" | "kind");
            let below = place.below(Around::Member(name.clone()), place.inside_meta || (embedded && meta));
            self.node(&path.child("properties").key(name), property, schema, &below);
        }
    }
}

/// Whether one default survives what is done to every object: pruning, coercion of metadata, validation.
fn default_errors(
    at: &Path,
    schema: &Schema,
    default: &Value,
    place: &Place,
    effort: &mut Effort,
) -> ErrorList {
    if place.inside_meta {
        // A default for a label is no object by itself; so the smallest resource around it is made and checked.
        let mut whole = place.surround(default);
        let invalid = |why: String| {
            [Error::invalid(at, default.clone(), format!("must result in valid metadata: {why}"))].into()
        };
        if let Err(error) = objectmeta::coerce_embedded(&mut whole, &place.root) {
            return invalid(error.to_string());
        }
        let wrong = objectmeta::validate_embedded(&whole, &place.root);
        if !wrong.is_empty() {
            return invalid(fleetpass_apimachinery::field::aggregate(&wrong));
        }
        return validation::validate_within(at, schema, default, effort);
    }
    let mut errors = ErrorList::new();
    let mut pruned = default.clone();
    // Defaults are filled in after pruning: what pruning would remove from one would get into the store.
    pruning::prune(&mut pruned, schema, schema.embedded_resource);
    if pruned != *default {
        errors.push(Error::invalid(at, default.clone(), "must not have unknown fields"));
    }
    let prefixed = |mut error: Error| {
        error.field =
            if error.field.as_str().is_empty() { at.clone() } else { at.child(error.field.as_str()) };
        error
    };
    let mut coerced = default.clone();
    if let Err(error) = objectmeta::coerce_embedded(&mut coerced, schema) {
        errors.push(prefixed(error));
        return errors;
    }
    let wrong = objectmeta::validate_embedded(default, schema);
    if wrong.is_empty() {
        errors.append(validation::validate_within(at, schema, default, effort));
    } else {
        errors.append(wrong.map(prefixed));
    }
    errors
}
