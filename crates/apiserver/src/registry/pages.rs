//! Continue tokens: where the next page of a list begins, and at which revision
//! (`k8s.io/apiserver/pkg/storage/continue.go`). No I/O.

use base64::Engine;
use base64::alphabet::URL_SAFE;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, NO_PAD};
use fleetpass_apimachinery::status::Status;
use fleetpass_store::Revision;
use serde::{Deserialize, Serialize};

const VERSION: &str = "meta.k8s.io/v1";

/// Go does not insist on zero bits after the last byte.
const CONFIG: GeneralPurposeConfig = NO_PAD.with_decode_allow_trailing_bits(true);
const ENGINE: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, CONFIG);

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Token {
    v: String,
    rv: i64,
    start: String,
}

/// A token for the page that begins behind `last` (namespace and name below the resource, as in its key).
pub(super) fn encode(revision: Revision, last: &str) -> String {
    let token = Token {
        v: VERSION.into(),
        rv: i64::try_from(revision).unwrap_or(i64::MAX),
        // The smallest key after `last`, as kube-apiserver writes it.
        start: format!("{last}\0"),
    };
    ENGINE.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// The revision (`None`: whatever is newest) and what the page begins behind.
pub(super) fn decode(text: &str) -> Result<(Option<Revision>, String), Status> {
    let refuse = |why: String| {
        Status::bad_request(format!("invalid continue token: continue key is not valid: {why}"))
    };
    let bytes = ENGINE.decode(text.trim_end_matches('=')).map_err(|e| {
        let at = match e {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            _ => text.len(),
        };
        refuse(format!("illegal base64 data at input byte {at}"))
    })?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|e| refuse(json_error(&bytes, &e)))?;
    if token.v != VERSION {
        return Err(refuse(format!("server does not recognize this encoded version {}", token.v)));
    }
    if token.rv == 0 {
        return Err(refuse(format!("incorrect encoded start resourceVersion (version {VERSION})")));
    }
    if token.start.is_empty() {
        return Err(refuse(format!("empty start key (version {VERSION})")));
    }
    // The start is joined to the prefix of the resource: it must not lead out of it.
    if token.start.contains("/../") || token.start.starts_with("../") || token.start.starts_with('/') {
        return Err(refuse(token.start.clone()));
    }
    // `range` begins behind a key, so the key itself is what we need.
    let start = token.start.strip_suffix('\0').unwrap_or(&token.start).to_string();
    // A negative revision stands for an "inconsistent continue".
    Ok((Revision::try_from(token.rv).ok(), start))
}

/// Why a decoded token is no JSON, as Go says it.
fn json_error(bytes: &[u8], error: &serde_json::Error) -> String {
    // Clients see Go's words for what is no JSON; the usual cases are told apart by the first byte.
    let first = bytes.iter().find(|b| !b.is_ascii_whitespace());
    match first {
        None => "unexpected end of JSON input".into(),
        Some(b'{') if error.is_eof() => "unexpected end of JSON input".into(),
        Some(b'{') => error.to_string(),
        Some(byte) if byte.is_ascii_graphic() => {
            format!("invalid character '{}' looking for beginning of value", *byte as char)
        }
        Some(byte) => format!("invalid character '\\x{byte:02x}' looking for beginning of value"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_lead_back_to_where_they_came_from() {
        assert_eq!(decode(&encode(7, "ns/a")), Ok((Some(7), "ns/a".into())));
    }

    #[test]
    fn bad_tokens_are_refused_as_kube_apiserver_does() {
        for (token, why) in [
            ("garbage", "invalid character '\\x81' looking for beginning of value"),
            (
                "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
                "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
            ),
            (
                "eyJ2IjoibWV0YS5rOHMuaW8vdjkiLCJydiI6MSwic3RhcnQiOiJhIn0",
                "server does not recognize this encoded version meta.k8s.io/v9",
            ),
        ] {
            let status = decode(token).expect_err(token);
            assert_eq!(status.message, format!("invalid continue token: continue key is not valid: {why}"));
        }
    }
}
