-- Orders. The row is the truth about an order; messages only say that it is to be looked at.
CREATE TABLE orders (
    -- UUID version 7 (RFC 9562) as 16 bytes: ids sort by time of creation.
    id              BLOB    PRIMARY KEY NOT NULL,
    user_id         INTEGER NOT NULL,
    -- PENDING until it is settled, then PAID or FAILED for ever.
    status          TEXT    NOT NULL DEFAULT 'PENDING'
                            CONSTRAINT orders_status_is_known CHECK (status IN ('PENDING', 'PAID', 'FAILED')),
    -- Sum of quantity × unit_price over the lines, in whole minor units of currency (ISO 4217).
    total_price     INTEGER NOT NULL CONSTRAINT orders_total_price_not_negative CHECK (total_price >= 0),
    currency        TEXT    NOT NULL CONSTRAINT orders_currency_has_three_letters CHECK (length(currency) = 3),
    -- The Idempotency-Key of the request that made the order, or 'cart ' and a hash of the cart that it was; unique for
    -- each user.
    idempotency_key TEXT,
    -- When the hold on the units of the order ends unless a payment is accepted before; NULL without a hold.
    expires_at      INTEGER,
    -- When the payment was accepted. From then on the order will be settled.
    accepted_at     INTEGER,
    -- When the sweeper publishes a settle request again, and how often it has.
    notify_after    INTEGER,
    notify_attempts INTEGER NOT NULL DEFAULT 0,
    -- When the order became PAID or FAILED, and why it is FAILED (JSON).
    settled_at      INTEGER,
    failure         TEXT    CONSTRAINT orders_failure_is_json CHECK (json_valid(failure)),
    -- What the shop front calls the order, unique for each user, and an object of texts that it keeps with the order. Neither
    -- ever changes.
    reference       TEXT,
    metadata        TEXT    CONSTRAINT orders_metadata_is_json CHECK (json_valid(metadata)),
    -- The charge that paid the order, unique: one charge never pays two orders. Written when the payment is accepted.
    payment_reference TEXT,
    created_at      INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated_at      INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),

    CONSTRAINT orders_status_fits_the_rest CHECK (
        (status = 'PENDING' AND settled_at IS NULL AND failure IS NULL)
        OR (status = 'PAID' AND accepted_at IS NOT NULL AND settled_at IS NOT NULL AND failure IS NULL)
        OR (status = 'FAILED' AND settled_at IS NOT NULL AND failure IS NOT NULL)
    ),
    -- What was accepted for payment is settled, and neither cancelled nor expired.
    CONSTRAINT orders_accepted_are_settled CHECK (
        accepted_at IS NULL OR failure IS NULL OR failure ->> 'reason' NOT IN ('cancelled', 'expired')
    )
) STRICT;

CREATE INDEX        orders_user_id_id              ON orders (user_id, id);
CREATE INDEX        orders_status_id               ON orders (status, id);
CREATE UNIQUE INDEX orders_user_id_idempotency_key ON orders (user_id, idempotency_key) WHERE idempotency_key IS NOT NULL;
CREATE UNIQUE INDEX orders_reference_user_id       ON orders (reference, user_id) WHERE reference IS NOT NULL;
CREATE UNIQUE INDEX orders_payment_reference       ON orders (payment_reference) WHERE payment_reference IS NOT NULL;
-- Finds what the sweeper has to do; as small as the backlog. Says settled_at and not status, as the next one, so that no
-- planner looks through all PENDING orders instead.
CREATE INDEX        orders_notify_after            ON orders (notify_after) WHERE settled_at IS NULL AND accepted_at IS NOT NULL;
-- Finds the holds that have ended; has open holds without a payment and nothing else.
CREATE INDEX        orders_expires_at              ON orders (expires_at)   WHERE settled_at IS NULL AND accepted_at IS NULL AND expires_at IS NOT NULL;

-- The lines of orders. Rows are added with their order and never changed.
CREATE TABLE order_items (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    order_id   BLOB    NOT NULL CONSTRAINT order_items_of_an_order REFERENCES orders (id),
    product_id INTEGER NOT NULL CONSTRAINT order_items_of_a_product REFERENCES products (id),
    quantity   INTEGER NOT NULL CONSTRAINT order_items_quantity_positive CHECK (quantity > 0),
    -- Price of the product when the order was made.
    unit_price INTEGER NOT NULL CONSTRAINT order_items_unit_price_not_negative CHECK (unit_price >= 0),

    CONSTRAINT order_items_name_a_product_once UNIQUE (order_id, product_id)
) STRICT;

-- Unlike PostgreSQL's, this table has no index on product_id: it would cost a third of the rate at which orders are made, and
-- nothing here looks lines up by their product.
