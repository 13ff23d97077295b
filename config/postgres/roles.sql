-- Roles with no more rights than they need: shop_migrate owns the schema, shop_serve and shop_work use it. Run it as an
-- administrator in the shop's database, before the first `shop migrate` and again after every one (it repeats safely):
--
--   psql "$ADMIN_URL" -f config/postgres/roles.sql
--   SHOP_DATABASE_URL=postgres://shop_migrate:…@host/shop shop migrate
--   psql "$ADMIN_URL" -f config/postgres/roles.sql
--
-- Give the roles passwords of your own: ALTER ROLE shop_serve PASSWORD '…'.

DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['shop_migrate', 'shop_serve', 'shop_work'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN
            EXECUTE format('CREATE ROLE %I LOGIN', name);
        END IF;
        EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', current_database(), name);
    END LOOP;
END $$;

-- A process that is stopped in the middle of a transaction must not hold its row locks for ever. The shop sets this itself
-- when it connects. PgBouncer does not pass that on, so the roles have it too.
ALTER ROLE shop_serve SET idle_in_transaction_session_timeout = '15s';
ALTER ROLE shop_work SET idle_in_transaction_session_timeout = '15s';

-- Plans that do not change with the statistics, for the same reason at the same place: docs/adr/0019.
ALTER ROLE shop_serve SET enable_seqscan = off;
ALTER ROLE shop_work SET enable_seqscan = off;
ALTER ROLE shop_serve SET plan_cache_mode = force_generic_plan;
ALTER ROLE shop_work SET plan_cache_mode = force_generic_plan;
ALTER ROLE shop_serve SET jit = off;
ALTER ROLE shop_work SET jit = off;

-- Before PostgreSQL 15 everybody may create tables there.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE, CREATE ON SCHEMA public TO shop_migrate;
GRANT USAGE ON SCHEMA public TO shop_serve, shop_work;

DO $$
BEGIN
    IF to_regclass('public.orders') IS NULL THEN
        RAISE NOTICE 'no tables yet: run `shop migrate` as shop_migrate, then this again';
        RETURN;
    END IF;
    GRANT SELECT ON shop, products, orders, order_items, stock_movements, refunds, refund_items, outbox, ledger, ledger_totals,
        seaql_migrations TO shop_serve, shop_work;
    GRANT SELECT ON idempotency_keys TO shop_serve;
    -- The first process of an empty shop sets its currency.
    GRANT UPDATE (currency) ON shop TO shop_serve, shop_work;

    -- The API makes orders, holds their units, accepts their payment, cancels and expires them; administrators change the
    -- catalogue and refund orders through it. It takes no order's stock and changes no total.
    GRANT INSERT ON products, orders, order_items, stock_movements, refunds, refund_items, idempotency_keys TO shop_serve;
    GRANT UPDATE (name, search_name, sku, active, price, stock, held, low_since, low_stock, updated_at)
        ON products TO shop_serve;
    GRANT UPDATE (answer) ON idempotency_keys TO shop_serve;
    GRANT UPDATE (status, accepted_at, payment_reference, settled_at, failure, notify_after, notify_attempts, updated_at,
                  ledger_period)
        ON orders TO shop_serve;
    GRANT USAGE ON SEQUENCE products_id_seq, order_items_id_seq, stock_movements_id_seq TO shop_serve;

    -- Both store events with the facts that they are about. The worker publishes and deletes them.
    GRANT INSERT ON outbox TO shop_serve, shop_work;
    GRANT UPDATE (publish_after), DELETE ON outbox TO shop_work;

    -- The worker takes stock, settles and expires orders. It makes none, and changes no price.
    GRANT UPDATE (stock, held, low_since, low_stock, updated_at) ON products TO shop_work;
    GRANT UPDATE (status, total_price, settled_at, failure, notify_after, notify_attempts, updated_at, ledger_period)
        ON orders TO shop_work;

    -- The worker checks the ledger at regular intervals, and keeps where it goes on.
    GRANT UPDATE ON ledger TO shop_work;
    GRANT INSERT, UPDATE ON ledger_totals TO shop_work;
END $$;
