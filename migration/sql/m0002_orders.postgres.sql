CREATE TABLE orders (
    id                uuid        PRIMARY KEY,
    user_id           bigint      NOT NULL,
    status            text        NOT NULL DEFAULT 'PENDING'
                                  CONSTRAINT orders_status_is_known CHECK (status IN ('PENDING', 'PAID', 'FAILED')),
    total_price       bigint      NOT NULL CONSTRAINT orders_total_price_not_negative CHECK (total_price >= 0),
    currency          text        NOT NULL CONSTRAINT orders_currency_has_three_letters CHECK (length(currency) = 3), -- cheap: checked at every update
    idempotency_key   text,
    expires_at        timestamptz,
    accepted_at       timestamptz,
    notify_after      timestamptz,
    notify_attempts   integer     NOT NULL DEFAULT 0,
    settled_at        timestamptz,
    failure           jsonb,
    reference         text,
    metadata          jsonb,
    payment_reference text,
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now(),

    CONSTRAINT orders_status_fits_the_rest CHECK (
        (status = 'PENDING' AND settled_at IS NULL AND failure IS NULL)
        OR (status = 'PAID' AND accepted_at IS NOT NULL AND settled_at IS NOT NULL AND failure IS NULL)
        OR (status = 'FAILED' AND settled_at IS NOT NULL AND failure IS NOT NULL)
    ),
    -- What was accepted for payment is settled, and neither cancelled nor expired.
    CONSTRAINT orders_accepted_are_settled CHECK (
        accepted_at IS NULL OR failure IS NULL OR failure ->> 'reason' NOT IN ('cancelled', 'expired')
    )
);

CREATE INDEX        orders_user_id_id              ON orders (user_id, id);
CREATE INDEX        orders_status_id               ON orders (status, id);
CREATE UNIQUE INDEX orders_user_id_idempotency_key ON orders (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX orders_reference_user_id       ON orders (reference, user_id) WHERE reference IS NOT NULL;
CREATE UNIQUE INDEX orders_payment_reference       ON orders (payment_reference) WHERE payment_reference IS NOT NULL;
-- These two say settled_at and not status. Otherwise a planner that believes that few orders are PENDING looks through all
-- of those for the few that are due.
CREATE INDEX        orders_notify_after            ON orders (notify_after) WHERE settled_at IS NULL AND accepted_at IS NOT NULL;
CREATE INDEX        orders_expires_at              ON orders (expires_at)   WHERE settled_at IS NULL AND accepted_at IS NULL AND expires_at IS NOT NULL;

COMMENT ON TABLE  orders                 IS 'Orders. The row is the truth about an order; messages only say that it is to be looked at.';
COMMENT ON COLUMN orders.id              IS 'UUID version 7 (RFC 9562): ids sort by time of creation.';
COMMENT ON COLUMN orders.user_id         IS 'Whose order it is, 1 or more.';
COMMENT ON COLUMN orders.status          IS 'PENDING until it is settled, then PAID or FAILED for ever.';
COMMENT ON COLUMN orders.total_price     IS 'Sum of quantity × unit_price over the lines, in whole minor units of currency.';
COMMENT ON COLUMN orders.currency        IS 'ISO 4217: the currency of the shop when the order was made.';
COMMENT ON COLUMN orders.idempotency_key IS 'The Idempotency-Key of the request that made the order, or `cart ` and a hash of the cart that it was; unique for each user; NULL without one.';
COMMENT ON COLUMN orders.expires_at      IS 'When the hold on the units of the order ends unless a payment is accepted before; NULL for an order without a hold. The hold is open while the order is PENDING.';
COMMENT ON COLUMN orders.accepted_at     IS 'When the payment was accepted. From then on the order will be settled.';
COMMENT ON COLUMN orders.notify_after    IS 'When the sweeper publishes a settle request again, while the order is accepted and PENDING.';
COMMENT ON COLUMN orders.notify_attempts IS 'How often the sweeper has published one.';
COMMENT ON COLUMN orders.settled_at      IS 'When the order became PAID or FAILED, cancelled and expired orders included.';
COMMENT ON COLUMN orders.failure         IS 'Why the order is FAILED: {"reason": text, "lines": [{"product_id", "requested", "available"}]}.';
COMMENT ON COLUMN orders.reference         IS 'What the shop front calls the order, 1 to 64 visible ASCII characters, unique for each user; NULL without one. Never changes.';
COMMENT ON COLUMN orders.metadata          IS 'What the shop front keeps with the order: an object of at most 20 texts; NULL without any. Never changes.';
COMMENT ON COLUMN orders.payment_reference IS 'The charge that paid the order, unique: one charge never pays two orders. Written when the payment is accepted; NULL without one.';
COMMENT ON COLUMN orders.created_at      IS 'When the order was made.';
COMMENT ON COLUMN orders.updated_at      IS 'When the row last changed.';
COMMENT ON INDEX  orders_user_id_id              IS 'Lists the orders of a user, newest first.';
COMMENT ON INDEX  orders_status_id               IS 'Lists the orders of a status, newest first.';
COMMENT ON INDEX  orders_user_id_idempotency_key IS 'One order for each key of a user.';
COMMENT ON INDEX  orders_reference_user_id       IS 'One order for each reference of a user; finds orders by their reference.';
COMMENT ON INDEX  orders_payment_reference       IS 'One order for each charge.';
COMMENT ON INDEX  orders_notify_after            IS 'Finds what the sweeper has to do; as small as the backlog.';
COMMENT ON INDEX  orders_expires_at              IS 'Finds the holds that have ended; has open holds without a payment and nothing else.';

-- One index serves every way to the lines: by their order. A line is never looked for by its id or by its product.
CREATE TABLE order_items (
    id         bigint NOT NULL GENERATED BY DEFAULT AS IDENTITY,
    order_id   uuid   NOT NULL CONSTRAINT order_items_of_an_order REFERENCES orders,
    product_id bigint NOT NULL,
    quantity   bigint NOT NULL CONSTRAINT order_items_quantity_positive CHECK (quantity > 0),
    unit_price bigint NOT NULL CONSTRAINT order_items_unit_price_not_negative CHECK (unit_price >= 0),

    CONSTRAINT order_items_name_a_product_once PRIMARY KEY (order_id, product_id)
);

-- That a line names a product is checked once a statement. A foreign key would check, and lock the product's row, once a
-- line: rows that settlement locks as well. No product is deleted (see products_are_never_deleted), so nothing else is
-- left for a foreign key to guard.
CREATE FUNCTION order_items_name_products() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM written i WHERE (SELECT p.id FROM products p WHERE p.id = i.product_id) IS NULL) THEN
        RAISE foreign_key_violation USING MESSAGE = 'a line of an order names a product that does not exist';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER order_items_inserted AFTER INSERT ON order_items
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION order_items_name_products();
CREATE TRIGGER order_items_updated AFTER UPDATE ON order_items
    REFERENCING NEW TABLE AS written FOR EACH STATEMENT EXECUTE FUNCTION order_items_name_products();

COMMENT ON TABLE  order_items            IS 'The lines of orders. Rows are added with their order and never changed.';
COMMENT ON COLUMN order_items.id         IS 'Counts up, in the order in which the lines of an order were asked for.';
COMMENT ON COLUMN order_items.order_id   IS 'The order that the line belongs to.';
COMMENT ON COLUMN order_items.product_id IS 'What was ordered; a product stands in an order once.';
COMMENT ON COLUMN order_items.quantity   IS 'Units, 1 to 10,000.';
COMMENT ON COLUMN order_items.unit_price IS 'Price of the product when the order was made, in whole minor units of the currency of the order.';
