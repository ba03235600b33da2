//! The OpenAPI documents that describe the API to clients: an index and one OpenAPI 3.0 document for each group and
//! version below `/openapi/v3` (`kube-openapi/pkg/handler3`), and one Swagger 2.0 document of everything at
//! `/openapi/v2` (`kube-openapi/pkg/handler`). kubectl reads them to explain fields, to learn that the server
//! validates fields, and to merge on the client. No I/O.
//!
//! Documents are pure functions of the table of kinds. They are built when somebody asks, written piece by piece
//! into a compressor, and kept compressed.

mod cache;
mod custom;
mod definitions;
mod descriptions;
mod names;
mod page;
mod parameters;
mod proto;
mod routes;
mod v2;
mod v3;

pub(crate) use cache::Cache;

use crate::catalog::Kinds;
use bytes::Bytes;
use cache::Document;
use fleetpass_apimachinery::status::Status;
use http::{Response, StatusCode, header};
use page::Page;
use serde_json::{Map, json};
use std::collections::BTreeSet;
use std::sync::Arc;

const V2: &str = "/openapi/v2";
const V3: &str = "/openapi/v3";

/// The form of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Media {
    Json,
    /// Swagger 2.0 in protobuf; client-go asks for `/openapi/v2` in no other form.
    Protobuf,
}

impl Media {
    /// The media type as an answer names it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Protobuf => "application/com.github.proto-openapi.spec.v2.v1.0+protobuf",
        }
    }

    fn matches(self, plain: &str) -> bool {
        // With an @, as client-go names it, the type is no valid media type; that is its older name.
        let old = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
        matches!(plain, "*/*" | "application/*")
            || plain == self.as_str()
            || (self == Self::Protobuf && plain == old)
    }
}

/// A request for a document: what matters of its URL and headers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Request<'a> {
    /// The path: `/openapi/v2`, `/openapi/v3`, or below the latter.
    pub path: &'a str,
    /// The query parameter `hash`.
    pub hash: Option<&'a str>,
    /// The header `Accept`.
    pub accept: Option<&'a str>,
    /// The header `If-None-Match`.
    pub(crate) if_none_match: Option<&'a str>,
    /// Whether `Accept-Encoding` allows gzip; documents are kept compressed.
    pub gzip: bool,
}

/// Answers a request: 200 with a document, 304 if the client has it, 301 to the present one if `hash` names an older
/// one. Takes some milliseconds for what nobody has asked for since the kinds in it changed.
///
/// # Errors
/// 404 for a path without a document, 406 if it does not come in an acceptable form.
pub(crate) fn serve(request: &Request<'_>, kinds: &Kinds, cache: &Cache) -> Result<Response<Bytes>, Status> {
    if request.path.trim_end_matches('/') == V2 {
        return swagger(request, kinds, cache);
    }
    let rest = request.path.strip_prefix(V3).ok_or_else(Status::unknown_path)?;
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() {
        return index(request, kinds, cache);
    }
    let name = rest.strip_prefix('/').ok_or_else(Status::unknown_path)?;
    // Whether there is such a document comes before the form in which it is wanted: 404 before 406.
    let page = Page::find(kinds, name).ok_or_else(Status::unknown_path)?;
    let media = choose(request.accept, &[Media::Json])?;
    let document = v3_document(name, &page, kinds, cache)?;
    // The index links to documents with their hashes. A client with an old index is sent to the present document;
    // with the right hash it may keep the document for ever.
    let immutable = match request.hash.filter(|hash| !hash.is_empty()) {
        Some(hash) if hash != document.hash => return redirect(&url(name, &document.hash)),
        hash => hash.is_some(),
    };
    respond(request, &document, media, immutable)
}

/// The Swagger 2.0 document.
fn swagger(request: &Request<'_>, kinds: &Kinds, cache: &Cache) -> Result<Response<Bytes>, Status> {
    let media = choose(request.accept, &[Media::Json, Media::Protobuf])?;
    // Of all kinds: a change of any definition makes a new document. Clients that can use /openapi/v3 are spared
    // that.
    let rows: Vec<_> = kinds.rows().cloned().collect();
    let document = match media {
        Media::Json => cache.get(V2, &rows, |out| v2::write_json(kinds, out)),
        Media::Protobuf => cache.get("/openapi/v2 protobuf", &rows, |out| v2::write_protobuf(kinds, out)),
    };
    let document = document.map_err(Status::internal)?;
    respond(request, &document, media, false)
}

fn v3_document(name: &str, page: &Page, kinds: &Kinds, cache: &Cache) -> Result<Arc<Document>, Status> {
    let document = cache.get(name, &page.rows(kinds), |out| v3::write(page, kinds, out));
    // Groups come and go with CRDs, and not everybody reads the index, which forgets the documents of those that are gone.
    if cache.len() > MANY_DOCUMENTS && cache.len() > 2 * kinds.groups().count() {
        cache.retain(|name| name.starts_with('/') || Page::find(kinds, name).is_some());
    }
    document.map_err(Status::internal)
}

/// So many documents are kept without a look at whether they are still there to be read.
const MANY_DOCUMENTS: usize = 64;

/// The list of all documents, each with its hash, so that a client need not ask again for what has not changed.
fn index(request: &Request<'_>, kinds: &Kinds, cache: &Cache) -> Result<Response<Bytes>, Status> {
    let pages = Page::all(kinds);
    let mut paths = Map::new();
    // The hashes are those of the documents, so the first request for the index builds all of them; later ones only
    // those whose kinds have changed.
    for (name, page) in &pages {
        let document = v3_document(name, page, kinds, cache)?;
        paths.insert(name.clone(), json!({"serverRelativeURL": url(name, &document.hash)}));
    }
    // Groups that are gone. The names of the Swagger documents begin with a slash, as no other does.
    let known: BTreeSet<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
    cache.retain(|name| name.starts_with('/') || known.contains(name));
    let body = json!({"paths": paths}).to_string();
    // Not kept: the index is small, and made of hashes that are at hand.
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, body.as_bytes());
    let hash: String = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    let etag = format!("\"{hash}\"");
    if matches_etag(request.if_none_match, &etag) {
        return not_modified(&etag);
    }
    let response =
        Response::builder().header(header::CONTENT_TYPE, Media::Json.as_str()).header(header::ETAG, etag);
    response.body(body.into()).map_err(Status::internal)
}

fn url(name: &str, hash: &str) -> String {
    format!("{V3}/{name}?hash={hash}")
}

fn respond(
    request: &Request<'_>,
    document: &Document,
    media: Media,
    immutable: bool,
) -> Result<Response<Bytes>, Status> {
    let etag = format!("\"{}\"", document.hash);
    if matches_etag(request.if_none_match, &etag) {
        return not_modified(&etag);
    }
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, media.as_str())
        .header(header::ETAG, etag)
        .header(header::VARY, "Accept, Accept-Encoding");
    if immutable {
        // The URL names the content, so it can be kept for ever; a year is the longest that may be said.
        response = response.header(header::CACHE_CONTROL, "public, immutable, max-age=31536000");
    }
    // The usual case costs nothing: what is kept is what is sent.
    if request.gzip {
        let response = response.header(header::CONTENT_ENCODING, "gzip");
        return response.body(document.compressed.clone()).map_err(Status::internal);
    }
    response.body(document.plain().map_err(Status::internal)?).map_err(Status::internal)
}

fn not_modified(etag: &str) -> Result<Response<Bytes>, Status> {
    let response = Response::builder().status(StatusCode::NOT_MODIFIED).header(header::ETAG, etag);
    response.body(Bytes::new()).map_err(Status::internal)
}

fn redirect(to: &str) -> Result<Response<Bytes>, Status> {
    let response = Response::builder().status(StatusCode::MOVED_PERMANENTLY).header(header::LOCATION, to);
    response.body(Bytes::new()).map_err(Status::internal)
}

/// Whether `If-None-Match` names this entity tag; a weak one counts as the strong one (RFC 9110, 13.1.2).
fn matches_etag(header: Option<&str>, etag: &str) -> bool {
    header.is_some_and(|tags| {
        tags.split(',').map(str::trim).any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
    })
}

/// The form that an `Accept` header likes best of those offered (without one, the first), or 406.
fn choose(header: Option<&str>, offers: &[Media]) -> Result<Media, Status> {
    let header = header.map(str::trim).filter(|h| !h.is_empty()).unwrap_or("*/*");
    let mut clauses: Vec<(&str, f64)> = header
        .split(',')
        .map(|clause| {
            let mut parts = clause.split(';').map(str::trim);
            let plain = parts.next().unwrap_or_default();
            // A quality that is no number counts as none, which is 1: better an answer in that form than none.
            let quality = parts.find_map(|p| p.strip_prefix("q="));
            (plain, quality.and_then(|q| q.parse().ok()).unwrap_or(1.0))
        })
        .collect();
    // A stable sort: what is listed first wins among equals.
    clauses.sort_by(|a, b| b.1.total_cmp(&a.1));
    let chosen = clauses.iter().find_map(|(plain, _)| offers.iter().find(|media| media.matches(plain)));
    chosen.copied().ok_or_else(|| {
        let offered: Vec<&str> = offers.iter().map(|media| media.as_str()).collect();
        Status::not_acceptable(format!("only the following media types are accepted: {}", offered.join(", ")))
    })
}

#[cfg(test)]
mod tests;
