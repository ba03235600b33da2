//! A stored object as bytes: what is written, what is kept in memory, what is spliced on the way out.
//!
//! An object is stored as its JSON text without `metadata.resourceVersion`, with `kind`, `apiVersion` and
//! `metadata` first. The revision of the commit is the resource version; it is spliced in behind
//! `"metadata":{` when the object is served, so that a get, a list and a watch event parse nothing. The head in
//! front of that point is written anew for each answer, since it differs between API versions and lists.
//! Where `metadata` ends is remembered as well, so that metadata alone is as cheap to serve as the whole object.

use bytes::Bytes;
use fleetpass_store::{Entry, Revision};
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;

const METADATA: &[u8] = b"\"metadata\":{";

/// The kind of an object's metadata alone (`metav1.PartialObjectMetadata`).
pub(crate) const PARTIAL: &str = "PartialObjectMetadata";

/// What stands in front of `"metadata"` in an encoded object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Head<'a> {
    /// `kind` and `apiVersion`: an object by itself, a watch event, and items of custom resource lists.
    Full {
        /// The kind.
        kind: &'a str,
        /// Group and version.
        api_version: &'a str,
    },
    /// Nothing: items of the lists of built-in kinds.
    Item,
}

/// One stored object at one revision. `Debug` shows its key only: the object may be a Secret.
pub(crate) struct Object {
    /// The storage key.
    pub key: Arc<str>,
    /// The revision at which it was last written: its resource version.
    pub revision: Revision,
    /// The labels, for selectors.
    pub labels: Box<[(Box<str>, Box<str>)]>,
    /// The stored text, without `metadata.resourceVersion`.
    json: Bytes,
    /// Where in `json` the members of `metadata` begin: right behind `"metadata":{`. 32 bits, like the next one, because there
    /// is one of these for each stored object.
    splice_at: u32,
    /// Where in `json` the value of `metadata` ends: right behind its `}`.
    metadata_end: u32,
}

impl std::fmt::Debug for Object {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Object")
            .field("key", &self.key)
            .field("revision", &self.revision)
            .finish_non_exhaustive()
    }
}

#[derive(Deserialize)]
struct Stored<'a> {
    /// As text, which says where in the object it is.
    #[serde(borrow)]
    metadata: &'a RawValue,
}

#[derive(Deserialize)]
struct Labelled<'a> {
    #[serde(borrow, default)]
    labels: Option<BTreeMap<std::borrow::Cow<'a, str>, std::borrow::Cow<'a, str>>>,
}

/// A stored value that is not an object of ours.
#[derive(Debug, thiserror::Error)]
#[error("the stored value of {key} is not a Kubernetes object in JSON: {why}")]
pub(crate) struct Malformed {
    /// The storage key.
    pub key: Arc<str>,
    /// What is wrong with it; never a part of the value.
    pub why: &'static str,
}

impl Object {
    /// Reads what [`encode_for_storage`] wrote.
    pub(crate) fn from_entry(entry: &Entry) -> Result<Self, Malformed> {
        Self::new(entry.key.clone(), entry.mod_revision, entry.value.clone())
    }

    /// An object from its stored text.
    pub(crate) fn new(key: Arc<str>, revision: Revision, json: Bytes) -> Result<Self, Malformed> {
        let Ok(Stored { metadata }) = serde_json::from_slice(&json) else {
            return Err(Malformed { key, why: "it cannot be parsed" });
        };
        // The text of the metadata is a part of `json`, so the distance of their addresses is its place.
        let start = metadata.get().as_ptr() as usize - json.as_ptr() as usize;
        // What stands in front of an answer ends where this does: nothing may lie between the key and its value.
        if !json[..=start].ends_with(METADATA) {
            return Err(Malformed { key, why: "it has no metadata" });
        }
        let Ok(Labelled { labels }) = serde_json::from_str(metadata.get()) else {
            return Err(Malformed { key, why: "its metadata cannot be parsed" });
        };
        let (Ok(splice_at), Ok(metadata_end)) =
            (u32::try_from(start + 1), u32::try_from(start + metadata.get().len()))
        else {
            return Err(Malformed { key, why: "it is too large" });
        };
        let labels = labels.unwrap_or_default().into_iter().map(|(k, v)| (k.into(), v.into())).collect();
        Ok(Self { key, revision, labels, json, splice_at, metadata_end })
    }

    /// The object as a tree, with `metadata.resourceVersion`.
    pub(crate) fn value(&self) -> Value {
        // `new` has parsed the same text, so this does not fail.
        let mut value: Value = serde_json::from_slice(&self.json).unwrap_or_default();
        set_resource_version(&mut value, self.revision);
        value
    }

    /// The same object as it was last seen, at the revision of its deletion.
    pub(crate) fn at_revision(&self, revision: Revision) -> Self {
        Self {
            key: self.key.clone(),
            revision,
            labels: self.labels.clone(),
            json: self.json.clone(),
            splice_at: self.splice_at,
            metadata_end: self.metadata_end,
        }
    }

    /// The value of `metadata` alone as a tree, with `resourceVersion`: costs what it is long, however large the object.
    pub(crate) fn metadata(&self) -> Value {
        let text = &self.json[self.splice_at as usize - 1..self.metadata_end as usize];
        // `new` has parsed the same text.
        let mut metadata: Value = serde_json::from_slice(text).unwrap_or_default();
        if let Some(members) = metadata.as_object_mut() {
            members.insert("resourceVersion".into(), self.revision.to_string().into());
        }
        metadata
    }

    /// Appends the JSON text under `head`.
    pub(crate) fn write(&self, head: Head<'_>, out: &mut Vec<u8>) {
        out.reserve(self.json.len() + 96);
        self.write_head(head, out);
        out.extend_from_slice(&self.json[self.splice_at as usize..]);
    }

    /// Appends the JSON text under `head` as far as it is not stored; [`Object::rest`] follows it.
    pub(crate) fn write_head(&self, head: Head<'_>, out: &mut Vec<u8>) {
        match head {
            Head::Full { kind, api_version } => {
                out.extend_from_slice(b"{\"kind\":");
                write_string(kind, out);
                out.extend_from_slice(b",\"apiVersion\":");
                write_string(api_version, out);
                out.push(b',');
            }
            Head::Item => out.push(b'{'),
        }
        out.extend_from_slice(METADATA);
        out.extend_from_slice(b"\"resourceVersion\":\"");
        // Writing to a Vec cannot fail.
        let _ = write!(out, "{}", self.revision);
        // No comma in front of the end of an empty `metadata`.
        let is_empty = self.json[self.splice_at as usize..].first() == Some(&b'}');
        out.extend_from_slice(if is_empty { b"\"" } else { b"\"," });
    }

    /// What follows the head: shares the stored text, copies nothing.
    pub(crate) fn rest(&self) -> Bytes {
        self.json.slice(self.splice_at as usize..)
    }

    /// Appends the JSON text of the object's metadata alone: a [`PARTIAL`] of that `apiVersion`.
    pub(crate) fn write_metadata(&self, api_version: &str, out: &mut Vec<u8>) {
        let rest = &self.json[self.splice_at as usize..self.metadata_end as usize];
        out.reserve(rest.len() + 120);
        self.write_head(Head::Full { kind: PARTIAL, api_version }, out);
        out.extend_from_slice(rest);
        out.push(b'}');
    }

    /// The namespace and name in the key (the namespace is empty for cluster scope).
    pub(crate) fn namespace_and_name(&self) -> (&str, &str) {
        split_key(&self.key).1
    }

    /// Whether `text` is what is stored already: a write of it would change nothing. Comparing bytes is enough, because all
    /// that is stored was encoded by [`encode_for_storage`].
    pub(crate) fn is_same_text(&self, text: &[u8]) -> bool {
        self.json == text
    }

    /// The stored text, in which `metadata` has no `resourceVersion`.
    pub(crate) fn stored_text(&self) -> &[u8] {
        &self.json
    }

    /// The number of bytes that are kept.
    pub(crate) fn size(&self) -> usize {
        self.json.len()
    }
}

/// Splits a storage key into the prefix of its resource and its namespace and name. Keys lie at
/// `/registry/<resource>/…` for built-in kinds and at `/registry/<group>/<resource>/…` for groups with a dot.
pub(crate) fn split_key(key: &str) -> (&str, (&str, &str)) {
    let start = "/registry/".len().min(key.len());
    let segment = |from: usize| key[from..].find('/').map_or(key.len(), |i| from + i);
    let mut end = segment(start);
    if key[start..end].contains('.') && end < key.len() {
        end = segment(end + 1);
    }
    let prefix = &key[..end];
    let rest = key[end..].strip_prefix('/').unwrap_or("");
    (prefix, rest.split_once('/').unwrap_or(("", rest)))
}

/// The storage key of an object below a resource's prefix; an empty namespace means cluster scope.
pub(crate) fn join_key(prefix: &str, namespace: &str, name: &str) -> Arc<str> {
    if namespace.is_empty() {
        format!("{prefix}/{name}").into()
    } else {
        format!("{prefix}/{namespace}/{name}").into()
    }
}

/// Sets `metadata.resourceVersion`.
pub(crate) fn set_resource_version(value: &mut Value, revision: Revision) {
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.insert("resourceVersion".into(), revision.to_string().into());
    }
}

fn write_string(text: &str, out: &mut Vec<u8>) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, text);
}

/// The JSON text of an object with `kind`, `apiVersion` and `metadata` in front, as Go prints typed objects.
pub(crate) fn encode(value: &Value) -> Vec<u8> {
    encode_object(value, true)
}

/// The JSON text that is stored: as [`encode`], without `metadata.resourceVersion`.
pub(crate) fn encode_for_storage(value: &Value) -> Bytes {
    // Thousands of these are kept for long: give back the spare capacity of the buffer.
    encode_object(value, false).into_boxed_slice().into()
}

fn encode_object(value: &Value, with_version: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    let Some(object) = value.as_object() else {
        let _ = serde_json::to_writer(&mut out, value);
        return out;
    };
    out.push(b'{');
    let first = ["kind", "apiVersion", "metadata"];
    let ordered = first
        .iter()
        .filter_map(|k| object.get_key_value(*k))
        .chain(object.iter().filter(|(k, _)| !first.contains(&k.as_str())));
    for (i, (key, member)) in ordered.enumerate() {
        if i > 0 {
            out.push(b',');
        }
        write_string(key, &mut out);
        out.push(b':');
        match (key.as_str(), member) {
            ("metadata", Value::Object(metadata))
                if !with_version && metadata.contains_key("resourceVersion") =>
            {
                let mut metadata = metadata.clone();
                metadata.remove("resourceVersion");
                let _ = serde_json::to_writer(&mut out, &metadata);
            }
            _ => {
                let _ = serde_json::to_writer(&mut out, member);
            }
        }
    }
    out.push(b'}');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn object(value: &Value) -> Object {
        Object::new("/registry/secrets/ns/a".into(), 7, encode_for_storage(value)).expect("an object")
    }

    #[test]
    fn what_is_spliced_is_what_is_parsed() {
        let value = json!({"apiVersion": "v1", "kind": "Secret", "data": {"metadata": "{}"},
            "metadata": {"labels": {"a": "\u{e9}\"", "b": ""}, "name": "a", "resourceVersion": "3"}});
        let object = object(&value);
        let mut out = Vec::new();
        object.write(Head::Full { kind: "Secret", api_version: "v2" }, &mut out);
        let seen: Value = serde_json::from_slice(&out).expect("JSON");
        let mut want = object.value();
        assert_eq!(want["metadata"]["resourceVersion"], "7");
        want["apiVersion"] = "v2".into();
        assert_eq!(seen, want);
        assert_eq!(object.labels.len(), 2);
        assert_eq!(&*object.labels[0].1, "\u{e9}\"");
    }

    #[test]
    fn an_empty_metadata_is_spliced_too() {
        let object = object(&json!({"metadata": {}}));
        let mut out = Vec::new();
        object.write(Head::Item, &mut out);
        assert_eq!(out, br#"{"metadata":{"resourceVersion":"7"}}"#);
        let mut alone = Vec::new();
        object.write_metadata("meta.k8s.io/v1", &mut alone);
        let want = br#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"7"}}"#;
        assert_eq!(alone, want);
        assert_eq!(object.metadata(), json!({"resourceVersion": "7"}));
    }

    #[test]
    fn only_what_can_be_spliced_is_an_object() {
        for (text, why) in [
            ("{", "it cannot be parsed"),
            ("{}", "it cannot be parsed"),
            (r#"{"metadata":{},"metadata":{}}"#, "it cannot be parsed"),
            (r#"{"metadata":null}"#, "it has no metadata"),
            (r#"{"metadata":[]}"#, "it has no metadata"),
            (r#"{"metadata": {}}"#, "it has no metadata"),
            (r#"{"metadata":{"labels":7}}"#, "its metadata cannot be parsed"),
        ] {
            let refused = Object::new("/registry/secrets/ns/a".into(), 7, text.into()).map_err(|e| e.why);
            assert_eq!(refused.err(), Some(why), "{text}");
        }
    }

    proptest! {
        /// Whatever is in the metadata and around it: braces in strings, nested maps, any characters.
        #[test]
        fn metadata_alone_is_that_of_the_object(
            metadata in proptest::collection::btree_map("[a-z{}\"\\\\]{0,6}", "[ -~é\u{1f600}]{0,12}", 0..6),
            labels in proptest::collection::btree_map("[a-z/.]{1,6}", "\\PC{0,8}", 0..4),
            around in "\\PC{0,20}",
        ) {
            let mut value = json!({"kind": around, "apiVersion": "v1", "metadata": metadata, "z": {"metadata": {}}, "a": around});
            value["metadata"]["labels"] = json!(labels);
            let object = object(&value);
            prop_assert_eq!(object.metadata(), object.value()["metadata"].clone());
            let mut alone = Vec::new();
            object.write_metadata("meta.k8s.io/v1", &mut alone);
            let want = json!({"kind": PARTIAL, "apiVersion": "meta.k8s.io/v1", "metadata": object.metadata()});
            prop_assert_eq!(serde_json::from_slice::<Value>(&alone).unwrap(), want);
            let mut whole = Vec::new();
            object.write_head(Head::Item, &mut whole);
            whole.extend(object.rest());
            let mut at_once = Vec::new();
            object.write(Head::Item, &mut at_once);
            prop_assert_eq!(whole, at_once);
        }
    }

    #[test]
    fn keys_split_where_they_were_joined() {
        for (key, prefix, namespace, name) in [
            ("/registry/secrets/ns/a", "/registry/secrets", "ns", "a"),
            ("/registry/namespaces/ns", "/registry/namespaces", "", "ns"),
            ("/registry/example.com/widgets/ns/a", "/registry/example.com/widgets", "ns", "a"),
            ("/registry/example.com/widgets/a", "/registry/example.com/widgets", "", "a"),
            ("/registry/clusterroles/system:x", "/registry/clusterroles", "", "system:x"),
        ] {
            assert_eq!(split_key(key), (prefix, (namespace, name)));
            assert_eq!(&*join_key(prefix, namespace, name), key);
        }
        assert_eq!(split_key("/x"), ("/x", ("", "")));
    }
}
