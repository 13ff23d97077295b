//! What the process uses of the machine, under the names that all Prometheus clients give it. Read from `/proc` whenever it
//! is asked for; without one, as on macOS, there is nothing.

use std::{fmt::Write as _, fs};

use rlimit::Resource;

/// Clock ticks in a second as `/proc` counts them: the same on every architecture that Rust's standard library is made for.
const TICKS_PER_SECOND: f64 = 100.0;

const CPU_SECONDS: &str = "process_cpu_seconds_total";
const RESIDENT_MEMORY: &str = "process_resident_memory_bytes";
const OPEN_FDS: &str = "process_open_fds";
const MAX_FDS: &str = "process_max_fds";
const START_TIME: &str = "process_start_time_seconds";
const THREADS: &str = "process_threads";

/// What `/proc/self/stat` and `/proc/self/status` say.
#[derive(Debug, PartialEq)]
struct Usage {
    cpu_seconds: f64,
    threads: f64,
    /// Since the machine was started.
    started_seconds: f64,
    resident_bytes: f64,
}

/// The metrics as text.
pub(super) fn text() -> String {
    let mut text = String::new();
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();

    if let Some(usage) = Usage::parse(&stat, &status) {
        let help = "User and system CPU time spent, in seconds.";
        write_metric(&mut text, CPU_SECONDS, "counter", help, usage.cpu_seconds);
        let help = "Memory that is in RAM, in bytes.";
        write_metric(&mut text, RESIDENT_MEMORY, "gauge", help, usage.resident_bytes);
        write_metric(&mut text, THREADS, "gauge", "Threads.", usage.threads);
        if let Some(boot) = boot_time() {
            let help = "Start of the process, in seconds since the Unix epoch.";
            write_metric(&mut text, START_TIME, "gauge", help, boot + usage.started_seconds);
        }
    }
    if let Some(open) = open_fds() {
        write_metric(&mut text, OPEN_FDS, "gauge", "Open file descriptors.", open);
    }
    if let Ok((max, _)) = Resource::NOFILE.get() {
        let help = "The most file descriptors that may be open.";
        write_metric(&mut text, MAX_FDS, "gauge", help, as_float(max));
    }
    text
}

impl Usage {
    /// See `proc_pid_stat(5)`. The fields are counted from behind the name of the program, which stands in parentheses and may
    /// hold spaces and parentheses itself.
    fn parse(stat: &str, status: &str) -> Option<Self> {
        const USER_TIME: usize = 11;
        const SYSTEM_TIME: usize = 12;
        const THREADS: usize = 17;
        const START_TIME: usize = 19;

        let (_, fields) = stat.rsplit_once(')')?;
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kibibytes: f64 = resident.trim().strip_suffix("kB")?.trim_end().parse().ok()?;

        Some(Self {
            cpu_seconds: (field(USER_TIME)? + field(SYSTEM_TIME)?) / TICKS_PER_SECOND,
            threads: field(THREADS)?,
            started_seconds: field(START_TIME)? / TICKS_PER_SECOND,
            resident_bytes: kibibytes * 1024.0,
        })
    }
}

/// When the machine was started, in seconds since the Unix epoch.
fn boot_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/stat").ok()?;
    let boot = stat.lines().find_map(|line| line.strip_prefix("btime "))?;
    boot.trim().parse().ok()
}

/// Without the one that reads the list.
fn open_fds() -> Option<f64> {
    let open = fs::read_dir("/proc/self/fd").ok()?.count();
    Some(as_float(open.saturating_sub(1) as u64))
}

#[expect(clippy::cast_precision_loss, reason = "a metric")]
fn as_float(count: u64) -> f64 {
    count as f64
}

fn write_metric(text: &mut String, name: &str, kind: &str, help: &str, value: f64) {
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_may_have_any_name() {
        let stat = "4711 (a ) b) (c) S 1 2 3 0 -1 4194560 9 0 0 0 250 150 0 0 20 0 7 0 12345 1 2 3";
        let status = "Name:\tshop\nVmHWM:\t   99 kB\nVmRSS:\t   2048 kB\nThreads:\t7\n";
        let usage = Usage {
            cpu_seconds: 4.0,
            threads: 7.0,
            started_seconds: 123.45,
            resident_bytes: 2_097_152.0,
        };
        assert_eq!(Usage::parse(stat, status), Some(usage));
        assert_eq!(Usage::parse("", ""), None);
    }
}
