//! What the commands print, and how they end after they have printed what is wrong.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _, stdout},
};

use anyhow::Context as _;
use comfy_table::{Table, presets};

/// The command has printed what is wrong. The process ends with exit code 1 and prints nothing more.
#[derive(Debug, thiserror::Error)]
#[error("failed")]
pub struct Failed;

/// The command was not used as it must be. The process ends with exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub(super) String);

/// Prints a line to standard output. It is an error that the line cannot be written, as on a full disk. It is none that
/// the reader has closed the pipe, as in `shop verify | head -1`.
pub(super) fn print_line(line: impl Display) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}

/// An empty table with this header and no vertical lines, so that programs such as `awk` can split its rows.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}
