//! `Warning` headers.

use http::HeaderValue;
use http::header::InvalidHeaderValue;
use std::collections::HashSet;

/// How many characters all warnings of an answer may have before each of them is cut
/// (`k8s.io/apiserver/pkg/endpoints/filters/warning.go`).
const TOTAL_LIMIT: usize = 4 * 1024;
/// How many characters of a warning are left then.
const CUT_LENGTH: usize = 256;

/// The headers of an answer, each text once and in order. Warnings quote names that the client has chosen: if they are
/// long all together, each is cut, and what does not fit then is left out.
pub(super) fn headers(warnings: Vec<String>) -> Vec<HeaderValue> {
    let mut seen = HashSet::new();
    let warnings: Vec<String> =
        warnings.into_iter().filter(|text| !text.is_empty() && seen.insert(text.clone())).collect();
    // A text that cannot be a header value (it has a line break) is left out, and does not count.
    let whole: Vec<(usize, HeaderValue)> =
        warnings.iter().filter_map(|text| Some((text.chars().count(), header(text).ok()?))).collect();
    if whole.iter().map(|(length, _)| length).sum::<usize>() <= TOTAL_LIMIT {
        return whole.into_iter().map(|(_, value)| value).collect();
    }
    let mut written = 0;
    let mut out = Vec::new();
    for text in warnings {
        if written >= TOTAL_LIMIT {
            break;
        }
        let end = text.char_indices().nth(CUT_LENGTH).map_or(text.len(), |(at, _)| at);
        if let Ok(value) = header(&text[..end]) {
            written += text[..end].chars().count();
            out.push(value);
        }
    }
    out
}

/// A `Warning` header: agent and text (`NewWarningHeader` in `k8s.io/apimachinery/pkg/util/net/http.go`).
fn header(text: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let quoted = text.replace('\\', "\\\\").replace('"', "\\\"");
    HeaderValue::from_bytes(format!("299 - \"{quoted}\"").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(warnings: &[&str]) -> Vec<String> {
        let values = headers(warnings.iter().map(ToString::to_string).collect());
        values.iter().map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
    }

    #[test]
    fn each_text_is_said_once() {
        assert_eq!(shown(&["b", "a \"q\" \\", "b", ""]), ["299 - \"b\"", "299 - \"a \\\"q\\\" \\\\\""]);
        assert_eq!(shown(&["no\nheader", "a"]), ["299 - \"a\""]);
    }

    #[test]
    fn warnings_that_are_long_all_together_are_cut() {
        let (long, longer) = ("é".repeat(TOTAL_LIMIT - 1), "x".repeat(TOTAL_LIMIT));
        assert_eq!(shown(&[&long, "a"]), [format!("299 - \"{long}\""), "299 - \"a\"".into()]);
        let cut = |c: &str| format!("299 - \"{}\"", c.repeat(CUT_LENGTH));
        assert_eq!(shown(&[&long, "a", &longer]), [cut("é"), "299 - \"a\"".into(), cut("x")]);
        let many: Vec<String> = (0..1000).map(|n| format!("{n:04}{longer}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(shown(&many).len(), TOTAL_LIMIT / CUT_LENGTH);
    }
}
