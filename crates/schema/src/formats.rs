//! The string formats that custom resources may use (`apiextensions-apiserver/pkg/apiserver/validation/formats.go`,
//! `kube-openapi/pkg/validation/strfmt`).

use crate::Type;
use crate::go::regexp;
use regex::Regex;
use std::net::IpAddr;
use std::sync::LazyLock;

const STRINGS: [&str; 26] = [
    "bsonobjectid",
    "uri",
    "email",
    "hostname",
    "ipv4",
    "ipv6",
    "cidr",
    "mac",
    "uuid",
    "uuid3",
    "uuid4",
    "uuid5",
    "isbn",
    "isbn10",
    "isbn13",
    "creditcard",
    "ssn",
    "hexcolor",
    "rgbcolor",
    "byte",
    "password",
    "date",
    "duration",
    "datetime",
    "k8sshortname",
    "k8slongname",
];

fn normal(format: &str) -> String {
    format.replace('-', "")
}

/// Whether `format` means something for that type (`None`: no type, or more than one); any other is ignored.
pub fn applies(format: &str, kind: Option<Type>) -> bool {
    match kind {
        None | Some(Type::String) => STRINGS.contains(&normal(format).as_str()),
        Some(Type::Integer) => matches!(format, "int32" | "int64"),
        Some(Type::Number) => matches!(format, "float" | "double"),
        Some(Type::Object | Type::Array | Type::Boolean) => false,
    }
}

/// Whether strings are checked against `format`.
pub fn is_string_format(format: &str) -> bool {
    STRINGS.contains(&normal(format).as_str())
}

/// A constant expression; `None` would be a mistake in this file, which the tests would find.
fn expression(source: &str) -> Option<Regex> {
    regexp::compile(source).ok()
}

macro_rules! matches_pattern {
    ($text:expr, $source:expr) => {{
        static PATTERN: LazyLock<Option<Regex>> = LazyLock::new(|| expression($source));
        PATTERN.as_ref().is_some_and(|p| p.is_match($text))
    }};
}

/// Whether `text` is of that format; formats that are not known accept everything.
pub fn is_valid(format: &str, text: &str) -> bool {
    match normal(format).as_str() {
        "bsonobjectid" => text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit()),
        "uri" => is_request_uri(text),
        "email" => is_email(text),
        "hostname" => is_hostname(text),
        "ipv4" => text.contains('.') && ip(text).is_some(),
        "ipv6" => text.contains(':') && ip(text).is_some(),
        "cidr" => is_cidr(text),
        "mac" => is_mac(text),
        "uuid" => {
            matches_pattern!(text, "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$")
        }
        "uuid3" => {
            matches_pattern!(text, "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$")
        }
        "uuid4" => {
            matches_pattern!(
                text,
                "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"
            )
        }
        "uuid5" => {
            matches_pattern!(
                text,
                "(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"
            )
        }
        "isbn" => is_isbn10(text) || is_isbn13(text),
        "isbn10" => is_isbn10(text),
        "isbn13" => is_isbn13(text),
        "creditcard" => is_credit_card(text),
        "ssn" => matches_pattern!(text, r"^\d{3}[- ]?\d{2}[- ]?\d{4}$"),
        "hexcolor" => matches_pattern!(text, "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$"),
        "rgbcolor" => is_rgb_color(text),
        "byte" => {
            matches_pattern!(
                text,
                "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$"
            )
        }
        "date" => is_date(text),
        "duration" => is_duration(text),
        "datetime" => is_date_time(text),
        "k8sshortname" => text.len() <= 63 && is_label(text),
        "k8slongname" => text.len() <= 253 && text.split('.').all(is_label),
        _ => true,
    }
}

fn is_label(text: &str) -> bool {
    let edge = |b: Option<&u8>| b.is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let bytes = text.as_bytes();
    edge(bytes.first()) && edge(bytes.last()) && bytes.iter().all(|b| *b == b'-' || edge(Some(b)))
}

/// Go's `net/url.ParseRequestURI`: an absolute path, or a scheme and something after it.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    let rest = match text.split_once(':') {
        Some((scheme, rest)) if is_scheme(scheme) => match rest.starts_with('/') {
            true => rest,
            false => return true,
        },
        _ => text,
    };
    if !rest.starts_with('/') {
        return false;
    }
    let path = match rest.strip_prefix("//") {
        Some(after) if rest != text => {
            let end = after.find(['/', '?']).unwrap_or(after.len());
            let host = after[..end].rsplit('@').next().unwrap_or_default();
            let port_ok = match host.rsplit_once(':') {
                Some((before, port)) if !before.ends_with(']') || host.starts_with('[') => {
                    port.ends_with(']') || port.bytes().all(|b| b.is_ascii_digit())
                }
                _ => true,
            };
            if !port_ok || host.contains([' ', '<', '>', '"']) {
                return false;
            }
            &after[end..]
        }
        _ => rest,
    };
    escapes_are_valid(path.split('?').next().unwrap_or_default())
}

fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.'))
}

fn escapes_are_valid(text: &str) -> bool {
    text.split('%').skip(1).all(|part| {
        let digits = part.as_bytes();
        digits.len() >= 2 && digits[..2].iter().all(u8::is_ascii_hexdigit)
    })
}

/// The core of Go's `net/mail.ParseAddress`: `local@domain`, or that in angle brackets after a name.
fn is_email(text: &str) -> bool {
    let address = match text.trim().strip_suffix('>') {
        Some(rest) => match rest.rsplit_once('<') {
            Some((_, address)) => address,
            None => return false,
        },
        None => text.trim(),
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let atom = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| {
                c.is_ascii_alphanumeric()
                    || "!#$%&'*+-/=?^_`{|}~".contains(c)
                    || (!c.is_ascii() && !c.is_control())
            })
    };
    let quoted = local.len() >= 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.starts_with('[') && domain.ends_with(']');
    (quoted || local.split('.').all(atom)) && (literal || domain.split('.').all(atom))
}

/// Letters, digits and symbols with dashes inside; a name without dots has a dash at its second place at most,
/// and the last label of one with dots has letters only.
fn is_hostname(text: &str) -> bool {
    let sound = |label: &str| {
        label.len() <= 63
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(|c| c == '-' || is_host_character(c))
    };
    if text.len() > 255 || !text.split('.').all(sound) || text.split('.').any(str::is_empty) {
        return false;
    }
    match text.rsplit_once('.') {
        None => text.chars().skip(2).all(|c| c != '-'),
        Some((_, top)) => top.chars().count() >= 2 && top.chars().all(char::is_alphabetic),
    }
}

fn is_host_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches_pattern!(c.encode_utf8(&mut [0; 4]), r"^[\p{S}\p{L}]$")
}

/// Go's `ParseIPSloppy`: leading zeros in the parts of an IPv4 address are decimal.
fn ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok();
    }
    let parts: Vec<&str> = text.split('.').collect();
    let number = |part: &&str| {
        let digits = !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        digits && part.trim_start_matches('0').len() <= 3 && part.parse::<u64>().is_ok_and(|n| n <= 255)
    };
    if parts.len() != 4 || !parts.iter().all(number) {
        return None;
    }
    let octets: Vec<u8> = parts.iter().filter_map(|p| p.parse::<u64>().ok()?.try_into().ok()).collect();
    <[u8; 4]>::try_from(octets).ok().map(IpAddr::from)
}

fn is_cidr(text: &str) -> bool {
    let Some((address, length)) = text.split_once('/') else { return false };
    let most = match ip(address) {
        Some(IpAddr::V4(_)) => 32,
        Some(IpAddr::V6(_)) => 128,
        None => return false,
    };
    !length.is_empty()
        && length.bytes().all(|b| b.is_ascii_digit())
        && length.parse::<u32>().is_ok_and(|bits| bits <= most)
}

fn is_mac(text: &str) -> bool {
    for (separator, digits) in [(':', 2), ('-', 2), ('.', 4)] {
        let parts: Vec<&str> = text.split(separator).collect();
        let bytes = parts.len() * digits / 2;
        let right = |part: &&str| part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
        if matches!(bytes, 6 | 8 | 20) && parts.iter().all(right) {
            return true;
        }
    }
    false
}

fn bare(text: &str) -> String {
    text.chars().filter(|c| !matches!(c, ' ' | '-')).collect()
}

fn is_isbn10(text: &str) -> bool {
    let digits = bare(text);
    if digits.len() != 10 {
        return false;
    }
    let mut sum = 0;
    for (place, c) in digits.chars().enumerate() {
        let value = match c {
            'X' if place == 9 => 10,
            c => match c.to_digit(10) {
                Some(value) => value as usize,
                None => return false,
            },
        };
        sum += (place + 1) * value;
    }
    sum % 11 == 0
}

fn is_isbn13(text: &str) -> bool {
    let digits = bare(text);
    if digits.len() != 13 {
        return false;
    }
    let mut sum = 0;
    for (place, c) in digits.chars().enumerate() {
        let Some(value) = c.to_digit(10) else { return false };
        sum += value * if place % 2 == 0 { 1 } else { 3 };
    }
    sum.is_multiple_of(10)
}

fn is_credit_card(text: &str) -> bool {
    let digits: String = text.chars().filter(char::is_ascii_digit).collect();
    let shape = matches_pattern!(
        &digits,
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\d{3})\d{11})$"
    );
    let mut sum = 0;
    for (place, digit) in digits.chars().rev().filter_map(|c| c.to_digit(10)).enumerate() {
        let value = if place % 2 == 1 { digit * 2 } else { digit };
        sum += if value > 9 { value - 9 } else { value };
    }
    shape && sum.is_multiple_of(10)
}

fn is_rgb_color(text: &str) -> bool {
    let Some(body) = text.strip_prefix("rgb(").and_then(|t| t.strip_suffix(')')) else { return false };
    let parts: Vec<&str> = body.split(',').map(str::trim).collect();
    let right = |p: &&str| {
        let plain = *p == "0" || !p.starts_with('0');
        plain && p.bytes().all(|b| b.is_ascii_digit()) && p.parse::<u32>().is_ok_and(|n| n <= 255)
    };
    parts.len() == 3 && parts.iter().all(right)
}

fn is_date(text: &str) -> bool {
    let shape =
        text.len() == 10 && text.is_ascii() && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
    shape && text.parse::<jiff::civil::Date>().is_ok()
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let mut parts = lower.split('t');
    let (Some(date), Some(time)) = (parts.next(), parts.next()) else { return false };
    let shape = matches_pattern!(time, r"^[0-9]{2}:[0-9]{2}:[0-9]{2}(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$");
    is_date(date) && shape && &time[..2] <= "23" && &time[3..5] <= "59" && &time[6..8] <= "59"
}

/// What `time.ParseDuration` reads, or one or more numbers with units as Scala writes them.
fn is_duration(text: &str) -> bool {
    const UNITS: [&[&str]; 8] = [
        &["ns", "nano"],
        &["us", "µs", "micro"],
        &["ms", "milli"],
        &["s", "sec"],
        &["m", "min"],
        &["h", "hr", "hour"],
        &["d", "day"],
        &["w", "wk", "week"],
    ];
    static PART: LazyLock<Option<Regex>> = LazyLock::new(|| expression(r"(\d+)\s*([A-Za-zµ]+)"));
    if matches!(text, "0" | "+0" | "-0") {
        return true;
    }
    let Some(part) = PART.as_ref() else { return false };
    part.captures_iter(text).any(|found| {
        let unit = found[2].to_lowercase();
        UNITS.iter().any(|names| {
            names.contains(&unit.as_str()) || names.last().is_some_and(|long| unit.starts_with(long))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_every_format() {
        for (format, good, bad) in [
            ("bsonobjectid", "507f1f77bcf86cd799439011", "507f"),
            ("uri", "https://example.com/a?b=%zz", "example.com"),
            ("uri", "/path", "https://exa mple.com/"),
            ("email", "a.b@example.com", "a@@b c"),
            ("hostname", "a-b.example.com", "-a.example"),
            ("ipv4", "010.0.0.1", "256.0.0.1"),
            ("ipv6", "::1", "1.2.3.4"),
            ("cidr", "10.0.0.0/8", "10.0.0.0/33"),
            ("mac", "00:11:22:33:44:55", "00:11"),
            ("uuid", "123E4567-e89b-12d3-a456-426614174000", "123"),
            ("uuid4", "9b2c1d3e-4f5a-4b6c-8d7e-0f1a2b3c4d5e", "9b2c1d3e-4f5a-3b6c-8d7e-0f1a2b3c4d5e"),
            ("isbn", "0321751043", "0321751044"),
            ("isbn13", "978-0321751041", "978-0321751042"),
            ("creditcard", "4111 1111 1111 1111", "4111 1111 1111 1112"),
            ("ssn", "111-22-3333", "1112233334"),
            ("hexcolor", "#FFFFFF", "#FFFF"),
            ("rgbcolor", "rgb(255,255,0)", "rgb(255,255,256)"),
            ("byte", "aGk=", "aGk"),
            ("date", "2024-02-29", "2023-02-29"),
            ("duration", "22 ns", "soon"),
            ("duration", "1h30m", "1 parsec"),
            ("date-time", "2030-01-01T00:00:00.5+01:00", "2030-01-01"),
            ("date-time", "2030-01-01t23:59:59z", "2030-01-01T24:00:00Z"),
            ("k8s-short-name", "a-b", "a.b"),
            ("k8s-long-name", "a-b.c", "a..b"),
        ] {
            assert!(applies(format, Some(Type::String)) && is_string_format(format), "{format}");
            assert!(is_valid(format, good), "{format}: {good}");
            assert!(!is_valid(format, bad), "{format}: {bad}");
        }
        assert!(!applies("phone", Some(Type::String)) && !applies("int32", Some(Type::Number)));
    }
}
