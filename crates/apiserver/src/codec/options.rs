//! The options of requests in their query (and, for deletions, their body): decoded and validated with the texts of
//! `k8s.io/apimachinery/pkg/apis/meta/v1/{conversion,validation}` and `meta/internalversion/validation`.

use crate::codec::body::FieldValidation;
use crate::codec::selectors::{FieldSelector, LabelSelector};
use crate::field::{Error, ErrorList, Path, go_quote};
use crate::registry::{DeleteRequest, ListQuery, Preconditions, Propagation, VersionMatch, WatchQuery};
use crate::request::{Query, go_bool_lenient};
use crate::status::Status;
use crate::strategy::WriteOptions;
use serde_json::Value;
use std::time::Duration;

/// The kind of options that an error names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteKind {
    /// `CreateOptions`.
    Create,
    /// `UpdateOptions`.
    Update,
    /// `PatchOptions`, of a patch that is no apply.
    Patch,
    /// `PatchOptions` of an apply.
    Apply,
}

/// The options of a create, update or patch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Write {
    /// Dry run and field manager.
    pub options: WriteOptions,
    /// What becomes of unknown fields.
    pub validation: FieldValidation,
    /// `force` of an apply.
    pub force: bool,
}

fn invalid(kind: &str, errors: &ErrorList) -> Status {
    Status::invalid("meta.k8s.io", kind, "", errors)
}

/// The options of a write: 422 names everything that is wrong with them.
pub fn write(query: &Query, kind: WriteKind) -> Result<Write, Status> {
    let mut errors = ErrorList::new();
    let manager = query.get("fieldManager").unwrap_or_default();
    let force = query.get("force").map(go_bool_lenient);
    match kind {
        WriteKind::Apply if manager.is_empty() => {
            errors.push(Error::required(&Path::new("fieldManager"), "is required for apply patch"));
        }
        WriteKind::Patch if force.is_some() => {
            errors.push(Error::forbidden(&Path::new("force"), "may not be specified for non-apply patch"));
        }
        _ => {}
    }
    validate_field_manager(manager, &mut errors);
    let dry_run = dry_run(query, &mut errors);
    let validation = field_validation(query, &mut errors);
    if !errors.is_empty() {
        let name = match kind {
            WriteKind::Create => "CreateOptions",
            WriteKind::Update => "UpdateOptions",
            WriteKind::Patch | WriteKind::Apply => "PatchOptions",
        };
        return Err(invalid(name, &errors));
    }
    let options = WriteOptions { dry_run, field_manager: manager.into() };
    Ok(Write { options, validation, force: force.unwrap_or(false) })
}

/// At most 128 bytes of printable characters (`ValidateFieldManager`).
fn validate_field_manager(manager: &str, errors: &mut ErrorList) {
    let path = Path::new("fieldManager");
    if manager.len() > 128 {
        errors.push(Error::too_long(&path, 128));
    }
    let unprintable = |c: &char| c.is_control() || (c.is_whitespace() && *c != ' ') || *c == '\u{feff}';
    if let Some((at, c)) = manager.char_indices().find(|(_, c)| unprintable(c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", c as u32);
        errors.push(Error::invalid(&path, manager, why));
    }
}

fn dry_run(query: &Query, errors: &mut ErrorList) -> bool {
    let values: Vec<&str> =
        query.pairs().iter().filter(|(k, _)| k == "dryRun").map(|(_, v)| v.as_str()).collect();
    if values.iter().any(|v| *v != "All") {
        errors.push(Error::not_supported(&Path::new("dryRun"), Value::from(values), &["All"]));
        return false;
    }
    !values.is_empty()
}

fn field_validation(query: &Query, errors: &mut ErrorList) -> FieldValidation {
    match query.get("fieldValidation").unwrap_or_default() {
        "" | "Warn" => FieldValidation::Warn,
        "Ignore" => FieldValidation::Ignore,
        "Strict" => FieldValidation::Strict,
        other => {
            let supported = ["", "Ignore", "Strict", "Warn"];
            errors.push(Error::not_supported(&Path::new("fieldValidation"), other, &supported));
            FieldValidation::Strict
        }
    }
}

/// The options of a list or watch, before it is known which of the two it is.
#[derive(Debug, Clone, Default)]
pub struct ListOptions {
    /// Label selector.
    pub labels: LabelSelector,
    /// Field selector.
    pub fields: FieldSelector,
    /// `watch`.
    pub watch: bool,
    allow_bookmarks: bool,
    resource_version: String,
    version_match: String,
    timeout: Option<i64>,
    limit: i64,
    continue_token: String,
    initial_events: Option<bool>,
}

fn go_int(query: &Query, name: &str) -> Result<Option<i64>, Status> {
    let Some(text) = query.get(name) else { return Ok(None) };
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let syntax = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if syntax => Ok(Some(number)),
        _ => {
            let why = if syntax { "value out of range" } else { "invalid syntax" };
            Err(Status::bad_request(format!("strconv.ParseInt: parsing {}: {why}", go_quote(text))))
        }
    }
}

impl ListOptions {
    /// Decodes the query: 400 for what cannot be read.
    pub fn decode(query: &Query) -> Result<Self, Status> {
        let text = |name: &str| query.get(name).unwrap_or_default().to_string();
        Ok(Self {
            labels: LabelSelector::parse(&text("labelSelector")).map_err(Status::bad_request)?,
            fields: FieldSelector::parse(&text("fieldSelector")).map_err(Status::bad_request)?,
            watch: query.get("watch").is_some_and(go_bool_lenient),
            allow_bookmarks: query.get("allowWatchBookmarks").is_some_and(go_bool_lenient),
            resource_version: text("resourceVersion"),
            version_match: text("resourceVersionMatch"),
            timeout: go_int(query, "timeoutSeconds")?,
            limit: go_int(query, "limit")?.unwrap_or(0),
            continue_token: text("continue"),
            initial_events: query.get("sendInitialEvents").map(go_bool_lenient),
        })
    }

    /// 422 for combinations that make no sense (`ValidateListOptions`).
    pub fn validate(&self, watch: bool) -> Result<(), Status> {
        let mut errors = ErrorList::new();
        if watch {
            self.validate_watch(&mut errors);
        } else {
            self.validate_list(&mut errors);
        }
        if errors.is_empty() { Ok(()) } else { Err(invalid("ListOptions", &errors)) }
    }

    fn validate_watch(&self, errors: &mut ErrorList) {
        let path = Path::new("resourceVersionMatch");
        let version_match = self.version_match.as_str();
        match self.initial_events {
            None if !version_match.is_empty() => errors.push(Error::forbidden(
                &path,
                "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
            )),
            Some(_) if version_match != "NotOlderThan" => errors.push(Error::forbidden(
                &path,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            )),
            _ => {}
        }
        if !matches!(version_match, "" | "NotOlderThan") {
            errors.push(Error::not_supported(&path, version_match, &["NotOlderThan"]));
        }
        // Other than this a watch ignores `limit` and `continue`.
    }

    fn validate_list(&self, errors: &mut ErrorList) {
        let path = Path::new("resourceVersionMatch");
        let (version, version_match) = (self.resource_version.as_str(), self.version_match.as_str());
        if !version_match.is_empty() {
            if version.is_empty() {
                let why = "resourceVersionMatch is forbidden unless resourceVersion is provided";
                errors.push(Error::forbidden(&path, why));
            }
            if !self.continue_token.is_empty() {
                errors.push(Error::forbidden(
                    &path,
                    "resourceVersionMatch is forbidden when continue is provided",
                ));
            }
            if !matches!(version_match, "Exact" | "NotOlderThan") {
                errors.push(Error::not_supported(&path, version_match, &["Exact", "NotOlderThan", ""]));
            }
            if version_match == "Exact" && version == "0" {
                let why = "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"";
                errors.push(Error::forbidden(&path, why));
            }
        }
        if self.initial_events.is_some() {
            errors.push(Error::forbidden(
                &Path::new("sendInitialEvents"),
                "sendInitialEvents is forbidden for list",
            ));
        }
    }

    /// 400 for fields that no selector may name. `custom` kinds and kinds with fields of their own say it shortly,
    /// the others as `DefaultMetaV1FieldSelectorConversion` does.
    pub fn check_fields(&self, selectable: &[String], namespaced: bool, custom: bool) -> Result<(), Status> {
        let known = |field: &str| {
            field == "metadata.name"
                || (field == "metadata.namespace" && (namespaced || !custom))
                || selectable.iter().any(|s| s == field)
        };
        match self.fields.fields().find(|field| !known(field)) {
            None => Ok(()),
            Some(field) if custom || !selectable.is_empty() => {
                Err(Status::bad_request(format!("field label not supported: {field}")))
            }
            Some(field) => Err(Status::bad_request(format!(
                "{} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                go_quote(field)
            ))),
        }
    }

    /// As a list.
    pub fn into_list(self) -> ListQuery {
        ListQuery {
            labels: self.labels,
            fields: self.fields,
            limit: usize::try_from(self.limit).unwrap_or(0),
            continue_token: self.continue_token,
            resource_version: self.resource_version,
            version_match: match self.version_match.as_str() {
                "Exact" => Some(VersionMatch::Exact),
                "NotOlderThan" => Some(VersionMatch::NotOlderThan),
                _ => None,
            },
        }
    }

    /// As a watch.
    pub fn into_watch(self) -> WatchQuery {
        WatchQuery {
            labels: self.labels,
            fields: self.fields,
            resource_version: self.resource_version,
            bookmarks: self.allow_bookmarks,
            initial_events: self.initial_events,
            timeout: self
                .timeout
                .and_then(|s| u64::try_from(s).ok())
                .filter(|s| *s > 0)
                .map(Duration::from_secs),
        }
    }
}

/// The options of a deletion: those of the body, where one was sent, else those of the query. The body is a
/// decoded `DeleteOptions`.
pub fn delete(query: &Query, body: Option<&Value>) -> Result<(DeleteRequest, bool), Status> {
    let mut errors = ErrorList::new();
    let (grace, orphan, policy, dry) = match body {
        Some(body) => {
            let dry: Vec<&str> =
                crate::meta::list(body, &["dryRun"]).iter().map(|v| v.as_str().unwrap_or_default()).collect();
            let policy = body.get("propagationPolicy").and_then(Value::as_str).map(String::from);
            (
                body.get("gracePeriodSeconds").and_then(Value::as_i64),
                body.get("orphanDependents").and_then(Value::as_bool),
                policy,
                Query::from_pairs(dry.iter().map(|v| ("dryRun", *v))),
            )
        }
        None => (
            go_int(query, "gracePeriodSeconds")?,
            query.get("orphanDependents").map(go_bool_lenient),
            query.get("propagationPolicy").map(String::from),
            query.clone(),
        ),
    };
    let path = Path::new("propagationPolicy");
    let propagation = match policy.as_deref() {
        None | Some("") => None,
        Some("Foreground") => Some(Propagation::Foreground),
        Some("Background") => Some(Propagation::Background),
        Some("Orphan") => Some(Propagation::Orphan),
        Some(other) => {
            let supported = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(Error::not_supported(&path, other, &supported));
            None
        }
    };
    if let Some(policy) = policy.as_deref().filter(|_| orphan.is_some()) {
        let why = "orphanDependents and deletionPropagation cannot be both set";
        errors.insert(0, Error::invalid(&path, policy, why));
    }
    let dry_run = dry_run(&dry, &mut errors);
    if !errors.is_empty() {
        return Err(invalid("DeleteOptions", &errors));
    }
    let precondition =
        |name: &str| body.and_then(|b| b.get("preconditions")?.get(name)?.as_str().map(String::from));
    let preconditions =
        Preconditions { uid: precondition("uid"), resource_version: precondition("resourceVersion") };
    Ok((
        DeleteRequest { grace_period_seconds: grace, preconditions, propagation, orphan_dependents: orphan },
        dry_run,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_write_options_are_all_named() {
        let long = "m".repeat(129);
        let query = Query::parse(&format!("dryRun=x&fieldManager={long}&fieldValidation=y"));
        let status = write(&query, WriteKind::Create).expect_err("three faults");
        assert_eq!(
            status.message,
            "CreateOptions.meta.k8s.io \"\" is invalid: [fieldManager: Too long: may not be more than 128 bytes, \
             dryRun: Unsupported value: [\"x\"]: supported values: \"All\", fieldValidation: Unsupported value: \
             \"y\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"]"
        );
        for (query, kind, message) in [
            ("fieldManager=bad%07name", WriteKind::Create, "invalid character U+0007 (at position 3)"),
            ("force=true", WriteKind::Patch, "force: Forbidden: may not be specified for non-apply patch"),
            ("", WriteKind::Apply, "fieldManager: Required value: is required for apply patch"),
        ] {
            let status = write(&Query::parse(query), kind).expect_err(query);
            assert!(status.message.ends_with(message), "{query}: {}", status.message);
        }
        assert!(
            write(&Query::parse("dryRun=All&dryRun=All"), WriteKind::Update).is_ok_and(|w| w.options.dry_run)
        );
    }

    #[test]
    fn watch_and_list_options_forbid_what_makes_no_sense() {
        for (query, watch, message) in [
            (
                "sendInitialEvents=true",
                true,
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ),
            (
                "resourceVersionMatch=NotOlderThan",
                true,
                "is forbidden for watch unless sendInitialEvents is provided",
            ),
            (
                "resourceVersionMatch=Exact",
                false,
                "resourceVersionMatch is forbidden unless resourceVersion is provided",
            ),
            ("sendInitialEvents=true", false, "sendInitialEvents is forbidden for list"),
        ] {
            let options = ListOptions::decode(&Query::parse(query)).expect(query);
            let status = options.validate(watch).expect_err(query);
            assert!(status.message.ends_with(message), "{query}: {}", status.message);
        }
        assert!(ListOptions::decode(&Query::parse("limit=abc")).is_err_and(|s| s.code == 400));
    }

    #[test]
    fn delete_options_come_from_the_body_or_the_query() {
        let body = serde_json::json!({"gracePeriodSeconds": 5, "preconditions": {"uid": "u"}});
        let (request, dry) = delete(&Query::parse("dryRun=All"), Some(&body)).expect("good options");
        assert_eq!(
            (request.grace_period_seconds, request.preconditions.uid, dry),
            (Some(5), Some("u".into()), false)
        );
        let (request, dry) =
            delete(&Query::parse("propagationPolicy=Orphan&dryRun=All"), None).expect("good options");
        assert_eq!((request.propagation, dry), (Some(Propagation::Orphan), true));
        let both = serde_json::json!({"propagationPolicy": "Background", "orphanDependents": true});
        assert!(delete(&Query::default(), Some(&both)).is_err_and(|s| s.code == 422));
    }
}
