//! The catalogue: listing, finding, adding and changing products, changing their stock, and the movements that explain it.

use crate::entities::product;

mod change;
mod find;
mod movements;
mod stock;

pub use change::{NewProduct, ProductChange, add, add_missing, change, fill_search_names};
pub use find::{ProductPage, ProductQuery, find, ids, list, lock};
pub use movements::{Movement, MovementPage, MovementQuery, Origin, list_movements};
pub(super) use stock::make as make_stock_changes;
pub use stock::{StockChange, StockTarget, change_stock, change_stocks};

/// The most products, or movements, on a page.
pub const MAX_PAGE: u64 = 200;

/// The most units that a shelf holds, so that no sum of units ever overflows.
pub const MAX_STOCK: i64 = 1_000_000_000_000;
