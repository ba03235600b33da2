//! What processes cost, and what machine this is (Linux: `/proc`).

use anyhow::{Context as _, Result};
use std::fs::read_to_string;

/// The clock ticks of `/proc/PID/stat` in a second (`USER_HZ`; 100 on every Linux of ours).
const TICKS: f64 = 100.0;

/// The processor seconds that these processes have used.
///
/// # Errors
///
/// One of them has ended.
pub(crate) fn cpu_seconds(processes: &[u32]) -> Result<f64> {
    let mut ticks = 0;
    for process in processes {
        let path = format!("/proc/{process}/stat");
        let stat = read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        ticks += stat_ticks(&stat).with_context(|| format!("{path} has no times"))?;
    }
    Ok(ticks as f64 / TICKS)
}

/// User and system time of a line of `/proc/PID/stat`; the name in it may have blanks and parentheses.
fn stat_ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// The resident memory of these processes, in MB (10^6 bytes).
///
/// # Errors
///
/// One of them has ended.
pub(crate) fn resident_mb(processes: &[u32]) -> Result<f64> {
    let mut kib = 0;
    for process in processes {
        let path = format!("/proc/{process}/status");
        let status = read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        kib += field(&status, "VmRSS:").with_context(|| format!("{path} has no VmRSS"))?;
    }
    Ok(kib as f64 * 1024.0 / 1e6)
}

fn field(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The machine in a line: processor, cores, memory, kernel.
pub(crate) fn machine() -> String {
    let text = |path: &str| read_to_string(path).unwrap_or_default();
    let cpus = text("/proc/cpuinfo");
    let model = cpus
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let memory = field(&text("/proc/meminfo"), "MemTotal:").unwrap_or_default() as f64 / (1 << 20) as f64;
    let kernel = text("/proc/sys/kernel/osrelease");
    format!("{model}, {cores} cores, {memory:.0} GiB, Linux {}", kernel.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_behind_the_name() {
        let stat = "7 (a (b) c) S 1 7 7 0 -1 4194560 9 0 0 0 250 50 0 0 20 0 4 0 100 1 2";
        assert_eq!(stat_ticks(stat), Some(300));
        assert_eq!(stat_ticks("7 (a"), None);
        assert_eq!(field("Name:\tx\nVmRSS:\t  1024 kB\n", "VmRSS:"), Some(1024));
        let own = [std::process::id()];
        assert!(resident_mb(&own).is_ok_and(|mb| mb > 1.0) && cpu_seconds(&own).is_ok());
    }
}
