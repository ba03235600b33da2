//! The agent of one cluster with many accounts, beside the upstream addon's.

use crate::pace::Pace;
use crate::proc::{cpu_seconds, resident_mb};
use crate::report::{Goal, Section, round};
use anyhow::{Context as _, Result, ensure};
use fleetpass_api::ManagedServiceAccount;
use fleetpass_testkit::rig::{AgentProgram, ControlPlane, Fleet, HubOptions};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::api::{ListParams, PostParams};
use serde_json::json;
use std::time::Duration;
use tokio::time::Instant;

/// How long the last token may take.
const PATIENCE: Duration = Duration::from_secs(600);

struct Measured {
    accounts: usize,
    seconds: f64,
    idle_mb: f64,
    busy_mb: f64,
    cpu_seconds: f64,
}

impl Measured {
    fn rate(&self) -> f64 {
        self.accounts as f64 / self.seconds
    }
}

/// Measures both agents, one after the other, each between a Fleetpass hub and a Fleetpass cluster of its own.
///
/// # Errors
///
/// An agent does not do its work.
pub(crate) async fn measure(pace: &Pace) -> Result<Section> {
    let mut section = Section::new(
        "The agent",
        "Accounts are created on the hub at once; the time is that from the first creation until the hub has a token for the last \
         one. Hub and cluster are Fleetpass for both agents, and share the two cores with them. The upstream agent gets fewer \
         accounts, because its rate is the same for any number.",
        &["agent", "accounts", "seconds", "accounts/s", "idle MB", "KB per account", "CPU ms per account"],
    );
    let ours = run(AgentProgram::Fleetpass, pace.count(1_000, 20), pace).await?;
    let theirs = run(AgentProgram::Upstream, pace.count(100, 5), pace).await?;
    for (name, one) in [("fleetpass agent", &ours), ("upstream addon", &theirs)] {
        section.row([
            name.into(),
            one.accounts.into(),
            one.seconds.into(),
            one.rate().into(),
            one.idle_mb.into(),
            (1e3 * (one.busy_mb - one.idle_mb) / one.accounts as f64).into(),
            (1e3 * one.cpu_seconds / one.accounts as f64).into(),
        ]);
    }
    let detail = format!("{}/s to {}/s", round(ours.rate()), round(theirs.rate()));
    let ratio = ours.rate() / theirs.rate();
    section.goals.push(Goal::ratio("1,000 accounts to tokens", "the upstream agent", 50.0, ratio, &detail));
    let detail = format!("upstream agent: {} MB", round(theirs.idle_mb));
    section.goals.push(Goal::at_most("idle agent, resident", 15.0, ours.idle_mb, "MB", &detail));
    Ok(section)
}

async fn run(program: AgentProgram, accounts: usize, pace: &Pace) -> Result<Measured> {
    let hub = ControlPlane::fleetpass(&HubOptions::default()).await?;
    let cluster = ControlPlane::fleetpass(&HubOptions::default()).await?;
    let fleet = Fleet::start(program, hub, cluster).await?;
    // One account shows that it works; then it has nothing to do.
    fleet.create("first", &json!({"rotation": {}})).await?;
    fleet.served("first", None).await?;
    tokio::time::sleep(pace.span(10.0)).await;
    let process = [fleet.agent.process().context("the agent has ended")?];
    let (idle_mb, before) = (resident_mb(&process)?, cpu_seconds(&process)?);
    let began = Instant::now();
    create(&fleet, accounts).await?;
    while served(&fleet).await? < accounts + 1 {
        ensure!(began.elapsed() < PATIENCE, "tokens are missing:\n{}", fleet.agent.last_lines());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    // One that crashed and was started again would have been measured as another.
    let same = fleet.agent.process() == Some(process[0]);
    ensure!(same, "the agent was started again:\n{}", fleet.agent.last_lines());
    let (busy_mb, cpu) = (resident_mb(&process)?, cpu_seconds(&process)?);
    Ok(Measured { accounts, seconds, idle_mb, busy_mb, cpu_seconds: cpu - before })
}

async fn create(fleet: &Fleet, count: usize) -> Result<()> {
    let api = fleet.accounts();
    futures::stream::iter(0..count)
        .map(|number| {
            let api = api.clone();
            async move {
                let account: ManagedServiceAccount = serde_json::from_value(json!({
                    "metadata": {"name": format!("account-{number}")}, "spec": {"rotation": {}}}))?;
                api.create(&PostParams::default(), &account).await?;
                anyhow::Ok(())
            }
        })
        .buffer_unordered(16)
        .try_collect()
        .await
}

/// How many accounts have a token on the hub.
async fn served(fleet: &Fleet) -> Result<usize> {
    let list = fleet.accounts().list(&ListParams::default()).await?;
    let has_token = |account: &ManagedServiceAccount| {
        account.status.as_ref().is_some_and(|status| status.token_secret_ref.is_some())
    };
    Ok(list.items.iter().filter(|account| has_token(account)).count())
}
