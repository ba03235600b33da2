//! What a definition may say, and what may change in it (`ValidateCustomResourceDefinition` and its relatives in
//! `apiextensions-apiserver/pkg/apis/apiextensions/validation/validation.go`). Paths of errors are those of
//! kube-apiserver's internal type: what is identical in all versions is found at the spec.

use super::go_json;
use super::hoisted::{Hoisted, is_empty};
use super::schema_validation;
use crate::resources::customresources::is_selectable_type;
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::names::{is_dns1035_label, is_dns1123_subdomain};
use fleetpass_schema::fieldpath::field_path;
use fleetpass_schema::validation::STEPS;
use fleetpass_schema::{Effort, crd, go};
use serde_json::{Value, json};
use std::collections::BTreeSet;

const MAX_SELECTABLE: usize = 8;
/// A definition has more versions than this only by mistake.
const MANY_VERSIONS: usize = 64;
const APPROVAL: &str = "api-approved.kubernetes.io";
const COLUMN_TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const COLUMN_FORMATS: [&str; 8] =
    ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

/// The errors of a new definition, but for those of its metadata that all kinds share.
pub(super) fn validate(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    let names = &object["spec"]["names"];
    let required = format!("{}.{}", meta::text(names, &["plural"]), meta::text(object, &["spec", "group"]));
    if meta::name(object) != required {
        let detail = "must be spec.names.plural+\".\"+spec.group";
        errors.push(Error::invalid(&Path::new("metadata.name"), meta::name(object), detail));
    }
    errors.append(validate_spec(&object["spec"]));
    errors.append(validate_rest(object, None));
    errors
}

/// The errors of a changed definition.
pub(super) fn validate_update(new: &Value, old: &Value) -> ErrorList {
    let mut errors = validate_spec(&new["spec"]);
    let established = meta::list(old, &["status", "conditions"])
        .iter()
        .any(|c| c["type"] == "Established" && c["status"] == "True");
    // Scope and kind decide where objects are stored and what they are; they may change as long as there cannot be
    // any. Group and plural are the definition's own name.
    let stored: &[&[&str]] = &[&["scope"], &["names", "kind"]];
    let always: &[&[&str]] = &[&["group"], &["names", "plural"]];
    for path in stored.iter().filter(|_| established).chain(always) {
        let now = meta::text(&new["spec"], path);
        if now != meta::text(&old["spec"], path) {
            let at = Path::new(format!("spec.{}", path.join(".")));
            errors.push(Error::invalid(&at, now, "field is immutable"));
        }
    }
    errors.append(validate_rest(new, Some(old)));
    errors
}

/// The errors of a change to the status.
pub(super) fn validate_status(object: &Value) -> ErrorList {
    let mut errors = ErrorList::new();
    validate_names(&object["status"]["acceptedNames"], &Path::new("status.acceptedNames"), &mut errors);
    errors
}

/// What is the same for new and for changed definitions, beside the spec; `old` is there on updates.
fn validate_rest(object: &Value, old: Option<&Value>) -> ErrorList {
    let mut errors = validate_status(object);
    errors.append(validate_stored_versions(object));
    errors.extend(validate_approval(object, old));
    let preserves = |o: &Value| o["spec"]["preserveUnknownFields"] == true;
    // v1 knows the field only to refuse it; definitions that were made through v1beta1 may keep it.
    if preserves(object) && !old.is_some_and(preserves) {
        let detail = "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in \
                      spec.versions[*].schema instead";
        errors.push(Error::invalid(&Path::new("spec.preserveUnknownFields"), true, detail));
    }
    errors
}

fn validate_stored_versions(object: &Value) -> ErrorList {
    let at = Path::new("status.storedVersions");
    let stored = meta::list(object, &["status", "storedVersions"]);
    let mut errors = ErrorList::new();
    // Go returns here: of an empty list nothing else is worth saying.
    if stored.is_empty() {
        let value = object["status"]["storedVersions"].clone();
        errors.push(Error::invalid(&at, value, "must have at least one stored version"));
        return errors;
    }
    let versions = meta::list(object, &["spec", "versions"]);
    let listed: BTreeSet<&str> = stored.iter().filter_map(Value::as_str).collect();
    let name = |version| meta::text(version, &["name"]);
    for version in versions.iter().filter(|v| v["storage"] == true && !listed.contains(name(v))) {
        let detail = format!("must have the storage version {}", name(version));
        let error = Error::invalid(&at, stored.to_vec(), detail);
        // Each shows the whole list: of many versions that are all marked as the storage version, one says enough.
        if versions.len() <= MANY_VERSIONS || errors.is_empty() {
            errors.push(error);
        }
    }
    let known: BTreeSet<&str> = versions.iter().map(name).collect();
    for (index, name) in stored.iter().enumerate() {
        let v = name.as_str().unwrap_or_default();
        if !name.is_string() || !known.contains(v) {
            let detail = format!(
                "missing from spec.versions; {v} was previously a storage version, and must remain in spec.versions \
                 until a storage migration ensures no data remains persisted in {v} and removes {v} from \
                 status.storedVersions"
            );
            errors.push(Error::invalid(&at.index(index), v, detail));
        }
    }
    errors
}

/// Groups of the Kubernetes project need an approval (`GetAPIApprovalState` in `pkg/apihelpers/helpers.go`).
fn validate_approval(object: &Value, old: Option<&Value>) -> Option<Error> {
    let group = meta::text(object, &["spec", "group"]);
    let protected = ["k8s.io", "kubernetes.io"]
        .iter()
        .any(|domain| group == *domain || group.ends_with(&format!(".{domain}")));
    if !protected {
        return None;
    }
    #[derive(PartialEq)]
    enum State {
        Missing,
        Bypassed,
        Approved,
        Invalid,
    }
    let state = |object: &Value| match meta::annotation(object, APPROVAL).unwrap_or_default() {
        "" => State::Missing,
        text if text.starts_with("unapproved") => State::Bypassed,
        text if is_url(text) => State::Approved,
        _ => State::Invalid,
    };
    let now = state(object);
    // Ratcheting: a definition from before this rule may be changed as long as its state stays the same.
    if old.is_some_and(|old| state(old) == now) {
        return None;
    }
    let at = Path::new("metadata.annotations").key(APPROVAL);
    let help = "see https://github.com/kubernetes/enhancements/pull/1111";
    match now {
        State::Missing => {
            let detail = format!("protected groups must have approval annotation \"{APPROVAL}\", {help}");
            Some(Error::required(&at, detail))
        }
        State::Invalid => {
            let detail = format!(
                "protected groups must have approval annotation \"{APPROVAL}\" with either a URL or a reason starting \
                 with \"unapproved\", {help}"
            );
            let given = meta::annotation(object, APPROVAL).unwrap_or_default();
            Some(Error::invalid(&at, given, detail))
        }
        State::Bypassed | State::Approved => None,
    }
}

/// Whether a text has a scheme and a host.
fn is_url(text: &str) -> bool {
    let host = text.split_once("://").map(|(_, rest)| rest.split(['/', '?']).next().unwrap_or_default());
    host.is_some_and(|h| !h.is_empty()) && fleetpass_schema::formats::is_valid("uri", text)
}

fn label_errors(at: &Path, value: &str, errors: &mut ErrorList) {
    let wrong = is_dns1035_label(value, false);
    if !wrong.is_empty() {
        errors.push(Error::invalid(at, value, wrong.join(",")));
    }
}

fn validate_spec(spec: &Value) -> ErrorList {
    let at = Path::new("spec");
    let mut errors = ErrorList::new();
    // One for all defaults of all versions: their number is the client's to choose.
    let mut effort = Effort::new(STEPS);
    let group = meta::text(spec, &["group"]);
    let wrong = is_dns1123_subdomain(group, false);
    if group.is_empty() {
        errors.push(Error::required(&at.child("group"), ""));
    } else if !wrong.is_empty() {
        errors.push(Error::invalid(&at.child("group"), group, wrong.join(",")));
    } else if !group.contains('.') {
        errors.push(Error::invalid(&at.child("group"), group, "should be a domain with at least one dot"));
    }
    one_of(&at.child("scope"), meta::text(spec, &["scope"]), &["Cluster", "Namespaced"], &mut errors);
    let versions = meta::list(spec, &["versions"]);
    // From here on: what was hoisted is validated once, at the spec, and skipped in the versions. The versions come
    // first, as in Go.
    let hoisted = Hoisted::new(versions);
    let has_schema = |v: &Value| v["schema"]["openAPIV3Schema"].is_object();
    if !hoisted.schema.is_some_and(|s| s["openAPIV3Schema"].is_object()) {
        for (index, _) in versions.iter().enumerate().filter(|(_, v)| !has_schema(v)) {
            let at = at.child("versions").index(index).child("schema").child("openAPIV3Schema");
            errors.push(Error::required(&at, ""));
        }
    }
    let preserves = spec["preserveUnknownFields"] == true;
    if preserves && versions.iter().any(has_defaults) {
        let detail = "must be false in order to use defaults in the schema";
        errors.push(Error::invalid(&at.child("preserveUnknownFields"), true, detail));
    }
    for (index, version) in versions.iter().enumerate() {
        let at = at.child("versions").index(index);
        label_errors(&at.child("name"), meta::text(version, &["name"]), &mut errors);
        validate_version(&at, version, &hoisted, &mut effort, &mut errors);
    }
    validate_version_set(&at, spec, versions, &hoisted, &mut errors);
    for name in ["plural", "singular", "kind", "listKind"] {
        if meta::text(spec, &["names", name]).is_empty() {
            errors.push(Error::required(&at.child("names").child(name), ""));
        }
    }
    validate_names(&spec["names"], &at.child("names"), &mut errors);
    if let Some(schema) = hoisted.schema {
        // A hoisted schema is that of all versions, so one of them with a status is enough.
        let status = versions.iter().any(has_status);
        let at = at.child("validation");
        errors.append(schema_validation::validate(&at, schema, status, &mut effort));
    }
    if let Some(subresources) = hoisted.subresources {
        validate_subresources(&at.child("subresources"), subresources, &mut errors);
    }
    validate_columns(&at, hoisted.columns, &mut errors);
    if let Some(fields) = hoisted.selectable {
        match hoisted.schema {
            Some(schema) => validate_selectable(&at, fields, &schema["openAPIV3Schema"], &mut errors),
            None => {
                let detail = "may only be set when validations.schema is included";
                errors.push(Error::invalid(&at.child("selectableFields"), "", detail));
            }
        }
    }
    let strategy = meta::text(spec, &["conversion", "strategy"]);
    if preserves && strategy != "None" {
        let detail = "must be None if spec.preserveUnknownFields is true";
        errors.push(Error::invalid(&at.child("conversion").child("strategy"), strategy, detail));
    }
    validate_conversion(&at.child("conversion"), &spec["conversion"], &mut errors);
    errors
}

fn one_of(at: &Path, value: &str, allowed: &[&str], errors: &mut ErrorList) {
    if value.is_empty() {
        errors.push(Error::required(at, ""));
    } else if !allowed.contains(&value) {
        errors.push(Error::not_supported(at, value, allowed));
    }
}

fn has_defaults(version: &Value) -> bool {
    let mut found = false;
    schema_validation::walk(&version["schema"]["openAPIV3Schema"], &mut |schema| {
        found |= schema.get("default").is_some_and(|d| !d.is_null());
    });
    found
}

fn has_status(version: &Value) -> bool {
    version["subresources"].get("status").is_some_and(Value::is_object)
}

fn validate_version(
    at: &Path,
    version: &Value,
    hoisted: &Hoisted<'_>,
    effort: &mut Effort,
    errors: &mut ErrorList,
) {
    for detail in deprecation_errors(version) {
        let warning = version["deprecationWarning"].clone();
        errors.push(Error::invalid(&at.child("deprecationWarning"), warning, detail));
    }
    // Whatever was hoisted is not here any more, for Go.
    let own_schema = version.get("schema").filter(|_| hoisted.schema.is_none());
    if let Some(schema) = own_schema {
        let status = has_status(version);
        errors.append(schema_validation::validate(&at.child("schema"), schema, status, effort));
    }
    if let Some(subresources) = version.get("subresources").filter(|_| hoisted.subresources.is_none()) {
        validate_subresources(&at.child("subresources"), subresources, errors);
    }
    validate_columns(
        at,
        version.get("additionalPrinterColumns").filter(|_| hoisted.columns.is_none()),
        errors,
    );
    let fields = version.get("selectableFields").filter(|f| hoisted.selectable.is_none() && !is_empty(f));
    if let Some(fields) = fields {
        match own_schema.map(|s| &s["openAPIV3Schema"]).filter(|s| s.is_object()) {
            Some(schema) => validate_selectable(at, fields, schema, errors),
            // The schema was hoisted while these fields were not. kube-apiserver does not look for it at the spec, and its
            // message says the opposite of what it means.
            None => {
                let detail = "may only be set when `version.schema.openAPIV3Schema` is not included";
                errors.push(Error::invalid(&at.child("selectableFields"), "", detail));
            }
        }
    }
}

fn deprecation_errors(version: &Value) -> Vec<String> {
    let Some(warning) = version.get("deprecationWarning").and_then(Value::as_str) else { return Vec::new() };
    if version["deprecated"] != true {
        return vec!["can only be set for deprecated versions".into()];
    }
    let mut errors = Vec::new();
    if warning.len() > 256 {
        errors.push("must be <= 256 characters long".into());
    }
    if warning.is_empty() {
        errors.push("must not be an empty string".into());
    }
    if let Some((index, _)) = warning.char_indices().find(|(_, c)| c.is_control() || *c == '\u{feff}') {
        errors.push(format!(
            "must only contain printable UTF-8 characters; non-printable character found at index {index}"
        ));
    }
    errors
}

/// What holds of the versions together: names, and exactly one to store. The errors print all versions as Go would.
fn validate_version_set(
    at: &Path,
    spec: &Value,
    versions: &[Value],
    hoisted: &Hoisted<'_>,
    errors: &mut ErrorList,
) {
    let at_versions = at.child("versions");
    let printed = || match spec.get("versions").and_then(Value::as_array) {
        None => "null".into(),
        Some(list) => {
            let printed: Vec<String> = list.iter().map(|v| go_json::version(v, hoisted)).collect();
            format!("[{}]", printed.join(","))
        }
    };
    let names: BTreeSet<&str> = versions.iter().map(|v| meta::text(v, &["name"])).collect();
    if names.len() < versions.len() {
        errors.push(go_json::invalid(&at_versions, &printed(), "must contain unique version names"));
    }
    if versions.iter().filter(|v| v["storage"] == true).count() != 1 {
        let detail = "must have exactly one version marked as storage version";
        errors.push(go_json::invalid(&at_versions, &printed(), detail));
    }
    // Go's conversion sets the deprecated `spec.version` to the first version's name. So a bad first name is
    // reported twice.
    let first = versions.first().map_or("", |v| meta::text(v, &["name"]));
    if !first.is_empty() {
        label_errors(&at.child("version"), first, errors);
    }
}

fn validate_names(names: &Value, at: &Path, errors: &mut ErrorList) {
    for field in ["plural", "singular"] {
        let name = meta::text(names, &[field]);
        if !name.is_empty() {
            label_errors(&at.child(field), name, errors);
        }
    }
    for field in ["kind", "listKind"] {
        let name = meta::text(names, &[field]);
        let wrong = is_dns1035_label(&name.to_lowercase(), false);
        if !name.is_empty() && !wrong.is_empty() {
            let detail = format!("may have mixed case, but should otherwise match: {}", wrong.join(","));
            errors.push(Error::invalid(&at.child(field), name, detail));
        }
    }
    let list = |field: &str, errors: &mut ErrorList| {
        for (index, name) in meta::list(names, &[field]).iter().enumerate() {
            label_errors(&at.child(field).index(index), name.as_str().unwrap_or_default(), errors);
        }
    };
    list("shortNames", errors);
    let kind = meta::text(names, &["kind"]);
    if !kind.is_empty() && kind == meta::text(names, &["listKind"]) {
        errors.push(Error::invalid(&at.child("listKind"), kind, "kind and listKind may not be the same"));
    }
    list("categories", errors);
}

/// The error of a path that does not begin with a dot. Nothing more is checked, as in kube-apiserver: a path that cannot be
/// parsed is found out when the definition is served.
fn simple_json_path(at: &Path, path: &str) -> Option<Error> {
    (!path.starts_with('.')).then(|| Error::invalid(at, path, "must be a simple json path starting with ."))
}

fn validate_subresources(at: &Path, subresources: &Value, errors: &mut ErrorList) {
    let Some(scale) = subresources.get("scale").filter(|s| s.is_object()) else { return };
    for (field, prefix) in [("specReplicasPath", ".spec."), ("statusReplicasPath", ".status.")] {
        let at = at.child("scale").child(field);
        let path = meta::text(scale, &[field]);
        if path.is_empty() {
            errors.push(Error::required(&at, ""));
        } else if let Some(error) = simple_json_path(&at, path) {
            errors.push(error);
        } else if !path.starts_with(prefix) {
            let under = prefix.trim_end_matches('.');
            errors.push(Error::invalid(&at, path, format!("should be a json path under {under}")));
        }
    }
    let at = at.child("scale").child("labelSelectorPath");
    let path = meta::text(scale, &["labelSelectorPath"]);
    if path.is_empty() {
        return;
    }
    if let Some(error) = simple_json_path(&at, path) {
        errors.push(error);
    } else if !path.starts_with(".spec.") && !path.starts_with(".status.") {
        errors.push(Error::invalid(&at, path, "should be a json path under either .spec or .status"));
    }
}

fn validate_columns(at: &Path, columns: Option<&Value>, errors: &mut ErrorList) {
    for (index, column) in columns.and_then(Value::as_array).into_iter().flatten().enumerate() {
        let at = at.child("additionalPrinterColumns").index(index);
        let text = |field: &str| meta::text(column, &[field]);
        if text("name").is_empty() {
            errors.push(Error::required(&at.child("name"), ""));
        }
        let detail = format!("must be one of {}", COLUMN_TYPES.join(","));
        match text("type") {
            "" => errors.push(Error::required(&at.child("type"), detail)),
            kind if !COLUMN_TYPES.contains(&kind) => {
                errors.push(Error::invalid(&at.child("type"), kind, detail));
            }
            _ => {}
        }
        let format = text("format");
        if !format.is_empty() && !COLUMN_FORMATS.contains(&format) {
            let detail = format!("must be one of {}", COLUMN_FORMATS.join(","));
            errors.push(Error::invalid(&at.child("format"), format, detail));
        }
        // Spelled so in the internal type.
        let at = at.child("JSONPath");
        match text("jsonPath") {
            "" => errors.push(Error::required(&at, "")),
            path => errors.extend(simple_json_path(&at, path)),
        }
    }
}

fn validate_selectable(at: &Path, fields: &Value, schema: &Value, errors: &mut ErrorList) {
    let at = at.child("selectableFields");
    let schema = crd::schema(schema);
    let mut seen = BTreeSet::new();
    for (index, field) in fields.as_array().into_iter().flatten().enumerate() {
        let at = at.index(index).child("jsonPath");
        let path = meta::text(field, &["jsonPath"]);
        if path.is_empty() {
            errors.push(Error::required(&at, ""));
            continue;
        }
        let (found, leaf) = match field_path(path, &schema, false) {
            Ok(found) => found,
            Err(why) => {
                let detail = format!("is an invalid path: {}", go::Words(&why));
                errors.push(Error::invalid(&at, path, detail));
                continue;
            }
        };
        if found.as_str() == "metadata" || found.as_str().starts_with("metadata.") {
            errors.push(Error::invalid(&at, path, "must not point to fields in metadata"));
        }
        if !is_selectable_type(leaf) {
            let detail = "must point to a field of type string, boolean or integer. Enum string fields and strings \
                          with formats are allowed.";
            errors.push(Error::invalid(&at, path, detail));
        }
        if !seen.insert(found.as_str().to_string()) {
            errors.push(Error::duplicate(&at, path));
        }
    }
    // Counted without duplicates, which have an error of their own.
    if seen.len() > MAX_SELECTABLE {
        errors.push(Error::too_many(&at, seen.len(), MAX_SELECTABLE));
    }
}

fn validate_conversion(at: &Path, conversion: &Value, errors: &mut ErrorList) {
    let Some(conversion) = conversion.as_object() else { return };
    let strategy = conversion.get("strategy").and_then(Value::as_str).unwrap_or_default();
    one_of(&at.child("strategy"), strategy, &["None", "Webhook"], errors);
    let webhook = conversion.get("webhook").cloned().unwrap_or_default();
    let client = webhook.get("clientConfig").filter(|c| c.is_object());
    let versions = webhook.get("conversionReviewVersions").and_then(Value::as_array);
    // The paths of the internal type; in v1 both fields are below `conversion.webhook`.
    let (at_client, at_versions) = (at.child("webhookClientConfig"), at.child("conversionReviewVersions"));
    if strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            errors.push(Error::forbidden(&at_client, detail));
        }
        if versions.is_some_and(|v| !v.is_empty()) {
            errors.push(Error::forbidden(&at_versions, detail));
        }
        return;
    }
    match client {
        None => errors.push(Error::required(&at_client, "required when strategy is set to Webhook")),
        Some(client) => validate_client(&at_client, client, errors),
    }
    let versions: Vec<&str> = versions.into_iter().flatten().filter_map(Value::as_str).collect();
    if versions.is_empty() {
        errors.push(Error::required(&at_versions, ""));
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, version) in versions.iter().enumerate() {
        let at = at_versions.index(index);
        if !seen.insert(version) {
            errors.push(Error::invalid(&at, *version, "duplicate version"));
            continue;
        }
        errors.extend(is_dns1035_label(version, false).into_iter().map(|m| Error::invalid(&at, *version, m)));
    }
    if !versions.iter().any(|v| matches!(*v, "v1" | "v1beta1")) {
        errors.push(Error::invalid(
            &at_versions,
            json!(versions),
            "must include at least one of v1, v1beta1",
        ));
    }
}

fn validate_client(at: &Path, client: &Value, errors: &mut ErrorList) {
    let url = client.get("url").and_then(Value::as_str);
    let service = client.get("service").filter(|s| s.is_object());
    match (url, service) {
        (Some(url), None) => validate_webhook_url(&at.child("url"), url, errors),
        (None, Some(service)) => validate_service(&at.child("service"), service, errors),
        _ => errors.push(Error::required(at, "exactly one of url or service is required")),
    }
}

/// `ValidateWebhookURL` of `k8s.io/apiserver/pkg/util/webhook/validation.go`.
fn validate_webhook_url(at: &Path, url: &str, errors: &mut ErrorList) {
    const FORM: &str = "; desired format: https://host[/path]";
    // Taken apart by hand as Go's `url.Parse` does: what is between the marks is printed, so it must be the same
    // text.
    let (url, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (url, query) = url.split_once('?').unwrap_or((url, ""));
    let (scheme, rest) = match url.split_once(':') {
        Some((scheme, rest)) if scheme.starts_with(|c: char| c.is_ascii_alphabetic()) => (scheme, rest),
        _ => ("", url),
    };
    let authority = rest.strip_prefix("//").map_or("", |r| r.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !scheme.eq_ignore_ascii_case("https") {
        let detail = format!("'https' is the only allowed URL scheme{FORM}");
        errors.push(Error::invalid(at, scheme.to_lowercase(), detail));
    }
    if host.is_empty() {
        errors.push(Error::invalid(at, host, format!("host must be provided{FORM}")));
    }
    if authority.contains('@') {
        errors.push(Error::invalid(at, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        errors.push(Error::invalid(at, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        errors.push(Error::invalid(at, query, "query parameters are not permitted in the URL"));
    }
}

/// `ValidateWebhookService`; kube-apiserver hands it name and namespace in the wrong order.
fn validate_service(at: &Path, service: &Value, errors: &mut ErrorList) {
    for (given, field) in [("namespace", "name"), ("name", "namespace")] {
        if meta::text(service, &[given]).is_empty() {
            errors.push(Error::required(&at.child(field), format!("service {field} is required")));
        }
    }
    let port = service.get("port").and_then(Value::as_i64).unwrap_or(443);
    if !(1..=65535).contains(&port) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        errors.push(Error::invalid(&at.child("port"), port, detail));
    }
    let path = meta::text(service, &["path"]);
    let at = at.child("path");
    if path.is_empty() || path == "/" {
        return;
    }
    if path == "//" {
        errors.push(Error::invalid(&at, path, "segment[0] may not be empty"));
        return;
    }
    if !path.starts_with('/') {
        errors.push(Error::invalid(&at, path, "must start with a '/'"));
    }
    let mut steps = path.chars();
    steps.next();
    let steps = steps.as_str();
    for (index, step) in steps.strip_suffix('/').unwrap_or(steps).split('/').enumerate() {
        if step.is_empty() {
            errors.push(Error::invalid(&at, path, format!("segment[{index}] may not be empty")));
            continue;
        }
        for wrong in is_dns1123_subdomain(step, false) {
            errors.push(Error::invalid(&at, path, format!("segment[{index}]: {wrong}")));
        }
    }
}
