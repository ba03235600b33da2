//! What a certificate signing request may say (`pkg/apis/certificates/validation/validation.go`). What an older
//! server has accepted is tolerated on updates (ratcheting).

use super::fields::{bytes, conditions};
use super::pkcs10;
use fleetpass_apimachinery::field::{Error, ErrorList, Path, go_quote};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::names;
use serde_json::Value;
use std::collections::BTreeSet;

const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];
const LEGACY_SIGNER: &str = "kubernetes.io/legacy-unknown";
/// The shortest lifetime that may be asked for.
const MIN_SECONDS: i64 = 600;

/// The errors of the spec and the status; `old` is there on updates.
pub(super) fn validate(object: &Value, old: Option<&Value>) -> ErrorList {
    let spec = Path::new("spec");
    let mut errors = ErrorList::new();
    let wrong = match pkcs10::parse(&bytes(object, &["spec", "request"])) {
        Ok(request) => request.bad_signature.map(str::to_string),
        Err(why) => Some(why),
    };
    if let Some(why) = wrong {
        let request = meta::at(object, &["spec", "request"]).cloned().unwrap_or_default();
        errors.push(Error::invalid(&spec.child("request"), request, why));
    }
    validate_usages(object, old, &spec.child("usages"), &mut errors);
    let signer = meta::text(object, &["spec", "signerName"]);
    let legacy_before = old.is_some_and(|old| meta::text(old, &["spec", "signerName"]) == LEGACY_SIGNER);
    let field = spec.child("signerName");
    if signer == LEGACY_SIGNER && !legacy_before {
        errors.push(Error::invalid(
            &field,
            signer,
            "the legacy signerName is not allowed via this API version",
        ));
    } else {
        validate_signer_name(signer, &field, &mut errors);
    }
    if let Some(seconds) = meta::at(object, &["spec", "expirationSeconds"]).and_then(Value::as_i64)
        && seconds < MIN_SECONDS
    {
        let detail = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(Error::invalid(&spec.child("expirationSeconds"), seconds, detail));
    }
    validate_conditions(object, old, &mut errors);
    let certificate = |object| bytes(object, &["status", "certificate"]);
    // A certificate that did not change, or that replaces a bad one, is not judged: neither is made worse.
    let tolerated = old.is_some_and(|old| {
        certificate(object) == certificate(old) || pkcs10::check_certificates(&certificate(old)).is_err()
    });
    if !tolerated && let Err(why) = pkcs10::check_certificates(&certificate(object)) {
        errors.push(Error::invalid(&Path::new("status.certificate"), "<certificate data>", why));
    }
    errors
}

/// The errors of conditions that were taken away, or that only `/approval` may set.
pub(super) fn validate_decisions(new: &Value, old: &Value, may_decide: bool) -> ErrorList {
    let field = Path::new("status.conditions");
    let mut errors = ErrorList::new();
    // Decisions stay: who was denied could otherwise be approved as if nothing had happened.
    for kind in ["Approved", "Denied", "Failed"] {
        if conditions(new, kind).len() < conditions(old, kind).len() {
            let detail = format!("updates may not remove a condition of type {}", go_quote(kind));
            errors.push(Error::forbidden(&field, detail));
        }
    }
    for kind in ["Approved", "Denied"].into_iter().filter(|_| !may_decide) {
        let (new, old) = (conditions(new, kind), conditions(old, kind));
        let what = if new.len() > old.len() {
            "add"
        } else if new.len() == old.len() && new != old {
            "modify"
        } else {
            continue;
        };
        let detail = format!("updates may not {what} a condition of type {}", go_quote(kind));
        errors.push(Error::forbidden(&field, detail));
    }
    errors
}

/// The error of a certificate that changed: only `/status` may set one, and only once.
pub(super) fn validate_certificate_kept(new: &Value, old: &Value, may_set: bool) -> Option<Error> {
    let certificate = |object| bytes(object, &["status", "certificate"]);
    if certificate(new) == certificate(old) || (may_set && certificate(old).is_empty()) {
        return None;
    }
    let detail = if may_set {
        "updates may not modify existing certificate content"
    } else {
        "updates may not set certificate content"
    };
    Some(Error::forbidden(&Path::new("status.certificate"), detail))
}

fn validate_usages(object: &Value, old: Option<&Value>, field: &Path, errors: &mut ErrorList) {
    let unknown = |usage: &str| !USAGES.contains(&usage);
    if usages(object).is_empty() {
        errors.push(Error::required(field, ""));
    }
    if !old.is_some_and(|old| usages(old).into_iter().any(unknown)) {
        for (index, usage) in usages(object).into_iter().enumerate().filter(|(_, usage)| unknown(usage)) {
            errors.push(Error::not_supported(&field.index(index), usage, &USAGES));
        }
    }
    if old.is_none_or(|old| repeated(&usages(old)).is_empty()) {
        let all = usages(object);
        for index in repeated(&all) {
            errors.push(Error::duplicate(&field.index(index), all[index]));
        }
    }
}

fn usages(object: &Value) -> Vec<&str> {
    meta::list(object, &["spec", "usages"]).iter().filter_map(Value::as_str).collect()
}

/// The places of texts that have occurred before.
fn repeated(texts: &[&str]) -> Vec<usize> {
    let mut seen = BTreeSet::new();
    (0..texts.len()).filter(|i| !seen.insert(texts[*i])).collect()
}

/// `domain/path`, the domain of two labels or more (`ValidateSignerName` in
/// `pkg/apis/core/validation/validation.go`).
fn validate_signer_name(name: &str, field: &Path, errors: &mut ErrorList) {
    const MAX_DOMAIN: usize = 253;
    // A domain, and a path as long as the longest name and namespace together.
    const MAX: usize = MAX_DOMAIN + 1 + 253 + 1 + 63;
    if name.is_empty() {
        errors.push(Error::required(field, ""));
        return;
    }
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        let detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        errors.push(Error::invalid(field, name, detail));
        return;
    };
    if domain.len() > MAX_DOMAIN {
        errors.push(Error::too_long(field, MAX_DOMAIN));
    }
    type Rule = fn(&str, bool) -> Vec<String>;
    let check = |part: &str, rule: Rule, errors: &mut ErrorList| {
        // Only the first bad label is reported.
        let bad =
            part.split('.').map(|label| (label, rule(label, false))).find(|(_, wrong)| !wrong.is_empty());
        for (label, message) in
            bad.into_iter().flat_map(|(label, wrong)| wrong.into_iter().map(move |m| (label, m)))
        {
            let detail = format!("validating label {}: {message}", go_quote(label));
            errors.push(Error::invalid(field, part, detail));
        }
    };
    check(domain, names::is_dns1123_label, errors);
    if !domain.contains('.') {
        let detail = "should be a domain with at least two segments separated by dots";
        errors.push(Error::invalid(field, domain, detail));
    }
    check(path, names::is_dns1123_subdomain, errors);
    if name.len() > MAX {
        errors.push(Error::too_long(field, MAX));
    }
}

fn validate_conditions(object: &Value, old: Option<&Value>, errors: &mut ErrorList) {
    let path = Path::new("status.conditions");
    let types = |object| -> Vec<&str> {
        meta::list(object, &["status", "conditions"]).iter().map(|c| meta::text(c, &["type"])).collect()
    };
    let before = old.map(types).unwrap_or_default();
    // Each rule is waived if the old object broke it already; otherwise such a request could never be finished.
    let empty_before = before.contains(&"");
    let both_before = before.contains(&"Approved") && before.contains(&"Denied");
    let repeated_before = !repeated(&before).is_empty();
    let now = types(object);
    let mut earlier = BTreeSet::new();
    for (index, condition) in meta::list(object, &["status", "conditions"]).iter().enumerate() {
        let kind = now[index];
        if kind.is_empty() && !empty_before {
            errors.push(Error::required(&path.index(index).child("type"), ""));
        }
        let decision = matches!(kind, "Approved" | "Denied" | "Failed");
        let allowed: &[&str] = if decision { &["True"] } else { &["False", "True", "Unknown"] };
        let status = meta::text(condition, &["status"]);
        let field = path.index(index).child("status");
        if status.is_empty() {
            errors.push(Error::required(&field, ""));
        } else if !allowed.contains(&status) {
            errors.push(Error::not_supported(&field, status, allowed));
        }
        let opposite = match kind {
            "Approved" => "Denied",
            "Denied" => "Approved",
            // No condition has this type.
            _ => "\0",
        };
        if earlier.contains(opposite) && !both_before {
            errors.push(Error::invalid(&path, kind, "Approved and Denied conditions are mutually exclusive"));
        }
        if !earlier.insert(kind) && !repeated_before {
            errors.push(Error::duplicate(&path.index(index).child("type"), kind));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn errors_after_the_request(object: &Value, old: Option<&Value>) -> Vec<String> {
        let errors = validate(object, old);
        assert_eq!(
            errors[0].to_string(),
            "spec.request: Invalid value: null: PEM block type must be CERTIFICATE REQUEST"
        );
        errors[1..].iter().map(ToString::to_string).collect()
    }

    #[test]
    fn signer_names_and_durations() {
        let form = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
        let cases: [(&str, i64, &[String]); 6] = [
            ("example.com/ok.path-1", 600, &[]),
            ("", 600, &["spec.signerName: Required value".into()]),
            ("plain", 600, &[format!("spec.signerName: Invalid value: \"plain\": {form}")]),
            ("example.com/a/b", 600, &[format!("spec.signerName: Invalid value: \"example.com/a/b\": {form}")]),
            (
                "nodots/x",
                599,
                &[
                    "spec.signerName: Invalid value: \"nodots\": should be a domain with at least two segments separated by dots".into(),
                    "spec.expirationSeconds: Invalid value: 599: may not specify a duration less than 600 seconds (10 minutes)".into(),
                ],
            ),
            (
                LEGACY_SIGNER,
                600,
                &["spec.signerName: Invalid value: \"kubernetes.io/legacy-unknown\": the legacy signerName is not allowed via this API version".into()],
            ),
        ];
        for (signer, seconds, wanted) in cases {
            let object =
                json!({"spec": {"signerName": signer, "usages": ["any"], "expirationSeconds": seconds}});
            assert_eq!(errors_after_the_request(&object, None), wanted);
        }
        let mut errors = ErrorList::new();
        validate_signer_name("Upper.example.com/A_b", &Path::new("f"), &mut errors);
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        assert!(
            texts[0]
                .starts_with("f: Invalid value: \"Upper.example.com\": validating label \"Upper\": a lower")
        );
        assert!(
            texts[1]
                .starts_with("f: Invalid value: \"A_b\": validating label \"A_b\": a lowercase RFC 1123 sub")
        );
    }

    #[test]
    fn usages_and_conditions() {
        let object = json!({"spec": {"signerName": "example.com/x", "usages": ["any", "fly", "any"]},
            "status": {"conditions": [{"status": "Maybe"}, {"type": "Approved", "status": "False"},
                {"type": "Denied", "status": "True"}, {"type": "Denied", "status": "True"}]}});
        let found = errors_after_the_request(&object, None);
        let starts = [
            "spec.usages[1]: Unsupported value: \"fly\": supported values: \"any\", \"cert sign\", ",
            "spec.usages[2]: Duplicate value: \"any\"",
            "status.conditions[0].type: Required value",
            "status.conditions[0].status: Unsupported value: \"Maybe\": supported values: \"False\", \"True\", \"Unknown\"",
            "status.conditions[1].status: Unsupported value: \"False\": supported values: \"True\"",
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            "status.conditions: Invalid value: \"Denied\": Approved and Denied conditions are mutually exclusive",
            "status.conditions[3].type: Duplicate value: \"Denied\"",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        assert!(found.iter().zip(starts).all(|(f, s)| f.starts_with(s)), "{found:#?}");
        // What was let in before stays.
        assert_eq!(errors_after_the_request(&object, Some(&object)), [found[3].clone(), found[4].clone()]);
    }
}
