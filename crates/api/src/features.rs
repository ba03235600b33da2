//! Feature gates in the spelling of `--feature-gates` (k8s.io/component-base/featuregate).

/// The switches of the addon (`pkg/features/features.go` upstream).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FeatureGates {
    /// Honour `spec.ttlSecondsAfterCreation`. Off unless asked for.
    pub ephemeral_identity: bool,
}

/// Why a value of `--feature-gates` is refused; the wording is component-base's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FeatureError {
    /// No `=` in an item.
    #[error("missing bool value for {0}")]
    MissingValue(String),
    /// The value is no boolean.
    #[error("invalid value of {name}={value}, err: not a boolean")]
    NotBoolean {
        /// The feature.
        name: String,
        /// What was given for it.
        value: String,
    },
    /// No such feature.
    #[error("unrecognized feature gate: {0}")]
    Unknown(String),
}

impl std::str::FromStr for FeatureGates {
    type Err = FeatureError;

    /// Reads `Name=true,Other=false`. Booleans as Go's `strconv.ParseBool` reads them.
    fn from_str(text: &str) -> Result<Self, FeatureError> {
        let mut gates = Self::default();
        // Of a feature that is named twice the last value counts, and empty items are passed over, as in Go.
        for item in text.split(',').map(str::trim).filter(|item| !item.is_empty()) {
            let Some((name, value)) = item.split_once('=').map(|(n, v)| (n.trim(), v.trim())) else {
                return Err(FeatureError::MissingValue(item.to_owned()));
            };
            let on = match value {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
                "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
                _ => {
                    return Err(FeatureError::NotBoolean { name: name.to_owned(), value: value.to_owned() });
                }
            };
            match name {
                "EphemeralIdentity" => gates.ephemeral_identity = on,
                _ => return Err(FeatureError::Unknown(name.to_owned())),
            }
        }
        Ok(gates)
    }
}

impl std::fmt::Display for FeatureGates {
    /// The switches that differ from their default, as the flag takes them; empty if none does.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.ephemeral_identity { "EphemeralIdentity=true" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_flag() {
        assert_eq!("EphemeralIdentity=true".parse(), Ok(FeatureGates { ephemeral_identity: true }));
        assert_eq!(" EphemeralIdentity = T ,EphemeralIdentity=0".parse(), Ok(FeatureGates::default()));
        assert_eq!("".parse(), Ok(FeatureGates::default()));
        for ephemeral_identity in [false, true] {
            let gates = FeatureGates { ephemeral_identity };
            assert_eq!(gates.to_string().parse(), Ok(gates));
        }
        for bad in ["EphemeralIdentity", "EphemeralIdentity=maybe", "Other=true"] {
            assert!(bad.parse::<FeatureGates>().is_err(), "{bad}");
        }
    }
}
