//! What a name may be: the formats of `k8s.io/apimachinery/pkg/util/validation/validation.go` and
//! `k8s.io/apimachinery/pkg/api/validate/content`.
//!
//! Each function returns what is wrong, in the words of the API's messages; an empty list means that the name is good. The two
//! packages count the same bytes but call them `characters` and `bytes`; so do we.

// The formats are checked by hand and not with the regular expressions that the messages quote: they are simple, every name
// of every request is checked, and a pass over the bytes needs no compiled automaton.

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN_WORDS: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const KEY_WORDS: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const VALUE_WORDS: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY_WORDS: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// What is wrong with `name` as a DNS subdomain (RFC 1123); with `prefix`, as the start of one.
pub fn is_dns1123_subdomain(name: &str, prefix: bool) -> Vec<String> {
    let name = masked(name, prefix);
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push("must be no more than 253 characters".to_string());
    }
    if !subdomain(&name) {
        errors.push(SUBDOMAIN_WORDS.to_string());
    }
    errors
}

/// What is wrong with `name` as a DNS label (RFC 1123); with `prefix`, as the start of one.
pub fn is_dns1123_label(name: &str, prefix: bool) -> Vec<String> {
    let name = masked(name, prefix);
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push("must be no more than 63 characters".to_string());
    }
    if !label(&name) {
        // A subdomain that is no label can only be one with dots.
        errors.push(if subdomain(&name) {
            "must not contain dots".to_string()
        } else {
            format!(
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '{LABEL}')"
            )
        });
    }
    errors
}

/// What is wrong with `name` as a DNS label (RFC 1035: it begins with a letter); with `prefix`, as the start
/// of one.
pub fn is_dns1035_label(name: &str, prefix: bool) -> Vec<String> {
    let name = masked(name, prefix);
    let mut errors = Vec::new();
    if name.len() > 63 {
        errors.push("must be no more than 63 characters".to_string());
    }
    // `label` refuses the empty name, so there is a first byte.
    if !(label(&name) && name.as_bytes()[0].is_ascii_lowercase()) {
        errors.push("a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')".to_string());
    }
    errors
}

/// What is wrong with `name` as a segment of a URL path; with `prefix`, as the start of one.
pub fn is_path_segment(name: &str, prefix: bool) -> Vec<String> {
    // A prefix may be `.`: what is appended makes it another segment.
    if !prefix && (name == "." || name == "..") {
        return vec![format!("may not be '{name}'")];
    }
    ["/", "%"]
        .into_iter()
        .filter(|bad| name.contains(bad))
        .map(|bad| format!("may not contain '{bad}'"))
        .collect()
}

/// What is wrong with `key` as a label key or another qualified name: `[prefix/]name`.
pub fn is_qualified_name(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    let mut parts = key.split('/');
    let name = match (parts.next(), parts.next(), parts.next()) {
        (Some(name), None, _) => name,
        (Some(prefix), Some(name), None) => {
            if prefix.is_empty() {
                errors.push("prefix part must be non-empty".to_string());
            } else {
                if prefix.len() > 253 {
                    errors.push("prefix part must be no more than 253 bytes".to_string());
                }
                if !subdomain(prefix) {
                    errors.push(format!("prefix part {SUBDOMAIN_WORDS}"));
                }
            }
            name
        }
        _ => {
            return vec![format!(
                "a valid label key {KEY_WORDS} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    if name.is_empty() {
        errors.push("name part must be non-empty".to_string());
    } else if name.len() > 63 {
        errors.push("name part must be no more than 63 bytes".to_string());
    }
    if !qualified(name) {
        errors.push(format!("name part {KEY_WORDS}"));
    }
    errors
}

/// What is wrong with `value` as the value of a label.
pub fn is_label_value(value: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if value.len() > 63 {
        errors.push("must be no more than 63 bytes".to_string());
    }
    if !value.is_empty() && !qualified(value) {
        errors.push(VALUE_WORDS.to_string());
    }
    errors
}

/// What is wrong with `key` as a key of a ConfigMap or Secret: a file name.
pub fn is_config_map_key(key: &str) -> Vec<String> {
    let mut errors = Vec::new();
    if key.len() > 253 {
        errors.push("must be no more than 253 characters".to_string());
    }
    if key.is_empty() || !key.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        errors.push(CONFIG_KEY_WORDS.to_string());
    }
    if key == "." || key == ".." {
        errors.push(format!("must not be '{key}'"));
    } else if key.starts_with("..") {
        errors.push("must not start with '..'".to_string());
    }
    errors
}

/// A name to check; the trailing dash of a prefix stands for what will be appended (`maskTrailingDash`, which
/// replaces the dash and the character before it).
fn masked(name: &str, prefix: bool) -> String {
    if prefix
        && name.len() > 1
        && name.ends_with('-')
        && let Some(start) = name.get(..name.len() - 2)
    {
        return format!("{start}a");
    }
    name.into()
}

fn label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
    !bytes.is_empty() && bytes.iter().all(inner) && bytes[0] != b'-' && bytes[bytes.len() - 1] != b'-'
}

fn subdomain(text: &str) -> bool {
    text.split('.').all(label)
}

fn qualified(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    !bytes.is_empty()
        && bytes.iter().all(inner)
        && bytes[0].is_ascii_alphanumeric()
        && bytes[bytes.len() - 1].is_ascii_alphanumeric()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_accept_and_refuse() {
        let long = "x".repeat(64);
        type Format = fn(&str) -> Vec<String>;
        let subdomain: Format = |n| is_dns1123_subdomain(n, false);
        let label: Format = |n| is_dns1123_label(n, false);
        let start: Format = |n| is_dns1123_subdomain(n, true);
        let segment: Format = |n| is_path_segment(n, false);
        let cases: &[(Format, &str, &[&str])] = &[
            (subdomain, "a.b-c.9", &[]),
            (subdomain, "", &["a lowercase RFC 1123 subdomain"]),
            (subdomain, "a..b", &["a lowercase RFC 1123 subdomain"]),
            (start, "base-", &[]),
            (start, "-", &["a lowercase RFC 1123 subdomain"]),
            // The mask swallows the character before the dash, good or bad.
            (start, "a_-", &[]),
            (start, "é-", &["a lowercase RFC 1123 subdomain"]),
            (start, "ends-in-dot.", &["a lowercase RFC 1123 subdomain"]),
            (label, "a.b", &["must not contain dots"]),
            (label, &long, &["must be no more than 63 characters"]),
            (label, "A", &["a lowercase RFC 1123 label"]),
            (segment, "Any Name!", &[]),
            (segment, "..", &["may not be '..'"]),
            (segment, "a/b%c", &["may not contain '/'", "may not contain '%'"]),
            (is_qualified_name, "example.com/MyName", &[]),
            (is_qualified_name, "/a", &["prefix part must be non-empty"]),
            (is_qualified_name, "a/", &["name part must be non-empty", "name part must consist"]),
            (is_qualified_name, "a/b/c", &["a valid label key must consist"]),
            (is_qualified_name, "UPPER/a", &["prefix part a lowercase RFC 1123 subdomain"]),
            (is_qualified_name, &long, &["name part must be no more than 63 bytes"]),
            (is_label_value, "", &[]),
            (is_label_value, "-x", &["a valid label must be an empty string"]),
            (is_label_value, &long, &["must be no more than 63 bytes"]),
            (is_config_map_key, ".hidden", &[]),
            (is_config_map_key, "", &["a valid config key"]),
            (is_config_map_key, "..", &["must not be '..'"]),
            (is_config_map_key, "...", &["must not start with '..'"]),
        ];
        for (format, name, wanted) in cases {
            let found = format(name);
            assert_eq!(found.len(), wanted.len(), "{name:?}: {found:?}");
            for (found, wanted) in found.iter().zip(*wanted) {
                assert!(found.starts_with(wanted), "{name:?}: {found:?}");
            }
        }
    }
}
