-- What was paid back for PAID orders. Rows are added and never changed; the order does not change either.
CREATE TABLE refunds (
    -- UUID version 7 (RFC 9562) as 16 bytes. Also the id of the event order.refunded.
    id         BLOB    PRIMARY KEY NOT NULL,
    -- All refunds of an order together are no more than its total_price.
    order_id   BLOB    NOT NULL CONSTRAINT refunds_of_an_order REFERENCES orders (id),
    -- Whole minor units of currency (ISO 4217), which is the currency of the order.
    amount     INTEGER NOT NULL CONSTRAINT refunds_amount_not_negative CHECK (amount >= 0),
    currency   TEXT    NOT NULL CONSTRAINT refunds_currency_has_three_letters CHECK (length(currency) = 3),
    reason     TEXT    NOT NULL,
    -- The administrator who refunded; NULL where users are not known.
    user_id    INTEGER,
    -- ledger.period when the order was refunded. A trigger sets it.
    ledger_period INTEGER NOT NULL DEFAULT 0,
    created_at INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;

-- Lists the refunds of an order, newest first.
CREATE INDEX refunds_order_id_id ON refunds (order_id, id);
-- Finds the refunds since the last clean check of the ledger.
CREATE INDEX refunds_ledger_period ON refunds (ledger_period);

CREATE TRIGGER refunds_set_ledger_period AFTER INSERT ON refunds BEGIN
    UPDATE refunds SET ledger_period = (SELECT period FROM ledger) WHERE id = NEW.id;
END;

-- The units of refunds. Rows are added with their refund and never changed.
CREATE TABLE refund_items (
    refund_id   BLOB    NOT NULL CONSTRAINT refund_items_of_a_refund REFERENCES refunds (id),
    -- All refunds of an order together have no more units of a product than were ordered.
    product_id  INTEGER NOT NULL CONSTRAINT refund_items_of_a_product REFERENCES products (id),
    quantity    INTEGER NOT NULL CONSTRAINT refund_items_quantity_positive CHECK (quantity > 0),
    -- The stock movement that put the units back on the shelf; NULL if they did not come back.
    movement_id INTEGER          CONSTRAINT refund_items_restocked_by_a_movement REFERENCES stock_movements (id),

    CONSTRAINT refund_items_name_a_product_once PRIMARY KEY (refund_id, product_id)
) STRICT, WITHOUT ROWID;

-- Finds the refund of a stock movement, of which there is one at most.
CREATE UNIQUE INDEX refund_items_movement_id ON refund_items (movement_id) WHERE movement_id IS NOT NULL;
