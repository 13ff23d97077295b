-- After the file was replaced by an earlier copy: run it before the shop is started. docs/backup.md says what each step is
-- for. It may be run twice.
--
--   sqlite3 -bail shop.db < config/sqlite/after-restore.sql

BEGIN IMMEDIATE;

-- From now on this is another database than the one before: nothing is found of what a Redis holds of that.
UPDATE shop SET database_id = randomblob(16);

-- Ids that were given out after the copy was made are not given out again: others may know them.
UPDATE sqlite_sequence SET seq = seq + 1000000 WHERE name IN ('products', 'stock_movements');
UPDATE sqlite_sequence SET seq = seq + 1000000000 WHERE name = 'order_items';

-- Units stay on hold for another hour, so that a payment that was accepted after the copy can be accepted again.
UPDATE orders
   SET expires_at = unixepoch() * 1000000 + 3600000000, updated_at = unixepoch() * 1000000
 WHERE settled_at IS NULL
   AND accepted_at IS NULL
   AND expires_at < unixepoch() * 1000000 + 3600000000;

-- The next periodic check of the ledger reads everything, and is due at once.
UPDATE ledger SET is_clean = 0, attempted_at = NULL, lease_holder = NULL, lease_until = NULL;

COMMIT;
