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
//! One seed again: `SIMULATION_SEED=7 cargo test -p fleetpass-agent --test simulation one_seed -- --ignored`.

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

use checks::Figures;
use schedule::Size;
use std::time::Duration;

const SMALL: Size = Size {
    clusters: 3,
    accounts: 5,
    days: 2,
    kills: 10,
    review: Duration::from_secs(600),
    check: Duration::from_secs(20),
};

fn simulate(size: Size, seed: u64) -> Figures {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let checks = runtime.block_on(world::simulate(size, seed));
    let violations = checks.violations();
    assert!(violations.is_empty(), "seed {seed}, {size:?}\n{}", violations.join("\n"));
    checks.report()
}

#[test]
fn agents_keep_their_promise_in_bad_weather() {
    let mut excused = 0;
    for seed in 0..4 {
        let figures = simulate(SMALL, seed);
        excused += figures.excused + figures.refused;
        // The checks had something to check.
        assert!(figures.valid > figures.looks / 2 && figures.deaths > 0, "{figures:?}");
    }
    // And the weather was bad.
    assert!(excused > 0);
}

#[test]
#[ignore = "for one seed of SIMULATION_SEED"]
#[allow(clippy::print_stderr)]
fn one_seed() {
    let seed =
        std::env::var("SIMULATION_SEED").expect("SIMULATION_SEED says which").parse().expect("a number");
    eprintln!("{:#?}", simulate(SMALL, seed));
}
