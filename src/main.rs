//! Parses the command line, runs the command, and turns an error into one sentence and an exit code: 0 for success, 2 for
//! wrong usage or configuration, 1 for any other failure.

use std::process::ExitCode;

use clap::Parser as _;
use sea_orm::DbErr;
use shop::{
    cli::{Cli, Failed, WrongUsage},
    config::ConfigError,
    db, telemetry,
};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    // On wrong usage, clap prints what is wrong and exits with code 2.
    let cli = Cli::parse();

    let outcome = run(cli);
    telemetry::traces::stop();

    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // The command has printed what is wrong.
        Err(error) if error.is::<Failed>() => ExitCode::from(1),
        Err(error) => {
            eprintln!("shop: {}", sentence(&error));
            let is_usage = error.is::<ConfigError>() || error.is::<WrongUsage>();
            ExitCode::from(if is_usage { 2 } else { 1 })
        }
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    let runtime = Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(cli.run());
    // Does not wait for blocking tasks that are left, such as a slow name lookup.
    runtime.shutdown_background();
    outcome
}

/// The error and its causes, without causes whose text stands there already.
fn sentence(error: &anyhow::Error) -> String {
    let mut sentence = String::new();
    for cause in error.chain() {
        // It says what its own causes are.
        let of_database = cause.downcast_ref::<DbErr>().map(db::describe);
        let is_last = of_database.is_some();

        let cause = of_database.unwrap_or_else(|| cause.to_string());
        if sentence.is_empty() {
            sentence = cause;
        } else if !sentence.contains(&cause) {
            sentence = format!("{sentence}: {cause}");
        }
        if is_last {
            break;
        }
    }
    sentence
}
