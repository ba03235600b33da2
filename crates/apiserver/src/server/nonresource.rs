//! Paths that are no resources: health, version, discovery, OIDC documents, metrics.

use super::context::RequestContext;
use super::reply::Reply;
use super::state::ServerState;
use crate::discovery;
use crate::server::render;
use fleetpass_api::exposition;
use fleetpass_apimachinery::status::Status;
use fleetpass_auth::authn::oidc;
use fleetpass_codec::negotiate::{self, Endpoint, MediaType, Output};
use http::Method;
use http::header::{CACHE_CONTROL, HeaderValue};
use serde_json::{Value, json};

/// Answers a request for a path that names no resource.
pub(super) fn serve(state: &ServerState, context: &RequestContext) -> Result<Reply, Status> {
    let path = context.info.path.as_str();
    // Before the check of the method: real health endpoints answer to every one.
    if let Some(answer) = state.health.answer(path, &context.query) {
        return Ok(Reply::text(answer.code, answer.text));
    }
    let trimmed = path.trim_end_matches('/');
    match trimmed {
        "/version" => {
            allow_get(context)?;
            document(context, &version())
        }
        oidc::CONFIGURATION_PATH | oidc::JWKS_PATH => {
            allow_get(context)?;
            issuer_document(state, context, trimmed)
        }
        "/metrics" => {
            allow_get(context)?;
            let text = state.metrics.text(
                &state.registry.cache().counts(),
                &[("heavy", state.pools.heavy.loads()), ("large", state.pools.large.loads())],
            );
            let (kind, text) = exposition::answer(context.accept(), text);
            Ok(Reply::new(200, kind, text))
        }
        "/api" | "/apis" => {
            allow_get(context)?;
            root(state, context, trimmed == "/api")
        }
        "" => {
            allow_get(context)?;
            document(context, &json!({"paths": paths(state)}))
        }
        _ => discovery_below(state, context, trimmed),
    }
}

fn allow_get(context: &RequestContext) -> Result<(), Status> {
    match context.method {
        Method::GET | Method::HEAD => Ok(()),
        _ => Err(Status::method_not_allowed()),
    }
}

const PLAIN: Output = Output { media: MediaType::Json, convert_to: None, pretty: false };

fn document(context: &RequestContext, value: &Value) -> Result<Reply, Status> {
    let output = output(context)?;
    Ok(Reply::new(200, output.media.as_str(), render::encode(value, output)?))
}

/// As [`document`], of one whose text is kept: what is sent in plain JSON shares its bytes.
fn kept_document(context: &RequestContext, document: &discovery::Document) -> Result<Reply, Status> {
    let output = output(context)?;
    let bytes = match output {
        Output { media: MediaType::Json, pretty: false, .. } => document.json.clone(),
        output => render::encode(&document.value, output)?,
    };
    Ok(Reply::new(200, output.media.as_str(), bytes))
}

/// The form in which the client wants a document.
fn output(context: &RequestContext) -> Result<Output, Status> {
    let endpoint = Endpoint { custom: false, table: false, watchable: false };
    negotiate::route(context.accept(), endpoint, context.method.as_str(), false)?;
    // Discovery has one form; a client that prefers a Table gets the document.
    let output = negotiate::output(context.accept(), endpoint, context.query.pairs(), context.user_agent())
        .unwrap_or(PLAIN);
    Ok(Output { convert_to: None, ..output })
}

/// The machine's architecture as Go names it.
fn go_architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The version of the Kubernetes API that is served; the build is ours.
fn version() -> Value {
    json!({"major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35",
        "gitVersion": concat!("v1.36.0+fleetpass-", env!("CARGO_PKG_VERSION")), "gitCommit": "", "gitTreeState": "",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "", "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, go_architecture())})
}

fn issuer_document(state: &ServerState, context: &RequestContext, path: &str) -> Result<Reply, Status> {
    let Some(oidc) = &state.oidc else { return Ok(Reply::no_such_path()) };
    let document = oidc.serve(path, context.accept(), &state.accounts, context.now)?;
    let mut reply = Reply::new(200, document.content_type, document.body);
    reply.headers.push((CACHE_CONTROL, HeaderValue::from_static(oidc::CACHE_CONTROL)));
    Ok(reply)
}

fn root(state: &ServerState, context: &RequestContext, core: bool) -> Result<Reply, Status> {
    let kinds = state.registry.catalog().kinds();
    if let Some((_, version)) = negotiate::aggregated_discovery(context.accept()) {
        let content_type = match version {
            "v2" => "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            _ => "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        };
        return Ok(Reply::new(200, content_type, discovery::aggregated(&kinds, core, version != "v2")));
    }
    if context
        .accept()
        // Only a version that we do not have is acceptable to the client, and it names no second choice.
        .is_some_and(|accept| accept.contains("APIGroupDiscoveryList") && !accept.contains(','))
    {
        return Err(negotiate::not_acceptable_discovery());
    }
    if core {
        return document(context, &discovery::core_versions(&state.external_address));
    }
    kept_document(context, &discovery::group_list(&kinds))
}

/// `/api/VERSION`, `/apis/GROUP`, `/apis/GROUP/VERSION`.
fn discovery_below(state: &ServerState, context: &RequestContext, path: &str) -> Result<Reply, Status> {
    let kinds = state.registry.catalog().kinds();
    let parts: Vec<&str> = path[1..].split('/').collect();
    let (found, group) = match parts.as_slice() {
        ["api", version] => (discovery::resource_list(&kinds, "", version), ""),
        ["apis", group] => (discovery::group(&kinds, group), *group),
        ["apis", group, version] => (discovery::resource_list(&kinds, group, version), *group),
        _ => return Ok(Reply::no_such_path()),
    };
    match found {
        Some(document) => {
            allow_get(context)?;
            kept_document(context, &document)
        }
        // A group that is compiled in answers for itself; all others are simply not there.
        None if kinds.is_builtin_group(group) => Err(Status::unknown_path()),
        None => Ok(Reply::no_such_path()),
    }
}

/// The paths that `/` lists.
fn paths(state: &ServerState) -> Vec<String> {
    let kinds = state.registry.catalog().kinds();
    let mut paths: Vec<String> = [
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/openid/v1/jwks",
        "/readyz",
        "/version",
        "/.well-known/openid-configuration",
    ]
    .map(String::from)
    .to_vec();
    for row in kinds.rows().filter(|row| !row.resource.group.is_empty()) {
        paths.push(format!("/apis/{}", row.resource.group));
        paths
            .extend(row.resource.versions.iter().map(|v| format!("/apis/{}/{}", row.resource.group, v.name)));
    }
    paths.sort();
    paths.dedup();
    paths
}
