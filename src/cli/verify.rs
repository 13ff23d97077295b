//! `shop verify`: are the books right?

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use comfy_table::{Table, presets};
use serde_json::json;

use super::{Failed, parse_duration, print::print_line};
use crate::{
    app,
    config::Config,
    domain::ledger::{self, MAX_LISTED, Report},
    entities::Timestamp,
};

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// How long an accepted order may be PENDING: 90s, 5m, 1h.
    #[arg(long, value_name = "AGE", default_value = "5m", value_parser = parse_duration)]
    max_age: Duration,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Verify {
    /// Reads one snapshot of the database, so that it is right while orders are being settled.
    pub(super) async fn run(&self, config: &Config) -> anyhow::Result<()> {
        let db = app::connect_database(config).await?;
        app::refuse_pending(&db).await?;
        let max_age = self.max_age;
        let report = db
            .snapshot(None, |txn| async move {
                ledger::check(&*txn, Timestamp::now(), max_age).await
            })
            .await
            .context("the books could not be read")?;
        db.close().await;
        if self.json {
            let mut json = json!(report);
            json["ok"] = json!(report.is_clean());
            print_line(serde_json::to_string_pretty(&json)?)?;
        } else {
            print(&report)?;
        }
        if report.is_clean() {
            return Ok(());
        }
        eprintln!("shop: the books do not add up");
        Err(Failed.into())
    }
}

fn print(report: &Report) -> anyhow::Result<()> {
    if report.is_clean() {
        let (products, orders) = (report.products, report.orders);
        return print_line(format_args!(
            "the books are right: {products} products, {orders} orders"
        ));
    }
    if !report.stock_discrepancies.is_empty() {
        let mut table = table(&["product", "stock", "put in", "in PAID orders", "off by"]);
        for fault in &report.stock_discrepancies {
            let expected = i128::from(fault.put_in) - i128::from(fault.sold);
            let off_by = i128::from(fault.stock) - expected;
            table.add_row([
                fault.product_id.to_string(),
                fault.stock.to_string(),
                fault.put_in.to_string(),
                fault.sold.to_string(),
                format!("{off_by:+}"),
            ]);
        }
        print_line(table)?;
    }
    if !report.order_discrepancies.is_empty() || !report.overdue.is_empty() {
        let mut table = table(&["order", "status", "fault"]);
        for fault in report.order_discrepancies.iter().chain(&report.overdue) {
            table.add_row([fault.order_id.to_string(), fault.status.clone(), fault.problem.clone()]);
        }
        print_line(table)?;
    }
    let longest = [
        report.stock_discrepancies.len(),
        report.order_discrepancies.len(),
        report.overdue.len(),
    ];
    if longest.iter().any(|length| i64::try_from(*length) == Ok(MAX_LISTED)) {
        print_line(format_args!("only the first {MAX_LISTED} of a kind are listed"))?;
    }
    Ok(())
}

/// A table that reads well and can be cut into columns.
pub(super) fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_header(header);
    table
}
