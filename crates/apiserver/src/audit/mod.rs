//! The audit log: who did what, as lines of JSON (`audit.k8s.io/v1` `Event`, level `Metadata`).
//!
//! ```text
//! handler ─► trail      what one request gathers on its way; leaves its events however the request ends
//!              │
//!            event      a pure function: what is known of a request in, a line out
//!              │
//!             log       a bounded queue, and one thread that writes
//!              │
//!            Sink       a file that is rotated, or standard output
//! ```
//!
//! The policy is one for all requests: level `Metadata`, without the stage `RequestReceived`. So no body is ever looked
//! at, and the log can be kept longer, and shown to more people, than what the server holds.
//!
//! The log blocks, as that of kube-apiserver does by default (`--audit-log-mode=blocking`): an answer is sent when its
//! line is in the queue, and where the queue is full it waits. What cannot be written is counted
//! (`apiserver_audit_error_total`) and said in the server's log; the request is answered all the same.

pub(crate) mod event;
mod file;
mod log;
pub(crate) mod trail;

pub use file::{FileError, RotatingFile, Rotation};
pub use log::{Log, Sink, Stdout, Written};
