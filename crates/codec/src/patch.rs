//! The bytes of a patch become a document (`apiserver/pkg/endpoints/handlers/patch.go`). What the document does to an object
//! is the business of `fleetpass-apply`.

use crate::body::{self, FieldValidation, Format};
use crate::yaml;
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::json::Numbers;
use fleetpass_apply::{Error, Found, PatchKind, PatchPart};
use serde_json::Value;

/// The document of a patch, read without knowing the object.
#[derive(Clone, PartialEq)]
pub struct Document {
    /// The document.
    pub value: Value,
    /// `duplicate field "path"` for each member that occurs twice; of YAML the message of its reader.
    pub duplicates: Vec<String>,
}

/// The document may hold a Secret: it is never printed.
impl std::fmt::Debug for Document {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document").finish_non_exhaustive()
    }
}

/// Reads the body of a patch: YAML for an apply, else JSON.
///
/// # Errors
/// [`Error::Malformed`] for bytes that are no document; for an apply also [`Error::NotAPatch`] if it is no object, and
/// [`Error::DuplicateFields`] under [`FieldValidation::Strict`].
pub fn read(kind: PatchKind, bytes: &[u8], validation: FieldValidation) -> Result<Document, Error> {
    let validated = validation != FieldValidation::Ignore;
    let format = if kind == PatchKind::Apply { Format::Yaml } else { Format::Json };
    let refuse = |why: String| {
        let why = match format {
            Format::Yaml => format!("error converting YAML to JSON: {why}"),
            _ => why,
        };
        Error::Malformed { kind, validated, why }
    };
    let parsed = body::parse(bytes, format).map_err(refuse)?;
    let value = parsed.raw.to_value(Numbers::Go).map_err(|why| refuse(why.to_string()))?;
    // Duplicates in JSON are only collected: whether they are an error is decided when the patched object has been decoded.
    // Those of an apply are refused here, before the object is looked at, as in Go.
    if kind != PatchKind::Apply {
        let paths = parsed.raw.duplicates();
        let duplicates = paths.iter().map(|path| format!("duplicate field {}", go_quote(path))).collect();
        return Ok(Document { value, duplicates });
    }
    if !matches!(value, Value::Object(_) | Value::Null) {
        return Err(Error::NotAPatch { kind, validated, part: PatchPart::Object, found: Found(value) });
    }
    if validation == FieldValidation::Strict && !parsed.yaml_duplicates.is_empty() {
        let why = yaml::unmarshal_errors(&parsed.yaml_duplicates);
        return Err(Error::DuplicateFields { why: format!("error converting YAML to JSON: {why}") });
    }
    Ok(Document { value, duplicates: parsed.yaml_duplicates })
}
