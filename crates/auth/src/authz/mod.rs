//! Authorization: *may this user do that?* Rules without I/O.
//!
//! An [`Authorizer`] decides about [`Attributes`]; the server's is a [`Union`] of `system:masters` and [`rbac`]. What is asked of
//! it besides the request itself is in [`impersonation`] (acting as another user) and [`escalation`] (granting rights).
//! [`forbidden`] words a refusal, and [`bootstrap`] has the roles that a new server begins with.

mod attributes;
mod authorizer;
pub mod bootstrap;
mod coverage;
pub mod escalation;
pub mod impersonation;
mod messages;
pub mod rbac;
mod rule;
mod union;

pub use attributes::Attributes;
pub use authorizer::{Authorizer, Decision, UserRules, join_errors};
pub use messages::forbidden;
pub use rule::PolicyRule;
pub use union::Union;
