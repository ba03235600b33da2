//! Label selectors in objects (`metav1.LabelSelector`): what they may be, and what they select
//! (`k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`, `helpers.go`).

use super::{metadata, names};
use crate::field::{Error, ErrorList, Path};
use crate::meta;
use serde_json::{Map, Value};

/// The errors of a selector.
pub fn validate(selector: &Value, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if let Some(labels) = meta::map(selector, &["matchLabels"]) {
        errors.extend(metadata::validate_labels(labels, &field.child("matchLabels")));
    }
    let expressions = field.child("matchExpressions");
    for (i, requirement) in meta::list(selector, &["matchExpressions"]).iter().enumerate() {
        errors.extend(validate_requirement(requirement, false, &expressions.index(i)));
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

/// Whether a selector selects an object with these labels; an empty selector selects all. `None` if the selector
/// is not valid.
pub fn matches(selector: &Value, labels: Option<&Map<String, Value>>) -> Option<bool> {
    // As `LabelSelectorAsSelector`, which refuses an invalid selector as a whole: matching with the valid part of it would
    // select more than was meant.
    if !validate(selector, &Path::default()).is_empty() {
        return None;
    }
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let equal = meta::map(selector, &["matchLabels"]).into_iter().flatten();
    let fits = |requirement: &Value| {
        let value = label(meta::text(requirement, &["key"]));
        let listed = || meta::list(requirement, &["values"]).iter().any(|v| v.as_str() == value);
        match meta::text(requirement, &["operator"]) {
            "In" => value.is_some() && listed(),
            "NotIn" => value.is_none() || !listed(),
            "Exists" => value.is_some(),
            // `DoesNotExist`: anything else was refused above.
            _ => value.is_none(),
        }
    };
    let all = equal.into_iter().all(|(key, value)| label(key).is_some() && label(key) == value.as_str());
    Some(all && meta::list(selector, &["matchExpressions"]).iter().all(fits))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selection() {
        let labels = json!({"a": "1", "b": ""});
        let selects = |selector: Value| matches(&selector, labels.as_object());
        let with = |key: &str, operator: &str, values: Value| {
            selects(json!({"matchExpressions": [{"key": key, "operator": operator, "values": values}]}))
        };
        assert_eq!(selects(json!({})), Some(true));
        assert_eq!(selects(json!({"matchLabels": {"a": "1", "b": ""}})), Some(true));
        assert_eq!(selects(json!({"matchLabels": {"a": "2"}})), Some(false));
        assert_eq!(selects(json!({"matchLabels": {"c": ""}})), Some(false));
        assert_eq!(with("a", "In", json!(["1", "2"])), Some(true));
        assert_eq!(with("c", "In", json!([""])), Some(false));
        assert_eq!(with("c", "NotIn", json!(["1"])), Some(true));
        assert_eq!(with("a", "NotIn", json!(["1"])), Some(false));
        assert_eq!(with("b", "Exists", json!([])), Some(true));
        assert_eq!(with("b", "DoesNotExist", json!([])), Some(false));
        assert_eq!(with("b", "Within", json!([])), None);
        assert_eq!(with("b", "In", json!([])), None);
        assert_eq!(with("b", "Exists", json!(["1"])), None);
    }
}
