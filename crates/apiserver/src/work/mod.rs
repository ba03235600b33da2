//! CPU-heavy work, shared fairly between those who ask for it.
//!
//! A request that may keep a core busy for more than a moment must not run on the thread of its connection, and one user's
//! many such requests must not keep everybody else's waiting. So it becomes a task of a [`Pool`], whose threads always go on
//! with the [`Flow`] that has had the least of their time:
//!
//! ```text
//! request ─► Pool::admit(flow) ─► Ticket::spawn(future) ─► FairQueue ─► threads: poll, charge the flow for the time
//!                │ too many of this flow, or in all              ▲                   │ pending: woken later
//!                ▼                                               └───────────────────┘
//!             429, Retry-After
//! ```
//!
//! The unit of scheduling is one poll of a future. A poll is never interrupted, so what runs here must yield after some
//! milliseconds wherever the amount of work grows with the number of objects (between the pieces of a list, say). Within one
//! object work is bounded by the sizes of the request and of the object.

mod flow;
mod pool;
mod queue;

pub(crate) use flow::{Flow, FlowId};
pub(crate) use pool::{Pool, PoolLimits, Task, Ticket};
pub(crate) use queue::{FlowLoad, Full};
