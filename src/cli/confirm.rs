//! The question before a command destroys something: it says what would be lost, and wants `--yes` or a name typed.

use std::{io, time::Duration};

use clap::Args;
use tokio::{task::spawn_blocking, time::timeout};

use super::output::WrongUsage;

/// How long an answer is waited for, from a terminal or a pipe.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub(super) struct Confirmation {
    /// Do it without asking.
    #[arg(long)]
    yes: bool,
}

impl Confirmation {
    /// Returns if the user wants it: by `--yes`, or by typing `name`, the name of what would be destroyed.
    ///
    /// # Errors
    /// [`WrongUsage`], and nothing has been destroyed.
    pub(super) async fn ask(&self, loss: &str, name: &str) -> anyhow::Result<()> {
        if self.yes {
            return Ok(());
        }

        eprintln!("shop: {loss}");
        eprintln!("Type `{name}` to go on, or anything else to leave it as it is:");
        if typed().await.is_some_and(|typed| typed == name) {
            return Ok(());
        }

        let refused = format!("nothing was changed: add --yes, or type `{name}` when asked");
        Err(WrongUsage(refused).into())
    }
}

/// A line from standard input. A program that is started without one answers nothing.
async fn typed() -> Option<String> {
    let read = spawn_blocking(|| {
        let mut line = String::new();
        io::stdin().read_line(&mut line).ok().map(|_| line.trim().to_owned())
    });
    timeout(ANSWER_TIMEOUT, read).await.ok()?.ok()?
}
