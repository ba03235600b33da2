//! kubectl's own record of what it applied, from before servers could apply: an annotation that `kubectl apply` keeps.
//! When it applies on the server for the first time, it takes over what it applied on the client
//! (`k8s.io/apimachinery/pkg/util/managedfields/internal`: `lastappliedmanager.go`, `lastappliedupdater.go`).

use crate::fieldpath::Set;
use crate::typed::{TypeRef, compare, to_set, validate};
use serde_json::Value;

/// The manager that keeps the record.
pub(super) const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// How many bytes the annotations of an object may have (`TotalAnnotationSizeLimitB`). The record goes where it would not
/// fit: it must not make an object invalid that is valid without it.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The fields that kubectl recorded as applied by itself, before the server did, and that are still as it applied
/// them; `None` if there is no usable record. Conflicts about these are none.
pub(super) fn still_as_applied(schema: TypeRef<'_>, api_version: &str, live: &Value) -> Option<Set> {
    let record = live.get("metadata")?.get("annotations")?.get(LAST_APPLIED)?.as_str()?;
    let applied: Value = serde_json::from_str(record).ok()?;
    if applied.get("apiVersion")?.as_str()? != api_version {
        return None;
    }
    validate(schema, &applied, false).ok()?;
    validate(schema, live, false).ok()?;
    let comparison = compare(schema, &applied, live);
    let changed = comparison.modified.union(&comparison.added).union(&comparison.removed);
    Some(to_set(schema, &applied).difference(&changed))
}

/// Renews the record in an object to which `configuration` was applied, if it has one: an older kubectl that applies on
/// the client goes by it.
pub(super) fn renew_last_applied(object: &mut Value, configuration: &Value) {
    let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
        return;
    };
    if annotations.get(LAST_APPLIED).and_then(Value::as_str).is_none_or(str::is_empty) {
        return;
    }
    let mut applied = configuration.clone();
    if let Some(mine) = applied.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        mine.remove(LAST_APPLIED);
    }
    // The line break is that of Go's JSON encoder.
    annotations.insert(LAST_APPLIED.into(), format!("{applied}\n").into());
    let size: usize = annotations.iter().map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}
