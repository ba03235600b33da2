//! The commands of the `fleetpass` program: the imperative shell around the libraries.
//!
//! ```text
//!  arguments ─► args::Cli ─► run
//!                             │
//!    ┌──────────┬─────────────┼─────────┬───────────┬───────────┐
//!    up        hub          agent    manager     migrate     install
//!    │ ╲        │             │         │           │           │
//!    │  ╲    Settings      clients: kubeconfigs     │         YAML on standard output
//!    │   ╲      │             │         │           │
//!    │    control_plane       └────┬────┘           │
//!    │     ├─ operator_files    transport           │
//!    │     ├─ storage ────────── proxy ─────────────┤
//!    │     ├─ credentials, pki     │                │
//!    │     └─ server               │                │
//!    │         │                   │                │
//!    ▼         ▼                   ▼                ▼
//!  agents   apiserver,          agent, hub        store
//!           controllers, hub
//! ```
//!
//! `up` is a hub, clusters and their agents in one process: the same control planes and agents as those of the other
//! commands, and in addition it joins them and proves their tokens (`proof`).
//!
//! Here is what the libraries must not have: files and their rights, signals, environment variables, the terminal, the
//! system's clock. Errors are `anyhow`'s; each names the file or flag and says what to do, and [`one_line`] prints it.
//!
//! # What it does not do
//! - It decides nothing about tokens, objects or accounts: those rules are in the libraries.
//! - It rotates no signing keys and no encryption keys. Certificates that it made are renewed; files that the operator
//!   gave are only read.
//! - It changes no cluster but those that it starts itself: `install` prints, and applies nothing.
//! - It does not become a daemon, and writes no log files but the audit log: that is for systemd or a kubelet.

mod agent;
mod args;
mod authn;
mod clients;
mod console;
mod control_plane;
mod credentials;
mod endpoints;
mod files;
mod hub;
mod install;
mod keep;
mod kubeconfig;
mod logging;
mod manager;
mod migrate;
mod net;
mod open_files;
mod operator_files;
mod pki;
mod process_metrics;
mod proof;
mod proxy;
mod renewal;
mod report;
mod server;
mod settings;
mod signals;
mod storage;
pub mod transport;
mod up;

pub use args::Cli;
pub use report::one_line;

use anyhow::Context as _;
use args::Command;
use logging::Verbosity;

/// Runs a command to its end.
///
/// # Errors
///
/// What [`one_line`] then tells.
pub fn run(cli: Cli) -> anyhow::Result<()> {
    // Commands that talk to a person say what happens themselves: there only what goes wrong is logged.
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
