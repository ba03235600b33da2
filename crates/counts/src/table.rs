//! The table: which operations in which worlds.

use crate::operations::{Before, Make, MakeFrom, Operation, Work};
use crate::world::{Asks, Call, NAMESPACE, Size, configmap, crd, object_name, static_token};
use bytes::Bytes;
use fleetpass_token::key::KeyKind;
use serde_json::{Value, json};

/// Operations in one world: a process runs them one after the other.
pub(crate) struct Group {
    /// By this name the process is told what to run.
    pub(crate) name: &'static str,
    /// What there is in the world.
    pub(crate) world: &'static str,
    pub(crate) size: Size,
    pub(crate) operations: Vec<Operation>,
}

const SMALL: Size = Size { objects: 1_000, crds: 0, tokens: 1, key: KeyKind::P256 };
const LARGE: Size = Size { objects: 20_000, crds: 0, tokens: 10_000, key: KeyKind::Rsa2048 };
const SMALL_WORLD: &str = "1,000 objects";
const LARGE_WORLD: &str = "20,000 objects";

/// All groups, those that take longest first.
pub(crate) fn groups() -> Vec<Group> {
    let small = |name, operations| Group { name, world: SMALL_WORLD, size: SMALL, operations };
    let mut in_large = credentials(|number, _| get_by_last_line(number, LARGE));
    in_large.push(call("TokenRequest, RS256", 20, token_request).within(10));
    in_large.extend(writes());
    in_large.extend(pages());
    in_large.push(EVENT_TO_ONE);
    in_large.push(start(1));
    let mut in_small = credentials(|number, _| get_by_last_line(number, SMALL));
    in_small.push(call("TokenRequest, ES256", 50, token_request).within(10));
    in_small.extend(reviews());
    in_small.extend(writes());
    in_small.extend(other_writes());
    let crds = |name, world, crds| Group {
        name,
        world,
        size: Size { objects: 0, crds, ..SMALL },
        operations: vec![create_crd(), start(3)],
    };
    vec![
        Group { name: "large", world: LARGE_WORLD, size: LARGE, operations: in_large },
        crds("crds", "100 CRDs", 99),
        small("requests", in_small),
        small("reads", pages().into_iter().chain(documents()).collect()),
        small("events", events()),
        crds("crd", "1 CRD", 0),
    ]
}

impl Operation {
    fn within(self, tolerance: u32) -> Self {
        Self { tolerance, ..self }
    }
}

const fn operation(name: &'static str, repetitions: usize, work: Work) -> Operation {
    Operation { name, repetitions, tolerance: 5, work }
}

const fn call(name: &'static str, repetitions: usize, make: MakeFrom) -> Operation {
    operation(name, repetitions, Work::Call(Before::Nothing, make))
}

fn configmaps() -> String {
    format!("/api/v1/namespaces/{NAMESPACE}/configmaps")
}

/// One of the first of those that a world begins with, so that each is met again.
fn one_of(number: usize) -> String {
    format!("{}/{}", configmaps(), object_name(number % 10))
}

fn token_request(_: usize, _: &Bytes) -> Call {
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest",
        "spec": {"audiences": ["https://kubernetes.default.svc"], "expirationSeconds": 3600}});
    Call::post(format!("/api/v1/namespaces/{NAMESPACE}/serviceaccounts/robot/token"), &request)
}

/// The token in the answer to a TokenRequest.
fn token_in(answer: &Bytes) -> String {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    answer["status"]["token"].as_str().unwrap_or_default().to_owned()
}

fn first_token(number: usize) -> Call {
    token_request(number, &Bytes::new())
}

fn get_by_token(number: usize, answer: &Bytes) -> Call {
    Call::get(one_of(number)).asked_by(Asks::Bearer(token_in(answer).into()))
}

fn review(_: usize, answer: &Bytes) -> Call {
    let review = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
        "spec": {"token": token_in(answer)}});
    Call::post("/apis/authentication.k8s.io/v1/tokenreviews", &review)
}

/// A get by the token in the last line of a token file: a search from its beginning would take the longest.
fn get_by_last_line(number: usize, size: Size) -> Call {
    Call::get(one_of(number)).asked_by(Asks::Bearer(static_token(size.tokens - 1)))
}

/// A get, by each kind of credential.
fn credentials(by_static_token: MakeFrom) -> Vec<Operation> {
    let by_account = Work::Call(Before::Once(first_token), get_by_token);
    let by_new = Work::Call(Before::Each(|number| vec![first_token(number)]), get_by_token);
    vec![
        call("get, authenticated before", 200, |number, _| Call::get(one_of(number))),
        call("get, by a token of the token file", 200, by_static_token),
        operation("get, by a service account's token", 200, by_account),
        operation("get, by a service account's token that is new", 20, by_new).within(10),
    ]
}

fn reviews() -> Vec<Operation> {
    let new = Work::Call(Before::Each(|number| vec![first_token(number)]), review);
    vec![
        operation("TokenReview", 100, Work::Call(Before::Once(first_token), review)),
        operation("TokenReview of a new token", 20, new).within(10),
        call("SubjectAccessReview", 100, |_, _| {
            let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview",
                "spec": {"user": "someone", "groups": ["readers"], "resourceAttributes":
                    {"namespace": NAMESPACE, "verb": "get", "resource": "configmaps"}}});
            Call::post("/apis/authorization.k8s.io/v1/subjectaccessreviews", &review)
        }),
    ]
}

/// A change of an object that a world begins with, by a patch.
fn patch(number: usize, kind: &'static str, patch: &Value) -> Call {
    let query = if kind.contains("apply") { "?fieldManager=counts&force=true" } else { "" };
    Call::patch(format!("{}{query}", one_of(number)), kind, patch)
}

fn created(number: usize) -> Vec<Call> {
    vec![Call::post(configmaps(), &configmap(&format!("deleted-{number}")))]
}

fn writes() -> Vec<Operation> {
    let delete = Work::Call(Before::Each(created), |number, _| {
        Call::delete(format!("{}/deleted-{number}", configmaps()))
    });
    vec![
        call("create", 50, |number, _| Call::post(configmaps(), &configmap(&format!("created-{number}")))),
        call("update", 50, |number, _| {
            let mut object = configmap(&object_name(number % 10));
            object["data"]["colour"] = format!("update-{number}").into();
            Call::put(one_of(number), &object)
        }),
        call("merge patch", 50, |number, _| {
            let colour = json!({"data": {"colour": format!("merge-{number}")}});
            patch(number, "application/merge-patch+json", &colour)
        }),
        operation("delete", 50, delete),
    ]
}

/// Writes that are the same in all worlds, or are about other kinds.
fn other_writes() -> Vec<Operation> {
    let leases = Work::Call(Before::Once(|_| Call::post(leases(), &lease(0))), |number, _| {
        let kind = "application/merge-patch+json";
        Call::patch(format!("{}/renewed", leases()), kind, &lease(number + 1))
    });
    let collection = Work::Call(
        Before::Each(|number| {
            let mut object = configmap("");
            object["metadata"]["labels"]["batch"] = format!("b{number}").into();
            let names = (0..100).map(|index| format!("batch-{number}-{index}"));
            let create = |name: String| {
                object["metadata"]["name"] = name.into();
                Call::post(configmaps(), &object)
            };
            names.map(create).collect()
        }),
        |number, _| Call::delete(format!("{}?labelSelector=batch%3Db{number}", configmaps())),
    );
    let status = Work::Call(
        Before::Once(|_| Call::post(managed(), &managed_account("reported"))),
        |number, _| {
            let status = json!({"status": {"expirationTimestamp": "2027-01-15T08:00:00Z",
                "tokenSecretRef": {"name": format!("reported-{number}"), "lastRefreshTimestamp": "2027-01-15T08:00:00Z"},
                "conditions": [{"type": "TokenReported", "status": "True", "reason": "TokenReported",
                    "message": "reported", "lastTransitionTime": "2027-01-15T08:00:00Z"}]}});
            let kind = "application/merge-patch+json";
            Call::patch(format!("{}/reported/status", managed()), kind, &status)
        },
    );
    vec![
        call("JSON patch", 50, |number, _| {
            let operations =
                json!([{"op": "replace", "path": "/data/colour", "value": format!("json-{number}")}]);
            patch(number, "application/json-patch+json", &operations)
        }),
        call("strategic merge patch", 50, |number, _| {
            let colour = json!({"data": {"colour": format!("strategic-{number}")}});
            patch(number, "application/strategic-merge-patch+json", &colour)
        }),
        call("apply", 50, |number, _| {
            let mut object = configmap(&object_name(number % 10));
            object["data"]["colour"] = format!("apply-{number}").into();
            patch(number, "application/apply-patch+yaml", &object)
        }),
        call("create, 100 KB", 10, |number, _| {
            let mut object = configmap(&format!("big-{number}"));
            for index in 0..100 {
                object["data"][format!("key-{index}")] = "x".repeat(1_000).into();
            }
            Call::post(configmaps(), &object)
        }),
        operation("deletecollection of 100", 6, collection),
        operation("merge patch of a Lease", 50, leases),
        call("create of a ManagedServiceAccount", 50, |number, _| {
            Call::post(managed(), &managed_account(&format!("account-{number}")))
        }),
        operation("merge patch of the status of one", 50, status),
    ]
}

fn leases() -> String {
    format!("/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases")
}

fn lease(number: usize) -> Value {
    json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "renewed"},
        "spec": {"holderIdentity": "agent", "leaseDurationSeconds": 60,
            "renewTime": format!("2027-01-15T08:00:00.{number:06}Z")}})
}

fn managed() -> String {
    format!(
        "/apis/authentication.open-cluster-management.io/v1beta1/namespaces/{NAMESPACE}/managedserviceaccounts"
    )
}

fn managed_account(name: &str) -> Value {
    json!({"apiVersion": "authentication.open-cluster-management.io/v1beta1", "kind": "ManagedServiceAccount",
        "metadata": {"name": name}, "spec": {"rotation": {}}})
}

const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

fn page() -> Call {
    Call::get(format!("{}?limit=500", configmaps()))
}

/// Lists, in each encoding.
fn pages() -> Vec<Operation> {
    vec![
        call("page of 500, JSON", 40, |_, _| page()),
        // Little but memory that is taken and given back, which costs more or less as the heap happens to lie.
        call("page of 500, metadata", 40, |_, _| page().accepting(METADATA_LIST)).within(10),
        call("page of 500, Table", 3, |_, _| page().accepting(TABLE)),
        call("page of 500, protobuf", 3, |_, _| page().accepting(PROTOBUF)),
        call("page of 500, YAML", 2, |_, _| page().accepting("application/yaml")),
        call("list of all, JSON", 20, |_, _| Call::get(configmaps())),
        call("list of one, by metadata.name", 200, |number, _| {
            let name = object_name(number % 10);
            Call::get(format!("{}?fieldSelector=metadata.name%3D{name}", configmaps()))
        }),
    ]
}

/// What clients read when they begin.
fn documents() -> Vec<Operation> {
    vec![
        call("discovery, aggregated", 50, |_, _| {
            let form =
                "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
            Call::get("/apis").accepting(form)
        }),
        call("/openapi/v2, unchanged", 20, |_, _| Call::get("/openapi/v2")),
        call("/livez", 100, |_, _| Call::get("/livez").accepting("*/*")),
    ]
}

fn watch(resource_version: &str) -> Call {
    Call::get(format!("{}?watch=true&resourceVersion={resource_version}", configmaps()))
}

fn change(number: usize) -> Call {
    let colour = json!({"data": {"colour": format!("event-{number}")}});
    patch(number, "application/merge-patch+json", &colour)
}

const fn event(name: &'static str, watchers: usize, watch: fn(&str) -> Call) -> Operation {
    let change: Make = change;
    operation(name, 20, Work::Event { watchers, watch, change })
}

const EVENT_TO_ONE: Operation = event("merge patch, event to 1 watcher, JSON", 1, watch);

/// A change and its event, in each encoding.
fn events() -> Vec<Operation> {
    vec![
        EVENT_TO_ONE,
        event("merge patch, event to 1 watcher, metadata", 1, |version| watch(version).accepting(METADATA)),
        event("merge patch, event to 1 watcher, Table", 1, |version| watch(version).accepting(TABLE)),
        event("merge patch, event to 1 watcher, protobuf", 1, |version| {
            watch(version).accepting(PROTOBUF_STREAM)
        }),
        event("merge patch, events to 100 watchers, JSON", 100, watch),
        event("merge patch, events to 100 watchers, metadata", 100, |version| {
            watch(version).accepting(METADATA)
        }),
        event("merge patch, events to 100 watchers, Table", 100, |version| watch(version).accepting(TABLE)),
        event("merge patch, events to 100 watchers, protobuf", 100, |version| {
            watch(version).accepting(PROTOBUF_STREAM)
        }),
    ]
}

const PROTOBUF_STREAM: &str = "application/vnd.kubernetes.protobuf;stream=watch";

/// The creation of a CRD, until its kind is served.
fn create_crd() -> Operation {
    let create: Make =
        |number| Call::post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &crd(1_000 + number));
    let served: Make = |number| {
        let number = 1_000 + number;
        Call::get(format!("/apis/group{number}.example.com/v1/namespaces/{NAMESPACE}/widgets{number}"))
    };
    operation("create of a CRD, until its kind is served", 3, Work::CallUntil(create, served))
}

fn start(repetitions: usize) -> Operation {
    operation("start", repetitions, Work::Start)
}
