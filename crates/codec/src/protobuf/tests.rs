use super::*;
use crate::body::{FieldValidation, Format, decode_builtin, decode_custom};
use crate::options;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fleetpass_apimachinery::status::Status;
use fleetpass_schema::{openapi, typed};
use proptest::prelude::*;
use serde_json::json;
use std::sync::LazyLock;

/// What Go's serializer writes, in base64: of most kinds an object without fields and one with all of them, and at
/// the end the frame of a watch event.
const SAMPLES: &str = include_str!("../../testdata/protobuf-samples.txt");
/// A recorded conversation with kube-apiserver.
const RECORDED: &str = include_str!("../../../../conformance/scenarios/protobuf-requests.json");

fn samples() -> &'static [Vec<u8>] {
    static DECODED: LazyLock<Vec<Vec<u8>>> =
        LazyLock::new(|| SAMPLES.lines().map(|line| STANDARD.decode(line).unwrap()).collect());
    &DECODED
}

fn gvk(api_version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = parse_group_version(api_version).unwrap();
    GroupVersionKind { group: group.into(), version: version.into(), kind: kind.into() }
}

fn gvk_of(object: &Value) -> GroupVersionKind {
    gvk(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap())
}

/// As the server keeps the object, if it is of a kind that it keeps.
fn normalised(mut object: Value) -> Value {
    let gvk = gvk_of(&object);
    if let Some(schema) = openapi::find_kind(&gvk.group, &gvk.version, &gvk.kind) {
        let typed = typed::normalise(&object, &schema).unwrap();
        assert_eq!(typed.strict, [], "{gvk:?}");
        object = typed.value;
        object["apiVersion"] = gvk.api_version().into();
        object["kind"] = gvk.kind.into();
    }
    object
}

#[test]
fn what_go_wrote_is_written_again() {
    let samples = samples();
    let (_, objects) = samples.split_last().unwrap();
    assert!(objects.len() > 60);
    for bytes in objects {
        let object = normalised(decode_object(bytes).unwrap());
        let again = encode(&object).unwrap();
        assert!(again == *bytes, "{object}\n{}", STANDARD.encode(again));
        assert_eq!(normalised(decode_object(&again).unwrap()), object);
    }
}

#[test]
fn a_watch_event_is_a_frame_without_an_envelope_of_its_own() {
    let samples = samples();
    let mut account = samples.iter().filter_map(|bytes| decode_object(bytes).ok());
    let account = account.rfind(|object| object["kind"] == "ServiceAccount").unwrap();
    assert_eq!(watch_frame("ADDED", &account).as_ref(), Ok(samples.last().unwrap()));
}

#[test]
fn special_types_have_their_json_form() {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"creationTimestamp": "1969-12-31T23:59:59Z", "managedFields": [
            {"manager": "m", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"k:{\"name\":\"<a>\"}": {}}}}]},
        "spec": {
            "volumes": [{"name": "v", "emptyDir": {"sizeLimit": "1500m"}}],
            "containers": [{
                "name": "c", "resources": {"limits": {"cpu": "100m"}},
                "livenessProbe": {"httpGet": {"port": "web"}},
                "readinessProbe": {"tcpSocket": {"port": -1}},
            }],
            "securityContext": {"supplementalGroups": [1, -2]},
        },
        "status": {},
    });
    let object = normalised(object);
    assert_eq!(object["metadata"]["creationTimestamp"], "1969-12-31T23:59:59Z");
    assert_eq!(normalised(decode_object(&encode(&object).unwrap()).unwrap()), object);

    let event = json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {},
        "eventTime": "1969-12-31T23:59:59.999999Z"});
    let event = normalised(event);
    assert_eq!(normalised(decode_object(&encode(&event).unwrap()).unwrap()), event);

    let schema = json!({"type": "object", "default": {"a": [null, 1.5]}, "enum": ["a", null], "minimum": -0.5,
        "additionalProperties": false, "items": {"type": "string"}, "allOf": [{"additionalProperties": {"type": "x"}}],
        "dependencies": {"a": ["b"], "c": {"type": "y"}}});
    let definition = json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "spec": {"group": "g", "names": {"plural": "p", "kind": "K"}, "scope": "Cluster",
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}}]}});
    let definition = normalised(definition);
    let kept = &definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    assert_eq!(*kept, schema);
    assert_eq!(normalised(decode_object(&encode(&definition).unwrap()).unwrap()), definition);
}

/// Group, version and kind by the plural in a path.
fn target_of(path: &str) -> GvkRef<'static> {
    let (group, kind) = match path.rsplit('/').next().unwrap() {
        "namespaces" => ("", "Namespace"),
        "serviceaccounts" => ("", "ServiceAccount"),
        "secrets" => ("", "Secret"),
        "token" => ("authentication.k8s.io", "TokenRequest"),
        "tokenreviews" => ("authentication.k8s.io", "TokenReview"),
        "selfsubjectreviews" => ("authentication.k8s.io", "SelfSubjectReview"),
        "subjectaccessreviews" => ("authorization.k8s.io", "SubjectAccessReview"),
        "selfsubjectaccessreviews" => ("authorization.k8s.io", "SelfSubjectAccessReview"),
        other => panic!("{other}"),
    };
    GvkRef { group, version: "v1", kind }
}

#[test]
fn recorded_requests_are_read_and_refused_as_recorded() {
    let recorded: Value = serde_json::from_str(&RECORDED.replace("{{run}}", "abcdef")).unwrap();
    let (mut read, mut refused) = (0, 0);
    for step in recorded["steps"].as_array().unwrap() {
        let Some(body) = step["rawBody"].as_str() else { continue };
        let target = target_of(step["path"].as_str().unwrap());
        let schema = openapi::find_kind(target.group, target.version, target.kind).unwrap();
        let decoded =
            decode_builtin(body.as_bytes(), Format::Protobuf, target, &schema, FieldValidation::Strict);
        // A later refusal is not about the body's form.
        let expected = step["expect"]["body"]["message"]
            .as_str()
            .filter(|text| step["expect"]["status"] == 400 && !text.starts_with("token is required"));
        match (decoded, expected) {
            (Ok(decoded), None) => {
                assert_eq!(decoded.warnings, [""; 0]);
                assert_eq!(decoded.value["kind"], target.kind);
                read += 1;
            }
            (Err(status), Some(message)) => {
                assert_eq!((status.code, status.message.as_str()), (400, message));
                refused += 1;
            }
            (decoded, expected) => panic!("{step}: {decoded:?}, expected {expected:?}"),
        }
    }
    assert!(read > 15 && refused > 5, "{read} {refused}");
}

#[test]
fn bodies_become_objects() {
    let decode = |body: &str, target: GvkRef<'_>| {
        let schema = openapi::find_kind(target.group, target.version, target.kind).unwrap();
        decode_builtin(body.as_bytes(), Format::Protobuf, target, &schema, FieldValidation::Warn)
            .unwrap()
            .value
    };
    let secret =
        "k8s\0\n\x0c\n\x02v1\x12\x06Secret\x12\x1c\n\x04\n\x02s1\x12\x0c\n\x03key\x12\x05value\x1a\x06Opaque";
    assert_eq!(
        decode(secret, target_of("secrets")),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s1"}, "data": {"key": "dmFsdWU="},
            "type": "Opaque"})
    );
    let bound = "k8s\0\n(\n\x18authentication.k8s.io/v1\x12\x0cTokenRequest\x12\x14\x12\x12\x1a\x10\n\x06Secret\x12\x02v1\x1a\x02s1";
    assert_eq!(
        decode(bound, target_of("token"))["spec"],
        json!({"audiences": null, "expirationSeconds": null,
            "boundObjectRef": {"kind": "Secret", "apiVersion": "v1", "name": "s1"}})
    );
}

#[test]
fn recorded_refusals_are_written_as_recorded() {
    let recorded: Value = serde_json::from_str(RECORDED).unwrap();
    let mut seen = 0;
    for step in recorded["steps"].as_array().unwrap() {
        // The recording shows bytes that are no text as U+FFFD.
        let Some(body) = step["expect"]["body"].as_str() else { continue };
        let gr = fleetpass_apimachinery::status::GroupResource { group: "", resource: "serviceaccounts" };
        let status = match step["id"].as_str().unwrap() {
            "refusal-in-protobuf" => Status::not_found(gr, "ghost"),
            "unauthorized-in-protobuf" => Status::unauthorized(),
            "not-found-in-protobuf" | "protobuf-or-json-not-found" => {
                Status::not_found(gr, "no-such-account")
            }
            _ => continue,
        };
        let bytes = encode(&status.to_json()).unwrap();
        assert_eq!(String::from_utf8_lossy(&bytes), body);
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn fields_that_come_twice_are_merged_as_in_go() {
    let pod = gvk("v1", "Pod");
    for (message, expected) in [
        // metadata twice; its name twice, labels with one key twice, an entry without value, one without key.
        (
            &b"\x0a\x03\x0a\x01a\x0a\x12\x0a\x01b\x5a\x06\x0a\x01k\x12\x01v\x5a\x05\x12\x01w\x12\x00"[..],
            json!({"metadata": {"name": "b", "labels": {"k": "v", "": ""}}}),
        ),
        // supplementalGroups packed and not, in spec.securityContext.
        (
            b"\x12\x0b\x72\x09\x22\x03\x01\xac\x02\x20\x05\x20\x06",
            json!({"spec": {"securityContext": {"supplementalGroups": [1, 300, 5, 6]}}}),
        ),
        // Text that is no UTF-8, an unknown field, a group.
        (b"\x0a\x04\x0a\x02a\xff\xf8\x01\x01\xfb\x01\xfc\x01", json!({"metadata": {"name": "a\u{fffd}"}})),
    ] {
        assert_eq!(decode(&pod, message).unwrap(), expected, "{message:?}");
    }
}

#[test]
fn wrong_messages_are_refused_in_the_words_of_go() {
    let secret = |message: &[u8]| decode(&gvk("v1", "Secret"), message).unwrap_err().to_string();
    for (message, expected) in [
        (&b"\x0a"[..], "unexpected EOF"),
        (b"\x08\x01", "proto: wrong wireType = 0 for field ObjectMeta"),
        (b"\x0a\x02\x08\x01", "proto: wrong wireType = 0 for field Name"),
        (b"\x0a\x01\x0c", "proto: ObjectMeta: wiretype end group for non-group"),
        (b"\x02\x00", "proto: Secret: illegal tag 0 (wire type 2)"),
        (b"\x2a\x00", "proto: wrong wireType = 2 for field Immutable"),
        (b"\x12\x01\x1c", "proto: unexpected end of group"),
    ] {
        assert_eq!(secret(message), expected, "{message:?}");
    }
    let lease = |message: &[u8]| decode(&gvk("coordination.k8s.io/v1", "Lease"), message);
    assert_eq!(lease(b"\x12\x0a\x1a\x08\x08\xff\xff\xff\xff\xff\xff\x7f"), Err(Error::Year));
    assert_eq!(lease(b"\x12\x02\x1a\x00"), Ok(json!({"spec": {"acquireTime": null}})));
}

#[test]
fn a_bomb_of_nested_messages_is_refused() {
    // A schema in `not` in a schema, without end.
    let mut schema = Vec::new();
    for _ in 0..5000 {
        let mut writer = Writer::default();
        writer.bytes(28, &schema);
        schema = writer.finish();
    }
    for number in [1, 4, 7, 2] {
        let mut writer = Writer::default();
        writer.bytes(number, &schema);
        schema = writer.finish();
    }
    let result = decode(&gvk("apiextensions.k8s.io/v1", "CustomResourceDefinition"), &schema);
    assert_eq!(result, Err(Error::TooDeep));
}

#[test]
fn kinds_without_a_message_are_refused() {
    let table = encode(&json!({"apiVersion": "meta.k8s.io/v1", "kind": "Table"})).unwrap_err();
    let status = Status::from(table);
    assert_eq!((status.code, status.reason), (406, "NotAcceptable"));
    assert_eq!(
        status.message,
        "object *v1.Table does not implement the protobuf marshalling interface and cannot be encoded to a protobuf message"
    );
    let target = GvkRef { group: "example.com", version: "v1", kind: "Widget" };
    let body = b"k8s\0\n\x18\n\x0eexample.com/v1\x12\x06Widget\x12\x00";
    let custom = |body: &[u8]| {
        decode_custom(body, Format::Protobuf, target, FieldValidation::Ignore, |_, _| Ok(Vec::new()))
            .unwrap_err()
    };
    assert!(custom(body).message.starts_with(
        "Widget in version \"v1\" cannot be handled as a Widget: object *unstructured.Unstructured does not implement"
    ));
    assert_eq!(
        custom(b"").message,
        "the object provided is unrecognized (must be of type Widget): empty data (<empty>)"
    );
}

#[test]
fn values_that_do_not_fit_are_errors() {
    for (object, field) in [
        (json!({"metadata": 5}), ""),
        (json!({"data": []}), "data"),
        (json!({"data": {"a": "?"}}), "data"),
        (json!({"immutable": "yes"}), "immutable"),
        (json!({"metadata": {"name": 1}}), "name"),
        (json!({"metadata": {"creationTimestamp": "soon"}}), ""),
    ] {
        let mut object = object;
        object["apiVersion"] = "v1".into();
        object["kind"] = "Secret".into();
        match encode(&object) {
            Err(EncodeError::Unfit { field: found, .. }) => assert_eq!(found, field, "{object}"),
            other => panic!("{object}: {other:?}"),
        }
    }
}

#[test]
fn the_options_of_a_deletion_are_read() {
    let body = encode(&json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "DeleteOptions",
        "gracePeriodSeconds": 0, "preconditions": {"uid": "u"}, "propagationPolicy": "Orphan"}))
    .unwrap();
    let read = options::delete(&body, Format::Protobuf, &Vec::new()).unwrap();
    assert_eq!((read.grace_period_seconds, read.uid.as_deref()), (Some(0), Some("u")));
    assert_eq!(read.propagation_policy, Some(options::Propagation::Orphan));
    let other = encode(&json!({"apiVersion": "v1", "kind": "Secret"})).unwrap();
    let refused = options::delete(&other, Format::Protobuf, &Vec::new()).unwrap_err();
    assert!(refused.message.starts_with("no kind \"Secret\" is registered for version \"v1\" in scheme"));
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), kind in 0_usize..60) {
        let mut body = PREFIX.to_vec();
        body.extend(&bytes);
        let _ = open(&body);
        let sample = &samples()[kind];
        let object = decode_object(sample).unwrap();
        let _ = decode(&gvk_of(&object), &bytes);
    }

    #[test]
    fn damaged_objects_never_panic(kind in 0_usize..68, at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = samples()[kind].clone();
        let at = at.index(body.len());
        body[at] = byte;
        if let Ok(object) = decode_object(&body) {
            let gvk = gvk_of(&object);
            let object = openapi::find_kind(&gvk.group, &gvk.version, &gvk.kind)
                .map_or(Some(object.clone()), |schema| typed::normalise(&object, &schema).ok().map(|t| t.value));
            if let Some(object) = object {
                let mut writer = Writer::default();
                let message = fields::of_kind(&gvk).unwrap();
                prop_assert!(encode::message(message, &object, &mut writer).is_ok(), "{}", object);
            }
        }
    }

    #[test]
    fn secrets_survive(
        name in ".{0,8}", labels in prop::collection::btree_map(".{0,5}", ".{0,5}", 0..4),
        data in prop::collection::btree_map("[a-z]{0,4}", prop::collection::vec(any::<u8>(), 0..300), 0..4),
        immutable in any::<Option<bool>>(), generation in any::<i64>(), created in -62_135_596_800_i64..253_402_207_200,
    ) {
        let created = jiff::Timestamp::from_second(created).unwrap().to_string();
        let data: serde_json::Map<String, Value> =
            data.into_iter().map(|(key, bytes)| (key, STANDARD.encode(bytes).into())).collect();
        let object = normalised(json!({"apiVersion": "v1", "kind": "Secret", "data": data, "immutable": immutable,
            "metadata": {"name": name, "labels": labels, "generation": generation, "creationTimestamp": created}}));
        prop_assert_eq!(normalised(decode_object(&encode(&object).unwrap()).unwrap()), object);
    }
}

#[test]
fn a_list_in_pieces_is_the_list() {
    let mut lists = 0;
    let objects =
        samples()[..samples().len() - 1].iter().map(|bytes| normalised(decode_object(bytes).unwrap()));
    // The items of its list come before its metadata.
    let metadata = json!({"apiVersion": "meta.k8s.io/v1beta1", "kind": "PartialObjectMetadata",
        "metadata": {"name": "a", "labels": {"b": "c"}}});
    for item in objects.chain([metadata]) {
        let kind = format!("{}List", item["kind"].as_str().unwrap());
        if !knows(&gvk(item["apiVersion"].as_str().unwrap(), &kind)) {
            continue;
        }
        lists += 1;
        // 300 items: a length that needs more bytes than that of a few.
        for count in [0, 1, 3, 300] {
            let items = vec![item.clone(); count];
            let metadata = json!({"resourceVersion": "7", "continue": "é", "remainingItemCount": 3});
            let list =
                json!({"apiVersion": item["apiVersion"], "kind": kind, "metadata": metadata, "items": items});
            let pieces = List::new(list.clone()).unwrap();
            let body: Vec<u8> = items.iter().flat_map(|item| pieces.item(item).unwrap()).collect();
            let whole = [pieces.head(body.len() as u64).unwrap(), body, pieces.tail().unwrap()].concat();
            assert!(whole == encode(&list).unwrap(), "{count} of {kind}");
        }
    }
    assert!(lists > 20, "{lists}");
    let of =
        |api_version: &str, kind: &str| List::new(json!({"apiVersion": api_version, "kind": kind})).err();
    assert_eq!(
        of("example.com/v1", "WidgetList"),
        Some(EncodeError::NotMarshalable("*v1.WidgetList".into()))
    );
    assert_eq!(of("v1", "Secret"), Some(EncodeError::NotMarshalable("*v1.Secret".into())));
}
