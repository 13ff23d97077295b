//! `shop seed`: fills the database with products, and with orders if wanted.

use anyhow::{Context as _, ensure};
use clap::Args;

use super::output::print_line;
use crate::{
    app::App,
    config::Config,
    domain::catalog,
    seed::{self, Plan},
};

#[derive(Debug, Args)]
pub(super) struct Seed {
    /// Products to add, 0 to 1,000,000.
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    products: u32,
    /// Orders to add, 0 to 1,000,000. Most of them are paid and settled.
    #[arg(long, value_name = "N", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    orders: u32,
    /// The seed of the random numbers: the same seed gives the same data.
    #[arg(long = "seed", value_name = "S", default_value_t = 1)]
    rng: u64,
}

impl Seed {
    pub(super) async fn run(self, config: Config) -> anyhow::Result<()> {
        let app = App::connect(config).await?;
        app.check_schema(false).await?;

        let nothing_to_order = self.orders > 0 && self.products == 0 && catalog::ids(app.db.read()).await?.is_empty();
        ensure!(!nothing_to_order, "orders need products: give --products as well");

        let plan = Plan {
            products: self.products as usize,
            orders: self.orders as usize,
            seed: self.rng,
        };
        let added = seed::fill(&app, plan)
            .await
            .context("the database could not be filled")?;
        app.close().await;

        print_line(format_args!(
            "added {} products and {} orders",
            added.products, added.orders
        ))
    }
}
