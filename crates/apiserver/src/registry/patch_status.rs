//! What a client is told whose patch is refused.

use fleetpass_apimachinery::field;
use fleetpass_apimachinery::status::{Cause, Details, Status};
use fleetpass_apply::{Conflicts, Error, GoWords, PatchKind, StrategicError, Words};
use serde_json::Value;

/// The status for an error: kube-apiserver's code, reason, details and words. Exhaustive on purpose: whoever adds an error
/// has to say what a client is told.
pub(crate) fn patch_status(error: impl Into<Error>) -> Status {
    let error = error.into();
    let message = error.to_string();
    match error {
        Error::UnsupportedMediaType(unsupported) if unsupported.routed => {
            Status::unsupported_media_type(message)
        }
        // go-restful's words; the request never comes to a handler there.
        Error::UnsupportedMediaType(_) => {
            with_empty_details(Status::unsupported_media_type("415: Unsupported Media Type"))
        }
        Error::Malformed { .. }
        | Error::DuplicateFields { .. }
        | Error::NotAPatch { .. }
        | Error::WrongKind(_)
        | Error::ManagedFieldsGiven => Status::bad_request(message),
        Error::TooManyOperations { .. } => {
            Status::too_large(format!("Request entity is too large: {message}"))
        }
        // Why a patch does not apply is not said.
        Error::DoesNotApply { .. } | Error::GrowsTooMuch => unprocessable(),
        Error::Strategic(error) => match error {
            StrategicError::MalformedDirective(_) => Status::bad_request(message),
            StrategicError::ListOfLists => unprocessable(),
            StrategicError::RemergesTooMuch { .. } => {
                with_empty_details(Status::new(422, "Invalid", message))
            }
            // Errors that have no status of their own in Go.
            StrategicError::UnknownField { .. }
            | StrategicError::OutOfOrder { .. }
            | StrategicError::NoElements
            | StrategicError::MixedElements(_)
            | StrategicError::NoMergeKey
            | StrategicError::MissingMergeKey { .. }
            | StrategicError::WrongContainer { .. }
            | StrategicError::MergeDirectiveInList
            | StrategicError::UnknownDirective { .. } => Status::plain_error(message),
        },
        Error::Conflicts(conflicts) => conflict(message, &conflicts),
        Error::UnsupportedKind(_)
        | Error::ManagedFields(_)
        | Error::DoesNotFit(_)
        | Error::Untracked(_)
        | Error::Unmergeable(_) => Status::plain_error(message),
    }
}

/// The refusal of a patched object that does not decode, or that breaks `fieldValidation=Strict`: 422 about a field
/// named `patch`, whose value is the patched object (for a strategic merge patch: the patch, as Go prints a map).
pub(super) fn undecodable(kind: PatchKind, patch: &Value, patched: &Value, why: &str) -> Status {
    let value = match kind {
        PatchKind::Strategic => GoWords.value(patch),
        PatchKind::Json | PatchKind::Merge | PatchKind::Apply => patched.to_string(),
    };
    let error = field::Error::invalid(&field::Path::new("patch"), value, why);
    let mut status = Status::invalid("", "", "", &[error].into());
    // There is no kind to name, so the details carry the causes only.
    if let Some(details) = &mut status.details {
        **details = Details { causes: std::mem::take(&mut details.causes), ..Details::default() };
    }
    status
}

/// 422 with a fixed text (`NewGenericServerResponse`).
fn unprocessable() -> Status {
    with_empty_details(Status::new(
        422,
        "Invalid",
        "the server rejected our request due to an error in our request",
    ))
}

fn with_empty_details(mut status: Status) -> Status {
    status.details = Some(Box::default());
    status
}

/// 409 with a cause for each field (`NewApplyConflict`).
fn conflict(message: String, conflicts: &Conflicts) -> Status {
    let causes = conflicts
        .conflicts
        .iter()
        .map(|conflict| Cause {
            reason: "FieldManagerConflict".into(),
            message: format!("conflict with {}", conflict.owner),
            field: conflict.path.to_string(),
        })
        .collect();
    let mut status = Status::new(409, "Conflict", message);
    status.details = Some(Box::new(Details { causes, ..Details::default() }));
    status
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::gvk::GvkRef;
    use fleetpass_apply::fieldpath::Set;
    use fleetpass_apply::{Body, FieldManager, patch};
    use fleetpass_schema::openapi::builtin;
    use serde_json::json;

    /// The status of a patch of a ServiceAccount.
    fn refusal(kind: PatchKind, validated: bool, body: &Value) -> Status {
        let live = json!({"apiVersion": "v1", "kind": "ServiceAccount", "secrets": [{"name": "a"}]});
        let body = Body { value: body, duplicates: &[], validated };
        let schema = builtin("io.k8s.api.core.v1.ServiceAccount");
        patch(kind, &live, &body, &schema).map_err(patch_status).expect_err("a refusal")
    }

    fn generic_422() -> Value {
        json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": "the server rejected our request due to an error in our request",
            "reason": "Invalid", "details": {}, "code": 422})
    }

    #[test]
    fn patches_that_are_none_or_do_not_apply() {
        let many = Value::Array(vec![json!({"op": "test", "path": "/a"}); 10_001]);
        let deep = json!([{"op": "add", "path": "/a".repeat(2000), "value": 1}]);
        for (kind, body, code, reason, message) in [
            (
                PatchKind::Merge,
                json!([]),
                400,
                "BadRequest",
                "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (PatchKind::Merge, Value::Null, 400, "BadRequest", "Invalid JSON Patch"),
            (
                PatchKind::Json,
                json!([{"op": 1}]),
                400,
                "BadRequest",
                "error decoding patch: json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string",
            ),
            (
                PatchKind::Json,
                many,
                413,
                "RequestEntityTooLarge",
                "Request entity is too large: The allowed maximum operations in a JSON patch is 10000, got 10001",
            ),
            (
                PatchKind::Strategic,
                json!([]),
                400,
                "BadRequest",
                "json: cannot unmarshal array into Go value of type map[string]interface {}",
            ),
            (
                PatchKind::Strategic,
                json!({"$setElementOrder": []}),
                400,
                "BadRequest",
                "invalid patch format of setElementOrder list",
            ),
            (
                PatchKind::Strategic,
                json!({"secrets": [{"uid": "x"}]}),
                500,
                "",
                "map: map[uid:x] does not contain declared merge key: name",
            ),
            (PatchKind::Apply, json!({}), 500, "", "application/apply-patch+yaml: unimplemented patch type"),
        ] {
            let status = refusal(kind, true, &body);
            assert_eq!((status.code, status.reason, status.message.as_str()), (code, reason, message));
            assert_eq!(status.details, None, "{message}");
        }
        for (kind, body) in [
            (PatchKind::Json, json!([{"op": "test", "path": "/kind", "value": "w"}])),
            (PatchKind::Json, deep),
        ] {
            assert_eq!(refusal(kind, false, &body).to_json(), generic_422());
        }
        assert_eq!(patch_status(Error::Strategic(StrategicError::ListOfLists)).to_json(), generic_422());
    }

    #[test]
    fn media_types() {
        for (header, custom, message) in [
            ("application/json", false, "415: Unsupported Media Type"),
            (
                "application/strategic-merge-patch+json",
                true,
                "the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            ),
        ] {
            let status = PatchKind::from_content_type(Some(header), custom)
                .map_err(patch_status)
                .expect_err("refused");
            assert_eq!((status.code, status.reason), (415, "UnsupportedMediaType"));
            assert_eq!((status.message.as_str(), status.details.is_some()), (message, !custom));
        }
    }

    /// Applies a ConfigMap to nothing, as `alice`, and then `configuration` as `bob`.
    fn apply(configuration: &Value) -> Status {
        let schema = builtin("io.k8s.api.core.v1.ConfigMap");
        let none = Set::new();
        let manager = |name| FieldManager {
            name,
            schema: &schema,
            kind: GvkRef { group: "", version: "v1", kind: "ConfigMap" },
            subresource: "",
            reset_fields: &none,
            known_versions: &["v1"],
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        let first = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "1", "b": "2"}});
        let live = manager("alice").apply(None, &first, false).expect("an object");
        manager("bob").apply(Some(&live), configuration, false).map_err(patch_status).expect_err("a refusal")
    }

    #[test]
    fn applies() {
        let taken = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"a": "3", "b": "4"}});
        let cause = |field: &str| json!({"reason": "FieldManagerConflict", "message": "conflict with \"alice\"", "field": field});
        assert_eq!(
            apply(&taken).to_json(),
            json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
                "message": "Apply failed with 2 conflicts: conflicts with \"alice\":\n- .data.a\n- .data.b",
                "reason": "Conflict", "details": {"causes": [cause(".data.a"), cause(".data.b")]}, "code": 409})
        );
        for (configuration, code, reason, message) in [
            (
                json!({"apiVersion": "v2", "kind": "ConfigMap"}),
                400,
                "BadRequest",
                "invalid object type: /v2, Kind=ConfigMap",
            ),
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"managedFields": []}}),
                400,
                "BadRequest",
                "metadata.managedFields must be nil",
            ),
            (
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "color": "red"}),
                500,
                "",
                "failed to create typed patch object (/c; /v1, Kind=ConfigMap): .color: field not declared in schema",
            ),
        ] {
            let status = apply(&configuration);
            assert_eq!((status.code, status.reason, status.message.as_str()), (code, reason, message));
            assert_eq!(status.details, None);
        }
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
