//! Patches: JSON patch, merge patch, strategic merge patch, server-side apply, and the field management that comes
//! with them (`k8s.io/apiserver/pkg/endpoints/handlers/patch.go`). No I/O.
//!
//! [`document::read`] decodes the body (the words of a syntax error are the decoder's; [`malformed`] makes the status);
//! the registry calls [`apply_patch`] or [`apply::apply`], and decodes the result as it decodes any body of the kind.
//! After every write that is not an apply it calls [`apply::update`].

pub mod apply;
mod combine;
mod convert;
pub mod fields;
mod go_text;
mod json;
mod managed;
mod merge;
mod shape;
mod strategic;
mod typed;

#[cfg(test)]
mod apply_tests;

use fleetpass_apimachinery::field;
use fleetpass_apimachinery::status::{Details, Status};
use fleetpass_schema::Schema;
use serde_json::Value;
use std::sync::Arc;

/// The kinds of patches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`; built-in kinds only.
    Strategic,
    /// `application/apply-patch+yaml`
    Apply,
}

const BUILT_IN: &[PatchKind] = &[PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];
const CUSTOM: &[PatchKind] = &[PatchKind::Json, PatchKind::Merge, PatchKind::Apply];

impl PatchKind {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }

    /// The kind that a `Content-Type` header asks for; `custom` says whether the kind comes from a CRD.
    ///
    /// Errors: 415. Built-in kinds are refused by the router (`go-restful`) with its own words, custom resources by
    /// the handler, which lists what it takes.
    pub fn from_content_type(header: Option<&str>, custom: bool) -> Result<Self, Status> {
        let header = header.unwrap_or("");
        let accepted = if custom { CUSTOM } else { BUILT_IN };
        if !custom && !routed(header) {
            let mut status = Status::unsupported_media_type("415: Unsupported Media Type");
            status.details = Some(Box::default());
            return Err(status);
        }
        let media_type = match header.find(';') {
            Some(at) if at > 0 => &header[..at],
            _ => header,
        };
        accepted.iter().copied().find(|kind| kind.media_type() == media_type).ok_or_else(|| {
            let list: Vec<_> = accepted.iter().map(|kind| kind.media_type()).collect();
            Status::unsupported_media_type(format!(
                "the body of the request was in an unknown format - accepted media types include: {}",
                list.join(", ")
            ))
        })
    }
}

/// Whether the router lets a patch of a built-in kind through: one of the listed media types must be a patch's.
fn routed(header: &str) -> bool {
    header.split(',').any(|part| {
        let media_type = part.split(';').next().unwrap_or("").trim();
        media_type == "*/*" || BUILT_IN.iter().any(|kind| kind.media_type() == media_type)
    })
}

/// A decoded patch body.
#[derive(Clone, Copy)]
pub struct Body<'a> {
    /// The document.
    pub value: &'a Value,
    /// One `duplicate field "path"` for each member that stands twice in an object.
    pub duplicates: &'a [String],
    /// Whether `fieldValidation` is `Warn` or `Strict`, so that the body is checked more closely.
    pub validated: bool,
}

/// The object may be a Secret: it is never printed.
impl std::fmt::Debug for Body<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Body").field("validated", &self.validated).finish_non_exhaustive()
    }
}

/// A patched object, not yet decoded by its kind's schema.
#[derive(Clone, PartialEq)]
pub struct Patched {
    /// The object.
    pub object: Value,
    /// What `fieldValidation=Warn` warns of and `Strict` refuses; what decoding the object finds comes after it.
    pub strict: Vec<String>,
}

/// The object may be a Secret: it is never printed.
impl std::fmt::Debug for Patched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Patched").finish_non_exhaustive()
    }
}

/// Applies a JSON, merge or strategic merge patch to the object that is served in the version of the request.
///
/// Errors: the status that kube-apiserver answers with. [`PatchKind::Apply`] needs more than a body: see
/// [`apply::apply`]; here it is refused as a programming error (500).
pub fn apply_patch(
    kind: PatchKind,
    live: &Value,
    body: &Body<'_>,
    schema: &Schema,
) -> Result<Patched, Status> {
    match kind {
        PatchKind::Json => json::apply(live, body),
        PatchKind::Merge => merge::apply(live, body),
        PatchKind::Strategic => strategic::apply(live, body, schema),
        PatchKind::Apply => {
            Err(Status::plain_error(format!("{}: unimplemented patch type", kind.media_type())))
        }
    }
}

/// The refusal of a body that is no document at all; `why` is the decoder's message (`unexpected end of JSON input`).
pub fn malformed(kind: PatchKind, validated: bool, why: &str) -> Status {
    Status::bad_request(match kind {
        PatchKind::Json | PatchKind::Merge if validated => format!("error decoding patch: {why}"),
        PatchKind::Merge => "Invalid JSON Patch".to_string(),
        PatchKind::Json | PatchKind::Strategic => why.to_string(),
        PatchKind::Apply => format!("error decoding YAML: {why}"),
    })
}

/// The refusal of a patched object that does not decode, or that breaks `fieldValidation=Strict`: 422 about a field
/// named `patch`, whose value is the patched object (for a strategic merge patch: the patch, as Go prints a map).
pub fn undecodable(kind: PatchKind, patch: &Value, patched: &Value, why: &str) -> Status {
    let value = match kind {
        PatchKind::Strategic => go_text::plain(patch),
        _ => patched.to_string(),
    };
    let error = field::Error::invalid(&field::Path::new("patch"), value, why);
    let mut status = Status::invalid("", "", "", &vec![error]);
    // There is no kind to name, so the details carry the causes only.
    if let Some(details) = &mut status.details {
        **details = Details { causes: std::mem::take(&mut details.causes), ..Details::default() };
    }
    status
}

/// Why a patched object does not decode: `why` is the JSON decoder's answer. What a strategic merge patch leaves behind is
/// never JSON again, so its converter has the word.
pub fn undecoded(kind: PatchKind, patched: &Value, schema: &Arc<Schema>, why: String) -> String {
    match kind {
        PatchKind::Strategic => convert::mismatch(patched, schema).unwrap_or(why),
        _ => why,
    }
}

/// The field manager of a request: `fieldManager`, or the product of the `User-Agent` (what stands before its first
/// slash, without characters that do not print, at most 128 bytes); never empty.
/// (`managerOrUserAgent` in `k8s.io/apiserver/pkg/endpoints/handlers/create.go`)
pub fn manager(field_manager: &str, user_agent: &str) -> String {
    const MAX_BYTES: usize = 128;
    if !field_manager.is_empty() {
        return field_manager.to_string();
    }
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or("").chars() {
        if c.is_control() || (c.is_whitespace() && c != ' ') {
            continue;
        }
        if name.len() + c.len_utf8() > MAX_BYTES {
            break;
        }
        name.push(c);
    }
    if name.is_empty() { "unknown".to_string() } else { name }
}

/// 400 for a body that is JSON but not a patch.
fn decode_error(body: &Body<'_>, why: &str) -> Status {
    Status::bad_request(if body.validated { format!("error decoding patch: {why}") } else { why.to_string() })
}

/// 422 with a fixed text: how kube-apiserver words a patch that does not apply (`NewGenericServerResponse`).
fn unprocessable() -> Status {
    let mut status =
        Status::new(422, "Invalid", "the server rejected our request due to an error in our request");
    status.details = Some(Box::default());
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn content_types() {
        for (header, custom, want) in [
            ("application/merge-patch+json", false, Ok(PatchKind::Merge)),
            ("application/merge-patch+json; charset=utf-8", false, Ok(PatchKind::Merge)),
            ("application/json-patch+json", true, Ok(PatchKind::Json)),
            ("application/strategic-merge-patch+json", false, Ok(PatchKind::Strategic)),
            ("application/apply-patch+yaml", true, Ok(PatchKind::Apply)),
            ("application/json", false, Err("415: Unsupported Media Type")),
            ("", false, Err("415: Unsupported Media Type")),
            (
                "application/strategic-merge-patch+json",
                true,
                Err("the body of the request was in an unknown format - accepted media types include: \
                     application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"),
            ),
        ] {
            let got = PatchKind::from_content_type(Some(header), custom).map_err(|status| {
                assert_eq!((status.code, status.details.is_some()), (415, !custom));
                status.message
            });
            assert_eq!(got, want.map_err(String::from), "{header}");
        }
    }

    #[test]
    fn managers() {
        for (given, agent, want) in [
            ("me", "oracle/v1", "me"),
            ("", "oracle/v1", "oracle"),
            ("", "my agent/1.2 (linux)", "my agent"),
            ("", "kubectl/v1.36 (linux/amd64)", "kubectl"),
            ("", "a\u{7}b", "ab"),
            ("", "", "unknown"),
        ] {
            assert_eq!(manager(given, agent), want);
        }
        assert_eq!(manager("", &"é".repeat(100)).len(), 128);
    }

    #[test]
    fn a_strict_error_of_a_strategic_patch_prints_the_patch() {
        let status = undecodable(
            PatchKind::Strategic,
            &json!({"data": {"k": "2"}}),
            &Value::Null,
            "strict decoding error: duplicate field \"data.k\"",
        );
        let message =
            "Invalid value: \"map[data:map[k:2]]\": strict decoding error: duplicate field \"data.k\"";
        assert_eq!(
            status.to_json(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": format!(" \"\" is invalid: patch: {message}"), "reason": "Invalid",
                "details": {"causes": [{"reason": "FieldValueInvalid", "message": message, "field": "patch"}]},
                "code": 422})
        );
    }
}
