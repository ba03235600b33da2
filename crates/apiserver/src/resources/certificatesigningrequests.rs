//! CertificateSigningRequests: the requester is recorded, the spec never changes, approval and certificate each
//! have a subresource and a permission of their own (`pkg/registry/certificates`,
//! `pkg/apis/certificates/validation/validation.go`, `plugin/pkg/admission/certificates`).

mod fields;
mod pkcs10;
mod validation;

use self::fields::{bytes, conditions};
use super::printers;
use super::stored::{self, SUBRESOURCE_VERBS, StoredKind};
use crate::strategy::{Column, Context, Handler, Resource, Strategy, Subresource};
use fleetpass_apimachinery::field::ErrorList;
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{GroupResource, Status};
use fleetpass_apimachinery::time;
use fleetpass_apimachinery::validation::{metadata, names};
use fleetpass_auth::authz::Attributes;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;

const GROUP: &str = "certificates.k8s.io";
const RESOURCE: GroupResource<'static> =
    GroupResource { group: GROUP, resource: "certificatesigningrequests" };
/// The signer of certificates for clients of the API server.
const CLIENT_SIGNER: &str = "kubernetes.io/kube-apiserver-client";

/// The row of CertificateSigningRequests.
pub(crate) fn resource() -> Resource {
    let column = |name, description| Column::new(name, "string", "", description, 0);
    let kind = StoredKind {
        group: GROUP,
        version: "v1",
        kind: "CertificateSigningRequest",
        plural: "certificatesigningrequests",
        definition: "io.k8s.api.certificates.v1.CertificateSigningRequest",
        namespaced: false,
        short_names: &["csr"],
        selectable_fields: &["spec.signerName"],
        columns: vec![
            Column::name(),
            Column::age(),
            column("SignerName", "Who is to sign."),
            column("Requestor", "Who asks."),
            column("RequestedDuration", "For how long, if the requester said so."),
            column("Condition", "Pending, or what was decided and done."),
        ],
    };
    let mut resource = stored::resource(kind, Arc::new(Requests(Part::Main)));
    let part = |name, part| Subresource {
        name,
        body: None,
        schema: None,
        verbs: SUBRESOURCE_VERBS,
        handler: Handler::Update(Arc::new(Requests(part))),
        versions: None,
    };
    resource.subresources = vec![part("approval", Part::Approval), part("status", Part::Status)];
    resource
}

/// Which part of a request is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Main,
    Approval,
    Status,
}

struct Requests(Part);

impl Strategy for Requests {
    fn tracks_fields(&self) -> bool {
        false
    }

    fn prepare_for_create(&self, ctx: &Context<'_>, object: &mut Value) {
        let object = meta::as_map_mut(object);
        object.insert("status".into(), json!({}));
        let spec = meta::child_mut(object, "spec");
        // Whatever the client wrote about itself is replaced: approvers and signers decide by these fields.
        let user = ctx.user.to_json();
        for name in ["username", "uid", "groups", "extra"] {
            match user.get(name) {
                Some(value) => spec.insert(name.into(), value.clone()),
                None => spec.remove(name),
            };
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        validation::validate(object, None)
    }

    fn prepare_for_update(&self, ctx: &Context<'_>, new: &mut Value, old: &Value) {
        // The spec is what was approved; it never changes, through whatever endpoint.
        meta::keep(new, old, "spec");
        match self.0 {
            Part::Main => meta::keep(new, old, "status"),
            Part::Approval => {
                // Of the status, only the conditions are taken from the request.
                complete_conditions(new, old, ctx.now);
                let conditions = meta::at(new, &["status", "conditions"]).cloned();
                meta::keep(new, old, "status");
                let status = meta::child_mut(meta::as_map_mut(new), "status");
                match conditions {
                    Some(conditions) => status.insert("conditions".into(), conditions),
                    None => status.remove("conditions"),
                };
            }
            Part::Status => {
                // Signers write whole statuses, often read a while ago: their copies of the decisions are put
                // right, not refused.
                keep_decisions(new, old);
                complete_conditions(new, old, ctx.now);
            }
        }
    }

    fn validate_update(&self, _ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        // The name is not looked at again, as in `ValidateCertificateSigningRequestUpdate`.
        let mut errors = metadata::validate(new, false, &|_, _| Vec::new());
        errors.append(validation::validate(new, Some(old)));
        errors.append(validation::validate_decisions(new, old, self.0 == Part::Approval));
        errors.extend(validation::validate_certificate_kept(new, old, self.0 == Part::Status));
        errors.append(metadata::validate_update(new, old));
        errors
    }

    fn admit_final(&self, ctx: &Context<'_>, object: &Value, old: Option<&Value>) -> Result<(), Status> {
        let name = meta::admission_name(ctx.name, object);
        // From the old object: the permission that is asked about must not depend on what is being written.
        let signer = meta::text(old.unwrap_or(object), &["spec", "signerName"]);
        let may = |verb: &str| may_use_signer(ctx, verb, signer);
        let refuse = |verb: &str| {
            let why = format!("user not permitted to {verb} requests with signerName \"{signer}\"");
            Err(Status::forbidden(RESOURCE, name, why))
        };
        match self.0 {
            // `system:masters` passes every check, so a certificate that says so could never be taken back
            // (`plugin/pkg/admission/certificates/subjectrestriction`).
            Part::Main if signer == CLIENT_SIGNER => {
                let request = pkcs10::parse(&bytes(object, &["spec", "request"])).map_err(|why| {
                    Status::forbidden(RESOURCE, name, format!("failed to parse CSR: {why}"))
                })?;
                if request.organizations.iter().any(|group| group == "system:masters") {
                    let why =
                        format!("use of {CLIENT_SIGNER} signer with system:masters group is not allowed");
                    return Err(Status::forbidden(RESOURCE, name, why));
                }
                Ok(())
            }
            Part::Approval if !may("approve") => refuse("approve"),
            Part::Status => {
                // Only a change of what signers write asks for the permission to sign.
                let same = |member| {
                    let path = ["status", member];
                    meta::same(meta::at(object, &path), old.and_then(|old| meta::at(old, &path)))
                };
                if same("certificate") && same("conditions") || may("sign") { Ok(()) } else { refuse("sign") }
            }
            _ => Ok(()),
        }
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::is_path_segment(name, prefix)
    }

    fn selectable_field(&self, object: &Value, label: &str) -> String {
        match label {
            "spec.signerName" => meta::text(object, &["spec", "signerName"]).into(),
            _ => String::new(),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let text = |name| meta::text(object, &["spec", name]);
        let signer = if text("signerName").is_empty() { "<none>" } else { text("signerName") };
        let requested = meta::at(object, &["spec", "expirationSeconds"]).and_then(Value::as_i64);
        let requested = requested
            .map_or("<none>".into(), |seconds| printers::human_duration(SignedDuration::from_secs(seconds)));
        vec![
            printers::name(object),
            printers::age(object, now),
            signer.into(),
            text("username").into(),
            requested.into(),
            condition(object).into(),
        ]
    }
}

/// Whether the user may `approve` or `sign` for this signer, by its name or for its whole domain
/// (`pkg/certauthorization`).
fn may_use_signer(ctx: &Context<'_>, verb: &str, signer: &str) -> bool {
    let domain = signer.split('/').next().unwrap_or_default();
    // Two questions, because RBAC compares resource names as they are and knows no patterns.
    [signer.to_string(), format!("{domain}/*")].iter().any(|name| {
        let attributes = Attributes {
            user: Cow::Borrowed(ctx.user),
            verb,
            resource_request: true,
            group: GROUP,
            version: "*",
            resource: "signers",
            subresource: "",
            namespace: "",
            name,
            path: "",
        };
        ctx.authorizer.authorize(&attributes).allowed
    })
}

fn conditions_mut(object: &mut Value) -> impl Iterator<Item = &mut Value> {
    object
        .get_mut("status")
        .and_then(|status| status.get_mut("conditions"))
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
}

/// `/status` does not decide: if there are as many `Approved` (or `Denied`) conditions as before, they are those from before. A
/// different number is left for validation to refuse.
fn keep_decisions(new: &mut Value, old: &Value) {
    for kind in ["Approved", "Denied"] {
        let before = conditions(old, kind);
        if conditions(new, kind).len() != before.len() {
            continue;
        }
        let after = conditions_mut(new).filter(|condition| meta::text(condition, &["type"]) == kind);
        for (after, before) in after.zip(before) {
            *after = before.clone();
        }
    }
}

/// Sets the times of conditions that lack them: the update is now, the transition was when the condition of this
/// type got this status.
fn complete_conditions(new: &mut Value, old: &Value, now: Timestamp) {
    let now = Value::from(time::rfc3339(now));
    let key = |c: &Value| (meta::text(c, &["type"]).to_string(), meta::text(c, &["status"]).to_string());
    let mut transitions = BTreeMap::new();
    for condition in meta::list(old, &["status", "conditions"]) {
        if let Some(time) = condition.get("lastTransitionTime").filter(|time| time.is_string()) {
            transitions.entry(key(condition)).or_insert(time);
        }
    }
    for condition in conditions_mut(new) {
        let transition = transitions.get(&key(condition)).map(|time| (*time).clone());
        let members = meta::as_map_mut(condition);
        for (name, time) in [
            ("lastUpdateTime", now.clone()),
            ("lastTransitionTime", transition.unwrap_or_else(|| now.clone())),
        ] {
            let slot = members.entry(name).or_insert(Value::Null);
            if slot.is_null() {
                *slot = time;
            }
        }
    }
}

/// What was decided and done (`extractCSRStatus`).
fn condition(object: &Value) -> String {
    let has = |kind| !conditions(object, kind).is_empty();
    let mut text = if has("Denied") {
        "Denied"
    } else if has("Approved") {
        "Approved"
    } else {
        "Pending"
    }
    .to_string();
    if has("Failed") {
        text.push_str(",Failed");
    }
    if !meta::text(object, &["status", "certificate"]).is_empty() {
        text.push_str(",Issued");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Allowed, World, texts};
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    use fleetpass_apimachinery::user::UserInfo;

    /// A request for a certificate, as the field `spec.request` holds it.
    fn request(organization: Option<&str>) -> String {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, "robot");
        if let Some(organization) = organization {
            params.distinguished_name.push(rcgen::DnType::OrganizationName, organization);
        }
        let key = rcgen::KeyPair::generate().expect("a key");
        STANDARD.encode(params.serialize_request(&key).expect("a request").pem().expect("PEM"))
    }

    fn certificate() -> String {
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate");
        STANDARD.encode(certificate.pem())
    }

    fn object(signer: &str, organization: Option<&str>) -> Value {
        json!({"metadata": {"name": "r", "resourceVersion": "1"}, "spec": {"request": request(organization),
            "signerName": signer, "usages": ["client auth", "digital signature"], "username": "liar"}})
    }

    #[test]
    fn the_requester_is_recorded_and_nothing_is_decided_beforehand() {
        let user =
            UserInfo { name: "admin".into(), groups: vec!["system:masters".into()], ..UserInfo::default() };
        let world = World { user, ..World::default() };
        let mut new = object("example.com/x", None);
        new["spec"]["extra"] = json!({"a": ["b"]});
        new["status"] = json!({"conditions": [{"type": "Approved", "status": "True"}]});
        let requests = Requests(Part::Main);
        requests.prepare_for_create(&world.ctx("", ""), &mut new);
        assert_eq!(new["spec"]["username"], "admin");
        assert_eq!(new["spec"]["groups"], json!(["system:masters"]));
        assert_eq!(new["spec"].get("extra"), None);
        assert_eq!(new["status"], json!({}));
        assert!(requests.validate(&world.ctx("", ""), &new).is_empty());
    }

    #[test]
    fn clients_may_not_ask_to_be_masters() {
        let world = World::default();
        let admit = |signer, organization| {
            Requests(Part::Main).admit_final(&world.ctx("", ""), &object(signer, organization), None)
        };
        assert_eq!(admit(CLIENT_SIGNER, Some("devs")), Ok(()));
        assert_eq!(admit("example.com/x", Some("system:masters")), Ok(()));
        assert_eq!(
            admit(CLIENT_SIGNER, Some("system:masters")).unwrap_err().message,
            "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: use of kubernetes.io/kube-apiserver-client signer with system:masters group is not allowed"
        );
    }

    #[test]
    fn approving_and_signing_need_permission_for_the_signer() {
        let old = object("example.com/x", None);
        let mut new = old.clone();
        new["status"] = json!({"certificate": certificate()});
        for (part, allowed, verb) in [
            (Part::Approval, vec![], Some("approve")),
            (Part::Approval, vec!["approve signers example.com/x"], None),
            (Part::Approval, vec!["approve signers example.com/*"], None),
            (Part::Status, vec!["approve signers example.com/*"], Some("sign")),
            (Part::Status, vec!["sign signers example.com/*"], None),
        ] {
            let world = World { allowed: Allowed(allowed), ..World::default() };
            let refusal = Requests(part).admit_final(&world.ctx("", "r"), &new, Some(&old)).err();
            let wanted = verb.map(|verb| {
                format!(
                    "certificatesigningrequests.certificates.k8s.io \"r\" is forbidden: user not permitted to {verb} requests with signerName \"example.com/x\""
                )
            });
            assert_eq!(refusal.map(|status| status.message), wanted);
        }
        let world = World::default();
        assert_eq!(Requests(Part::Status).admit_final(&world.ctx("", "r"), &old, Some(&old)), Ok(()));
    }

    #[test]
    fn each_part_writes_its_own() {
        let world = World::default();
        let ctx = world.ctx("", "r");
        let old = object("example.com/x", None);
        let mut sent = old.clone();
        sent["spec"]["usages"] = json!(["any"]);
        sent["status"] =
            json!({"certificate": certificate(), "conditions": [{"type": "Approved", "status": "True"}]});
        let times =
            json!({"lastUpdateTime": "2026-01-02T03:04:05Z", "lastTransitionTime": "2026-01-02T03:04:05Z"});
        for (part, condition, certificate, errors) in [
            (Part::Main, false, false, vec![]),
            (Part::Approval, true, false, vec![]),
            (
                Part::Status,
                true,
                true,
                vec!["status.conditions: Forbidden: updates may not add a condition of type \"Approved\""],
            ),
        ] {
            let requests = Requests(part);
            let mut new = sent.clone();
            requests.prepare_for_update(&ctx, &mut new, &old);
            assert_eq!(new["spec"], old["spec"]);
            assert_eq!(meta::at(&new, &["status", "certificate"]).is_some(), certificate);
            assert_eq!(conditions(&new, "Approved").len(), usize::from(condition));
            if condition {
                assert_eq!(new["status"]["conditions"][0]["lastUpdateTime"], times["lastUpdateTime"]);
                assert_eq!(new["status"]["conditions"][0]["lastTransitionTime"], times["lastTransitionTime"]);
            }
            assert_eq!(texts(&requests.validate_update(&ctx, &new, &old)), errors);
        }
    }

    #[test]
    fn decisions_and_certificates_stay() {
        let world = World::default();
        let ctx = world.ctx("", "r");
        let mut old = object("example.com/x", None);
        old["status"] = json!({"certificate": certificate(), "conditions": [{"type": "Denied", "status": "True",
            "reason": "No", "lastTransitionTime": "2020-01-01T00:00:00Z", "lastUpdateTime": "2020-01-01T00:00:00Z"}]});
        let errors = |part, status: Value| {
            let requests = Requests(part);
            let mut new = old.clone();
            new["status"] = status;
            requests.prepare_for_update(&ctx, &mut new, &old);
            texts(&requests.validate_update(&ctx, &new, &old))
        };
        assert_eq!(
            errors(Part::Approval, json!({"conditions": []})),
            ["status.conditions: Forbidden: updates may not remove a condition of type \"Denied\""]
        );
        assert_eq!(
            errors(
                Part::Status,
                json!({"certificate": STANDARD.encode("garbage"),
                "conditions": [{"type": "Denied", "status": "True", "reason": "Yes"}]})
            ),
            [
                "status.certificate: Invalid value: \"<certificate data>\": must contain at least one CERTIFICATE PEM block",
                "status.certificate: Forbidden: updates may not modify existing certificate content",
            ]
        );
        let mut kept =
            json!({"status": {"conditions": [{"type": "Denied", "status": "True", "reason": "Yes"}]}});
        keep_decisions(&mut kept, &old);
        assert_eq!(kept["status"]["conditions"], old["status"]["conditions"]);
    }

    #[test]
    fn cells_say_what_was_decided() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let mut new = object("example.com/x", None);
        new["spec"]["expirationSeconds"] = 600.into();
        new["status"] =
            json!({"certificate": "AA==", "conditions": [{"type": "Approved"}, {"type": "Failed"}]});
        assert_eq!(
            Value::from(Requests(Part::Main).cells(&new, now)),
            json!(["r", "<unknown>", "example.com/x", "liar", "10m", "Approved,Failed,Issued"])
        );
    }
}
