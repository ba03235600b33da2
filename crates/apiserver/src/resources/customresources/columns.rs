//! The columns that a definition adds to the Table of its kind
//! (`apiextensions-apiserver/pkg/registry/customresource/tableconvertor/tableconvertor.go`).

use crate::resources::printers;
use fleetpass_apimachinery::meta;
use fleetpass_schema::Effort;
use fleetpass_schema::jsonpath::{self, JsonPath};
use jiff::Timestamp;
use serde_json::Value;

/// The columns beside the name, up to the first whose path cannot be parsed: kube-apiserver goes on with what its converter
/// had when it failed (`registry/customresource/tableconvertor/tableconvertor.go`).
pub(super) fn printer_columns(version: &Value) -> Vec<Value> {
    let columns = meta::list(version, &["additionalPrinterColumns"]);
    if columns.is_empty() {
        return vec![
            serde_json::json!({"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp",
            "description": "Time since the object was created."}),
        ];
    }
    let readable = |c: &Value| JsonPath::parse(meta::text(c, &["jsonPath"])).is_ok();
    let count = columns.iter().take_while(|c| readable(c)).count();
    columns[..count].to_vec()
}

/// So many values of an object are looked at for all of its columns: who writes the definition chooses the paths, and whoever
/// lists the objects has them evaluated for each.
pub(super) const VALUES_OF_A_ROW: u64 = 20_000;

/// The cell of a column: null where the value is absent or of another type than the column (`cellForJSONValue`).
pub(super) fn cell(
    path: &JsonPath,
    kind: &str,
    object: &Value,
    now: Timestamp,
    effort: &mut Effort,
) -> Value {
    let Some(value) = path.first(object, effort) else { return Value::Null };
    match kind {
        "string" => jsonpath::print(value).into(),
        "integer" => match (value.as_i64(), value.as_f64()) {
            (Some(int), _) => int.into(),
            // Truncated, as Go's conversion does.
            (None, Some(float)) => (float as i64).into(),
            _ => Value::Null,
        },
        "number" if value.is_number() => value.clone(),
        "boolean" if value.is_boolean() => value.clone(),
        "date" => match value.as_str() {
            Some("") => printers::UNKNOWN.into(),
            Some(text) => match text.parse::<Timestamp>() {
                Ok(time) => printers::since(Some(time), now).into(),
                Err(_) => "<invalid>".into(),
            },
            None => Value::Null,
        },
        _ => Value::Null,
    }
}
