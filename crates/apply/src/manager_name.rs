//! The name under which a client owns fields.

/// The field manager of a request: `fieldManager`, or the product of the `User-Agent` (what stands before its first
/// slash, without characters that do not print, at most 128 bytes); never empty.
/// (`managerOrUserAgent` in `k8s.io/apiserver/pkg/endpoints/handlers/create.go`)
pub fn manager_name(field_manager: &str, user_agent: &str) -> String {
    /// `FieldManagerMaxLength`; a `fieldManager` that is longer is refused with the other options of the request.
    const MAX_BYTES: usize = 128;
    if !field_manager.is_empty() {
        return field_manager.to_string();
    }
    let mut name = String::new();
    for c in user_agent.split('/').next().unwrap_or("").chars() {
        if c.is_control() || (c.is_whitespace() && c != ' ') {
            continue;
        }
        if name.len() + c.len_utf8() > MAX_BYTES {
            break;
        }
        name.push(c);
    }
    // An entry of managedFields must have a name, and a client need not send a User-Agent.
    if name.is_empty() { "unknown".to_string() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_managers() {
        for (given, agent, want) in [
            ("me", "oracle/v1", "me"),
            ("", "oracle/v1", "oracle"),
            ("", "my agent/1.2 (linux)", "my agent"),
            ("", "kubectl/v1.36 (linux/amd64)", "kubectl"),
            ("", "a\u{7}b", "ab"),
            ("", "", "unknown"),
        ] {
            assert_eq!(manager_name(given, agent), want);
        }
        assert_eq!(manager_name("", &"é".repeat(100)).len(), 128);
    }
}
