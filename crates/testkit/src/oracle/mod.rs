//! Recorded conversations with a real kube-apiserver, replayed against any server.
//!
//! A scenario is a JSON file `{"name", "about", "steps": [...]}`. A step is one request (`method`, `path`,
//! `query`, `headers`, `body` or `rawBody`, `as`) and, under `expect`, the answer of a real server with what
//! changes from run to run replaced by placeholders. `wait` asks again until something holds, `watch` reads that
//! many events, `ignore` leaves paths out, `managedFields` compares managed fields too. `{{run}}` is a random
//! suffix, `{{id:a.b}}` a value from the answer to step `id`, `{{id:jwt.sub}}` a claim of the token it issued.

mod compare;
mod exchange;
mod replay;
mod scenario;

pub use exchange::Target;
pub use replay::{Exceptions, Verdict, replay_all};
pub use scenario::{Outcome, Scenario, Step};
