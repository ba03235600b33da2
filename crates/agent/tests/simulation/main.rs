//! Agents through months of bad weather, in simulated time.
//!
//! A hub and its clusters are simulated API servers ([`server`], [`api`], [`store`]); their agents are the real ones,
//! with clients that end in those servers. Everything that can happen to them happens, at random ([`schedule`]):
//! servers and networks fail in all ways ([`weather`]), backups are put back, clocks are wrong, users do what users do,
//! and agents die at any await. What has to hold all the while is in [`oracle`]; [`checks`] looks after it.
//!
//! ```text
//!   schedule ──► world ──► hub ◄── link ◄── agent ──► link ──► cluster
//!                  │        └────────── checks ───────────────────┘
//!                  └─ users, backups, garbage collection, readers
//! ```
//!
//! Time is tokio's, paused: it jumps from one timer to the next. A run prints its seed when it fails; the seed is all
//! that the schedule depends on. (Not each interleaving: the agent has jitter of its own.)
//!
//! The ordinary tests are small. The whole:
//!
//! ```sh
//! cargo test --release -p fleetpass-agent --test simulation -- --ignored --nocapture
//! ```
//!
//! It takes more than an hour; `SIMULATION_SIZE=20,20,30,1000` makes it a fleet of 20 clusters with 20 accounts each, 30 days
//! and 1,000 deaths besides those of every schedule.
//!
//! One seed again: `SIMULATION_SEED=7 cargo test -p fleetpass-agent --test simulation one_seed -- --ignored`;
//! with `SIMULATION_TRACE=cluster1` it prints all that the agent of that cluster asks.

mod api;
mod checks;
mod oracle;
mod random;
mod schedule;
mod server;
mod store;
mod token;
mod weather;
mod world;

use checks::{Checks, Figures};
use schedule::Size;
use std::{sync::Arc, time::Duration};

const SMALL: Size = Size {
    clusters: 2,
    accounts: 4,
    days: 1,
    kills: 6,
    agents: true,
    review: Duration::from_secs(900),
    hub_lease: Duration::from_secs(240),
    check: Duration::from_secs(120),
};

const WHOLE: Size = Size {
    clusters: 200,
    accounts: 20,
    days: 30,
    kills: 1_000,
    agents: true,
    review: Duration::from_secs(6 * 3_600),
    hub_lease: Duration::from_secs(1_800),
    check: Duration::from_secs(1_200),
};

fn run(size: Size, seed: u64) -> Arc<Checks> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(world::simulate(size, seed))
}

fn simulate(size: Size, seed: u64) -> Figures {
    let checks = run(size, seed);
    let violations = checks.violations();
    let first = violations[..violations.len().min(3)].join("\n");
    assert!(violations.is_empty(), "seed {seed}, {size:?}: {} violations\n{first}", violations.len());
    checks.report()
}

/// The seed of the environment.
fn seed() -> Option<u64> {
    std::env::var("SIMULATION_SEED").ok().map(|text| text.parse().expect("SIMULATION_SEED is a number"))
}

#[test]
fn agents_keep_their_promise_in_bad_weather() {
    let mut excused = 0;
    for seed in 0..2 {
        let figures = simulate(SMALL, seed);
        excused += figures.excused + figures.refused;
        // The checks had something to check.
        assert!(figures.valid > figures.looks / 2 && figures.deaths > 0, "{figures:?}");
    }
    // And the weather was bad.
    assert!(excused > 0);
}

#[test]
fn an_agent_that_does_nothing_is_found_out() {
    let violations = run(Size { agents: false, ..SMALL }, 0).violations();
    assert!(violations.iter().any(|violation| violation.contains("holds nothing")), "{violations:?}");
}

#[test]
#[ignore = "takes a release build, and minutes"]
#[allow(clippy::print_stderr)]
fn a_fleet_of_200_clusters_through_30_days_and_1000_deaths() {
    let size = match std::env::var("SIMULATION_SIZE") {
        Ok(text) => {
            let numbers: Vec<u64> = text.split(',').map(|part| part.parse().expect("a number")).collect();
            let [clusters, accounts, days, kills] = numbers[..] else {
                panic!("SIMULATION_SIZE is CLUSTERS,ACCOUNTS,DAYS,KILLS")
            };
            let [clusters, accounts, kills] = [clusters, accounts, kills].map(|number| number as usize);
            Size { clusters, accounts, days, kills, ..WHOLE }
        }
        Err(_) => WHOLE,
    };
    eprintln!("{:#?}", simulate(size, seed().unwrap_or(0)));
}

#[test]
#[ignore = "for one seed of SIMULATION_SEED"]
#[allow(clippy::print_stderr)]
fn one_seed() {
    let seed =
        std::env::var("SIMULATION_SEED").expect("SIMULATION_SEED says which").parse().expect("a number");
    eprintln!("{:#?}", simulate(SMALL, seed));
}
