//! The two API servers between which the agent stands, and what it watches on each.

pub(crate) mod call;
pub(crate) mod cause;
pub(crate) mod peer;
pub(crate) mod state;

/// One of the two API servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Side {
    /// Where the ManagedServiceAccounts and the projected Secrets are.
    Hub,
    /// Where the ServiceAccounts are.
    Cluster,
}

impl Side {
    pub(crate) const ALL: [Self; 2] = [Self::Hub, Self::Cluster];

    /// The side as a metric label.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hub => "hub",
            Self::Cluster => "cluster",
        }
    }
}

/// The kinds that the agent watches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Account = 0,
    Secret = 1,
    ServiceAccount = 2,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Account, Self::Secret, Self::ServiceAccount];

    /// Where objects of this kind are watched.
    pub(crate) fn side(self) -> Side {
        match self {
            Self::Account | Self::Secret => Side::Hub,
            Self::ServiceAccount => Side::Cluster,
        }
    }
}

#[cfg(test)]
mod tests;
