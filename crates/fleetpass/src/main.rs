//! The `fleetpass` program: it parses arguments and runs the command, nothing else.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    match fleetpass_cli::run(fleetpass_cli::Cli::of_process()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // If nobody listens, the exit code still tells.
            let _ = writeln!(std::io::stderr(), "error: {}", fleetpass_cli::one_line(&error));
            ExitCode::FAILURE
        }
    }
}
