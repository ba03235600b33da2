//! The `Authorization` header (`k8s.io/apiserver/pkg/authentication/request/bearertoken`).

/// The warning for a header that is ignored because of a second space.
pub(super) const EXTRA_SPACE_WARNING: &str =
    "the provided Authorization header contains extra space before the bearer token, and is ignored";

/// What the header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bearer<'a> {
    /// Nothing about a bearer token: no header, no token, or another scheme.
    Absent,
    /// `Bearer  token`: taken as absent, with [`EXTRA_SPACE_WARNING`].
    ExtraSpace,
    /// A token, not empty. Words after it are ignored.
    Token(&'a str),
}

/// Reads the value of the (first) `Authorization` header.
pub(super) fn parse(header: &str) -> Bearer<'_> {
    // `strings.SplitN(header, " ", 3)`: only a space separates, a tab does not.
    let mut parts = header.trim().splitn(3, ' ');
    let (Some(scheme), Some(token)) = (parts.next(), parts.next()) else {
        return Bearer::Absent;
    };
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Bearer::Absent;
    }
    // Two spaces leave an empty second part. Clients that send them hear why they are anonymous.
    match (token, parts.next()) {
        ("", Some(_)) => Bearer::ExtraSpace,
        ("", None) => Bearer::Absent,
        _ => Bearer::Token(token),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_header_as_the_server_does() {
        for (header, expected) in [
            ("", Bearer::Absent),
            ("Bearer", Bearer::Absent),
            ("Bearer ", Bearer::Absent),
            ("Bearer a.b.c", Bearer::Token("a.b.c")),
            ("bearer t", Bearer::Token("t")),
            ("BEARER t", Bearer::Token("t")),
            ("  Bearer t\n", Bearer::Token("t")),
            ("Bearer t extra words", Bearer::Token("t")),
            ("Bearer  t", Bearer::ExtraSpace),
            ("Bearer   t", Bearer::ExtraSpace),
            ("Bearer Bearer t", Bearer::Token("Bearer")),
            ("Bearer\tt", Bearer::Absent),
            ("Token t", Bearer::Absent),
            ("Basic YWRtaW46YWRtaW4=", Bearer::Absent),
            ("a.b.c", Bearer::Absent),
        ] {
            assert_eq!(parse(header), expected, "{header:?}");
        }
    }
}
