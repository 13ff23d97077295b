//! Standard output. Whoever reads it may have read enough (`shop verify | head -1`), and the disk behind it may be full.

use std::{
    fmt::Display,
    io::{ErrorKind, Write as _, stdout},
};

use anyhow::Context as _;

/// Prints a line. That nobody reads any further is no failure.
///
/// # Errors
/// When it cannot be written.
pub(super) fn print_line(line: impl Display) -> anyhow::Result<()> {
    let mut out = stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to standard output"),
    }
}
