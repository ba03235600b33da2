//! The server.
pub mod body;
pub mod health;
pub mod listener;
pub mod tls;
