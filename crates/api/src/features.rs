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
    #[error(
        "unrecognized feature gate: {0}; known are EphemeralIdentity, ClusterProfile, AllAlpha and AllBeta"
    )]
    Unknown(String),
    /// A feature of the upstream addon that nobody here would carry out.
    #[error(
        "ClusterProfile=true is not supported: nothing here copies tokens to the namespaces of ClusterProfiles; leave \
         it false, and run the upstream manager with --deploy-mode=AddOnTemplate beside for it"
    )]
    ClusterProfile,
}

/// Who is told about gates: not all of them do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A hub or its manager, which upstream also looks after ClusterProfiles.
    Hub,
    /// An agent: ClusterProfile is known to it, and nothing to it.
    Agent,
}

impl FeatureGates {
    /// Reads `Name=true,Other=false`. Booleans as Go's `strconv.ParseBool` reads them; `AllAlpha` counts for all gates that
    /// are not named themselves, and both of upstream's are alpha; there is none that is beta.
    ///
    /// # Errors
    ///
    /// A gate that nobody knows, that is not here, or whose value is no boolean.
    pub fn parse(text: &str, role: Role) -> Result<Self, FeatureError> {
        let (mut all, mut ephemeral_identity, mut cluster_profile) = (None, None, None);
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
                "EphemeralIdentity" => ephemeral_identity = Some(on),
                "ClusterProfile" => cluster_profile = Some(on),
                "AllAlpha" => all = Some(on),
                "AllBeta" => {}
                _ => return Err(FeatureError::Unknown(name.to_owned())),
            }
        }
        if role == Role::Hub && cluster_profile.or(all) == Some(true) {
            return Err(FeatureError::ClusterProfile);
        }
        Ok(Self { ephemeral_identity: ephemeral_identity.or(all).unwrap_or_default() })
    }
}

impl std::str::FromStr for FeatureGates {
    type Err = FeatureError;

    /// For a hub: [`FeatureGates::parse`].
    fn from_str(text: &str) -> Result<Self, FeatureError> {
        Self::parse(text, Role::Hub)
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
        let on = FeatureGates { ephemeral_identity: true };
        for (text, gates) in [
            ("EphemeralIdentity=true,ClusterProfile=false", on),
            ("ClusterProfile=0,EphemeralIdentity=1,AllBeta=true", on),
            ("AllAlpha=true,ClusterProfile=false", on),
            ("AllAlpha=true,EphemeralIdentity=false,ClusterProfile=false", FeatureGates::default()),
            ("AllAlpha=false", FeatureGates::default()),
        ] {
            assert_eq!(FeatureGates::parse(text, Role::Hub), Ok(gates), "{text}");
            assert_eq!(FeatureGates::parse(text, Role::Agent), Ok(gates), "{text}");
        }
        for text in ["ClusterProfile=true", "AllAlpha=true", "EphemeralIdentity=true,ClusterProfile=T"] {
            assert_eq!(FeatureGates::parse(text, Role::Hub), Err(FeatureError::ClusterProfile), "{text}");
            assert!(FeatureGates::parse(text, Role::Agent).is_ok(), "{text}");
        }
        for bad in ["EphemeralIdentity", "EphemeralIdentity=maybe", "Other=true"] {
            assert!(bad.parse::<FeatureGates>().is_err(), "{bad}");
        }
    }
}
