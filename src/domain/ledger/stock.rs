//! The stock of a product beside the units that explain it.

use sea_orm::FromQueryResult;

use super::{MAX_LISTED, ProductId, StockDiscrepancy};

#[derive(Clone, Copy, Debug, PartialEq, Eq, FromQueryResult)]
pub(super) struct Stocked {
    pub product_id: ProductId,
    pub stock: i64,
    pub put_in: i64,
    pub sold: i64,
}

impl Stocked {
    fn adds_up(&self) -> bool {
        self.stock >= 0 && self.put_in.checked_sub(self.sold) == Some(self.stock)
    }
}

/// Those of `products` whose stock is not explained, the first of them.
pub(super) fn discrepancies(products: impl IntoIterator<Item = Stocked>) -> Vec<StockDiscrepancy> {
    let wrong = products.into_iter().filter(|product| !product.adds_up());
    let wrong = wrong.map(|product| StockDiscrepancy {
        product_id: product.product_id,
        stock: product.stock,
        put_in: product.put_in,
        sold: product.sold,
    });
    wrong.take(usize::try_from(MAX_LISTED).unwrap_or(usize::MAX)).collect()
}
