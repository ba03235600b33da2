//! Measures Fleetpass beside real Kubernetes, real etcd and the upstream addon: `cargo xtask bench` builds all of them and
//! runs this. What it finds is printed, and written to a folder as JSON, Markdown and SVG.
#![allow(clippy::print_stdout)] // It talks to a developer, not to a log.
#![allow(clippy::disallowed_methods)] // It measures time.

mod agents;
mod api;
mod attacks;
mod fleet;
mod load;
mod pace;
mod plot;
mod proc;
mod report;
mod servers;
mod start;
mod store;
mod tokens;
mod watchers;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use pace::Pace;
use report::{Report, Section};
use std::path::PathBuf;

#[derive(Debug, Parser)]
#[command(name = "fleetpass-bench", about = "How fast and how small Fleetpass is, beside others")]
struct Arguments {
    /// What to measure; all if nothing is named
    parts: Vec<Part>,
    /// Only see that everything works: no figure means anything
    #[arg(long)]
    quick: bool,
    /// The folder for the results
    #[arg(long, value_name = "DIR", default_value = "target/bench")]
    output: PathBuf,
}

/// A part of the measuring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// TokenRequest
    Tokens,
    /// TokenReview, get, list, create, watch
    Api,
    /// The engines of the store
    Store,
    /// Agents of one cluster
    Agents,
    /// A hub with many clusters
    Fleet,
    /// From exec to ready, memory, size
    Start,
    /// An honest agent while others attack
    Attacks,
}

impl Part {
    async fn measure(self, pace: &Pace) -> Result<Section> {
        match self {
            Self::Tokens => tokens::measure(pace).await,
            Self::Api => api::measure(pace).await,
            Self::Store => store::measure(pace).await,
            Self::Agents => agents::measure(pace).await,
            Self::Fleet => fleet::measure(pace).await,
            Self::Start => start::measure(pace).await,
            Self::Attacks => attacks::measure(pace).await,
        }
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let pace = Pace { quick: arguments.quick };
    let parts = if arguments.parts.is_empty() { Part::value_variants().to_vec() } else { arguments.parts };
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let mut report = Report { date, machine: proc::machine(), quick: arguments.quick, sections: Vec::new() };
    for part in parts {
        let section = part.measure(&pace).await?;
        println!("{}", section.markdown());
        report.sections.push(section);
        // After each part, so that a part that fails takes nothing with it.
        report.write(&arguments.output)?;
    }
    println!("The results are in {}", arguments.output.display());
    Ok(())
}
