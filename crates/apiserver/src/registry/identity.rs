//! Which object a write is about: the path says it, and the body has to agree
//! (`k8s.io/apiserver/pkg/endpoints/handlers/rest.go`, `checkName`).

use super::scope::Scope;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::validation::prepare;
use serde_json::Value;

/// Neither a patch nor a PUT may turn an object into another one: its name and namespace are those of the path. A namespace
/// that the body leaves out is filled in.
///
/// # Errors
/// 400 for another name or namespace.
pub(super) fn check_identity(scope: &Scope<'_>, object: &mut Value) -> Result<(), Status> {
    match meta::name(object) {
        "" => Err(Status::bad_request(format!(
            "the name of the object ({} based on URL) was undeterminable: name must be provided",
            scope.name
        ))),
        found if found != scope.name => Err(Status::bad_request(format!(
            "the name of the object ({found}) does not match the name on the URL ({})",
            scope.name
        ))),
        _ => prepare::match_namespace(object, scope.namespace),
    }
}
