-- One row: how far the periodic check of the ledger has come, what the last one found, and who is making one. shop verify
-- does not read it.
CREATE TABLE ledger (
    -- The number that orders get when they are settled. Each check raises it.
    period              INTEGER NOT NULL DEFAULT 1,
    -- On PostgreSQL: every transaction that may still write an earlier period has a lower id. Here, with one writer, there is
    -- no such transaction.
    period_xid          INTEGER          DEFAULT 0,
    -- The last stock movement that was committed then.
    period_movement_id  INTEGER          DEFAULT 0,
    -- ledger_totals holds the units of the PAID orders of all earlier periods, and all stock movements up to this one.
    base_period         INTEGER NOT NULL DEFAULT 1,
    base_movement_id    INTEGER NOT NULL DEFAULT 0,
    -- Whether the last check found nothing wrong with stock and settled orders. Then the next one goes on from ledger_totals;
    -- else it reads everything.
    is_clean            INTEGER NOT NULL DEFAULT 0,
    -- When the last check ended and what it found, 1,000 of a kind at most.
    checked_at          INTEGER,
    stock_discrepancies INTEGER NOT NULL DEFAULT 0,
    hold_discrepancies  INTEGER NOT NULL DEFAULT 0,
    order_discrepancies INTEGER NOT NULL DEFAULT 0,
    overdue             INTEGER NOT NULL DEFAULT 0,
    -- When the last check ended, or failed.
    attempted_at        INTEGER,
    -- The process that is making a check, by a number that it has drawn, and when another one may take over.
    lease_holder        BLOB,
    lease_until         INTEGER,
    -- Always 1: the key that keeps this table at one row.
    only_row            INTEGER PRIMARY KEY DEFAULT 1 CONSTRAINT ledger_has_one_row CHECK (only_row = 1)
) STRICT;

INSERT INTO ledger DEFAULT VALUES;

-- What the last clean check added up, so that the next one need not.
CREATE TABLE ledger_totals (
    product_id INTEGER PRIMARY KEY,
    -- Sum of its stock movements up to ledger.base_movement_id.
    put_in     INTEGER NOT NULL,
    -- Its units in the PAID orders of the periods before ledger.base_period.
    sold       INTEGER NOT NULL
) STRICT;

-- ledger.period when the order was settled; NULL while it is PENDING.
ALTER TABLE orders ADD COLUMN ledger_period INTEGER;

-- Finds the orders that were settled since the last clean check of the ledger.
CREATE INDEX orders_ledger_period ON orders (ledger_period) WHERE ledger_period IS NOT NULL;

-- The worker writes the period itself. An order that is settled in any other way, by hand too, gets it here.
CREATE TRIGGER orders_default_ledger_period_on_insert AFTER INSERT ON orders
    WHEN NEW.status <> 'PENDING' AND NEW.ledger_period IS NULL
BEGIN
    UPDATE orders SET ledger_period = (SELECT period FROM ledger) WHERE id = NEW.id;
END;

CREATE TRIGGER orders_default_ledger_period_on_update AFTER UPDATE OF status ON orders
    WHEN NEW.status <> 'PENDING' AND NEW.ledger_period IS NULL
BEGIN
    UPDATE orders SET ledger_period = (SELECT period FROM ledger) WHERE id = NEW.id;
END;
