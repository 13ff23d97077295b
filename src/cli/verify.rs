//! `shop verify`: checks the ledger, from one snapshot of the database.

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use serde_json::json;

use super::{
    duration::parse_duration,
    output::{Failed, print_line, table},
};
use crate::{
    app,
    config::Config,
    db,
    domain::ledger::{self, MAX_LISTED, Report},
};

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// How long an order may stay PENDING after its payment was accepted: 90s, 5m, 1h.
    #[arg(long, value_name = "AGE", default_value = "5m", value_parser = parse_duration)]
    max_age: Duration,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
}

impl Verify {
    pub(super) async fn run(&self, config: &Config) -> anyhow::Result<()> {
        let db = app::connect_database(config).await?;
        app::refuse_pending(&db).await?;

        // Orders may be settled meanwhile: the snapshot shows the database as of one moment.
        let max_age = self.max_age;
        let now = db::now(db.read()).await?;
        let report = db
            .report(None, |txn| async move { ledger::check(&*txn, now, max_age).await })
            .await
            .context("the books could not be read")?;
        db.close().await;

        if self.json {
            let mut json = json!(report);
            json["ok"] = json!(report.is_clean());
            print_line(serde_json::to_string_pretty(&json)?)?;
        } else {
            print_report(&report)?;
        }

        if report.is_clean() {
            return Ok(());
        }
        eprintln!("shop: the books do not add up");
        Err(Failed.into())
    }
}

fn print_report(report: &Report) -> anyhow::Result<()> {
    if report.is_clean() {
        let (products, orders) = (report.products, report.orders);
        return print_line(format_args!(
            "the books are right: {products} products, {orders} orders"
        ));
    }

    if !report.stock_discrepancies.is_empty() {
        print_line(stock_table(report))?;
    }
    if !report.hold_discrepancies.is_empty() {
        print_line(hold_table(report))?;
    }
    if !report.order_discrepancies.is_empty() || !report.overdue.is_empty() {
        print_line(order_table(report))?;
    }

    let lengths = [
        report.stock_discrepancies.len(),
        report.hold_discrepancies.len(),
        report.order_discrepancies.len(),
        report.overdue.len(),
    ];
    if lengths.iter().any(|length| i64::try_from(*length) == Ok(MAX_LISTED)) {
        print_line(format_args!("only the first {MAX_LISTED} of a kind are listed"))?;
    }
    Ok(())
}

fn stock_table(report: &Report) -> comfy_table::Table {
    let mut table = table(&["product", "stock", "put in", "in PAID orders", "off by"]);
    for found in &report.stock_discrepancies {
        let expected = i128::from(found.put_in) - i128::from(found.sold);
        let off_by = i128::from(found.stock) - expected;
        table.add_row([
            found.product_id.to_string(),
            found.stock.to_string(),
            found.put_in.to_string(),
            found.sold.to_string(),
            format!("{off_by:+}"),
        ]);
    }
    table
}

fn hold_table(report: &Report) -> comfy_table::Table {
    let mut table = table(&["product", "stock", "on hold", "in open holds", "off by"]);
    for found in &report.hold_discrepancies {
        let off_by = i128::from(found.held) - i128::from(found.in_open_holds);
        table.add_row([
            found.product_id.to_string(),
            found.stock.to_string(),
            found.held.to_string(),
            found.in_open_holds.to_string(),
            format!("{off_by:+}"),
        ]);
    }
    table
}

fn order_table(report: &Report) -> comfy_table::Table {
    let mut table = table(&["order", "status", "problem"]);
    for found in report.order_discrepancies.iter().chain(&report.overdue) {
        table.add_row([found.order_id.to_string(), found.status.clone(), found.problem.clone()]);
    }
    table
}
