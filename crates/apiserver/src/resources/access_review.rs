//! What the reviews of access share (`pkg/registry/authorization`, `pkg/apis/authorization/validation`): they
//! are not stored, they answer what the authorizer thinks.

use crate::strategy::{Action, ActionRequest, Backing, Resource, Version};
use fleetpass_apimachinery::field::{Error, ErrorList, ErrorType, Path};
use fleetpass_apimachinery::meta;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::user::UserInfo;
use fleetpass_apimachinery::validation::selectors;
use fleetpass_auth::authz::{Attributes, Decision};
use fleetpass_schema::openapi::builtin;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The API group of the reviews.
pub(super) const GROUP: &str = "authorization.k8s.io";

/// The row of a review.
pub(super) fn row(kind: &str, namespaced: bool, action: Arc<dyn Action>) -> Resource {
    let singular = kind.to_lowercase();
    Resource {
        group: GROUP.into(),
        plural: format!("{singular}s"),
        singular,
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        short_names: Vec::new(),
        categories: Vec::new(),
        namespaced,
        verbs: vec!["create".into()],
        versions: vec![Version {
            name: "v1".into(),
            schema: builtin(&format!("io.k8s.api.authorization.v1.{kind}")).into(),
            columns: Arc::default(),
            deprecation: None,
        }],
        storage_version: "v1".into(),
        selectable_fields: Vec::new(),
        backing: Backing::Virtual(action),
        subresources: Vec::new(),
        delete_returns_object: false,
        view: None,
        custom: false,
        uniform_since: 0,
    }
}

/// The errors of a review's spec. Without `asks_user` the review is about the user who sends it.
pub(super) fn validate_spec(review: &Value, asks_user: bool) -> ErrorList {
    let mut errors = ErrorList::new();
    let spec = Path::new("spec");
    let (resource, path) = (resource_attributes(review), non_resource_attributes(review));
    if let (Some(_), Some(path)) = (resource, path) {
        let detail = "cannot be specified in combination with resourceAttributes";
        errors.push(Error::invalid(&spec.child("nonResourceAttributes"), go_form(path), detail));
    }
    if resource.is_none() && path.is_none() {
        let detail = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(Error::invalid(&spec.child("resourceAttributes"), Value::Null, detail));
    }
    // Reviews about oneself have no such fields.
    let names_nobody = || {
        meta::text(review, &["spec", "user"]).is_empty() && meta::list(review, &["spec", "groups"]).is_empty()
    };
    if asks_user && names_nobody() {
        let detail = "at least one of user or group must be specified";
        errors.push(Error::invalid(&spec.child("user"), "", detail));
    }
    let field = spec.child("resourceAttributes");
    for kind in [SelectorKind::Field, SelectorKind::Label] {
        if let Some(selector) = resource.and_then(|r| r.get(kind.member())).filter(|s| s.is_object()) {
            errors.append(validate_selector(kind, selector, &field.child(kind.member())));
        }
    }
    errors
}

/// The error of a review whose metadata says more than it may; `detail` is what it must be.
pub(super) fn validate_metadata(review: &Value, ignored: &[&str], detail: &str) -> Option<Error> {
    let metadata = meta::map(review, &["metadata"])?;
    let says = |(key, value): (&String, &Value)| {
        key != "managedFields" && !ignored.contains(&key.as_str()) && !meta::same(Some(value), None)
    };
    metadata.iter().any(says).then(|| Error {
        kind: ErrorType::Invalid,
        field: Path::new("metadata"),
        // The value is part of the detail: it is printed with its members in the order of the Go type.
        value: None,
        detail: format!("{}: {detail}", in_go_order(metadata)),
    })
}

/// The refusal of a review with errors. kube-apiserver leaves the kind empty.
pub(super) fn invalid(errors: &ErrorList) -> Result<(), Status> {
    if errors.is_empty() { Ok(()) } else { Err(Status::invalid(GROUP, "", "", errors)) }
}

/// The `resourceAttributes` of the spec, if they are there; they may be empty.
pub(super) fn resource_attributes(review: &Value) -> Option<&Value> {
    meta::at(review, &["spec", "resourceAttributes"]).filter(|v| v.is_object())
}

/// The `nonResourceAttributes` of the spec, if they are there; they may be empty.
pub(super) fn non_resource_attributes(review: &Value) -> Option<&Value> {
    meta::at(review, &["spec", "nonResourceAttributes"]).filter(|v| v.is_object())
}

/// `nonResourceAttributes` as Go prints the internal type.
pub(super) fn go_form(path: &Value) -> Value {
    json!({"Path": meta::text(path, &["path"]), "Verb": meta::text(path, &["verb"])})
}

/// The user whom a review is about.
pub(super) fn subject(review: &Value) -> UserInfo {
    let strings = |list: &[Value]| list.iter().filter_map(|v| v.as_str().map(str::to_owned)).collect();
    let extra = meta::map(review, &["spec", "extra"]).into_iter().flatten();
    UserInfo {
        name: meta::text(review, &["spec", "user"]).into(),
        uid: meta::text(review, &["spec", "uid"]).into(),
        groups: strings(meta::list(review, &["spec", "groups"])),
        extra: extra.map(|(key, values)| (key.clone(), strings(meta::list(values, &[])))).collect(),
    }
}

/// Answers a valid review about `user`: the review with its status.
pub(super) fn answer(request: &ActionRequest<'_>, kind: &str, user: &UserInfo, mut review: Value) -> Value {
    let (decision, selectors) = decide(request, user, &review);
    let mut status = Map::new();
    status.insert("allowed".into(), decision.allowed.into());
    // What went wrong does not make the answer false: a decision to allow stands even if some rules could not be
    // read.
    let errors: Vec<String> =
        Some(decision.evaluation_error).into_iter().filter(|e| !e.is_empty()).chain(selectors).collect();
    for (key, text) in [("reason", decision.reason), ("evaluationError", errors.join("; "))] {
        if !text.is_empty() {
            status.insert(key.into(), text.into());
        }
    }
    complete(&mut review, kind, status.into());
    review
}

/// Sets what every review's answer has.
pub(super) fn complete(review: &mut Value, kind: &str, status: Value) {
    let map = meta::as_map_mut(review);
    map.insert("kind".into(), kind.into());
    map.insert("apiVersion".into(), format!("{GROUP}/v1").into());
    meta::child_mut(map, "metadata");
    meta::child_mut(map, "spec");
    map.insert("status".into(), status);
}

fn decide(request: &ActionRequest<'_>, user: &UserInfo, review: &Value) -> (Decision, Vec<String>) {
    let authorizer = request.ctx.authorizer;
    if let Some(resource) = resource_attributes(review) {
        let part = |key| meta::text(resource, &[key]);
        // Without a version all of them are meant (`matchAllVersionIfEmpty`).
        let version = if part("version").is_empty() { "*" } else { part("version") };
        let attributes = Attributes::resource(user, part("verb"), part("group"), part("resource"))
            .of_version(version)
            .of_subresource(part("subresource"))
            .in_namespace(part("namespace"))
            .named(part("name"));
        let kinds = [SelectorKind::Field, SelectorKind::Label].into_iter();
        return (
            authorizer.authorize(&attributes),
            kinds.filter_map(|kind| ignored(kind, resource)).collect(),
        );
    }
    let path = non_resource_attributes(review).unwrap_or(&Value::Null);
    let part = |key| meta::text(path, &[key]);
    (authorizer.authorize(&Attributes::path(user, part("verb"), part("path"))), Vec::new())
}

#[derive(Clone, Copy)]
enum SelectorKind {
    Field,
    Label,
}

impl SelectorKind {
    fn member(self) -> &'static str {
        match self {
            Self::Field => "fieldSelector",
            Self::Label => "labelSelector",
        }
    }
    /// Whether a valid requirement can be understood. Newer clients may send operators that are not known here.
    fn understands(self, requirement: &Value) -> bool {
        let operator = meta::text(requirement, &["operator"]);
        match self {
            Self::Field => {
                matches!(operator, "In" | "NotIn") && meta::list(requirement, &["values"]).len() == 1
            }
            Self::Label => matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist"),
        }
    }
}

/// What to say of a selector that cannot be understood in full. Leaving out requirements only asks for more, so
/// the decision stays right.
fn ignored(kind: SelectorKind, resource: &Value) -> Option<String> {
    let requirements = meta::list(resource, &[kind.member(), "requirements"]);
    let understood = requirements.iter().filter(|r| kind.understands(r)).count();
    if understood == requirements.len() {
        return None;
    }
    let how = if understood > 0 { "partially ignored" } else { "ignored" };
    Some(format!("spec.resourceAttributes.{} {how} due to parse error", kind.member()))
}

fn validate_selector(kind: SelectorKind, selector: &Value, field: &Path) -> ErrorList {
    let mut errors = ErrorList::new();
    let raw = meta::text(selector, &["rawSelector"]);
    let requirements = meta::list(selector, &["requirements"]);
    if !raw.is_empty() && !requirements.is_empty() {
        let detail = "may not specified at the same time as requirements";
        errors.push(Error::invalid(&field.child("rawSelector"), raw, detail));
    }
    if raw.is_empty() && requirements.is_empty() {
        let detail = format!("when {field} is specified, requirements or rawSelector is required");
        errors.push(Error::required(&field.child("requirements"), detail));
    }
    for (i, requirement) in requirements.iter().enumerate() {
        let field = field.child("requirements").index(i);
        match kind {
            SelectorKind::Label => errors.append(selectors::validate_requirement(requirement, true, &field)),
            SelectorKind::Field => {
                if meta::text(requirement, &["key"]).is_empty() {
                    errors.push(Error::required(&field.child("key"), "must be specified"));
                }
                let (operator, values) =
                    (meta::text(requirement, &["operator"]), meta::list(requirement, &["values"]));
                errors.extend(selectors::validate_operator(operator, values, true, &field));
            }
        }
    }
    errors
}

/// Metadata as JSON with its members in the order of the Go types.
fn in_go_order(metadata: &Map<String, Value>) -> String {
    const META: &[&str] = &[
        "name",
        "generateName",
        "namespace",
        "selfLink",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "labels",
        "annotations",
        "ownerReferences",
        "finalizers",
        "managedFields",
    ];
    const ENTRY: &[&str] =
        &["manager", "operation", "apiVersion", "time", "fieldsType", "fieldsV1", "subresource"];
    const OWNER: &[&str] = &["apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion"];
    let object = |map: &Map<String, Value>, order: &[&str], show: &dyn Fn(&str, &Value) -> String| {
        let members = order.iter().filter_map(|key| Some((key, map.get(*key)?)));
        let members: Vec<String> =
            members.map(|(key, value)| format!("\"{key}\":{}", show(key, value))).collect();
        format!("{{{}}}", members.join(","))
    };
    let plain = |_: &str, value: &Value| value.to_string();
    let list = |items: &[Value], order: &[&str]| {
        let items = items.iter().filter_map(Value::as_object).map(|item| object(item, order, &plain));
        format!("[{}]", items.collect::<Vec<_>>().join(","))
    };
    object(metadata, META, &|key, value| match (key, value) {
        ("managedFields", Value::Array(items)) => list(items, ENTRY),
        ("ownerReferences", Value::Array(items)) => list(items, OWNER),
        (_, value) => value.to_string(),
    })
}
