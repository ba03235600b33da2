//! JSON as YAML text, to the byte as `sigs.k8s.io/yaml` prints it (`encode.go`, `emitterc.go`, `sorter.go` of Go's
//! yaml package): two spaces of indent, lists not indented below their key, lines folded behind column 80.

use super::resolve::{self, Scalar};
use fleetpass_apimachinery::json::go_float;
use serde_json::{Map, Value};
use std::cmp::Ordering;

const INDENT: usize = 2;
/// Lines are folded at the first space behind this column.
const WIDTH: usize = 80;
/// A longer key is written behind a `?`.
const MAX_SIMPLE_KEY: usize = 128;

/// `value` as a YAML document.
pub fn print(value: &Value) -> String {
    let mut printer =
        Printer { out: String::new(), column: 0, whitespace: true, indention: true, indent: None };
    printer.node(value, false);
    printer.new_line_if_needed();
    printer.out
}

/// The emitter of Go's library, which has a state where a printer of JSON would have none: where a line is broken and whether
/// a space is needed depends on what was written before.
struct Printer {
    out: String,
    /// How many characters the line has.
    column: usize,
    /// What was written last is white space.
    whitespace: bool,
    /// Only indentation (and `- `) was written on this line.
    indention: bool,
    /// The column of the collection at hand; none outside of all.
    indent: Option<usize>,
}

/// How a scalar is written. Folded blocks (`>`) are never written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Plain,
    SingleQuoted,
    DoubleQuoted,
    Literal,
}

impl Printer {
    /// A value; `below_key`: it is the value of a mapping's key.
    // It recurses for each level, and may: what is printed was read before, and reading limits the depth.
    fn node(&mut self, value: &Value, below_key: bool) {
        match value {
            Value::Null => self.scalar("null", Style::Plain, false),
            Value::Bool(b) => self.scalar(if *b { "true" } else { "false" }, Style::Plain, false),
            Value::Number(number) => self.scalar(&number_text(number), Style::Plain, false),
            Value::String(text) => self.scalar(text, style_of(text), false),
            Value::Array(items) if items.is_empty() => self.scalar("[]", Style::Plain, false),
            Value::Object(members) if members.is_empty() => self.scalar("{}", Style::Plain, false),
            Value::Array(items) => self.list(items, below_key),
            Value::Object(members) => self.mapping(members),
        }
    }

    /// A list that is not empty, an item on each line.
    fn list(&mut self, items: &[Value], below_key: bool) {
        let before = self.indent;
        // Below a key, a list stands at the key's own column.
        self.indent = match self.indent {
            None => Some(0),
            Some(indent) if below_key && !self.indention => Some(indent),
            Some(indent) => Some(indent + INDENT),
        };
        for item in items {
            self.write_indent();
            self.indicator("-", true, true);
            self.node(item, false);
        }
        self.indent = before;
    }

    /// A mapping that is not empty, a member on each line.
    fn mapping(&mut self, members: &Map<String, Value>) {
        let before = self.indent;
        self.indent = Some(self.indent.map_or(0, |indent| indent + INDENT));
        for (key, value) in in_natural_order(members.iter().collect()) {
            self.write_indent();
            // In bytes, as in Go.
            let simple = key.len() <= MAX_SIMPLE_KEY && !key.contains(is_break);
            if simple {
                self.scalar(key, style_of(key), true);
                self.indicator(":", false, false);
            } else {
                self.indicator("?", true, true);
                self.scalar(key, style_of(key), false);
                self.write_indent();
                self.indicator(":", true, true);
            }
            self.node(value, true);
        }
        self.indent = before;
    }

    /// A scalar in the wanted style, or in the next best one that can write it.
    fn scalar(&mut self, text: &str, wanted: Style, is_key: bool) {
        let style = allowed_style(text, wanted, is_key);
        let before = self.indent;
        self.indent = Some(self.indent.map_or(INDENT, |indent| indent + INDENT));
        match style {
            Style::Plain => {
                if !self.whitespace {
                    self.put(' ');
                }
                self.folded(text, !is_key, |_, _| false, |printer, c| printer.put(c));
                self.whitespace = false;
                self.indention = false;
            }
            Style::SingleQuoted => {
                self.indicator("'", true, false);
                let inner = |i: usize, last: bool| i == 0 || last;
                self.folded(text, !is_key, inner, |printer, c| {
                    if c == '\'' {
                        printer.put('\'');
                    }
                    printer.put(c);
                });
                self.indicator("'", false, false);
            }
            Style::DoubleQuoted => self.double_quoted(text, !is_key),
            Style::Literal => self.literal(text),
        }
        self.indent = before;
    }

    /// Writes text, folding at single spaces behind the last column. `never` names the places where no fold may be.
    fn folded(
        &mut self,
        text: &str,
        may_fold: bool,
        never: impl Fn(usize, bool) -> bool,
        write: impl Fn(&mut Self, char),
    ) {
        let (mut spaces, mut breaks) = (false, false);
        for (index, c) in text.char_indices() {
            let rest = &text[index + c.len_utf8()..];
            if is_break(c) {
                // Only the separators of Unicode come here.
                self.put(c);
                self.column = 0;
                self.indention = true;
                breaks = true;
            } else if c == ' ' {
                // A run of spaces is not folded: reading would make one of them.
                let fold = may_fold && !spaces && self.column > WIDTH && !rest.starts_with(' ');
                if fold && !never(index, rest.is_empty()) {
                    self.write_indent();
                } else {
                    self.put(' ');
                }
                spaces = true;
            } else {
                if breaks {
                    self.write_indent();
                }
                write(self, c);
                self.indention = false;
                (spaces, breaks) = (false, false);
            }
        }
    }

    /// A text in double quotes. Here runs of spaces may be folded: an escaped space at the beginning of a line stays.
    fn double_quoted(&mut self, text: &str, may_fold: bool) {
        self.indicator("\"", true, false);
        let mut spaces = false;
        for (index, c) in text.char_indices() {
            let rest = &text[index + c.len_utf8()..];
            // A byte order mark in front makes the original escape everything.
            if text.starts_with('\u{feff}') || !is_printable(c) || is_break(c) || c == '"' || c == '\\' {
                self.escape(c);
                spaces = false;
            } else if c == ' ' {
                if may_fold && !spaces && self.column > WIDTH && index > 0 && !rest.is_empty() {
                    self.write_indent();
                    if rest.starts_with(' ') {
                        self.put('\\');
                    }
                } else {
                    self.put(' ');
                }
                spaces = true;
            } else {
                self.put(c);
                spaces = false;
            }
        }
        self.indicator("\"", false, false);
    }

    fn escape(&mut self, c: char) {
        let code = c as u32;
        let short = match c {
            '\0' => "0",
            '\u{7}' => "a",
            '\u{8}' => "b",
            '\t' => "t",
            '\n' => "n",
            '\u{b}' => "v",
            '\u{c}' => "f",
            '\r' => "r",
            '\u{1b}' => "e",
            '"' => "\"",
            '\\' => "\\",
            '\u{85}' => "N",
            '\u{a0}' => "_",
            '\u{2028}' => "L",
            '\u{2029}' => "P",
            _ => "",
        };
        let long = match code {
            _ if !short.is_empty() => short.to_string(),
            0..=0xff => format!("x{code:02X}"),
            0x100..=0xffff => format!("u{code:04X}"),
            _ => format!("U{code:08X}"),
        };
        self.put('\\');
        for c in long.chars() {
            self.put(c);
        }
    }

    fn literal(&mut self, text: &str) {
        self.indicator("|", true, false);
        // Without the indicator a reader would take the first line's own spaces for indentation.
        if text.starts_with(|c| c == ' ' || is_break(c)) {
            self.indicator("2", false, false);
        }
        // One break at the end is what a block has by itself; `-` says that there is none, `+` that there are more.
        let mut backwards = text.chars().rev();
        match (backwards.next(), backwards.next()) {
            (Some(last), _) if !is_break(last) => self.indicator("-", false, false),
            (Some(_), None) => self.indicator("+", false, false),
            (Some(_), Some(before)) if is_break(before) => self.indicator("+", false, false),
            _ => {}
        }
        self.break_line();
        self.indention = true;
        self.whitespace = true;
        // Empty lines are not indented, so the indentation is written with the first character of a line.
        let mut breaks = true;
        for c in text.chars() {
            if is_break(c) {
                if c == '\n' {
                    self.break_line();
                } else {
                    self.put(c);
                    self.column = 0;
                }
                self.indention = true;
                breaks = true;
            } else {
                if breaks {
                    self.write_indent();
                }
                self.put(c);
                self.indention = false;
                breaks = false;
            }
        }
    }

    /// Writes a piece of syntax, after a space if it needs one.
    fn indicator(&mut self, text: &str, need_space: bool, starts_entry: bool) {
        if need_space && !self.whitespace {
            self.put(' ');
        }
        for c in text.chars() {
            self.put(c);
        }
        // Behind `-` and `?` a collection may begin on the same line.
        self.whitespace = false;
        self.indention = self.indention && starts_entry;
    }

    /// Goes to the indentation of the collection at hand, on a new line unless nothing but indentation is on this one.
    fn write_indent(&mut self) {
        let indent = self.indent.unwrap_or(0);
        if !self.indention || self.column > indent || (self.column == indent && !self.whitespace) {
            self.break_line();
        }
        while self.column < indent {
            self.put(' ');
        }
        self.whitespace = true;
        self.indention = true;
    }

    fn new_line_if_needed(&mut self) {
        if !self.indention || self.column > 0 || !self.whitespace {
            self.break_line();
        }
    }

    fn break_line(&mut self) {
        self.out.push('\n');
        self.column = 0;
    }

    fn put(&mut self, c: char) {
        self.out.push(c);
        self.column += 1;
    }
}

/// The style in which the encoder asks for a string.
fn style_of(text: &str) -> Style {
    if text.contains('\n') {
        return Style::Literal;
    }
    // Quoted if a reader, this one or another of YAML 1.1, would take the text for something else.
    let stays_string = matches!(resolve::untagged(text), Scalar::String(_))
        && !resolve::is_timestamp(text)
        && !is_base_60(text);
    if stays_string { Style::Plain } else { Style::DoubleQuoted }
}

/// `1:20:30`, a number of base 60 to other readers of YAML 1.1: `[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?`.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (body, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let mut parts = body.split(':');
    let head = parts.next().unwrap_or_default();
    let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit() || b == b'_');
    let sixty = |s: &str| match s.as_bytes() {
        [unit] => unit.is_ascii_digit(),
        [ten, unit] => (b'0'..=b'5').contains(ten) && unit.is_ascii_digit(),
        _ => false,
    };
    let mut rest = parts.peekable();
    head.starts_with(|c: char| c.is_ascii_digit())
        && digits(head)
        && rest.peek().is_some()
        && rest.all(sixty)
        && digits(fraction)
}

/// The style that the emitter can use, given what is in the text (`yaml_emitter_analyze_scalar`,
/// `yaml_emitter_select_scalar_style`).
fn allowed_style(text: &str, wanted: Style, is_key: bool) -> Style {
    let allowed = Allowed::in_text(text);
    let mut style = wanted;
    // A key has to be on one line.
    if is_key && text.contains(is_break) {
        style = Style::DoubleQuoted;
    }
    if style == Style::Plain && (!allowed.plain || (text.is_empty() && is_key)) {
        // `[]` and `{}` stand for themselves.
        let flow = matches!(text, "[]" | "{}");
        style = if flow { Style::Plain } else { Style::SingleQuoted };
    }
    if style == Style::SingleQuoted && !allowed.single_quoted {
        style = Style::DoubleQuoted;
    }
    if style == Style::Literal && (!allowed.block || is_key) {
        style = Style::DoubleQuoted;
    }
    style
}

/// The styles in which a text reads back as itself.
struct Allowed {
    plain: bool,
    single_quoted: bool,
    block: bool,
}

impl Allowed {
    /// Looks at all of a text (`yaml_emitter_analyze_scalar`).
    fn in_text(text: &str) -> Self {
        if text.is_empty() {
            return Self { plain: true, single_quoted: true, block: false };
        }
        let chars: Vec<char> = text.chars().collect();
        let blank = |i: usize| chars.get(i).is_none_or(|&c| matches!(c, ' ' | '\t' | '\0') || is_break(c));
        let mut indicators = text.starts_with("---") || text.starts_with("...");
        let (mut special, mut break_space, mut space_break) = (false, false, false);
        for (i, &c) in chars.iter().enumerate() {
            let before = i.checked_sub(1).map(|j| chars[j]);
            indicators |= match c {
                '#' => i == 0 || blank(i - 1),
                ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => {
                    i == 0
                }
                '?' | '-' => i == 0 && blank(1),
                ':' => blank(i + 1),
                _ => false,
            };
            special |= !is_printable(c);
            break_space |= c == ' ' && before.is_some_and(is_break);
            space_break |= is_break(c) && before == Some(' ');
        }
        let edge = |c: char| c == ' ' || is_break(c);
        let at_edge = edge(chars[0]) || edge(chars[chars.len() - 1]);
        let has_breaks = chars.iter().any(|&c| is_break(c));
        let none = space_break || special;
        Self {
            plain: !(indicators || at_edge || has_breaks || break_space || none),
            single_quoted: !(break_space || none),
            block: !(none || chars[chars.len() - 1] == ' '),
        }
    }
}

fn is_break(c: char) -> bool {
    matches!(c, '\r' | '\n' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// What the emitter writes as it is: no tabs, and nothing beyond the basic plane.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | ' '..='~' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

/// A number as Go's encoder prints it: whole floats without a fraction, others in the shortest form that reads back.
fn number_text(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => match go_float(float) {
            whole if !whole.is_f64() => whole.to_string(),
            _ => resolve::go_g(&format!("{float:e}")),
        },
        _ => number.to_string(),
    }
}

/// A merge sort by [`natural_order`]: where numbers overflow that is no order at all, and the standard library's
/// sort may then panic.
fn in_natural_order<'a>(mut members: Vec<(&'a String, &'a Value)>) -> Vec<(&'a String, &'a Value)> {
    if members.len() < 2 {
        return members;
    }
    let right = in_natural_order(members.split_off(members.len() / 2));
    let left = in_natural_order(members);
    let mut out = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.into_iter().peekable(), right.into_iter().peekable());
    while let (Some(a), Some(b)) = (left.peek(), right.peek()) {
        let from_right = natural_order(b.0, a.0) == Ordering::Less;
        out.extend(if from_right { right.next() } else { left.next() });
    }
    out.extend(left.chain(right));
    out
}

/// The order of keys (`keyList.Less` in `sorter.go`): letters behind everything else, runs of digits by their value.
fn natural_order(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(i) = a.iter().zip(&b).position(|(x, y)| x != y) else { return a.len().cmp(&b.len()) };
    let (x, y) = (a[i], b[i]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // Zeros count as digits of a number that has begun before them.
    let begun = x == '0' || y == '0';
    let before = a[..i].iter().rev().take_while(|c| c.is_numeric()).any(|&c| c != '0');
    let start = i64::from(begun && before);
    let number = |text: &[char]| {
        let digits = text[i..].iter().take_while(|c| c.is_numeric());
        digits.fold((start, 0), |(value, count), &c| {
            let digit = i64::from(c as u32) - i64::from(u32::from('0'));
            (value.wrapping_mul(10).wrapping_add(digit), count + 1)
        })
    };
    number(&a).cmp(&number(&b)).then(x.cmp(&y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use fleetpass_apimachinery::json::Numbers;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn objects_are_printed_as_kube_apiserver_prints_them() {
        let value = json!({
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "managedFields": [{"fieldsV1": {"f:spec": {".": {}, "f:enabled": {}}}, "manager": "m"}],
                "resourceVersion": "12"
            },
            "list": [["a", "b"], [], {}, {"k": null}],
            "message": "secrets \"s1\" is forbidden: User \"alice\" cannot get resource \"secrets\" in API group \"\" in the namespace \"fbd\"",
            "spec": {"on": "on", "n": 1.5, "empty": "", "text": "one\ntwo\n", "colon": "a: b", "tab": "a\tb"}
        });
        let expected = "apiVersion: v1
kind: Secret
list:
- - a
  - b
- []
- {}
- k: null
message: 'secrets \"s1\" is forbidden: User \"alice\" cannot get resource \"secrets\" in
  API group \"\" in the namespace \"fbd\"'
metadata:
  creationTimestamp: \"2026-01-02T03:04:05Z\"
  managedFields:
  - fieldsV1:
      f:spec:
        .: {}
        f:enabled: {}
    manager: m
  resourceVersion: \"12\"
spec:
  colon: 'a: b'
  empty: \"\"
  \"n\": 1.5
  \"on\": \"on\"
  tab: \"a\\tb\"
  text: |
    one
    two
";
        assert_eq!(print(&value), expected);
    }

    #[test]
    fn strings_are_quoted_when_they_must_be() {
        for (text, expected) in [
            ("plain", "plain"),
            ("y", "\"y\""),
            ("1", "\"1\""),
            ("1.5e3", "\"1.5e3\""),
            ("0x1f", "\"0x1f\""),
            ("~", "\"~\""),
            ("1:20", "\"1:20\""),
            ("2026-01-02", "\"2026-01-02\""),
            ("a:b", "a:b"),
            ("a #b", "'a #b'"),
            ("#b", "'#b'"),
            ("- a", "'- a'"),
            ("-a", "-a"),
            ("*", "'*'"),
            ("it's", "it's"),
            ("'it''s'", "'''it''''s'''"),
            (" a", "' a'"),
            ("---", "'---'"),
            ("\u{1f600}", "\"\\U0001F600\""),
            ("é", "é"),
            ("a\nb", "|-\n  a\n  b"),
            (" a\n", "|2\n   a"),
            ("a\n\n", "|+\n  a\n"),
            ("a \nb", "\"a \\nb\""),
        ] {
            assert_eq!(print(&text.into()), format!("{expected}\n"), "{text:?}");
        }
    }

    #[test]
    fn keys_are_in_natural_order() {
        let value = json!({"a10": 1, "a9": 1, "b": 1, "A": 1, "_": 1, "1": 1, "a": 1, "a01": 1});
        let keys: Vec<String> =
            print(&value).lines().map(|line| line.split(':').next().unwrap().replace('"', "")).collect();
        assert_eq!(keys, ["_", "1", "A", "a", "a01", "a9", "a10", "b"]);
    }

    #[test]
    fn long_keys_stand_behind_a_question_mark() {
        let key = "k".repeat(129);
        assert_eq!(print(&json!({ &key: {"a": 1} })), format!("? {key}\n: a: 1\n"));
    }

    fn values() -> impl Strategy<Value = Value> {
        let text = "[ -~\n\té\u{85}\u{1f600}]{0,30}|[yn0-9.:+-]{0,6}|([a-z]{1,9} ){0,20}[a-z]";
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(|f: f64| Value::Number(go_float(f))),
            text.prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 24, 4, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map(text, inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(value in values()) {
            let text = print(&value);
            let read = super::super::parse(text.as_bytes());
            let read = read.map(|document| document.raw.to_value(Numbers::Go).unwrap());
            prop_assert_eq!(read, Ok(value), "{}", text);
        }
    }
}
