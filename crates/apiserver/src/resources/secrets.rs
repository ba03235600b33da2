//! Secrets: `stringData` becomes `data`, the type decides which keys must be there and never changes
//! (`pkg/registry/core/secret`, `ValidateSecret` in `pkg/apis/core/validation/validation.go`). Values never reach
//! an error.

use super::configmaps::{MAX_SIZE, count_keys, decoded_len, validate_key, validate_still_immutable};
use super::stored::{self, StoredKind};
use super::{pem, printers};
use crate::strategy::{Column, Context, Resource, Strategy};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::json::{self, Raw};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::{metadata, names};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

const SERVICE_ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// The row of Secrets.
pub(crate) fn resource() -> Resource {
    let kind = StoredKind {
        group: "",
        version: "v1",
        kind: "Secret",
        plural: "secrets",
        definition: "io.k8s.api.core.v1.Secret",
        namespaced: true,
        short_names: &[],
        selectable_fields: &["type"],
        columns: vec![
            Column::name(),
            Column::new("Type", "string", "", "What it is for, such as kubernetes.io/tls.", 0),
            Column::new("Data", "string", "", "How many keys it has.", 0),
            Column::age(),
        ],
    };
    stored::resource(kind, Arc::new(Secrets))
}

struct Secrets;

impl Strategy for Secrets {
    fn default(&self, object: &mut Value) {
        let object = meta::as_map_mut(object);
        if object.get("type").and_then(Value::as_str).is_none_or(str::is_empty) {
            object.insert("type".into(), "Opaque".into());
        }
        // `stringData` is write-only: it wins over `data` and is not kept (`Convert_v1_Secret_To_core_Secret` in
        // `pkg/apis/core/v1/conversion.go`). Done before validation and before a patch, which see `data` alone.
        if let Some(Value::Object(strings)) = object.remove("stringData")
            && !strings.is_empty()
        {
            let data = meta::child_mut(object, "data");
            for (key, value) in strings {
                data.insert(key, STANDARD.encode(value.as_str().unwrap_or_default()).into());
            }
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        // Values count, keys do not.
        let mut size = 0;
        for (key, value) in meta::map(object, &["data"]).into_iter().flatten() {
            validate_key("data", key, &mut errors);
            size += decoded_len(value);
        }
        if size > MAX_SIZE {
            errors.push(Error::too_long(&Path::new("data"), MAX_SIZE));
        }
        validate_keys_of_type(object, &mut errors);
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate_update(new, old);
        // Who mounts a Secret relies on its type and so on its keys; another type is another Secret.
        errors.extend(metadata::validate_immutable(new.get("type"), old.get("type"), &Path::new("type")));
        errors.append(validate_still_immutable(new, old, &["data"]));
        errors.append(metadata::validate(new, true, &names::is_dns1123_subdomain));
        errors.append(self.validate(ctx, new));
        errors
    }

    fn warnings(&self, _ctx: &Context<'_>, object: &Value, _old: Option<&Value>) -> Vec<String> {
        if meta::text(object, &["type"]) != "kubernetes.io/tls" {
            return Vec::new();
        }
        // A warning and no error, as in kube-apiserver: nothing here uses the pair, and it may be completed later.
        // Whether the key belongs to the certificate is not checked.
        let pem = |key| value(object, key).unwrap_or_default();
        tls_warning(&pem("tls.crt"), &pem("tls.key")).into_iter().collect()
    }

    fn selectable_field(&self, object: &Value, label: &str) -> String {
        if label == "type" { meta::text(object, &["type"]).into() } else { String::new() }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let kind = meta::text(object, &["type"]).into();
        vec![printers::name(object), kind, count_keys(object, "data").into(), printers::age(object, now)]
    }
}

/// The decoded value of a key, if it is there.
fn value(object: &Value, key: &str) -> Option<Vec<u8>> {
    STANDARD.decode(meta::at(object, &["data", key])?.as_str()?).ok()
}

/// The errors of keys that the Secret's type asks for.
fn validate_keys_of_type(object: &Value, errors: &mut ErrorList) {
    let has = |key: &str| meta::at(object, &["data", key]).is_some();
    let field = |key: &str| Path::new("data").key(key);
    match meta::text(object, &["type"]) {
        "kubernetes.io/service-account-token"
            if meta::annotation(object, SERVICE_ACCOUNT_NAME).is_none_or(str::is_empty) =>
        {
            let field = Path::new("metadata.annotations").key(SERVICE_ACCOUNT_NAME);
            errors.push(Error::required(&field, ""));
        }
        "kubernetes.io/dockercfg" => validate_json_key(object, ".dockercfg", errors),
        "kubernetes.io/dockerconfigjson" => validate_json_key(object, ".dockerconfigjson", errors),
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            errors.push(Error::required(&field("username"), ""));
            errors.push(Error::required(&field("password"), ""));
        }
        // Go asks here whether the value is empty, and for TLS whether the key is there: an empty `tls.crt` is let
        // in.
        "kubernetes.io/ssh-auth" if meta::text(object, &["data", "ssh-privatekey"]).is_empty() => {
            errors.push(Error::required(&field("ssh-privatekey"), ""));
        }
        "kubernetes.io/tls" => {
            for key in ["tls.crt", "tls.key"].into_iter().filter(|key| !has(key)) {
                errors.push(Error::required(&field(key), ""));
            }
        }
        // Types are an open set: what is not known has no rules.
        _ => {}
    }
}

/// The key must hold a JSON object.
fn validate_json_key(object: &Value, key: &str, errors: &mut ErrorList) {
    let field = Path::new("data").key(key);
    let Some(bytes) = value(object, key) else {
        errors.push(Error::required(&field, ""));
        return;
    };
    if let Some(why) = not_a_json_object(&bytes) {
        // Errors are logged and shown by tools, so the value is not in this one.
        errors.push(Error::invalid(&field, "<secret contents redacted>", why));
    }
}

/// Why Go's `json.Unmarshal` would not read `bytes` into a map. Says at most a character or an escape sequence of them.
fn not_a_json_object(bytes: &[u8]) -> Option<String> {
    match json::parse(bytes) {
        Ok(Raw::Object(_) | Raw::Null) => None,
        Ok(other) => {
            let kind = other.type_name();
            Some(format!("json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"))
        }
        Err(why) => Some(why.to_string()),
    }
}

/// What Go's `tls.X509KeyPair` says of PEM blocks that are missing or swapped.
fn tls_warning(certificate: &[u8], key: &[u8]) -> Option<String> {
    let certificates = pem_types(certificate);
    if !certificates.iter().any(|t| t == "CERTIFICATE") {
        return Some(match certificates.as_slice() {
            [] => "tls: failed to find any PEM data in certificate input".into(),
            [one] if one.ends_with("PRIVATE KEY") => "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM inputs may have been switched".into(),
            types => format!("tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the following types: [{}]", types.join(" ")),
        });
    }
    let keys = pem_types(key);
    if keys.iter().any(|t| t == "PRIVATE KEY" || t.ends_with(" PRIVATE KEY")) {
        return None;
    }
    Some(match keys.as_slice() {
        [] => "tls: failed to find any PEM data in key input".into(),
        [one] if one == "CERTIFICATE" => {
            "tls: found a certificate rather than a key in the PEM for the private key".into()
        }
        types => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM blocks of the following types: [{}]",
            types.join(" ")
        ),
    })
}

/// The types of the PEM blocks in `bytes`.
fn pem_types(bytes: &[u8]) -> Vec<String> {
    pem::blocks(bytes).into_iter().map(|block| block.kind).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;
    use serde_json::json;

    #[test]
    fn strings_become_data() {
        for (given, wanted) in [
            (json!({}), json!({"type": "Opaque"})),
            (
                json!({"stringData": {"k": "new", "l": "läng\n"}, "data": {"k": "b2xk", "keep": "a2VwdA=="}}),
                json!({"data": {"k": "bmV3", "keep": "a2VwdA==", "l": "bMOkbmcK"}, "type": "Opaque"}),
            ),
            (json!({"stringData": {}, "type": "e.com/x"}), json!({"type": "e.com/x"})),
        ] {
            let mut object = given;
            Strategy::default(&Secrets, &mut object);
            assert_eq!(object, wanted);
        }
    }

    #[test]
    fn the_type_says_which_keys_must_be_there() {
        let world = World::default();
        let ctx = world.ctx("ns", "");
        let json_of = |text: &str| STANDARD.encode(text);
        let cases: [(Value, &[&str]); 13] = [
            (
                json!({"type": "Opaque", "data": {"a b": ""}}),
                &["data[a b]: Invalid value: \"a b\": a valid config key"],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token"}),
                &["metadata.annotations[kubernetes.io/service-account.name]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/service-account-token",
                    "metadata": {"annotations": {SERVICE_ACCOUNT_NAME: "robot"}}}),
                &[],
            ),
            (json!({"type": "kubernetes.io/dockercfg"}), &["data[.dockercfg]: Required value"]),
            (
                json!({"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": ""}}),
                &[
                    "data[.dockerconfigjson]: Invalid value: \"<secret contents redacted>\": unexpected end of JSON input",
                ],
            ),
            (
                json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": json_of("x")}}),
                &[
                    "data[.dockercfg]: Invalid value: \"<secret contents redacted>\": invalid character 'x' looking for beginning of value",
                ],
            ),
            (
                json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": json_of("[]")}}),
                &[
                    "data[.dockercfg]: Invalid value: \"<secret contents redacted>\": json: cannot unmarshal array into Go value of type map[string]interface {}",
                ],
            ),
            (
                json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": json_of("nonsense")}}),
                &[
                    "data[.dockercfg]: Invalid value: \"<secret contents redacted>\": invalid character 'o' in literal null (expecting 'u')",
                ],
            ),
            (json!({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": json_of("{}")}}), &[]),
            (
                json!({"type": "kubernetes.io/basic-auth"}),
                &["data[username]: Required value", "data[password]: Required value"],
            ),
            (json!({"type": "kubernetes.io/basic-auth", "data": {"password": ""}}), &[]),
            (
                json!({"type": "kubernetes.io/ssh-auth", "data": {"ssh-privatekey": ""}}),
                &["data[ssh-privatekey]: Required value"],
            ),
            (
                json!({"type": "kubernetes.io/tls", "data": {"tls.crt": ""}}),
                &["data[tls.key]: Required value"],
            ),
        ];
        for (object, wanted) in cases {
            let found = texts(&Secrets.validate(&ctx, &object));
            assert_eq!(found.len(), wanted.len(), "{object}: {found:?}");
            assert!(found.iter().zip(wanted).all(|(f, w)| f.starts_with(w)), "{found:?}");
        }
    }

    #[test]
    fn the_type_does_not_change() {
        let world = World::default();
        let meta = json!({"name": "a", "namespace": "ns", "resourceVersion": "1"});
        let old = json!({"metadata": meta, "type": "e.com/x"});
        let new = json!({"metadata": meta, "type": "Opaque"});
        assert_eq!(
            texts(&Secrets.validate_update(&world.ctx("ns", "a"), &new, &old)),
            ["type: Invalid value: \"Opaque\": field is immutable"]
        );
    }

    #[test]
    fn tls_secrets_without_pem_are_warned_about() {
        let certificate = b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";
        let key = b"-----BEGIN EC PRIVATE KEY-----\nAA==\n-----END EC PRIVATE KEY-----\n";
        assert_eq!(tls_warning(certificate, key), None);
        for (certificate, key, wanted) in [
            (&b"x"[..], &key[..], "tls: failed to find any PEM data in certificate input"),
            (key, key, "tls: failed to find certificate PEM data in certificate input, but did"),
            (certificate, b"", "tls: failed to find any PEM data in key input"),
            (certificate, certificate, "tls: found a certificate rather than a key"),
        ] {
            assert!(tls_warning(certificate, key).is_some_and(|w| w.starts_with(wanted)), "{wanted}");
        }
    }
}
