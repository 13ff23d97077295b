//! The release binary, as its users run it.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
};

use crate::servers::run::run;

/// Where everything is, for every process of one bench.
#[derive(Clone)]
pub struct Place {
    pub database_url: String,
    pub queue_url: String,
    pub cache_url: String,
    pub prefix: String,
}

/// A running `serve` or `work`; killed when dropped.
pub struct Process {
    child: Child,
    /// Of the API.
    pub address: String,
}

impl Process {
    pub fn serve(place: &Place) -> Self {
        Self::start(place, "serve", "serving")
    }

    pub fn work(place: &Place) -> Self {
        Self::start(place, "work", "working")
    }

    fn start(place: &Place, role: &str, said_when_ready: &str) -> Self {
        let mut command = command(place, &[role]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = run().spawn(&mut command);
        let mut lines = BufReader::new(child.stderr.take().expect("piped"))
            .lines()
            .map_while(Result::ok);
        let mut said = Vec::new();
        let address = lines.by_ref().find_map(|line| {
            let parsed: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
            said.push(line);
            let ready = parsed["message"] == said_when_ready;
            ready.then(|| parsed["address"].as_str().unwrap_or_default().to_owned())
        });
        thread::spawn(move || lines.for_each(drop));
        let address = address.unwrap_or_else(|| panic!("{role} does not start:\n{}", said.join("\n")));
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

/// From `/proc/PID/stat`, at the usual hundred ticks a second.
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

/// Runs a command that ends by itself.
pub fn run_to_end(place: &Place, arguments: &[&str]) {
    let output = command(place, arguments).output().expect("it can be run");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_shop")));
    let own = std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with("SHOP_"));
    for (key, _) in own.filter(|(key, _)| !key.to_string_lossy().starts_with("SHOP_BATCH")) {
        command.env_remove(key);
    }
    command
        .args(arguments)
        .envs([
            ("SHOP_DATABASE_URL", place.database_url.as_str()),
            ("SHOP_QUEUE_URL", &place.queue_url),
            ("SHOP_CACHE_URL", &place.cache_url),
            ("SHOP_QUEUE_PREFIX", &place.prefix),
            ("SHOP_CACHE_PREFIX", &place.prefix),
            ("SHOP_BIND", "127.0.0.1:0"),
            ("SHOP_MANAGEMENT_BIND", "off"),
            ("SHOP_LOG_FORMAT", "json"),
        ])
        .stdin(Stdio::null());
    command
}
