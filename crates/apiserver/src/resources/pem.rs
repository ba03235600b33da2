//! PEM blocks as Go's `encoding/pem` finds them: text around them is skipped, and so are broken blocks.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// One block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    /// `CERTIFICATE`, `CERTIFICATE REQUEST`, …
    pub(super) kind: String,
    /// Whether it has headers.
    pub(super) headers: bool,
    /// What it holds.
    pub(super) bytes: Vec<u8>,
}

/// The blocks in `bytes`, in their order.
pub(super) fn blocks(bytes: &[u8]) -> Vec<Block> {
    // Lossy is enough: bytes that are not UTF-8 can only stand in text around the blocks, or break a block.
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    let mut blocks = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        match block_at(&lines[at..]) {
            Some((block, length)) => {
                blocks.push(block);
                at += length;
            }
            None => at += 1,
        }
    }
    blocks
}

/// The block that begins with the first line, and how many lines it has.
fn block_at(lines: &[&str]) -> Option<(Block, usize)> {
    let kind = lines.first()?.strip_prefix("-----BEGIN ")?.strip_suffix("-----")?;
    // The next line of dashes ends the block or breaks it; so each line is read once, whatever they are.
    let last = 1 + lines[1..].iter().position(|line| line.starts_with("-----"))?;
    if lines[last] != format!("-----END {kind}-----") {
        return None;
    }
    let body = &lines[1..last];
    let headers = body.iter().take_while(|line| line.contains(':')).count();
    let encoded: String =
        body[headers..].iter().flat_map(|l| l.chars()).filter(|c| !c.is_whitespace()).collect();
    let bytes = STANDARD.decode(encoded).ok()?;
    Some((Block { kind: kind.into(), headers: headers > 0, bytes }, last + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_found_among_text() {
        let text = "junk\n-----BEGIN A-----\nAA==\n-----END A-----\n-----BEGIN B-----\n***\n-----END B-----\n\
            -----BEGIN C D-----\nk: v\n\nAQ\nI=\r\n-----END C D-----\n-----BEGIN E-----\n";
        assert_eq!(
            blocks(text.as_bytes()),
            [
                Block { kind: "A".into(), headers: false, bytes: vec![0] },
                Block { kind: "C D".into(), headers: true, bytes: vec![1, 2] },
            ]
        );
        assert!(blocks(b"\xff\xfe-----BEGIN ").is_empty());
    }
}
