-- One row: which shop this database belongs to.
CREATE TABLE shop (
    -- Identity of this database, 16 random bytes. A copy keeps it, a database that was made anew has another.
    database_id BLOB    NOT NULL DEFAULT (randomblob(16)),
    -- ISO 4217. Each start sets it to the configured currency until the first product or order exists.
    currency    TEXT             CONSTRAINT shop_currency_is_iso_4217 CHECK (currency GLOB '[A-Z][A-Z][A-Z]'),
    created_at  INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    -- Always 1: the key that keeps this table at one row.
    only_row    INTEGER PRIMARY KEY DEFAULT 1 CONSTRAINT shop_has_one_row CHECK (only_row = 1)
) STRICT;

INSERT INTO shop DEFAULT VALUES;

-- The catalogue, with the stock of each product.
CREATE TABLE products (
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    name        TEXT    NOT NULL,
    -- The name as GET /products?q= compares names: in NFKC and without case. Computed by the shop. Leave it out of an
    -- INSERT, and set it to NULL when you change a name by hand: the next start of shop serve fills it in.
    search_name TEXT,
    -- Stock keeping unit: what other systems call the product, unique.
    sku         TEXT             CONSTRAINT products_sku_not_empty CHECK (sku <> ''),
    -- 0 once the product is taken off the list: it is not listed and cannot be ordered.
    active      INTEGER NOT NULL DEFAULT 1 CONSTRAINT products_active_is_boolean CHECK (active IN (0, 1)),
    -- Whole minor units of currency (1999 is 19.99 USD). Orders keep the price they were made at.
    price       INTEGER NOT NULL CONSTRAINT products_price_not_negative CHECK (price >= 0),
    -- ISO 4217. Left out of an INSERT, it is the currency of the shop.
    currency    TEXT    NOT NULL DEFAULT '' CONSTRAINT products_currency_has_three_letters
                        CHECK (length(currency) IN (0, 3)),
    -- Units on the shelf: the sum of stock_movements less the units in PAID orders.
    stock       INTEGER NOT NULL CONSTRAINT products_stock_not_negative CHECK (stock >= 0),
    -- Units of the stock that are on hold: those in PENDING orders with expires_at.
    held        INTEGER NOT NULL DEFAULT 0 CONSTRAINT products_held_within_stock CHECK (held >= 0 AND held <= stock),
    -- When stock last fell to the low-stock threshold, NULL while it is above; and the stock that it fell to then.
    low_since   INTEGER,
    low_stock   INTEGER,
    created_at  INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER)),
    updated_at  INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;

-- Finds what was inserted by hand, whose search_name is still to be computed.
CREATE INDEX products_without_search_name ON products (id) WHERE search_name IS NULL;
CREATE UNIQUE INDEX products_sku      ON products (sku) WHERE sku IS NOT NULL;
-- Lists what is off the list.
CREATE INDEX        products_inactive ON products (id) WHERE NOT active;

-- A product that is inserted by hand without a currency is priced in the shop's.
CREATE TRIGGER products_default_currency AFTER INSERT ON products WHEN NEW.currency = '' BEGIN
    UPDATE products SET currency = (SELECT currency FROM shop) WHERE id = NEW.id;
END;

-- Every change of stock but the sales of orders that exist, and what deleted orders had sold. Rows are added and never
-- changed.
CREATE TABLE stock_movements (
    id              INTEGER PRIMARY KEY AUTOINCREMENT,
    product_id      INTEGER NOT NULL CONSTRAINT stock_movements_of_a_product REFERENCES products (id),
    -- Units put on the shelf (positive), written off or sold by orders that are deleted (negative).
    delta           INTEGER NOT NULL CONSTRAINT stock_movements_delta_not_zero CHECK (delta <> 0),
    reason          TEXT    NOT NULL,
    -- The Idempotency-Key of the request that changed it, and the administrator who did, where they are known.
    idempotency_key TEXT,
    user_id         INTEGER,
    -- When the stock changed. For what deleted orders had sold, when they were deleted.
    created_at      INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;

-- Lists the movements of a product, newest first. Serves shop verify, which adds them up.
CREATE INDEX stock_movements_product_id_id ON stock_movements (product_id, id);

-- Requests of administrators that were done once, with the first answer. Rows are added with what the request did. One may be
-- deleted when nobody will send its request again.
CREATE TABLE idempotency_keys (
    -- Unique for all administrators together.
    idempotency_key TEXT    PRIMARY KEY NOT NULL,
    -- Tells a transaction that ran again, because its answer was lost, from a request that was sent again.
    request_id      BLOB    NOT NULL,
    -- What was asked for, as JSON: another request under the same key is refused.
    request         TEXT    NOT NULL,
    -- The body of the first answer. NULL only inside the transaction that adds the row.
    answer          TEXT,
    created_at      INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
