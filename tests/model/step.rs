//! The transition relation: which states of an order's row may follow which, by the rules that production applies. The model
//! holds all of its own steps to it, and the tests with real servers every change of every row.

use shop::{
    domain::transition::{Action, Change, OrderState, transition},
    entities::{Timestamp, order::FailureReason},
};

const ACTIONS: [Action; 4] = [Action::Pay, Action::Cancel, Action::Expire, Action::Settle];

/// Whether a row that is new may look like this, when it was written at `now`.
pub fn is_first(order: &OrderState, now: Timestamp) -> bool {
    let hold_is_open = order.expires_at.is_none_or(|end| end > now);
    hold_is_open && *order == OrderState::new(order.expires_at)
}

/// What one action at `now` may turn an order into. The order as it is is not among them.
pub fn successors(order: &OrderState, now: Timestamp) -> Vec<OrderState> {
    let successors = ACTIONS.iter().flat_map(|action| match transition(order, *action, now) {
        Ok(Change::Accept) => vec![order.accepted(now)],
        Ok(Change::Close(reason)) => vec![order.failed(reason, now)],
        Ok(Change::Settle) => vec![order.paid(now), order.failed(FailureReason::InsufficientStock, now)],
        Ok(Change::Unchanged) | Err(_) => Vec::new(),
    });
    successors.collect()
}

/// Whether one action at `now` leads from `before` to `after`; `None` is an order that does not exist.
pub fn is_step(before: Option<&OrderState>, after: Option<&OrderState>, now: Timestamp) -> bool {
    match (before, after) {
        (None, Some(after)) => is_first(after, now),
        (Some(before), Some(after)) => successors(before, now).contains(after),
        // No action deletes an order. `shop prune` does, and neither the model nor the recorded tests run it.
        (_, None) => false,
    }
}
