-- After the database was restored to an earlier moment: run it as the owner of the tables, before any process of the shop
-- is started. docs/backup.md says what each step is for. It may be run twice.
--
--   psql "$ADMIN_URL" -f config/postgres/after-restore.sql

\set ON_ERROR_STOP on

BEGIN;

-- From now on this is another database than the one before. Nothing is found of what Redis holds of that, carts included:
-- they may hold products, or have become orders, that do not exist any more.
UPDATE shop SET database_id = gen_random_uuid();

-- Ids that were given out after that moment are not given out again: others may know them.
SELECT counter, setval(counter::regclass, nextval(counter::regclass) + lost)
  FROM (VALUES (pg_get_serial_sequence('products', 'id'), 1000000),
               (pg_get_serial_sequence('stock_movements', 'id'), 1000000),
               (pg_get_serial_sequence('order_items', 'id'), 1000000000)) AS counters (counter, lost);

-- Units stay on hold for another hour, so that a payment that was accepted after that moment can be accepted again.
UPDATE orders
   SET expires_at = now() + interval '1 hour', updated_at = now()
 WHERE settled_at IS NULL
   AND accepted_at IS NULL
   AND expires_at < now() + interval '1 hour';

-- The next periodic check of the ledger reads everything, and is due at once.
UPDATE ledger SET is_clean = false, attempted_at = NULL, lease_holder = NULL, lease_until = NULL;

COMMIT;
