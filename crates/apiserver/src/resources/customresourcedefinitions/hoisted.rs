//! What the versions of a CRD share, and where errors say it stands.

use serde_json::Value;

/// What all versions have in common, and so belongs to the spec (`conversion.go` of `apiextensions/v1`).
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

/// Go's deep equality takes no notice of empty lists.
pub(super) fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_array().is_some_and(Vec::is_empty)
}
