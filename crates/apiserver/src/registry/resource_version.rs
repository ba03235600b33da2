//! Resource versions in bodies and queries, read as Go reads them
//! (`k8s.io/apiserver/pkg/storage/api_object_versioner.go`).

use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_store::Revision;
use serde_json::Value;

/// The resource version in a body: absent, empty and 0 mean none; anything but a number is refused as
/// kube-apiserver's versioner refuses it (500 without reason).
pub(super) fn body_resource_version(object: &Value) -> Result<Option<Revision>, Status> {
    match meta::text(object, &["metadata", "resourceVersion"]) {
        "" => Ok(None),
        text => go_parse_uint(text).map(|r| (r != 0).then_some(r)).map_err(Status::plain_error),
    }
}

/// A resource version in a query, or the text of the error.
pub(super) fn parse_revision(text: &str) -> Result<Revision, String> {
    go_parse_uint(text).map_err(|why| format!("resourceVersion: Invalid value: {}: {why}", go_quote(text)))
}

/// A number as Go's `strconv.ParseUint` reads it, or its error.
fn go_parse_uint(text: &str) -> Result<u64, String> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse() {
        Ok(number) if digits => Ok(number),
        _ => {
            let why = if digits { "value out of range" } else { "invalid syntax" };
            Err(format!("strconv.ParseUint: parsing {}: {why}", go_quote(text)))
        }
    }
}
