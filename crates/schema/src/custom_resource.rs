//! From a decoded JSON tree to a custom object of one version: metadata read as Go reads it, unknown fields
//! and forbidden nulls removed, defaults filled in (`unstructuredSchemaCoercer` and `unstructuredDefaulter` in
//! `apiextensions-apiserver/pkg/apiserver/customresource_handler.go`).

use crate::error::CustomResourceError;
use crate::{Schema, defaulting, objectmeta, pruning};
use serde_json::Value;

/// Brings a body, or a patched object, into the form of `schema`. Returns the paths of the fields that were
/// removed because the schema does not know them, in the order of kube-apiserver's strict errors: for
/// `fieldValidation`, each reads `unknown field "PATH"`.
///
/// # Errors
/// What is wrong with its metadata or with a resource that is embedded in it. kube-apiserver says it, in the words of
/// [`go::Words`](crate::go::Words), after `KIND in version "VERSION" cannot be handled as a KIND: `.
pub fn decode(object: &mut Value, schema: &Schema) -> Result<Vec<String>, CustomResourceError> {
    let mut unknown = match object.as_object_mut() {
        Some(members) => objectmeta::coerce_metadata(members, "")?,
        None => Vec::new(),
    };
    unknown.extend(pruning::prune(object, schema, true));
    defaulting::prune_nulls(object, Some(schema));
    unknown.extend(objectmeta::coerce_embedded(object, schema).map_err(CustomResourceError::Embedded)?);
    defaulting::default(object, schema);
    Ok(unknown)
}

/// Brings an object that was read in one version into the form of another's schema, after its `apiVersion`
/// was changed: what the other does not know goes. Its defaults are not filled in, see [`refresh`].
pub fn convert(object: &mut Value, schema: &Schema) {
    pruning::prune(object, schema, true);
    defaulting::prune_nulls(object, Some(schema));
}

/// Brings a stored object into the form that the schema of its stored version has now: a field that has been
/// dropped since goes, a default that has been added since is filled in.
pub fn refresh(object: &mut Value, schema: &Schema) {
    convert(object, schema);
    defaulting::default(object, schema);
}
