//! The commands of the `fleetpass` program.

pub mod agent;
pub mod args;
pub mod clients;
pub mod console;
pub mod control_plane;
pub mod files;
pub mod hub;
pub mod install;
pub mod keep;
pub mod kubeconfig;
pub mod logging;
pub mod manager;
pub mod migrate;
pub mod net;
pub mod pki;
pub mod plane;
pub mod proof;
pub mod report;
pub mod signals;
pub mod storage;
pub mod transport;
pub mod up;

use anyhow::Context as _;
use args::{Cli, Command};
use logging::Verbosity;

/// Runs a command to its end.
///
/// # Errors
///
/// What [`report::one_line`] then tells.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    let verbosity = match &cli.command {
        Command::Up(_) | Command::Migrate(_) | Command::Install(_) => Verbosity::Warnings,
        Command::Hub(_) | Command::Agent(_) | Command::Manager(_) => Verbosity::Service,
    };
    let rust_log = std::env::var_os("RUST_LOG");
    logging::start(verbosity, rust_log.as_deref().map(|value| value.to_string_lossy()).as_deref())?;
    // The one cryptographic library of the program; an error says that it is there already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("the runtime cannot start")?;
    let result = runtime.block_on(async {
        match cli.command {
            Command::Up(args) => up::run(args).await,
            Command::Hub(args) => hub::run(*args).await,
            Command::Agent(args) => agent::run(args).await,
            Command::Manager(args) => manager::run(args).await,
            Command::Migrate(args) => migrate::run(args).await,
            Command::Install(args) => install::run(&args),
        }
    });
    // Whatever still runs has had its time.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result
}
