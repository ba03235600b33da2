//! A JSON reader that keeps what `serde_json` forgets: duplicate keys, the order of keys, and the literal
//! text of numbers. Its errors are worded as Go's `encoding/json` words them (in its newer form, over
//! `encoding/json/jsontext`), because kube-apiserver's answers quote them.
//!
//! It reads bodies of strangers, so no function here recurses once per level of nesting (a few megabytes of `[` would
//! overflow the stack of a server's thread), and all take linear time.

mod duplicates;

use crate::field::go_quote;
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::fmt;

/// How deeply lists and objects may be nested (`maxNestingDepth` of Go's scanner).
pub const MAX_DEPTH: usize = 10_000;

/// How deeply a value that is kept may be nested: `serde_json` reads 128 levels back from the store, and an
/// object puts the value some levels below its root.
pub const MAX_KEPT_DEPTH: usize = 120;

/// A JSON value as it was written. Texts are borrowed from there, unless something in them had to be replaced: a body has so
/// many that a piece of memory for each would cost more than all else.
#[derive(Debug, Clone, PartialEq)]
pub enum Raw<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number: its literal text.
    Number(Cow<'a, str>),
    /// A string, unescaped. Bytes that are no UTF-8 and lone surrogates became U+FFFD.
    String(Cow<'a, str>),
    /// A list.
    Array(Vec<Raw<'a>>),
    /// The members in the order in which they were written, with all duplicates.
    Object(Vec<(Cow<'a, str>, Raw<'a>)>),
}

/// Why bytes are not JSON, in Go's words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError(String);

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SyntaxError {}

/// A value is nested more deeply than [`MAX_KEPT_DEPTH`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooDeep;

impl fmt::Display for TooDeep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("exceeded max depth")
    }
}

impl std::error::Error for TooDeep {}

/// How numbers with a fraction or an exponent become values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Numbers {
    /// As written: `3600.0` stays a floating point number (`json.RawMessage` keeps the text).
    Verbatim,
    /// As Go prints what it decoded into an interface: `3600.0` and `36e2` become `3600`.
    Go,
}

impl Drop for Raw<'_> {
    // The default would recurse once per level of nesting, and the depth is the client's choice.
    fn drop(&mut self) {
        let mut pending = Vec::new();
        self.take_containers(&mut pending);
        while let Some(mut value) = pending.pop() {
            value.take_containers(&mut pending);
        }
    }
}

impl<'a> Raw<'a> {
    /// Moves the containers directly inside this one to `into`. A container that holds none is left as it is: the ordinary
    /// drop of it does not recurse, and costs no allocation.
    fn take_containers(&mut self, into: &mut Vec<Raw<'a>>) {
        let is_container = |raw: &Raw<'_>| matches!(raw, Raw::Array(_) | Raw::Object(_));
        match self {
            Raw::Array(items) if items.iter().any(is_container) => {
                into.extend(std::mem::take(items).into_iter().filter(is_container));
            }
            Raw::Object(members) if members.iter().any(|(_, value)| is_container(value)) => {
                into.extend(std::mem::take(members).into_iter().map(|(_, v)| v).filter(is_container));
            }
            _ => {}
        }
    }

    /// The type's name in Go's decoding errors: `null`, `bool`, `number`, `string`, `array`, `object`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Raw::Null => "null",
            Raw::Bool(_) => "bool",
            Raw::Number(_) => "number",
            Raw::String(_) => "string",
            Raw::Array(_) => "array",
            Raw::Object(_) => "object",
        }
    }

    /// The last member `key` of an object: of duplicates the last one counts, as for Go's decoder.
    pub fn get(&self, key: &str) -> Option<&Raw<'a>> {
        match self {
            Raw::Object(members) => members.iter().rev().find(|(k, _)| k == key).map(|(_, v)| v),
            _ => None,
        }
    }

    /// As a value; of duplicate keys the last one counts. Errors: nested more deeply than [`MAX_KEPT_DEPTH`].
    pub fn to_value(&self, numbers: Numbers) -> Result<Value, TooDeep> {
        self.to_value_at(numbers, 0)
    }

    /// As [`Raw::to_value`], for a value that stands at `depth` in its document.
    ///
    /// # Errors
    /// The document is nested more deeply than [`MAX_KEPT_DEPTH`].
    pub fn to_value_at(&self, numbers: Numbers, depth: usize) -> Result<Value, TooDeep> {
        // This limit is what makes the recursion below safe.
        if depth > MAX_KEPT_DEPTH {
            return Err(TooDeep);
        }
        Ok(match self {
            Raw::Null => Value::Null,
            Raw::Bool(b) => Value::Bool(*b),
            Raw::Number(text) => Value::Number(number(text, numbers)),
            Raw::String(text) => Value::String(text.to_string()),
            Raw::Array(items) => Value::Array(
                items.iter().map(|item| item.to_value_at(numbers, depth + 1)).collect::<Result<_, _>>()?,
            ),
            Raw::Object(members) => {
                let mut map = Map::new();
                // In the order of the text, so that the last of several members with one key wins.
                for (key, value) in members {
                    map.insert(key.to_string(), value.to_value_at(numbers, depth + 1)?);
                }
                Value::Object(map)
            }
        })
    }

    /// The raw form of a value.
    pub fn from_value(value: &'a Value) -> Self {
        match value {
            Value::Null => Raw::Null,
            Value::Bool(b) => Raw::Bool(*b),
            Value::Number(n) => Raw::Number(n.to_string().into()),
            Value::String(text) => Raw::String(text.into()),
            Value::Array(items) => Raw::Array(items.iter().map(Self::from_value).collect()),
            Value::Object(map) => {
                Raw::Object(map.iter().map(|(k, v)| (k.into(), Self::from_value(v))).collect())
            }
        }
    }

    /// The paths of keys that an object gives more than once (`metadata.labels.a`, `items[0].name`), in the
    /// order in which they are met, each once, and at most 100 (`sigs.k8s.io/json`, `kubernetes_patch.go`);
    /// fewer where paths are very long.
    pub fn duplicates(&self) -> Vec<String> {
        duplicates::paths(self)
    }
}

impl From<Value> for Raw<'static> {
    /// As [`Raw::from_value`], without copying.
    fn from(value: Value) -> Self {
        match value {
            Value::Null => Raw::Null,
            Value::Bool(b) => Raw::Bool(b),
            Value::Number(n) => Raw::Number(n.to_string().into()),
            Value::String(text) => Raw::String(text.into()),
            Value::Array(items) => Raw::Array(items.into_iter().map(Self::from).collect()),
            Value::Object(map) => {
                Raw::Object(map.into_iter().map(|(k, v)| (k.into(), Self::from(v))).collect())
            }
        }
    }
}

/// The number that `text` writes, as `sigs.k8s.io/json` reads it: `i64` if it is a whole number without `.`
/// that fits, else a float. A float too large for `f64` is the largest one.
fn number(text: &str, numbers: Numbers) -> Number {
    // An exponent makes the parse fail, so `1e3` is a float too, as in Go.
    if !text.contains('.')
        && let Ok(n) = text.parse::<i64>()
    {
        return n.into();
    }
    // The reader checked the syntax, so the parse gives a number. Too large a one is infinite, which JSON cannot write.
    let float: f64 = text.parse().unwrap_or(0.0);
    let float = float.clamp(f64::MIN, f64::MAX);
    match numbers {
        Numbers::Go => go_float(float),
        Numbers::Verbatim => Number::from_f64(float).unwrap_or_else(|| 0.into()),
    }
}

/// A float as Go prints it: whole numbers without a fraction.
pub fn go_float(float: f64) -> Number {
    // Below the largest `i64`, which is about 9.22e18.
    const EXACT: f64 = 9.0e18;
    if float.fract() == 0.0 && float.abs() < EXACT {
        // In range and whole, so the cast is exact.
        return (float as i64).into();
    }
    Number::from_f64(float).unwrap_or_else(|| 0.into())
}

/// Reads one JSON value that fills `bytes`, but for white space. Never panics, whatever the bytes are; the
/// depth is limited to [`MAX_DEPTH`]. Errors: the first syntax error, in Go's words.
pub fn parse(bytes: &[u8]) -> Result<Raw<'_>, SyntaxError> {
    Reader { bytes, at: 0 }.document()
}

/// What is being built: a list, or an object with the key whose value comes next.
enum Frame<'a> {
    Array(Vec<Raw<'a>>),
    Object(Vec<(Cow<'a, str>, Raw<'a>)>, Cow<'a, str>),
}

struct Reader<'a> {
    bytes: &'a [u8],
    /// The byte that is read next. It may go past the end, which every access has to expect.
    at: usize,
}

impl<'a> Reader<'a> {
    /// A value with nothing but white space around it.
    fn document(mut self) -> Result<Raw<'a>, SyntaxError> {
        let root = self.value()?;
        self.skip_space();
        match self.peek() {
            None => Ok(root),
            Some(_) => Err(self.invalid(self.at, "after top-level value")),
        }
    }

    /// A value with all that is inside it, without recursion.
    fn value(&mut self) -> Result<Raw<'a>, SyntaxError> {
        let mut stack: Vec<Frame<'a>> = Vec::new();
        loop {
            self.skip_space();
            let mut done = match self.peek() {
                Some(open @ (b'[' | b'{')) => {
                    self.at += 1;
                    if stack.len() >= MAX_DEPTH {
                        return Err(SyntaxError("exceeded max depth".into()));
                    }
                    if open == b'[' {
                        self.skip_space();
                        if self.peek() == Some(b']') {
                            self.at += 1;
                            Raw::Array(Vec::new())
                        } else {
                            stack.push(Frame::Array(Vec::new()));
                            continue;
                        }
                    } else {
                        self.skip_space();
                        if self.peek() == Some(b'}') {
                            self.at += 1;
                            Raw::Object(Vec::new())
                        } else {
                            let key = self.key()?;
                            stack.push(Frame::Object(Vec::new(), key));
                            continue;
                        }
                    }
                }
                _ => self.scalar()?,
            };
            // Hand the value to what surrounds it, and close everything that ends here.
            loop {
                let Some(frame) = stack.last_mut() else { return Ok(done) };
                self.skip_space();
                let next = self.peek().ok_or_else(unexpected_end)?;
                // Past it already, so the errors below are about `at - 1`.
                self.at += 1;
                match (frame, next) {
                    (Frame::Array(items), b',') => {
                        items.push(done);
                        break;
                    }
                    (Frame::Object(members, key), b',') => {
                        members.push((std::mem::take(key), done));
                        self.skip_space();
                        *key = self.key()?;
                        break;
                    }
                    (Frame::Array(items), b']') => {
                        items.push(done);
                        done = Raw::Array(std::mem::take(items));
                    }
                    (Frame::Object(members, key), b'}') => {
                        members.push((std::mem::take(key), done));
                        done = Raw::Object(std::mem::take(members));
                    }
                    (Frame::Array(_), _) => {
                        return Err(self.invalid(self.at - 1, "after array element"));
                    }
                    (Frame::Object(..), _) => {
                        return Err(self.invalid(self.at - 1, "after object key:value pair"));
                    }
                }
                stack.pop();
            }
        }
    }

    /// `"key":`
    fn key(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        match self.peek() {
            None => return Err(unexpected_end()),
            Some(b'"') => {}
            Some(_) => return Err(self.invalid(self.at, "looking for beginning of object key string")),
        }
        let key = self.string()?;
        self.skip_space();
        match self.peek() {
            None => Err(unexpected_end()),
            Some(b':') => {
                self.at += 1;
                Ok(key)
            }
            Some(_) => Err(self.invalid(self.at, "after object key")),
        }
    }

    /// A value that is no container.
    fn scalar(&mut self) -> Result<Raw<'a>, SyntaxError> {
        match self.peek() {
            None => Err(unexpected_end()),
            Some(b'"') => Ok(Raw::String(self.string()?)),
            Some(b'-' | b'0'..=b'9') => Ok(Raw::Number(self.number()?)),
            Some(b't') => self.literal("true", Raw::Bool(true)),
            Some(b'f') => self.literal("false", Raw::Bool(false)),
            Some(b'n') => self.literal("null", Raw::Null),
            Some(_) => Err(self.invalid(self.at, "looking for beginning of value")),
        }
    }

    /// `null`, `true` or `false`. What follows the word is for the caller to complain of (`nullx`).
    fn literal(&mut self, word: &str, value: Raw<'a>) -> Result<Raw<'a>, SyntaxError> {
        for expected in word.bytes() {
            if self.need()? != expected {
                let context = format!("in literal {word} (expecting '{}')", expected as char);
                return Err(self.invalid(self.at, &context));
            }
            self.at += 1;
        }
        Ok(value)
    }

    /// The text of a number, as JSON's grammar has it.
    fn number(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        let start = self.at;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.need()? {
            // Nothing may follow a leading zero: the next digit is an error of whatever surrounds the number, as in Go.
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits(),
            _ => return Err(self.invalid(self.at, "in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.some_digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.some_digits()?;
        }
        Ok(String::from_utf8_lossy(&self.bytes[start..self.at]))
    }

    fn digits(&mut self) {
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
    }

    /// One digit or more.
    fn some_digits(&mut self) -> Result<(), SyntaxError> {
        match self.need()? {
            b'0'..=b'9' => {
                self.digits();
                Ok(())
            }
            _ => Err(self.invalid(self.at, "in numeric literal")),
        }
    }

    /// A string, from its opening quote.
    fn string(&mut self) -> Result<Cow<'a, str>, SyntaxError> {
        self.at += 1;
        let mut out = String::new();
        loop {
            let start = self.at;
            // Up to what needs attention in one go; bytes above ASCII are looked at together, because a character may have
            // several of them.
            while let Some(byte) = self.peek()
                && byte != b'"'
                && byte != b'\\'
                && byte >= 0x20
            {
                self.at += 1;
            }
            let run = &self.bytes[start..self.at];
            // Mostly that is all of it.
            if out.is_empty()
                && self.peek() == Some(b'"')
                && let Ok(text) = std::str::from_utf8(run)
            {
                self.at += 1;
                return Ok(text.into());
            }
            push_lossy(&mut out, run);
            match self.peek() {
                None => return Err(unexpected_end()),
                Some(b'"') => {
                    self.at += 1;
                    return Ok(out.into());
                }
                Some(b'\\') => {
                    self.at += 1;
                    self.escape(&mut out)?;
                }
                Some(_) => return Err(self.invalid(self.at, "in string")),
            }
        }
    }

    /// An escape, after its backslash.
    fn escape(&mut self, out: &mut String) -> Result<(), SyntaxError> {
        let byte = self.need()?;
        self.at += 1;
        out.push(match byte {
            b'"' | b'\\' | b'/' => byte as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let unit = self.hex4()?;
                return self.utf16(unit, out);
            }
            _ => return Err(self.bad_escape(self.at - 2, 2)),
        });
        Ok(())
    }

    /// The character that begins with a UTF-16 code unit, whose escape was read; further escapes are read as needed.
    fn utf16(&mut self, mut unit: u32, out: &mut String) -> Result<(), SyntaxError> {
        // A high surrogate joins a low one that follows; a lone one becomes U+FFFD. A loop, because what follows a lone one may
        // be a high surrogate again.
        while (0xd800..0xdc00).contains(&unit)
            && self.bytes[self.at.min(self.bytes.len())..].starts_with(b"\\u")
        {
            self.at += 2;
            let low = self.hex4()?;
            if (0xdc00..0xe000).contains(&low) {
                unit = 0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
            } else {
                out.push(char::REPLACEMENT_CHARACTER);
                unit = low;
            }
        }
        out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
        Ok(())
    }

    /// Four hexadecimal digits, after `\u`.
    fn hex4(&mut self) -> Result<u32, SyntaxError> {
        let start = self.at - 2;
        let mut unit = 0;
        for ahead in 0..4 {
            let Some(byte) = self.bytes.get(self.at + ahead) else { return Err(unexpected_end()) };
            let Some(digit) = (*byte as char).to_digit(16) else { return Err(self.bad_escape(start, 6)) };
            unit = unit * 16 + digit;
        }
        self.at += 4;
        Ok(unit)
    }

    /// An error about an escape of `length` bytes, or what is there of it.
    fn bad_escape(&self, start: usize, length: usize) -> SyntaxError {
        let rest = self.bytes.get(start..).unwrap_or_default();
        let what = String::from_utf8_lossy(&rest[..rest.len().min(length)]);
        // Go quotes with backticks unless the text holds something that would be hard to see in them.
        let odd =
            |c: char| matches!(c, '`' | char::REPLACEMENT_CHARACTER) || c.is_whitespace() || c.is_control();
        let what = if what.contains(odd) {
            quote_bytes(&rest[..rest.len().min(length)])
        } else {
            format!("`{what}`")
        };
        SyntaxError(format!("invalid escape sequence {what} in string"))
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    /// The byte at hand, which must be there.
    fn need(&self) -> Result<u8, SyntaxError> {
        self.peek().ok_or_else(unexpected_end)
    }

    /// An error about the character at `at`, quoted as Go's `%q` quotes a rune (`jsonwire.QuoteRune`).
    fn invalid(&self, at: usize, context: &str) -> SyntaxError {
        let rest = self.bytes.get(at..).unwrap_or_default();
        // No character is longer than four bytes; the rest of the body need not be looked at.
        let chunk = rest[..rest.len().min(4)].utf8_chunks().next();
        let quoted = match chunk.and_then(|chunk| chunk.valid().chars().next()) {
            Some('\'') => r"'\''".to_string(),
            Some('"') => "'\"'".to_string(),
            Some(c @ '\u{80}'..='\u{a0}') => format!("'\\u{:04x}'", c as u32),
            Some(c) => {
                let text = go_quote(&c.to_string());
                format!("'{}'", &text[1..text.len() - 1])
            }
            None => format!("'\\x{:02x}'", rest.first().copied().unwrap_or_default()),
        };
        SyntaxError(format!("invalid character {quoted} {context}"))
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\t' | b'\r' | b'\n') = self.peek() {
            self.at += 1;
        }
    }
}

fn unexpected_end() -> SyntaxError {
    SyntaxError("unexpected end of JSON input".into())
}

/// As Go's `%q` prints bytes.
fn quote_bytes(bytes: &[u8]) -> String {
    let mut out = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        let text = go_quote(chunk.valid());
        out.push_str(&text[1..text.len() - 1]);
        out.extend(chunk.invalid().iter().map(|byte| format!("\\x{byte:02x}")));
    }
    out.push('"');
    out
}

/// Each byte that is not part of valid UTF-8 becomes one U+FFFD, as in Go.
fn push_lossy(out: &mut String, bytes: &[u8]) {
    for chunk in bytes.utf8_chunks() {
        out.push_str(chunk.valid());
        out.extend(std::iter::repeat_n(char::REPLACEMENT_CHARACTER, chunk.invalid().len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn syntax_errors_are_worded_as_in_go() {
        for (input, expected) in [
            ("", "unexpected end of JSON input"),
            ("   ", "unexpected end of JSON input"),
            ("{", "unexpected end of JSON input"),
            ("{\"a\":", "unexpected end of JSON input"),
            ("[1", "unexpected end of JSON input"),
            ("\"abc", "unexpected end of JSON input"),
            ("not json", "invalid character 'o' in literal null (expecting 'u')"),
            ("hello", "invalid character 'h' looking for beginning of value"),
            ("tru", "unexpected end of JSON input"),
            ("trux", "invalid character 'x' in literal true (expecting 'e')"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{\"a\":1,}", "invalid character '}' looking for beginning of object key string"),
            ("{\"a\" 1}", "invalid character '1' after object key"),
            ("{\"a\":1 2}", "invalid character '2' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("01", "invalid character '1' after top-level value"),
            ("-", "unexpected end of JSON input"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.,", "invalid character ',' in numeric literal"),
            ("1e+ ", "invalid character ' ' in numeric literal"),
            ("\"\n\"", "invalid character '\\n' in string"),
            ("\"\\x\"", "invalid escape sequence `\\x` in string"),
            ("\"\\u12g4\"", "invalid escape sequence `\\u12g4` in string"),
            ("\"\\u1 \"", "invalid escape sequence \"\\\\u1 \\\"\" in string"),
            ("'a'", "invalid character '\\'' looking for beginning of value"),
            ("\u{e9}", "invalid character '\u{e9}' looking for beginning of value"),
            ("\u{9e}", "invalid character '\\u009e' looking for beginning of value"),
        ] {
            assert_eq!(parse(input.as_bytes()).unwrap_err().to_string(), expected, "{input}");
        }
        let bad = parse(b"\x9e").unwrap_err().to_string();
        assert_eq!(bad, "invalid character '\\x9e' looking for beginning of value");
    }

    #[test]
    fn strings_are_unescaped_as_in_go() {
        for (input, expected) in [
            (&br#""a\"\\\/\b\f\n\r\t\u0041""#[..], "a\"\\/\u{8}\u{c}\n\r\tA"),
            (br#""\ud83d\ude00""#, "\u{1f600}"),
            (br#""\ud83dx""#, "\u{fffd}x"),
            (br#""\ud83d\ud83d\ude00""#, "\u{fffd}\u{1f600}"),
            (b"\"\xf0\x9f\x98\"", "\u{fffd}\u{fffd}\u{fffd}"),
        ] {
            assert_eq!(parse(input).unwrap(), Raw::String(expected.into()));
        }
    }

    #[test]
    fn nesting_is_limited_and_never_recurses() {
        let nested = |n: usize| [vec![b'['; n], vec![b']'; n]].concat();
        assert!(parse(&nested(MAX_DEPTH)).is_ok());
        assert_eq!(parse(&nested(MAX_DEPTH + 1)).unwrap_err().to_string(), "exceeded max depth");
        assert!(parse(&vec![b'['; 1 << 20]).is_err());
        assert_eq!(parse(&nested(MAX_DEPTH)).unwrap().to_value(Numbers::Go), Err(TooDeep));
        assert!(parse(&nested(MAX_DEPTH)).unwrap().duplicates().is_empty());
    }

    #[test]
    fn duplicates_are_found_with_their_paths() {
        let raw = parse(
            br#"{"metadata":{"name":"a","name":"b"},"data":{"k":1,"k":2,"k":3},"l":[{"x":1,"x":2}],"data":{}}"#,
        )
        .unwrap();
        assert_eq!(raw.duplicates(), ["metadata.name", "data.k", "l[0].x", "data"]);
        assert_eq!(raw.get("data"), Some(&Raw::Object(vec![])));
    }

    #[test]
    fn numbers_become_integers_where_go_prints_them_so() {
        for (text, go, verbatim) in [
            ("3600", json!(3600), json!(3600)),
            ("3600.0", json!(3600), json!(3600.0)),
            ("1e3", json!(1000), json!(1000.0)),
            ("1.5", json!(1.5), json!(1.5)),
            ("-0", json!(0), json!(0)),
            ("9223372036854775807", json!(i64::MAX), json!(i64::MAX)),
            ("1e400", json!(f64::MAX), json!(f64::MAX)),
        ] {
            let raw = parse(text.as_bytes()).unwrap();
            assert_eq!(raw.to_value(Numbers::Go).unwrap(), go, "{text}");
            assert_eq!(raw.to_value(Numbers::Verbatim).unwrap(), verbatim, "{text}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&bytes);
        }

        #[test]
        fn agrees_with_serde_json(text in "[\\[\\]{}:,\"a1-3truefalsn \\\\]{0,18}") {
            let ours = parse(text.as_bytes()).ok().and_then(|raw| raw.to_value(Numbers::Verbatim).ok());
            prop_assert_eq!(ours, serde_json::from_str::<Value>(&text).ok());
        }
    }

    #[test]
    fn long_keys_are_not_copied_for_each_member_below_them() {
        let long = "k".repeat(1_000_000);
        let text = format!(
            "{{\"{long}\":{{{}\"b\":[{{\"c\":1,\"c\":2}}],\"b\":[{{\"c\":1,\"c\":2}}]}}}}",
            "\"a\":1,".repeat(100_000)
        );
        let paths = parse(text.as_bytes()).unwrap().duplicates();
        // Two of them are more text than anybody should get.
        assert_eq!(paths, [format!("{long}.a")]);
        let levels = format!("{{\"{}\":", "k".repeat(200));
        let text = format!("{}1{}", levels.repeat(MAX_DEPTH), "}".repeat(MAX_DEPTH));
        assert!(parse(text.as_bytes()).unwrap().duplicates().is_empty());
    }
}
