//! What the versions of a CRD share, and where errors say it stands.
//!
//! kube-apiserver validates its internal type, into which v1 is converted first. That conversion moves ("hoists") what is the
//! same in all versions from the versions to the spec, so the error of a schema is found at `spec.validation.openAPIV3Schema`
//! although the client wrote `spec.versions[0].schema.openAPIV3Schema`. Paths are part of the API, so we do the same.

use serde_json::Value;

/// What all versions have in common, and is validated at the spec instead of in each version
/// (`Convert_v1_CustomResourceDefinitionSpec_To_apiextensions_…` in `pkg/apis/apiextensions/v1/conversion.go`).
pub(super) struct Hoisted<'a> {
    pub(super) schema: Option<&'a Value>,
    pub(super) subresources: Option<&'a Value>,
    pub(super) columns: Option<&'a Value>,
    pub(super) selectable: Option<&'a Value>,
}

impl<'a> Hoisted<'a> {
    pub(super) fn new(versions: &'a [Value]) -> Self {
        let common = |field: &str| -> Option<&'a Value> {
            let first = versions.first()?.get(field).filter(|v| !is_empty(v))?;
            // A single version agrees with itself, so of most definitions everything is hoisted.
            versions.iter().all(|v| v.get(field) == Some(first)).then_some(first)
        };
        Self {
            schema: common("schema"),
            subresources: common("subresources"),
            columns: common("additionalPrinterColumns"),
            selectable: common("selectableFields"),
        }
    }
}

/// Null or an empty list, which Go's `Semantic.DeepEqual` does not tell apart.
pub(super) fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
