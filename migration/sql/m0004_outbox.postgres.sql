-- Rows come and go, so it is vacuumed after so many changes, however large it once was.
CREATE TABLE outbox (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    event_id      text        NOT NULL,
    type          text        NOT NULL,
    subject       text        NOT NULL,
    time          timestamptz NOT NULL,
    data          jsonb       NOT NULL,
    publish_after timestamptz NOT NULL DEFAULT now()
) WITH (autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

COMMENT ON TABLE  outbox               IS 'Events that are still to be published, of facts that no message of the queue carries. Each is stored in the transaction of its fact, and deleted once it is published.';
COMMENT ON COLUMN outbox.id            IS 'Counts up.';
COMMENT ON COLUMN outbox.event_id      IS 'The id of the event (CloudEvents 1.0), the same for the same fact.';
COMMENT ON COLUMN outbox.type          IS 'The type of the event, such as order.failed; also its routing key.';
COMMENT ON COLUMN outbox.subject       IS 'The id of the order or product that the event is about.';
COMMENT ON COLUMN outbox.time          IS 'When it happened.';
COMMENT ON COLUMN outbox.data          IS 'The data of the event.';
COMMENT ON COLUMN outbox.publish_after IS 'When the event is due. A process that claims it moves this on, so that another one publishes it if that process dies.';
