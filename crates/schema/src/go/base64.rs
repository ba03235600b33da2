//! Base64 as Go's `encoding/base64` reads it.

use crate::error::Base64Error;
use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use std::borrow::Cow;

/// Base64 as Go's `StdEncoding` reads it: padded, line breaks ignored.
///
/// # Errors
/// Where it stops to be base64.
pub fn decode_base64(text: &str) -> Result<Vec<u8>, Base64Error> {
    // Go does not insist on zero bits after the last byte.
    const ENGINE: GeneralPurpose = GeneralPurpose::new(
        &STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::RequireCanonical)
            .with_decode_allow_trailing_bits(true),
    );
    let compact: Cow<'_, str> = if text.contains(['\r', '\n']) {
        text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect::<String>().into()
    } else {
        text.into()
    };
    ENGINE.decode(compact.as_bytes()).map_err(|_| Base64Error { offset: error_offset(text) })
}

/// Where Go's decoder stops (`encoding/base64`, `decodeQuantum`).
fn error_offset(text: &str) -> usize {
    let bytes = text.as_bytes();
    let line_break = |b: u8| b == b'\r' || b == b'\n';
    let skip = |mut at: usize| {
        while at < bytes.len() && line_break(bytes[at]) {
            at += 1;
        }
        at
    };
    let mut at = 0;
    let mut in_quantum = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        at += 1;
        if line_break(byte) {
            continue;
        }
        if byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/' {
            in_quantum = (in_quantum + 1) % 4;
            continue;
        }
        if byte != b'=' || in_quantum < 2 {
            return at - 1;
        }
        let mut next = skip(at);
        if in_quantum == 2 {
            if next == bytes.len() {
                return bytes.len();
            }
            if bytes[next] != b'=' {
                return next - 1;
            }
            next = skip(next + 1);
        }
        // Only what follows the padding can still be wrong.
        return next;
    }
    at - in_quantum
}
