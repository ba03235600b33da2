//! Value validation of custom resources: what a value may be beyond its type.

/// The value validations of one schema node.
#[derive(Debug, Clone, Default)]
pub struct ValueValidation {}
