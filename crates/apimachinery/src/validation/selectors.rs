//! Label selectors in objects (`metav1.LabelSelector`): what they may be
//! (`k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`).

use super::{metadata, names};
use crate::field::{Error, ErrorList, Path};
use crate::meta;
use serde_json::Value;

/// The errors of a selector.
pub fn validate(selector: &Value, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(labels) = meta::map(selector, &["matchLabels"]) {
        errors.append(metadata::validate_labels(labels, &field.child("matchLabels")));
    }
    let expressions = field.child("matchExpressions");
    for (i, requirement) in meta::list(selector, &["matchExpressions"]).iter().enumerate() {
        errors.append(validate_requirement(requirement, false, &expressions.index(i)));
    }
    errors
}

/// The errors of one requirement. With `allow_unknown_operators` (`AllowUnknownOperatorInRequirement`) an operator that is
/// not known here passes, because a newer client may send it in a review whose requirements are then ignored.
pub fn validate_requirement(requirement: &Value, allow_unknown_operators: bool, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let values = meta::list(requirement, &["values"]);
    let operator = meta::text(requirement, &["operator"]);
    errors.extend(validate_operator(operator, values, allow_unknown_operators, field));
    let key = meta::text(requirement, &["key"]);
    let bad_key = names::is_qualified_name(key).into_iter();
    errors.extend(bad_key.map(|m| Error::invalid(&field.child("key"), key, m)));
    for (i, value) in values.iter().enumerate() {
        let value = value.as_str().unwrap_or_default();
        let field = field.child("values").index(i);
        errors.extend(names::is_label_value(value).into_iter().map(|m| Error::invalid(&field, value, m)));
    }
    errors
}

/// The error of an operator, or of the number of values that it is given.
pub fn validate_operator(
    operator: &str,
    values: &[Value],
    allow_unknown_operators: bool,
    field: &Path,
) -> Option<Error> {
    match operator {
        "In" | "NotIn" => values.is_empty().then(|| {
            Error::required(&field.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
        }),
        "Exists" | "DoesNotExist" => (!values.is_empty()).then(|| {
            let detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
            Error::forbidden(&field.child("values"), detail)
        }),
        _ if allow_unknown_operators => None,
        other => Some(Error::invalid(&field.child("operator"), other, "not a valid selector operator")),
    }
}
