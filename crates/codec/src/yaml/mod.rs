//! YAML as `sigs.k8s.io/yaml` reads and prints it: version 1.1 (`yes` is a boolean), by way of JSON.
//!
//! ```text
//! bytes ─► scanner: tokens ─► events: grammar ─► tree: nodes, anchors ─► decode: aliases, merges, resolve ─► Raw (JSON)
//! ```
//!
//! Not a general YAML library, because clients see what Go's one says: its errors with its line numbers (an off-by-one of the
//! original included), its resolution of plain scalars, its printing to the byte. Each stage is the counterpart of one of its
//! files.

mod decode;
mod error;
mod events;
mod print;
mod resolve;
mod scanner;
mod tree;

pub use error::YamlError;
pub use print::print;

use fleetpass_apimachinery::json::Raw;
use tree::Tree;

/// How deeply YAML may be nested here: more could not be stored, and it makes the recursions below safe. (libyaml allows 10,000.)
const MAX_DEPTH: usize = 200;

/// A YAML document as the JSON it stands for.
#[derive(Debug, Clone, PartialEq)]
pub struct Document<'a> {
    /// The tree: keys sorted, each there once.
    pub raw: Raw<'a>,
    /// What strict decoding objects to, in order: `line 7: key "k" already set in map`. After 100 of them, or fewer if their
    /// keys are very long, the last one is `and 7 more`.
    pub duplicates: Vec<String>,
}

/// The objections of strict decoding as one error (`yaml.TypeError`).
pub(super) fn unmarshal_errors(duplicates: &[String]) -> String {
    format!("yaml: unmarshal errors:\n  {}", duplicates.join("\n  "))
}

/// Reads the first document of a YAML stream; an empty stream is `null`. Never panics, whatever the bytes are.
/// Aliases may stand for a limited share of a document only, and for as much text as a body could spell out. Errors: what is
/// wrong, in Go's words.
pub fn parse(bytes: &[u8]) -> Result<Document<'_>, YamlError> {
    decode::document(&Tree::read(bytes)?)
}

fn too_deep() -> YamlError {
    YamlError::new(format_args!("exceeded depth of {MAX_DEPTH}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::json::Numbers;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    fn value(text: &str) -> Value {
        parse(text.as_bytes()).unwrap().raw.to_value(Numbers::Go).unwrap()
    }

    fn error(text: &str) -> String {
        parse(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn documents_become_json() {
        for (text, expected) in [
            ("", json!(null)),
            ("# only a comment\n", json!(null)),
            ("a: 1\n---\nb: 2\n", json!({"a": 1})),
            ("{\"a\": [1, \"x\", null]}", json!({"a": [1, "x", null]})),
            (
                "a: y\nb: 'y'\nc: 017\nd: 0x1f\ne: 1_000\nf: 1.50\n",
                json!({"a": true, "b": "y", "c": 15, "d": 31, "e": 1000, "f": 1.5}),
            ),
            (
                "t: 2026-01-02T03:04:05Z\nd: 2026-01-02\n",
                json!({"t": "2026-01-02T03:04:05Z", "d": "2026-01-02"}),
            ),
            ("1: a\ntrue: b\n1.5: c\n", json!({"1": "a", "true": "b", "1.5": "c"})),
            (
                "a: &x {k: 1}\nb: *x\nc:\n  <<: *x\n  l: 2\n",
                json!({"a": {"k": 1}, "b": {"k": 1}, "c": {"k": 1, "l": 2}}),
            ),
            ("a: |\n  one\n  two\nb: >-\n  one\n  two\n", json!({"a": "one\ntwo\n", "b": "one two"})),
            ("a: !!str 1\nb: !!binary aGk=\n", json!({"a": "1", "b": "hi"})),
        ] {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn duplicate_keys_are_reported_with_the_line_of_their_value() {
        let text = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\ndata:\n  k: one\n  k: two\n";
        let document = parse(text.as_bytes()).unwrap();
        assert_eq!(document.duplicates, ["line 7: key \"k\" already set in map"]);
        assert_eq!(document.raw.get("data").and_then(|d| d.get("k")), Some(&Raw::String("two".into())));
    }

    #[test]
    fn what_cannot_be_json_is_refused() {
        for (text, expected) in [
            ("a: .nan", "json: unsupported value: NaN"),
            ("{a: b}: c", "yaml: invalid map key: map[interface {}]interface {}{\"a\":\"b\"}"),
            ("<<: 1", "yaml: map merge requires map or sequence of maps as the value"),
            ("a: !!int x", "yaml: cannot decode !!str `x` as a !!int"),
            (
                "{b: 1, ~: [null, {~: x, 1: .inf}]}",
                "unsupported map key of type: %!s(<nil>), key: <nil>, value: []interface {}{interface {}(nil), \
                 map[interface {}]interface {}{interface {}(nil):\"x\", 1:.inf}}",
            ),
            ("[{b: .inf, a: .nan}]", "json: unsupported value: NaN"),
        ] {
            assert_eq!(error(text), expected, "{text}");
        }
        // What a later key replaces is not refused.
        assert_eq!(value("{a: .nan, a: {~: 1}, a: 2}"), json!({"a": 2}));
    }

    #[test]
    fn laughter_is_limited() {
        let mut text = String::from("a: &a [x,x,x,x,x,x,x,x,x,x]\n");
        for (name, before) in ('b'..='i').zip('a'..) {
            let aliases = vec![format!("*{before}"); 10].join(",");
            text.push_str(&format!("{name}: &{name} [{aliases}]\n"));
        }
        assert_eq!(error(&text), "yaml: document contains excessive aliasing");
        assert!(error(&"[".repeat(100_000)).starts_with("yaml: "));
    }

    #[test]
    fn aliases_stand_for_as_much_text_as_a_body_could_spell_out() {
        let text = |times| format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 16), vec!["*a"; times].join(","));
        assert_eq!(value(&text(48))["b"].as_array().map(Vec::len), Some(48));
        assert_eq!(error(&text(49)), "yaml: document contains excessive aliasing");
        let keys = |times| format!("? &a {}\n: b\n{}", "x".repeat(1 << 16), "*a : c\n".repeat(times));
        assert_eq!(parse(keys(48).as_bytes()).unwrap().duplicates.last().unwrap(), "and 44 more");
        assert_eq!(error(&keys(49)), "yaml: document contains excessive aliasing");
    }

    #[test]
    fn long_prefixes_of_tags_are_not_repeated() {
        // More than a hundred megabytes, if the prefix were put before each of them.
        let text = format!("%TAG !a! {}\n---\n{}", "x".repeat(1 << 16), "- !a!b c\n".repeat(2000));
        assert_eq!(value(&text).as_array().map(Vec::len), Some(2000));
        let text =
            "%TAG !a! tag:yaml.org,2002:\n%TAG ! !!\n---\n[!a!str 1, !str 2, !!str 3, !<!!str> 4, ! 5, !b 6]";
        assert_eq!(value(text), json!(["1", "2", "3", "4", "5", "6"]));
    }

    #[test]
    fn the_first_duplicates_are_told_one_by_one() {
        let text = "a: b\n".repeat(150);
        let document = parse(text.as_bytes()).unwrap();
        assert_eq!(document.duplicates.len(), 101);
        assert_eq!(document.duplicates[99], "line 101: key \"a\" already set in map");
        assert_eq!(document.duplicates[100], "and 49 more");
    }

    #[test]
    fn scalars_are_taken_as_they_stand_or_made() {
        for (text, expected) in [
            ("a  b", "a  b"),
            ("a b \n  c\td # e", "a b c\td"),
            ("a\n\n\n b", "a\n\nb"),
            ("a\u{2028} b", "a\u{2028}b"),
            ("'a  ''b'' '", "a  'b' "),
            ("'a \n\n  b'", "a\nb"),
            ("\"a \\\n  b\\x41 \\L\"", "a bA \u{2028}"),
            ("\"a \\\n \n b\"", "a \nb"),
            ("\"\u{e9} \n \u{e9}\"", "\u{e9} \u{e9}"),
            ("|-\n  \u{e9}\n   b\n\n  c\n\n", "\u{e9}\n b\n\nc"),
            (">+\n  a\n  b\n\n  c\n\n", "a b\nc\n\n"),
        ] {
            assert_eq!(value(text), json!(expected), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn any_text_never_panics(text in "[-a-c0-9:?,&*!|>'\"%@`#{}\\[\\]\n\t ~.<]{0,60}") {
            let _ = parse(text.as_bytes());
        }

        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = parse(&bytes);
        }
    }
}
