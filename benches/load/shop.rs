//! The `shop` binary, as users run it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
};

use crate::servers::run::run;

/// The back ends of all processes of one scenario.
#[derive(Clone)]
pub struct Backend {
    pub database_url: String,
    pub queue_url: String,
    pub cache_url: String,
    pub prefix: String,
}

/// A running `serve` or `work`; killed when dropped.
pub struct Process {
    child: Child,
    /// Where `serve` answers; empty for `work`.
    pub address: String,
}

impl Process {
    pub fn serve(backend: &Backend) -> Self {
        Self::serve_by(&this_build(), backend)
    }

    pub fn work(backend: &Backend) -> Self {
        Self::work_by(&this_build(), backend)
    }

    pub fn serve_by(binary: &Path, backend: &Backend) -> Self {
        Self::start(binary, backend, "serve", "serving")
    }

    pub fn work_by(binary: &Path, backend: &Backend) -> Self {
        Self::start(binary, backend, "work", "working")
    }

    fn start(binary: &Path, backend: &Backend, role: &str, ready_message: &str) -> Self {
        let mut command = command(binary, backend, &[role]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = run().spawn(&mut command);
        let mut lines = BufReader::new(child.stderr.take().expect("piped"))
            .lines()
            .map_while(Result::ok);
        let mut log = Vec::new();

        let address = lines.by_ref().find_map(|line| {
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            log.push(line);
            let ready = parsed["message"] == ready_message;
            ready.then(|| parsed["address"].as_str().unwrap_or_default().to_owned())
        });

        thread::spawn(move || lines.for_each(drop));
        let address = address.unwrap_or_else(|| panic!("{role} does not start:\n{}", log.join("\n")));
        Self { child, address }
    }

    /// Resident memory, in bytes.
    pub fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kilobytes = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kilobytes.unwrap_or(0) * 1024
    }

    /// CPU time used so far, in seconds.
    pub fn cpu(&self) -> f64 {
        cpu_of(self.child.id())
    }
}

/// In seconds, from `/proc/PID/stat`, whose unit is a hundredth of a second on every usual Linux.
pub fn cpu_of(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .map_or("", |(_, rest)| rest)
        .split_whitespace()
        .collect();
    let ticks = |index: usize| {
        fields
            .get(index)
            .and_then(|field| field.parse::<f64>().ok())
            .unwrap_or(0.0)
    };
    (ticks(11) + ticks(12)) / 100.0
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        run().unregister(&self.child);
    }
}

/// The binary that was built with the bench.
pub fn this_build() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_shop"))
}

/// Runs a command that ends by itself.
pub fn run_to_end(backend: &Backend, arguments: &[&str]) {
    run_to_end_by(&this_build(), backend, arguments);
}

pub fn run_to_end_by(binary: &Path, backend: &Backend, arguments: &[&str]) {
    let output = command(binary, backend, arguments).output().expect("it can be run");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn command(binary: &Path, backend: &Backend, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary);
    let own = std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SHOP_"));
    for (key, _) in own.filter(|(key, _)| !key.to_string_lossy().starts_with("SHOP_BATCH")) {
        command.env_remove(key);
    }

    command
        .args(arguments)
        .envs([
            ("SHOP_DATABASE_URL", backend.database_url.as_str()),
            ("SHOP_QUEUE_URL", &backend.queue_url),
            ("SHOP_CACHE_URL", &backend.cache_url),
            ("SHOP_QUEUE_PREFIX", &backend.prefix),
            ("SHOP_CACHE_PREFIX", &backend.prefix),
            ("SHOP_BIND", "127.0.0.1:0"),
            ("SHOP_MANAGEMENT_BIND", "off"),
            ("SHOP_LOG_FORMAT", "json"),
        ])
        .stdin(Stdio::null());
    command
}
