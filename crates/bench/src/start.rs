//! From exec to ready, memory of a server that has nothing to do, size on disk.

use crate::load::Client;
use crate::pace::Pace;
use crate::proc::resident_mb;
use crate::report::{Goal, Section, round};
use anyhow::{Context as _, Result, ensure};
use fleetpass_testkit::rig::{Endpoint, Process, RealCluster, program};
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use tokio::time::Instant;

/// Measures a hub, and Kubernetes beside it.
///
/// # Errors
///
/// One does not start.
pub(crate) async fn measure(pace: &Pace) -> Result<Section> {
    let mut section = Section::new(
        "Start and size",
        "From exec to the first 200 of /readyz over TLS, median; a first start makes certificates and keys, a second one finds \
         them and opens the store. kube-apiserver is started on an etcd that runs already. Memory is what is resident some \
         seconds after, with nothing to do.",
        &["program", "first start, ms", "second start, ms", "resident MB", "binary MB"],
    );
    let idle = pace.span(10.0);
    let (mut first, mut second, mut resident) = (Vec::new(), Vec::new(), 0.0);
    for _ in 0..pace.count(9, 1) {
        let folder = tempfile::tempdir()?;
        first.push(hub(folder.path(), Duration::ZERO).await?.0);
        let (took, mb) = hub(folder.path(), if second.is_empty() { idle } else { Duration::ZERO }).await?;
        resident = if second.is_empty() { mb } else { resident };
        second.push(took);
    }
    let (first, second) = (median(&mut first), median(&mut second));
    section.row([
        "fleetpass hub".into(),
        first.into(),
        second.into(),
        resident.into(),
        size_mb("fleetpass")?.into(),
    ]);
    let (theirs, their_mb) = kubernetes(idle).await?;
    let size = size_mb("kube-apiserver")? + size_mb("etcd")?;
    section.row(["kube-apiserver + etcd".into(), theirs.into(), "".into(), their_mb.into(), size.into()]);
    let detail = format!("kube-apiserver + etcd: {} MB", round(their_mb));
    section.goals.push(Goal::at_most("idle hub, resident", 30.0, resident, "MB", &detail));
    let detail = format!("first start: {} ms; kube-apiserver: {} ms", round(first), round(theirs));
    section.goals.push(Goal::at_most("exec to ready", 150.0, second, "ms", &detail));
    Ok(section)
}

/// Starts a hub in a folder and stops it: milliseconds until it is ready, and what is resident after `idle`.
async fn hub(folder: &Path, idle: Duration) -> Result<(f64, f64)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let data = folder.join("data");
    let arguments =
        ["hub".to_owned(), format!("--data-dir={}", data.display()), format!("--secure-port={port}")];
    let began = Instant::now();
    let process =
        Process::start("fleetpass hub", &program("fleetpass")?, &arguments, &[], &folder.join("log"))?;
    let authority = data.join("pki/ca.crt");
    loop {
        ensure!(began.elapsed() < Duration::from_secs(30), "no hub:\n{}", process.last_lines());
        if let Ok(ca_pem) = std::fs::read_to_string(&authority)
            && let Ok(client) = Client::new(&Endpoint { port, ca_pem })
            && client.is_ready().await
        {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let took = began.elapsed().as_secs_f64() * 1e3;
    tokio::time::sleep(idle).await;
    let resident = resident_mb(&[process.id().context("the hub has ended")?])?;
    process.stop(Duration::from_secs(10)).await?;
    Ok((took, resident))
}

/// Milliseconds until a kube-apiserver is ready, and what it and its etcd have resident after `idle`.
async fn kubernetes(idle: Duration) -> Result<(f64, f64)> {
    let mut cluster = RealCluster::start().await?;
    cluster.halt().await?;
    let began = Instant::now();
    cluster.resume().await?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    tokio::time::sleep(idle).await;
    Ok((took, resident_mb(&cluster.processes())?))
}

fn size_mb(name: &str) -> Result<f64> {
    Ok(std::fs::metadata(program(name)?)?.len() as f64 / 1e6)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}
