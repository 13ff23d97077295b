//! The life of an order as pure rules: what paying, cancelling, expiry and settlement make of it, whatever comes first. The
//! transactions apply these rules to rows that they have locked, the model in `tests/model` explores them in every order, and
//! the tests compare every change of every row with them.

use crate::entities::{
    Timestamp,
    order::{self, FailureReason, OrderStatus, StoredFailure},
};

/// The part of an order's row that its life is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OrderState {
    pub status: OrderStatus,
    /// When the payment was accepted; from then on the order can neither be cancelled nor expire.
    pub accepted_at: Option<Timestamp>,
    /// When the hold ends unless a payment is accepted before; `None` for an order without a hold. Never changes.
    pub expires_at: Option<Timestamp>,
    pub settled_at: Option<Timestamp>,
    /// Why the order is FAILED.
    pub failure: Option<FailureReason>,
}

/// What is asked of an order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// A payment is to be accepted.
    Pay,
    Cancel,
    /// The hold is to be released because its time is up.
    Expire,
    /// The stock is to be taken and the outcome written.
    Settle,
}

/// What is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Change {
    /// The order is what was asked for already. Nothing is written.
    Unchanged,
    /// `accepted_at`: the order will be settled. Its hold is kept.
    Accept,
    /// FAILED for this reason, without a payment. The hold is released.
    Close(FailureReason),
    /// PAID or FAILED, as [`decide`](super::settlement::decide) says. The hold is used up or released.
    Settle,
}

/// Why an order stays as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The payment was accepted first; the order will be settled.
    PaymentAccepted,
    /// The order is PAID.
    Paid,
    /// The order is FAILED, for this reason.
    Failed(Option<FailureReason>),
    /// No payment was accepted, so there is nothing to settle.
    NotAccepted,
    /// The order has no hold, or its time is not up.
    NotDue,
    /// The order has a status that this version does not know. Only a newer version may change it.
    UnknownStatus(&'static str),
}

/// What `action` makes of an order at `now`. The first of pay, cancel and expire that finds the order open wins.
///
/// A payment that comes after the hold has ended closes the order as expired, in the same transaction: whoever is told so
/// is never contradicted.
///
/// # Errors
/// [`Refusal`], when the order stays as it is and whoever asked is told why.
pub fn transition(order: &OrderState, action: Action, now: Timestamp) -> Result<Change, Refusal> {
    let is_accepted = order.accepted_at.is_some();
    let is_past = order.expires_at.is_some_and(|end| end <= now);

    match (order.status, action) {
        (OrderStatus::Pending, Action::Pay) if is_accepted => Ok(Change::Unchanged),
        (OrderStatus::Pending, Action::Pay | Action::Expire) if is_past && !is_accepted => {
            Ok(Change::Close(FailureReason::Expired))
        }
        (OrderStatus::Pending, Action::Pay) => Ok(Change::Accept),
        (OrderStatus::Pending, Action::Cancel | Action::Expire) if is_accepted => Err(Refusal::PaymentAccepted),
        (OrderStatus::Pending, Action::Cancel) => Ok(Change::Close(FailureReason::Cancelled)),
        (OrderStatus::Pending, Action::Expire) => Err(Refusal::NotDue),
        (OrderStatus::Pending, Action::Settle) if is_accepted => Ok(Change::Settle),
        (OrderStatus::Pending, Action::Settle) => Err(Refusal::NotAccepted),

        (OrderStatus::Paid, Action::Pay | Action::Settle) | (OrderStatus::Failed, Action::Settle) => {
            Ok(Change::Unchanged)
        }
        (OrderStatus::Paid, Action::Cancel | Action::Expire) => Err(Refusal::Paid),
        (OrderStatus::Failed, Action::Cancel) if order.failure == Some(FailureReason::Cancelled) => {
            Ok(Change::Unchanged)
        }
        (OrderStatus::Failed, Action::Pay | Action::Cancel | Action::Expire) => Err(Refusal::Failed(order.failure)),
        (OrderStatus::Other(status), _) => Err(Refusal::UnknownStatus(status)),
    }
}

impl OrderState {
    /// An order that was just made, with a hold until `expires_at` or without one.
    #[must_use]
    pub fn new(expires_at: Option<Timestamp>) -> Self {
        Self {
            status: OrderStatus::Pending,
            accepted_at: None,
            expires_at,
            settled_at: None,
            failure: None,
        }
    }

    /// Whether units are set aside for the order. Whatever takes an order out of PENDING releases them.
    #[must_use]
    pub fn has_open_hold(&self) -> bool {
        self.status == OrderStatus::Pending && self.expires_at.is_some()
    }

    #[must_use]
    pub fn accepted(self, now: Timestamp) -> Self {
        Self {
            accepted_at: Some(now),
            ..self
        }
    }

    #[must_use]
    pub fn paid(self, now: Timestamp) -> Self {
        Self {
            status: OrderStatus::Paid,
            settled_at: Some(now),
            ..self
        }
    }

    #[must_use]
    pub fn failed(self, reason: FailureReason, now: Timestamp) -> Self {
        Self {
            status: OrderStatus::Failed,
            settled_at: Some(now),
            failure: Some(reason),
            ..self
        }
    }
}

impl From<&order::Model> for OrderState {
    fn from(row: &order::Model) -> Self {
        Self {
            status: row.status,
            accepted_at: row.accepted_at,
            expires_at: row.expires_at,
            settled_at: row.settled_at,
            failure: row.failure.as_ref().and_then(StoredFailure::reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(100);

    fn all() -> [(&'static str, OrderState); 8] {
        let (plain, held) = (OrderState::new(None), OrderState::new(Some(Timestamp(101))));
        let late = OrderState::new(Some(NOW));
        let accepted = plain.accepted(Timestamp(50));
        [
            ("open", plain),
            ("held", held),
            ("hold past", late),
            ("accepted", accepted),
            ("accepted in time, hold past", late.accepted(Timestamp(99))),
            ("paid", accepted.paid(NOW)),
            ("cancelled", plain.failed(FailureReason::Cancelled, NOW)),
            ("expired", late.failed(FailureReason::Expired, NOW)),
        ]
    }

    fn answers(action: Action) -> Vec<(&'static str, Result<Change, Refusal>)> {
        let answer = |(name, order)| (name, transition(&order, action, NOW));
        all().map(answer).into()
    }

    #[test]
    fn a_payment_is_accepted_until_the_hold_ends_and_once() {
        let cancelled = Err(Refusal::Failed(Some(FailureReason::Cancelled)));
        let expected = [
            ("open", Ok(Change::Accept)),
            ("held", Ok(Change::Accept)),
            ("hold past", Ok(Change::Close(FailureReason::Expired))),
            ("accepted", Ok(Change::Unchanged)),
            ("accepted in time, hold past", Ok(Change::Unchanged)),
            ("paid", Ok(Change::Unchanged)),
            ("cancelled", cancelled),
            ("expired", Err(Refusal::Failed(Some(FailureReason::Expired)))),
        ];
        assert_eq!(answers(Action::Pay), expected);
    }

    #[test]
    fn an_order_is_cancelled_unless_its_payment_was_accepted() {
        let close = Ok(Change::Close(FailureReason::Cancelled));
        let expected = [
            ("open", close),
            ("held", close),
            ("hold past", close),
            ("accepted", Err(Refusal::PaymentAccepted)),
            ("accepted in time, hold past", Err(Refusal::PaymentAccepted)),
            ("paid", Err(Refusal::Paid)),
            ("cancelled", Ok(Change::Unchanged)),
            ("expired", Err(Refusal::Failed(Some(FailureReason::Expired)))),
        ];
        assert_eq!(answers(Action::Cancel), expected);
    }

    #[test]
    fn only_a_hold_that_is_past_and_unpaid_expires() {
        let expected = [
            ("open", Err(Refusal::NotDue)),
            ("held", Err(Refusal::NotDue)),
            ("hold past", Ok(Change::Close(FailureReason::Expired))),
            ("accepted", Err(Refusal::PaymentAccepted)),
            ("accepted in time, hold past", Err(Refusal::PaymentAccepted)),
            ("paid", Err(Refusal::Paid)),
            ("cancelled", Err(Refusal::Failed(Some(FailureReason::Cancelled)))),
            ("expired", Err(Refusal::Failed(Some(FailureReason::Expired)))),
        ];
        assert_eq!(answers(Action::Expire), expected);
    }

    #[test]
    fn only_an_accepted_order_is_settled_and_once() {
        let expected = [
            ("open", Err(Refusal::NotAccepted)),
            ("held", Err(Refusal::NotAccepted)),
            ("hold past", Err(Refusal::NotAccepted)),
            ("accepted", Ok(Change::Settle)),
            ("accepted in time, hold past", Ok(Change::Settle)),
            ("paid", Ok(Change::Unchanged)),
            ("cancelled", Ok(Change::Unchanged)),
            ("expired", Ok(Change::Unchanged)),
        ];
        assert_eq!(answers(Action::Settle), expected);
    }
}
