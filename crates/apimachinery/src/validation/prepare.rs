//! What every write does to `metadata` before a kind's own rules look at the object
//! (`k8s.io/apiserver/pkg/registry/rest/{create,update,meta}.go`, `pkg/storage/names/generate.go`).
//!
//! Clients may send anything below `metadata`. What only the server may set is overwritten or removed here, before validation
//! and without an error, so that clients can send back an object as they read it.

use crate::meta;
use crate::status::{GroupResource, Status};
use crate::time;
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeSet;

/// So that a name with its suffix fits into a DNS label of 63 bytes (`MaxGeneratedNameLength`).
const MAX_GENERATED_BASE: usize = 58;
/// `randomLength`.
const SUFFIX_LENGTH: usize = 5;
/// Without vowels, so that no words come out (`k8s.io/apimachinery/pkg/util/rand`).
const SUFFIX_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";

/// How often a create tries another generated name before it gives up.
pub const NAME_ATTEMPTS: usize = 8;

/// What a create needs from outside to complete an object's metadata.
#[derive(Debug, Clone, Copy)]
pub struct NewObject<'a> {
    /// The namespace in the path; empty for cluster-scoped kinds.
    pub namespace: &'a str,
    /// A fresh UUID.
    pub uid: &'a str,
    /// The present moment.
    pub now: Timestamp,
    /// Randomness for the suffix of a generated name.
    pub random: u64,
    /// Whether the kind counts generations; then the first is 1.
    pub counts_generation: bool,
}

/// Completes the metadata of a new object (`WipeObjectMetaSystemFields`, `FillObjectMetaSystemFields`,
/// `BeforeCreate`): what the server sets is set, a name is generated where one is wanted. Returns whether the
/// name was generated. The error is the 400 of a body whose namespace is another than the path's.
pub fn for_create(object: &mut Value, new: &NewObject<'_>) -> Result<bool, Status> {
    match_namespace(object, new.namespace)?;
    let metadata = meta::metadata_mut(object);
    // A new object cannot be born dying.
    for name in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(name);
    }
    metadata.insert("uid".into(), new.uid.into());
    metadata.insert("creationTimestamp".into(), time::rfc3339(new.now).into());
    if new.counts_generation {
        metadata.insert("generation".into(), 1.into());
    }
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).unwrap_or_default();
    let generated = !text("generateName").is_empty() && text("name").is_empty();
    if generated {
        let name = generate_name(text("generateName"), new.random);
        metadata.insert("name".into(), name.into());
    }
    Ok(generated)
}

/// Carries over what no update may change (`BeforeUpdate`, around the kind's `prepare_for_update`). The error
/// is the 400 of a body whose namespace is another than the path's.
pub fn for_update(new: &mut Value, old: &Value, namespace: &str) -> Result<(), Status> {
    match_namespace(new, namespace)?;
    let old = old.get("metadata");
    let old = |name: &str| old.and_then(|m| m.get(name)).filter(|v| !v.is_null()).cloned();
    let metadata = meta::metadata_mut(new);
    metadata.remove("selfLink");
    // The generation is the server's to count: `count_generation` starts from the old one after the kind's own rules ran.
    match old("generation") {
        Some(generation) => metadata.insert("generation".into(), generation),
        None => metadata.remove("generation"),
    };
    // An update without a UID is meant for whatever object has that name. Another UID is left for validation to refuse: it is
    // meant for an object that was deleted and recreated in the meantime.
    if metadata.get("uid").and_then(Value::as_str).is_none_or(str::is_empty)
        && let Some(uid) = old("uid")
    {
        metadata.insert("uid".into(), uid);
    }
    for name in ["creationTimestamp", "deletionTimestamp"] {
        if let Some(time) = old(name) {
            metadata.insert(name.into(), time);
        }
    }
    if metadata.get("deletionGracePeriodSeconds").is_none_or(Value::is_null)
        && let Some(seconds) = old("deletionGracePeriodSeconds")
    {
        metadata.insert("deletionGracePeriodSeconds".into(), seconds);
    }
    Ok(())
}

/// Raises `metadata.generation` if anything but `metadata` and the members in `except` (mostly `status`) changed.
pub fn count_generation(new: &mut Value, old: &Value, except: &[&str]) {
    let counted = |name: &str| !["metadata", "apiVersion", "kind"].contains(&name) && !except.contains(&name);
    let names = |object: &Value| -> Vec<String> {
        object.as_object().map(|o| o.keys().filter(|k| counted(k)).cloned().collect()).unwrap_or_default()
    };
    // The members of both sides, because one may have been removed.
    let changed = names(new).iter().chain(&names(old)).any(|name| !meta::same(new.get(name), old.get(name)));
    if changed {
        let generation = meta::generation(old) + 1;
        meta::metadata_mut(new).insert("generation".into(), generation.into());
    }
}

/// A name from its start and a random suffix of five characters; together at most 63 bytes.
pub fn generate_name(base: &str, random: u64) -> String {
    let mut end = base.len().min(MAX_GENERATED_BASE);
    // Go cuts bytes. A name with half a character would be refused by every rule about names, and is no string here.
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_string();
    // The last five digits of the number to the base of 27, which 64 bits make uniform but for a negligible bias.
    let mut rest = random;
    for _ in 0..SUFFIX_LENGTH {
        let letters = SUFFIX_ALPHABET.len() as u64;
        name.push(SUFFIX_ALPHABET[(rest % letters) as usize] as char);
        rest /= letters;
    }
    name
}

/// 409: no generated name was free (`NewGenerateNameConflict`).
pub fn generated_name_taken(gr: GroupResource<'_>, name: &str) -> Status {
    let mut status = Status::already_exists(gr, name);
    status.message.push_str(", the server was not able to generate a unique name for the object");
    // Another attempt draws other names, so clients are told to try again.
    if let Some(details) = status.details.as_deref_mut() {
        details.retry_after_seconds = 1;
    }
    status
}

/// Drops owner references that occur twice (`dedupOwnerReferences`); returns the warning for the client if there were any.
pub fn drop_duplicate_owners(object: &mut Value) -> Option<String> {
    let owners = object.get_mut("metadata")?.get_mut("ownerReferences")?.as_array_mut()?;
    // The printed form is the key: the members of a JSON object are ordered, so equal references print alike. Only whole
    // references count as duplicates; two with one UID and different names both stay.
    let mut seen = BTreeSet::new();
    let mut duplicates: Vec<String> = Vec::new();
    owners.retain(|owner| {
        let new = seen.insert(owner.to_string());
        if !new {
            duplicates.push(meta::text(owner, &["uid"]).to_string());
        }
        new
    });
    (!duplicates.is_empty()).then(|| {
        format!(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: {}",
            duplicates.join(", ")
        )
    })
}

/// `EnsureObjectNamespaceMatchesRequestNamespace`: a missing namespace is filled in, that of a cluster-scoped
/// object is cleared, another than the path's is refused with 400.
pub fn match_namespace(object: &mut Value, namespace: &str) -> Result<(), Status> {
    let metadata = meta::metadata_mut(object);
    let found = metadata.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if namespace.is_empty() {
        metadata.remove("namespace");
    } else if found.is_empty() {
        metadata.insert("namespace".into(), namespace.into());
    } else if found != namespace {
        return Err(Status::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn new(namespace: &str) -> NewObject<'_> {
        NewObject {
            namespace,
            uid: "u1",
            now: "2026-01-02T03:04:05.6Z".parse().unwrap(),
            random: 7,
            counts_generation: true,
        }
    }

    #[test]
    fn a_new_object_gets_what_the_server_sets() {
        let mut object = json!({"metadata": {"name": "a", "uid": "mine", "selfLink": "/x", "generation": 9,
            "deletionTimestamp": "2026-01-02T03:04:05Z", "deletionGracePeriodSeconds": 3}});
        assert_eq!(for_create(&mut object, &new("ns")), Ok(false));
        assert_eq!(
            object,
            json!({"metadata": {"name": "a", "namespace": "ns", "uid": "u1", "generation": 1,
                "creationTimestamp": "2026-01-02T03:04:05Z"}})
        );
        let mut elsewhere = json!({"metadata": {"name": "a", "namespace": "default"}});
        assert_eq!(for_create(&mut elsewhere, &new("ns")).unwrap_err().code, 400);
        let mut clustered = json!({"metadata": {"name": "a", "namespace": "default"}});
        for_create(&mut clustered, &new("")).unwrap();
        assert_eq!(meta::namespace(&clustered), "");
    }

    #[test]
    fn names_are_generated_within_63_bytes() {
        for (base, random) in
            [("gen-", 0), ("gen-", u64::MAX), (&*"y".repeat(100), 12345), (&*"é".repeat(40), 1)]
        {
            let name = generate_name(base, random);
            assert!(name.len() <= 63, "{name}");
            let suffix = &name.as_bytes()[name.len() - 5..];
            assert!(suffix.iter().all(|c| SUFFIX_ALPHABET.contains(c)), "{name}");
            assert!(base.starts_with(&name[..name.len() - 5]));
        }
        assert_ne!(generate_name("a", 1), generate_name("a", 2));
        let mut named = json!({"metadata": {"name": "fixed", "generateName": "base-"}});
        assert_eq!(for_create(&mut named, &new("")), Ok(false));
        assert_eq!(meta::name(&named), "fixed");
        let mut unnamed = json!({"metadata": {"generateName": "base-"}});
        assert_eq!(for_create(&mut unnamed, &new("")), Ok(true));
        assert_eq!(meta::name(&unnamed).len(), 10);
    }

    #[test]
    fn an_update_keeps_what_is_not_its_to_change() {
        let old = json!({"metadata": {"name": "a", "namespace": "ns", "uid": "u1", "generation": 3,
            "creationTimestamp": "2026-01-02T03:04:05Z", "deletionTimestamp": "2026-01-02T03:04:06Z",
            "deletionGracePeriodSeconds": 0}, "spec": {"a": 1}});
        let mut update = json!({"metadata": {"name": "a", "generation": 9, "selfLink": "/x",
            "creationTimestamp": "2020-01-02T03:04:05Z"}, "spec": {"a": 1, "b": {}}, "status": {"x": 1}});
        for_update(&mut update, &old, "ns").unwrap();
        count_generation(&mut update, &old, &["status"]);
        assert_eq!(update["metadata"], old["metadata"]);
        update["spec"]["b"] = json!({"c": 1});
        count_generation(&mut update, &old, &["status"]);
        assert_eq!(meta::generation(&update), 4);
        let mut other_uid = json!({"metadata": {"uid": "u2"}});
        for_update(&mut other_uid, &old, "ns").unwrap();
        assert_eq!(meta::uid(&other_uid), "u2", "left for validation to refuse");
    }

    #[test]
    fn duplicate_owners_are_dropped_with_a_warning() {
        let mut object = json!({"metadata": {"ownerReferences": [
            {"uid": "1", "name": "a"}, {"uid": "1", "name": "b"}, {"uid": "1", "name": "a"}]}});
        let warning = drop_duplicate_owners(&mut object).unwrap();
        assert!(warning.ends_with("duplicate UID(s) observed: 1"), "{warning}");
        assert_eq!(meta::list(&object, &["metadata", "ownerReferences"]).len(), 2);
        assert_eq!(drop_duplicate_owners(&mut object), None);
    }
}
