//! What changes from run to run is taken out of a program's output.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use regex::{Captures, Regex};
use serde_json::{Value, json};
use std::borrow::Cow;
use std::sync::LazyLock;

/// Patterns, and what is written in their place; in this order.
static RULES: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"(?s)-----BEGIN ([A-Z ]+)-----.*?-----END [A-Z ]+-----", "PEM($1)"),
        // The same in base64.
        (r"LS0tLS1CRUdJTi[A-Za-z0-9+/]+=*", "PEM"),
        (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UID"),
        (r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?( ?[+-][0-9]{2}:?[0-9]{2}|Z)?", "TIME"),
        (r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), [0-9]{2} [A-Z][a-z]{2} [0-9]{4} [0-9:]{8} [+-][0-9]{4}", "TIME"),
        (r#"(resourceVersion"?: ")[0-9]+"#, "${1}REVISION"),
        (r"(Resource Version: +)[0-9]+", "${1}REVISION"),
        (r"127\.0\.0\.1:[0-9]+", "127.0.0.1:PORT"),
        (r"(?m)(^| )((?:[0-9]+[smhd]){1,2}|<invalid>)( |$)", "${1}AGE${3}"),
        // How long certificates and tokens are.
        (r"((?:ca\.crt|token): +)[0-9]+ bytes", "${1}N bytes"),
        (r"(LIVE|MERGED)-[0-9]+", "$1-N"),
        (r"kubectl-edit-[0-9]+", "kubectl-edit-N"),
        // Which of the two it is depends on the Go that kube-apiserver was built with.
        (r"invalid character '(\\+)x([0-9a-f]{2})'", "invalid character '${1}u00${2}'"),
        // The column of ages has made others wider.
        (r"(?m)(\S) {2,}", "$1  "),
        (r"(?m) +$", ""),
    ]
    .map(|(pattern, with)| (Regex::new(pattern).expect("a pattern"), with))
    .into()
});

static TOKEN: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"eyJ[A-Za-z0-9_-]+\.(eyJ[A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+").expect("a pattern")
});
static ENCODED_TOKEN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\bZXlK[A-Za-z0-9+/]{100,}=*").expect("a pattern"));

/// A text without UIDs, times, ages, resource versions, ports, certificates; tokens as their claims. Columns are two
/// spaces apart, and what is JSON as a whole is printed with sorted members: their order means nothing.
pub fn normal(text: &str) -> String {
    let document = text.starts_with('{').then(|| serde_json::from_str::<Value>(text).ok()).flatten();
    let sorted = document.and_then(|document| serde_json::to_string_pretty(&document).ok());
    let text = sorted.map_or(Cow::Borrowed(text), |sorted| Cow::Owned(sorted + "\n"));
    let decoded = ENCODED_TOKEN.replace_all(&text, |found: &Captures<'_>| {
        let token = STANDARD.decode(&found[0]).ok().and_then(|token| String::from_utf8(token).ok());
        token.unwrap_or_else(|| found[0].to_owned())
    });
    let text = TOKEN.replace_all(&decoded, |found: &Captures<'_>| {
        claims(&found[1]).map_or_else(|| found[0].to_owned(), |claims| format!("JWT({claims})"))
    });
    RULES
        .iter()
        .fold(text.into_owned(), |text, (pattern, with)| pattern.replace_all(&text, *with).into_owned())
}

/// The claims of a token, with times that are relative to its beginning.
fn claims(encoded: &str) -> Option<Value> {
    let mut claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(encoded).ok()?).ok()?;
    if let Some(begin) = claims["iat"].as_i64() {
        relative(&mut claims, begin);
    }
    Some(claims)
}

fn relative(claims: &mut Value, begin: i64) {
    let Some(members) = claims.as_object_mut() else { return };
    for (name, value) in members {
        if matches!(name.as_str(), "iat" | "nbf" | "exp" | "warnafter")
            && let Some(time) = value.as_i64()
        {
            *value = json!(time - begin);
        }
        relative(value, begin);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_from_run_to_run_is_taken_out() {
        for (text, want) in [
            ("NAME   DATA   AGE\none    1      12s", "NAME  DATA  AGE\none  1  AGE"),
            ("one   0     3m5s   x", "one  0  AGE  x"),
            ("  uid: 0b3a4e1c-9c1b-4a59-9a2c-0123456789ab", "  uid: UID"),
            ("\"resourceVersion\": \"417\"", "\"resourceVersion\": \"REVISION\""),
            ("creationTimestamp: \"2026-01-01T00:00:00Z\"", "creationTimestamp: \"TIME\""),
            ("--- /x/LIVE-12/v1.a\t2026-01-01 00:00:00.123 +0000", "--- /x/LIVE-N/v1.a\tTIME"),
            ("at https://127.0.0.1:4711/a", "at https://127.0.0.1:PORT/a"),
            (r"invalid character '\\x9e' looking", r"invalid character '\\u009e' looking"),
            ("validity: 8640h0m0s", "validity: 8640h0m0s"),
            ("ca.crt:     570 bytes\nnamespace:  7 bytes", "ca.crt:  N bytes\nnamespace:  7 bytes"),
            ("{\"b\": 1, \"a\": 2}\n", "{\n  \"a\": 2,\n  \"b\": 1\n}\n"),
            ("-----BEGIN CERTIFICATE-----\nAB\n-----END CERTIFICATE-----\n", "PEM(CERTIFICATE)\n"),
        ] {
            assert_eq!(normal(text), want);
        }
    }

    #[test]
    fn a_token_is_its_claims() {
        let claims = r#"{"aud":["a"],"exp":160,"iat":100,"x":{"warnafter":107}}"#;
        let token = format!("eyJhbGciOiJIUzI1NiJ9.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let want = r#"JWT({"aud":["a"],"exp":60,"iat":0,"x":{"warnafter":7}})"#;
        assert_eq!(normal(&token), want);
        assert_eq!(normal(&format!("token: {}", STANDARD.encode(&token))), format!("token: {want}"));
    }
}
