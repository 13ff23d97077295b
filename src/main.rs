//! Parses the command line, starts tracing, runs the command, and turns what went wrong into one sentence and an exit
//! code: 0 for success, 2 for wrong usage or configuration, 1 for any other failure.

use std::process::ExitCode;

use clap::Parser as _;
use shop::{
    cli::{Cli, Failed},
    config::ConfigError,
};
use tokio::runtime::Builder;

fn main() -> ExitCode {
    // Wrong usage ends here, with clap's own words and exit code 2.
    let cli = Cli::parse();
    let outcome = Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(anyhow::Error::from)
        .and_then(|runtime| {
            let outcome = runtime.block_on(cli.run());
            // Whatever still waits, for a name server perhaps, is not waited for.
            runtime.shutdown_background();
            outcome
        });
    shop::telemetry::traces::stop();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // It has said all there is to say.
        Err(error) if error.is::<Failed>() => ExitCode::from(1),
        Err(error) => {
            eprintln!("shop: {}", sentence(&error));
            ExitCode::from(if error.is::<ConfigError>() { 2 } else { 1 })
        }
    }
}

/// The error and its causes. What one has said already, the next one does not say again.
fn sentence(error: &anyhow::Error) -> String {
    error
        .chain()
        .fold(String::new(), |said, cause| match cause.to_string() {
            cause if said.is_empty() => cause,
            cause if said.contains(&cause) => said,
            cause => format!("{said}: {cause}"),
        })
}
