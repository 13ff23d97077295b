//! The numbers of the documentation: `cargo bench`.
//!
//! It starts throwaway servers and real `serve` and `work` processes of the release binary, sends load from outside of
//! them, and prints each scenario beside a floor that was measured in the same run on the same machine: the same work by
//! `pgbench` with one transaction an order, or the same bytes by a bare handler. Machines differ; ratios differ less.
//!
//! `cargo bench -- NAME…` runs only the scenarios whose name contains one of the names. `ROUNDS=9` and `SECONDS=10`
//! measure longer. `--charts` (or `CHARTS=1`) also draws the result to `docs/charts`, and `--charts-from FILE` draws the
//! table of a Markdown file and measures nothing.

#![allow(
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    reason = "measurements are rounded anyway"
)]

#[path = "../../tests/it/servers/mod.rs"]
mod servers;

mod charts;
mod client;
mod floors;
mod report;
mod scenarios;
mod shop;

use std::{fs, path::Path, process::ExitCode};

use report::Table;

/// What to do, from the command line.
#[derive(Default)]
struct Options {
    scenarios: Vec<String>,
    charts: bool,
    charts_from: Option<String>,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [command, address, file] = arguments.as_slice()
        && command == floors::BARE_HANDLER
    {
        floors::serve_bare(address, file);
        return ExitCode::SUCCESS;
    }

    let options = match Options::read(arguments) {
        Ok(options) => options,
        Err(problem) => {
            eprintln!("{problem}");
            return ExitCode::from(2);
        }
    };
    if let Some(file) = &options.charts_from {
        let table = fs::read_to_string(file).unwrap_or_else(|error| panic!("{file}: {error}"));
        write_charts(&table);
        return ExitCode::SUCCESS;
    }

    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let mut table = Table::default();
    runtime
        .expect("a runtime")
        .block_on(scenarios::measure(&options.scenarios, &mut table));
    let table = table.to_markdown();
    println!("\n{table}");
    if options.charts {
        write_charts(&table);
    }

    ExitCode::SUCCESS
}

impl Options {
    fn read(arguments: Vec<String>) -> Result<Self, String> {
        let mut options = Self {
            charts: std::env::var("CHARTS").is_ok_and(|value| value == "1"),
            ..Self::default()
        };

        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                // Added by cargo.
                "--bench" => {}
                "--charts" => options.charts = true,
                "--charts-from" => {
                    let file = arguments.next();
                    options.charts_from = Some(file.ok_or("--charts-from needs a Markdown file")?);
                }
                unknown if unknown.starts_with('-') => return Err(format!("unknown option {unknown}")),
                name => options.scenarios.push(name.to_owned()),
            }
        }

        Ok(options)
    }
}

/// Draws the benchmark's table in `markdown` to `docs/charts`.
fn write_charts(markdown: &str) {
    let rows = charts::rows(markdown);
    assert!(!rows.is_empty(), "there is no table of the benchmark to draw");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/charts");
    fs::create_dir_all(&folder).expect("the folder can be made");

    for (name, svg) in [
        ("throughput.svg", charts::throughput(&rows)),
        ("latency.svg", charts::latency(&rows)),
    ] {
        let file = folder.join(name);
        fs::write(&file, svg).expect("the chart can be written");
        eprintln!("{}", file.display());
    }
}

/// How often each scenario is measured.
fn rounds() -> usize {
    from_environment("ROUNDS", 5)
}

/// How long each measurement of a rate takes.
fn seconds() -> u64 {
    from_environment("SECONDS", 4)
}

fn from_environment<T: std::str::FromStr>(name: &str, default: T) -> T {
    std::env::var(name)
        .ok()
        .and_then(|value| value.parse().ok())
        .unwrap_or(default)
}
