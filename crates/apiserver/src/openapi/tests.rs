//! What a client relies on, checked over all documents of a table with built-in and custom kinds.

use super::*;
use crate::catalog::{Catalog, Row};
use crate::resources;
use crate::strategy::{Action, ActionRequest, Resource};
use async_trait::async_trait;
use fleetpass_schema::openapi::builtin;
use serde_json::Value;
use std::collections::BTreeSet;

struct NoAction;

#[async_trait]
impl Action for NoAction {
    async fn create(&self, _request: ActionRequest<'_>) -> Result<(Value, Vec<String>), Status> {
        Err(Status::method_not_allowed())
    }
}

fn builtin_rows() -> Vec<Resource> {
    use resources::*;
    vec![
        certificatesigningrequests::resource(),
        clusterrolebindings::resource(),
        clusterroles::resource(),
        configmaps::resource(),
        events::resource(),
        events::events_group_resource(),
        leases::resource(),
        localsubjectaccessreviews::resource(),
        namespaces::resource(),
        nodes::resource(),
        pods::resource(),
        rolebindings::resource(),
        roles::resource(),
        secrets::resource(),
        self_subject_review::resource(builtin("io.k8s.api.authentication.v1.SelfSubjectReview")),
        selfsubjectaccessreviews::resource(),
        selfsubjectrulesreviews::resource(),
        serviceaccounts::resource(Arc::new(NoAction)),
        subjectaccessreviews::resource(),
    ]
}

fn widgets() -> Resource {
    let schema = json!({"openAPIV3Schema": {"type": "object", "description": "A widget.", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer", "description": "How many."},
            "template": {"type": "object", "x-kubernetes-embedded-resource": true,
                "x-kubernetes-preserve-unknown-fields": true}}}}}});
    let version = |name: &str, storage: bool| {
        json!({"name": name, "served": true, "storage": storage, "schema": schema, "subresources": {
            "status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}}})
    };
    let names =
        json!({"plural": "widgets", "singular": "widget", "kind": "Widget", "listKind": "WidgetList"});
    let definition = json!({
        "spec": {"group": "things.example.com", "scope": "Namespaced", "names": names,
            "versions": [version("v1", true), version("v1alpha1", false)]},
        "status": {"acceptedNames": names, "conditions": [{"type": "Established", "status": "True"}]}});
    resources::customresources::row(&definition).expect("a row").expect("established")
}

fn catalog() -> Catalog {
    let catalog = Catalog::new(builtin_rows());
    catalog.put_custom(&Arc::new(Row::new(widgets())));
    catalog
}

fn get(path: &str, kinds: &Kinds, cache: &Cache) -> Response<Bytes> {
    serve(&Request { path, ..Request::default() }, kinds, cache).unwrap_or_else(|e| panic!("{path}: {e}"))
}

fn body(response: &Response<Bytes>) -> Value {
    serde_json::from_slice(response.body()).expect("JSON")
}

/// All OpenAPI 3.0 documents by name.
fn documents(kinds: &Kinds, cache: &Cache) -> Vec<(String, Value)> {
    let index = body(&get(V3, kinds, cache));
    let names: Vec<String> = index["paths"].as_object().expect("paths").keys().cloned().collect();
    names.into_iter().map(|n| (n.clone(), body(&get(&format!("{V3}/{n}"), kinds, cache)))).collect()
}

fn references<'v>(value: &'v Value, found: &mut BTreeSet<&'v str>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                match member.as_str() {
                    Some(target) if key == "$ref" => {
                        found.insert(target);
                    }
                    _ => references(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn the_index_names_every_group_and_version() {
    let (catalog, cache) = (catalog(), Cache::default());
    let kinds = catalog.kinds();
    let index = body(&get(V3, &kinds, &cache));
    let names: Vec<&str> = index["paths"].as_object().expect("paths").keys().map(String::as_str).collect();
    for name in [
        "api",
        "api/v1",
        "apis",
        "apis/rbac.authorization.k8s.io",
        "apis/rbac.authorization.k8s.io/v1",
        "apis/things.example.com/v1",
        "apis/things.example.com/v1alpha1",
        "version",
        "openid/v1/jwks",
        ".well-known/openid-configuration",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    assert!(
        !names.contains(&"apis/things.example.com"),
        "groups of custom kinds have no document of their own"
    );
    for (name, entry) in index["paths"].as_object().expect("paths") {
        let url = entry["serverRelativeURL"].as_str().expect("a URL");
        let hash = url.strip_prefix(&format!("{V3}/{name}?hash=")).expect("a hash");
        let response = get(&format!("{V3}/{name}"), &kinds, &cache);
        assert_eq!(response.headers()[header::ETAG], format!("\"{hash}\""));
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, response.body());
        let hex: String = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
        assert_eq!(hex, hash, "{name}");
    }
}

#[test]
fn every_reference_resolves_and_every_definition_is_used() {
    let (catalog, cache) = (catalog(), Cache::default());
    for (name, document) in documents(&catalog.kinds(), &cache) {
        let mut found = BTreeSet::new();
        references(&document, &mut found);
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        let defined: BTreeSet<String> = schemas.keys().map(|n| format!("{}{n}", names::COMPONENTS)).collect();
        assert_eq!(found, defined.iter().map(String::as_str).collect(), "{name}");
    }
}

#[test]
fn every_served_resource_has_its_operations() {
    let (catalog, cache) = (catalog(), Cache::default());
    let kinds = catalog.kinds();
    let mut ids = BTreeSet::new();
    for (name, document) in documents(&kinds, &cache) {
        for item in document["paths"].as_object().expect("paths").values() {
            for operation in item.as_object().expect("operations").values().filter(|o| o.is_object()) {
                let id = operation["operationId"].as_str().expect("an identifier").to_string();
                assert!(ids.insert(id.clone()), "{name}: {id} is there twice");
            }
        }
    }
    for row in kinds.rows() {
        let resource = &row.resource;
        for version in &resource.versions {
            let root = routes::root(&resource.group, &version.name);
            let document = body(&get(&format!("{V3}{root}"), &kinds, &cache));
            let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
            let collection = format!("{root}{scope}/{}", resource.plural);
            let item = format!("{collection}/{{name}}");
            let gvk = json!({"group": resource.group, "version": version.name, "kind": resource.kind});
            for verb in &resource.verbs {
                let (path, method) = match verb.as_str() {
                    "list" => (&collection, "get"),
                    "create" => (&collection, "post"),
                    "deletecollection" => (&collection, "delete"),
                    "update" => (&item, "put"),
                    "watch" => continue,
                    same => (&item, same),
                };
                let operation = &document["paths"][path][method];
                assert_eq!(operation["x-kubernetes-group-version-kind"], gvk, "{verb} {path}");
            }
            for sub in resource.subresources.iter().filter(|s| s.is_in(&version.name)) {
                let path = format!("{item}/{}", sub.name);
                let methods = document["paths"][&path]
                    .as_object()
                    .map_or(0, |p| p.values().filter(|o| o.is_object()).count());
                assert_eq!(methods, sub.verbs.len(), "{path}");
            }
        }
    }
}

/// kubectl leaves validation to the server if `fieldValidation` is a parameter of the operation `patch` itself
/// (`QueryParamVerifierV3` in `k8s.io/cli-runtime/pkg/resource/query_param_verifier_v3.go`).
#[test]
fn patches_take_field_validation() {
    let (catalog, cache) = (catalog(), Cache::default());
    let mut count = 0;
    for (name, document) in documents(&catalog.kinds(), &cache) {
        for (path, item) in document["paths"].as_object().expect("paths") {
            let Some(patch) = item.get("patch") else { continue };
            let parameters = patch["parameters"].as_array().expect("parameters");
            assert!(parameters.iter().any(|p| p["name"] == "fieldValidation"), "{name} {path}");
            count += 1;
        }
    }
    assert!(count > 20, "{count}");
}

#[test]
fn custom_kinds_are_described_by_their_schemas() {
    let (catalog, cache) = (catalog(), Cache::default());
    let document = body(&get("/openapi/v3/apis/things.example.com/v1", &catalog.kinds(), &cache));
    let widget = &document["components"]["schemas"]["com.example.things.v1.Widget"];
    assert_eq!(widget["description"], "A widget.");
    assert_eq!(widget["properties"]["spec"]["properties"]["replicas"]["description"], "How many.");
    let metadata = &widget["properties"]["metadata"]["allOf"][0]["$ref"];
    assert_eq!(metadata, "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta");
    let scale = &document["paths"]["/apis/things.example.com/v1/namespaces/{namespace}/widgets/{name}/scale"];
    assert_eq!(scale["get"]["x-kubernetes-group-version-kind"]["kind"], "Scale");
    assert_eq!(scale["get"]["operationId"], "readThingsExampleComV1NamespacedWidgetScale");
}

#[test]
fn documents_are_kept_until_their_kinds_change() {
    let (catalog, cache) = (catalog(), Cache::default());
    let kept = |name: &str| {
        let kinds = catalog.kinds();
        let page = Page::find(&kinds, name).expect(name);
        v3_document(name, &page, &kinds, &cache).expect(name)
    };
    let (core, custom) = (kept("api/v1"), kept("apis/things.example.com/v1"));
    assert!(Arc::ptr_eq(&custom, &kept("apis/things.example.com/v1")));
    catalog.put_custom(&Arc::new(Row::new(widgets())));
    assert!(Arc::ptr_eq(&core, &kept("api/v1")), "built-in kinds are the same");
    let again = kept("apis/things.example.com/v1");
    assert!(!Arc::ptr_eq(&custom, &again));
    assert_eq!(custom.hash, again.hash, "the same kinds make the same document");
    catalog.remove_custom("things.example.com", "widgets");
    let index = body(&get(V3, &catalog.kinds(), &cache));
    assert!(index["paths"].get("apis/things.example.com/v1").is_none());
    assert!(!format!("{cache:?}").contains("things"), "{cache:?}");
}

#[test]
fn a_change_of_one_group_rebuilds_the_document_of_no_other() {
    let (catalog, cache) = (catalog(), Cache::default());
    let other = |group: &str| {
        let resource = Resource { group: group.into(), ..widgets() };
        Arc::new(Row::new(resource))
    };
    for index in 0..5 {
        catalog.put_custom(&other(&format!("g{index}.example.com")));
    }
    let all = |catalog: &Catalog| -> Vec<(String, Arc<Document>)> {
        let kinds = catalog.kinds();
        let pages = Page::all(&kinds);
        pages.iter().map(|(n, p)| (n.clone(), v3_document(n, p, &kinds, &cache).expect("built"))).collect()
    };
    let before = all(&catalog);
    catalog.put_custom(&other("g3.example.com"));
    let changed: Vec<String> = all(&catalog)
        .into_iter()
        .zip(before)
        .filter(|((_, now), (_, before))| !Arc::ptr_eq(now, before))
        .map(|((name, _), _)| name)
        .collect();
    assert_eq!(changed, ["apis/g3.example.com/v1", "apis/g3.example.com/v1alpha1"]);
}

#[test]
fn documents_of_groups_that_are_gone_are_forgotten_without_the_index() {
    let (catalog, cache) = (catalog(), Cache::default());
    for index in 0..3 * MANY_DOCUMENTS {
        let group = format!("g{index}.example.com");
        catalog.put_custom(&Arc::new(Row::new(Resource { group: group.clone(), ..widgets() })));
        get(&format!("{V3}/apis/{group}/v1"), &catalog.kinds(), &cache);
        catalog.remove_custom(&group, "widgets");
    }
    assert!(cache.len() <= MANY_DOCUMENTS + 1, "{}", cache.len());
}

#[test]
fn those_who_read_a_document_at_the_same_time_share_its_bytes() {
    let (catalog, cache) = (catalog(), Cache::default());
    let kinds = catalog.kinds();
    let (first, second) = (get(V2, &kinds, &cache), get(V2, &kinds, &cache));
    assert_eq!(first.body().as_ptr(), second.body().as_ptr());
    let gzip = Request { path: V2, gzip: true, ..Request::default() };
    let compressed = || serve(&gzip, &kinds, &cache).expect("a document").into_body();
    assert_eq!(compressed().as_ptr(), compressed().as_ptr());
}

#[test]
fn clients_can_keep_documents() {
    let (catalog, cache) = (catalog(), Cache::default());
    let kinds = catalog.kinds();
    let plain = Request { path: "/openapi/v3/api/v1", ..Request::default() };
    let status = |request: Request<'_>| match serve(&request, &kinds, &cache) {
        Ok(response) => response.status().as_u16(),
        Err(status) => status.code,
    };
    let first = serve(&plain, &kinds, &cache).expect("a document");
    let etag = first.headers()[header::ETAG].to_str().expect("text").to_string();
    let hash = etag.trim_matches('"');
    assert!(!first.headers().contains_key(header::CACHE_CONTROL));
    for (request, want) in [
        (plain, 200),
        (Request { if_none_match: Some(&etag), ..plain }, 304),
        (Request { if_none_match: Some(&format!("\"other\", W/{etag}")), ..plain }, 304),
        (Request { if_none_match: Some("\"other\""), ..plain }, 200),
        (Request { hash: Some(hash), ..plain }, 200),
        (Request { hash: Some("OLD"), ..plain }, 301),
        (Request { accept: Some("application/json;q=0.8"), ..plain }, 200),
        (
            Request { accept: Some("application/com.github.proto-openapi.spec.v3.v1.0+protobuf"), ..plain },
            406,
        ),
        (Request { path: "/openapi/v3/", ..plain }, 200),
        (Request { path: "/openapi/v3/apis/nowhere/v1", ..plain }, 404),
        (Request { path: "/openapi/v3/apis/things.example.com", ..plain }, 404),
        (Request { path: "/openapi/v3/apis//v1", ..plain }, 404),
        (Request { path: "/openapi/v33", ..plain }, 404),
    ] {
        assert_eq!(status(request), want, "{request:?}");
    }
    let immutable = serve(&Request { hash: Some(hash), ..plain }, &kinds, &cache).expect("a document");
    assert_eq!(immutable.headers()[header::CACHE_CONTROL], "public, immutable, max-age=31536000");
    let moved = serve(&Request { hash: Some("OLD"), ..plain }, &kinds, &cache).expect("a redirect");
    assert_eq!(moved.headers()[header::LOCATION], format!("/openapi/v3/api/v1?hash={hash}"));
    let zipped = serve(&Request { gzip: true, ..plain }, &kinds, &cache).expect("a document");
    assert_eq!(zipped.headers()[header::CONTENT_ENCODING], "gzip");
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(zipped.body().as_ref()), &mut text)
        .expect("gzip");
    assert_eq!(text, first.body().as_ref());
}

#[test]
fn swagger_holds_everything_that_the_other_documents_hold() {
    let (catalog, cache) = (catalog(), Cache::default());
    let kinds = catalog.kinds();
    let swagger = body(&get(V2, &kinds, &cache));
    let mut found = BTreeSet::new();
    references(&swagger, &mut found);
    let (mut defined, mut paths) = (BTreeSet::new(), 0);
    for (name, document) in documents(&kinds, &cache) {
        for path in document["paths"].as_object().expect("paths").keys() {
            assert!(swagger["paths"][path].is_object(), "{name}: {path}");
            paths += 1;
        }
        let schemas = document["components"]["schemas"].as_object().expect("schemas");
        defined.extend(schemas.keys().map(|n| format!("#/definitions/{n}")));
    }
    assert_eq!(swagger["paths"].as_object().map(Map::len), Some(paths));
    assert_eq!(swagger["definitions"].as_object().map(Map::len), Some(defined.len()));
    assert_eq!(found, defined.iter().map(String::as_str).collect());
    assert!(!swagger.to_string().contains("oneOf\":["), "no junctors");
}

#[test]
fn swagger_comes_in_the_form_that_is_asked_for() {
    let (catalog, cache) = (catalog(), Cache::default());
    let kinds = catalog.kinds();
    let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let protobuf = Media::Protobuf.as_str();
    for (accept, want) in [
        (None, Media::Json.as_str()),
        (Some("application/json"), Media::Json.as_str()),
        (Some(old), protobuf),
        (Some(protobuf), protobuf),
        (
            Some("application/json;q=0.5, application/com.github.proto-openapi.spec.v2.v1.0+protobuf"),
            protobuf,
        ),
        (Some("text/html, */*;q=0.8"), Media::Json.as_str()),
    ] {
        let request = Request { path: V2, accept, ..Request::default() };
        let response = serve(&request, &kinds, &cache).expect("a document");
        assert_eq!(response.headers()[header::CONTENT_TYPE], want, "{accept:?}");
    }
    let request = Request { path: V2, accept: Some("text/html"), ..Request::default() };
    assert_eq!(serve(&request, &kinds, &cache).map_err(|s| s.code).err(), Some(406));
}
