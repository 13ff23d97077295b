//! Parses the command line, starts tracing, runs the command, and turns what went wrong into one sentence and an exit
//! code: 0 for success, 2 for wrong usage or configuration, 1 for any other failure.

use std::process::ExitCode;

use clap::Parser as _;
use shop::{
    cli::{Cli, Failed},
    config::ConfigError,
};

fn main() -> ExitCode {
    // Wrong usage ends here, with clap's own words and exit code 2.
    let cli = Cli::parse();
    let outcome = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| runtime.block_on(cli.run()));
    shop::telemetry::trace::stop();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // It has said all there is to say.
        Err(error) if error.is::<Failed>() => ExitCode::from(1),
        Err(error) => {
            eprintln!("shop: {error:#}");
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}
