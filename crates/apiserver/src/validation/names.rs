//! What a name may be (`k8s.io/apimachinery/pkg/util/validation/validation.go`).

/// What is wrong with `name` as a DNS subdomain (RFC 1123); with `prefix`, as the start of one.
pub fn is_dns1123_subdomain(name: &str, prefix: bool) -> Vec<String> {
    const MESSAGE: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    let name = if prefix {
        name.strip_suffix('-').map_or(name.to_string(), |n| format!("{n}a"))
    } else {
        name.into()
    };
    let mut errors = Vec::new();
    if name.len() > 253 {
        errors.push("must be no more than 253 bytes".to_string());
    }
    let label = |l: &str| {
        let b = l.as_bytes();
        !b.is_empty()
            && b.iter().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == b'-')
            && b[0] != b'-'
            && b[b.len() - 1] != b'-'
    };
    if !name.split('.').all(label) {
        errors.push(MESSAGE.to_string());
    }
    errors
}
