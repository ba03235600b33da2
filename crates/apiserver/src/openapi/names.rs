//! The names by which OpenAPI documents refer to definitions, and the small pieces that both dialects share.

use fleetpass_apimachinery::gvk::GroupVersionKind;
use serde_json::{Value, json};

/// Before the name of a definition in OpenAPI 3.0.
pub(super) const COMPONENTS: &str = "#/components/schemas/";

pub(super) const DELETE_OPTIONS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions";
pub(super) const PATCH: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Patch";
pub(super) const RESOURCE_LIST: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.APIResourceList";
pub(super) const STATUS: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.Status";
pub(super) const WATCH_EVENT: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.WatchEvent";
pub(super) const OBJECT_META: &str = fleetpass_schema::openapi::OBJECT_META;
pub(super) const LIST_META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.ListMeta";

/// How clients authenticate, as both dialects describe it: a bearer token in the header `Authorization`.
pub(super) fn security_schemes() -> Value {
    json!({"BearerToken": {"description": "A bearer token.", "type": "apiKey", "name": "authorization",
        "in": "header"}})
}

/// A kind as the extension `x-kubernetes-group-version-kind` prints it.
pub(super) fn gvk_extension(gvk: &GroupVersionKind) -> Value {
    json!({"group": gvk.group, "version": gvk.version, "kind": gvk.kind})
}

/// `io.example.stable.v1.CronTab`: the group's parts in reverse order, version and kind (`ToRESTFriendlyName` in
/// `kube-openapi/pkg/util/util.go`).
pub(super) fn custom_name(gvk: &GroupVersionKind) -> String {
    // Reversed, as Java packages are: generators make packages of these names.
    let group: Vec<&str> = gvk.group.rsplit('.').collect();
    format!("{}.{}.{}", group.join("."), gvk.version, gvk.kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_begin_with_the_reversed_group() {
        let gvk = GroupVersionKind::new(
            "authentication.open-cluster-management.io",
            "v1beta1",
            "ManagedServiceAccount",
        );
        assert_eq!(
            custom_name(&gvk),
            "io.open-cluster-management.authentication.v1beta1.ManagedServiceAccount"
        );
    }
}
