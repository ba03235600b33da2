//! Requests about objects of any resource. What is already gone, or cannot be made because its namespace is going, is
//! told apart from a failure.

use crate::Error;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, PartialObjectMeta, Request};
use kube::{Api, Client, Resource};
use serde_json::Value;

/// By this name the controllers are told in `metadata.managedFields`: the one that these controllers have elsewhere.
pub(crate) const FIELD_MANAGER: &str = "kube-controller-manager";
/// How many objects are asked for at once.
const PAGE: u32 = 500;

/// The status code of an answer that is a refusal.
pub(crate) fn refusal(error: &kube::Error) -> Option<&kube::core::Status> {
    match error {
        kube::Error::Api(status) => Some(status),
        _ => None,
    }
}

/// Whether the server says that there is no such thing.
pub(crate) fn is_not_found(error: &kube::Error) -> bool {
    refusal(error).is_some_and(kube::core::Status::is_not_found)
}

/// Whether someone else was faster.
pub(crate) fn is_conflict(error: &kube::Error) -> bool {
    refusal(error).is_some_and(kube::core::Status::is_conflict)
}

/// Whether the server has no such verb here.
pub(crate) fn is_unsupported(error: &kube::Error) -> bool {
    refusal(error).is_some_and(|status| status.code == 405)
}

/// Whether nothing can be created because the namespace is going or gone (`NamespaceLifecycle` admission: 404 for a
/// namespace that is gone, 403 with this cause for one that is going).
pub(crate) fn is_namespace_going(error: &kube::Error) -> bool {
    let going = |status: &kube::core::Status| {
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.is_not_found() || causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating")
    };
    refusal(error).is_some_and(going)
}

/// The objects of one resource, in one namespace or in all.
pub(crate) fn api(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// What a write is done with.
pub(crate) fn writer() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.into()), ..PostParams::default() }
}

/// What a patch is done with.
pub(crate) fn patcher() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

/// The metadata of an object, if it exists.
pub(crate) async fn metadata(objects: &Api<DynamicObject>, name: &str) -> Result<Option<ObjectMeta>, Error> {
    Ok(objects.get_metadata_opt(name).await?.map(|object| object.metadata))
}

/// The metadata of all objects of `resource` in `namespace` (or everywhere), as far as `fields` selects them.
pub(crate) async fn list(
    client: &Client,
    resource: &ApiResource,
    namespace: Option<&str>,
    fields: Option<&str>,
) -> Result<Vec<ObjectMeta>, Error> {
    let objects = api(client, resource, namespace);
    let mut params = ListParams::default().limit(PAGE);
    params.field_selector = fields.map(String::from);
    let mut found = Vec::new();
    loop {
        let page = objects.list_metadata(&params).await?;
        found.extend(page.items.into_iter().map(|object: PartialObjectMeta<DynamicObject>| object.metadata));
        // An expired token (410) ends the whole list with an error: half a list must not look like all of it.
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            None => return Ok(found),
            token => params.continue_token = token,
        }
    }
}

/// Deletes an object. One that does not exist is no error.
pub(crate) async fn delete(
    objects: &Api<DynamicObject>,
    name: &str,
    params: &DeleteParams,
) -> Result<(), Error> {
    match objects.delete(name, params).await {
        Err(error) if !is_not_found(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Deletes all objects of `resource` in `namespace`; false if the server cannot do that at once. The answer, a list of
/// what was deleted, is not decoded.
pub(crate) async fn delete_all(
    client: &Client,
    resource: &ApiResource,
    namespace: &str,
) -> Result<bool, Error> {
    let path = DynamicObject::url_path(resource, Some(namespace));
    let request = Request::new(path).delete_collection(&DeleteParams::background(), &ListParams::default());
    // As text: the objects that were deleted may be many and large, and nobody looks at them.
    match client.request_text(request.map_err(kube::Error::BuildRequest)?).await {
        Ok(_) => Ok(true),
        Err(error) if is_unsupported(&error) || is_not_found(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Merges `patch` into an object; false if it does not exist.
pub(crate) async fn merge(objects: &Api<DynamicObject>, name: &str, patch: &Value) -> Result<bool, Error> {
    match objects.patch_metadata(name, &patcher(), &Patch::Merge(patch)).await {
        Ok(_) => Ok(true),
        Err(error) if is_not_found(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}
