//! `shop verify`: are the books right?

use std::time::Duration;

use anyhow::Context as _;
use clap::Args;

use super::Failed;
use crate::{
    app,
    config::Config,
    domain::books::{self, Report},
    entities::Micros,
};

#[derive(Debug, Args)]
pub(super) struct Verify {
    /// How long an accepted order may be PENDING: 90s, 5m, 1h.
    #[arg(long, value_name = "AGE", default_value = "5m", value_parser = parse_age)]
    max_age: Duration,
}

impl Verify {
    pub(super) async fn run(&self, config: &Config) -> anyhow::Result<()> {
        let db = app::connect_database(config).await?;
        let max_age = self.max_age;
        let report = db
            .snapshot(move |txn| Box::pin(async move { books::check(txn, Micros::now(), max_age).await }))
            .await
            .context("the books could not be read")?;
        db.close().await;
        if report.is_clean() {
            println!("the books are right");
            return Ok(());
        }
        print(&report);
        Err(Failed.into())
    }
}

fn print(report: &Report) {
    for fault in &report.stock {
        println!(
            "product {}: stock is {}, but {} were put in and {} are in PAID orders",
            fault.product_id, fault.stock, fault.put_in, fault.sold
        );
    }
    for fault in &report.orders {
        println!("order {} ({}): {}", fault.order_id, fault.status, fault.fault);
    }
}

fn parse_age(text: &str) -> Result<Duration, String> {
    let (number, unit) = text.split_at(text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic()).len());
    let seconds_each = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3_600,
        _ => return Err("give a number and a unit: 90s, 5m or 1h".to_owned()),
    };
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{number:?} is not a whole number"))?;
    let seconds = number.checked_mul(seconds_each).ok_or("that is too long")?;
    Ok(Duration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_a_number_and_a_unit() {
        assert_eq!(parse_age("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_age("5m"), Ok(Duration::from_secs(300)));
        assert!(parse_age("5").is_err() && parse_age("m").is_err() && parse_age("1d").is_err());
    }
}
