//! One function for each decoder of bytes that strangers send. Each calls the decoder as the server calls it and asserts
//! what must hold whatever the bytes are: not only that nothing panics, but that what was read is printed and read
//! again as the same, that refusals are short, that nothing that we did not sign is taken for ours.
//!
//! `fuzz/` runs them under libFuzzer (`cargo xtask fuzz`). `tests/replay.rs` runs them on stable over what fuzzing found
//! (`corpus/`) and over the recorded conversations ([`seeds`]); `tests/deep.rs` over inputs that are deep or long, which a
//! fuzzer does not reach. How much work a large one causes is counted in `crates/growth`.

mod bodies;
mod definitions;
mod jwt;
mod kinds;
mod patches;
mod refusal;
mod request;
pub mod seeds;
mod selectors;
mod texts;

pub use bodies::{json, protobuf, yaml};
pub use definitions::definitions;
pub use jwt::jwt;
pub use patches::patches;
pub use request::request;
pub use selectors::selectors;
pub use texts::{cel, texts};

/// A function that must return, whatever it is given. It panics where something does not hold that must.
pub type Target = fn(&[u8]);

/// All targets by name, which is also that of their corpus.
pub const TARGETS: [(&str, Target); 10] = [
    ("protobuf", protobuf),
    ("yaml", yaml),
    ("patches", patches),
    ("jwt", jwt),
    ("selectors", selectors),
    ("request", request),
    ("json", json),
    ("definitions", definitions),
    ("cel", cel),
    ("texts", texts),
];
