//! What a scraper wants to know of any process, by the names that Prometheus' own libraries use, and which program it is.

use std::fmt::Write as _;

/// What the kernel counts in: 100 a second on every architecture of Linux (`USER_HZ`).
const TICKS: f64 = 100.0;

/// What `/proc` says of this process.
struct Process {
    cpu_seconds: f64,
    start_seconds: f64,
    resident_bytes: u64,
    virtual_bytes: u64,
    open_files: usize,
}

impl Process {
    /// Reads it; `None` where there is no such `/proc`.
    fn read() -> Option<Self> {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        let open_files = std::fs::read_dir("/proc/self/fd").ok()?.count();
        Self::parse(&read("/proc/self/stat")?, &read("/proc/self/status")?, &read("/proc/stat")?, open_files)
    }

    /// `proc_pid_stat(5)`, `proc_pid_status(5)` and `proc_stat(5)`.
    fn parse(stat: &str, status: &str, system: &str, open_files: usize) -> Option<Self> {
        // The name of the program may contain anything; what follows its last parenthesis is numbered from the third field.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let ticks = |field: usize| Some(fields.get(field - 3)?.parse::<f64>().ok()? / TICKS);
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            Some(line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()? * 1_024)
        };
        let boot = system.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse::<f64>().ok()?;
        Some(Self {
            cpu_seconds: ticks(14)? + ticks(15)?,
            start_seconds: boot + ticks(22)?,
            resident_bytes: kilobytes("VmRSS:")?,
            virtual_bytes: kilobytes("VmSize:")?,
            open_files,
        })
    }
}

/// `metrics`, which is OpenMetrics text, with those of the process; `labels` are put on them, as `{a="b"}` has them inside.
pub(crate) fn with_process(metrics: &str, labels: &str) -> String {
    let mut text = metrics.strip_suffix("# EOF\n").unwrap_or(metrics).to_owned();
    text.push_str(&describe(Process::read().as_ref(), labels));
    text.push_str("# EOF\n");
    text
}

fn describe(process: Option<&Process>, labels: &str) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let comma = if labels.is_empty() { "" } else { "," };
    let mut text = format!(
        "# HELP fleetpass_build Which program this is.\n# TYPE fleetpass_build info\n\
         fleetpass_build_info{{{labels}{comma}version=\"{version}\"}} 1\n"
    );
    let Some(process) = process else { return text };
    let braces = if labels.is_empty() { String::new() } else { format!("{{{labels}}}") };
    let mut add = |name: &str, kind: &str, help: &str, value: String| {
        let suffix = if kind == "counter" { "_total" } else { "" };
        // Writing to a String does not fail.
        let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name}{suffix}{braces} {value}");
    };
    let Process { cpu_seconds, start_seconds, resident_bytes, virtual_bytes, open_files } = process;
    add(
        "process_cpu_seconds",
        "counter",
        "Time of processors that the process used.",
        format!("{cpu_seconds:.2}"),
    );
    add(
        "process_start_time_seconds",
        "gauge",
        "When the process started, since 1970.",
        format!("{start_seconds:.2}"),
    );
    add("process_resident_memory_bytes", "gauge", "Memory that is resident.", resident_bytes.to_string());
    add("process_virtual_memory_bytes", "gauge", "Memory that is mapped.", virtual_bytes.to_string());
    add("process_open_fds", "gauge", "Open file descriptors.", open_files.to_string());
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_says() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 250 150 0 0 20 0 5 0 1000 9 9";
        let status = "Name:\ta\nVmSize:\t    2000 kB\nVmRSS:\t     100 kB\n";
        let process = Process::parse(stat, status, "cpu 1\nbtime 1800000000\n", 12).unwrap();
        let text = describe(Some(&process), "cluster=\"c\"");
        for line in [
            "process_cpu_seconds_total{cluster=\"c\"} 4.00",
            "process_start_time_seconds{cluster=\"c\"} 1800000010.00",
            "process_resident_memory_bytes{cluster=\"c\"} 102400",
            "process_open_fds{cluster=\"c\"} 12",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}: {text}");
        }
        assert!(text.contains("fleetpass_build_info{cluster=\"c\",version=\""), "{text}");
        assert!(Process::parse("", status, "", 0).is_none());
    }

    #[test]
    fn comes_before_the_end() {
        let text = with_process("# TYPE a gauge\na 1\n# EOF\n", "");
        assert!(
            text.starts_with("# TYPE a gauge\na 1\n# HELP fleetpass_build ") && text.ends_with("# EOF\n")
        );
        assert_eq!(text.matches("# EOF").count(), 1);
    }
}
