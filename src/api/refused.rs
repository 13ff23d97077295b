//! A line that does not hold, of a request that changes the stock of many products: what the problem says of it.

use poem_openapi::Object;
use serde::Serialize;

/// A line of a change of many that does not hold.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "RefusedStockLine")]
pub struct RefusedLineBody {
    /// Which line of the request it is, counted from 0.
    #[oai(validator(minimum(value = "0"), maximum(value = "999")))]
    pub line: u64,
    /// The product of that line.
    #[oai(validator(minimum(value = "1")))]
    pub product_id: i64,
    /// The last part of the type of the problem that the line alone would have.
    #[oai(validator(max_length = 100, pattern = "^[a-z-]+$"))]
    pub problem: String,
    /// Units in stock; left out for an unknown product.
    #[oai(
        skip_serializing_if_is_none,
        validator(minimum(value = "0"), maximum(value = "1000000000000"))
    )]
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stock: Option<i64>,
}
