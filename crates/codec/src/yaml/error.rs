//! What can go wrong with YAML.

use std::fmt;

/// Why bytes are not YAML, in the words of Go's yaml package, with its `yaml: ` in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct YamlError(pub(super) String);

impl fmt::Display for YamlError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for YamlError {}

impl YamlError {
    /// With the prefix; `problem` comes without.
    pub(super) fn new(problem: impl fmt::Display) -> Self {
        Self(format!("yaml: {problem}"))
    }
}
