//! Namespaces: the finalizer `kubernetes` that holds a deleted one until its content is gone, the label with its
//! name, and what a namespace says to requests inside it (`pkg/registry/core/namespace`,
//! `k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle`).

use super::printers;
use super::stored::{self, SUBRESOURCE_VERBS, StoredKind};
use crate::strategy::{Column, Context, Handler, Resource, Strategy, Subresource};
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::field::{Error, ErrorList, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::{Cause, GroupResource, Status};
use fleetpass_apimachinery::validation::{metadata, names};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::sync::Arc;

const RESOURCE: GroupResource<'static> = GroupResource { group: "", resource: "namespaces" };
const NAME_LABEL: &str = "kubernetes.io/metadata.name";
/// The entry of `spec.finalizers` that stands for the namespace's content.
const FINALIZER: &str = "kubernetes";
/// The namespaces that nobody may delete (`immortalNamespaces` of the plugin `NamespaceLifecycle`).
const IMMORTAL: [&str; 3] = ["default", "kube-system", "kube-public"];
/// Finalizers that need no domain (`IsStandardFinalizerName`).
const STANDARD_FINALIZERS: [&str; 3] = [FINALIZER, "orphan", "foregroundDeletion"];

/// The row of Namespaces.
pub(crate) fn resource() -> Resource {
    let kind = StoredKind {
        group: "",
        version: "v1",
        kind: "Namespace",
        plural: "namespaces",
        definition: "io.k8s.api.core.v1.Namespace",
        namespaced: false,
        short_names: &["ns"],
        selectable_fields: &["name", "status.phase"],
        columns: vec![
            Column::name(),
            Column::new("Status", "string", "", "Active, or Terminating once it was deleted.", 0),
            Column::age(),
        ],
    };
    let mut resource = stored::resource(kind, Arc::new(Namespaces(Part::Main)));
    // Nobody deletes all namespaces with one request, in Kubernetes either.
    resource.verbs.retain(|verb| verb != "deletecollection");
    resource.delete_returns_object = true;
    let part = |name, verbs, part| Subresource {
        name,
        body: None,
        schema: None,
        verbs,
        handler: Handler::Update(Arc::new(Namespaces(part))),
        versions: None,
    };
    resource.subresources =
        vec![part("finalize", &["update"], Part::Finalize), part("status", SUBRESOURCE_VERBS, Part::Status)];
    resource
}

/// Refuses to create or change something in a namespace that is missing (404), and to create something in one
/// that is being terminated (403). `name` is that of the object, or of the parent of a subresource.
pub(crate) fn admit_into(
    lister: &dyn Lister,
    namespace: &str,
    create: bool,
    gr: GroupResource<'_>,
    name: &str,
) -> Result<(), Status> {
    let Some(found) = lister.get("", "namespaces", "", namespace) else {
        return Err(Status::not_found(RESOURCE, namespace));
    };
    // The phase and not the deletionTimestamp, as the plugin does. Existing objects can still be changed:
    // finalizers have to be taken off for the namespace to go.
    if !create || meta::text(&found, &["status", "phase"]) != "Terminating" {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut status = Status::forbidden(gr, name, why);
    if let Some(details) = &mut status.details {
        details.causes.push(Cause {
            reason: "NamespaceTerminating".into(),
            message: format!("namespace {namespace} is being terminated"),
            field: "metadata.namespace".into(),
        });
    }
    Err(status)
}

/// Which part of a namespace a request writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Main,
    Finalize,
    Status,
}

struct Namespaces(Part);

impl Strategy for Namespaces {
    fn default(&self, object: &mut Value) {
        // A generated name is not known yet; `canonicalize` makes up for it.
        if !meta::name(object).is_empty() {
            set_name_label(object);
        }
        let status = meta::child_mut(meta::as_map_mut(object), "status");
        if status.get("phase").and_then(Value::as_str).is_none_or(str::is_empty) {
            status.insert("phase".into(), "Active".into());
        }
    }

    fn prepare_for_create(&self, _ctx: &Context<'_>, object: &mut Value) {
        let object = meta::as_map_mut(object);
        object.insert("status".into(), json!({"phase": "Active"}));
        // Every new namespace gets it, but not by default: it is taken off when the content is gone, and a default would put
        // it back.
        let finalizers = meta::child_mut(object, "spec").entry("finalizers").or_insert_with(|| json!([]));
        if let Value::Array(finalizers) = finalizers
            && !finalizers.iter().any(|f| f == FINALIZER)
        {
            finalizers.push(FINALIZER.into());
        }
    }

    fn validate(&self, _ctx: &Context<'_>, object: &Value) -> ErrorList {
        let path = Path::new("spec.finalizers");
        // The path has no index here, and has one on `/finalize`: so do `ValidateNamespace` and
        // `ValidateNamespaceFinalizeUpdate`.
        finalizers(object).map(|name| validate_finalizer(name, &path)).collect()
    }

    fn prepare_for_update(&self, _ctx: &Context<'_>, new: &mut Value, old: &Value) {
        match self.0 {
            Part::Main => {
                // The spec is nothing but the finalizers; only `/finalize` writes them, which takes a permission of
                // its own.
                meta::keep(new, old, "spec");
                meta::keep(new, old, "status");
            }
            Part::Finalize => meta::keep(new, old, "status"),
            Part::Status => meta::keep(new, old, "spec"),
        }
    }

    fn validate_update(&self, ctx: &Context<'_>, new: &Value, old: &Value) -> ErrorList {
        let mut errors = ErrorList::new();
        // The subresources judge only what they write.
        if self.0 == Part::Main {
            errors.append(metadata::validate(new, false, &names::is_dns1123_label));
            errors.append(self.validate(ctx, new));
        }
        errors.append(metadata::validate_update(new, old));
        match self.0 {
            Part::Main => {}
            Part::Finalize => {
                let path = Path::new("spec.finalizers");
                let each = finalizers(new).enumerate();
                errors.append(each.map(|(i, name)| validate_finalizer(name, &path.index(i))).collect());
            }
            Part::Status => errors.extend(validate_phase(new)),
        }
        errors
    }

    fn canonicalize(&self, object: &mut Value) {
        set_name_label(object);
    }

    fn admit_delete(&self, ctx: &Context<'_>) -> Result<(), Status> {
        // Before the lookup: 403 even where such a namespace is missing.
        if IMMORTAL.contains(&ctx.name) {
            return Err(Status::forbidden(RESOURCE, ctx.name, "this namespace may not be deleted"));
        }
        Ok(())
    }

    fn refuse_preconditions(
        &self,
        object: &Value,
        uid: Option<&str>,
        version: Option<&str>,
    ) -> Option<Status> {
        let refuse = |what: &str, wanted: &str, found: &str| {
            let why = format!(
                "Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {found}"
            );
            Some(Status::conflict(RESOURCE, meta::name(object), why))
        };
        let found_version = meta::text(object, &["metadata", "resourceVersion"]);
        // The UID first: if it differs, the resourceVersion is that of another object.
        match (uid, version) {
            (Some(uid), _) if uid != meta::uid(object) => refuse("UID", uid, meta::uid(object)),
            (_, Some(version)) if version != found_version => {
                refuse("ResourceVersion", version, found_version)
            }
            _ => None,
        }
    }

    fn begin_deletion(&self, object: &mut Value) {
        // Its deletion ends when the last finalizer is gone, not when a time is over.
        meta::metadata_mut(object).remove("deletionGracePeriodSeconds");
        meta::child_mut(meta::as_map_mut(object), "status").insert("phase".into(), "Terminating".into());
    }

    fn is_held(&self, object: &Value) -> bool {
        finalizers(object).next().is_some()
    }

    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        names::is_dns1123_label(name, prefix)
    }

    fn selectable_field(&self, object: &Value, label: &str) -> String {
        match label {
            // Without `metadata.`: a mistake of early Kubernetes that clients rely on.
            "name" => meta::name(object).into(),
            "status.phase" => meta::text(object, &["status", "phase"]).into(),
            _ => String::new(),
        }
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        vec![
            printers::name(object),
            meta::text(object, &["status", "phase"]).into(),
            printers::age(object, now),
        ]
    }
}

/// The label by which selectors can name namespaces. Nobody can take it away or change it: it is set at each write.
fn set_name_label(object: &mut Value) {
    let name = Value::from(meta::name(object));
    meta::child_mut(meta::metadata_mut(object), "labels").insert(NAME_LABEL.into(), name);
}

fn finalizers(object: &Value) -> impl Iterator<Item = &str> {
    meta::list(object, &["spec", "finalizers"]).iter().filter_map(Value::as_str)
}

fn validate_finalizer(name: &str, field: &Path) -> ErrorList {
    let mut errors = metadata::validate_finalizer_name(name, field);
    if !name.contains('/') && !STANDARD_FINALIZERS.contains(&name) {
        let detail = "name is neither a standard finalizer name nor is it fully qualified";
        errors.push(Error::invalid(field, name, detail));
    }
    errors
}

fn validate_phase(object: &Value) -> Option<Error> {
    let (wanted, detail) = if meta::is_being_deleted(object) {
        ("Terminating", "may only be 'Terminating' if `deletionTimestamp` is not empty")
    } else {
        ("Active", "may only be 'Active' if `deletionTimestamp` is empty")
    };
    let phase = meta::text(object, &["status", "phase"]);
    // The field is spelled with a capital in kube-apiserver's answers.
    (phase != wanted).then(|| Error::invalid(&Path::new("status.Phase"), phase, detail))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{World, texts};
    use super::*;

    fn created(mut object: Value) -> Value {
        let world = World::default();
        let strategy = Namespaces(Part::Main);
        Strategy::default(&strategy, &mut object);
        strategy.prepare_for_create(&world.ctx("", ""), &mut object);
        strategy.canonicalize(&mut object);
        object
    }

    #[test]
    fn a_new_namespace_is_active_held_and_labelled() {
        for (given, wanted) in [
            (
                json!({"metadata": {"name": "a", "labels": {"team": "a", NAME_LABEL: "liar"}}}),
                json!({"metadata": {"name": "a", "labels": {"team": "a", NAME_LABEL: "a"}},
                    "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}),
            ),
            (
                json!({"metadata": {"name": "a"}, "spec": {"finalizers": ["e.com/mine"]},
                    "status": {"phase": "Terminating"}}),
                json!({"metadata": {"name": "a", "labels": {NAME_LABEL: "a"}},
                    "spec": {"finalizers": ["e.com/mine", "kubernetes"]}, "status": {"phase": "Active"}}),
            ),
        ] {
            assert_eq!(created(given), wanted);
        }
    }

    #[test]
    fn each_part_changes_its_own() {
        let world = World::default();
        let ctx = world.ctx("", "a");
        let old = json!({"metadata": {"name": "a", "resourceVersion": "1"},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let sent = json!({"metadata": {"name": "a", "resourceVersion": "1", "labels": {"l": "x"}},
            "spec": {"finalizers": ["unqualified"]}, "status": {"phase": "Bogus"}});
        let cases: [(Part, &str, &str, &[&str]); 3] = [
            (Part::Main, "kubernetes", "Active", &[]),
            (
                Part::Finalize,
                "unqualified",
                "Active",
                &[
                    "spec.finalizers[0]: Invalid value: \"unqualified\": name is neither a standard finalizer name nor is it fully qualified",
                ],
            ),
            (
                Part::Status,
                "kubernetes",
                "Bogus",
                &[
                    "status.Phase: Invalid value: \"Bogus\": may only be 'Active' if `deletionTimestamp` is empty",
                ],
            ),
        ];
        for (part, finalizer, phase, errors) in cases {
            let strategy = Namespaces(part);
            let mut new = sent.clone();
            strategy.prepare_for_update(&ctx, &mut new, &old);
            assert_eq!(new["spec"]["finalizers"][0], finalizer);
            assert_eq!(new["status"]["phase"], phase);
            assert_eq!(new["metadata"]["labels"]["l"], "x");
            assert_eq!(texts(&strategy.validate_update(&ctx, &new, &old)), errors);
        }
    }

    #[test]
    fn deletion_is_held_by_spec_finalizers_and_refused_for_the_immortal() {
        let strategy = Namespaces(Part::Main);
        let world = World::default();
        assert_eq!(strategy.admit_delete(&world.ctx("", "a")), Ok(()));
        let refusal = strategy.admit_delete(&world.ctx("", "kube-system")).unwrap_err();
        assert_eq!(
            refusal.message,
            "namespaces \"kube-system\" is forbidden: this namespace may not be deleted"
        );

        let mut object = created(json!({"metadata": {"name": "a", "uid": "u", "resourceVersion": "7"}}));
        assert!(strategy.is_held(&object));
        meta::metadata_mut(&mut object).insert("deletionGracePeriodSeconds".into(), 0.into());
        strategy.begin_deletion(&mut object);
        assert_eq!(object["status"]["phase"], "Terminating");
        assert!(object["metadata"].get("deletionGracePeriodSeconds").is_none());
        object["spec"]["finalizers"] = json!([]);
        assert!(!strategy.is_held(&object));

        assert_eq!(strategy.refuse_preconditions(&object, Some("u"), Some("7")), None);
        let refusal = strategy.refuse_preconditions(&object, Some("v"), None).unwrap();
        assert_eq!(
            refusal.message,
            "Operation cannot be fulfilled on namespaces \"a\": Precondition failed: UID in precondition: v, UID in object meta: u"
        );
    }

    #[test]
    fn a_terminating_namespace_takes_nothing_new() {
        let world = World::with(vec![
            ("", "namespaces", json!({"metadata": {"name": "on"}, "status": {"phase": "Active"}})),
            ("", "namespaces", json!({"metadata": {"name": "off"}, "status": {"phase": "Terminating"}})),
        ]);
        let secrets = GroupResource { group: "", resource: "secrets" };
        let admit = |ns, create| admit_into(&world.objects, ns, create, secrets, "late");
        assert_eq!(admit("on", true), Ok(()));
        assert_eq!(admit("off", false), Ok(()));
        assert_eq!(admit("none", true).unwrap_err().message, "namespaces \"none\" not found");
        let refusal = admit("off", true).unwrap_err().to_json();
        assert_eq!(
            refusal["message"],
            "secrets \"late\" is forbidden: unable to create new content in namespace off because it is being terminated"
        );
        assert_eq!(
            refusal["details"]["causes"],
            json!([{"reason": "NamespaceTerminating", "message": "namespace off is being terminated",
                "field": "metadata.namespace"}])
        );
    }
}
