//! Which kinds kube-apiserver's schemes know (`runtime.Scheme`): a body of a kind that is registered anywhere is refused with
//! other words than one of a kind that does not exist. Only error messages depend on this table, never what is served.

use fleetpass_apimachinery::gvk::{GroupVersionKind, GvkRef};
use std::collections::HashSet;
use std::sync::LazyLock;

/// One line for each group version: `apps/v1 Deployment DeploymentList …`, those of `k8s.io/api` at v1.36.
const REGISTERED: &str = include_str!("../data/registered-kinds.txt");

static KINDS: LazyLock<HashSet<(&str, &str)>> = LazyLock::new(|| {
    let lines = REGISTERED.lines().filter_map(|line| line.split_once(' '));
    lines.flat_map(|(gv, kinds)| kinds.split(' ').map(move |kind| (gv, kind))).collect()
});
static VERSIONS: LazyLock<HashSet<&str>> = LazyLock::new(|| KINDS.iter().map(|(gv, _)| *gv).collect());

/// Registered in every group version (`apis/meta/v1/register.go`).
const IN_EVERY_VERSION: [&str; 7] = [
    "WatchEvent",
    "ListOptions",
    "GetOptions",
    "DeleteOptions",
    "CreateOptions",
    "UpdateOptions",
    "PatchOptions",
];
/// Registered in version v1 of the core group, without a version of their own.
const UNVERSIONED: [&str; 5] = ["Status", "APIVersions", "APIGroupList", "APIGroup", "APIResourceList"];

const EXTENSIONS: &str = "apiextensions.k8s.io";

/// A registry of kinds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scheme {
    /// That of the Kubernetes kinds.
    Legacy,
    /// That of the server for CRDs, which is a server of its own inside kube-apiserver.
    Extensions,
}

/// The scheme that serves a group.
pub(super) fn of_group(group: &str) -> Scheme {
    if group == EXTENSIONS { Scheme::Extensions } else { Scheme::Legacy }
}

impl Scheme {
    /// Where the scheme was made: error messages print it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Scheme::Legacy => "k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30",
            Scheme::Extensions => "k8s.io/apiextensions-apiserver/pkg/apiserver/apiserver.go:55",
        }
    }

    /// Whether the scheme has this kind.
    pub(super) fn knows(self, gvk: &GroupVersionKind) -> bool {
        let version = gvk.api_version();
        let kind = gvk.kind.as_str();
        let own = match self {
            Scheme::Legacy => KINDS.contains(&(version.as_str(), kind)),
            Scheme::Extensions => {
                gvk.group == EXTENSIONS
                    && ["v1", "v1beta1"].contains(&gvk.version.as_str())
                    && ["CustomResourceDefinition", "CustomResourceDefinitionList", "ConversionReview"]
                        .contains(&kind)
            }
        };
        // The meta types are registered with each group version, so they exist in those that have any kind.
        let has_version = match self {
            Scheme::Legacy => VERSIONS.contains(version.as_str()),
            Scheme::Extensions => {
                version == "v1"
                    || (gvk.group == EXTENSIONS && ["v1", "v1beta1"].contains(&gvk.version.as_str()))
            }
        };
        own || (has_version && IN_EVERY_VERSION.contains(&kind))
            || (version == "v1" && UNVERSIONED.contains(&kind))
    }
}

/// Whether a body of this kind can become the internal form of the target: another version of the same kind, or
/// the other group of events.
pub(super) fn converts(gvk: &GroupVersionKind, target: GvkRef<'_>) -> bool {
    // The two groups of events share their internal types.
    let internal_group =
        |group: &str| if group == "events.k8s.io" { String::new() } else { group.to_string() };
    gvk.kind == target.kind && internal_group(&gvk.group) == internal_group(target.group)
}

/// The Go type of a kind: `v1.ConfigMap`.
pub(super) fn go_type(gvk: &GroupVersionKind) -> String {
    let kind = gvk.kind.as_str();
    // Wherever the meta types are registered, their Go package is `meta/v1`.
    let meta = IN_EVERY_VERSION.contains(&kind) || UNVERSIONED.contains(&kind);
    format!("{}.{kind}", if meta { "v1" } else { &gvk.version })
}

/// The internal Go type of a kind: `core.Secret`.
pub(super) fn internal_type(target: GvkRef<'_>) -> String {
    // The packages of internal types are named after the first part of the group, except for the core group.
    let package = match target.group {
        "" | "events.k8s.io" => "core",
        group => group.split('.').next().unwrap_or(group),
    };
    format!("{package}.{}", target.kind)
}
