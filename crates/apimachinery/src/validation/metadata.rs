//! What `metadata` may hold, on create and on update (`k8s.io/apimachinery/pkg/api/validation/objectmeta.go`,
//! `k8s.io/apimachinery/pkg/apis/meta/v1/validation/validation.go`).

use super::names;
use crate::field::{Error, ErrorList, Path, go_quote};
use crate::meta;
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// How many bytes the keys and values of all annotations may have together (`TotalAnnotationSizeLimitB`).
const MAX_ANNOTATIONS: usize = 256 * 1024;
/// `FieldManagerMaxLength`, in bytes.
const MAX_MANAGER: usize = 128;
/// `MaxSubresourceNameLength`, in bytes.
const MAX_SUBRESOURCE: usize = 256;
/// After how many errors about more than one controller we stop. Each of them quotes the whole list, so a body of many
/// owners that are all controllers would cause an answer of its size squared; kube-apiserver has no such limit.
const MAX_CONTROLLER_ERRORS: usize = 8;

/// A kind's rule about names (`ValidateNameFunc`): what is wrong with a name; with `true`, with a `generateName`.
pub type NameRule<'a> = &'a dyn Fn(&str, bool) -> Vec<String>;

/// The errors of an object's metadata (`ValidateObjectMetaAccessor`), after a name was generated.
pub fn validate(object: &Value, namespaced: bool, name_rule: NameRule<'_>) -> ErrorList {
    // The order of the checks is the order in which clients see the errors.
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    let generate_name = meta::text(object, &["metadata", "generateName"]);
    if !generate_name.is_empty() {
        let field = path.child("generateName");
        errors.extend(
            name_rule(generate_name, true).into_iter().map(|m| Error::invalid(&field, generate_name, m)),
        );
    }
    let name = meta::name(object);
    let field = path.child("name");
    if name.is_empty() {
        errors.push(Error::required(&field, "name or generateName is required"));
    } else {
        errors.extend(name_rule(name, false).into_iter().map(|m| Error::invalid(&field, name, m)));
    }
    validate_namespace(meta::namespace(object), namespaced, &path.child("namespace"), &mut errors);
    let generation = meta::generation(object);
    if generation < 0 {
        errors.push(Error::invalid(
            &path.child("generation"),
            generation,
            "must be greater than or equal to 0",
        ));
    }
    validate_shared(object, &path, &mut errors, true);
    errors
}

/// The errors of a change of metadata (`ValidateObjectMetaAccessorUpdate`).
pub fn validate_update(new: &Value, old: &Value) -> ErrorList {
    let path = Path::new("metadata");
    let mut errors = ErrorList::new();
    // Once a deletion has begun the list may only shrink, or the deletion might never come to an end.
    if meta::is_being_deleted(old) {
        validate_no_new_finalizers(new, old, &path.child("finalizers"), &mut errors);
    }
    if meta::text(new, &["metadata", "resourceVersion"]).is_empty() {
        errors.push(Error::invalid(&path.child("resourceVersion"), "", "must be specified for an update"));
    }
    if meta::generation(new) < meta::generation(old) {
        errors.push(Error::invalid(
            &path.child("generation"),
            meta::generation(new),
            "must not be decremented",
        ));
    }
    for name in ["name", "namespace", "uid"] {
        let (new, old) = (meta::text(new, &["metadata", name]), meta::text(old, &["metadata", name]));
        if new != old {
            errors.push(Error::invalid(&path.child(name), new, IMMUTABLE));
        }
    }
    for name in ["creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        errors.extend(validate_immutable(
            meta::at(new, &["metadata", name]),
            meta::at(old, &["metadata", name]),
            &path.child(name),
        ));
    }
    validate_shared(new, &path, &mut errors, false);
    errors
}

/// The message about a field that may not change (`FieldImmutableErrorMsg`).
pub const IMMUTABLE: &str = "field is immutable";

/// The error of a field whose value changed, if it did (`ValidateImmutableField`).
pub fn validate_immutable(new: Option<&Value>, old: Option<&Value>, field: &Path) -> Option<Error> {
    if meta::same(new, old) {
        return None;
    }
    // Go prints the nil pointer as the string "null".
    let value = new.filter(|v| !v.is_null()).cloned().unwrap_or_else(|| "null".into());
    Some(Error::invalid(field, value, IMMUTABLE))
}

/// The errors of a map of labels.
pub fn validate_labels(labels: &Map<String, Value>, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (key, value) in labels {
        errors.extend(
            names::is_qualified_name(key).into_iter().map(|m| Error::invalid(field, key.as_str(), m)),
        );
        let value = value.as_str().unwrap_or_default();
        errors.extend(names::is_label_value(value).into_iter().map(|m| Error::invalid(field, value, m)));
    }
    errors
}

/// The errors of a map of annotations.
fn validate_annotations(annotations: &Map<String, Value>, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let mut size = 0;
    for (key, value) in annotations {
        // Annotation keys may have capitals in their prefix, unlike those of labels; the message quotes the key as it is.
        let folded = key.to_lowercase();
        errors.extend(
            names::is_qualified_name(&folded).into_iter().map(|m| Error::invalid(field, key.as_str(), m)),
        );
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.push(Error::too_long(field, MAX_ANNOTATIONS));
    }
    errors
}

/// The errors of a finalizer's name (`ValidateFinalizerName`).
pub fn validate_finalizer_name(name: &str, field: &Path) -> ErrorList {
    names::is_qualified_name(name).into_iter().map(|m| Error::invalid(field, name, m)).collect()
}

/// The errors of a field manager's name (`ValidateFieldManager`).
pub fn validate_field_manager(manager: &str, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    if manager.len() > MAX_MANAGER {
        errors.push(Error::too_long(field, MAX_MANAGER));
        // kube-apiserver goes on and looks at the characters. Each error about one quotes the whole name, so a long name of
        // bad characters would become gigabytes of messages.
        return errors;
    }
    for (position, c) in manager.char_indices() {
        if !is_print(c) {
            let code = c as u32;
            // `%#U` leaves out the character itself where it cannot be printed.
            let detail = format!("invalid character U+{code:04X} (at position {position})");
            errors.push(Error::invalid(field, manager, detail));
        }
    }
    errors
}

/// Go's `unicode.IsPrint`, as far as the standard library knows: letters, marks, numbers, punctuation, symbols
/// and the ASCII space.
fn is_print(c: char) -> bool {
    let code = c as u32;
    let format_or_private = matches!(code,
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x180e | 0x200b..=0x200f | 0x202a..=0x202e
        | 0x2060..=0x206f | 0xe000..=0xf8ff | 0xfeff | 0xfff0..=0xfffb | 0xe0000..=0x10ffff);
    c == ' ' || !(c.is_control() || c.is_whitespace() || format_or_private || code & 0xfffe == 0xfffe)
}

fn validate_namespace(namespace: &str, namespaced: bool, field: &Path, errors: &mut ErrorList) {
    match (namespaced, namespace.is_empty()) {
        (true, true) => errors.push(Error::required(field, "")),
        (true, false) => errors.extend(
            names::is_dns1123_label(namespace, false)
                .into_iter()
                .map(|m| Error::invalid(field, namespace, m)),
        ),
        (false, false) => errors.push(Error::forbidden(field, "not allowed on this type")),
        (false, true) => {}
    }
}

/// What create and update both look at; finalizers only on create, as `ValidateObjectMetaAccessorUpdate` does not check
/// their names.
fn validate_shared(object: &Value, path: &Path, errors: &mut ErrorList, with_finalizers: bool) {
    if let Some(labels) = meta::map(object, &["metadata", "labels"]) {
        errors.append(validate_labels(labels, &path.child("labels")));
    }
    if let Some(annotations) = meta::map(object, &["metadata", "annotations"]) {
        errors.append(validate_annotations(annotations, &path.child("annotations")));
    }
    let owners = meta::list(object, &["metadata", "ownerReferences"]);
    errors.append(validate_owner_references(owners, &path.child("ownerReferences")));
    if with_finalizers {
        let finalizers = meta::list(object, &["metadata", "finalizers"]);
        errors.append(validate_finalizers(finalizers, &path.child("finalizers")));
    }
    let managed = meta::list(object, &["metadata", "managedFields"]);
    errors.append(validate_managed_fields(managed, &path.child("managedFields")));
}

fn validate_owner_references(owners: &[Value], field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    // The first owner that is a controller, and how many errors about others were reported.
    let mut controller: Option<String> = None;
    let mut further = 0;
    for owner in owners {
        let api_version = meta::text(owner, &["apiVersion"]);
        let kind = meta::text(owner, &["kind"]);
        // `schema.FromAPIVersionAndKind`: an `apiVersion` that does not parse leaves group and version empty and keeps the
        // kind, so that only the version is complained of.
        let version = match api_version.split_once('/') {
            None => api_version,
            Some((_, version)) if !version.contains('/') => version,
            Some(_) => "",
        };
        if version.is_empty() {
            errors.push(Error::invalid(&field.child("apiVersion"), api_version, "version must not be empty"));
        }
        for name in ["kind", "name", "uid"] {
            if meta::text(owner, &[name]).is_empty() {
                errors.push(Error::invalid(&field.child(name), "", "must not be empty"));
            }
        }
        if api_version == "v1" && kind == "Event" {
            let detail = "/v1, Kind=Event is disallowed from being an owner";
            errors.push(Error::invalid(field, owner.clone(), detail));
        }
        if meta::at(owner, &["controller"]) == Some(&Value::Bool(true)) {
            let current = format!("{kind}/{}", meta::text(owner, &["name"]));
            match &controller {
                Some(_) if further == MAX_CONTROLLER_ERRORS => {}
                Some(first) => {
                    further += 1;
                    let detail = format!(
                        "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {current}"
                    );
                    errors.push(Error::invalid(field, owners.to_vec(), detail));
                }
                None => controller = Some(current),
            }
        }
    }
    errors
}

fn validate_finalizers(finalizers: &[Value], field: &Path) -> ErrorList {
    let mut errors: ErrorList =
        finalizers.iter().filter_map(Value::as_str).map(|f| validate_finalizer_name(f, field)).collect();
    let has = |name: &str| finalizers.iter().any(|f| f == name);
    if has("orphan") && has("foregroundDeletion") {
        let detail = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(Error::invalid(field, finalizers.to_vec(), detail));
    }
    errors
}

fn validate_no_new_finalizers(new: &Value, old: &Value, field: &Path, errors: &mut ErrorList) {
    // Sets, so that moving a finalizer within the list adds nothing, and the message lists them sorted as Go's does.
    let set = |object| -> BTreeSet<&str> {
        meta::list(object, &["metadata", "finalizers"]).iter().filter_map(Value::as_str).collect()
    };
    let extra: Vec<String> = set(new).difference(&set(old)).map(|name| go_quote(name)).collect();
    if !extra.is_empty() {
        let detail = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            extra.join(", ")
        );
        errors.push(Error::forbidden(field, detail));
    }
}

fn validate_managed_fields(entries: &[Value], field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    for (index, entry) in entries.iter().enumerate() {
        let field = field.index(index);
        let operation = meta::text(entry, &["operation"]);
        if operation != "Apply" && operation != "Update" {
            errors.push(Error::invalid(&field.child("operation"), operation, "must be `Apply` or `Update`"));
        }
        let fields_type = meta::text(entry, &["fieldsType"]);
        if !fields_type.is_empty() && fields_type != "FieldsV1" {
            errors.push(Error::invalid(&field.child("fieldsType"), fields_type, "must be `FieldsV1`"));
        }
        errors.append(validate_field_manager(meta::text(entry, &["manager"]), &field.child("manager")));
        if meta::text(entry, &["subresource"]).len() > MAX_SUBRESOURCE {
            errors.push(Error::too_long(&field.child("subresource"), MAX_SUBRESOURCE));
        }
    }
    errors
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(name: &str, prefix: bool) -> Vec<String> {
        names::is_dns1123_subdomain(name, prefix)
    }

    fn texts(errors: &ErrorList) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn create_errors_come_in_the_order_of_the_fields() {
        let object = json!({"metadata": {
            "generateName": "Bad_", "namespace": "", "generation": -1,
            "labels": {"a": "-x", "/a": ""}, "annotations": {"UPPER.example/ok": "any\n"},
            "ownerReferences": [{"apiVersion": "v1", "kind": "Event", "name": "e"}],
            "finalizers": ["orphan", "foregroundDeletion", "a b"],
            "managedFields": [{"operation": "Other", "fieldsType": "FieldsV1", "manager": "a\nb"}],
        }});
        let found = texts(&validate(&object, true, &rule));
        let starts = [
            "metadata.generateName: Invalid value: \"Bad_\": a lowercase RFC 1123 subdomain",
            "metadata.name: Required value: name or generateName is required",
            "metadata.namespace: Required value",
            "metadata.generation: Invalid value: -1: must be greater than or equal to 0",
            "metadata.labels: Invalid value: \"/a\": prefix part must be non-empty",
            "metadata.labels: Invalid value: \"-x\": a valid label must be",
            "metadata.ownerReferences.uid: Invalid value: \"\": must not be empty",
            "metadata.ownerReferences: Invalid value: {",
            "metadata.finalizers: Invalid value: \"a b\": name part must consist",
            "metadata.finalizers: Invalid value: [\"orphan\",\"foregroundDeletion\",\"a b\"]: finalizer orphan and",
            "metadata.managedFields[0].operation: Invalid value: \"Other\": must be `Apply` or `Update`",
            "metadata.managedFields[0].manager: Invalid value: \"a\\nb\": invalid character U+000A (at position 1)",
        ];
        assert_eq!(found.len(), starts.len(), "{found:#?}");
        for (found, start) in found.iter().zip(starts) {
            assert!(found.starts_with(start), "{found}");
        }
        let clustered = json!({"metadata": {"name": "x", "namespace": "y"}});
        assert_eq!(
            texts(&validate(&clustered, false, &rule)),
            ["metadata.namespace: Forbidden: not allowed on this type"]
        );
    }

    #[test]
    fn annotations_are_limited_in_sum() {
        let at_limit = json!({"a": "x".repeat(MAX_ANNOTATIONS - 1)});
        let over = json!({"a": "x".repeat(MAX_ANNOTATIONS)});
        let path = Path::new("metadata.annotations");
        assert!(validate_annotations(at_limit.as_object().unwrap(), &path).is_empty());
        assert_eq!(
            texts(&validate_annotations(over.as_object().unwrap(), &path)),
            ["metadata.annotations: Too long: may not be more than 262144 bytes"]
        );
    }

    #[test]
    fn updates_may_not_touch_identity_nor_add_finalizers_to_the_dying() {
        let old = json!({"metadata": {"name": "a", "uid": "u", "creationTimestamp": "2026-01-02T03:04:05Z",
            "generation": 2, "deletionTimestamp": "2026-01-02T03:04:06Z", "finalizers": ["e.com/b"]}});
        let new = json!({"metadata": {"name": "b", "uid": "v", "generation": 1,
            "finalizers": ["e.com/z", "e.com/b", "e.com/a"]}});
        assert_eq!(
            texts(&validate_update(&new, &old)),
            [
                "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"e.com/a\", \"e.com/z\"}",
                "metadata.resourceVersion: Invalid value: \"\": must be specified for an update",
                "metadata.generation: Invalid value: 1: must not be decremented",
                "metadata.name: Invalid value: \"b\": field is immutable",
                "metadata.uid: Invalid value: \"v\": field is immutable",
                "metadata.creationTimestamp: Invalid value: \"null\": field is immutable",
                "metadata.deletionTimestamp: Invalid value: \"null\": field is immutable",
            ]
        );
    }

    #[test]
    fn a_manager_that_is_too_long_is_not_quoted_for_each_of_its_characters() {
        let field = Path::new("fieldManager");
        let errors = |length: usize| validate_field_manager(&"\u{7}".repeat(length), &field);
        assert_eq!(errors(100).len(), 100);
        assert_eq!(errors(MAX_MANAGER + 1), [Error::too_long(&field, MAX_MANAGER)].into());
    }
}
