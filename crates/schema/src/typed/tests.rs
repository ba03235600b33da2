//! Bodies of built-in kinds: what a real kube-apiserver decodes them to, or says about them.

use super::*;
use crate::go;
use fleetpass_apimachinery::json;
use serde_json::json;

const CORE: &str = "io.k8s.api.core.v1";

fn decode_text(definition: &str, text: &str) -> Result<Typed, DecodeError> {
    decode(&json::parse(text.as_bytes()).unwrap(), &openapi::builtin(definition))
}

fn value(definition: &str, text: &str) -> Value {
    decode_text(definition, text).unwrap().value
}

fn error(definition: &str, text: &str) -> String {
    go::Words(&decode_text(definition, text).unwrap_err()).to_string()
}

#[test]
fn errors_name_the_struct_and_the_path() {
    let field = |what: &str, place: &str, go_type: &str| {
        format!("json: cannot unmarshal {what} into Go struct field {place} of type {go_type}")
    };
    for (definition, text, expected) in [
        ("io.k8s.api.core.v1.ConfigMap", r#"{"data":{"k":1}}"#, field("number", "ConfigMap.data", "string")),
        (
            "io.k8s.api.core.v1.ConfigMap",
            r#"{"data":["a"]}"#,
            field("array", "ConfigMap.data", "map[string]string"),
        ),
        (
            "io.k8s.api.core.v1.ConfigMap",
            r#"{"metadata":{"name":5}}"#,
            field("number", "ObjectMeta.metadata.name", "string"),
        ),
        (
            "io.k8s.api.core.v1.ConfigMap",
            r#"{"metadata":"x"}"#,
            field("string", "ConfigMap.metadata", "v1.ObjectMeta"),
        ),
        (
            "io.k8s.api.core.v1.ConfigMap",
            r#"{"metadata":{"creationTimestamp":5}}"#,
            field("number", "ObjectMeta.metadata.creationTimestamp", "string"),
        ),
        ("io.k8s.api.core.v1.Secret", r#"{"data":{"k":5}}"#, field("number", "Secret.data", "[]uint8")),
        (
            "io.k8s.api.core.v1.ServiceAccount",
            r#"{"secrets":{"name":"x"}}"#,
            field("object", "ServiceAccount.secrets", "[]v1.ObjectReference"),
        ),
        (
            "io.k8s.api.authentication.v1.TokenRequest",
            r#"{"spec":[]}"#,
            field("array", "TokenRequest.spec", "v1.TokenRequestSpec"),
        ),
        (
            "io.k8s.api.authentication.v1.TokenRequest",
            r#"{"spec":{"expirationSeconds":6e2}}"#,
            field("number 6e2", "TokenRequestSpec.spec.expirationSeconds", "int64"),
        ),
        (
            "io.k8s.api.coordination.v1.Lease",
            r#"{"spec":{"leaseDurationSeconds":4294967296}}"#,
            field("number 4294967296", "LeaseSpec.spec.leaseDurationSeconds", "int32"),
        ),
        (
            "io.k8s.api.rbac.v1.Role",
            r#"{"rules":[{"verbs":"get"}]}"#,
            field("string", "PolicyRule.rules.verbs", "[]string"),
        ),
        (
            "io.k8s.api.certificates.v1.CertificateSigningRequest",
            r#"{"spec":{"usages":"x"}}"#,
            field("string", "CertificateSigningRequestSpec.spec.usages", "[]v1.KeyUsage"),
        ),
        (
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
            r#"{"labels":{"n":1}}"#,
            field("number", "ObjectMeta.labels", "string"),
        ),
        (
            "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta",
            r#""x""#,
            "json: cannot unmarshal string into Go value of type v1.ObjectMeta".into(),
        ),
    ] {
        assert_eq!(error(definition, text), expected, "{text}");
    }
}

#[test]
fn the_first_mismatch_counts_unless_a_value_reads_itself() {
    let text = r#"{"data":{"k":1},"metadata":{"name":5}}"#;
    assert!(error(&format!("{CORE}.ConfigMap"), text).contains("ConfigMap.data"));
    let text = r#"{"data":{"k":1},"metadata":{"creationTimestamp":"yesterday"}}"#;
    assert!(error(&format!("{CORE}.ConfigMap"), text).starts_with("parsing time \"yesterday\""));
}

#[test]
fn base64_is_checked_and_normalised() {
    let secret = format!("{CORE}.Secret");
    for (text, offset) in [
        ("***", 0),
        ("not base64!", 3),
        ("dmFsdWU", 4),
        ("_-8=", 0),
        ("YQ=", 3),
        ("YQ=a", 2),
        ("YQ==YQ==", 4),
        ("YWI=x", 4),
    ] {
        let body = format!(r#"{{"data":{{"k":"{text}"}}}}"#);
        assert_eq!(error(&secret, &body), format!("illegal base64 data at input byte {offset}"), "{text}");
    }
    let decoded = value(&secret, r#"{"data":{"a":"YR==","b":"Y\nQ==","c":[97,98],"d":null,"e":""}}"#);
    assert_eq!(decoded["data"], json!({"a": "YQ==", "b": "YQ==", "c": "YWI=", "d": null, "e": ""}));
}

#[test]
fn empty_members_go_away_and_structs_stay() {
    for (definition, text, expected) in [
        (
            "io.k8s.api.core.v1.ServiceAccount",
            r#"{"secrets":[],"automountServiceAccountToken":false}"#,
            json!({"metadata": {}, "automountServiceAccountToken": false}),
        ),
        (
            "io.k8s.api.core.v1.ConfigMap",
            r#"{"data":{"k":null},"immutable":null,"x":1}"#,
            json!({"metadata": {}, "data": {"k": ""}}),
        ),
        ("io.k8s.api.rbac.v1.Role", "{}", json!({"metadata": {}, "rules": null})),
        (
            "io.k8s.api.authentication.v1.TokenRequest",
            "null",
            json!({"metadata": {}, "spec": {"audiences": null, "boundObjectRef": null, "expirationSeconds": null}, "status": {"token": "", "expirationTimestamp": null}}),
        ),
        (
            "io.k8s.api.authentication.v1.TokenReview",
            r#"{"status":{"authenticated":false}}"#,
            json!({"metadata": {}, "spec": {}, "status": {"user": {}}}),
        ),
        (
            "io.k8s.api.core.v1.ServiceAccount",
            r#"{"imagePullSecrets":[{"name":""},null]}"#,
            json!({"metadata": {}, "imagePullSecrets": [{}, {}]}),
        ),
    ] {
        assert_eq!(value(definition, text), expected, "{text}");
    }
}

#[test]
fn strict_objections_keep_their_order() {
    let body = r#"{"spec":{"bogus":1,"audiences":["a"],"audiences":["b"]},"kind":"x","kind":"y","metadata":{"nom":1},"spec":{"expirationSeconds":5}}"#;
    let typed = decode_text("io.k8s.api.authentication.v1.TokenRequest", body).unwrap();
    let texts: Vec<String> = typed.strict.iter().map(StrictError::to_string).collect();
    assert_eq!(
        texts,
        [
            "unknown field \"spec.bogus\"",
            "duplicate field \"spec.audiences\"",
            "duplicate field \"kind\"",
            "unknown field \"metadata.nom\"",
            "duplicate field \"spec\""
        ]
    );
    // What is given twice adds up.
    assert_eq!(typed.value["spec"]["audiences"], json!(["b"]));
    assert_eq!(typed.value["spec"]["expirationSeconds"], json!(5));
}

#[test]
fn values_that_read_themselves_are_normalised() {
    let pod = value(
        &format!("{CORE}.Pod"),
        r#"{"metadata":{"creationTimestamp":"2026-01-02T05:04:05.9+02:00"},"spec":{"containers":[{"name":"c","resources":{"limits":{"cpu":0.5,"memory":"1024Mi"}},"livenessProbe":{"httpGet":{"port":"http"}}}]}}"#,
    );
    assert_eq!(pod["metadata"]["creationTimestamp"], json!("2026-01-02T03:04:05Z"));
    assert_eq!(pod["spec"]["containers"][0]["resources"]["limits"], json!({"cpu": "500m", "memory": "1Gi"}));
    assert_eq!(pod["spec"]["containers"][0]["livenessProbe"]["httpGet"]["port"], json!("http"));
}

#[test]
fn a_crd_schema_is_decoded_to_any_depth_that_can_be_stored() {
    let definition = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceValidation";
    let body = r#"{"openAPIV3Schema":{"type":"object","x-note":1,"properties":{"a":{"type":"array","items":{"type":"string","junk":1,"default":null}},"b":{"additionalProperties":true},"c":{"additionalProperties":{"default":{"z":1.0}}},"d":{"maximum":3.0}}}}"#;
    let typed = decode_text(definition, body).unwrap();
    assert_eq!(typed.strict, [StrictError::UnknownField("openAPIV3Schema.x-note".into())]);
    assert_eq!(
        typed.value["openAPIV3Schema"]["properties"],
        json!({
            "a": {"type": "array", "items": {"type": "string"}},
            "b": {"additionalProperties": true},
            "c": {"additionalProperties": {"default": {"z": 1.0}}},
            "d": {"maximum": 3}
        })
    );
    let deep = format!("{}{}{}", "{\"not\":".repeat(5000), "{}", "}".repeat(5000));
    assert_eq!(error(JSON_SCHEMA_PROPS, &deep), "exceeded max depth");
}

#[test]
fn the_store_does_not_tell_nothing_from_empty() {
    let stored = |definition: &str, text: &str| {
        let schema = openapi::builtin(&format!("io.k8s.api.{definition}"));
        as_stored(&value(&format!("io.k8s.api.{definition}"), text), &schema)
    };
    assert_eq!(stored("core.v1.Secret", r#"{"data":{"k":null,"e":""}}"#)["data"], json!({"k": "", "e": ""}));
    assert_eq!(stored("rbac.v1.ClusterRole", r#"{"rules":[]}"#)["rules"], json!(null));
    let pod = stored("core.v1.Pod", r#"{"spec":{"volumes":[{"name":"a","emptyDir":{}}],"containers":[]}}"#);
    assert_eq!(pod["spec"], json!({"containers": null, "volumes": [{"name": "a", "emptyDir": {}}]}));
}

#[test]
fn normalising_twice_changes_nothing() {
    let role = json!({"metadata": {"name": "r", "labels": {}}, "rules": [{"verbs": ["get"], "x": 1}]});
    let schema = openapi::builtin("io.k8s.api.rbac.v1.Role");
    let once = normalise(&role, &schema).unwrap();
    assert_eq!(once.value, json!({"metadata": {"name": "r"}, "rules": [{"verbs": ["get"]}]}));
    assert_eq!(normalise(&once.value, &schema).unwrap().value, once.value);
}

#[test]
fn long_keys_are_not_copied_for_each_member_below_them() {
    let long = "k".repeat(1_000_000);
    let unknown = r#""x-note":1,"type":1,"#.repeat(50_000);
    let text = format!(r#"{{"properties":{{"{long}":{{{unknown}"title":2}}}}}}"#);
    let raw = json::parse(text.as_bytes()).unwrap();
    let schema = openapi::builtin(JSON_SCHEMA_PROPS);
    let error = decode(&raw, &schema).unwrap_err();
    assert!(go::Words(&error).to_string().ends_with("type of type string"));
    let text = text.replace(r#""type":1,"#, "").replace("2}", r#""t"}"#);
    let typed = decode(&json::parse(text.as_bytes()).unwrap(), &schema).unwrap();
    assert_eq!(typed.strict, [StrictError::UnknownField(format!("properties.{long}.x-note"))]);
}

#[test]
fn errors_carry_facts_that_need_no_go() {
    for (definition, text, path, plain) in [
        (
            "io.k8s.api.core.v1.ConfigMap",
            r#"{"data":{"k":1}}"#,
            "data.k",
            "data.k: expected string, found number",
        ),
        (
            "io.k8s.api.rbac.v1.Role",
            r#"{"rules":[{},{"verbs":"get"}]}"#,
            "rules[1].verbs",
            "rules[1].verbs: expected array, found string",
        ),
        (
            "io.k8s.api.coordination.v1.Lease",
            r#"{"spec":{"leaseDurationSeconds":4294967296}}"#,
            "spec.leaseDurationSeconds",
            "spec.leaseDurationSeconds: 4294967296 does not fit int32",
        ),
        ("io.k8s.api.core.v1.Pod", "[]", "", "expected object, found array"),
    ] {
        let error = decode_text(definition, text).unwrap_err();
        let DecodeError::Type(mismatch) = &error else { panic!("{text}: {error:?}") };
        assert_eq!((mismatch.path.as_str(), error.to_string().as_str()), (path, plain), "{text}");
    }
}

#[test]
fn a_mismatch_inside_a_value_that_reads_itself_is_told_with_the_path_around_it() {
    for (text, path) in
        [(r#"{"items":{"type":1}}"#, "items.type"), (r#"{"items":[{},{"type":1}]}"#, "items[1].type")]
    {
        let wrong = decode_text(JSON_SCHEMA_PROPS, text).unwrap_err();
        let words =
            "json: cannot unmarshal number into Go struct field JSONSchemaProps.items.type of type string";
        assert_eq!(go::Words(&wrong).to_string(), words);
        assert!(wrong.to_string().starts_with(&format!("{path}: ")), "{wrong}");
    }
    assert_eq!(error(JSON_SCHEMA_PROPS, r#"{"additionalProperties":1}"#), "boolean or JSON schema expected");
}
