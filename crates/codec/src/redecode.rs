//! An object that a patch has changed, decoded again as a body of its kind would be. No I/O.
//!
//! kube-apiserver prints the object that a JSON or merge patch gave and decodes the text; here the tree is decoded as it is.

use fleetpass_schema::{Schema, custom_resource, go, typed};
use serde_json::Value;
use std::sync::Arc;

/// Brings `object` into the form in which its kind's rules see it, before defaults. Returns the objections of strict decoding
/// (`unknown field "spec.x"`).
///
/// # Errors
/// What does not decode, in Go's words.
pub fn redecode(object: &mut Value, schema: &Arc<Schema>, is_custom: bool) -> Result<Vec<String>, String> {
    if is_custom {
        let unknown = custom_resource::decode(object, schema).map_err(|e| go::Words(&e).to_string())?;
        return Ok(unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect());
    }
    // The identity is not part of what a schema normalises: it is what the request says it is.
    let identity = ["apiVersion", "kind"].map(|key| (key, object.get(key).cloned()));
    let decoded = typed::normalise(object, schema).map_err(|e| go::Words(&e).to_string())?;
    *object = decoded.value;
    if let Some(members) = object.as_object_mut() {
        for (key, value) in identity {
            if let Some(value) = value {
                members.insert(key.into(), value);
            }
        }
    }
    Ok(decoded.strict.iter().map(ToString::to_string).collect())
}
