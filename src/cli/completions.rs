//! `shop completions` and `shop man`: what a shell and `man` need to know of the commands, made from the commands
//! themselves.

use std::io::{Write as _, stdout};

use anyhow::Context as _;
use clap::{Args, Command};
use clap_complete::Shell;

use super::output::WrongUsage;

#[derive(Debug, Args)]
pub(super) struct Completions {
    /// The shell to print completions for.
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(super) fn run(&self, mut command: Command) -> anyhow::Result<()> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut command, "shop", &mut script);
        print(&script)
    }
}

#[derive(Debug, Args)]
pub(super) struct Man {
    /// The command to print the page of; without one, the page of `shop` itself.
    command: Option<String>,
}

impl Man {
    pub(super) fn run(&self, mut program: Command) -> anyhow::Result<()> {
        // Gives the commands the flags that they inherit.
        program.build();

        let page = match &self.command {
            None => program,
            Some(name) => {
                let command = program.find_subcommand(name).cloned();
                command.ok_or_else(|| WrongUsage(format!("there is no command `{name}`")))?
            }
        };

        let mut text = Vec::new();
        clap_mangen::Man::new(page).render(&mut text)?;
        print(&text)
    }
}

fn print(text: &[u8]) -> anyhow::Result<()> {
    stdout().write_all(text).context("cannot write to standard output")
}
