//! Wrong versions of the shop. Each differs from the right one in one place, and the model must find what breaks by it:
//! a check that finds nothing wrong with them would prove nothing.

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// The payment is answered 202 before its acceptance is committed.
    AnswerBeforeCommit,
    /// A settlement publishes its events and then commits.
    EventsBeforeCommit,
    /// A batch is acknowledged and then its events are published.
    AcknowledgeBeforeEvents,
    /// A settlement writes the stock that it has read without a lock, less what it took.
    AbsoluteStock,
    /// A settlement decides by stock that it has read without a lock.
    StockReadWithoutLock,
    /// An order that is settled already is settled again when its message is redelivered.
    SettledAgain,
    /// An order is settled because a message says so.
    SettledWithoutAcceptance,
    /// The lines that are in stock are taken although another one is short.
    SettledInPart,
    /// The sweeper publishes nothing again.
    NoSweeper,
    /// An order is cancelled by what was read of it before, without a lock.
    CancelledWithoutLock,
    /// Expiry looks at the time alone.
    ExpiryIgnoresAcceptance,
    /// A payment is accepted after the end of the hold.
    LatePaymentAccepted,
    /// A late payment is refused because the order has expired, which nobody has written.
    LatePaymentRefusedOnly,
    /// Expiry releases the hold of an order that was cancelled.
    HoldReleasedTwice,
    /// The hold is released when the payment is accepted.
    HoldReleasedAtAcceptance,
    /// A settlement takes stock and leaves the hold.
    HoldLeftBySettlement,
    /// An order with a hold is settled from what is available, like any other.
    HoldNotUsed,
    /// Orders without a hold are settled from what others hold.
    HoldNotCountedForOthers,
    /// A hold is granted on units that others hold.
    HoldNotCountedForHolds,
    /// Units are written off that are on hold.
    HoldNotCountedForWriteOffs,
    /// The row of the outbox is inserted after the commit.
    OutboxAfterCommit,
    /// The relay deletes the row of the outbox and then publishes.
    OutboxDeletedFirst,
    /// What is left of an order is worked out from a read without a lock.
    RefundReadWithoutLock,
    /// An order is refunded that is not PAID.
    RefundOfUnpaid,
    /// Refunded units are put back on the shelf in a transaction of their own.
    RefundedUnitsAfterCommit,
    /// The idempotency key of a refund is inserted after the commit.
    RefundKeyAfterCommit,
    /// The event of a refund is put in the outbox after the commit.
    RefundOutboxAfterCommit,
}

impl Mutant {
    pub const ALL: [Self; 27] = [
        Self::AnswerBeforeCommit,
        Self::EventsBeforeCommit,
        Self::AcknowledgeBeforeEvents,
        Self::AbsoluteStock,
        Self::StockReadWithoutLock,
        Self::SettledAgain,
        Self::SettledWithoutAcceptance,
        Self::SettledInPart,
        Self::NoSweeper,
        Self::CancelledWithoutLock,
        Self::ExpiryIgnoresAcceptance,
        Self::LatePaymentAccepted,
        Self::LatePaymentRefusedOnly,
        Self::HoldReleasedTwice,
        Self::HoldReleasedAtAcceptance,
        Self::HoldLeftBySettlement,
        Self::HoldNotUsed,
        Self::HoldNotCountedForOthers,
        Self::HoldNotCountedForHolds,
        Self::HoldNotCountedForWriteOffs,
        Self::OutboxAfterCommit,
        Self::OutboxDeletedFirst,
        Self::RefundReadWithoutLock,
        Self::RefundOfUnpaid,
        Self::RefundedUnitsAfterCommit,
        Self::RefundKeyAfterCommit,
        Self::RefundOutboxAfterCommit,
    ];

    /// Whether only a shop that makes refunds can have made it.
    pub fn is_of_refunds(self) -> bool {
        matches!(
            self,
            Self::RefundReadWithoutLock
                | Self::RefundOfUnpaid
                | Self::RefundedUnitsAfterCommit
                | Self::RefundKeyAfterCommit
                | Self::RefundOutboxAfterCommit
        )
    }
}
