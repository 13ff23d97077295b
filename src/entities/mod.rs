//! The tables as SeaORM entities. Written by hand, kept beside the migrations that make them.

pub mod order;
pub mod order_item;
pub mod product;
pub mod stock_movement;
pub mod timestamp;

pub use timestamp::Timestamp;
