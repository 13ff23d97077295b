//! A Prometheus that evaluates alerts a hundred times as fast as in operation: what takes five minutes there takes three
//! seconds here.

use std::{fmt::Write as _, fs, path::PathBuf};

use serde_json::{Value, json};

use super::{
    process::{PortTaken, Process, on_a_free_port},
    redis::request,
    run::{command, program, run},
};

/// How much faster time goes.
const FASTER: u64 = 100;
const MILLISECONDS_IN_A_MINUTE: u64 = 60_000;
const CONFIG: &str = "
global: { scrape_interval: 500ms, scrape_timeout: 500ms, evaluation_interval: 250ms }
rule_files: [rules.yml]
scrape_configs:
  - job_name: shop
    file_sd_configs: [{ files: [targets.json], refresh_interval: 1s }]
";

pub struct Prometheus {
    port: u16,
    targets: PathBuf,
    _process: Process,
}

impl Prometheus {
    /// With rules whose durations are in minutes.
    pub fn start(rules: &str) -> Self {
        on_a_free_port(|port| Self::start_on(port, rules))
    }

    /// Address and port.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Scrapes these from now on: jobs, and where their processes answer.
    pub fn scrape(&self, targets: &[(&str, String)]) {
        let group = |(job, address): &(&str, String)| json!({ "targets": [address], "labels": { "job": job } });
        let groups: Vec<Value> = targets.iter().map(group).collect();

        // Renamed, so that it is never read half written.
        let written = self.targets.with_extension("new");
        fs::write(&written, json!(groups).to_string()).expect("the folder is ours");
        fs::rename(&written, &self.targets).expect("the folder is ours");
    }

    fn start_on(port: u16, rules: &str) -> Result<Self, PortTaken> {
        let server = program("prometheus", "prometheus", &[]);
        let (name, folder) = run().new_folder("prometheus");
        let targets = folder.join("targets.json");
        for (file, text) in [
            ("prometheus.yml", CONFIG),
            ("rules.yml", &faster(rules)),
            ("targets.json", "[]"),
        ] {
            fs::write(folder.join(file), text).expect("the folder is ours");
        }

        let mut command = command(&server, &folder);
        command
            .arg(format!("--config.file={}", folder.join("prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--log.level=warn");
        let process = Process::start(name, command, "TERM", move || {
            request(port, b"GET /-/ready HTTP/1.0\r\n\r\n", 12).is_some_and(|answer| answer == b"HTTP/1.0 200")
        })?;
        Ok(Self {
            port,
            targets,
            _process: process,
        })
    }
}

/// The same rules with shorter durations, in ranges such as `[5m]` and in `for: 5m`, and shorter numbers of seconds in
/// comparisons with `time()`.
fn faster(rules: &str) -> String {
    let mut text = String::new();
    for line in rules.lines() {
        let mut rest = line.to_owned();
        if let Some((before, minutes)) = line.split_once("for: ")
            && let Some(minutes) = minutes.strip_suffix('m')
        {
            rest = format!("{before}for: {}", milliseconds(minutes));
        }
        for range in line.split('[').skip(1) {
            if let Some((minutes, _)) = range.split_once("m]") {
                rest = rest.replace(&format!("[{minutes}m]"), &format!("[{}]", milliseconds(minutes)));
            }
        }
        if let Some((_, seconds)) = line.split_once("time() - ") {
            let limit = seconds.split("> ").nth(1).and_then(|limit| limit.split(' ').next());
            let limit: u64 = limit.expect("a limit").parse().expect("seconds");
            rest = rest.replacen(&format!("> {limit}"), &format!("> {}", limit / FASTER), 1);
        }
        let _ = writeln!(text, "{rest}");
    }
    text
}

fn milliseconds(minutes: &str) -> String {
    let minutes: u64 = minutes.parse().expect("whole minutes");
    format!("{}ms", minutes * MILLISECONDS_IN_A_MINUTE / FASTER)
}
