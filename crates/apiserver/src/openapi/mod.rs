//! The OpenAPI documents that describe the API to clients: an index and one OpenAPI 3.0 document for each group and
//! version below `/openapi/v3`. kubectl reads them to explain fields, to learn that the server
//! validates fields, and to merge on the client (`kube-openapi/pkg/handler3`). No I/O.
//!
//! Documents are pure functions of the table of kinds. They are built when somebody asks, written piece by piece
//! into a compressor, and kept compressed.

mod cache;
mod custom;
mod definitions;
mod descriptions;
mod page;
mod parameters;
mod routes;
mod v3;

pub use cache::Cache;

use crate::catalog::Table;
use crate::status::Status;
use bytes::Bytes;
use cache::Document;
use http::{Response, StatusCode, header};
use page::Page;
use serde_json::{Map, Value, json};
use std::sync::Arc;

const JSON: &str = "application/json";
const V3: &str = "/openapi/v3";

/// A request for a document: what matters of its URL and headers.
#[derive(Debug, Clone, Copy, Default)]
pub struct Request<'a> {
    /// The path: `/openapi/v3`, or below it.
    pub path: &'a str,
    /// The query parameter `hash`.
    pub hash: Option<&'a str>,
    /// The header `Accept`.
    pub accept: Option<&'a str>,
    /// The header `If-None-Match`.
    pub if_none_match: Option<&'a str>,
    /// Whether `Accept-Encoding` allows gzip; documents are kept compressed.
    pub gzip: bool,
}

/// Answers a request: 200 with a document, 304 if the client has it, 301 to the present one if `hash` names an older
/// one. Takes some milliseconds for what nobody has asked for since the kinds in it changed.
///
/// # Errors
/// 404 for a path without a document, 406 if JSON is not acceptable.
pub fn serve(request: &Request<'_>, table: &Table, cache: &Cache) -> Result<Response<Bytes>, Status> {
    let rest = request.path.strip_prefix(V3).ok_or_else(Status::unknown_path)?;
    let rest = rest.trim_end_matches('/');
    if rest.is_empty() {
        return index(request, table, cache);
    }
    let name = rest.strip_prefix('/').ok_or_else(Status::unknown_path)?;
    let page = Page::find(table, name).ok_or_else(Status::unknown_path)?;
    if !accepts_json(request.accept) {
        return Err(Status::not_acceptable(format!("only the following media types are accepted: {JSON}")));
    }
    let document = v3_document(name, &page, table, cache)?;
    let immutable = match request.hash.filter(|hash| !hash.is_empty()) {
        Some(hash) if hash != document.hash => return redirect(&url(name, &document.hash)),
        hash => hash.is_some(),
    };
    respond(request, &document, immutable)
}

fn v3_document(name: &str, page: &Page, table: &Table, cache: &Cache) -> Result<Arc<Document>, Status> {
    cache.get(name, &page.rows(table), |out| v3::write(page, table, out)).map_err(Status::internal)
}

/// The list of all documents, each with its hash, so that a client need not ask again for what has not changed.
fn index(request: &Request<'_>, table: &Table, cache: &Cache) -> Result<Response<Bytes>, Status> {
    let pages = Page::all(table);
    let mut paths = Map::new();
    for (name, page) in &pages {
        let document = v3_document(name, page, table, cache)?;
        paths.insert(name.clone(), json!({"serverRelativeURL": url(name, &document.hash)}));
    }
    cache.retain(|name| name.starts_with('/') || pages.iter().any(|(known, _)| known == name));
    let body = json!({"paths": paths}).to_string();
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA512, body.as_bytes());
    let hash: String = digest.as_ref().iter().map(|b| format!("{b:02X}")).collect();
    let etag = format!("\"{hash}\"");
    if matches_etag(request.if_none_match, &etag) {
        return not_modified(&etag);
    }
    let response = Response::builder().header(header::CONTENT_TYPE, JSON).header(header::ETAG, etag);
    response.body(body.into()).map_err(Status::internal)
}

fn url(name: &str, hash: &str) -> String {
    format!("{V3}/{name}?hash={hash}")
}

fn respond(request: &Request<'_>, document: &Document, immutable: bool) -> Result<Response<Bytes>, Status> {
    let etag = format!("\"{}\"", document.hash);
    if matches_etag(request.if_none_match, &etag) {
        return not_modified(&etag);
    }
    let mut response = Response::builder()
        .header(header::CONTENT_TYPE, JSON)
        .header(header::ETAG, etag)
        .header(header::VARY, "Accept, Accept-Encoding");
    if immutable {
        // The URL names the content, so it can be kept for ever; a year is the longest that may be said.
        response = response.header(header::CACHE_CONTROL, "public, immutable, max-age=31536000");
    }
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

/// Whether an `Accept` header allows JSON; without one, everything is allowed.
fn accepts_json(header: Option<&str>) -> bool {
    let Some(header) = header.filter(|h| !h.trim().is_empty()) else { return true };
    header.split(',').any(|clause| {
        let plain = clause.split(';').next().unwrap_or_default().trim();
        matches!(plain, "application/json" | "application/*" | "*/*")
    })
}

/// How clients authenticate: a bearer token in the header `Authorization`.
fn security() -> Value {
    json!({"BearerToken": {"description": "A bearer token.", "type": "apiKey", "name": "authorization",
        "in": "header"}})
}

#[cfg(test)]
mod tests;
