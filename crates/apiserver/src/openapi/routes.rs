//! Which operations a kind has, independent of the dialect they are written in: the paths, identifiers and
//! parameters that `registerResourceHandlers` gives a built-in kind (`k8s.io/apiserver/pkg/endpoints/installer.go`)
//! and the OpenAPI builder a custom one (`apiextensions-apiserver/pkg/controller/openapi/builder/builder.go`).

use super::definitions::Definitions;
use super::names::{DELETE_OPTIONS, PATCH, RESOURCE_LIST, STATUS, WATCH_EVENT};
use super::parameters::{self, Parameter};
use crate::catalog::Row;
use crate::strategy::Subresource;
use fleetpass_apimachinery::gvk::GroupVersionKind;

const OBJECT: &[&str] = &["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const STREAM: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
    "application/json;stream=watch",
    "application/vnd.kubernetes.protobuf;stream=watch",
];
const CUSTOM: &[&str] = &["application/json", "application/yaml"];
const ANY: &[&str] = &["*/*"];
const PATCHES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];
const CUSTOM_PATCHES: &[&str] =
    &["application/json-patch+json", "application/merge-patch+json", "application/apply-patch+yaml"];

/// The body of a request.
#[derive(Debug)]
pub(super) struct Body {
    pub(super) definition: String,
    pub(super) required: bool,
    pub(super) media: &'static [&'static str],
}

/// What an answer holds.
#[derive(Debug)]
pub(super) enum Content {
    /// An object of that definition.
    Definition(String),
    /// Text that is described no further.
    Text,
}

/// One method of a path.
#[derive(Debug)]
pub(super) struct Operation {
    /// `get`, `put`, `post`, `delete`, `patch`.
    pub(super) method: &'static str,
    pub(super) id: String,
    pub(super) tag: String,
    pub(super) description: String,
    /// `x-kubernetes-action`; `None` for what is no request for objects.
    pub(super) action: Option<&'static str>,
    /// `x-kubernetes-group-version-kind`.
    pub(super) gvk: Option<GroupVersionKind>,
    pub(super) parameters: Vec<Parameter>,
    pub(super) body: Option<Body>,
    pub(super) produces: &'static [&'static str],
    /// Status codes with what they answer; 401 is added to all.
    pub(super) codes: &'static [u16],
    pub(super) content: Content,
}

/// A path with its operations.
#[derive(Debug)]
pub(super) struct PathItem {
    pub(super) path: String,
    /// What all operations take.
    pub(super) parameters: Vec<Parameter>,
    pub(super) operations: Vec<Operation>,
}

impl PathItem {
    /// Moves parameters that all operations have to the path, and sorts what there is.
    fn new(path: String, mut operations: Vec<Operation>) -> Self {
        let everywhere = |p: &Parameter| operations.iter().all(|o| o.parameters.contains(p));
        // What all operations have, the first has; so one pass over its parameters is enough.
        let mut common: Vec<Parameter> = match operations.first() {
            Some(first) => first.parameters.iter().filter(|p| everywhere(p)).cloned().collect(),
            None => Vec::new(),
        };
        let order = |p: &Parameter| (p.name, p.place);
        common.sort_by_key(order);
        for operation in &mut operations {
            operation.parameters.retain(|p| !common.contains(p));
            operation.parameters.sort_by_key(order);
        }
        Self { path, parameters: common, operations }
    }

    /// The definitions that the operations name.
    pub(super) fn definitions(&self) -> impl Iterator<Item = &str> {
        self.operations.iter().flat_map(|o| {
            let answer = match &o.content {
                Content::Definition(name) => Some(name.as_str()),
                Content::Text => None,
            };
            o.body.as_ref().map(|b| b.definition.as_str()).into_iter().chain(answer)
        })
    }
}

/// `/api/v1` or `/apis/GROUP/VERSION`.
pub(super) fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") }
}

/// The path of a group and version itself, which lists its resources.
pub(super) fn resource_list(group: &str, version: &str) -> PathItem {
    let mut operation = plain(
        format!("get{}{}APIResources", camel(group_name(group), true), camel(version, true)),
        RESOURCE_LIST,
        "list the resources of this group and version",
    );
    operation.tag = tag(group, version);
    PathItem::new(format!("{}/", root(group, version)), vec![operation])
}

/// A path outside of any group and version, which is only read.
pub(super) fn static_path(path: &str, id: &str, tag: &str, definition: &str, description: &str) -> PathItem {
    let mut operation = plain(id.into(), definition, description);
    operation.tag = tag.into();
    PathItem::new(path.into(), vec![operation])
}

/// As [`static_path`], but in one media type, and with an answer that need not have a definition.
pub(super) fn single_media(
    path: &str,
    id: &str,
    tag: &str,
    media: &'static [&'static str],
    content: Content,
    description: &str,
) -> PathItem {
    let mut operation = plain(id.into(), "", description);
    operation.tag = tag.into();
    operation.content = content;
    operation.produces = media;
    PathItem::new(path.into(), vec![operation])
}

fn plain(id: String, definition: &str, description: &str) -> Operation {
    Operation {
        method: "get",
        id,
        tag: String::new(),
        description: description.into(),
        action: None,
        gvk: None,
        parameters: Vec::new(),
        body: None,
        produces: OBJECT,
        codes: &[200],
        content: Content::Definition(definition.into()),
    }
}

/// `core` for the core group, otherwise the group without `.k8s.io`.
pub(super) fn group_name(group: &str) -> &str {
    if group.is_empty() { "core" } else { group.strip_suffix(".k8s.io").unwrap_or(group) }
}

fn tag(group: &str, version: &str) -> String {
    format!("{}_{}", camel(group_name(group), false), camel(version, false))
}

/// Text as a part of an identifier: what is no letter, digit or `_` is dropped, and the letter after it becomes upper case
/// (`ToValidOperationID` in `k8s.io/apiserver/pkg/endpoints/openapi/openapi.go`).
pub(super) fn camel(text: &str, first_upper: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut upper = first_upper;
    for (at, c) in text.char_indices() {
        if !(c.is_alphabetic() || c == '_' || (at != 0 && c.is_ascii_digit())) {
            upper = true;
        } else if std::mem::take(&mut upper) {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
    }
    out
}

/// All paths of one version of a kind, in no particular order.
pub(super) fn paths(row: &Row, version: &str, definitions: &Definitions<'_>) -> Vec<PathItem> {
    // A kind without a definition cannot be described.
    let Some(kind) = Kind::new(row, version, definitions) else { return Vec::new() };
    let resource = &row.resource;
    let root = root(&resource.group, version);
    let scope = if resource.namespaced { "/namespaces/{namespace}" } else { "" };
    let collection = format!("{root}{scope}/{}", resource.plural);
    let item = format!("{collection}/{{name}}");
    let mut out = vec![
        kind.item(collection, &["list", "create", "deletecollection"]),
        kind.item(item.clone(), &["get", "update", "delete", "patch"]),
    ];
    let everywhere = format!("{root}/{}", resource.plural);
    // All namespaces at once: for reading only.
    if resource.namespaced && kind.has("list") {
        out.push(PathItem::new(everywhere.clone(), vec![kind.list(true)]));
    }
    // The deprecated form of a watch; custom kinds serve it, but no server publishes it for them.
    if kind.has("watch") && !resource.custom {
        let watched = format!("{root}/watch{scope}/{}", resource.plural);
        if resource.namespaced {
            out.push(PathItem::new(
                format!("{root}/watch/{}", resource.plural),
                vec![kind.watch(false, true)],
            ));
        }
        out.push(PathItem::new(format!("{watched}/{{name}}"), vec![kind.watch(true, false)]));
        out.push(PathItem::new(watched, vec![kind.watch(false, false)]));
    }
    let subresources = resource.subresources.iter().filter(|s| s.is_in(version));
    out.extend(subresources.filter_map(|s| kind.subresource(&item, s, definitions)));
    out.retain(|item| !item.operations.is_empty());
    out
}

/// One version of a kind, with what its operations have in common.
struct Kind<'a> {
    row: &'a Row,
    gvk: GroupVersionKind,
    definition: String,
    list_definition: Option<String>,
    /// What follows the verb in an identifier: `CoreV1`.
    prefix: String,
    tag: String,
}

impl<'a> Kind<'a> {
    fn new(row: &'a Row, version: &str, definitions: &Definitions<'_>) -> Option<Self> {
        let resource = &row.resource;
        let gvk = GroupVersionKind::new(&resource.group, version, &resource.kind);
        let list = GroupVersionKind::new(&resource.group, version, &resource.list_kind);
        Some(Self {
            row,
            definition: definitions.of_kind(&gvk)?,
            list_definition: definitions.of_kind(&list),
            prefix: format!("{}{}", camel(group_name(&resource.group), true), camel(version, true)),
            tag: tag(&resource.group, version),
            gvk,
        })
    }

    fn has(&self, verb: &str) -> bool {
        self.row.resource.verbs.iter().any(|v| v == verb)
    }

    fn scope(&self) -> &'static str {
        if self.row.resource.namespaced { "Namespaced" } else { "" }
    }

    /// Those of `verbs` that the kind has, at one path.
    fn item(&self, path: String, verbs: &[&str]) -> PathItem {
        let id = |verb: &str| format!("{verb}{}{}{}", self.prefix, self.scope(), self.gvk.kind);
        let operations = verbs.iter().filter(|verb| self.has(verb)).map(|verb| match *verb {
            "list" => self.list(false),
            "create" => self.create(id("create"), None),
            "deletecollection" => self.delete_collection(),
            "get" => self.get(id("read"), None),
            "update" => self.update(id("replace"), None),
            "patch" => self.patch(id("patch"), None),
            _ => self.delete(id("delete")),
        });
        PathItem::new(path, operations.collect())
    }

    fn subresource(&self, item: &str, sub: &Subresource, definitions: &Definitions<'_>) -> Option<PathItem> {
        let gvk = match sub.body {
            Some((group, version, kind)) => GroupVersionKind::new(group, version, kind),
            None => self.gvk.clone(),
        };
        let sub = Sub { name: sub.name, verbs: sub.verbs, definition: definitions.of_kind(&gvk)?, gvk };
        let id = |verb: &str| {
            format!("{verb}{}{}{}{}", self.prefix, self.scope(), self.gvk.kind, camel(sub.name, true))
        };
        let operations = ["get", "update", "patch", "create"]
            .into_iter()
            .filter(|verb| sub.verbs.contains(verb))
            .map(|verb| match verb {
                "get" => self.get(id("read"), Some(&sub)),
                "update" => self.update(id("replace"), Some(&sub)),
                "patch" => self.patch(id("patch"), Some(&sub)),
                _ => self.create(id("create"), Some(&sub)),
            });
        Some(PathItem::new(format!("{item}/{}", sub.name), operations.collect()))
    }

    fn operation(
        &self,
        method: &'static str,
        action: &'static str,
        id: String,
        query: &[&[&'static str]],
    ) -> Operation {
        let mut parameters: Vec<Parameter> =
            query.iter().flat_map(|names| names.iter()).map(|n| parameters::query(n)).collect();
        if self.row.resource.namespaced {
            parameters.push(parameters::namespace());
        }
        Operation {
            method,
            id,
            tag: self.tag.clone(),
            description: String::new(),
            action: Some(action),
            gvk: Some(self.gvk.clone()),
            parameters,
            body: None,
            produces: if self.row.resource.custom { CUSTOM } else { OBJECT },
            codes: &[200],
            content: Content::Definition(self.definition.clone()),
        }
    }

    /// An operation on one object, or on a subresource of it.
    fn on_object(
        &self,
        method: &'static str,
        action: &'static str,
        id: String,
        query: &[&'static str],
        sub: Option<&Sub>,
    ) -> Operation {
        let mut operation = self.operation(method, action, id, &[parameters::PRETTY, query]);
        if let Some(sub) = sub {
            operation.content = Content::Definition(sub.definition.clone());
            operation.gvk = Some(sub.gvk.clone());
        }
        // Creating an object has no name in its path; creating a subresource (a token) has that of its parent.
        let named = sub.map_or(&self.gvk.kind, |sub| &sub.gvk.kind);
        if sub.is_some() || action != "post" {
            operation.parameters.push(parameters::name(named));
        }
        operation
    }

    fn what(&self, sub: Option<&Sub>) -> String {
        match sub {
            Some(sub) => format!("{} of one {}", sub.name, self.gvk.kind),
            None => format!("one {}", self.gvk.kind),
        }
    }

    fn object_body(&self, sub: Option<&Sub>) -> Option<Body> {
        let definition = sub.map_or(&self.definition, |sub| &sub.definition).clone();
        Some(Body { definition, required: true, media: if self.row.resource.custom { CUSTOM } else { ANY } })
    }

    fn get(&self, id: String, sub: Option<&Sub>) -> Operation {
        let query = if self.row.resource.custom { parameters::GET } else { &[] };
        let mut operation = self.on_object("get", "get", id, query, sub);
        operation.description = format!("read {}", self.what(sub));
        operation
    }

    fn create(&self, id: String, sub: Option<&Sub>) -> Operation {
        let mut operation = self.on_object("post", "post", id, parameters::WRITE, sub);
        operation.description = format!("create {}", self.what(sub));
        operation.body = self.object_body(sub);
        // The codes that kube-apiserver publishes for every kind, whether this server sends all of them or not.
        operation.codes = &[200, 201, 202];
        operation
    }

    fn update(&self, id: String, sub: Option<&Sub>) -> Operation {
        let mut operation = self.on_object("put", "put", id, parameters::WRITE, sub);
        operation.description = format!("replace {}", self.what(sub));
        operation.body = self.object_body(sub);
        operation.codes = &[200, 201];
        operation
    }

    fn patch(&self, id: String, sub: Option<&Sub>) -> Operation {
        let mut operation = self.on_object("patch", "patch", id, parameters::PATCH, sub);
        operation.description = format!("change parts of {}", self.what(sub));
        let media = if self.row.resource.custom { CUSTOM_PATCHES } else { PATCHES };
        operation.body = Some(Body { definition: PATCH.into(), required: true, media });
        operation.codes = &[200, 201];
        operation
    }

    fn delete(&self, id: String) -> Operation {
        let mut operation = self.on_object("delete", "delete", id, parameters::DELETE, None);
        operation.description = format!("delete one {}", self.gvk.kind);
        operation.body = delete_body();
        operation.codes = &[200, 202];
        if !self.row.resource.delete_returns_object {
            operation.content = Content::Definition(STATUS.into());
        }
        operation
    }

    fn delete_collection(&self) -> Operation {
        let id = format!("delete{}Collection{}{}", self.prefix, self.scope(), self.gvk.kind);
        let query = [parameters::PRETTY, parameters::DELETE_COLLECTION];
        let mut operation = self.operation("delete", "deletecollection", id, &query);
        operation.description = format!("delete every {} that is selected", self.gvk.kind);
        operation.body = delete_body();
        operation.content = Content::Definition(STATUS.into());
        operation
    }

    /// A list of one namespace (or of a cluster-scoped kind), or of all namespaces.
    fn list(&self, everywhere: bool) -> Operation {
        let id = if everywhere {
            format!("list{}{}ForAllNamespaces", self.prefix, self.gvk.kind)
        } else {
            format!("list{}{}{}", self.prefix, self.scope(), self.gvk.kind)
        };
        let mut operation = self.operation("get", "list", id, &[parameters::PRETTY, parameters::LIST]);
        operation.description = format!("list or watch objects of kind {}", self.gvk.kind);
        if everywhere {
            // The only parameter in a path so far is the namespace.
            operation.parameters.retain(|p| p.place != "path");
        }
        // Custom kinds can be watched all the same; kube-apiserver does not publish the forms of it for them.
        if !self.row.resource.custom {
            operation.produces = STREAM;
        }
        operation.content = Content::Definition(self.list_definition.clone().unwrap_or_default());
        operation
    }

    /// The deprecated form of a watch: of one object, of one namespace, or of all.
    fn watch(&self, one: bool, everywhere: bool) -> Operation {
        let scope = if everywhere { "" } else { self.scope() };
        let suffix = match (one, everywhere) {
            (true, _) => "",
            (false, false) => "List",
            (false, true) => "ListForAllNamespaces",
        };
        let id = format!("watch{}{scope}{}{suffix}", self.prefix, self.gvk.kind);
        let action = if one { "watch" } else { "watchlist" };
        let mut operation = self.operation("get", action, id, &[parameters::PRETTY, parameters::LIST]);
        operation.description =
            format!("watch objects of kind {} (deprecated, list with `watch` instead)", self.gvk.kind);
        if everywhere {
            operation.parameters.retain(|p| p.place != "path");
        }
        if one {
            operation.parameters.push(parameters::name(&self.gvk.kind));
        }
        operation.produces = STREAM;
        operation.content = Content::Definition(WATCH_EVENT.into());
        operation
    }
}

/// A subresource, with the definition of its body.
struct Sub {
    name: &'static str,
    verbs: &'static [&'static str],
    definition: String,
    gvk: GroupVersionKind,
}

fn delete_body() -> Option<Body> {
    Some(Body { definition: DELETE_OPTIONS.into(), required: false, media: ANY })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifiers_are_made_of_letters() {
        for (text, upper, want) in [
            ("core", true, "Core"),
            ("rbac.authorization", true, "RbacAuthorization"),
            ("rbac.authorization", false, "rbacAuthorization"),
            ("authentication.open-cluster-management.io", true, "AuthenticationOpenClusterManagementIo"),
            ("v1beta1", true, "V1beta1"),
            ("9lives", false, "Lives"),
        ] {
            assert_eq!(camel(text, upper), want);
        }
    }
}
