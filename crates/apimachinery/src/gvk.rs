//! Which kind an object is: `apiVersion` and `kind` (`k8s.io/apimachinery/pkg/runtime/schema/group_version.go`).

/// A group, version and kind; empty strings where an object does not say.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct GroupVersionKind {
    /// The API group; empty for core.
    pub group: String,
    /// The version.
    pub version: String,
    /// The kind.
    pub kind: String,
}

/// A borrowed [`GroupVersionKind`]: mostly the kind that a request's path names, and so the one its body should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GvkRef<'a> {
    /// The API group; empty for core.
    pub group: &'a str,
    /// The version.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
}

impl GroupVersionKind {
    /// A kind; `group` is empty for core.
    pub fn new(group: &str, version: &str, kind: &str) -> Self {
        Self { group: group.into(), version: version.into(), kind: kind.into() }
    }

    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        api_version(&self.group, &self.version)
    }

    /// Fills in what is missing from the kind that was expected, as Go's decoders do with their `defaultGVK`
    /// (`gvkWithDefaults` in `k8s.io/apimachinery/pkg/runtime/serializer/json/json.go`): a version of another group is
    /// not borrowed.
    #[must_use]
    pub fn or_default(mut self, expected: GvkRef<'_>) -> Self {
        if self.kind.is_empty() {
            self.kind = expected.kind.into();
        }
        // The group comes first: the version is only borrowed within the expected group, and that may have been filled in
        // here.
        if self.version.is_empty() && self.group.is_empty() {
            self.group = expected.group.into();
        }
        if self.version.is_empty() && self.group == expected.group {
            self.version = expected.version.into();
        }
        self
    }
}

impl GvkRef<'_> {
    /// `group/version`, or the version alone for the core group.
    pub fn api_version(&self) -> String {
        api_version(self.group, self.version)
    }
}

/// The `apiVersion` of a group and version: `group/version`, or the version alone for the core group.
pub fn api_version(group: &str, version: &str) -> String {
    if group.is_empty() { version.into() } else { format!("{group}/{version}") }
}

/// Group and version of an `apiVersion` (`schema.ParseGroupVersion`); both empty for `""` and `/`.
///
/// # Errors
/// Go's words for a text with more than one slash.
pub fn parse_group_version(text: &str) -> Result<(&str, &str), String> {
    // Go takes `/` for an empty group and version too, but not `a/` or `/a`, which go on below.
    if text.is_empty() || text == "/" {
        return Ok(("", ""));
    }
    match text.split_once('/') {
        None => Ok(("", text)),
        Some((_, rest)) if rest.contains('/') => Err(format!("unexpected GroupVersion string: {text}")),
        Some(parts) => Ok(parts),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn api_versions_are_read_and_printed() {
        for (text, want) in [
            ("", Ok(("", ""))),
            ("/", Ok(("", ""))),
            ("v1", Ok(("", "v1"))),
            ("apps/v1", Ok(("apps", "v1"))),
            ("a/b/c", Err("unexpected GroupVersion string: a/b/c".to_string())),
        ] {
            assert_eq!(parse_group_version(text), want, "{text}");
        }
        assert_eq!(api_version("", "v1"), "v1");
        assert_eq!(api_version("apps", "v1"), "apps/v1");
    }

    #[test]
    fn what_a_body_leaves_out_is_as_expected() {
        let expected = GvkRef { group: "apps", version: "v1", kind: "Deployment" };
        let gvk = GroupVersionKind::new;
        for (given, want) in [
            (gvk("", "", ""), gvk("apps", "v1", "Deployment")),
            (gvk("apps", "", "Pod"), gvk("apps", "v1", "Pod")),
            (gvk("other", "", ""), gvk("other", "", "Deployment")),
            (gvk("", "v1", ""), gvk("", "v1", "Deployment")),
        ] {
            assert_eq!(given.or_default(expected), want);
        }
    }
}
