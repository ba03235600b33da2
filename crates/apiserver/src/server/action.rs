//! create on kinds that are not stored: reviews, and subresources such as `token`.

use super::handler::Reply;
use super::resource::{Call, write_options};
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
    call: &Call<'_>,
    read: impl Future<Output = Result<Bytes, Status>> + Send,
) -> Result<Reply, Status> {
    let (action, target, schema) = parts(call)?;
    let asked = call.asked;
    let form = call.form()?;
    let media = negotiate::input(asked.content_type(), &[])?;
    let bytes = read.await?;
    let query = options::write(asked.query.pairs(), Write::Create)?;
    let format = media.format();
    let decoded = body::decode_builtin(&bytes, format, target, schema, query.field_validation)?;
    let mut object = decoded.value;
    call.warn(decoded.warnings);
    action.default(&mut object);
    asked.notes.object(&object);
    let options = write_options(&query);
    let info = &asked.info;
    let namespace = if call.row.resource.namespaced { info.namespace.as_str() } else { "" };
    prepare::match_namespace(&mut object, namespace)?;
    let manager = manager_name(&options.field_manager, asked.user_agent());
    track_action(target, schema, &info.subresource, &manager, asked.now, &mut object);
    let registry = &call.inner.registry;
    registry.fresh().await?;
    if call.subresource.is_some() && !namespace.is_empty() {
        let gr = GroupResource { group: &call.row.resource.group, resource: &call.row.resource.plural };
        let name = meta::admission_name(&info.name, &object);
        namespaces::admit_into(&**registry, namespace, true, gr, name)?;
    }
    let ctx = Context {
        user: &asked.user,
        now: asked.now,
        namespace,
        name: if call.subresource.is_some() { &info.name } else { "" },
        version: target.version,
        dry_run: options.dry_run,
        lister: &**registry,
        authorizer: &*call.inner.authorizer,
    };
    let (answer, warnings) =
        action.create(ActionRequest { ctx, object, options: &options, notes: &asked.notes }).await?;
    let bytes = form.tree(&answer)?;
    Ok(Reply::new(201, form.accepted.media.as_str(), bytes).warned(warnings))
}

type Parts<'a> = (&'a Arc<dyn Action>, GvkRef<'a>, &'a Arc<Schema>);

/// The action that the path names, and the kind of its body.
fn parts<'a>(call: &Call<'a>) -> Result<Parts<'a>, Status> {
    if let Some(subresource) = call.subresource
        && let (Handler::Create(action), Some((group, version, kind)), Some(schema)) =
            (&subresource.handler, subresource.body, &subresource.schema)
    {
        return Ok((action, GvkRef { group, version, kind }, schema));
    }
    match &call.row.resource.backing {
        Backing::Virtual(action) if call.subresource.is_none() => {
            let resource = &call.row.resource;
            let target = GvkRef { group: &resource.group, version: &call.version.name, kind: &resource.kind };
            Ok((action, target, &call.version.schema))
        }
        _ => Err(Status::method_not_allowed()),
    }
}
