//! The query and path parameters that operations take (`GetOptions`, `ListOptions`, `CreateOptions`, … of
//! `k8s.io/apimachinery/pkg/apis/meta/v1`), each described once.

use std::borrow::Cow;

/// A parameter of an operation, or of all operations of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    /// `query` or `path`; a path parameter is always required.
    pub(super) place: &'static str,
    /// `string`, `boolean` or `integer`.
    pub(super) kind: &'static str,
    pub(super) description: Cow<'static, str>,
}

/// What can be asked of every object request.
pub(super) const PRETTY: &[&str] = &["pretty"];
/// The options of get on a custom resource.
pub(super) const GET: &[&str] = &["resourceVersion"];
/// The options of lists and watches.
pub(super) const LIST: &[&str] = &[
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
/// The options of create and update.
pub(super) const WRITE: &[&str] = &["dryRun", "fieldManager", "fieldValidation"];
/// The options of patch; kubectl looks for `fieldValidation` here before it leaves validation to the server.
pub(super) const PATCH: &[&str] = &["dryRun", "fieldManager", "fieldValidation", "force"];
/// The options of delete.
pub(super) const DELETE: &[&str] = &["dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"];
/// The options of deletecollection.
pub(super) const DELETE_COLLECTION: &[&str] = &[
    "continue",
    "dryRun",
    "fieldSelector",
    "gracePeriodSeconds",
    "labelSelector",
    "limit",
    "orphanDependents",
    "propagationPolicy",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
];

/// A query parameter by its name, which is one of those above.
pub(super) fn query(name: &'static str) -> Parameter {
    // The parameters are those of Go's option structs; what is neither a flag nor a number is text.
    let kind = match name {
        "allowWatchBookmarks" | "force" | "orphanDependents" | "sendInitialEvents" | "watch" => "boolean",
        "gracePeriodSeconds" | "limit" | "timeoutSeconds" => "integer",
        _ => "string",
    };
    Parameter { name, place: "query", kind, description: describe(name).into() }
}

/// The `{namespace}` in a path.
pub(super) fn namespace() -> Parameter {
    let description = "Namespace of the object.".into();
    Parameter { name: "namespace", place: "path", kind: "string", description }
}

/// The `{name}` in a path to objects of `kind`.
pub(super) fn name(kind: &str) -> Parameter {
    Parameter {
        name: "name",
        place: "path",
        kind: "string",
        description: format!("Name of the {kind}.").into(),
    }
}

fn describe(name: &str) -> &'static str {
    match name {
        "allowWatchBookmarks" => "Asks a watch for BOOKMARK events, which tell how far it has come.",
        "continue" => "Where to go on with a list in pages: `metadata.continue` of the page before.",
        "dryRun" => "`All`: do everything but store the result.",
        "fieldManager" => {
            "Who makes the change, for `metadata.managedFields`; at most 128 printable characters. Apply requires it."
        }
        "fieldSelector" => "Only objects whose fields have these values.",
        "fieldValidation" => {
            "What to do about unknown and duplicate fields: `Ignore` drops them, `Warn` (default) says so in a warning, `Strict` refuses the request."
        }
        "force" => "Takes over fields that other managers own; for apply only.",
        "gracePeriodSeconds" => "How many seconds to wait before the object goes; 0 is at once.",
        "labelSelector" => "Only objects whose labels match.",
        "limit" => "The most items of a page; the rest follows with `continue`.",
        "orphanDependents" => "Deprecated, use `propagationPolicy`: whether dependents stay.",
        "pretty" => "`true`: print the answer with indentation.",
        "propagationPolicy" => {
            "What happens to dependents: `Orphan` leaves them, `Background` deletes them afterwards, `Foreground` before."
        }
        "resourceVersion" => {
            "Lower bound (or, by `resourceVersionMatch`, the exact point) of the state to read; a watch begins after it."
        }
        "resourceVersionMatch" => "How `resourceVersion` is meant: `NotOlderThan` or `Exact`.",
        "sendInitialEvents" => {
            "Begins a watch with one ADDED event for each object there is, ended by a BOOKMARK; needs `resourceVersionMatch=NotOlderThan`."
        }
        "timeoutSeconds" => "Ends the list or watch after that many seconds.",
        "watch" => "Streams changes instead of listing.",
        _ => "",
    }
}
