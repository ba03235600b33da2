//! Writes the seeds of all targets: `cargo run -p fleetpass-fuzz-targets --example seeds -- FOLDER`.
//! A seed is a file `FOLDER/TARGET/NUMBER`.

use fleetpass_fuzz_targets::seeds;
use std::path::{Path, PathBuf};
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let folder = env::args_os().nth(1).map(PathBuf::from).ok_or_else(|| io::Error::other("which folder?"))?;
    let scenarios = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../conformance/scenarios");
    for (target, inputs) in seeds::from_scenarios(&scenarios)? {
        let folder = folder.join(target);
        fs::create_dir_all(&folder)?;
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("{number:04}")), input)?;
        }
    }
    Ok(())
}
