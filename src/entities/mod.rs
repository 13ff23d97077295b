//! The tables as SeaORM entities, and the one type for instants. Each field is documented where it is declared; on
//! PostgreSQL the same stands as a comment at the column.

mod failure;
pub mod order;
pub mod order_item;
pub mod product;
mod status;
pub mod stock_movement;
mod timestamp;
mod unknown;

pub use timestamp::Timestamp;
