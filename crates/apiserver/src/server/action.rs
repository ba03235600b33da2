//! create on kinds that are not stored: reviews, and subresources such as `token`
//! (`createHandler` in `k8s.io/apiserver/pkg/endpoints/handlers/create.go`, `rest.NamedCreater`).

use super::reply::Reply;
use super::resource_request::{ResourceRequest, write_options};
use crate::registry::track_action;
use crate::resources::namespaces;
use crate::strategy::{Action, ActionRequest, Backing, Context, Handler};
use bytes::Bytes;
use fleetpass_apimachinery::gvk::GvkRef;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::validation::prepare;
use fleetpass_apply::manager_name;
use fleetpass_codec::body;
use fleetpass_codec::negotiate;
use fleetpass_codec::options::{self, Write};
use fleetpass_schema::Schema;
use std::future::Future;
use std::sync::Arc;

/// Reads the body, lets the action answer, and sends that.
pub(super) async fn create(
    request: &ResourceRequest<'_>,
    read: impl Future<Output = Result<Bytes, Status>> + Send,
) -> Result<Reply, Status> {
    let (action, target, schema) = action_target(request)?;
    let context = request.context;
    let renderer = request.renderer()?;
    let media = negotiate::input(context.content_type(), &[])?;
    let bytes = read.await?;
    let query = options::write(context.query.pairs(), Write::Create)?;
    let format = media.format();
    let decoded = body::decode_builtin(&bytes, format, target, schema, query.field_validation)?;
    let mut object = decoded.value;
    request.warn(decoded.warnings);
    action.default(&mut object);
    context.notes.object(&object);
    let options = write_options(&query);
    let info = &context.info;
    let namespace = if request.row.resource.namespaced { info.namespace.as_str() } else { "" };
    // A real server tracks the fields of these bodies too, and clients see the managed fields in the answer.
    prepare::match_namespace(&mut object, namespace)?;
    let manager = manager_name(&options.field_manager, context.user_agent());
    track_action(target, schema, &info.subresource, &manager, context.now, &mut object);
    let registry = &request.state.registry;
    // A token may be asked for an account, or a review made about a binding, that another replica has just written.
    registry.wait_until_fresh().await?;
    // NamespaceLifecycle: no new tokens in a namespace that is being deleted. Reviews write nothing and are not stopped.
    if request.subresource.is_some() && !namespace.is_empty() {
        let gr = GroupResource { group: &request.row.resource.group, resource: &request.row.resource.plural };
        let name = meta::admission_name(&info.name, &object);
        namespaces::admit_into(&**registry, namespace, true, gr, name)?;
    }
    let ctx = Context {
        user: &context.user,
        now: context.now,
        namespace,
        name: if request.subresource.is_some() { &info.name } else { "" },
        version: target.version,
        dry_run: options.dry_run,
        lister: &**registry,
        authorizer: &*request.state.authorizer,
    };
    let (answer, warnings) =
        action.create(ActionRequest { ctx, object, options: &options, notes: &context.notes }).await?;
    let bytes = renderer.tree(&answer)?;
    Ok(Reply::new(201, renderer.accepted.media.as_str(), bytes).warned(warnings))
}

type ActionTarget<'a> = (&'a Arc<dyn Action>, GvkRef<'a>, &'a Arc<Schema>);

/// The action that the path names, and the kind of its body.
fn action_target<'a>(request: &ResourceRequest<'a>) -> Result<ActionTarget<'a>, Status> {
    if let Some(subresource) = request.subresource
        && let (Handler::Create(action), Some((group, version, kind)), Some(schema)) =
            (&subresource.handler, subresource.body, &subresource.schema)
    {
        return Ok((action, GvkRef { group, version, kind }, schema));
    }
    match &request.row.resource.backing {
        Backing::Virtual(action) if request.subresource.is_none() => {
            let resource = &request.row.resource;
            let target =
                GvkRef { group: &resource.group, version: &request.version.name, kind: &resource.kind };
            Ok((action, target, &request.version.schema))
        }
        _ => Err(Status::method_not_allowed()),
    }
}
