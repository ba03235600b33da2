//! What a suite counted, for the table at the end of `cargo xtask conformance`.

use anyhow::{Context, Result};
use std::io::Write as _;

/// The environment variable that names the file of totals.
const REPORT: &str = "FLEETPASS_RIG_REPORT";

/// Adds a line to the table: what was checked, and what was seen.
pub fn total(suite: &str, seen: &str) -> Result<()> {
    let Some(path) = std::env::var_os(REPORT) else { return Ok(()) };
    let mut file =
        std::fs::File::options().create(true).append(true).open(&path).context("the file of totals")?;
    file.write_all(format!("{suite}\t{seen}\n").as_bytes()).context("the file of totals")
}
