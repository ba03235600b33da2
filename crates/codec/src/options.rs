//! The options of requests: decoded from the query (or, for deletions, the body) and validated
//! (`k8s.io/apimachinery/pkg/apis/meta/v1/validation`, `pkg/apis/meta/internalversion/validation`,
//! `apiserver/pkg/endpoints/handlers/{create,update,patch,get,delete}.go`).

use super::body::{self, FieldValidation, Format};
use fleetpass_apimachinery::field::{Error, ErrorList, Path, go_quote};
use fleetpass_apimachinery::gvk::GvkRef;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::validation::metadata::validate_field_manager;
use fleetpass_apimachinery::{FieldSelector, LabelSelector};
use fleetpass_schema::openapi;
use serde_json::Value;

const GROUP: &str = "meta.k8s.io";
const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";

/// The decoded pairs of a query string, in order.
pub(crate) type Pairs = [(String, String)];

/// Which write the options belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// POST.
    Create,
    /// PUT.
    Update,
    /// PATCH other than apply.
    Patch,
    /// Server-side apply.
    Apply,
}

/// `CreateOptions`, `UpdateOptions` or `PatchOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteQuery {
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldManager`, or empty.
    pub field_manager: String,
    /// `fieldValidation`; Warn unless the request says something else.
    pub field_validation: FieldValidation,
    /// `force`, only for apply: whether to take over fields that others own.
    pub force: bool,
}

/// `ListOptions`, also for watches.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ListOptions {
    /// `labelSelector`.
    pub labels: LabelSelector,
    /// `fieldSelector`; whether a kind supports its fields is checked by [`check_fields`].
    pub fields: FieldSelector,
    /// `watch`.
    pub watch: bool,
    /// `allowWatchBookmarks`.
    pub allow_watch_bookmarks: bool,
    /// `resourceVersion`, as text.
    pub resource_version: String,
    /// `resourceVersionMatch`; `None` if it is not given.
    pub resource_version_match: Option<VersionMatch>,
    /// `timeoutSeconds`.
    pub timeout_seconds: Option<i64>,
    /// `limit`; 0 and less mean no limit.
    pub limit: i64,
    /// `continue`.
    pub continue_token: String,
    /// `sendInitialEvents`.
    pub send_initial_events: Option<bool>,
}

/// `resourceVersionMatch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionMatch {
    /// `Exact`
    Exact,
    /// `NotOlderThan`
    NotOlderThan,
}

/// `DeleteOptions`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeleteOptions {
    /// `gracePeriodSeconds`.
    pub grace_period_seconds: Option<i64>,
    /// `preconditions.uid`.
    pub uid: Option<String>,
    /// `preconditions.resourceVersion`.
    pub resource_version: Option<String>,
    /// `orphanDependents`, the deprecated form of `propagationPolicy`.
    pub orphan_dependents: Option<bool>,
    /// `propagationPolicy`.
    pub propagation_policy: Option<Propagation>,
    /// `dryRun=All`.
    pub dry_run: bool,
}

/// What becomes of the objects that a deleted object owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted before it.
    Foreground,
    /// They are deleted after it.
    Background,
    /// They stay.
    Orphan,
}

/// Options of a create, an update or a patch. Errors: 422 with all that is wrong.
pub fn write(query: &Pairs, write: Write) -> Result<WriteQuery, Status> {
    let field_manager = first(query, "fieldManager").unwrap_or_default();
    // Whether it is given matters, not only what it says: `force=false` is refused for other patches, too.
    let force = first(query, "force").map(is_true);
    let dry_run = all(query, "dryRun");
    let validation = first(query, "fieldValidation").unwrap_or_default();
    let mut errors = ErrorList::new();
    let manager_field = Path::new("fieldManager");
    match write {
        Write::Apply if field_manager.is_empty() => {
            errors.push(Error::required(&manager_field, "is required for apply patch"));
        }
        Write::Patch if force.is_some() => {
            errors.push(Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        _ => {}
    }
    errors.append(validate_field_manager(field_manager, &manager_field));
    errors.extend(dry_run_error(&dry_run));
    let field_validation = match validation {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            errors.push(Error::not_supported(&Path::new("fieldValidation"), other, &supported));
            // Any value: the errors end the request below.
            FieldValidation::Warn
        }
    };
    let kind = match write {
        Write::Create => "CreateOptions",
        Write::Update => "UpdateOptions",
        Write::Patch | Write::Apply => "PatchOptions",
    };
    refuse(kind, errors)?;
    Ok(WriteQuery {
        // If there are values they are all `All`; others are among the errors.
        dry_run: !dry_run.is_empty(),
        field_manager: field_manager.into(),
        field_validation,
        force: force.unwrap_or(false),
    })
}

/// Options of a list or watch. Errors: 400 for what cannot be read, 422 for what does not fit together.
pub fn list(query: &Pairs) -> Result<ListOptions, Status> {
    let text = |name: &str| first(query, name).unwrap_or_default();
    let bad = Status::bad_request;
    // What cannot be converted is a 400 for the first such option; what can be is validated together, in a 422.
    let timeout_seconds = first(query, "timeoutSeconds").map(parse_int).transpose().map_err(bad)?;
    let limit = first(query, "limit").map(parse_int).transpose().map_err(bad)?.unwrap_or(0);
    let labels = LabelSelector::parse(text("labelSelector")).map_err(bad)?;
    let fields = FieldSelector::parse(text("fieldSelector")).map_err(bad)?;
    // The text is kept beside what it means, for the errors about values that mean nothing.
    let version_match = text("resourceVersionMatch");
    let options = ListOptions {
        labels,
        fields,
        watch: first(query, "watch").is_some_and(is_true),
        allow_watch_bookmarks: first(query, "allowWatchBookmarks").is_some_and(is_true),
        // Stays text: what is a version, and whether it is too old, is for the registry to say.
        resource_version: text("resourceVersion").into(),
        resource_version_match: match version_match {
            "Exact" => Some(VersionMatch::Exact),
            "NotOlderThan" => Some(VersionMatch::NotOlderThan),
            _ => None,
        },
        timeout_seconds,
        limit,
        continue_token: text("continue").into(),
        send_initial_events: first(query, "sendInitialEvents").map(is_true),
    };
    let errors = if options.watch {
        watch_errors(&options, version_match)
    } else {
        list_errors(&options, version_match)
    };
    refuse("ListOptions", errors)?;
    Ok(options)
}

/// What is wrong with the options of a list (`ValidateListOptions`).
fn list_errors(options: &ListOptions, version_match: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let field = Path::new("resourceVersionMatch");
    if !version_match.is_empty() {
        if options.resource_version.is_empty() {
            let text = "resourceVersionMatch is forbidden unless resourceVersion is provided";
            errors.push(Error::forbidden(&field, text));
        }
        if !options.continue_token.is_empty() {
            let text = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(Error::forbidden(&field, text));
        }
        if options.resource_version_match.is_none() {
            errors.push(Error::not_supported(&field, version_match, &["Exact", "NotOlderThan", ""]));
        }
        if options.resource_version_match == Some(VersionMatch::Exact) && options.resource_version == "0" {
            let text = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
            errors.push(Error::forbidden(&field, text));
        }
    }
    if options.send_initial_events.is_some() {
        let text = "sendInitialEvents is forbidden for list";
        errors.push(Error::forbidden(&Path::new("sendInitialEvents"), text));
    }
    errors
}

/// What is wrong with the options of a watch (`validateWatchOptions`): only `NotOlderThan`, and only with initial events.
fn watch_errors(options: &ListOptions, version_match: &str) -> ErrorList {
    let mut errors = ErrorList::new();
    let field = Path::new("resourceVersionMatch");
    // A watch begins with a state that is at least as new as the version, never with that of the version itself.
    let fits = options.resource_version_match == Some(VersionMatch::NotOlderThan);
    if options.send_initial_events.is_some() && !fits {
        let text = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
        errors.push(Error::forbidden(&field, text));
    }
    if !version_match.is_empty() {
        if options.send_initial_events.is_none() {
            let text = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
            errors.push(Error::forbidden(&field, text));
        }
        if !fits {
            errors.push(Error::not_supported(&field, version_match, &["NotOlderThan"]));
        }
        if !options.continue_token.is_empty() {
            let text = "resourceVersionMatch is forbidden when continue is provided";
            errors.push(Error::forbidden(&field, text));
        }
    }
    errors
}

/// Whether a kind supports the fields of a selector. `listed` says which of two messages to give: that of kinds without fields
/// of their own (`"a" is not a known field selector: only "metadata.name", "metadata.namespace"`), or that of all others and of
/// custom resources (`field label not supported: a`). Errors: 400.
pub fn check_fields(fields: &FieldSelector, supported: &[String], listed: bool) -> Result<(), Status> {
    match fields.unsupported(supported) {
        None => Ok(()),
        Some(field) if listed => Err(Status::bad_request(format!(
            "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
            go_quote(field)
        ))),
        Some(field) => Err(Status::bad_request(format!("field label not supported: {field}"))),
    }
}

/// Options of a deletion: those of the body if there is one, else those of the query. `format` is that of the body; its
/// unknown fields are ignored. Errors: 400 for what cannot be read, 422 for what is wrong.
pub fn delete(bytes: &[u8], format: Format, query: &Pairs) -> Result<DeleteOptions, Status> {
    // The two are not merged: with a body the query counts for nothing, not even `dryRun`.
    let options = if bytes.is_empty() { delete_query(query) } else { delete_body(bytes, format) };
    let raw = options.map_err(Status::bad_request)?;
    let field = Path::new("propagationPolicy");
    let mut errors = ErrorList::new();
    let policy = raw["propagationPolicy"].as_str();
    // Two ways to say the same thing, one of them deprecated: both at once may contradict each other.
    if let (Some(policy), true) = (policy, raw["orphanDependents"].is_boolean()) {
        let text = "orphanDependents and deletionPropagation cannot be both set";
        errors.push(Error::invalid(&field, policy, text));
    }
    let propagation_policy = match policy {
        None => None,
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Background") => Some(Propagation::Background),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(Error::not_supported(&field, other, &supported));
            None
        }
    };
    let dry_run: Vec<&str> =
        raw["dryRun"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    errors.extend(dry_run_error(&dry_run));
    refuse("DeleteOptions", errors)?;
    let precondition = |name: &str| raw["preconditions"][name].as_str().map(str::to_string);
    Ok(DeleteOptions {
        grace_period_seconds: raw["gracePeriodSeconds"].as_i64(),
        uid: precondition("uid"),
        resource_version: precondition("resourceVersion"),
        orphan_dependents: raw["orphanDependents"].as_bool(),
        propagation_policy,
        dry_run: !dry_run.is_empty(),
    })
}

/// `DeleteOptions` of a query, in the JSON form that a body would have.
fn delete_query(query: &Pairs) -> Result<Value, String> {
    let mut options = serde_json::Map::new();
    if let Some(text) = first(query, "gracePeriodSeconds") {
        options.insert("gracePeriodSeconds".into(), parse_int(text)?.into());
    }
    if let Some(text) = first(query, "orphanDependents") {
        options.insert("orphanDependents".into(), is_true(text).into());
    }
    if let Some(text) = first(query, "propagationPolicy") {
        options.insert("propagationPolicy".into(), text.into());
    }
    options.insert("dryRun".into(), all(query, "dryRun").into());
    // Go reads these from the query as if they were members of the options themselves.
    let mut preconditions = serde_json::Map::new();
    for name in ["uid", "resourceVersion"] {
        if let Some(text) = first(query, name).filter(|text| !text.is_empty()) {
            preconditions.insert(name.into(), text.into());
        }
    }
    options.insert("preconditions".into(), preconditions.into());
    Ok(options.into())
}

/// `DeleteOptions` of a body, without defaults.
fn delete_body(bytes: &[u8], format: Format) -> Result<Value, String> {
    const SCHEME: &str = "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27";
    let target = GvkRef { group: "", version: "v1", kind: "DeleteOptions" };
    let (source, gvk) = body::identify(bytes, format, target)?;
    // The options types belong to no version: any is taken.
    if gvk.kind != target.kind {
        return Err(format!(
            "no kind {} is registered for version {} in scheme {}",
            go_quote(&gvk.kind),
            go_quote(&gvk.api_version()),
            go_quote(SCHEME)
        ));
    }
    source.decode(&gvk, &openapi::builtin(DELETE_OPTIONS)).map(|typed| typed.value)
}

/// The first value of an option, which is the one that counts in Go.
pub(super) fn first<'a>(query: &'a Pairs, name: &str) -> Option<&'a str> {
    query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// All values of an option that may be repeated.
fn all<'a>(query: &'a Pairs, name: &str) -> Vec<&'a str> {
    query.iter().filter(|(key, _)| key == name).map(|(_, value)| value.as_str()).collect()
}

/// Only `0` and `false` are false (`runtime.Convert_Slice_string_To_bool`).
fn is_true(text: &str) -> bool {
    text != "0" && !text.eq_ignore_ascii_case("false")
}

/// Go's `strconv.ParseInt`, with its errors.
fn parse_int(text: &str) -> Result<i64, String> {
    text.parse::<i64>().map_err(|error| {
        use std::num::IntErrorKind::{NegOverflow, PosOverflow};
        let why = match error.kind() {
            PosOverflow | NegOverflow => "value out of range",
            _ => "invalid syntax",
        };
        format!("strconv.ParseInt: parsing {}: {why}", go_quote(text))
    })
}

/// `ValidateDryRun`: all values are quoted if one of them is wrong.
fn dry_run_error(values: &[&str]) -> Option<Error> {
    let bad = values.iter().any(|value| *value != "All");
    bad.then(|| Error::not_supported(&Path::new("dryRun"), values.to_vec(), &["All"]))
}

/// The 422 of an options kind, if there are errors.
fn refuse(kind: &str, errors: ErrorList) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(GROUP, kind, "", &errors)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(query: &[(&str, &str)]) -> Vec<(String, String)> {
        query.iter().map(|(k, v)| ((*k).to_string(), (*v).to_string())).collect()
    }

    #[test]
    fn writes_are_validated() {
        let long = "m".repeat(129);
        for (verb, query, expected) in [
            (
                Write::Create,
                vec![("dryRun", "all")],
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["all"]: supported values: "All""#,
            ),
            (
                Write::Create,
                vec![("dryRun", "")],
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: [""]: supported values: "All""#,
            ),
            (
                Write::Create,
                vec![("dryRun", "All"), ("dryRun", "bogus")],
                r#"CreateOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["All","bogus"]: supported values: "All""#,
            ),
            (
                Write::Create,
                vec![("fieldManager", "bad\u{7}name")],
                r#"CreateOptions.meta.k8s.io "" is invalid: fieldManager: Invalid value: "bad\aname": invalid character U+0007 (at position 3)"#,
            ),
            (
                Write::Update,
                vec![("fieldValidation", "strict")],
                r#"UpdateOptions.meta.k8s.io "" is invalid: fieldValidation: Unsupported value: "strict": supported values: "", "Ignore", "Strict", "Warn""#,
            ),
            (
                Write::Apply,
                vec![],
                r#"PatchOptions.meta.k8s.io "" is invalid: fieldManager: Required value: is required for apply patch"#,
            ),
            (
                Write::Patch,
                vec![("force", "true")],
                r#"PatchOptions.meta.k8s.io "" is invalid: force: Forbidden: may not be specified for non-apply patch"#,
            ),
            (
                Write::Create,
                vec![("dryRun", "x"), ("fieldManager", &long), ("fieldValidation", "y")],
                r#"CreateOptions.meta.k8s.io "" is invalid: [fieldManager: Too long: may not be more than 128 bytes, dryRun: Unsupported value: ["x"]: supported values: "All", fieldValidation: Unsupported value: "y": supported values: "", "Ignore", "Strict", "Warn"]"#,
            ),
        ] {
            let status = write(&pairs(&query), verb).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (422, expected));
        }
        let options = write(
            &pairs(&[("dryRun", "All"), ("dryRun", "All"), ("fieldManager", "менеджер")]),
            Write::Create,
        );
        assert!(options.unwrap().dry_run);
    }

    #[test]
    fn lists_are_validated() {
        for (query, code, expected) in [
            (vec![("limit", "abc")], 400, r#"strconv.ParseInt: parsing "abc": invalid syntax"#),
            (vec![("labelSelector", "app=web,")], 400, "found '', expected: identifier after ','"),
            (
                vec![("resourceVersionMatch", "Exact")],
                422,
                r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"#,
            ),
            (
                vec![("resourceVersionMatch", "Sometimes"), ("resourceVersion", "1")],
                422,
                r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Unsupported value: "Sometimes": supported values: "Exact", "NotOlderThan", """#,
            ),
            (
                vec![("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan")],
                422,
                r#"ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided, sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list]"#,
            ),
            (
                vec![("watch", "1"), ("sendInitialEvents", "true"), ("resourceVersionMatch", "Exact")],
                422,
                r#"ListOptions.meta.k8s.io "" is invalid: [resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan, resourceVersionMatch: Unsupported value: "Exact": supported values: "NotOlderThan"]"#,
            ),
            (
                vec![("watch", "true"), ("resourceVersionMatch", "NotOlderThan")],
                422,
                r#"ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"#,
            ),
        ] {
            let status = list(&pairs(&query)).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (code, expected), "{query:?}");
        }
        let options = list(&pairs(&[("watch", "0"), ("limit", "-1"), ("unknown", "x")])).unwrap();
        assert!(!options.watch && options.limit == -1);
    }

    #[test]
    fn deletions_are_validated() {
        for (body, query, code, expected) in [
            (
                "",
                vec![("gracePeriodSeconds", "abc")],
                400,
                r#"strconv.ParseInt: parsing "abc": invalid syntax"#,
            ),
            (
                "",
                vec![("propagationPolicy", "Sideways")],
                422,
                r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Unsupported value: "Sideways": supported values: "Foreground", "Background", "Orphan", "nil""#,
            ),
            (
                r#"{"propagationPolicy":"Background","orphanDependents":true}"#,
                vec![],
                422,
                r#"DeleteOptions.meta.k8s.io "" is invalid: propagationPolicy: Invalid value: "Background": orphanDependents and deletionPropagation cannot be both set"#,
            ),
            (
                r#"{"dryRun":["Bogus"]}"#,
                vec![],
                422,
                r#"DeleteOptions.meta.k8s.io "" is invalid: dryRun: Unsupported value: ["Bogus"]: supported values: "All""#,
            ),
            (
                r#"{"apiVersion":"v1","kind":"ConfigMap"}"#,
                vec![],
                400,
                r#"no kind "ConfigMap" is registered for version "v1" in scheme "k8s.io/apimachinery/pkg/apis/meta/internalversion/scheme/register.go:27""#,
            ),
            ("{", vec![], 400, "couldn't get version/kind; json parse error: unexpected end of JSON input"),
            (
                r#"{"gracePeriodSeconds":"5"}"#,
                vec![],
                400,
                "json: cannot unmarshal string into Go struct field DeleteOptions.gracePeriodSeconds of type int64",
            ),
        ] {
            let status = delete(body.as_bytes(), Format::Json, &pairs(&query)).unwrap_err();
            assert_eq!((status.code, status.message.as_str()), (code, expected), "{body}");
        }
        let body = r#"{"apiVersion":"v2","kind":"DeleteOptions","gracePeriodSeconds":0,"preconditions":{"uid":"u"},"unknown":1}"#;
        let options = delete(body.as_bytes(), Format::Json, &pairs(&[("dryRun", "ignored")])).unwrap();
        assert_eq!(
            options,
            DeleteOptions {
                grace_period_seconds: Some(0),
                uid: Some("u".into()),
                ..DeleteOptions::default()
            }
        );
        let query = pairs(&[("dryRun", "All"), ("uid", "u"), ("propagationPolicy", "Orphan")]);
        let options = delete(b"", Format::Json, &query).unwrap();
        assert!(options.dry_run && options.propagation_policy == Some(Propagation::Orphan));
    }
}
