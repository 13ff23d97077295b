//! Why an order has failed, as the order itself shows it, and the problem that whoever still wants to pay it is answered.

use poem_openapi::{Enum, Object, types::Example};
use serde::Serialize;

use crate::entities::order::{Failure, FailureReason};

/// Why an order has failed.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "OrderFailure", example)]
pub struct FailureBody {
    /// What kind of failure it is.
    reason: ReasonBody,
    /// The lines that were short of stock. Nothing was taken for any line. Empty for other reasons.
    #[oai(validator(max_items = 100))]
    lines: Vec<ShortLineBody>,
}

/// Why an order can fail. Further reasons may be added, so expect others.
#[derive(Clone, Copy, Debug, Enum, Serialize)]
#[oai(rename = "OrderFailureReason", rename_all = "snake_case")]
#[serde(rename_all = "snake_case")]
pub enum ReasonBody {
    /// There were too few units when the paid order was settled.
    InsufficientStock,
    /// It was cancelled before a payment was accepted.
    Cancelled,
    /// Its hold ended before a payment was accepted.
    Expired,
}

/// A line that there was not enough stock for.
#[derive(Debug, Object, Serialize)]
#[oai(rename = "ShortOrderLine")]
pub struct ShortLineBody {
    /// The product that was short.
    product_id: i64,
    /// Units that the order asked for.
    #[oai(validator(minimum(value = "1"), maximum(value = "10000")))]
    requested: i64,
    /// Units that were available when it was its turn.
    #[oai(validator(minimum(value = "0"), maximum(value = "1000000000000")))]
    available: i64,
}

impl From<Failure> for FailureBody {
    fn from(failure: Failure) -> Self {
        let lines = failure.lines.into_iter().map(|line| ShortLineBody {
            product_id: line.product_id,
            requested: line.requested,
            available: line.available,
        });

        Self {
            reason: match failure.reason {
                FailureReason::InsufficientStock => ReasonBody::InsufficientStock,
                FailureReason::Cancelled => ReasonBody::Cancelled,
                FailureReason::Expired => ReasonBody::Expired,
            },
            lines: lines.collect(),
        }
    }
}

impl Example for FailureBody {
    fn example() -> Self {
        Self {
            reason: ReasonBody::InsufficientStock,
            lines: vec![ShortLineBody {
                product_id: 1,
                requested: 2,
                available: 1,
            }],
        }
    }
}
