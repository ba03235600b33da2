//! The bytes of a patch become a document (`apiserver/pkg/endpoints/handlers/patch.go`). What the document does to an object
//! is the business of `fleetpass-apply`.

use crate::body::{self, FieldValidation, Format};
use crate::yaml;
use fleetpass_apimachinery::field::go_quote;
use fleetpass_apimachinery::json::Numbers;
use fleetpass_apimachinery::status::Status;
use fleetpass_apply::{PatchKind, malformed};
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

/// Reads the body of a patch: YAML for an apply, else JSON. Errors: 400 with kube-apiserver's text.
pub fn read(kind: PatchKind, bytes: &[u8], validation: FieldValidation) -> Result<Document, Status> {
    let validated = validation != FieldValidation::Ignore;
    let format = if kind == PatchKind::Apply { Format::Yaml } else { Format::Json };
    let refuse = |why: &str| match kind {
        PatchKind::Apply => {
            Status::bad_request(format!("error decoding YAML: error converting YAML to JSON: {why}"))
        }
        _ => malformed(kind, validated, why),
    };
    let parsed = body::parse(bytes, format).map_err(|why| refuse(&why))?;
    let value = parsed.raw.to_value(Numbers::Go).map_err(|e| refuse(&e.to_string()))?;
    // Duplicates in JSON are only collected: whether they are an error is decided when the patched object has been decoded.
    // Those of an apply are refused here, before the object is looked at, as in Go.
    if kind != PatchKind::Apply {
        let paths = parsed.raw.duplicates();
        let duplicates = paths.iter().map(|path| format!("duplicate field {}", go_quote(path))).collect();
        return Ok(Document { value, duplicates });
    }
    if !matches!(value, Value::Object(_) | Value::Null) {
        return Err(Status::bad_request(format!(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {} into Go \
             value of type map[string]interface {{}}",
            parsed.raw.type_name()
        )));
    }
    if validation == FieldValidation::Strict && !parsed.yaml_duplicates.is_empty() {
        return Err(Status::bad_request(format!(
            "error strict decoding YAML: error converting YAML to JSON: {}",
            yaml::unmarshal_errors(&parsed.yaml_duplicates)
        )));
    }
    Ok(Document { value, duplicates: parsed.yaml_duplicates })
}
