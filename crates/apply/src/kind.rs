//! The kinds of patches and their media types.

/// A kind of patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PatchKind {
    /// `application/json-patch+json`
    Json,
    /// `application/merge-patch+json`
    Merge,
    /// `application/strategic-merge-patch+json`; built-in kinds only.
    Strategic,
    /// `application/apply-patch+yaml`
    Apply,
}

/// The media type of a body is not that of a kind of patch that is taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the body of the request was in an unknown format - accepted media types include: {}", listed(.accepted))]
pub struct UnsupportedMediaType {
    /// Whether the request gets past kube-apiserver's router. It turns away patches of built-in kinds whose header names no
    /// patch's media type at all, in words of its own.
    pub routed: bool,
    /// The kinds of patches that are taken.
    pub accepted: &'static [PatchKind],
}

const BUILT_IN: &[PatchKind] = &[PatchKind::Json, PatchKind::Merge, PatchKind::Strategic, PatchKind::Apply];
/// A strategic merge patch goes by Go types, which custom resources do not have.
const CUSTOM: &[PatchKind] = &[PatchKind::Json, PatchKind::Merge, PatchKind::Apply];

impl PatchKind {
    /// The media type.
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Json => "application/json-patch+json",
            Self::Merge => "application/merge-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
            Self::Apply => "application/apply-patch+yaml",
        }
    }

    /// The kind that a `Content-Type` header asks for; `custom` says whether the kind of object comes from a CRD.
    ///
    /// # Errors
    /// It asks for none, or for one that the kind of object does not have.
    pub fn from_content_type(header: Option<&str>, custom: bool) -> Result<Self, UnsupportedMediaType> {
        let header = header.unwrap_or("");
        let accepted = if custom { CUSTOM } else { BUILT_IN };
        // Custom resources are not served by go-restful, and so not by its router.
        if !custom && !is_routed(header) {
            return Err(UnsupportedMediaType { routed: false, accepted });
        }
        // Only the parameters are cut off, as in `PatchResource`: a list of media types is routed and then refused.
        let media_type = match header.find(';') {
            Some(at) if at > 0 => &header[..at],
            _ => header,
        };
        let asked = accepted.iter().copied().find(|kind| kind.media_type() == media_type);
        asked.ok_or(UnsupportedMediaType { routed: true, accepted })
    }
}

/// Whether go-restful lets a patch of a built-in kind through: one of the listed media types must be a patch's.
fn is_routed(header: &str) -> bool {
    header.split(',').any(|part| {
        let media_type = part.split(';').next().unwrap_or("").trim();
        media_type == "*/*" || BUILT_IN.iter().any(|kind| kind.media_type() == media_type)
    })
}

fn listed(kinds: &[PatchKind]) -> String {
    kinds.iter().map(|kind| kind.media_type()).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        let refused = |routed, accepted| Err(UnsupportedMediaType { routed, accepted });
        for (header, custom, want) in [
            ("application/merge-patch+json", false, Ok(PatchKind::Merge)),
            ("application/merge-patch+json; charset=utf-8", false, Ok(PatchKind::Merge)),
            ("application/json-patch+json", true, Ok(PatchKind::Json)),
            ("application/strategic-merge-patch+json", false, Ok(PatchKind::Strategic)),
            ("application/apply-patch+yaml", true, Ok(PatchKind::Apply)),
            ("application/json", false, refused(false, BUILT_IN)),
            ("", false, refused(false, BUILT_IN)),
            ("application/json, application/merge-patch+json", false, refused(true, BUILT_IN)),
            ("application/strategic-merge-patch+json", true, refused(true, CUSTOM)),
        ] {
            assert_eq!(PatchKind::from_content_type(Some(header), custom), want, "{header}");
        }
        assert_eq!(
            PatchKind::from_content_type(None, true).map_err(|error| error.to_string()),
            Err("the body of the request was in an unknown format - accepted media types include: \
                 application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml"
                .to_string())
        );
    }
}
