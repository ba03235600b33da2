//! The parts of the hot paths, each by itself: `cargo bench --package fleetpass-bench`.
#![allow(missing_docs)] // criterion's macros make public functions.

use criterion::{Criterion, criterion_group, criterion_main};
use fleetpass_apimachinery::json;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_apimachinery::{Query, RequestInfo};
use fleetpass_auth::authz::rbac::Index;
use fleetpass_auth::authz::{Attributes, Authorizer as _};
use fleetpass_codec::{protobuf, yaml};
use fleetpass_token::claims::{Account, Binding, Claims, Lifetimes, Request, grant};
use fleetpass_token::key::{KeyKind, SigningKey};
use fleetpass_token::ring::KeyRing;
use fleetpass_token::verify::verify;
use jiff::Timestamp;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::hint::black_box;

const ISSUER: &str = "https://kubernetes.default.svc";

fn claims() -> Claims {
    let request = Request {
        account: Account {
            namespace: "cluster-0001",
            name: "robot",
            uid: "6f5902ac-237f-4f2d-8a0f-000000000000",
        },
        binding: Binding::Account,
        audiences: vec![ISSUER.into()],
        expiration_seconds: 3600,
    };
    grant(request, ISSUER, &[], &Lifetimes::default(), Timestamp::UNIX_EPOCH, uuid::Uuid::nil()).claims
}

fn tokens(criterion: &mut Criterion) {
    for (name, kind) in [("RS256", KeyKind::Rsa2048), ("ES256", KeyKind::P256)] {
        let pem = SigningKey::generate_pem(kind).expect("a key");
        let key = SigningKey::from_pem(pem.expose_secret().as_bytes()).expect("a key");
        let ring = KeyRing::from_pem(pem.expose_secret().as_bytes(), &[] as &[&[u8]]).expect("a key");
        let claims = claims();
        criterion.bench_function(&format!("sign {name}"), |bench| {
            bench.iter(|| key.sign(black_box(&claims)).expect("a token"));
        });
        let token = key.sign(&claims).expect("a token");
        let issuers = [ISSUER.to_owned()];
        criterion.bench_function(&format!("verify {name}"), |bench| {
            bench.iter(|| {
                verify(black_box(token.expose_secret()), &issuers, &ring, Timestamp::UNIX_EPOCH)
                    .expect("good")
            });
        });
    }
}

/// A Secret as an agent writes it.
fn secret() -> Value {
    json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {"name": "robot", "namespace": "cluster1",
            "labels": {"authentication.open-cluster-management.io/is-managed-serviceaccount": "true"}},
        "data": {"ca.crt": "Yw==".repeat(380), "token": "dA==".repeat(300)}})
}

fn bodies(criterion: &mut Criterion) {
    let text = secret().to_string();
    criterion.bench_function("JSON to a tree", |bench| {
        bench.iter(|| {
            let raw = json::parse(black_box(text.as_bytes())).expect("JSON");
            raw.to_value(json::Numbers::Go).expect("not deep")
        });
    });
    criterion.bench_function("YAML to a tree", |bench| {
        let text = yaml::print(&secret());
        bench.iter(|| yaml::parse(black_box(text.as_bytes())).expect("YAML"));
    });
    let message = protobuf::encode(&secret()).expect("a kind that is known");
    criterion.bench_function("protobuf to a tree", |bench| {
        bench.iter(|| protobuf::decode_object(black_box(&message)).expect("protobuf"));
    });
    criterion.bench_function("a tree to protobuf", |bench| {
        let tree = secret();
        bench.iter(|| protobuf::encode(black_box(&tree)).expect("a kind that is known"));
    });
}

fn requests(criterion: &mut Criterion) {
    criterion.bench_function("what a request asks for", |bench| {
        bench.iter(|| {
            let query = Query::parse(black_box("timeoutSeconds=300&watch=true&resourceVersion=12345"));
            RequestInfo::parse("GET", black_box("/api/v1/namespaces/cluster1/secrets"), &query)
        });
    });
    let index = Index::new();
    for number in 0..5_000 {
        let namespace = format!("cluster-{number:04}");
        let role =
            json!({"rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "watch"]}]});
        index.apply("roles", &namespace, "agent", Some(&role));
        let binding = json!({"roleRef": {"kind": "Role", "name": "agent", "apiGroup": "rbac.authorization.k8s.io"},
            "subjects": [{"kind": "ServiceAccount", "name": "agent", "namespace": namespace}]});
        index.apply("rolebindings", &namespace, "agent", Some(&binding));
    }
    let user = UserInfo { name: "system:serviceaccount:cluster-0042:agent".into(), ..UserInfo::default() };
    let rbac = fleetpass_auth::authz::Union::masters_and_rbac(std::sync::Arc::new(index));
    criterion.bench_function("may an agent of 5,000 read its Secrets", |bench| {
        bench.iter(|| {
            let attributes =
                Attributes::resource(black_box(&user), "get", "", "secrets").in_namespace("cluster-0042");
            assert!(rbac.authorize(&attributes).allowed);
        });
    });
}

criterion_group!(parts, tokens, bodies, requests);
criterion_main!(parts);
