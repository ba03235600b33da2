//! What a YAML 1.1 scalar means (`resolve.go` of Go's yaml package).

use fleetpass_schema::go::decode_base64;
use std::borrow::Cow;

/// A resolved scalar.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Int(Int),
    Float(f64),
    String(Cow<'a, str>),
}

impl Scalar<'_> {
    /// The same with a text of its own.
    pub(super) fn into_owned(self) -> Scalar<'static> {
        match self {
            Scalar::Null => Scalar::Null,
            Scalar::Bool(b) => Scalar::Bool(b),
            Scalar::Int(n) => Scalar::Int(n),
            Scalar::Float(f) => Scalar::Float(f),
            Scalar::String(text) => Scalar::String(text.into_owned().into()),
        }
    }
}

/// A whole number in the range of `i64` or `u64`; in order, as all of the second kind are above all of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Int {
    Signed(i64),
    /// Above `i64::MAX`.
    Unsigned(u64),
}

impl std::fmt::Display for Int {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Int::Signed(n) => n.fmt(f),
            Int::Unsigned(n) => n.fmt(f),
        }
    }
}

/// What a tag means to the decoder. The tag itself is not kept: with a `%TAG` directive a few bytes may stand for a text of any
/// length, again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    Str,
    Binary,
    Timestamp,
    Bool,
    Int,
    Float,
    Null,
    /// `<<` is a merge also in quotes.
    Merge,
    /// Of an application: means nothing here.
    Other,
}

impl Tag {
    /// The meaning of the tag that consists of these two texts.
    pub(super) fn of(prefix: &str, suffix: &str) -> Self {
        // Longer than all that mean something.
        const LONGEST: usize = 40;
        if prefix.len() + suffix.len() > LONGEST {
            return Tag::Other;
        }
        let tag = format!("{prefix}{suffix}");
        let short = tag.strip_prefix(LONG).or_else(|| tag.strip_prefix("!!"));
        match short.unwrap_or(&tag) {
            "str" | "!" => Tag::Str,
            "binary" => Tag::Binary,
            "timestamp" => Tag::Timestamp,
            "bool" => Tag::Bool,
            "int" => Tag::Int,
            "float" => Tag::Float,
            "null" => Tag::Null,
            "merge" if tag.starts_with(LONG) => Tag::Merge,
            _ => Tag::Other,
        }
    }
}

/// What the tags of YAML itself begin with when they are written out; `!!` is short for it.
const LONG: &str = "tag:yaml.org,2002:";

/// Resolves `text` under its tag; `plain` tells a plain scalar from a quoted one. Errors: a tag that does not fit.
pub(super) fn resolve(tag: Option<Tag>, text: &str, plain: bool) -> Result<Scalar<'_>, String> {
    let string = || Scalar::String(text.into());
    let wanted = match tag {
        // Quotes make a string, whatever is in them.
        None if !plain => return Ok(string()),
        None => return Ok(untagged(text)),
        Some(Tag::Str | Tag::Merge | Tag::Other) => return Ok(string()),
        Some(Tag::Binary) => {
            let bytes =
                decode_base64(text).map_err(|_| "!!binary value contains invalid base64 data".to_string())?;
            return Ok(Scalar::String(String::from_utf8_lossy(&bytes).into_owned().into()));
        }
        Some(Tag::Timestamp) if is_timestamp(text) => return Ok(string()),
        Some(Tag::Timestamp) => "timestamp",
        Some(Tag::Bool) => "bool",
        Some(Tag::Int) => "int",
        Some(Tag::Float) => "float",
        Some(Tag::Null) => "null",
    };
    let found = untagged(text);
    let kind = match &found {
        Scalar::Null => "null",
        Scalar::Bool(_) => "bool",
        Scalar::Int(_) => "int",
        Scalar::Float(_) => "float",
        Scalar::String(_) => "str",
    };
    match found {
        Scalar::Int(Int::Signed(n)) if wanted == "float" => Ok(Scalar::Float(n as f64)),
        Scalar::Int(Int::Unsigned(n)) if wanted == "float" => Ok(Scalar::Float(n as f64)),
        found if kind == wanted => Ok(found),
        _ => Err(format!("cannot decode !!{kind} `{text}` as a !!{wanted}")),
    }
}

/// A plain scalar without a tag. What looks like a time stays a string.
pub(super) fn untagged(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Scalar::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Scalar::Bool(false);
        }
        ".nan" | ".NaN" | ".NAN" => return Scalar::Float(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Float(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Float(f64::NEG_INFINITY),
        _ => {}
    }
    // The empty text was `null` above, so there is a first byte. It decides what else to try, as in Go's table of hints; most
    // texts begin with a letter and are strings at once.
    let number = match text.as_bytes()[0] {
        // Here underscores may stand between digits only.
        b'.' if text.contains("__") || text.ends_with('_') || text.starts_with("._") => None,
        b'.' => float(&text.replace('_', "")),
        b'0'..=b'9' | b'+' | b'-' if is_timestamp(text) => None,
        b'0'..=b'9' | b'+' | b'-' => {
            let plain = text.replace('_', "");
            let binary = || i64::from_str_radix(plain.strip_prefix("0b")?, 2).ok().map(Int::Signed);
            integer(&plain).or_else(binary).map(Scalar::Int).or_else(|| float(&plain))
        }
        _ => None,
    };
    number.unwrap_or_else(|| Scalar::String(text.into()))
}

/// Go's `ParseInt(text, 0, 64)`, then `ParseUint`.
fn integer(text: &str) -> Option<Int> {
    let (negative, digits) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    // A leading zero means octal, in YAML 1.1 as in Go.
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..])
    } else {
        (10, lower.as_str())
    };
    // Rust's parser would take another sign here.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return None;
    }
    let magnitude = i128::from_str_radix(digits, base).ok()?;
    // `ParseUint` takes no sign, so `+` makes a number above `i64` a float.
    let signed = text.starts_with(['-', '+']);
    let value = if negative { -magnitude } else { magnitude };
    match i64::try_from(value) {
        Ok(value) => Some(Int::Signed(value)),
        Err(_) if signed => None,
        Err(_) => u64::try_from(value).ok().map(Int::Unsigned),
    }
}

/// `[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?`, if a float can hold it.
fn float(text: &str) -> Option<Scalar<'static>> {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let (mantissa, exponent) = match unsigned.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['-', '+']).unwrap_or(exponent))),
        None => (unsigned, None),
    };
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
    let shaped = match mantissa.split_once('.') {
        Some(("", fraction)) => digits(fraction),
        Some((whole, fraction)) => digits(whole) && (fraction.is_empty() || digits(fraction)),
        None => digits(mantissa),
    };
    if !shaped || !exponent.is_none_or(digits) {
        return None;
    }
    text.parse::<f64>().ok().filter(|f| f.is_finite()).map(Scalar::Float)
}

/// `2006-1-2`, alone or with a time of day, `T` or a space, a fraction and a zone (`allowedTimestampFormats`).
pub(super) fn is_timestamp(text: &str) -> bool {
    fn number(text: &str, low: u32, high: u32) -> Option<(u32, &str)> {
        let count = text.bytes().take(2).take_while(u8::is_ascii_digit).count();
        let value = text[..count].parse().ok().filter(|n| (low..=high).contains(n))?;
        Some((value, &text[count..]))
    }
    fn time(rest: &str, zoned: bool) -> Option<()> {
        let (_, rest) = number(rest, 0, 23)?;
        let (_, rest) = number(rest.strip_prefix(':')?, 0, 59)?;
        let (_, rest) = number(rest.strip_prefix(':')?, 0, 59)?;
        let rest = match rest.strip_prefix('.') {
            Some(fraction) => {
                let rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
                (rest.len() < fraction.len()).then_some(rest)?
            }
            None => rest,
        };
        if !zoned {
            return rest.is_empty().then_some(());
        }
        if rest == "Z" {
            return Some(());
        }
        let bytes = rest.as_bytes();
        let shaped = bytes.len() == 6
            && matches!(bytes[0], b'+' | b'-')
            && bytes[3] == b':'
            && [1, 2, 4, 5].iter().all(|&i| bytes[i].is_ascii_digit());
        shaped.then_some(())
    }
    fn check(text: &str) -> Option<()> {
        if text.bytes().take_while(u8::is_ascii_digit).count() != 4 {
            return None;
        }
        let year: i16 = text[..4].parse().ok()?;
        let (month, rest) = number(text[4..].strip_prefix('-')?, 1, 12)?;
        let (day, rest) = number(rest.strip_prefix('-')?, 1, 31)?;
        jiff::civil::Date::new(year, month as i8, day as i8).ok()?;
        match rest.chars().next() {
            None => Some(()),
            Some('T' | 't') => time(&rest[1..], true),
            Some(' ') => time(&rest[1..], false),
            Some(_) => None,
        }
    }
    check(text).is_some()
}

/// A float key as Go prints it: `%g` in the precision of 32 bits.
pub(super) fn float_key(float: f64) -> String {
    if float.is_nan() {
        return ".nan".into();
    }
    if float.is_infinite() {
        return if float > 0.0 { ".inf".into() } else { "-.inf".into() };
    }
    // `sigs.k8s.io/yaml` formats the floats of keys with 32 bits, unlike those of values.
    go_g(&format!("{:e}", float as f32))
}

/// A float as Go's `encoding/json` prints it. Errors: no number of JSON.
pub(super) fn json_float(float: f64) -> Result<String, String> {
    if !float.is_finite() {
        let name = if float.is_nan() {
            "NaN"
        } else if float > 0.0 {
            "+Inf"
        } else {
            "-Inf"
        };
        return Err(format!("json: unsupported value: {name}"));
    }
    // `encoding/json` changes to exponents at the same numbers as JavaScript.
    let magnitude = float.abs();
    if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) {
        let text = format!("{float:e}");
        return Ok(match text.split_once("e-") {
            Some(_) => text,
            None => text.replacen('e', "e+", 1),
        });
    }
    Ok(format!("{float}"))
}

/// `strconv.FormatFloat(f, 'g', -1, …)`, given the shortest digits in scientific form: an exponent below -4 and from 6
/// on, with two digits at least.
pub(super) fn go_g(scientific: &str) -> String {
    const LIMIT: i32 = 6;
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific.into() };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let (sign, mantissa) = mantissa.strip_prefix('-').map_or(("", mantissa), |m| ("-", m));
    if !(-4..LIMIT).contains(&exponent) {
        let e = if exponent < 0 { '-' } else { '+' };
        return format!("{sign}{mantissa}e{e}{:02}", exponent.abs());
    }
    let digits = mantissa.replace('.', "");
    let text = if exponent < 0 {
        format!("0.{}{digits}", "0".repeat((-exponent - 1) as usize))
    } else {
        let whole = exponent as usize + 1;
        if digits.len() <= whole {
            format!("{digits}{}", "0".repeat(whole - digits.len()))
        } else {
            format!("{}.{}", &digits[..whole], &digits[whole..])
        }
    };
    format!("{sign}{text}")
}
