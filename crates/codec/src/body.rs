//! A request body becomes an object, or the `Status` that kube-apiserver answers
//! (`apimachinery/pkg/runtime/serializer/json/json.go`, `versioning.go`, `apiserver/pkg/endpoints/handlers/create.go`,
//! `rest.go`; for custom resources `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`).

use super::{protobuf, scheme, yaml};
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef, parse_group_version};
use fleetpass_apimachinery::json::{self, Numbers, Raw};
use fleetpass_apimachinery::status::Status;
use fleetpass_schema::openapi::{self, OBJECT_META};
use fleetpass_schema::typed::{self, StrictError, Typed};
use fleetpass_schema::{Schema, go};
use serde_json::{Map, Value};
use std::fmt::Write;
use std::sync::Arc;

/// How a body is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// JSON.
    Json,
    /// YAML 1.1; its first document counts.
    Yaml,
    /// Kubernetes' protobuf; built-in kinds only.
    Protobuf,
}

/// What happens to unknown and duplicate fields (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum FieldValidation {
    /// They are dropped.
    Ignore,
    /// They are dropped, with a warning each.
    #[default]
    Warn,
    /// They are refused.
    Strict,
}

/// A decoded body.
#[derive(Clone, PartialEq)]
pub struct Decoded {
    /// The object, with `apiVersion` and `kind`.
    pub value: Value,
    /// The texts of warnings to send along.
    pub warnings: Vec<String>,
}

/// The object may be a Secret: it is never printed.
impl std::fmt::Debug for Decoded {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoded").field("warnings", &self.warnings).finish_non_exhaustive()
    }
}

/// The error of a body whose kind and version are not known (`transformDecodeError`).
fn unrecognized(target: GvkRef<'_>, error: impl std::fmt::Display, body: &[u8]) -> Status {
    Status::bad_request(format!(
        "the object provided is unrecognized (must be of type {}): {error} ({})",
        target.kind,
        summary(body)
    ))
}

/// The error of a body whose kind and version are known (`transformDecodeError`).
fn unhandled(target: GvkRef<'_>, gvk: &GroupVersionKind, error: impl std::fmt::Display) -> Status {
    Status::bad_request(format!(
        "{} in version {} cannot be handled as a {}: {error}",
        gvk.kind,
        go_quote(&gvk.version),
        target.kind
    ))
}

/// The last check: a body of another version of its kind decodes and converts, and is refused all the same.
fn check_version(target: GvkRef<'_>, gvk: &GroupVersionKind) -> Result<(), Status> {
    if gvk.group == target.group && gvk.version == target.version {
        return Ok(());
    }
    Err(Status::bad_request(format!(
        "the API version in the data ({}) does not match the expected API version ({})",
        gvk.api_version(),
        target.api_version()
    )))
}

/// A body as a raw tree, and what strict decoding objects to in its YAML.
#[derive(Clone, PartialEq)]
pub struct Parsed<'a> {
    /// The tree. From YAML its keys are sorted, each there once.
    pub raw: Raw<'a>,
    /// `line 7: key "k" already set in map`. Of JSON the tree itself has the duplicates.
    pub(super) yaml_duplicates: Vec<String>,
}

/// The object may be a Secret: it is never printed.
impl std::fmt::Debug for Parsed<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Parsed").finish_non_exhaustive()
    }
}

/// Reads a body without knowing its kind. Errors: the syntax error; for JSON without what Go puts before it;
/// in protobuf also a kind that is not built in.
pub fn parse(bytes: &[u8], format: Format) -> Result<Parsed<'_>, String> {
    match format {
        Format::Json => {
            let raw = json::parse(bytes).map_err(|e| e.to_string())?;
            Ok(Parsed { raw, yaml_duplicates: Vec::new() })
        }
        Format::Yaml => {
            let document = yaml::parse(bytes).map_err(|e| e.to_string())?;
            Ok(Parsed { raw: document.raw, yaml_duplicates: document.duplicates })
        }
        Format::Protobuf => {
            // By way of a value: a message can only be decoded by its kind.
            let value = protobuf::decode_object(bytes).map_err(|e| e.to_string())?;
            Ok(Parsed { raw: value.into(), yaml_duplicates: Vec::new() })
        }
    }
}

/// The kind and version that a body names (`SimpleMetaFactory.Interpret`): Go's own decoder, so keys are
/// compared without case. Errors: `couldn't get version/kind; json parse error: …`, `unexpected GroupVersion …`.
pub fn interpret(raw: &Raw<'_>) -> Result<GroupVersionKind, String> {
    const STRUCT: &str = "struct { APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }";
    let refuse = |text: String| {
        Err(format!("couldn't get version/kind; json parse error: json: cannot unmarshal {text}"))
    };
    let members = match raw {
        Raw::Null => return Ok(GroupVersionKind::default()),
        Raw::Object(members) => members,
        other => return refuse(format!("{} into Go value of type {STRUCT}", other.type_name())),
    };
    let (mut api_version, mut kind) = ("", "");
    // Go reads on after a value of the wrong type and reports the first; of duplicate keys the last one counts.
    let mut mismatch = None;
    for (key, value) in members {
        let slot = if key.eq_ignore_ascii_case("apiVersion") {
            &mut api_version
        } else if key.eq_ignore_ascii_case("kind") {
            &mut kind
        } else {
            continue;
        };
        match value {
            Raw::String(text) => *slot = text,
            Raw::Null => {}
            other => {
                mismatch.get_or_insert_with(|| {
                    format!("{} into Go struct field .{key} of type string", other.type_name())
                });
            }
        }
    }
    if let Some(mismatch) = mismatch {
        return refuse(mismatch);
    }
    let (group, version) = parse_group_version(api_version)?;
    Ok(GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() })
}

/// A body of which the kind is known, read as far as that needs.
pub(super) enum Source<'a> {
    /// JSON or YAML.
    Text(Parsed<'a>),
    /// The message is not decoded yet.
    Protobuf(protobuf::Envelope<'a>),
}

/// Reads a body as far as its kind needs; what it leaves out of group, version and kind is as the target has it.
pub(super) fn identify<'a>(
    bytes: &'a [u8],
    format: Format,
    target: GvkRef<'_>,
) -> Result<(Source<'a>, GroupVersionKind), String> {
    match format {
        Format::Json | Format::Yaml => {
            let parsed = parse_located(bytes, format)?;
            let gvk = interpret(&parsed.raw)?.or_default(target);
            Ok((Source::Text(parsed), gvk))
        }
        Format::Protobuf => {
            let envelope = protobuf::open(bytes).map_err(|e| e.to_string())?;
            let gvk = envelope.gvk(target);
            Ok((Source::Protobuf(envelope), gvk))
        }
    }
}

impl Source<'_> {
    /// The object in the form in which Go prints it, without `apiVersion` and `kind` if it is protobuf.
    pub(super) fn decode(&self, gvk: &GroupVersionKind, schema: &Arc<Schema>) -> Result<Typed, String> {
        match self {
            Source::Text(parsed) => typed::decode(&parsed.raw, schema).map_err(|e| go::Words(&e).to_string()),
            Source::Protobuf(envelope) => {
                let value = protobuf::decode(gvk, envelope.raw).map_err(|e| e.to_string())?;
                typed::normalise(&value, schema).map_err(|e| go::Words(&e).to_string())
            }
        }
    }
}

/// Decodes the body of a built-in kind.
///
/// Takes the bytes, their format, the kind that the path expects with its schema, and what to do about unknown
/// and duplicate fields. Gives the object as Go would print it, under the expected `apiVersion` and `kind` (which
/// a body may leave out). Errors: 400 with kube-apiserver's text.
pub fn decode_builtin(
    bytes: &[u8],
    format: Format,
    target: GvkRef<'_>,
    schema: &Arc<Schema>,
    validation: FieldValidation,
) -> Result<Decoded, Status> {
    // The order of the checks below is Go's, because a body that is wrong in several ways has to be refused with the same
    // words: kind and version, is it registered, does it decode, does it convert, strictness, and the version at last.
    let (source, gvk) = identify(bytes, format, target).map_err(|e| unrecognized(target, e, bytes))?;
    if gvk.version.is_empty() {
        let body = String::from_utf8_lossy(bytes);
        return Err(unhandled(target, &gvk, format_args!("Object 'apiVersion' is missing in '{body}'")));
    }
    let scheme = scheme::of_group(target.group);
    if !scheme.knows(&gvk) {
        let reason = format!(
            "no kind {} is registered for version {} in scheme {}",
            go_quote(&gvk.kind),
            go_quote(&gvk.api_version()),
            go_quote(scheme.name())
        );
        return Err(unhandled(target, &gvk, reason));
    }
    // A body of another registered kind is decoded too, if its schema is known, as only a body without errors gets as far as
    // the refusal to convert it.
    let expected = gvk.kind == target.kind && gvk.group == target.group && gvk.version == target.version;
    let known = if expected {
        Some(Arc::clone(schema))
    } else {
        openapi::find_kind(&gvk.group, &gvk.version, &gvk.kind)
    };
    // A registered kind without a schema here (one that is not served) cannot be decoded, and is refused just below.
    let typed = known.map(|schema| source.decode(&gvk, &schema)).transpose();
    let typed = typed.map_err(|e| unhandled(target, &gvk, e))?;
    if !scheme::converts(&gvk, target) {
        let (from, to) = (scheme::go_type(&gvk), scheme::internal_type(target));
        return Err(unhandled(
            target,
            &gvk,
            format_args!("converting ({from}) to ({to}): unknown conversion"),
        ));
    }
    let warnings = match &source {
        Source::Text(parsed) => {
            let strict = typed.iter().flat_map(|t| &t.strict).map(ToString::to_string).collect();
            apply_validation(parsed, strict, validation).map_err(|e| unhandled(target, &gvk, e))?
        }
        // Protobuf is never decoded strictly: a field that is not known has a number and no name that a warning could say.
        Source::Protobuf(_) => Vec::new(),
    };
    check_version(target, &gvk)?;
    let mut value = typed.map_or(Value::Null, |t| t.value);
    // The identity is the path's from here on, also where the body left it out; a schema does not print it.
    if let Value::Object(object) = &mut value {
        object.insert("apiVersion".into(), target.api_version().into());
        object.insert("kind".into(), target.kind.into());
    }
    Ok(Decoded { value, warnings })
}

/// Decodes the body of a custom resource: a JSON object whose `metadata` is typed.
///
/// `coerce` is called if group and kind are those of the CRD, with the object and the version that it names. It
/// prunes by that version's schema (also `null`s and embedded metadata) and gives the paths of the fields that it
/// dropped, in the order of its report, or an error. A kind that differs is left for validation to refuse.
/// Errors: 400 with kube-apiserver's text.
pub fn decode_custom(
    bytes: &[u8],
    format: Format,
    target: GvkRef<'_>,
    validation: FieldValidation,
    coerce: impl FnOnce(&mut Value, &str) -> Result<Vec<String>, String>,
) -> Result<Decoded, Status> {
    if format == Format::Protobuf {
        return Err(refuse_protobuf(bytes, target));
    }
    let parsed = parse_located(bytes, format).map_err(|e| unrecognized(target, e, bytes))?;
    interpret(&parsed.raw).map_err(|e| unrecognized(target, e, bytes))?;
    let mut value = parsed.raw.to_value(Numbers::Go).map_err(|e| unrecognized(target, e, bytes))?;
    // `interpret` compared keys without case, for its errors only: `unstructured` goes by the exact keys, and nothing is filled
    // in from the path.
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_string();
    let (kind, api_version) = (text("kind"), text("apiVersion"));
    if kind.is_empty() {
        let body = String::from_utf8_lossy(bytes);
        return Err(unrecognized(target, format_args!("Object 'Kind' is missing in '{body}'"), bytes));
    }
    let (group, version) = parse_group_version(&api_version).unwrap_or_default();
    let gvk = GroupVersionKind { group: group.into(), version: version.into(), kind };
    let mut strict: Vec<String> =
        parsed.raw.duplicates().iter().map(|path| format!("duplicate field {}", go_quote(path))).collect();
    let unknown = coerce_object(&mut value, &gvk, target, coerce).map_err(|e| unhandled(target, &gvk, e))?;
    strict.extend(unknown.iter().map(|path| format!("unknown field \"{path}\"")));
    let warnings = apply_validation(&parsed, strict, validation).map_err(|e| unhandled(target, &gvk, e))?;
    check_version(target, &gvk)?;
    Ok(Decoded { value, warnings })
}

/// Custom resources have no protobuf form.
fn refuse_protobuf(bytes: &[u8], target: GvkRef<'_>) -> Status {
    match protobuf::open(bytes) {
        Ok(envelope) => {
            let error = protobuf::Error::NotMarshalable("*unstructured.Unstructured".into());
            unhandled(target, &envelope.gvk(target), error)
        }
        Err(error) => unrecognized(target, error, bytes),
    }
}

/// Has `metadata` typed and the rest pruned; returns the paths of unknown fields. Metadata and identity are put back after
/// `coerce`, whose schema would otherwise prune what all objects have.
fn coerce_object(
    value: &mut Value,
    gvk: &GroupVersionKind,
    target: GvkRef<'_>,
    coerce: impl FnOnce(&mut Value, &str) -> Result<Vec<String>, String>,
) -> Result<Vec<String>, String> {
    // `unstructured` distinguishes null from absent here: its accessors want a string if there is anything.
    for key in ["kind", "apiVersion"] {
        if value.get(key).is_some_and(Value::is_null) {
            return Err(format!(".{key} accessor error: <nil> is of the type <nil>, expected string"));
        }
    }
    let metadata = value.get("metadata").map(custom_metadata).transpose()?;
    let (metadata, mut unknown) = metadata.map_or((None, Vec::new()), |(m, u)| (Some(m), u));
    let identity: Map<String, Value> = ["apiVersion", "kind"]
        .iter()
        .filter_map(|key| Some(((*key).to_string(), value.get(*key)?.clone())))
        .collect();
    if gvk.group == target.group && gvk.kind == target.kind {
        // The schema's reading meets the unknown fields of the metadata once more.
        let found = coerce(value, &gvk.version)?;
        let new: Vec<String> = found.into_iter().filter(|path| !unknown.contains(path)).collect();
        unknown.extend(new);
    }
    if let Value::Object(object) = value {
        object.extend(identity);
        object.extend(metadata.map(|m| ("metadata".to_string(), m)));
    }
    Ok(unknown)
}

/// The `metadata` of a custom resource as `ObjectMeta` prints it, and the paths of its unknown fields
/// (`apiserver/schema/objectmeta/coerce.go`). Errors: Go's, as of a value of its own.
fn custom_metadata(metadata: &Value) -> Result<(Value, Vec<String>), String> {
    let typed =
        typed::normalise(metadata, &openapi::builtin(OBJECT_META)).map_err(|e| go::Words(&e).to_string())?;
    let unknown = typed.strict.iter().filter_map(|objection| match objection {
        StrictError::UnknownField(path) => Some(format!("metadata.{path}")),
        StrictError::DuplicateField(_) => None,
    });
    let unknown = unknown.collect();
    Ok((typed.value, unknown))
}

/// [`parse`], with what Go puts before an error.
fn parse_located(bytes: &[u8], format: Format) -> Result<Parsed<'_>, String> {
    parse(bytes, format).map_err(|error| match format {
        Format::Json => format!("couldn't get version/kind; json parse error: {error}"),
        Format::Yaml | Format::Protobuf => error,
    })
}

/// What `fieldValidation` makes of the objections of strict decoding: warnings, nothing, or an error. Those of the YAML reader
/// come first, as it is the first to object.
fn apply_validation(
    parsed: &Parsed<'_>,
    strict: Vec<String>,
    validation: FieldValidation,
) -> Result<Vec<String>, String> {
    match validation {
        FieldValidation::Ignore => Ok(Vec::new()),
        FieldValidation::Warn => Ok(parsed.yaml_duplicates.iter().cloned().chain(strict).collect()),
        FieldValidation::Strict => {
            let mut all = Vec::new();
            if !parsed.yaml_duplicates.is_empty() {
                all.push(yaml::unmarshal_errors(&parsed.yaml_duplicates));
            }
            all.extend(strict);
            if all.is_empty() { Ok(Vec::new()) } else { Err(strict_error(&all)) }
        }
    }
}

/// `strict decoding error: …, …` (`runtime.NewStrictDecodingError`).
pub fn strict_error(objections: &[String]) -> String {
    format!("strict decoding error: {}", objections.join(", "))
}

/// The beginning of a body, as an error message shows it: text if it looks like JSON, else hexadecimal
/// (`summarizeData` in `endpoints/handlers/rest.go`).
fn summary(body: &[u8]) -> String {
    const SHOWN: usize = 30;
    let shown = &body[..body.len().min(SHOWN)];
    let more = if body.len() > SHOWN { " ..." } else { "" };
    match body.first() {
        None => "<empty>".into(),
        Some(b'{') => {
            let mut out = String::new();
            // The cut may have split a character; Go prints what is left of it as U+FFFD, one for each byte.
            for chunk in shown.utf8_chunks() {
                out.push_str(chunk.valid());
                out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len()));
            }
            out + more
        }
        Some(_) => {
            let mut out = String::with_capacity(2 * shown.len());
            for byte in shown {
                // Writing to a String cannot fail.
                let _ = write!(out, "{byte:02x}");
            }
            out + more
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const SECRET: GvkRef<'_> = GvkRef { group: "", version: "v1", kind: "Secret" };
    const CONFIG_MAP: GvkRef<'_> = GvkRef { group: "", version: "v1", kind: "ConfigMap" };
    const TOKEN_REQUEST: GvkRef<'_> =
        GvkRef { group: "authentication.k8s.io", version: "v1", kind: "TokenRequest" };
    const ACCOUNT: GvkRef<'_> = GvkRef {
        group: "authentication.open-cluster-management.io",
        version: "v1beta1",
        kind: "ManagedServiceAccount",
    };

    fn built_in(
        target: GvkRef<'_>,
        format: Format,
        body: &str,
        mode: FieldValidation,
    ) -> Result<Decoded, String> {
        let schema = openapi::find_kind(target.group, target.version, target.kind).unwrap();
        decode_builtin(body.as_bytes(), format, target, &schema, mode).map_err(|status| {
            assert_eq!((status.code, status.reason), (400, "BadRequest"));
            status.message
        })
    }

    fn custom(body: &str, mode: FieldValidation) -> Result<Decoded, String> {
        let coerce = |value: &mut Value, version: &str| {
            assert_eq!(version, "v1beta1");
            let spec = value["spec"].as_object_mut();
            Ok(spec.and_then(|s| s.remove("color")).map(|_| "spec.color".to_string()).into_iter().collect())
        };
        decode_custom(body.as_bytes(), Format::Json, ACCOUNT, mode, coerce).map_err(|status| status.message)
    }

    #[test]
    fn bodies_of_other_kinds_are_refused() {
        let scheme = r#"in scheme "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30""#;
        for (target, body, expected) in [
            (SECRET, r#"{"apiVersion":"v1","kind":"ConfigMap"}"#, r#"ConfigMap in version "v1" cannot be handled as a Secret: converting (v1.ConfigMap) to (core.Secret): unknown conversion"#.to_string()),
            (CONFIG_MAP, r#"{"apiVersion":"apps/v1","kind":"ConfigMap"}"#, format!(r#"ConfigMap in version "v1" cannot be handled as a ConfigMap: no kind "ConfigMap" is registered for version "apps/v1" {scheme}"#)),
            (CONFIG_MAP, r#"{"apiVersion":"apps/v1","kind":"Deployment"}"#, r#"Deployment in version "v1" cannot be handled as a ConfigMap: converting (v1.Deployment) to (core.ConfigMap): unknown conversion"#.into()),
            (CONFIG_MAP, r#"{"apiVersion":"v1","kind":"List","items":[]}"#, r#"List in version "v1" cannot be handled as a ConfigMap: converting (v1.List) to (core.ConfigMap): unknown conversion"#.into()),
            (CONFIG_MAP, r#"{"apiVersion":"v1","kind":"Status"}"#, r#"Status in version "v1" cannot be handled as a ConfigMap: converting (v1.Status) to (core.ConfigMap): unknown conversion"#.into()),
            (TOKEN_REQUEST, r#"{"apiVersion":"authentication.k8s.io/v1","kind":"List"}"#, format!(r#"List in version "v1" cannot be handled as a TokenRequest: no kind "List" is registered for version "authentication.k8s.io/v1" {scheme}"#)),
            (TOKEN_REQUEST, r#"{"apiVersion":"authentication.k8s.io/v1","kind":"TokenReview"}"#, r#"TokenReview in version "v1" cannot be handled as a TokenRequest: converting (v1.TokenReview) to (authentication.TokenRequest): unknown conversion"#.into()),
            (TOKEN_REQUEST, r#"{"apiVersion": "a/b/c", "kind": "TokenRequest", "spec": {}}"#, r#"the object provided is unrecognized (must be of type TokenRequest): unexpected GroupVersion string: a/b/c ({"apiVersion": "a/b/c", "kind" ...)"#.into()),
            (GvkRef { group: "", version: "v1", kind: "Event" }, r#"{"apiVersion":"events.k8s.io/v1","kind":"Event"}"#, "the API version in the data (events.k8s.io/v1) does not match the expected API version (v1)".into()),
        ] {
            assert_eq!(built_in(target, Format::Json, body, FieldValidation::Warn), Err(expected), "{body}");
        }
    }

    #[test]
    fn bodies_that_are_no_objects_are_refused() {
        let prefix = "the object provided is unrecognized (must be of type TokenRequest): couldn't get version/kind; json parse error: ";
        let go_struct = r#"Go value of type struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;
        for (body, expected) in [
            ("", "unexpected end of JSON input (<empty>)".to_string()),
            ("   ", "unexpected end of JSON input (202020)".into()),
            ("[]", format!("json: cannot unmarshal array into {go_struct} (5b5d)")),
            ("5", format!("json: cannot unmarshal number into {go_struct} (35)")),
            (r#"{"apiVersion": "authentication.k8s.io/v1", "kind": 7}"#, r#"json: cannot unmarshal number into Go struct field .kind of type string ({"apiVersion": "authentication ...)"#.into()),
        ] {
            let error = built_in(TOKEN_REQUEST, Format::Json, body, FieldValidation::Warn).unwrap_err();
            assert_eq!(error, format!("{prefix}{expected}"));
        }
    }

    #[test]
    fn kind_and_version_may_be_left_out() {
        for body in ["{}", "null", r#"{"kind":"ConfigMap"}"#, r#"{"apiVersion":"v1"}"#] {
            let decoded = built_in(CONFIG_MAP, Format::Json, body, FieldValidation::Strict).unwrap();
            assert_eq!(decoded.value, json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {}}));
        }
    }

    #[test]
    fn unknown_fields_are_judged() {
        let body = r#"{"metadata":{"name":"a","labelz":{}},"data":{"k":"1","k":"2"},"unknown":"x"}"#;
        let fields = [
            r#"unknown field "metadata.labelz""#,
            r#"duplicate field "data.k""#,
            r#"unknown field "unknown""#,
        ];
        let judge = |mode| built_in(CONFIG_MAP, Format::Json, body, mode);
        assert!(judge(FieldValidation::Ignore).unwrap().warnings.is_empty());
        assert_eq!(judge(FieldValidation::Warn).unwrap().warnings, fields);
        assert_eq!(
            judge(FieldValidation::Strict).unwrap_err(),
            format!(
                "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: {}",
                fields.join(", ")
            )
        );
    }

    #[test]
    fn yaml_is_judged_too() {
        let body = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: yam\ndata:\n  k: one\n  k: two\nunknown: x\n";
        let judge = |mode| built_in(CONFIG_MAP, Format::Yaml, body, mode);
        let decoded = judge(FieldValidation::Warn).unwrap();
        assert_eq!(decoded.value["data"], json!({"k": "two"}));
        assert_eq!(decoded.warnings, [r#"line 7: key "k" already set in map"#, r#"unknown field "unknown""#]);
        assert_eq!(
            judge(FieldValidation::Strict).unwrap_err(),
            "ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: yaml: unmarshal errors:\n  line 7: key \"k\" already set in map, unknown field \"unknown\""
        );
    }

    #[test]
    fn custom_resources_are_objects_with_typed_metadata() {
        let body = r#"{"apiVersion":"authentication.open-cluster-management.io/v1beta1","kind":"ManagedServiceAccount","metadata":{"name":"a","nickname":"x","labels":{}},"spec":{"n":3600.0,"color":"blue","n":3600.0}}"#;
        let fields = [
            r#"duplicate field "spec.n""#,
            r#"unknown field "metadata.nickname""#,
            r#"unknown field "spec.color""#,
        ];
        let decoded = custom(body, FieldValidation::Warn).unwrap();
        assert_eq!(decoded.warnings, fields);
        assert_eq!(decoded.value["metadata"], json!({"name": "a"}));
        assert_eq!(decoded.value["spec"], json!({"n": 3600}));
        assert!(custom(body, FieldValidation::Strict).unwrap_err().ends_with(&fields.join(", ")));
    }

    #[test]
    fn custom_resources_must_name_kind_and_version() {
        let gv = "authentication.open-cluster-management.io/v1beta1";
        for (body, expected) in [
            (r#"{"kind":"ManagedServiceAccount"}"#.to_string(), format!("the API version in the data () does not match the expected API version ({gv})")),
            (r#"{"metadata":{}}"#.into(), r#"the object provided is unrecognized (must be of type ManagedServiceAccount): Object 'Kind' is missing in '{"metadata":{}}' ({"metadata":{}})"#.into()),
            (format!(r#"{{"apiVersion":"{gv}","kind":"ManagedServiceAccount","metadata":{{"name":5}}}}"#), r#"ManagedServiceAccount in version "v1beta1" cannot be handled as a ManagedServiceAccount: json: cannot unmarshal number into Go struct field ObjectMeta.name of type string"#.into()),
            (format!(r#"{{"apiVersion":"{gv}","kind":"ManagedServiceAccount","metadata":"x"}}"#), r#"ManagedServiceAccount in version "v1beta1" cannot be handled as a ManagedServiceAccount: json: cannot unmarshal string into Go value of type v1.ObjectMeta"#.into()),
        ] {
            assert_eq!(custom(&body, FieldValidation::Warn), Err(expected), "{body}");
        }
    }

    #[test]
    fn a_decoded_secret_does_not_print_itself() {
        let secret = r#"{"apiVersion":"v1","kind":"Secret","data":{"k":"aHVzaGh1c2g="}}"#;
        let decoded = built_in(SECRET, Format::Json, secret, FieldValidation::Warn).unwrap();
        assert!(decoded.value.to_string().contains("aHVzaGh1c2g="));
        assert!(!format!("{decoded:?}").contains("aHVzaGh1c2g="));
    }
}
