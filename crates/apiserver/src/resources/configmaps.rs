//! ConfigMaps: keys are file names, together at most 1 MiB, and `immutable` is for ever
//! (`pkg/registry/core/configmap`, `ValidateConfigMap` in `pkg/apis/core/validation/validation.go`).

use super::printers;
use super::stored::{self, StoredKind};
use crate::strategy::{Column, Context, Resource, Strategy};
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::validation::{metadata, names};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::Arc;

/// How many bytes the values of a ConfigMap or a Secret may have together.
pub(super) const MAX_SIZE: usize = 1024 * 1024;

/// The row of ConfigMaps.
pub(crate) fn resource() -> Resource {
    let kind = StoredKind {
        group: "",
        version: "v1",
        kind: "ConfigMap",
        plural: "configmaps",
        definition: "io.k8s.api.core.v1.ConfigMap",
        namespaced: true,
        short_names: &["cm"],
        selectable_fields: &[],
        columns: vec![
            Column::name(),
            Column::new("Data", "string", "", "How many keys it has.", 0),
            Column::age(),
        ],
    };
    stored::resource(kind, Arc::new(ConfigMaps))
}

struct ConfigMaps;

impl Strategy for ConfigMaps {
    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        let mut size = 0;
        // A pod sees both maps as the files of one directory, hence no key twice and one limit for both.
        let binary = meta::map(object, &["binaryData"]);
        for (key, value) in meta::map(object, &["data"]).into_iter().flatten() {
            validate_key("data", key, &mut errors);
            if binary.is_some_and(|b| b.contains_key(key)) {
                let detail = "duplicate of key present in binaryData";
                errors.push(Error::invalid(&Path::new("data").key(key), key.as_str(), detail));
            }
            size += value.as_str().map_or(0, str::len);
        }
        for (key, value) in binary.into_iter().flatten() {
            validate_key("binaryData", key, &mut errors);
            size += decoded_len(value);
        }
        if size > MAX_SIZE {
            // kube-apiserver means the whole object by the empty path, and prints it so.
            errors.push(Error::too_long(&Path::new("[]"), MAX_SIZE));
        }
        errors
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = metadata::validate_update(new, old);
        errors.append(validate_still_immutable(new, old, &["data", "binaryData"]));
        errors.append(metadata::validate(new, true, &names::is_dns1123_subdomain));
        errors.append(self.validate(ctx, new));
        errors
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let keys: usize = ["data", "binaryData"].iter().map(|m| count_keys(object, m)).sum();
        vec![printers::name(object), keys.into(), printers::age(object, now)]
    }
}

/// The errors of one key of the map `member`.
pub(super) fn validate_key(member: &str, key: &str, errors: &mut ErrorList) {
    let field = Path::new(member).key(key);
    errors.extend(names::is_config_map_key(key).into_iter().map(|m| Error::invalid(&field, key, m)));
}

/// The errors of a change of what was declared immutable.
pub(super) fn validate_still_immutable(new: &Value, old: &Value, members: &[&str]) -> ErrorList {
    let immutable = |object: &Value| object.get("immutable") == Some(&Value::Bool(true));
    let mut errors = ErrorList::new();
    if !immutable(old) {
        return errors;
    }
    // An object that is immutable once stays so: taking the mark off is a change as well.
    let changed = |member: &&str| match *member {
        "immutable" => !immutable(new),
        member => !meta::same(new.get(member), old.get(member)),
    };
    for member in ["immutable"].iter().chain(members).filter(|m| changed(m)) {
        let detail = "field is immutable when `immutable` is set";
        errors.push(Error::forbidden(&Path::new(*member), detail));
    }
    errors
}

/// The number of bytes that a base64 value stands for. Computed from its length: it was decoded once to check that it is
/// base64, and need not be again for its size.
pub(super) fn decoded_len(value: &Value) -> usize {
    let text = value.as_str().unwrap_or_default();
    text.len() / 4 * 3 - text.bytes().rev().take(2).filter(|b| *b == b'=').count().min(text.len() / 4 * 3)
}

/// How many keys the map `member` has.
pub(super) fn count_keys(object: &Value, member: &str) -> usize {
    meta::map(object, &[member]).map_or(0, serde_json::Map::len)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_and_size_are_checked() {
        let world = World::default();
        let ctx = world.ctx("ns", "");
        let big = "x".repeat(MAX_SIZE);
        let cases: [(Value, &[&str]); 4] = [
            (json!({"data": {"k": "v", "empty": ""}, "binaryData": {"b": "AP8="}}), &[]),
            (
                json!({"data": {"k": "x"}, "binaryData": {"k": "AP8="}}),
                &["data[k]: Invalid value: \"k\": duplicate of key present in binaryData"],
            ),
            (json!({"binaryData": {"..": ""}}), &["binaryData[..]: Invalid value: \"..\": must not be '..'"]),
            (
                json!({"data": {"k": big}, "binaryData": {"b": "AA=="}}),
                &["[]: Too long: may not be more than 1048576 bytes"],
            ),
        ];
        for (object, wanted) in cases {
            assert_eq!(texts(&ConfigMaps.validate(&ctx, &object)), wanted);
        }
        for (text, len) in [("", 0), ("AA==", 1), ("AAA=", 2), ("AAAA", 3), ("=", 0)] {
            assert_eq!(decoded_len(&text.into()), len, "{text}");
        }
    }

    #[test]
    fn metadata_errors_are_repeated_on_update_as_kube_apiserver_repeats_them() {
        let world = World::default();
        let ctx = world.ctx("ns", "x");
        let old = json!({"metadata": {"name": "x", "namespace": "ns", "resourceVersion": "1"}});
        let mut new = old.clone();
        new["metadata"]["labels"] = json!({"a b": "x"});
        assert_eq!(ConfigMaps.validate_update(&ctx, &new, &old).len(), 2);
    }

    #[test]
    fn immutable_stays_so() {
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let members = &["data", "binaryData"];
        assert!(validate_still_immutable(&old, &old, members).is_empty());
        let new = json!({"immutable": false, "data": {"a": "2"}});
        assert_eq!(
            texts(&validate_still_immutable(&new, &old, members)),
            [
                "immutable: Forbidden: field is immutable when `immutable` is set",
                "data: Forbidden: field is immutable when `immutable` is set"
            ]
        );
        assert!(validate_still_immutable(&old, &new, members).is_empty());
    }
}
