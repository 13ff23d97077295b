CREATE TABLE ledger (
    period              bigint      NOT NULL DEFAULT 1,
    period_xid          bigint               DEFAULT 0,
    period_movement_id  bigint               DEFAULT 0,
    base_period         bigint      NOT NULL DEFAULT 1,
    base_movement_id    bigint      NOT NULL DEFAULT 0,
    is_clean            boolean     NOT NULL DEFAULT false,
    checked_at          timestamptz,
    stock_discrepancies bigint      NOT NULL DEFAULT 0,
    hold_discrepancies  bigint      NOT NULL DEFAULT 0,
    order_discrepancies bigint      NOT NULL DEFAULT 0,
    overdue             bigint      NOT NULL DEFAULT 0,
    attempted_at        timestamptz,
    lease_holder        uuid,
    lease_until         timestamptz,
    only_row            boolean     PRIMARY KEY DEFAULT true CONSTRAINT ledger_has_one_row CHECK (only_row)
);

INSERT INTO ledger DEFAULT VALUES;

COMMENT ON TABLE  ledger                     IS 'One row: how far the periodic check of the ledger has come, what the last one found, and who is making one. shop verify does not read it.';
COMMENT ON COLUMN ledger.period              IS 'The number that orders get when they are settled. Each check raises it.';
COMMENT ON COLUMN ledger.period_xid          IS 'Every transaction that may still write an earlier period has a lower transaction id than this. NULL: not known yet.';
COMMENT ON COLUMN ledger.period_movement_id  IS 'The last stock movement that was committed then.';
COMMENT ON COLUMN ledger.base_period         IS 'ledger_totals holds the units of the PAID orders of all earlier periods.';
COMMENT ON COLUMN ledger.base_movement_id    IS 'ledger_totals holds all stock movements up to this one.';
COMMENT ON COLUMN ledger.is_clean            IS 'Whether the last check found nothing wrong with stock and settled orders. Then the next one goes on from ledger_totals; else it reads everything.';
COMMENT ON COLUMN ledger.checked_at          IS 'When the last check ended; NULL before the first.';
COMMENT ON COLUMN ledger.stock_discrepancies IS 'Products whose stock did not add up at the last check, 1,000 at most.';
COMMENT ON COLUMN ledger.hold_discrepancies  IS 'Products whose units on hold were not those of the open holds at the last check, 1,000 at most.';
COMMENT ON COLUMN ledger.order_discrepancies IS 'Settled orders that contradicted themselves at the last check, 1,000 at most.';
COMMENT ON COLUMN ledger.overdue             IS 'Orders that were accepted more than five minutes before the last check and were not settled, 1,000 at most.';
COMMENT ON COLUMN ledger.attempted_at        IS 'When the last check ended, or failed.';
COMMENT ON COLUMN ledger.lease_holder        IS 'The process that is making a check, by a number that it has drawn; NULL while none is.';
COMMENT ON COLUMN ledger.lease_until         IS 'When another process may take over. The holder moves it on for as long as it lives.';
COMMENT ON COLUMN ledger.only_row            IS 'Always true: the key that keeps this table at one row.';

CREATE TABLE ledger_totals (
    product_id bigint PRIMARY KEY, -- without a foreign key, which would lock the products' rows
    put_in     bigint NOT NULL,
    sold       bigint NOT NULL
);

COMMENT ON TABLE  ledger_totals            IS 'What the last clean check added up, so that the next one need not.';
COMMENT ON COLUMN ledger_totals.product_id IS 'The product.';
COMMENT ON COLUMN ledger_totals.put_in     IS 'Sum of its stock movements up to ledger.base_movement_id.';
COMMENT ON COLUMN ledger_totals.sold       IS 'Its units in the PAID orders of the periods before ledger.base_period.';

ALTER TABLE orders ADD COLUMN ledger_period bigint;

CREATE INDEX orders_ledger_period ON orders (ledger_period) WHERE ledger_period IS NOT NULL;

COMMENT ON COLUMN orders.ledger_period        IS 'ledger.period when the order was settled; NULL while it is PENDING.';
COMMENT ON INDEX  orders_ledger_period        IS 'Finds the orders that were settled since the last clean check of the ledger.';

-- The worker writes the period itself. An order that is settled in any other way, by hand too, gets it here.
CREATE FUNCTION orders_default_ledger_period() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    NEW.ledger_period := (SELECT period FROM ledger);
    RETURN NEW;
END $$;

CREATE TRIGGER orders_default_ledger_period BEFORE INSERT OR UPDATE OF status ON orders
    FOR EACH ROW WHEN (NEW.status <> 'PENDING' AND NEW.ledger_period IS NULL)
    EXECUTE FUNCTION orders_default_ledger_period();
