//! Which documents of OpenAPI 3.0 there are: one for each group and version, and small ones for the paths outside of those.
//! Here a page is one of these documents by its name, such as `apis/certificates.k8s.io/v1`; what is in it is written by [`super::v3`].

use super::routes::{self, Content, PathItem};
use crate::catalog::{Kinds, Row};
use std::collections::BTreeSet;
use std::sync::Arc;

/// A document of `/openapi/v3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Page {
    /// A path that no kind has a part in.
    Static(StaticPath),
    /// `apis/GROUP` of a compiled-in group.
    Group(String),
    /// `api/v1` or `apis/GROUP/VERSION`.
    Version(String, String),
}

/// The paths with a document of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StaticPath {
    Api,
    Apis,
    Version,
    OidcConfiguration,
    OidcKeys,
}

impl StaticPath {
    const ALL: [Self; 5] = [Self::Api, Self::Apis, Self::Version, Self::OidcConfiguration, Self::OidcKeys];

    fn name(self) -> &'static str {
        match self {
            Self::Api => "api",
            Self::Apis => "apis",
            Self::Version => "version",
            Self::OidcConfiguration => ".well-known/openid-configuration",
            Self::OidcKeys => "openid/v1/jwks",
        }
    }

    /// What is at that path.
    pub(super) fn item(self) -> PathItem {
        let meta = "io.k8s.apimachinery.pkg.apis.meta.v1";
        let path = format!("/{}/", self.name());
        match self {
            Self::Api => routes::static_path(
                &path,
                "getCoreAPIVersions",
                "core",
                &format!("{meta}.APIVersions"),
                "list the versions of the core group",
            ),
            Self::Apis => routes::static_path(
                &path,
                "getAPIVersions",
                "apis",
                &format!("{meta}.APIGroupList"),
                "list the groups with their versions",
            ),
            Self::Version => routes::single_media(
                &path,
                "getCodeVersion",
                "version",
                &["application/json"],
                Content::Definition("io.k8s.apimachinery.pkg.version.Info".into()),
                "read the version of this server",
            ),
            Self::OidcConfiguration => routes::single_media(
                &path,
                "getServiceAccountIssuerOpenIDConfiguration",
                "WellKnown",
                &["application/json"],
                Content::Text,
                "read the OpenID Connect discovery document of the issuer of service account tokens",
            ),
            Self::OidcKeys => routes::single_media(
                &path,
                "getServiceAccountIssuerOpenIDKeyset",
                "openid",
                &["application/jwk-set+json"],
                Content::Text,
                "read the public keys that service account tokens are verified with",
            ),
        }
    }
}

impl Page {
    /// All documents of a table, by name.
    pub(super) fn all(kinds: &Kinds) -> BTreeSet<(String, Page)> {
        let mut out: BTreeSet<(String, Page)> =
            StaticPath::ALL.iter().map(|p| (p.name().to_string(), Page::Static(*p))).collect();
        for row in kinds.rows() {
            let group = &row.resource.group;
            // As in kube-apiserver, groups of CRDs have no document of their own, only their versions have.
            if !group.is_empty() && !row.resource.custom {
                out.insert((format!("apis/{group}"), Page::Group(group.clone())));
            }
            for version in &row.resource.versions {
                let name = routes::root(group, &version.name)[1..].to_string();
                out.insert((name, Page::Version(group.clone(), version.name.clone())));
            }
        }
        out
    }

    /// The document of that name, if there is one.
    pub(super) fn find(kinds: &Kinds, name: &str) -> Option<Page> {
        if let Some(path) = StaticPath::ALL.iter().find(|p| p.name() == name) {
            return Some(Page::Static(*path));
        }
        let parts: Vec<&str> = name.split('/').collect();
        let (group, version) = match parts[..] {
            ["api", version] => ("", version),
            ["apis", group] if !group.is_empty() && kinds.is_builtin_group(group) => {
                return Some(Page::Group(group.into()));
            }
            ["apis", group, version] if !group.is_empty() => (group, version),
            _ => return None,
        };
        let page = Page::Version(group.into(), version.into());
        (!page.rows(kinds).is_empty()).then_some(page)
    }

    /// The rows that the document is made of.
    pub(super) fn rows(&self, kinds: &Kinds) -> Vec<Arc<Row>> {
        match self {
            Page::Static(_) | Page::Group(_) => Vec::new(),
            Page::Version(group, version) => {
                kinds.group(group).filter(|row| row.version(version).is_some()).cloned().collect()
            }
        }
    }
}
