//! A full check that also says what the next periodic check goes on from.

use std::time::Duration;

use sea_orm::DatabaseTransaction;

use super::{
    Error,
    changes::Changes,
    checkpoint::{Base, Checked, Checkpoint, Totals},
    full::check_products,
    stock::Stocked,
};
use crate::{db, entities::Timestamp};

/// Checks the whole ledger, as [`check`](super::check()) does, and adds up what the next check goes on from. Run it in one
/// snapshot.
pub async fn check_and_add_up(txn: &DatabaseTransaction, now: Timestamp, max_age: Duration) -> Result<Checked, Error> {
    let (report, products) = check_products(txn, now, max_age).await?;

    // All that was read, less what is not closed yet.
    let mark = Checkpoint::read(txn).await?.closed(txn).await?;
    db::join_by_index(txn).await?;
    let open = Changes::since(txn, mark, mark).await?;
    let totals = |product: Stocked| {
        let (put_in, sold) = open.of(product.product_id);
        Totals {
            product_id: product.product_id,
            put_in: product.put_in.saturating_sub(put_in.units),
            sold: product.sold.saturating_sub(sold.units),
        }
    };

    let totals = products.into_iter().map(totals).collect();
    Ok(Checked {
        report,
        is_full: true,
        base: Base { mark, totals },
    })
}
