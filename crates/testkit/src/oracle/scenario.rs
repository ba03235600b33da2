//! A recorded conversation: its file, and how it is held again with another server.

use super::exchange::Target;
use super::{compare, exchange};
use anyhow::{Context, Result, anyhow};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

/// A recorded conversation.
#[derive(Debug, Deserialize)]
pub struct Scenario {
    /// Its name: the file's without the ending.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// The requests and answers, in order.
    pub steps: Vec<Step>,
}

/// One request and its recorded answer.
#[derive(Debug, Deserialize)]
pub struct Step {
    #[serde(default)]
    id: String,
    method: String,
    path: String,
    #[serde(default)]
    query: BTreeMap<String, Value>,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Kept as text: the order of members can be seen in error messages.
    body: Option<Box<RawValue>>,
    #[serde(rename = "rawBody")]
    raw_body: Option<String>,
    #[serde(rename = "as", default = "admin")]
    who: String,
    wait: Option<Value>,
    #[serde(default)]
    watch: usize,
    #[serde(default)]
    ignore: Vec<String>,
    #[serde(rename = "managedFields", default)]
    managed_fields: bool,
    expect: Value,
}

fn admin() -> String {
    "admin".into()
}

/// How a step went.
#[derive(Debug)]
pub struct Outcome {
    /// `scenario#index`, by which exceptions are listed.
    pub id: String,
    /// Id, method and path.
    pub label: String,
    /// What differs from the recording; empty if nothing does.
    pub differences: Vec<String>,
}

impl Scenario {
    /// Reads a scenario file.
    pub fn read(path: &Path) -> Result<Self> {
        let text =
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} is no scenario", path.display()))
    }

    /// Reads all scenarios of a folder, by name.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>> {
        let mut paths = std::fs::read_dir(folder)
            .with_context(|| format!("cannot read {}", folder.display()))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<Vec<_>>>()?;
        paths.retain(|path| path.extension().is_some_and(|e| e == "json"));
        paths.sort();
        paths.iter().map(|path| Self::read(path)).collect()
    }

    /// Replays all steps, in order.
    pub(crate) async fn replay(&self, target: &Target) -> Vec<Outcome> {
        let suffix: String = uuid_letters();
        let mut run = Run { target, suffix, answers: BTreeMap::new() };
        let mut outcomes = Vec::new();
        for (index, step) in self.steps.iter().enumerate() {
            let differences = match run.step(step).await {
                Ok(seen) if target.built_here => {
                    compare::differences(&compare::of_any_build(&step.expect), &compare::of_any_build(&seen))
                }
                Ok(seen) => compare::differences(&step.expect, &seen),
                Err(error) => vec![format!("{error:#}")],
            };
            outcomes.push(Outcome {
                id: format!("{}#{index}", self.name),
                label: format!("{} {} {}", step.id, step.method, step.path),
                differences,
            });
        }
        outcomes
    }
}

/// Six random lower-case letters.
fn uuid_letters() -> String {
    let mut random = [0u8; 6];
    // A suffix that repeats would only make names clash, which a test would show.
    let _ = getrandom_bytes(&mut random);
    random.iter().map(|b| (b'a' + b % 26) as char).collect()
}

fn getrandom_bytes(buffer: &mut [u8]) -> std::io::Result<()> {
    use std::io::Read;
    std::fs::File::open("/dev/urandom")?.read_exact(buffer)
}

struct Run<'a> {
    target: &'a Target,
    suffix: String,
    answers: BTreeMap<String, Value>,
}

static PLACEHOLDER: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\{\{([^}]+)\}\}").expect("a valid pattern"));

impl Run<'_> {
    async fn step(&mut self, step: &Step) -> Result<Value> {
        let request = self.request(step)?;
        let deadline =
            tokio::time::Instant::now() + Duration::from_secs(if step.wait.is_some() { 15 } else { 0 });
        let answer = loop {
            let answer = self.target.send(&request).await?;
            let done = step.wait.as_ref().is_none_or(|wait| holds(wait, answer.status, &answer.body));
            if done || tokio::time::Instant::now() > deadline {
                break answer;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        self.answers.insert(step.id.clone(), answer.body.clone());
        let normal = compare::Normal { suffix: &self.suffix, managed_fields: step.managed_fields };
        Ok(normal.answer(&answer, &step.ignore))
    }

    fn request(&self, step: &Step) -> Result<exchange::Request> {
        let mut path = self.fill(&step.path)?;
        let mut pairs = Vec::new();
        for (key, value) in &step.query {
            let values = match value {
                Value::Array(values) => values.clone(),
                one => vec![one.clone()],
            };
            for value in values {
                let text = value.as_str().map_or_else(|| value.to_string(), Into::into);
                pairs.push(format!("{}={}", quote_plus(&self.fill(key)?), quote_plus(&self.fill(&text)?)));
            }
        }
        if !pairs.is_empty() {
            path = format!("{path}?{}", pairs.join("&"));
        }
        let mut headers = vec![
            ("Accept".to_string(), "application/json".to_string()),
            ("User-Agent".to_string(), "oracle/v1".to_string()),
        ];
        let body = match (&step.raw_body, &step.body) {
            (Some(raw), _) => Some(self.fill(raw)?.into_bytes()),
            (None, Some(body)) => {
                headers.push(("Content-Type".into(), "application/json".into()));
                Some(self.fill_with(&python_json(body.get()), escape)?.into_bytes())
            }
            (None, None) => None,
        };
        for (name, value) in &step.headers {
            let value = self.fill(value)?;
            match headers.iter_mut().find(|(known, _)| known == name) {
                Some(header) => header.1 = value,
                None => headers.push((name.clone(), value)),
            }
        }
        Ok(exchange::Request {
            method: step.method.clone(),
            path,
            headers,
            body,
            who: self.fill(&step.who)?,
            watch: step.watch,
        })
    }

    fn fill(&self, text: &str) -> Result<String> {
        self.fill_with(text, |s| s.to_string())
    }

    fn fill_with(&self, text: &str, put: impl Fn(&str) -> String) -> Result<String> {
        let mut out = String::new();
        let mut from = 0;
        for found in PLACEHOLDER.captures_iter(text) {
            let whole = found.get(0).expect("the whole match");
            out.push_str(&text[from..whole.start()]);
            out.push_str(&put(&self.resolve(&found[1])?));
            from = whole.end();
        }
        out.push_str(&text[from..]);
        Ok(out)
    }

    fn resolve(&self, reference: &str) -> Result<String> {
        if reference == "run" {
            return Ok(self.suffix.clone());
        }
        let (step, path) = reference.split_once(':').unwrap_or((reference, ""));
        let body = self.answers.get(step).ok_or_else(|| anyhow!("no answer to step {step}"))?;
        let missing = || anyhow!("the answer to step {step} has no {path}");
        if let Some(claim) = path.strip_prefix("jwt.") {
            let token = dig(body, "status.token").and_then(Value::as_str).ok_or_else(missing)?;
            let (_, claims) = compare::jwt_parts(token).ok_or_else(missing)?;
            return Ok(plain(dig(&claims, claim).ok_or_else(missing)?));
        }
        Ok(plain(dig(body, path).ok_or_else(missing)?))
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), Into::into)
}

fn holds(wait: &Value, status: u16, body: &Value) -> bool {
    if let Some(wanted) = wait.get("status") {
        return wanted.as_u64() == Some(status.into());
    }
    match (dig(body, wait["path"].as_str().unwrap_or_default()), wait.get("equals"), wait.get("exists")) {
        (None, _, exists) => exists == Some(&Value::Bool(false)),
        (Some(found), Some(wanted), _) => found == wanted,
        (Some(_), None, exists) => exists != Some(&Value::Bool(false)),
    }
}

fn dig<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').filter(|part| !part.is_empty()).try_fold(value, |value, part| match value {
        Value::Array(list) => list.get(part.parse::<usize>().ok()?),
        other => other.get(part.replace("~1", ".")),
    })
}

/// Query escaping as Python's `quote_plus`.
fn quote_plus(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b' ' => "+".to_string(),
            b if b.is_ascii_alphanumeric() || b"_.-~".contains(&b) => (b as char).to_string(),
            b => format!("%{b:02X}"),
        })
        .collect()
}

fn escape(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_string()
}

/// JSON text with the spacing and escapes of Python's `json.dumps`, members in their order: the recordings were
/// made so, and error messages quote the first bytes of a body.
fn python_json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut in_string = false;
    let mut escaped = false;
    for c in text.chars() {
        if in_string {
            if c.is_ascii() {
                out.push(c);
            } else {
                let mut units = [0; 2];
                c.encode_utf16(&mut units).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
            }
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
            continue;
        }
        match c {
            '"' => {
                in_string = true;
                out.push(c);
            }
            ',' => out.push_str(", "),
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_spelled_as_they_were_recorded() {
        assert_eq!(
            python_json("{\"b\" : [1,\n {\"a\\\"\":\"x, é\"}]}"),
            "{\"b\": [1, {\"a\\\"\": \"x, \\u00e9\"}]}"
        );
    }

    #[test]
    fn waits_hold_when_their_condition_is_met() {
        let body = serde_json::json!({"a": [{"b": 1}]});
        for (wait, want) in [
            (serde_json::json!({"status": 200}), true),
            (serde_json::json!({"status": 404}), false),
            (serde_json::json!({"path": "a.0.b", "equals": 1}), true),
            (serde_json::json!({"path": "a.0.b", "equals": 2}), false),
            (serde_json::json!({"path": "a.1", "exists": false}), true),
            (serde_json::json!({"path": "a.1", "exists": true}), false),
            (serde_json::json!({"path": "a.0", "exists": true}), true),
        ] {
            assert_eq!(holds(&wait, 200, &body), want, "{wait}");
        }
    }
}
