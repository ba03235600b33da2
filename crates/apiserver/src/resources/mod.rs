//! The built-in kinds, one file each: everything that is special about a kind is in its file.

pub mod self_subject_review;
pub mod token_request;
pub mod token_review;
