//! Which representation a client sends and wants: `Content-Type` and `Accept`
//! (`apiserver/pkg/endpoints/handlers/negotiation`, `handlers/rest.go`, and the routing of go-restful in front).
//!
//! Built-in kinds are routed by go-restful, which checks the headers before the handler and with messages of its own; custom
//! resources are not. [`route`] is that first check, [`output`] and [`input`] are what handlers do. The two disagree here and
//! there (`application/*` passes only the second), and clients see both, so neither can be left out.

use super::body::Format;
use super::options::{Pairs, first};
use fleetpass_apimachinery::status::Status;

/// A representation on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MediaType {
    /// `application/json`
    Json,
    /// `application/yaml`
    Yaml,
    /// `application/vnd.kubernetes.protobuf`
    Protobuf,
}

/// All representations, in the server's order.
const ALL: [MediaType; 3] = [MediaType::Json, MediaType::Yaml, MediaType::Protobuf];

impl MediaType {
    /// The media type as text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Yaml => "application/yaml",
            Self::Protobuf => "application/vnd.kubernetes.protobuf",
        }
    }

    /// How a body of this type is read.
    pub fn format(self) -> Format {
        match self {
            Self::Json => Format::Json,
            Self::Yaml => Format::Yaml,
            Self::Protobuf => Format::Protobuf,
        }
    }

    fn subtype(self) -> &'static str {
        &self.as_str()["application/".len()..]
    }

    /// Whether watch events can be sent in it.
    fn streams(self) -> bool {
        // kube-apiserver has no stream serializer for YAML.
        self != Self::Yaml
    }
}

/// What an endpoint can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// A kind of a CRD: without go-restful in front, and without protobuf.
    pub custom: bool,
    /// Whether it can be converted to a Table (stored kinds have, reviews and token requests have not).
    pub table: bool,
    /// Whether it is a GET of a collection, which can also be watched.
    pub watchable: bool,
}

/// The kind of `meta.k8s.io` to which an answer is converted (`MediaTypeOptions.Convert`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// `Table`
    Table,
    /// `PartialObjectMetadata`
    PartialObjectMetadata,
    /// `PartialObjectMetadataList`
    PartialObjectMetadataList,
}

/// What a client wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Output {
    /// The representation.
    pub media: MediaType,
    /// The kind to convert to, and its version; `None`: the object as it is.
    pub convert_to: Option<(TargetKind, MetaVersion)>,
    /// Whether it is to be indented.
    pub pretty: bool,
}

/// A version of `meta.k8s.io`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetaVersion {
    /// `v1`
    V1,
    /// `v1beta1`
    V1beta1,
}

impl MetaVersion {
    /// `meta.k8s.io/v1` or `meta.k8s.io/v1beta1`.
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// go-restful's look at `Accept`, for kinds that are not custom: only literal media types and `*/*` pass.
/// Errors: 406, or 415 for a write without a body.
pub fn route(accept: Option<&str>, endpoint: Endpoint, method: &str, has_body: bool) -> Result<(), Status> {
    // go-restful ignores parameters and qualities: one acceptable type anywhere in the header is enough.
    let accept = accept.filter(|accept| !accept.is_empty()).unwrap_or("*/*");
    let mut available: Vec<String> = ALL.iter().map(|media| media.as_str().to_string()).collect();
    if endpoint.watchable {
        available.extend(streaming_types());
    }
    let fits = |clause: &str| {
        let media = clause.split(';').next().unwrap_or_default().trim();
        media == "*/*" || available.iter().any(|a| a == media)
    };
    if endpoint.custom || accept.split(',').any(fits) {
        return Ok(());
    }
    let available = available.join(", ");
    let mut status = if matches!(method, "POST" | "PUT" | "PATCH") && !has_body {
        let text = format!("415: Unsupported Media Type\n\nAvailable representations: {available}");
        Status::unsupported_media_type(text)
    } else {
        Status::not_acceptable(format!("406: Not Acceptable\n\nAvailable representations: {available}"))
    };
    status.details = Some(Box::default());
    Err(status)
}

/// What the handler makes of `Accept`. `query` and `user_agent` decide about indentation. Errors: 406.
pub fn output(
    accept: Option<&str>,
    endpoint: Endpoint,
    query: &Pairs,
    user_agent: &str,
) -> Result<Output, Status> {
    let mut output = choose(accept, |media, target| allows(endpoint, media, target)).ok_or_else(|| {
        let supported: Vec<&str> = ALL.iter().map(|media| media.as_str()).collect();
        not_acceptable(&supported)
    })?;
    output.pretty |= pretty(query, user_agent);
    Ok(output)
}

/// What the handler of a watch makes of `Accept`: a representation that can be streamed. Errors: 406.
pub fn output_stream(accept: Option<&str>, endpoint: Endpoint) -> Result<Output, Status> {
    choose(accept, |media, target| allows(endpoint, media, target))
        .filter(|output| output.media.streams())
        .ok_or_else(|| {
            let supported = streaming_types();
            not_acceptable(&supported.iter().map(String::as_str).collect::<Vec<_>>())
        })
}

/// The representation of an error or other `Status`: what `Accept` allows, else JSON. An error is never hidden
/// behind a negotiation that fails.
pub fn output_status(accept: Option<&str>) -> MediaType {
    choose(accept, |_, target| target.is_none()).map_or(MediaType::Json, |output| output.media)
}

/// The version (`v2`, `v2beta1`) of aggregated discovery that a client asks for, and its representation; `None` if
/// it wants the documents of before, one for each group version.
pub fn aggregated_discovery(accept: Option<&str>) -> Option<(MediaType, &'static str)> {
    parse_accept(accept?).iter().find_map(|clause| {
        let media = ALL.into_iter().find(|media| clause.covers(*media))?;
        let wanted =
            clause.param("as") == "APIGroupDiscoveryList" && clause.param("g") == "apidiscovery.k8s.io";
        let version = ["v2", "v2beta1"].into_iter().find(|version| clause.param("v") == *version)?;
        wanted.then_some((media, version))
    })
}

/// The representation of a body by its `Content-Type` (JSON if there is none). `aliases` are further names: the
/// documentation of ManagedServiceAccount, for one, sends YAML as `managedserviceaccount/yaml`. Errors: 415.
pub fn input(content_type: Option<&str>, aliases: &[(&str, MediaType)]) -> Result<MediaType, Status> {
    let content_type = content_type.filter(|text| !text.is_empty()).unwrap_or(MediaType::Json.as_str());
    let known = parse_media_type(content_type).and_then(|name| {
        let own = ALL.into_iter().find(|media| media.as_str() == name);
        own.or_else(|| aliases.iter().find(|(alias, _)| *alias == name).map(|(_, media)| *media))
    });
    known.ok_or_else(|| {
        let supported: Vec<&str> = ALL.iter().map(|media| media.as_str()).collect();
        unknown_format(&supported)
    })
}

/// Whether an answer is to be indented: `pretty` says so, or a browser or command line tool asks
/// (`isPrettyPrint`).
fn pretty(query: &Pairs, user_agent: &str) -> bool {
    // These are the values of `strconv.ParseBool`, unlike those of all other options (`Convert_Slice_string_To_bool`).
    match first(query, "pretty").filter(|text| !text.is_empty()) {
        Some(text) => matches!(text, "1" | "t" | "T" | "true" | "TRUE" | "True"),
        None => ["curl", "Wget", "Mozilla/5.0"].iter().any(|tool| user_agent.starts_with(tool)),
    }
}

/// The media types of watches, as error messages list them.
fn streaming_types() -> Vec<String> {
    let streaming = ALL.into_iter().filter(|media| media.streams());
    streaming.map(|media| format!("{};stream=watch", media.as_str())).collect()
}

/// 406 for a kind of discovery document that does not exist.
pub fn not_acceptable_discovery() -> Status {
    not_acceptable(&ALL.map(MediaType::as_str))
}

/// 406 (`NewNotAcceptableError`).
fn not_acceptable(supported: &[&str]) -> Status {
    Status::not_acceptable(format!("only the following media types are accepted: {}", supported.join(", ")))
}

/// 415 (`NewUnsupportedMediaTypeError`).
fn unknown_format(supported: &[&str]) -> Status {
    Status::unsupported_media_type(format!(
        "the body of the request was in an unknown format - accepted media types include: {}",
        supported.join(", ")
    ))
}

/// Whether an endpoint can answer with a media type and a kind to convert to (`AllowsMediaTypeTransform`).
fn allows(endpoint: Endpoint, media: MediaType, target: Option<TargetKind>) -> bool {
    match target {
        // Custom resources have no messages, but partial metadata of them has: it is a built-in kind.
        None => !(endpoint.custom && media == MediaType::Protobuf),
        Some(TargetKind::Table) => endpoint.table && media != MediaType::Protobuf,
        Some(_) => true,
    }
}

/// The first clause, best first, of which the endpoint can do what it asks.
fn choose(accept: Option<&str>, allows: impl Fn(MediaType, Option<TargetKind>) -> bool) -> Option<Output> {
    let Some(accept) = accept.filter(|accept| !accept.is_empty()) else {
        return Some(Output { media: MediaType::Json, convert_to: None, pretty: false });
    };
    parse_accept(accept).iter().find_map(|clause| {
        // A wildcard takes the first representation with which all else in the clause works.
        ALL.into_iter().filter(|media| clause.covers(*media)).find_map(|media| {
            let convert_to = clause.convert_to()?;
            let stream = clause.param("stream");
            let streams = stream.is_empty() || (stream == "watch" && media.streams());
            let version = matches!(clause.param("sv"), "" | "v1");
            let fits = streams && version && allows(media, convert_to.map(|(kind, _)| kind));
            fits.then(|| Output { media, convert_to, pretty: clause.param("pretty") == "1" })
        })
    })
}

/// One clause of an `Accept` header.
struct Clause {
    /// The part before the slash.
    kind: String,
    subtype: String,
    /// The parameters other than `q`, in order.
    params: Vec<(String, String)>,
    /// `q`; 1 if it is not given.
    quality: f32,
}

impl Clause {
    /// Whether the clause accepts a representation, by name or with a star.
    fn covers(&self, media: MediaType) -> bool {
        match (self.kind.as_str(), self.subtype.as_str()) {
            ("*", "*") | ("application", "*") => true,
            ("application", subtype) => subtype == media.subtype(),
            _ => false,
        }
    }

    /// The value of a parameter (the last one of that name), or nothing.
    fn param(&self, name: &str) -> &str {
        self.params.iter().rev().find(|(key, _)| key == name).map_or("", |(_, value)| value)
    }

    /// The kind to convert to, or none; `None` if there is no such kind.
    #[allow(clippy::option_option)] // "none is asked for" and "one is asked for that nobody knows" differ
    fn convert_to(&self) -> Option<Option<(TargetKind, MetaVersion)>> {
        if !self.params.iter().any(|(key, _)| ["as", "g", "v"].contains(&key.as_str())) {
            return Some(None);
        }
        let version = match (self.param("g"), self.param("v")) {
            ("meta.k8s.io", "v1") => MetaVersion::V1,
            ("meta.k8s.io", "v1beta1") => MetaVersion::V1beta1,
            _ => return None,
        };
        let kind = match self.param("as") {
            "Table" => TargetKind::Table,
            "PartialObjectMetadata" => TargetKind::PartialObjectMetadata,
            "PartialObjectMetadataList" => TargetKind::PartialObjectMetadataList,
            _ => return None,
        };
        Some(Some((kind, version)))
    }

    /// Whether this clause goes before another: not an order, but what goautoneg sorts by.
    fn before(&self, other: &Self) -> bool {
        self.quality > other.quality
            || (self.kind != "*" && other.kind == "*")
            || (self.subtype != "*" && other.subtype == "*")
    }
}

/// The clauses of `Accept`, best first (`munnerz/goautoneg`). A quality of 0 excludes nothing there.
fn parse_accept(header: &str) -> Vec<Clause> {
    // Sorting is quadratic; no honest client has more to say.
    const MAX_CLAUSES: usize = 64;
    let mut clauses: Vec<Clause> = header.split(',').take(MAX_CLAUSES).filter_map(parse_clause).collect();
    // By insertion, as Go sorts a dozen elements: `before` contradicts itself for some clauses, so another algorithm would give
    // another order, and the standard library's sort may panic.
    for end in 1..clauses.len() {
        let mut at = end;
        while at > 0 && clauses[at].before(&clauses[at - 1]) {
            clauses.swap(at, at - 1);
            at -= 1;
        }
    }
    clauses
}

/// One clause; `None` for what is no media type, which is passed over.
fn parse_clause(text: &str) -> Option<Clause> {
    let mut parts = text.trim().split(';');
    let media = parts.next().unwrap_or_default();
    let (kind, subtype) = match media.split_once('/') {
        Some((_, rest)) if rest.contains('/') => return None,
        Some((kind, subtype)) if !subtype.is_empty() => (kind.trim(), subtype.trim()),
        _ if media.trim_end_matches('/').trim() == "*" => ("*", "*"),
        _ => return None,
    };
    let mut clause = Clause { kind: kind.into(), subtype: subtype.into(), params: Vec::new(), quality: 1.0 };
    for part in parts {
        let Some((name, value)) = part.split_once('=') else { continue };
        if value.is_empty() || value.contains('=') {
            continue;
        }
        match name.trim() {
            // As in Go, a quality that is no number is 0, and 0 excludes nothing.
            "q" => clause.quality = value.parse().unwrap_or(0.0),
            name => clause.params.push((name.into(), value.trim().into())),
        }
    }
    Some(clause)
}

/// The media type in lower case, without parameters; `None` if Go's `mime.ParseMediaType` would refuse it.
fn parse_media_type(text: &str) -> Option<String> {
    // A `;` inside quotes is taken for a separator, and the header then refused; no parameter that matters has one.
    let (base, params) = text.split_once(';').unwrap_or((text, ""));
    let base = base.trim().to_ascii_lowercase();
    let (kind, subtype) = base.split_once('/')?;
    if !is_token(kind) || !is_token(subtype) {
        return None;
    }
    let mut seen: Vec<String> = Vec::new();
    let params: Vec<&str> = params.split(';').map(str::trim).collect();
    for (index, param) in params.iter().enumerate() {
        if param.is_empty() {
            // A trailing semicolon is forgiven.
            if index + 1 == params.len() {
                continue;
            }
            return None;
        }
        let (name, value) = param.split_once('=')?;
        let quoted = value.len() >= 2 && value.starts_with('"') && value.ends_with('"');
        let name = name.to_ascii_lowercase();
        if !is_token(&name) || !(quoted || is_token(value)) || seen.contains(&name) {
            return None;
        }
        seen.push(name);
    }
    Some(base)
}

/// A token of RFC 2045.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STORED: Endpoint = Endpoint { custom: false, table: true, watchable: false };
    const REVIEW: Endpoint = Endpoint { custom: false, table: false, watchable: false };
    const CUSTOM: Endpoint = Endpoint { custom: true, table: true, watchable: false };

    /// What the server answers: the representation and form, or the beginning of the error.
    fn answer(accept: &str, endpoint: Endpoint) -> String {
        let accept = Some(accept);
        let outcome =
            route(accept, endpoint, "GET", false).and_then(|()| output(accept, endpoint, &[], "kubectl"));
        match outcome {
            Ok(Output { media, convert_to: None, .. }) => media.as_str().to_string(),
            Ok(Output { media, convert_to: Some((kind, version)), .. }) => {
                format!("{} {kind:?} {}", media.as_str(), version.api_version())
            }
            Err(status) => {
                format!("{} {}", status.code, status.message.split(':').next().unwrap_or_default())
            }
        }
    }

    #[test]
    fn accept_is_negotiated_in_two_steps() {
        const RESTFUL: &str = "406 406";
        const HANDLER: &str = "406 only the following media types are accepted";
        for (accept, endpoint, expected) in [
            ("", STORED, "application/json"),
            ("*/*", STORED, "application/json"),
            ("application/yaml", STORED, "application/yaml"),
            (
                "application/vnd.kubernetes.protobuf,application/json",
                STORED,
                "application/vnd.kubernetes.protobuf",
            ),
            ("application/*", STORED, RESTFUL),
            ("application/*", CUSTOM, "application/json"),
            ("text/html", STORED, RESTFUL),
            ("text/html", CUSTOM, HANDLER),
            ("garbage", STORED, RESTFUL),
            ("text/html, */*;q=0.1", STORED, "application/json"),
            ("application/xml, application/json;q=0.5", STORED, "application/json"),
            ("application/json;q=0", STORED, "application/json"),
            ("application/json; charset=utf-8", STORED, "application/json"),
            ("application/vnd.kubernetes.protobuf", CUSTOM, HANDLER),
            ("application/vnd.kubernetes.protobuf, application/yaml;q=0.9", CUSTOM, "application/yaml"),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", STORED, "application/json Table meta.k8s.io/v1"),
            (
                "application/json;as=Table;v=v1beta1;g=meta.k8s.io",
                STORED,
                "application/json Table meta.k8s.io/v1beta1",
            ),
            ("application/json;as=Table;v=v1;g=meta.k8s.io", REVIEW, HANDLER),
            ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", REVIEW, "application/json"),
            (
                "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
                REVIEW,
                "application/json PartialObjectMetadata meta.k8s.io/v1",
            ),
            ("application/json;as=Table;v=v2;g=meta.k8s.io", STORED, HANDLER),
            ("application/json;as=Table", STORED, HANDLER),
            ("application/json;as=Chair;v=v1;g=meta.k8s.io", CUSTOM, HANDLER),
            ("application/json, application/json;as=Table;v=v1;g=meta.k8s.io", STORED, "application/json"),
            (
                "application/json;as=Table;g=meta.k8s.io;v=v1;q=0.5, application/json;q=0.9",
                STORED,
                "application/json",
            ),
            (
                "application/vnd.kubernetes.protobuf;as=Table;v=v1;g=meta.k8s.io,application/json",
                STORED,
                "application/json",
            ),
        ] {
            assert_eq!(answer(accept, endpoint), expected, "{accept}");
        }
    }

    #[test]
    fn watches_need_a_stream() {
        let list = Endpoint { watchable: true, ..STORED };
        assert_eq!(
            output_stream(Some("application/json;stream=watch"), list).unwrap().media,
            MediaType::Json
        );
        assert_eq!(
            output_stream(Some("application/yaml"), list).unwrap_err().message,
            "only the following media types are accepted: application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
        assert_eq!(
            route(Some("text/html"), list, "GET", false).unwrap_err().message,
            "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml, application/vnd.kubernetes.protobuf, application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
        );
    }

    #[test]
    fn errors_are_always_sent() {
        assert_eq!(output_status(Some("application/yaml")), MediaType::Yaml);
        assert_eq!(output_status(Some("text/html")), MediaType::Json);
        assert_eq!(output_status(Some("application/yaml;as=Table;v=v1;g=meta.k8s.io")), MediaType::Json);
    }

    #[test]
    fn bodies_are_told_by_their_content_type() {
        const ALIAS: &[(&str, MediaType)] = &[("managedserviceaccount/yaml", MediaType::Yaml)];
        for (content_type, expected) in [
            (None, Some(MediaType::Json)),
            (Some(""), Some(MediaType::Json)),
            (Some("Application/JSON"), Some(MediaType::Json)),
            (Some("application/json; charset=utf-8"), Some(MediaType::Json)),
            (Some("application/json; charset=\"utf-8\";"), Some(MediaType::Json)),
            (Some("application/yaml"), Some(MediaType::Yaml)),
            (Some("managedserviceaccount/yaml"), Some(MediaType::Yaml)),
            (Some("application/json; charset"), None),
            (Some("text/plain"), None),
            (Some("*/*"), None),
            (Some("///"), None),
            (Some("garbage"), None),
        ] {
            assert_eq!(input(content_type, ALIAS).ok(), expected, "{content_type:?}");
        }
        assert_eq!(
            input(Some("managedserviceaccount/yaml"), &[]).unwrap_err().message,
            "the body of the request was in an unknown format - accepted media types include: application/json, application/yaml, application/vnd.kubernetes.protobuf"
        );
    }

    #[test]
    fn discovery_is_aggregated_on_demand() {
        let v2 = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
        assert_eq!(aggregated_discovery(Some(v2)), Some((MediaType::Json, "v2")));
        assert_eq!(
            aggregated_discovery(Some(&format!("application/json,{v2}"))),
            Some((MediaType::Json, "v2"))
        );
        assert_eq!(aggregated_discovery(Some("application/json")), None);
        assert_eq!(aggregated_discovery(None), None);
    }

    #[test]
    fn answers_for_people_are_indented() {
        assert!(pretty(&[("pretty".into(), "true".into())], ""));
        assert!(!pretty(&[("pretty".into(), "0".into())], "curl/8"));
        assert!(pretty(&[], "curl/8"));
        assert!(!pretty(&[], "kubectl/v1"));
    }

    proptest! {
        #[test]
        fn any_header_never_panics(header in "[a-z*/;=,. q0-9\"]{0,60}") {
            let _ = output(Some(&header), STORED, &[], "");
            let _ = input(Some(&header), &[]);
        }
    }
}
