use super::*;
use http_body_util::{BodyExt as _, Full};
use kube::client::Body;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use std::{convert::Infallible, sync::Mutex};

const USER: &str = "system:open-cluster-management:cluster:c1:addon:managed-serviceaccount:agent:addon-agent";
const GROUP: &str = "system:open-cluster-management:cluster:c1:addon:managed-serviceaccount";

/// A PEM request with this subject; `types` tells apart what rcgen would take for the same attribute.
fn pem(subject: &[(DnType, &str)], alter: impl FnOnce(&mut CertificateParams)) -> String {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    alter(&mut params);
    params.serialize_request(&KeyPair::generate().unwrap()).unwrap().pem().unwrap()
}

fn agent() -> Vec<(DnType, &'static str)> {
    vec![
        (DnType::CommonName, USER),
        (DnType::OrganizationName, GROUP),
        (DnType::CustomDnType(vec![2, 5, 4, 10]), fleetpass_api::names::ADDON_GROUP),
    ]
}

fn request(pem: &str) -> Value {
    json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest",
        "metadata": {"name": "r", "uid": "u", "resourceVersion": "7"},
        "spec": {
            "request": k8s_openapi::ByteString(pem.as_bytes().to_vec()), "signerName": SIGNER,
            "usages": ["client auth", "digital signature"], "username": USER, "uid": "x",
            "extra": {"k": ["v"]}, "groups": [GROUP, fleetpass_api::names::ADDON_GROUP, AUTHENTICATED],
        },
    })
}

fn judged(request: Value) -> Result<(), NotOurs> {
    is_renewal(&serde_json::from_value(request).unwrap())
}

#[test]
fn an_agent_may_ask_for_what_it_is_and_for_less() {
    assert_eq!(judged(request(&pem(&agent(), |_| ()))), Ok(()));
    assert_eq!(judged(request(&pem(&agent()[..2], |_| ()))), Ok(()), "fewer groups");
    assert_eq!(judged(request(&pem(&agent()[..1], |_| ()))), Ok(()), "no group");
    for usages in [json!(["client auth"]), json!(["key encipherment", "client auth"])] {
        let mut request = request(&pem(&agent(), |_| ()));
        request["spec"]["usages"] = usages;
        assert_eq!(judged(request), Ok(()));
    }
    let mut long = request(&pem(&agent(), |_| ()));
    long["spec"]["expirationSeconds"] = json!(i32::MAX);
    assert_eq!(judged(long), Ok(()), "the signer bounds the life");
}

/// One thing is different each time.
#[test]
fn whatever_differs_is_left_to_others() {
    type Change = fn(&mut Value);
    let spec: [(&str, Change, NotOurs); 17] = [
        ("another signer", |r| r["spec"]["signerName"] = json!("example.com/s"), NotOurs::Signer),
        (
            "kubelets' signer",
            |r| r["spec"]["signerName"] = json!("kubernetes.io/kube-apiserver-client-kubelet"),
            NotOurs::Signer,
        ),
        ("no usages", |r| r["spec"]["usages"] = json!([]), NotOurs::Usages),
        ("no client", |r| r["spec"]["usages"] = json!(["digital signature"]), NotOurs::Usages),
        ("a server", |r| r["spec"]["usages"] = json!(["client auth", "server auth"]), NotOurs::Usages),
        ("an authority", |r| r["spec"]["usages"] = json!(["client auth", "cert sign"]), NotOurs::Usages),
        ("another requester", |r| r["spec"]["username"] = json!("eve"), NotOurs::Name),
        ("nobody", |r| r["spec"]["username"] = json!(""), NotOurs::Name),
        ("no requester", |r| drop(r["spec"].as_object_mut().unwrap().remove("username")), NotOurs::Name),
        ("another case", |r| r["spec"]["username"] = json!(USER.to_uppercase()), NotOurs::Name),
        ("a group too many", |r| r["spec"]["groups"] = json!([GROUP, AUTHENTICATED]), NotOurs::Groups),
        ("no groups", |r| r["spec"]["groups"] = json!([]), NotOurs::Groups),
        (
            "approved",
            |r| r["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]}),
            NotOurs::Decided,
        ),
        (
            "denied",
            |r| r["status"] = json!({"conditions": [{"type": "Denied", "status": "True"}]}),
            NotOurs::Decided,
        ),
        (
            "failed",
            |r| r["status"] = json!({"conditions": [{"type": "Failed", "status": "True"}]}),
            NotOurs::Decided,
        ),
        ("issued", |r| r["status"] = json!({"certificate": "eA=="}), NotOurs::Decided),
        ("no request", |r| r["spec"]["request"] = json!("eA=="), NotOurs::Malformed),
    ];
    for (what, change, why) in spec {
        let mut changed = request(&pem(&agent(), |_| ()));
        change(&mut changed);
        assert_eq!(judged(changed), Err(why), "{what}");
    }
}

#[test]
fn another_subject_is_left_to_others() {
    let with = |more: &[(DnType, &'static str)]| {
        let mut subject = agent();
        subject.extend_from_slice(more);
        pem(&subject, |_| ())
    };
    let uid = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 57683, 2]);
    let second_name = DnType::CustomDnType(vec![2, 5, 4, 3]);
    let masters = [(DnType::CommonName, USER), (DnType::OrganizationName, "system:masters")];
    let authenticated = [(DnType::CommonName, USER), (DnType::OrganizationName, AUTHENTICATED)];
    for (what, pem, why) in [
        ("another name", pem(&[(DnType::CommonName, "eve")], |_| ()), NotOurs::Name),
        ("no name", pem(&agent()[1..], |_| ()), NotOurs::Name),
        ("nothing", pem(&[], |_| ()), NotOurs::Name),
        ("masters", pem(&masters, |_| ()), NotOurs::Groups),
        ("a group of the server's", pem(&authenticated, |_| ()), NotOurs::Groups),
        ("a second name", with(&[(second_name, "eve")]), NotOurs::Name),
        (
            "a second name that is the same",
            with(&[(DnType::CustomDnType(vec![2, 5, 4, 3]), USER)]),
            NotOurs::Name,
        ),
        ("a unit", with(&[(DnType::OrganizationalUnitName, "u")]), NotOurs::Name),
        ("a UID", with(&[(uid, "u")]), NotOurs::Name),
        (
            "names of a server",
            pem(&agent(), |params| {
                params.subject_alt_names =
                    vec![rcgen::SanType::DnsName("hub.example.com".try_into().unwrap())];
            }),
            NotOurs::Extensions,
        ),
        (
            "an authority",
            pem(&agent(), |params| params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign]),
            NotOurs::Extensions,
        ),
        ("two requests", [with(&[]), with(&[])].concat(), NotOurs::Malformed),
        ("a certificate", with(&[]).replace("CERTIFICATE REQUEST", "CERTIFICATE"), NotOurs::Malformed),
    ] {
        assert_eq!(judged(request(&pem)), Err(why), "{what}");
    }
}

#[test]
fn a_request_is_signed_with_its_own_key() {
    let whole = pem(&agent(), |_| ());
    let (_, parsed) = x509_parser::pem::parse_x509_pem(whole.as_bytes()).unwrap();
    let mut der = parsed.contents;
    // Within the subject: it stays readable, and the signature no longer fits.
    let at = der.windows(4).position(|window| window == b":c1:").unwrap();
    der[at + 2] = b'2';
    let forged = pem::encode(&pem::Pem::new("CERTIFICATE REQUEST", der));
    let mut request = request(&forged);
    request["spec"]["username"] = json!(USER.replace(":c1:", ":c2:"));
    request["spec"]["groups"] = json!([GROUP.replace(":c1:", ":c2:"), fleetpass_api::names::ADDON_GROUP]);
    assert_eq!(judged(request), Err(NotOurs::Malformed));
}

#[test]
fn nobody_makes_a_certificate_of_a_token() {
    for user in ["system:serviceaccount:c1:fleetpass-agent", "system:node:n"] {
        let mut request = request(&pem(&[(DnType::CommonName, user)], |_| ()));
        request["spec"]["username"] = json!(user);
        assert_eq!(judged(request), Err(NotOurs::Name), "{user}");
    }
}

/// What is written about a request when the API server says that about the right of its requester.
async fn written(request: Value, allowed: bool, code: u16) -> (Result<Next, kube::Error>, Vec<Value>) {
    let writes: Arc<Mutex<Vec<Value>>> = Arc::default();
    let log = writes.clone();
    let service = tower::service_fn(move |request: http::Request<Body>| {
        let log = log.clone();
        async move {
            let (parts, body) = request.into_parts();
            let sent: Value =
                serde_json::from_slice(&body.collect().await.unwrap().to_bytes()).unwrap_or_default();
            let (code, answer) = match (parts.method.as_str(), parts.uri.path()) {
                ("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews") => {
                    assert_eq!(
                        sent["spec"],
                        json!({
                            "user": USER, "uid": "x", "extra": {"k": ["v"]},
                            "groups": [GROUP, fleetpass_api::names::ADDON_GROUP, AUTHENTICATED],
                            "resourceAttributes": {"group": "certificates.k8s.io", "verb": "create",
                                "resource": "certificatesigningrequests", "subresource": "selfagentclient"},
                        })
                    );
                    (201, json!({"spec": sent["spec"], "status": {"allowed": allowed}}))
                }
                ("PATCH", "/apis/certificates.k8s.io/v1/certificatesigningrequests/r/approval") => {
                    log.lock().unwrap().push(sent);
                    let refusal = json!({"kind": "Status", "status": "Failure", "code": code, "message": "m",
                        "reason": "r", "metadata": {}});
                    (code, if code == 200 { super::tests::request("") } else { refusal })
                }
                (method, path) => panic!("{method} {path}"),
            };
            let answer = http::Response::builder().status(code).body(Full::from(answer.to_string())).unwrap();
            Ok::<_, Infallible>(answer)
        }
    });
    let context = Context {
        client: Client::new(service, "default"),
        clock: fleetpass_api::clock::system(),
        approved: Counter::default(),
    };
    let request = Arc::new(serde_json::from_value(request).unwrap());
    let context = Arc::new(context);
    let result = reconcile(request, context.clone()).await;
    let writes = std::mem::take(&mut *writes.lock().unwrap());
    assert_eq!(context.approved.get(), u64::from(code == 200 && !writes.is_empty()));
    (result, writes)
}

#[tokio::test]
async fn only_agents_are_approved_and_only_as_they_were_read() {
    let good = || request(&pem(&agent(), |_| ()));
    let (result, writes) = written(good(), true, 200).await;
    assert_eq!(result.unwrap(), Next::Wait);
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0]["metadata"], json!({"uid": "u", "resourceVersion": "7"}));
    let condition = &writes[0]["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["status"]), (&json!("Approved"), &json!("True")));

    let (result, writes) = written(good(), false, 200).await;
    assert!(result.is_ok() && writes.is_empty(), "no agent: neither approved nor denied");
    let mut denied = good();
    denied["spec"]["username"] = json!("eve");
    let (result, writes) = written(denied, true, 200).await;
    assert!(result.is_ok() && writes.is_empty(), "no question is asked about what is no renewal");
    for code in [404, 409] {
        assert!(written(good(), true, code).await.0.is_ok(), "{code}: somebody was faster");
    }
    assert!(written(good(), true, 403).await.0.is_err(), "tried again");
}
