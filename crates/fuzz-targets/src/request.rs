//! Method, path, query and the headers that say which representation is meant.

use crate::refusal::check_refusal;
use fleetpass_apimachinery::status::Status;
use fleetpass_apimachinery::{FieldSelector, Query, RequestInfo};
use fleetpass_apiserver::alias::{self, Alias};
use fleetpass_apply::{PatchKind, manager_name};
use fleetpass_codec::body::Format;
use fleetpass_codec::negotiate::{self, Endpoint, MediaType, TargetKind};
use fleetpass_codec::options::{self, Write};

/// Lines: method, path, query, `Accept`, `Content-Type`, `User-Agent`; those that are missing are empty.
pub fn request(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.split('\n');
    let mut next = || lines.next().unwrap_or_default();
    let [method, path, query, accept, content_type, agent] = std::array::from_fn(|_| next());
    let query = Query::parse(query);
    for path in aliased(method, path) {
        check_info(method, &path, &query);
    }
    check_options(&query, text.len());
    check_headers(method, &query, Some(accept), Some(content_type), agent);
    check_headers(method, &query, None, None, agent);
}

/// The path, and where it leads if it is an alias.
fn aliased(method: &str, path: &str) -> Vec<String> {
    let mut paths = vec![path.to_string()];
    if let Some(Alias::Path(real)) = alias::resolve(method, path) {
        assert!(real.starts_with("/apis/"), "{real}");
        paths.push(real);
    }
    paths
}

fn check_info(method: &str, path: &str, query: &Query) {
    let info = RequestInfo::parse(method, path, query);
    assert_eq!(info, RequestInfo::parse(method, path, query));
    if !info.is_resource {
        assert_eq!(info.verb, method.to_lowercase());
        assert!(info.resource.is_empty() && info.group.is_empty() && info.name.is_empty());
        return;
    }
    assert!(matches!(info.prefix.as_str(), "api" | "apis"));
    assert!(info.prefix == "apis" || info.group.is_empty());
    assert!(info.path.contains(&info.resource) && info.path.contains(&info.subresource));
    let writes = match info.verb.as_str() {
        "get" | "list" | "watch" => !matches!(method, "GET" | "HEAD"),
        "create" => method != "POST",
        "update" => method != "PUT",
        "patch" => method != "PATCH",
        "delete" | "deletecollection" => method != "DELETE",
        "proxy" => false,
        other => {
            assert!(other.is_empty());
            matches!(method, "GET" | "HEAD" | "POST" | "PUT" | "PATCH" | "DELETE")
        }
    };
    // `watch` in the path makes any method a watch, as in kube-apiserver; the router refuses it later.
    assert!(!writes || info.watch_path, "{method} {path} is {}", info.verb);
    match info.verb.as_str() {
        "get" | "delete" => assert!(!info.name.is_empty()),
        "list" | "watch" | "deletecollection" => check_name(&info, query),
        _ => {}
    }
}

/// A name that is no part of the path is what authorization goes by, so the selector must select nothing else.
fn check_name(info: &RequestInfo, query: &Query) {
    let in_path = info.parts.get(1).is_some_and(|part| *part == info.name);
    if info.name.is_empty() || in_path {
        return;
    }
    let selector = query.get("fieldSelector").unwrap_or_default();
    if let Ok(selector) = FieldSelector::parse(selector) {
        assert_eq!(selector.required_value("metadata.name"), Some(info.name.as_str()));
        assert!(!selector.matches(|field| if field == "metadata.name" {
            format!("{}x", info.name)
        } else {
            String::new()
        }));
    }
}

fn check_options(query: &Query, length: usize) {
    let pairs = query.pairs();
    let refused = |status: Status| {
        assert!(matches!(status.code, 400 | 422), "{}", status.code);
        // Values of selectors that are none are refused with a long rule each; a field manager of at most 128 bytes is quoted once for each of its characters that does not print.
        check_refusal(&status.message, 15 * length + 10_000);
    };
    match options::list(pairs) {
        Ok(list) => {
            assert_eq!(list.labels.to_string().is_empty(), list.labels.is_empty());
            assert!(list.send_initial_events.is_none() || list.watch);
            if query.get("resourceVersionMatch").is_some_and(|text| !text.is_empty()) {
                assert!(list.resource_version_match.is_some());
            }
        }
        Err(status) => refused(status),
    }
    for write in [Write::Create, Write::Update, Write::Patch, Write::Apply] {
        match options::write(pairs, write) {
            Ok(found) => {
                assert!(found.field_manager.len() <= 128);
                assert_eq!(found.dry_run, query.get("dryRun").is_some());
                assert!(write != Write::Apply || !found.field_manager.is_empty());
                assert!(write != Write::Patch || !found.force);
            }
            Err(status) => refused(status),
        }
    }
    match options::delete(b"", Format::Json, pairs) {
        Ok(delete) => assert_eq!(delete.dry_run, query.get("dryRun").is_some()),
        Err(status) => refused(status),
    }
}

fn check_headers(method: &str, query: &Query, accept: Option<&str>, content_type: Option<&str>, agent: &str) {
    for (custom, table, watchable) in [(false, true, true), (true, true, false), (false, false, false)] {
        let endpoint = Endpoint { custom, table, watchable };
        for has_body in [true, false] {
            if let Err(status) = negotiate::route(accept, endpoint, method, has_body) {
                assert!(!custom && matches!(status.code, 406 | 415));
            }
        }
        match negotiate::output(accept, endpoint, query.pairs(), agent) {
            Ok(output) => {
                let target = output.convert_to.map(|(kind, _)| kind);
                assert!(target != Some(TargetKind::Table) || (table && output.media != MediaType::Protobuf));
                assert!(!(custom && output.media == MediaType::Protobuf && target.is_none()));
                assert!(
                    accept.is_some_and(|a| !a.is_empty())
                        || (output.media == MediaType::Json && target.is_none())
                );
            }
            Err(status) => assert_eq!(status.code, 406),
        }
        match negotiate::output_stream(accept, endpoint) {
            Ok(output) => assert_ne!(output.media, MediaType::Yaml),
            Err(status) => assert_eq!(status.code, 406),
        }
        match PatchKind::from_content_type(content_type, custom) {
            Ok(kind) => assert!(content_type.is_some_and(|header| header.starts_with(kind.media_type()))),
            // A strategic merge patch is for built-in kinds only.
            Err(refused) => assert_eq!(refused.accepted.contains(&PatchKind::Strategic), !custom),
        }
    }
    negotiate::output_status(accept);
    if let Some((_, version)) = negotiate::aggregated_discovery(accept) {
        assert!(accept.is_some_and(|accept| accept.contains(version)));
    }
    match negotiate::input(content_type, &[(alias::MEDIA_TYPE, MediaType::Yaml)]) {
        Ok(_) => {}
        Err(status) => assert_eq!(status.code, 415),
    }
    let name = manager_name(query.get("fieldManager").unwrap_or_default(), agent);
    assert!(!name.is_empty());
}
