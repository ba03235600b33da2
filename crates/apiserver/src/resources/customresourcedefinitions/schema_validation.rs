//! What an `openAPIV3Schema` may say (`validateCustomResourceDefinitionValidation` and
//! `ValidateCustomResourceDefinitionOpenAPISchema` in
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`).

use super::{go_json, structural};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_schema::fieldpath::field_path;
use fleetpass_schema::{Effort, Schema, cel, crd};
use serde_json::{Map, Value};
use std::cell::LazyCell;
use std::collections::BTreeSet;
use std::sync::Arc;

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const REASONS: [&str; 4] =
    ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];
const META: [&str; 3] = ["metadata", "kind", "apiVersion"];

/// What the root of a schema may say if `status` is validated apart from it, by the names in Go, which the message lists
/// (`allowedFieldsAtRootSchema`).
const AT_ROOT: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// Visits a schema and all schemas inside of it.
pub(super) fn walk(schema: &Value, visit: &mut dyn FnMut(&Value)) {
    let Some(props) = schema.as_object() else { return };
    visit(schema);
    match props.get("items") {
        Some(Value::Array(list)) => list.iter().for_each(|s| walk(s, visit)),
        Some(items) => walk(items, visit),
        None => {}
    }
    for field in ["allOf", "anyOf", "oneOf"] {
        props.get(field).and_then(Value::as_array).into_iter().flatten().for_each(|s| walk(s, visit));
    }
    for field in ["not", "additionalProperties"] {
        props.get(field).into_iter().for_each(|s| walk(s, visit));
    }
    for field in ["properties", "patternProperties", "definitions"] {
        let members = props.get(field).and_then(Value::as_object);
        members.into_iter().flat_map(Map::values).for_each(|s| walk(s, visit));
    }
}

/// The errors of one validation schema at `path` (`…schema` or `spec.validation`).
///
/// The `effort` is for checking defaults, and is that of the whole request.
pub(super) fn validate(
    path: &Path,
    validation: &Value,
    status_enabled: bool,
    effort: &mut Effort,
) -> ErrorList {
    let mut errors = ErrorList::new();
    let Some(schema) = validation.get("openAPIV3Schema").filter(|s| s.is_object()) else { return errors };
    let at = path.child("openAPIV3Schema");
    if status_enabled {
        errors.extend(root_errors(&at, schema));
    }
    if schema["nullable"] == true {
        errors.push(Error::forbidden(&at.child("nullable"), "nullable cannot be true at the root"));
    }
    // Go's order: is there a structural form at all, is it well-formed, do its defaults fit. Each question makes
    // sense only if the one before it was answered with yes, so at most one of them has errors.
    let unsupported = structural::unsupported(schema);
    // Read once for all checks of all nodes, which would otherwise read what is below them again and again.
    let parsed = unsupported.is_none().then(|| Arc::new(crd::schema(schema)));
    // Rules are compiled only for schemas that are sound otherwise.
    let mut sound = unsupported.is_none();
    if sound {
        let mut wrong = structural::validate_structural(&at, schema);
        if wrong.is_empty() {
            wrong = structural::validate_defaults(&at, schema, effort);
        }
        sound = wrong.is_empty();
        errors.append(wrong);
    }
    let parsed = parsed.filter(|_| sound);
    let mut walker = Walker::default();
    let rules = if sound { Cardinality::AtMost(1) } else { Cardinality::NoRules };
    walker.node(&at, schema, parsed.as_ref(), &Setting { root: true, rules, ..Setting::default() });
    walker.total(&at);
    errors.append(walker.schema_errors);
    errors.append(walker.rule_errors);
    // The walk reports the same things with better paths; this is for what it does not know.
    if let Some(why) = unsupported.filter(|_| errors.is_empty()) {
        errors.push(Error::invalid(&at, "", why));
    }
    errors
}

/// The first member that the root may not have (`validateCustomResourceDefinitionValidation`).
fn root_errors(at: &Path, schema: &Value) -> Option<Error> {
    for (go, api) in go_json::set_members(schema.as_object()?) {
        if api == "type" {
            if schema["type"] != "object" {
                let detail = "only \"object\" is allowed as the type at the root of the schema if the status \
                              subresource is enabled";
                return Some(Error::invalid(&at.child("type"), schema["type"].clone(), detail));
            }
        } else if !AT_ROOT.contains(&go) {
            let detail = format!(
                "only [{}] fields are allowed at the root of the schema if the status subresource is enabled",
                AT_ROOT.join(" ")
            );
            return Some(go_json::invalid(at, &go_json::schema(schema), &detail));
        }
    }
    None
}

/// How often values of a schema can be in one object.
#[derive(Clone, Copy, Default)]
enum Cardinality {
    /// Rules are not looked at here.
    #[default]
    NoRules,
    AtMost(u64),
    /// No schema on the way sets a bound.
    Unbounded,
}

/// The most that one rule may cost by estimate, and all rules of a schema together (`StaticEstimatedCostLimit`,
/// `StaticEstimatedCRDCostLimit`).
const RULE_LIMIT: u64 = 10_000_000;
const SCHEMA_LIMIT: u64 = 100_000_000;

/// A list has more keys than this only by mistake.
const MANY_KEYS: usize = 64;

/// Where a schema stands.
#[derive(Clone, Default)]
struct Setting {
    root: bool,
    rules: Cardinality,
    /// Why defaults are forbidden here.
    no_defaults: Option<String>,
    inside_meta: bool,
    /// The highest schema below which old and new values cannot be told to belong together.
    uncorrelatable: Option<Path>,
}

impl Setting {
    fn below(&self) -> Self {
        Self { root: false, ..self.clone() }
    }
    /// Inside of a junctor, where rules are not allowed; structural validation has said so already.
    fn nested(&self) -> Self {
        Self { rules: Cardinality::NoRules, ..self.below() }
    }
    fn uncorrelatable_below(&self, path: &Path) -> Self {
        let uncorrelatable = self.uncorrelatable.clone().or_else(|| Some(path.clone()));
        Self { uncorrelatable, ..self.below() }
    }
}

/// Visits the nodes of a schema in Go's order and collects what is wrong.
#[derive(Default)]
struct Walker {
    schema_errors: ErrorList,
    /// Apart from the others, because Go reports them after all of those (`OpenAPISchemaErrorList`).
    rule_errors: ErrorList,
    /// What all rules may cost, and the most expensive of them.
    cost: u64,
    expensive: Vec<(Path, u64)>,
    checker: cel::RuleChecker,
}

impl Walker {
    fn push(&mut self, error: Error) {
        self.schema_errors.push(error);
    }

    /// `parsed` is the same schema, where it can be read: outside of junctors.
    fn node(&mut self, path: &Path, schema: &Value, parsed: Option<&Arc<Schema>>, setting: &Setting) {
        let Some(props) = schema.as_object() else { return };
        // Rules are compiled only where the node and all below it are sound: the compiler would stumble over the
        // same errors.
        let errors_before = self.schema_errors.len();
        self.standard(path, props, setting);
        if props.get("uniqueItems") == Some(&Value::Bool(true)) {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.push(Error::forbidden(&path.child("uniqueItems"), detail));
        }
        // Between the node's own checks, as in Go: the order of errors is part of the answer.
        self.children(path, props, parsed, setting);
        if props.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let at = path.child("x-kubernetes-preserve-unknown-fields");
            self.push(Error::invalid(&at, false, "must be true or undefined"));
        }
        self.map_type(path, props);
        self.list_type(path, props);
        self.list_map(path, props);
        self.rule_fields(path, schema, props, parsed);
        if self.schema_errors.len() == errors_before
            && !matches!(setting.rules, Cardinality::NoRules)
            && let Some(parsed) = parsed
        {
            self.rules(path, schema, parsed, setting);
        }
    }

    /// Compiles the rules of a schema that is sound otherwise, and adds up what they may cost.
    fn rules(&mut self, path: &Path, schema: &Value, parsed: &Schema, setting: &Setting) {
        let given = schema.get("x-kubernetes-validations").and_then(Value::as_array);
        let Some(given) = given.filter(|rules| !rules.is_empty()) else { return };
        let root = setting.root || schema["x-kubernetes-embedded-resource"] == true;
        for (index, (rule, report)) in given.iter().zip(self.checker.check(parsed, root)).enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            let at_rule = at.child("rule");
            // Without a bound on the way down, the estimate of how many such values fit into a request takes its
            // place.
            let times = match setting.rules {
                Cardinality::AtMost(times) => times,
                _ => report.cardinality,
            };
            let cost = report.cost.saturating_mul(times);
            if cost > RULE_LIMIT {
                let detail = too_expensive("estimated rule cost", cost, RULE_LIMIT);
                self.rule_errors.push(Error::forbidden(&at_rule, detail));
            }
            self.spend(&at_rule, cost);
            if let Some(why) = &report.error {
                self.rule_errors.push(go_json::invalid(&at_rule, &go_json::rule(rule), why));
            }
            let at_message = at.child("messageExpression");
            if let Some(why) = &report.message_error {
                self.rule_errors.push(go_json::invalid(&at_message, &go_json::rule(rule), why));
            } else if let Some(cost) = report.message_cost {
                if cost > RULE_LIMIT {
                    let detail = too_expensive("estimated messageExpression cost", cost, RULE_LIMIT);
                    self.rule_errors.push(Error::forbidden(&at_message, detail));
                }
                self.spend(&at_message, cost);
            }
            if report.uses_old_self {
                if let Some(within) = &setting.uncorrelatable {
                    let detail = format!(
                        "oldSelf cannot be used on the uncorrelatable portion of the schema within {within}"
                    );
                    self.rule_errors.push(Error::invalid(&at_rule, rule["rule"].clone(), detail));
                }
            } else if let Some(optional) = rule.get("optionalOldSelf").filter(|o| !o.is_null()) {
                let detail = "may not be set if oldSelf is not used in rule";
                self.rule_errors.push(Error::invalid(&at.child("optionalOldSelf"), optional.clone(), detail));
            }
        }
    }

    fn spend(&mut self, at: &Path, cost: u64) {
        self.cost = self.cost.saturating_add(cost);
        if cost >= SCHEMA_LIMIT / 100 {
            // Four at most are kept, so this costs the same for each rule.
            self.expensive.push((at.clone(), cost));
            self.expensive.sort_by_key(|(_, cost)| std::cmp::Reverse(*cost));
            self.expensive.truncate(4);
        }
    }

    /// The error of rules that are affordable one by one and too expensive together.
    fn total(&mut self, at: &Path) {
        if self.cost <= SCHEMA_LIMIT {
            return;
        }
        for (at, _) in &self.expensive {
            let detail =
                "contributed to estimated rule cost total exceeding cost limit for entire OpenAPIv3 schema";
            self.rule_errors.push(Error::forbidden(at, detail));
        }
        let what = "x-kubernetes-validations estimated rule cost total for entire OpenAPIv3 schema";
        self.rule_errors.push(Error::forbidden(at, too_expensive(what, self.cost, SCHEMA_LIMIT)));
    }

    fn children(
        &mut self,
        path: &Path,
        props: &Map<String, Value>,
        parsed: Option<&Arc<Schema>>,
        setting: &Setting,
    ) {
        let properties = props.get("properties").and_then(Value::as_object);
        // A bound of this node counts for all below it.
        let below = &Setting { rules: cardinality_below(setting.rules, props), ..setting.clone() };
        let setting = below;
        if let Some(additional) = props.get("additionalProperties") {
            let at = path.child("additionalProperties");
            if properties.is_some_and(|p| !p.is_empty()) && *additional != Value::Bool(true) {
                self.push(Error::forbidden(&at, "additionalProperties and properties are mutual exclusive"));
            }
            let mut below = setting.below();
            if setting.inside_meta {
                below.no_defaults = Some("inside additionalProperties applying to object metadata".into());
            }
            self.node(&at, additional, parsed.and_then(|s| s.additional.as_ref()), &below);
        }
        let embedded = props.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true));
        for (name, property) in properties.into_iter().flatten() {
            let mut below = setting.below();
            // An atomic object is replaced as a whole; its old members are not the old values of its new ones.
            if text(props, "x-kubernetes-map-type") == "atomic" {
                below = setting.uncorrelatable_below(path);
            }
            if (setting.root || embedded) && META.contains(&name.as_str()) {
                below.inside_meta = true;
                if setting.root {
                    below.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            let parsed = parsed.and_then(|s| s.properties.get(name));
            self.node(&path.child("properties").key(name), property, parsed, &below);
        }
        if let Some(not) = props.get("not") {
            self.node(&path.child("not"), not, None, &setting.nested());
        }
        for field in ["allOf", "oneOf", "anyOf"] {
            let list = props.get(field).and_then(Value::as_array).into_iter().flatten();
            for (index, schema) in list.enumerate() {
                self.node(&path.child(field).index(index), schema, None, &setting.nested());
            }
        }
        for (name, schema) in props.get("definitions").and_then(Value::as_object).into_iter().flatten() {
            self.node(&path.child("definitions").key(name), schema, None, &setting.nested());
        }
        // Elements of a list of type map are told by their keys. In any other list nobody can say which old element
        // became which new one, so `oldSelf` means nothing there.
        let below = match text(props, "x-kubernetes-list-type") {
            "map" => setting.below(),
            _ => setting.uncorrelatable_below(path),
        };
        match props.get("items") {
            Some(Value::Array(list)) => {
                for (index, schema) in list.iter().enumerate() {
                    self.node(&path.child("items").index(index), schema, None, &below);
                }
            }
            Some(items) => {
                self.node(&path.child("items"), items, parsed.and_then(|s| s.items.as_ref()), &below);
            }
            None => {}
        }
    }

    /// What CRDs forbid of OpenAPI (`specStandardValidatorV3`).
    fn standard(&mut self, path: &Path, props: &Map<String, Value>, setting: &Setting) {
        let kind = text(props, "type");
        if !kind.is_empty() && !TYPES.contains(&kind) {
            self.push(Error::not_supported(&path.child("type"), kind, &TYPES));
        }
        if let Some(why) = &setting.no_defaults
            && props.get("default").is_some_and(|d| !d.is_null())
        {
            self.push(Error::forbidden(&path.child("default"), format!("must not be set {why}")));
        }
        // Go asks whether some of these are empty and whether others are nil; of the latter an empty value is an
        // error, too.
        for (field, empty_is_fine) in [
            ("id", true),
            ("additionalItems", false),
            ("patternProperties", true),
            ("definitions", true),
            ("dependencies", false),
            ("$ref", false),
        ] {
            let given = props.get(field).is_some_and(|v| match v {
                Value::String(text) if empty_is_fine => !text.is_empty(),
                Value::Object(members) if empty_is_fine => !members.is_empty(),
                _ => true,
            });
            if given {
                self.push(Error::forbidden(&path.child(field), format!("{field} is not supported")));
            }
        }
        if kind == "null" {
            let detail = "type cannot be set to null, use nullable as an alternative";
            self.push(Error::forbidden(&path.child("type"), detail));
        }
        if props.get("items").and_then(Value::as_array).is_some_and(|list| !list.is_empty()) {
            let detail = "items must be a schema object and not an array";
            self.push(Error::forbidden(&path.child("items"), detail));
        }
        if setting.inside_meta && props.get("x-kubernetes-embedded-resource") == Some(&Value::Bool(true)) {
            let at = path.child("x-kubernetes-embedded-resource");
            self.push(Error::forbidden(&at, "must not be used inside of resource meta"));
        }
    }

    fn must_be(&mut self, path: &Path, props: &Map<String, Value>, kind: &str, extension: &str) {
        let detail = format!("must be {kind} if {extension} is specified");
        let at = path.child("type");
        self.push(match text(props, "type") {
            "" => Error::required(&at, detail),
            other => Error::invalid(&at, other, detail),
        });
    }

    fn map_type(&mut self, path: &Path, props: &Map<String, Value>) {
        let Some(map_type) = props.get("x-kubernetes-map-type").and_then(Value::as_str) else { return };
        if text(props, "type") != "object" {
            self.must_be(path, props, "object", "x-kubernetes-map-type");
        }
        let known = ["atomic", "granular"];
        if !known.contains(&map_type) {
            self.push(Error::not_supported(&path.child("x-kubernetes-map-type"), map_type, &known));
        }
    }

    fn list_type(&mut self, path: &Path, props: &Map<String, Value>) {
        let Some(list_type) = props.get("x-kubernetes-list-type").and_then(Value::as_str) else { return };
        if text(props, "type") != "array" {
            self.must_be(path, props, "array", "x-kubernetes-list-type");
        } else if let Some(items) =
            props.get("items").and_then(Value::as_object).filter(|_| list_type == "set")
        {
            let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
            let inner = items.get("x-kubernetes-list-type").cloned().unwrap_or_default();
            let at = path.child("items");
            match text(items, "type") {
                "array" if !inner.is_null() && inner != "atomic" => {
                    self.push(Error::invalid(&at.child("x-kubernetes-list-type"), inner, detail));
                }
                // The list type is printed here as well, as kube-apiserver does.
                "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                    self.push(Error::invalid(&at.child("x-kubernetes-map-type"), inner, detail));
                }
                _ => {}
            }
        }
        let known = ["atomic", "set", "map"];
        if !known.contains(&list_type) {
            self.push(Error::not_supported(&path.child("x-kubernetes-list-type"), list_type, &known));
        }
    }

    fn list_map(&mut self, path: &Path, props: &Map<String, Value>) {
        let list_type = props.get("x-kubernetes-list-type").and_then(Value::as_str);
        let keys: Vec<&str> = props
            .get("x-kubernetes-list-map-keys")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        if !keys.is_empty() && list_type != Some("map") {
            let at = path.child("x-kubernetes-list-type");
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            self.push(match list_type {
                None => Error::required(&at, detail),
                Some(other) => Error::invalid(&at, other, detail),
            });
        }
        let items = props.get("items").and_then(Value::as_object);
        if list_type == Some("map") {
            if keys.is_empty() {
                let detail = "must not be empty if x-kubernetes-list-type is map";
                self.push(Error::required(&path.child("x-kubernetes-list-map-keys"), detail));
            }
            match items {
                None => {
                    let detail = "must have a schema if x-kubernetes-list-type is map";
                    self.push(Error::required(&path.child("items"), detail));
                }
                Some(items) if text(items, "type") != "object" => {
                    let detail = "must be object if parent array's x-kubernetes-list-type is map";
                    self.push(Error::invalid(
                        &path.child("items").child("type"),
                        text(items, "type"),
                        detail,
                    ));
                }
                Some(items) => self.map_keys(path, items, &keys),
            }
        }
        if let (Some(list_type @ ("set" | "map")), Some(items)) = (list_type, items) {
            self.elements_of(path, list_type, items, &keys);
        }
    }

    /// Keys must be scalar properties of the elements, each named once.
    fn map_keys(&mut self, path: &Path, items: &Map<String, Value>, keys: &[&str]) {
        let at = path.child("x-kubernetes-list-map-keys");
        let mut seen = BTreeSet::new();
        let mut said = BTreeSet::new();
        for key in keys {
            match items.get("properties").and_then(|p| p.get(key)) {
                Some(property) if matches!(property["type"].as_str(), Some("array" | "object")) => {
                    let at = path.child("items").child("properties").key(key).child("type");
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    // kube-apiserver prints the type of the elements, not that of the key.
                    self.push(Error::invalid(&at, text(items, "type"), detail));
                }
                Some(_) => {}
                None => {
                    self.wrong_keys(&at, keys, "entries must all be names of item properties", &mut said);
                }
            }
            if !seen.insert(key) {
                self.wrong_keys(&at, keys, "must not contain duplicate entries", &mut said);
            }
        }
    }

    /// An error that shows all keys. What it says is the same for each key that is wrong, so of a list with many keys it is `said`
    /// once: making and showing all of them each time would be quadratic.
    fn wrong_keys(
        &mut self,
        at: &Path,
        keys: &[&str],
        detail: &'static str,
        said: &mut BTreeSet<&'static str>,
    ) {
        if said.insert(detail) || keys.len() <= MANY_KEYS {
            self.push(Error::invalid(at, keys.to_vec(), detail));
        }
    }

    /// Elements of sets and maps are never null, and keys of maps are always there.
    fn elements_of(&mut self, path: &Path, list_type: &str, items: &Map<String, Value>, keys: &[&str]) {
        if items.get("nullable") == Some(&Value::Bool(true)) {
            let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
            self.push(Error::forbidden(&path.child("items").child("nullable"), detail));
        }
        if list_type != "map" {
            return;
        }
        let required = items.get("required").and_then(Value::as_array);
        let required: BTreeSet<&str> = required.into_iter().flatten().filter_map(Value::as_str).collect();
        for key in keys {
            let Some(property) = items.get("properties").and_then(|p| p.get(key)) else { continue };
            let at = path.child("items").child("properties").key(key);
            if !required.contains(key) && property.get("default").is_none_or(Value::is_null) {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a \
                              required property";
                self.push(Error::required(&at.child("default"), detail));
            }
            if property["nullable"] == true {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.push(Error::forbidden(&at.child("nullable"), detail));
            }
        }
    }

    /// The fields of rules, other than their expressions.
    fn rule_fields(
        &mut self,
        path: &Path,
        schema: &Value,
        props: &Map<String, Value>,
        known: Option<&Arc<Schema>>,
    ) {
        let rules = props.get("x-kubernetes-validations").and_then(Value::as_array);
        // Once for the node and not for each rule: a client could send a large schema with many rules at its root.
        let parsed = LazyCell::new(|| match known {
            Some(known) => Some(Arc::clone(known)),
            None => structural::unsupported(schema).is_none().then(|| Arc::new(crd::schema(schema))),
        });
        for (index, rule) in rules.into_iter().flatten().enumerate() {
            let at = path.child("x-kubernetes-validations").index(index);
            let get = |field: &str| rule.get(field).and_then(Value::as_str).unwrap_or_default();
            let lines = |text: &str| text.contains(['\n', '\r']);
            let (expression, message) = (get("rule"), get("message"));
            if expression.trim().is_empty() {
                self.push(Error::required(&at.child("rule"), "rule is not specified"));
            } else if !message.is_empty() && message.trim().is_empty() {
                self.push(Error::invalid(&at.child("message"), message, "must be non-empty if specified"));
            } else if lines(message.trim()) {
                self.push(Error::invalid(&at.child("message"), message, "must not contain line breaks"));
            } else if lines(expression.trim()) && message.trim().is_empty() {
                let detail = "message must be specified if rule contains line breaks";
                self.push(Error::required(&at.child("message"), detail));
            }
            let message_expression = get("messageExpression");
            if !message_expression.is_empty() && message_expression.trim().is_empty() {
                let detail = "messageExpression must be non-empty if specified";
                self.push(Error::required(&at.child("messageExpression"), detail));
            }
            if let Some(reason) = rule.get("reason").and_then(Value::as_str)
                && !REASONS.contains(&reason)
            {
                self.push(Error::not_supported(&at.child("reason"), reason, &REASONS));
            }
            let field = get("fieldPath");
            if field.is_empty() {
                continue;
            }
            let at = at.child("fieldPath");
            if field.trim().is_empty() {
                self.push(Error::invalid(&at, field, "must be non-empty if specified"));
            }
            if lines(field) {
                self.push(Error::invalid(&at, field, "must not contain line breaks"));
            }
            if let Some(parsed) = &*parsed
                && field_path(field, parsed, true).is_err()
            {
                self.push(Error::invalid(&at, field, "must be a valid path"));
            }
        }
    }
}

/// How often values of the schemas below can be there, if those of this one can be there so often.
fn cardinality_below(here: Cardinality, props: &Map<String, Value>) -> Cardinality {
    let Cardinality::AtMost(times) = here else { return here };
    let bound =
        |field: &str| props.get(field).and_then(Value::as_i64).map(|n| u64::try_from(n).unwrap_or_default());
    let most = match text(props, "type") {
        "object" if props.contains_key("additionalProperties") => bound("maxProperties"),
        "array" => bound("maxItems"),
        _ => Some(1),
    };
    most.map_or(Cardinality::Unbounded, |most| Cardinality::AtMost(times.saturating_mul(most)))
}

/// Go's words for a cost beyond the limit, with the factor as `%f` and `%.1f` print it.
fn too_expensive(what: &str, cost: u64, limit: u64) -> String {
    let factor = cost as f64 / limit as f64;
    let factor = match factor {
        f if f > 100.0 => "more than 100x".to_string(),
        f if f < 1.5 => format!("{f:.6}x"),
        f => format!("{f:.1}x"),
    };
    format!(
        "{what} exceeds budget by factor of {factor} (try simplifying the rule, or adding maxItems, maxProperties, and \
         maxLength where arrays, maps, and strings are declared)"
    )
}

fn text<'a>(props: &'a Map<String, Value>, field: &str) -> &'a str {
    props.get(field).and_then(Value::as_str).unwrap_or_default()
}
