//! What a request's path and query ask for (`k8s.io/apiserver/pkg/endpoints/request/requestinfo.go`). No I/O.

use crate::FieldSelector;
use crate::validation::names::is_path_segment;
use percent_encoding::percent_decode_str;
use std::borrow::Cow;

/// What the method, path and query of a request say that routing, authorization, audit and metrics go by
/// (`request.RequestInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RequestInfo {
    /// Whether the path names a resource.
    pub is_resource: bool,
    /// The decoded path.
    pub path: String,
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`; for other paths the
    /// lower-case method.
    pub verb: String,
    /// `api` or `apis`.
    pub prefix: String,
    /// The API group; empty for core.
    pub group: String,
    /// The API version.
    pub version: String,
    /// The namespace, if the path names one. For namespaces themselves, their own name.
    pub namespace: String,
    /// The plural resource name.
    pub resource: String,
    /// The subresource, if any.
    pub subresource: String,
    /// The object's name, if any; from a `metadata.name` field selector for lists.
    pub name: String,
    /// The parts of the path from the resource on.
    pub parts: Vec<String>,
    /// Whether the path begins with `/watch/` (the deprecated form of a watch).
    pub watch_path: bool,
}

/// The decoded pairs of a query string, in order. Pairs that cannot be decoded are dropped, as Go drops them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Parses `a=b&c=d` with `+` and percent escapes (Go's `url.ParseQuery`).
    pub fn parse(query: &str) -> Self {
        // `percent_decode_str` leaves a malformed escape as it is; Go refuses the pair.
        let decode = |text: &str| {
            let spaced = text.replace('+', " ");
            valid_escapes(&spaced).then(|| percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
        };
        // Since 1.17 Go takes a semicolon for an error, not for a separator, and so drops the pair.
        let pairs =
            query.split('&').filter(|pair| !pair.is_empty() && !pair.contains(';')).filter_map(|pair| {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                Some((decode(key)?, decode(value)?))
            });
        Self(pairs.collect())
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All pairs, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// Whether every `%` is followed by two hexadecimal digits.
fn valid_escapes(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'%')
        .all(|(i, _)| bytes.get(i + 1..i + 3).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit)))
}

impl RequestInfo {
    /// Parses method, path (still percent-encoded) and query.
    pub fn parse(method: &str, path: &str, query: &Query) -> Self {
        let path: Cow<'_, str> = percent_decode_str(path).decode_utf8_lossy();
        let mut info =
            Self { path: path.clone().into_owned(), verb: method.to_lowercase(), ..Self::default() };
        let trimmed = path.trim_matches('/');
        let mut parts: Vec<&str> = if trimmed.is_empty() { Vec::new() } else { trimmed.split('/').collect() };
        // Shorter paths, such as `/api/v1`, are discovery and name no resource.
        if parts.len() < 3 || !matches!(parts[0], "api" | "apis") {
            return info;
        }
        info.prefix = parts.remove(0).into();
        if info.prefix == "apis" {
            if parts.len() < 3 {
                return info;
            }
            info.group = parts.remove(0).into();
        }
        info.is_resource = true;
        info.version = parts.remove(0).into();
        info.verb = match method {
            "POST" => "create",
            "GET" | "HEAD" => "get",
            "PUT" => "update",
            "PATCH" => "patch",
            "DELETE" => "delete",
            // No verb: only a rule for all verbs allows it.
            _ => "",
        }
        .into();
        info.split(parts);
        info.refine_verb(query);
        info
    }

    /// Splits what follows the version: `[watch/][namespaces/NS/]RESOURCE[/NAME[/SUBRESOURCE]]`. There is at least one part.
    fn split(&mut self, mut parts: Vec<&str>) {
        // These two are the deprecated form in which the path names the verb. It replaces that of the method, as in Go. That is
        // safe because authorization and dispatch go by the same verb: a `DELETE` below `/watch/` can do no more than watch.
        if parts.len() > 1 && matches!(parts[0], "watch" | "proxy") {
            self.watch_path = parts[0] == "watch";
            self.verb = parts.remove(0).into();
        }
        if parts[0] == "namespaces" && parts.len() > 1 {
            self.namespace = parts[1].into();
            // `/namespaces/NS/status` and `/finalize` are subresources of the namespace itself.
            if parts.len() > 2 && !matches!(parts[2], "status" | "finalize") {
                parts.drain(..2);
            }
        }
        // What is behind the subresource stays in `parts` only: it is for the router to refuse (`is_too_deep`).
        self.parts = parts.iter().map(ToString::to_string).collect();
        let part = |i: usize| parts.get(i).map(ToString::to_string).unwrap_or_default();
        (self.resource, self.name) = (part(0), part(1));
        if self.verb != "proxy" {
            self.subresource = part(2);
        }
    }

    /// Without a name in the path a `get` is a `list` or `watch`, and a `delete` a `deletecollection`; the name may then come
    /// from the field selector.
    fn refine_verb(&mut self, query: &Query) {
        if !self.name.is_empty() {
            return;
        }
        match self.verb.as_str() {
            "get" => {
                let watch = query.get("watch").is_some_and(go_bool_lenient);
                self.verb = if watch { "watch" } else { "list" }.into();
            }
            "watch" => {}
            "delete" => self.verb = "deletecollection".into(),
            _ => return,
        }
        // So a rule with `resourceNames` can allow a list or watch of that one object.
        self.name = selected_name(query.get("fieldSelector").unwrap_or_default()).unwrap_or_default();
    }

    /// Whether parts of the path follow the subresource; there is nothing at such a path.
    pub fn is_too_deep(&self) -> bool {
        self.parts.len() > 3
    }

    /// Group and version as `apiVersion` prints them.
    pub fn api_version(&self) -> String {
        crate::gvk::api_version(&self.group, &self.version)
    }
}

/// How apimachinery converts a query value to a bool: only `false` and `0` (any case) are false
/// (`runtime.Convert_Slice_string_To_bool`).
fn go_bool_lenient(text: &str) -> bool {
    !(text == "0" || text.eq_ignore_ascii_case("false"))
}

/// The name that a field selector demands, if it demands one exactly.
// It is read with the parser that later selects objects, not with a search for `metadata.name=` in the text: authorization
// goes by this name, so the two must not understand a selector differently (`metadata.name=a` may be part of a value).
fn selected_name(selector: &str) -> Option<String> {
    let selector = FieldSelector::parse(selector).ok()?;
    let name = selector.required_value("metadata.name")?;
    let name_like = !name.is_empty() && is_path_segment(name, false).is_empty();
    name_like.then(|| name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(method: &str, target: &str) -> RequestInfo {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        RequestInfo::parse(method, path, &Query::parse(query))
    }

    #[test]
    fn paths_name_what_they_ask_for() {
        // method, target, verb, group, version, namespace, resource, subresource, name
        for (method, target, want) in [
            ("GET", "/api/v1/namespaces", ["list", "", "v1", "", "namespaces", "", ""]),
            ("GET", "/api/v1/namespaces/a", ["get", "", "v1", "a", "namespaces", "", "a"]),
            (
                "PUT",
                "/api/v1/namespaces/a/finalize",
                ["update", "", "v1", "a", "namespaces", "finalize", "a"],
            ),
            ("GET", "/api/v1/namespaces/a/secrets/", ["list", "", "v1", "a", "secrets", "", ""]),
            (
                "POST",
                "/api/v1/namespaces/a/serviceaccounts/b/token",
                ["create", "", "v1", "a", "serviceaccounts", "token", "b"],
            ),
            ("GET", "/apis/x.y/v1/things?watch=1", ["watch", "x.y", "v1", "", "things", "", ""]),
            (
                "GET",
                "/apis/x.y/v1/watch/namespaces/a/things/b",
                ["watch", "x.y", "v1", "a", "things", "", "b"],
            ),
            (
                "GET",
                "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name%3Db",
                ["list", "", "v1", "a", "secrets", "", "b"],
            ),
            (
                "DELETE",
                "/api/v1/namespaces/a/secrets",
                ["deletecollection", "", "v1", "a", "secrets", "", ""],
            ),
            ("FROB", "/api/v1/secrets", ["", "", "v1", "", "secrets", "", ""]),
        ] {
            let seen = info(method, target);
            assert!(seen.is_resource, "{target}");
            let seen = [
                &seen.verb,
                &seen.group,
                &seen.version,
                &seen.namespace,
                &seen.resource,
                &seen.subresource,
                &seen.name,
            ];
            assert_eq!(seen.map(String::as_str), want, "{method} {target}");
        }
    }

    #[test]
    fn a_name_is_taken_from_a_selector_only_if_nothing_else_is_selected() {
        for (selector, name) in [
            ("metadata.name=b", "b"),
            ("type=x,metadata.name==b", "b"),
            ("metadata.name!=b", ""),
            ("metadata.name=", ""),
            ("metadata.name=..", ""),
            ("metadata.name=a%2Fb", ""),
            // The comma is part of the value: this selects all objects of nearly any type, not the one called b.
            (r"type!=\,metadata.name=b", ""),
            (r"type!=x\,metadata.name\=b", ""),
            // What is no selector is refused later.
            (r"metadata.name=b,type!=\", ""),
        ] {
            let query = Query(vec![("fieldSelector".into(), selector.into())]);
            for method in ["GET", "DELETE"] {
                let info = RequestInfo::parse(method, "/api/v1/namespaces/a/secrets", &query);
                assert_eq!(info.name, name, "{method} {selector}");
            }
        }
    }

    #[test]
    fn other_paths_name_no_resource() {
        for target in ["/", "/version", "/api", "/api/v1", "/apis/x.y", "/apis/x.y/v1", "/healthz/ping"] {
            let seen = info("POST", target);
            assert!(!seen.is_resource, "{target}");
            assert_eq!(seen.verb, "post");
        }
    }

    #[test]
    fn queries_decode_as_in_go() {
        let query = Query::parse("a=1+2&b=%2f&bad=%zz&c&a=3");
        assert_eq!(query.get("a"), Some("1 2"));
        assert_eq!(query.get("b"), Some("/"));
        assert_eq!(query.get("bad"), None);
        assert_eq!(query.get("c"), Some(""));
        assert_eq!(query.pairs().len(), 4);
    }
}
