//! What is special about a kind: the row that describes it, and the named phases of a write.
//!
//! The registry is one engine for all kinds. It decodes and defaults a body, calls the phases of the kind's
//! [`Strategy`] in kube-apiserver's order (`k8s.io/apiserver/pkg/registry/rest/create.go`, `update.go`), and
//! commits. Everything here is synchronous and works on memory: time, user and other objects are in [`Context`].
//!
//! | phase | create | update, patch, apply | delete |
//! | --- | --- | --- | --- |
//! | before the object is looked up | | | `admit_delete` |
//! | decoded | `default` | `default` | |
//! | may refuse, may change | `admit` | `admit` | |
//! | what clients may not set | `prepare_for_create` | `prepare_for_update`, then generation | |
//! | all errors at once | `validate_name`, `validate` | `validate_update` | `refuse_preconditions` |
//! | may refuse only | `admit_final` | `admit_final` | |
//! | | `warnings` | `warnings` | |
//! | | `canonicalize` | `canonicalize` | `graceful_deletion`, `begin_deletion` |
//! | gone or kept | | `is_held` | `is_held` |
//!
//! A phase may be called more than once for one request, since a write is tried again after a conflict, and its result may be
//! thrown away (dry run). So a phase must not have effects.

use async_trait::async_trait;
use fleetpass_apimachinery::Lister;
use fleetpass_apimachinery::field::ErrorList;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_auth::authz::Authorizer;
use fleetpass_auth::authz::escalation::Grantor;
use fleetpass_schema::{Schema, crd};
use jiff::Timestamp;
use serde_json::Value;
use std::sync::{Arc, OnceLock};

/// What a phase may know about the request.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The user who makes the request, after impersonation.
    pub user: &'a UserInfo,
    /// The present moment; the same for the whole request.
    pub now: Timestamp,
    /// The namespace of the request; empty for cluster scope.
    pub namespace: &'a str,
    /// The name in the path; empty on create.
    pub name: &'a str,
    /// The version in the path, such as `v1`.
    pub version: &'a str,
    /// `dryRun=All`: nothing will be stored.
    pub dry_run: bool,
    /// The other objects, from the watch cache. Read without a lock: they may change before the commit, as in kube-apiserver.
    pub lister: &'a dyn Lister,
    /// For rules that depend on what the user may do (escalation, approval).
    pub authorizer: &'a dyn Authorizer,
}

impl<'a> Context<'a> {
    /// The user as somebody who writes a role or a binding.
    pub fn grantor(&self) -> Grantor<'a> {
        Grantor {
            user: self.user,
            namespace: self.namespace,
            name: self.name,
            lister: self.lister,
            authorizer: self.authorizer,
        }
    }
}

/// The named phases of a write to one kind (or to one subresource of it). An object is a JSON tree that was
/// decoded by the kind's schema: unknown fields are gone, types are right, empty optional members are absent.
/// `metadata` is cared for by the registry (name, namespace, uid, creationTimestamp, generation rules below,
/// managedFields, labels and annotations validation).
pub trait Strategy: Send + Sync + 'static {
    /// Fills in defaults (`SetDefaults_…`, `SetObjectDefaults_…` of the kind's version). Runs after decoding, on
    /// writes and before a patch is applied.
    fn default(&self, _object: &mut Value) {}
    /// Clears what a client may not set on create, such as `status`; sets what the kind itself sets.
    fn prepare_for_create(&self, _ctx: &Context<'_>, _object: &mut Value) {}
    /// Admission: may change the object or refuse the request with any status; runs before
    /// `prepare_for_create` and before `prepare_for_update`. `old` is `None` on create.
    fn admit(&self, _ctx: &Context<'_>, _object: &mut Value, _old: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
    /// The errors of a new object, in kube-apiserver's order (metadata is validated by the registry, first).
    fn validate(&self, _ctx: &Context<'_>, _object: &Value) -> ErrorList {
        ErrorList::new()
    }
    /// Keeps from `old` what this request may not change (status on the main resource, spec on `/status`).
    fn prepare_for_update(&self, _ctx: &Context<'_>, _new: &mut Value, _old: &Value) {}
    /// The errors of a change.
    fn validate_update(&self, ctx: &Context<'_>, new: &Value, _old: &Value) -> ErrorList {
        self.validate(ctx, new)
    }
    /// Brings a stored object into the form in which `version` shows it, where that is not the stored form
    /// (custom resources whose definition changed since, or whose versions differ).
    fn show(&self, _object: &mut Value, _version: &str) {}
    /// The last touch before storing (`Canonicalize`).
    fn canonicalize(&self, _object: &mut Value) {}
    /// Warnings for the `Warning` header.
    fn warnings(&self, _ctx: &Context<'_>, _object: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }
    /// Refuses a deletion, or asks for a graceful one. `None`: delete now (unless finalizers hold it).
    /// `Some(seconds)`: mark with this grace period and keep until deleted with 0. `Some(0)`: delete now, but answer
    /// with the object as marked (`deletionTimestamp`, a grace period of 0, the next generation).
    fn graceful_deletion(&self, _ctx: &Context<'_>, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }
    /// Admission of a deletion; runs before the object is looked up (`ctx.name` is its name).
    fn admit_delete(&self, _ctx: &Context<'_>) -> Result<(), Status> {
        Ok(())
    }
    /// The refusal of a deletion whose preconditions (UID, resourceVersion) the object does not meet, where the
    /// kind words it in its own way; `None` leaves the check to the registry.
    fn refuse_preconditions(
        &self,
        _object: &Value,
        _uid: Option<&str>,
        _resource_version: Option<&str>,
    ) -> Option<Status> {
        None
    }
    /// Whether managed fields are kept for writes that are no apply. A real server fails to, without a word, for
    /// kinds whose Go types its field manager cannot convert (CertificateSigningRequests in 1.36).
    fn tracks_fields(&self) -> bool {
        true
    }
    /// What else changes when an object has got its `deletionTimestamp` and stays for now.
    fn begin_deletion(&self, _object: &mut Value) {}
    /// Whether something of the kind itself holds a deleted object, beside `metadata.finalizers` and the grace
    /// period (`spec.finalizers` of namespaces). A held object that is already marked is answered as it is; it
    /// goes with the update that lets go of it last.
    fn is_held(&self, _object: &Value) -> bool {
        false
    }
    /// Whether PUT on a missing object creates it.
    fn allow_create_on_update(&self) -> bool {
        false
    }
    /// Whether PUT without a resourceVersion overwrites.
    fn allow_unconditional_update(&self) -> bool {
        true
    }
    /// Whether `metadata.generation` counts changes of anything but metadata and status (the kind's
    /// `prepare_for_update` in kube-apiserver does it by hand; here one rule serves those kinds that want it).
    fn counts_generation(&self) -> bool {
        false
    }
    /// Admission that looks at the final object and cannot change it; runs after validation, before storing
    /// (validating admission). `old` is `None` on create.
    fn admit_final(&self, _ctx: &Context<'_>, _object: &Value, _old: Option<&Value>) -> Result<(), Status> {
        Ok(())
    }
    /// What is wrong with a name; with `prefix` true the name is a `generateName`.
    fn validate_name(&self, name: &str, prefix: bool) -> Vec<String> {
        fleetpass_apimachinery::validation::names::is_dns1123_subdomain(name, prefix)
    }
    /// Whether a field selector may name `label` in requests to `version`; asked only for labels that are in
    /// [`Resource::selectable_fields`] (each version of a CRD has fields of its own).
    fn is_selectable(&self, _version: &str, _label: &str) -> bool {
        true
    }
    /// The values of the field labels that a field selector may name, beyond `metadata.name` and
    /// `metadata.namespace`; a label not in [`Resource::selectable_fields`] is refused before this is asked.
    fn selectable_field(&self, _object: &Value, _label: &str) -> String {
        String::new()
    }
    /// Whether a write may keep a core busy for milliseconds though body and object are short: because it multiplies lists,
    /// compiles, or evaluates rules. Such requests are worked on in the pool for heavy work.
    fn is_heavy(&self) -> bool {
        false
    }
    /// The cells of a Table row, one for each column of the version that is asked for.
    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value>;
}

/// A column of a Table.
#[derive(Debug, Clone)]
pub struct Column {
    /// `Name`, `Age`, …
    pub name: String,
    /// `string`, `integer`, `date`, …
    pub kind: String,
    /// `name` for the Name column, else mostly empty.
    pub format: String,
    /// What it shows, in our own words.
    pub description: String,
    /// 0 is always shown; more only with `-o wide`.
    pub priority: i64,
}

impl Column {
    /// A column; `kind` is the OpenAPI type.
    pub fn new(name: &str, kind: &str, format: &str, description: &str, priority: i64) -> Self {
        Self {
            name: name.into(),
            kind: kind.into(),
            format: format.into(),
            description: description.into(),
            priority,
        }
    }
    /// The `Name` column that nearly every kind begins with.
    pub fn name() -> Self {
        Self::new(
            "Name",
            "string",
            "name",
            "Name of the object, unique within its namespace (or the cluster).",
            0,
        )
    }
    /// The `Age` column.
    pub fn age() -> Self {
        Self::new("Age", "string", "", "Time since the object was created.", 0)
    }
}

/// A request to an [`Action`].
pub struct ActionRequest<'a> {
    /// User, time and place of the request.
    pub ctx: Context<'a>,
    /// The decoded and defaulted body.
    pub object: Value,
    /// dry run and field manager.
    pub options: &'a WriteOptions,
    /// What the action adds to the audit event, such as the id of the token that it has issued.
    pub notes: &'a crate::audit::event::Notes,
}

/// The query options of a write, validated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// `dryRun=All`.
    pub dry_run: bool,
    /// `fieldManager`, or empty.
    pub field_manager: String,
}

/// What a kind that is not stored does on create: reviews, and subresources such as `token`.
#[async_trait]
pub trait Action: Send + Sync + 'static {
    /// Fills in defaults of the body.
    fn default(&self, _object: &mut Value) {}
    /// Answers: the object to send back (201), with any warnings.
    async fn create(&self, request: ActionRequest<'_>) -> Result<(Value, Vec<String>), Status>;
}

/// How a subresource is served.
#[derive(Clone)]
pub enum Handler {
    /// get, update and patch of the parent object under a strategy of its own (`status`, `finalize`, `approval`).
    Update(Arc<dyn Strategy>),
    /// create only (`token`).
    Create(Arc<dyn Action>),
    /// `scale` of a custom resource: the JSON paths of its CRD.
    Scale(Arc<ScalePaths>),
}

/// The JSON paths of a CRD's scale subresource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ScalePaths {
    /// `specReplicasPath`, such as `.spec.replicas`.
    pub spec_replicas: String,
    /// `statusReplicasPath`.
    pub status_replicas: String,
    /// `labelSelectorPath`.
    pub label_selector: Option<String>,
}

/// A subresource of a kind.
#[derive(Clone)]
pub struct Subresource {
    /// `status`, `token`, …
    pub name: &'static str,
    /// Group, version and kind of its body where they differ from the parent's.
    pub body: Option<(&'static str, &'static str, &'static str)>,
    /// The schema of that body.
    pub schema: Option<Arc<Schema>>,
    /// The verbs that discovery lists.
    pub verbs: &'static [&'static str],
    /// Who serves it.
    pub handler: Handler,
    /// The versions that have it; `None`: all (each version of a CRD has subresources of its own).
    pub versions: Option<Vec<String>>,
}

impl Subresource {
    /// Whether `version` has this subresource.
    pub fn is_in(&self, version: &str) -> bool {
        self.versions.as_ref().is_none_or(|versions| versions.iter().any(|v| v == version))
    }
}

/// The schema of a version. That of a CRD is kept as text until somebody needs it: a server may have many definitions whose
/// kinds nobody uses, and the table of kinds follows every change of them. Clones share what was read.
#[derive(Clone)]
pub struct LazySchema(Arc<SchemaSource>);

struct SchemaSource {
    /// `openAPIV3Schema` in JSON; empty if the schema was there from the beginning.
    text: Box<str>,
    read: OnceLock<Arc<Schema>>,
}

impl LazySchema {
    /// The schema in a version of a CRD, as the JSON text of its `openAPIV3Schema`.
    pub(crate) fn of_crd(text: &str) -> Self {
        Self(Arc::new(SchemaSource { text: text.into(), read: OnceLock::new() }))
    }

    /// The text that it was made of.
    pub(crate) fn text(&self) -> &str {
        &self.0.text
    }

    /// Whether somebody has needed it.
    #[cfg(test)]
    pub(crate) fn is_read(&self) -> bool {
        self.0.read.get().is_some()
    }
}

impl std::ops::Deref for LazySchema {
    type Target = Arc<Schema>;

    /// Reads the schema the first time, in time linear in its text; whoever asks at the same time waits.
    fn deref(&self) -> &Arc<Schema> {
        self.0.read.get_or_init(|| {
            // Stored definitions were parsed before; one without a schema has the empty text.
            let props: Value = serde_json::from_str(&self.0.text).unwrap_or_default();
            Arc::new(crd::schema(&props))
        })
    }
}

impl From<Arc<Schema>> for LazySchema {
    fn from(schema: Arc<Schema>) -> Self {
        Self(Arc::new(SchemaSource { text: Box::default(), read: OnceLock::from(schema) }))
    }
}

/// How stored objects are shown in one version of a kind.
#[derive(Clone)]
pub struct Version {
    /// `v1`, `v1beta1`, …
    pub name: String,
    /// The schema of this version.
    pub schema: LazySchema,
    /// The columns of its Table.
    pub columns: Arc<Vec<Column>>,
    /// The warning for requests to a deprecated version.
    pub deprecation: Option<String>,
}

/// Where requests for a kind go.
#[derive(Clone)]
pub enum Backing {
    /// Stored objects, written under this strategy.
    Stored(Arc<dyn Strategy>),
    /// Not stored: create answers, nothing else is possible.
    Virtual(Arc<dyn Action>),
}

/// One row of the table of kinds.
#[derive(Clone)]
pub struct Resource {
    /// The API group; empty for core.
    pub group: String,
    /// The plural name, as in paths.
    pub plural: String,
    /// The singular name, as in discovery.
    pub singular: String,
    /// The kind.
    pub kind: String,
    /// The kind of its list.
    pub list_kind: String,
    /// `sa`, `ns`, …
    pub short_names: Vec<String>,
    /// `all`, …
    pub categories: Vec<String>,
    /// Whether objects live in namespaces.
    pub namespaced: bool,
    /// The verbs that discovery lists, in its order.
    pub verbs: Vec<String>,
    /// The served versions, in discovery's order.
    pub versions: Vec<Version>,
    /// The version in which objects are stored.
    pub storage_version: String,
    /// Field labels beyond `metadata.name` and `metadata.namespace` that a selector may use.
    pub selectable_fields: Vec<String>,
    /// Stored or virtual.
    pub backing: Backing,
    /// The subresources.
    pub subresources: Vec<Subresource>,
    /// Whether a delete answers with the deleted object (ServiceAccount, Namespace, Pod) or with a Status.
    pub delete_returns_object: bool,
    /// A second view of another row's objects (events.k8s.io/v1 over core/v1 Event).
    pub view: Option<Arc<dyn View>>,
    /// Whether this row comes from a CRD (its answers keep the CRD conventions, e.g. of defaulting on read).
    pub custom: bool,
    /// Objects written at this revision or later are stored in the form in which all versions show them, and are
    /// served as bytes; older ones go through [`Strategy::show`]. 0 for built-in kinds.
    pub uniform_since: fleetpass_store::Revision,
}

impl Resource {
    /// The strategy of a stored kind.
    pub fn strategy(&self) -> Option<&Arc<dyn Strategy>> {
        match &self.backing {
            Backing::Stored(strategy) => Some(strategy),
            Backing::Virtual(_) => None,
        }
    }
}

/// A second form in which stored objects are read and written.
pub trait View: Send + Sync + 'static {
    /// Group and plural of the row whose objects these are.
    fn stored_as(&self) -> (&'static str, &'static str);
    /// From the stored form. `metadata` must stay as it is: where it is wanted alone, it is served from the stored text.
    fn show_stored(&self, object: &Value) -> Value;
    /// To the stored form.
    fn to_stored(&self, object: &Value) -> Value;
}
