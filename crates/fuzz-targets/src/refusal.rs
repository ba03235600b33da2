//! How long a refusal may be.

/// The most bytes that a refusal of `input` may have. Refusals quote what they refuse, some of it twice and escaped, but
/// do not multiply it.
pub(crate) fn check_refusal(message: &str, input: usize) {
    assert!(message.len() <= 2_000 + 20 * input, "a refusal of {} bytes for {input}", message.len());
}
