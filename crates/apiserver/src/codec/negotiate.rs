//! Which media type a body has, and which form an answer is wanted in
//! (`k8s.io/apiserver/pkg/endpoints/handlers/negotiation`, and go-restful's check of `Accept` before it).

use crate::status::{Details, Status};

const MEDIA_TYPES: &str = "application/json, application/yaml, application/vnd.kubernetes.protobuf";

/// An encoding of objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Media {
    /// `application/json`.
    #[default]
    Json,
    /// `application/yaml`.
    Yaml,
    /// `application/vnd.kubernetes.protobuf`.
    Protobuf,
}

impl Media {
    /// The media type as a header prints it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    fn matches(self, kind: &str, subtype: &str) -> bool {
        let own = self.as_str().strip_prefix("application/").unwrap_or_default();
        (kind == "*" || kind == "application") && (subtype == "*" || subtype == own)
    }
}

/// The kind of object that is wanted instead of the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Transform {
    /// The object itself.
    #[default]
    None,
    /// A `Table` of this version of `meta.k8s.io`.
    Table(&'static str),
    /// Its metadata.
    PartialMetadata(&'static str),
    /// The metadata of a list's items.
    PartialMetadataList(&'static str),
}

/// The form in which an answer is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// The encoding.
    pub media: Media,
    /// The transformation.
    pub transform: Transform,
    /// Indented.
    pub pretty: bool,
}

/// What an endpoint can answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Offer {
    /// Whether there is a Table for its kind.
    pub table: bool,
    /// Whether it streams watch events.
    pub watch: bool,
}

/// One clause of an `Accept` header.
#[derive(Debug)]
struct Clause<'a> {
    kind: &'a str,
    subtype: &'a str,
    params: Vec<(&'a str, &'a str)>,
    quality: f64,
}

/// The form for a request with this `Accept` header (`None` and empty: JSON), or 406.
pub fn accept(header: Option<&str>, offer: Offer) -> Result<Accepted, Status> {
    let header = header.map(str::trim).filter(|h| !h.is_empty()).unwrap_or("application/json");
    check_route(header, offer)?;
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(Clause::parse).collect();
    // A stable sort: what is listed first wins among equals.
    clauses.sort_by(|a, b| {
        let rank = |c: &Clause<'_>| (c.kind == "*", c.subtype == "*");
        b.quality.total_cmp(&a.quality).then_with(|| rank(a).cmp(&rank(b)))
    });
    clauses
        .iter()
        .flat_map(|clause| [Media::Json, Media::Yaml, Media::Protobuf].map(|media| (clause, media)))
        .filter(|(clause, media)| media.matches(clause.kind, clause.subtype))
        .find_map(|(clause, media)| clause.accepted(media, offer))
        .ok_or_else(not_acceptable)
}

/// 406 for a transformation that does not exist.
pub fn not_acceptable() -> Status {
    Status::not_acceptable(format!("only the following media types are accepted: {MEDIA_TYPES}"))
}

/// go-restful looks at the header before any handler does, without parameters and with `*/*` as its only wildcard.
fn check_route(header: &str, offer: Offer) -> Result<(), Status> {
    let mut produced: Vec<&str> = MEDIA_TYPES.split(", ").collect();
    if offer.watch {
        produced
            .extend(["application/json;stream=watch", "application/vnd.kubernetes.protobuf;stream=watch"]);
    }
    let fits = header.split(',').any(|clause| {
        let plain = clause.split(';').next().unwrap_or_default().trim();
        plain == "*/*" || produced.contains(&plain)
    });
    if fits {
        return Ok(());
    }
    let mut status = Status::not_acceptable(format!(
        "406: Not Acceptable\n\nAvailable representations: {}",
        produced.join(", ")
    ));
    status.details = Some(Box::new(Details::default()));
    Err(status)
}

impl<'a> Clause<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut clause =
            Self { kind: kind.trim(), subtype: subtype.trim(), params: Vec::new(), quality: 1.0 };
        for (name, value) in parts.filter_map(|p| p.split_once('=')) {
            match name.trim() {
                "q" => clause.quality = value.trim().parse().unwrap_or(1.0),
                name => clause.params.push((name, value.trim())),
            }
        }
        Some(clause)
    }

    fn param(&self, name: &str) -> Option<&'a str> {
        self.params.iter().find(|(n, _)| *n == name).map(|(_, v)| *v)
    }

    /// What this clause means for an encoding it fits; `None` if it wants what the endpoint does not offer.
    fn accepted(&self, media: Media, offer: Offer) -> Option<Accepted> {
        let pretty = self.param("pretty") == Some("1");
        if let Some(stream) = self.param("stream")
            && !(stream.is_empty() || (stream == "watch" && offer.watch))
        {
            return None;
        }
        let wanted = ["as", "g", "v"].map(|name| self.param(name));
        if wanted == [None; 3] {
            return Some(Accepted { media, transform: Transform::None, pretty });
        }
        let version = match (wanted[1], wanted[2]) {
            (Some("meta.k8s.io"), Some("v1")) => "v1",
            (Some("meta.k8s.io"), Some("v1beta1")) => "v1beta1",
            _ => return None,
        };
        let transform = match wanted[0] {
            Some("Table") if offer.table => Transform::Table(version),
            Some("PartialObjectMetadata") => Transform::PartialMetadata(version),
            Some("PartialObjectMetadataList") => Transform::PartialMetadataList(version),
            _ => return None,
        };
        Some(Accepted { media, transform, pretty })
    }
}

/// The encoding in which errors are answered: that of the `Accept` header if it can be met, else JSON.
pub fn error_media(header: Option<&str>) -> Media {
    accept(header, Offer { table: true, watch: true }).map(|a| a.media).unwrap_or_default()
}

/// The encoding of a request body by its `Content-Type` (`None` and empty: JSON), or 415.
pub fn content_type(header: Option<&str>) -> Result<Media, Status> {
    let plain = header.unwrap_or_default().split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match plain.as_str() {
        "" | "application/json" => Ok(Media::Json),
        // The second is what the ManagedServiceAccount document names; see `alias`.
        "application/yaml" | crate::alias::MEDIA_TYPE => Ok(Media::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Media::Protobuf),
        _ => Err(Status::unsupported_media_type(format!(
            "the body of the request was in an unknown format - accepted media types include: {MEDIA_TYPES}"
        ))),
    }
}

/// Whether an `Accept` header asks for aggregated discovery before anything else that can be met: the media type
/// to answer with; `Err` is 406.
pub fn aggregated_discovery(header: Option<&str>) -> Result<Option<&'static str>, Status> {
    let Some(header) = header.filter(|h| h.contains("as=APIGroupDiscoveryList")) else { return Ok(None) };
    let mut clauses: Vec<Clause<'_>> = header.split(',').filter_map(Clause::parse).collect();
    clauses.sort_by(|a, b| b.quality.total_cmp(&a.quality));
    for clause in &clauses {
        if !Media::Json.matches(clause.kind, clause.subtype) {
            continue;
        }
        match (clause.param("as"), clause.param("g"), clause.param("v")) {
            (None, _, _) => return Ok(None),
            (Some("APIGroupDiscoveryList"), Some("apidiscovery.k8s.io"), Some("v2")) => {
                return Ok(Some("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"));
            }
            _ => {}
        }
    }
    Err(not_acceptable())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";

    #[test]
    fn the_best_clause_that_can_be_met_wins() {
        let offer = Offer { table: true, watch: false };
        for (header, media, transform) in [
            ("", Media::Json, Transform::None),
            ("*/*", Media::Json, Transform::None),
            ("text/html, */*;q=0.1", Media::Json, Transform::None),
            ("application/yaml", Media::Yaml, Transform::None),
            ("application/json;q=0", Media::Json, Transform::None),
            ("application/vnd.kubernetes.protobuf,application/json", Media::Protobuf, Transform::None),
            (TABLE, Media::Json, Transform::Table("v1")),
            ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Media::Json, Transform::None),
            (
                "application/json;as=Table;g=meta.k8s.io;v=v1;q=0.5, application/json;q=0.9",
                Media::Json,
                Transform::None,
            ),
        ] {
            let seen = accept(Some(header), offer).unwrap_or_else(|e| panic!("{header}: {e}"));
            assert_eq!((seen.media, seen.transform), (media, transform), "{header}");
        }
        assert_eq!(
            accept(Some(&format!("{TABLE},application/json")), Offer::default()).map(|a| a.transform),
            Ok(Transform::None)
        );
    }

    #[test]
    fn what_cannot_be_met_is_406() {
        for (header, message) in [
            ("application/*", "406: Not Acceptable\n\nAvailable representations: "),
            ("garbage", "406: Not Acceptable\n\nAvailable representations: "),
            ("application/json;as=Table", "only the following media types are accepted: "),
            ("application/json;as=Chair;v=v1;g=meta.k8s.io", "only the following media types are accepted: "),
        ] {
            let status = accept(Some(header), Offer { table: true, watch: false }).expect_err(header);
            assert_eq!(status.code, 406);
            assert!(status.message.starts_with(message), "{header}: {}", status.message);
        }
    }

    #[test]
    fn bodies_name_their_encoding() {
        assert_eq!(content_type(Some("Application/JSON; charset=utf-8")), Ok(Media::Json));
        assert_eq!(content_type(Some("managedserviceaccount/yaml")), Ok(Media::Yaml));
        assert_eq!(content_type(Some("///")).map_err(|s| s.code), Err(415));
    }
}
