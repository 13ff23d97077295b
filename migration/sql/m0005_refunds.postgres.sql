CREATE TABLE refunds (
    id            uuid        PRIMARY KEY,
    order_id      uuid        NOT NULL CONSTRAINT refunds_of_an_order REFERENCES orders,
    amount        bigint      NOT NULL CONSTRAINT refunds_amount_not_negative CHECK (amount >= 0),
    currency      text        NOT NULL CONSTRAINT refunds_currency_has_three_letters CHECK (length(currency) = 3),
    reason        text        NOT NULL,
    user_id       bigint,
    ledger_period bigint      NOT NULL DEFAULT 0,
    created_at    timestamptz NOT NULL DEFAULT now()
);

CREATE INDEX refunds_order_id_id   ON refunds (order_id, id);
CREATE INDEX refunds_ledger_period ON refunds (ledger_period);

COMMENT ON TABLE  refunds            IS 'What was paid back for PAID orders. Rows are added and never changed; the order does not change either.';
COMMENT ON COLUMN refunds.id         IS 'UUID version 7 (RFC 9562). Also the id of the event order.refunded.';
COMMENT ON COLUMN refunds.order_id   IS 'The order that was refunded. All refunds of an order together are no more than its total_price.';
COMMENT ON COLUMN refunds.amount     IS 'Whole minor units of currency.';
COMMENT ON COLUMN refunds.currency   IS 'ISO 4217: the currency of the order.';
COMMENT ON COLUMN refunds.reason     IS 'Why, in the words of whoever refunded.';
COMMENT ON COLUMN refunds.user_id    IS 'The administrator who refunded; NULL where users are not known.';
COMMENT ON COLUMN refunds.ledger_period IS 'ledger.period when the order was refunded. A trigger sets it.';
COMMENT ON COLUMN refunds.created_at IS 'When it was refunded.';
COMMENT ON INDEX  refunds_order_id_id IS 'Lists the refunds of an order, newest first.';
COMMENT ON INDEX  refunds_ledger_period IS 'Finds the refunds since the last clean check of the ledger.';

CREATE FUNCTION refunds_set_ledger_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.ledger_period := (SELECT period FROM ledger);
    RETURN NEW;
END $$;

CREATE TRIGGER refunds_set_ledger_period BEFORE INSERT ON refunds
    FOR EACH ROW EXECUTE FUNCTION refunds_set_ledger_period();

CREATE TABLE refund_items (
    refund_id   uuid   NOT NULL CONSTRAINT refund_items_of_a_refund REFERENCES refunds,
    product_id  bigint NOT NULL CONSTRAINT refund_items_of_a_product REFERENCES products,
    quantity    bigint NOT NULL CONSTRAINT refund_items_quantity_positive CHECK (quantity > 0),
    movement_id bigint          CONSTRAINT refund_items_restocked_by_a_movement REFERENCES stock_movements,

    CONSTRAINT refund_items_name_a_product_once PRIMARY KEY (refund_id, product_id)
);

CREATE UNIQUE INDEX refund_items_movement_id ON refund_items (movement_id) WHERE movement_id IS NOT NULL;

COMMENT ON TABLE  refund_items             IS 'The units of refunds. Rows are added with their refund and never changed.';
COMMENT ON COLUMN refund_items.refund_id   IS 'The refund that the units belong to.';
COMMENT ON COLUMN refund_items.product_id  IS 'What is refunded; a product stands in a refund once. All refunds of an order together have no more units than were ordered.';
COMMENT ON COLUMN refund_items.quantity    IS 'Units.';
COMMENT ON COLUMN refund_items.movement_id IS 'The stock movement that put the units back on the shelf; NULL if they did not come back.';
COMMENT ON INDEX  refund_items_movement_id IS 'Finds the refund of a stock movement, of which there is one at most.';
