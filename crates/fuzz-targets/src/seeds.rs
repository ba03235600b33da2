//! Inputs for all targets from the recorded conversations: what real clients send is where fuzzing begins.

use crate::jwt::{ISSUER, KEY_ID};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fs, io};

/// Inputs by target, each once.
pub type Seeds = BTreeMap<&'static str, BTreeSet<Vec<u8>>>;

/// Longer inputs teach a fuzzer little.
const MAX_SEED: usize = 8 * 1024;

/// Reads the scenarios in a folder. Errors: a file that cannot be read, or that is no scenario.
pub fn from_scenarios(folder: &Path) -> io::Result<Seeds> {
    let mut seeds = Seeds::new();
    let mut files: Vec<_> = fs::read_dir(folder)?.collect::<Result<_, _>>()?;
    files.sort_by_key(fs::DirEntry::file_name);
    for file in files {
        let text = fs::read_to_string(file.path())?.replace("{{run}}", "x1");
        let scenario: Value = serde_json::from_str(&text)?;
        let steps =
            scenario["steps"].as_array().ok_or_else(|| io::Error::other("a scenario without steps"))?;
        steps.iter().for_each(|step| of_step(step, &mut seeds));
    }
    written_by_hand(&mut seeds);
    Ok(seeds)
}

fn put(seeds: &mut Seeds, target: &'static str, input: impl Into<Vec<u8>>) {
    let input = input.into();
    if input.len() <= MAX_SEED {
        seeds.entry(target).or_default().insert(input);
    }
}

fn header<'a>(step: &'a Value, name: &str) -> &'a str {
    let headers = step["headers"].as_object().into_iter().flatten();
    headers
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .find_map(|(_, value)| value.as_str())
        .unwrap_or_default()
}

fn of_step(step: &Value, seeds: &mut Seeds) {
    let text = |key: &str| step[key].as_str().unwrap_or_default();
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let mut query = String::new();
    for (name, value) in step["query"].as_object().into_iter().flatten() {
        let values = value.as_array().map_or_else(|| vec![value], |list| list.iter().collect());
        for value in values {
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_string);
            query.push_str(&format!(
                "{}{}={}",
                if query.is_empty() { "" } else { "&" },
                encode(name),
                encode(&value)
            ));
            if name.ends_with("Selector") {
                put(seeds, "selectors", value);
            }
        }
    }
    let (path, in_path) = text("path").split_once('?').unwrap_or((text("path"), ""));
    let query = if query.is_empty() { in_path.to_string() } else { query };
    let content_type = header(step, "content-type");
    put(
        seeds,
        "request",
        [text("method"), path, &query, header(step, "accept"), content_type, header(step, "user-agent")]
            .join("\n"),
    );
    let body = match (step.get("rawBody"), step.get("body")) {
        (Some(raw), _) => raw.as_str().unwrap_or_default().to_string(),
        (None, Some(body)) => body.to_string(),
        (None, None) => return,
    };
    of_body(step, path, content_type, &body, seeds);
}

fn of_body(step: &Value, path: &str, content_type: &str, body: &str, seeds: &mut Seeds) {
    if step["method"] == "PATCH" {
        let letter = ["json-patch", "merge-patch", "strategic", "apply"]
            .into_iter()
            .find(|kind| content_type.contains(&format!("/{kind}")))
            .map_or('m', |kind| kind.chars().next().unwrap_or('m'));
        let object = match path {
            path if path.contains("/serviceaccounts") => 1,
            path if path.contains("/pods") => 2,
            path if path.contains("rbac") => 3,
            path if path.contains("/apis/") => 4,
            _ => 0,
        };
        put(seeds, "patches", format!("{object}{letter}{body}"));
        return;
    }
    match content_type {
        kind if kind.contains("protobuf") => put(seeds, "protobuf", body),
        kind if kind.contains("yaml") => put(seeds, "yaml", body),
        _ => {
            put(seeds, "json", body);
            let Ok(value) = serde_json::from_str::<Value>(body) else { return };
            put(seeds, "yaml", fleetpass_codec::yaml::print(&value));
            if let Ok(bytes) = fleetpass_codec::protobuf::encode(&value) {
                put(seeds, "protobuf", bytes);
            }
            if value["kind"] == "CustomResourceDefinition" {
                of_definition(&value, seeds);
            }
        }
    }
}

fn of_definition(definition: &Value, seeds: &mut Seeds) {
    put(seeds, "definitions", definition.to_string());
    for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
        let schema = &version["schema"]["openAPIV3Schema"];
        let object = json!({"apiVersion": "fuzz.example.com/v1", "kind": "Thing", "metadata": {"name": "a"},
            "spec": sample(&schema["properties"]["spec"])});
        put(seeds, "definitions", format!("{schema}\0{object}\0{object}"));
        of_schema(schema, seeds);
        for column in version["additionalPrinterColumns"].as_array().into_iter().flatten() {
            put(seeds, "texts", column["jsonPath"].as_str().unwrap_or_default());
        }
    }
}

/// Rules and patterns, wherever they are in a schema.
fn of_schema(schema: &Value, seeds: &mut Seeds) {
    match schema {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), value.as_str()) {
                    ("rule", Some(rule)) => {
                        let message = schema["messageExpression"].as_str().unwrap_or_default();
                        put(seeds, "cel", format!("{rule}\0{message}"));
                    }
                    ("pattern", Some(pattern)) => put(seeds, "texts", format!("{pattern}\nabc-12")),
                    _ => of_schema(value, seeds),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| of_schema(item, seeds)),
        _ => {}
    }
}

/// A value that a schema may allow.
fn sample(schema: &Value) -> Value {
    match schema["type"].as_str() {
        Some("object") => {
            let members = schema["properties"].as_object().into_iter().flatten();
            Value::Object(members.map(|(name, schema)| (name.clone(), sample(schema))).collect())
        }
        Some("array") => json!([sample(&schema["items"])]),
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("string") => json!("a"),
        _ => Value::Null,
    }
}

/// What no recording has: tokens whose signature is good, selectors and texts of all forms.
fn written_by_hand(seeds: &mut Seeds) {
    let header = format!(r#"{{"alg":"ES256","kid":"{KEY_ID}"}}"#);
    for header in
        [&header, r#"{"alg":"ES256"}"#, r#"{"alg":"none"}"#, r#"{"alg":"ES256","crit":["b64"],"b64":false}"#]
    {
        for payload in [
            json!({"aud": [ISSUER, "a"], "exp": 1_800_000_000, "iat": 1, "iss": ISSUER, "jti": "j", "kubernetes.io":
                {"namespace": "n", "node": {"name": "k"}, "pod": {"name": "p", "uid": "u"}, "secret": {"name": "s"},
                "serviceaccount": {"name": "a", "uid": "v"}, "warnafter": 3}, "nbf": 1, "sub": "system:serviceaccount:n:a"}),
            json!({"iss": "kubernetes/serviceaccount", "kubernetes.io/serviceaccount/namespace": "n",
                "kubernetes.io/serviceaccount/secret.name": "s", "kubernetes.io/serviceaccount/service-account.name": "a",
                "kubernetes.io/serviceaccount/service-account.uid": "u", "sub": "system:serviceaccount:n:a"}),
            json!({"iss": ISSUER, "aud": "a", "exp": 1e3}),
        ] {
            put(seeds, "jwt", format!("S{header}\n{payload}"));
        }
    }
    put(seeds, "jwt", "TeyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJodHRwczovL2t1YmVybmV0ZXMuZGVmYXVsdC5zdmMifQ.AAAA");
    put(seeds, "jwt", b"E\0\x05A\0\x21B".to_vec());
    for text in [
        "a,!b,c=d,e==f,g!=h,i in (j,k),l notin (m),n>1,o<2",
        "in in (in,notin)",
        "x in (,a)",
        "metadata.name=a,type!=b",
        r"metadata.name=a\,b\=c\\d",
        "a.b/c=",
        "=",
        ",",
        "!",
    ] {
        put(seeds, "selectors", text);
    }
    for text in [
        ".spec.list[0].type",
        r#".status.conditions[?(@.type=="Ready")].status"#,
        "..type",
        ".spec.list[-1:0:1]",
        ".a['b','c']",
        "{.metadata.labels['a\\.b/c']}",
        "100m",
        "1.5Gi",
        "-1e3",
        "12E",
        "2026-01-02T03:04:05.123456Z",
        "2026-01-02T03:04:05+01:00",
        "1h2m3.5s",
        "aGk=",
        "192.168.0.1",
        "::1",
        "10.0.0.0/8",
        "a@b.c",
        "https://a.b:1/c?d#e",
        "#aabbcc",
        "(a|b)*c{2,3}[^d-f]\\d$\nabcd",
    ] {
        put(seeds, "texts", text);
    }
    for rule in [
        "self.words.all(w, w.size() > 0 && w.matches('^[a-z]+$'))",
        "self.pairs.exists(p, p.k == 'x' && p.n in [1, 2])",
        "has(self.on) ? self.on : self.count + 1 > oldSelf.count",
        "self.map.map(k, self.map[k]).join(',') != ''",
        "duration('1h') < duration('2h') && timestamp('2026-01-02T03:04:05Z').getFullYear() == 2026",
        "quantity('1Gi').isGreaterThan(quantity('1Mi')) && url('https://a/b').getHost() == 'a'",
        "isIP('1.2.3.4')",
        "self.code.split('-')[0].upperAscii().replace('X', 'y') == \"y\"",
        "type(self.ratio) == double && int(1.5) == 1",
    ] {
        put(
            seeds,
            "cel",
            format!(
                "{rule}\0'count is ' + string(self.count)\0{{\"count\":1,\"words\":[\"a\"]}}\0{{\"count\":2}}"
            ),
        );
    }
}
