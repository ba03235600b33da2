//! What an answer is compared by: values that change from run to run are replaced by placeholders.

use super::exchange::Answer;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use regex::Regex;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a valid pattern")
}

static UUID: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b"));
static TIME: LazyLock<Regex> = LazyLock::new(|| pattern(r"\b\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z"));
static JWT: LazyLock<Regex> = LazyLock::new(|| pattern(r"\beyJ[\w-]+\.[\w-]+\.[\w-]+"));
static WHOLE_JWT: LazyLock<Regex> = LazyLock::new(|| pattern(r"^eyJ[\w-]+\.[\w-]+\.[\w-]+$"));
static VERSION: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(resourceVersion|resource version|revision)(["':= ]+)\d+"#));

const COMPARED_HEADERS: [&str; 3] = ["content-type", "warning", "allow"];

/// Header and claims of a JWT.
pub(super) fn jwt_parts(token: &str) -> Option<(Value, Value)> {
    let mut parts = token.split('.').map(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let mut json = || serde_json::from_slice(&parts.next()??).ok();
    Some((json()?, json()?))
}

/// How to normalise the answers of one run.
pub(super) struct Normal<'a> {
    pub(super) suffix: &'a str,
    pub(super) managed_fields: bool,
}

impl Normal<'_> {
    /// Status, compared headers and body, normalised, without the ignored paths.
    pub(super) fn answer(&self, answer: &Answer, ignore: &[String]) -> Value {
        let mut headers = Map::new();
        for name in COMPARED_HEADERS {
            let mut values: Vec<String> =
                answer.headers.iter().filter(|(n, _)| n == name).map(|(_, v)| self.text(v)).collect();
            values.sort();
            if !values.is_empty() {
                headers.insert(name.into(), values.into());
            }
        }
        let mut body = self.value(&answer.body, "", false);
        for path in ignore {
            drop_path(&mut body, &path.split('.').collect::<Vec<_>>());
        }
        json!({"status": answer.status, "headers": headers, "body": body})
    }

    fn text(&self, text: &str) -> String {
        let text = text.replace(self.suffix, "{{run}}");
        let text = JWT.replace_all(&text, "<jwt>");
        let text = UUID.replace_all(&text, "<uid>");
        let text = TIME.replace_all(&text, "<time>");
        VERSION.replace_all(&text, "${1}${2}<rv>").into_owned()
    }

    fn value(&self, value: &Value, key: &str, generated: bool) -> Value {
        match value {
            Value::Object(members) => {
                let generated = generated || members.contains_key("generateName");
                let kept = members.iter().filter(|(k, _)| {
                    (*k != "managedFields" || self.managed_fields)
                        && !(*k == "description" && key == "columnDefinitions")
                });
                Value::Object(kept.map(|(k, v)| (self.text(k), self.value(v, k, generated))).collect())
            }
            Value::Array(list) => list.iter().map(|v| self.value(v, key, false)).collect(),
            Value::String(text) => self.string(text, key, generated),
            other => other.clone(),
        }
    }

    fn string(&self, text: &str, key: &str, generated: bool) -> Value {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match key {
            "resourceVersion" if digits => return "<rv>".into(),
            "continue" if !text.is_empty() => return "<continue>".into(),
            "name" if generated => return "<generated>".into(),
            _ => {}
        }
        if !WHOLE_JWT.is_match(text) {
            return self.text(text).into();
        }
        let Some((mut header, mut claims)) = jwt_parts(text) else { return self.text(text).into() };
        for member in ["kid", "alg"] {
            if header.get(member).is_some() {
                header[member] = format!("<{member}>").into();
            }
        }
        let number = |name: &str| claims.get(name).and_then(Value::as_i64).unwrap_or(0);
        let life = number("exp") - number("iat");
        for name in ["exp", "iat", "nbf"] {
            if claims.get(name).is_some() {
                claims[name] = "<time>".into();
            }
        }
        claims["lifetimeSeconds"] = life.into();
        if claims.pointer("/kubernetes.io/warnafter").is_some() {
            claims["kubernetes.io"]["warnafter"] = "<time>".into();
        }
        json!({"jwtHeader": header, "jwtClaims": self.value(&claims, "", false)})
    }
}

fn drop_path(value: &mut Value, parts: &[&str]) {
    let Some((head, rest)) = parts.split_first() else { return };
    match value {
        Value::Object(members) => {
            let wanted = head.replace("~1", ".");
            let keys: Vec<String> =
                members.keys().filter(|k| *head == "*" || **k == wanted).cloned().collect();
            for key in keys {
                if rest.is_empty() {
                    members.remove(&key);
                } else if let Some(member) = members.get_mut(&key) {
                    drop_path(member, rest);
                }
            }
        }
        Value::Array(list) if !rest.is_empty() => {
            let only = head.parse::<usize>().ok();
            for (_, element) in list.iter_mut().enumerate().filter(|(i, _)| *head == "*" || Some(*i) == only)
            {
                drop_path(element, rest);
            }
        }
        _ => {}
    }
}

static SCHEME: LazyLock<Regex> = LazyLock::new(|| pattern(r#"in scheme "[^"]*""#));
static CHARACTER: LazyLock<Regex> = LazyLock::new(|| pattern(r"invalid character '\\x([0-9a-f]{2})'"));

/// An answer without what depends on how a kube-apiserver was built: messages name the source file where a scheme was
/// made, by a path that vendoring changes (apimachinery, `pkg/util/naming`), and quote a byte as the Go of the build
/// does (`encoding/json`).
pub(super) fn of_any_build(value: &Value) -> Value {
    match value {
        Value::Object(members) => members.iter().map(|(k, v)| (k.clone(), of_any_build(v))).collect(),
        Value::Array(list) => list.iter().map(of_any_build).collect(),
        Value::String(text) => {
            let text = SCHEME.replace_all(text, "in scheme \"<where>\"");
            Value::String(CHARACTER.replace_all(&text, "invalid character '\\u00${1}'").into_owned())
        }
        other => other.clone(),
    }
}

/// Where `got` is not what was recorded.
pub(super) fn differences(want: &Value, got: &Value) -> Vec<String> {
    let mut out = Vec::new();
    diff(want, got, "", &mut out);
    out
}

fn diff(want: &Value, got: &Value, at: &str, out: &mut Vec<String>) {
    match (want, got) {
        (Value::Object(a), Value::Object(b)) => {
            let mut keys: Vec<&String> = a.keys().chain(b.keys()).collect();
            keys.sort();
            keys.dedup();
            for key in keys {
                let path = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
                match (a.get(key), b.get(key)) {
                    (None, Some(got)) => out.push(format!("{path}: not expected, got {}", short(got, 160))),
                    (Some(want), None) => out.push(format!("{path}: missing, want {}", short(want, 160))),
                    (Some(want), Some(got)) => diff(want, got, &path, out),
                    (None, None) => {}
                }
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (i, (a, b)) in a.iter().zip(b).enumerate() {
                diff(a, b, &format!("{at}.{i}"), out);
            }
        }
        (Value::Number(a), Value::Number(b)) if a.as_f64() == b.as_f64() => {}
        (a, b) if a == b => {}
        (a, b) => out.push(format!("{at}: want {}, got {}", short(a, 400), short(b, 400))),
    }
}

fn short(value: &Value, most: usize) -> String {
    value.to_string().chars().take(most).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_from_run_to_run_is_replaced() {
        let normal = Normal { suffix: "abcdef", managed_fields: false };
        let value = json!({"metadata": {"name": "x-abcdef", "resourceVersion": "12", "managedFields": [],
            "uid": "0f0e0d0c-0b0a-4900-8807-060504030201", "creationTimestamp": "2026-01-02T03:04:05Z"}});
        assert_eq!(
            normal.value(&value, "", false),
            json!({"metadata": {"name": "x-{{run}}", "resourceVersion": "<rv>", "uid": "<uid>",
                "creationTimestamp": "<time>"}})
        );
        assert_eq!(normal.text("too old resource version: 7"), "too old resource version: <rv>");
        let generated = json!({"generateName": "a-", "name": "a-xyz"});
        assert_eq!(normal.value(&generated, "", false)["name"], "<generated>");
    }

    #[test]
    fn what_depends_on_the_build_is_replaced() {
        let built = json!({"message": r#"registered in scheme "pkg/runtime/scheme.go:111""#, "code": 400});
        assert_eq!(
            of_any_build(&built),
            json!({"message": r#"registered in scheme "<where>""#, "code": 400})
        );
        let quoted = json!([r"invalid character '\x9e' looking"]);
        assert_eq!(of_any_build(&quoted), json!([r"invalid character '\u009e' looking"]));
    }

    #[test]
    fn differences_name_the_place() {
        let seen = differences(&json!({"a": [1, {"b": 2}], "c": 1}), &json!({"a": [1, {"b": 3}], "d": 1}));
        assert_eq!(seen, ["a.1.b: want 2, got 3", "c: missing, want 1", "d: not expected, got 1"]);
        assert!(differences(&json!(1.0), &json!(1)).is_empty());
    }
}
