-- Events that are still to be published, of facts that no message of the queue carries. Each is stored in the transaction
-- of its fact, and deleted once it is published.
CREATE TABLE outbox (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    -- The attributes of the event (CloudEvents 1.0). Its id is the same for the same fact.
    event_id      TEXT    NOT NULL,
    type          TEXT    NOT NULL,
    subject       TEXT    NOT NULL,
    time          INTEGER NOT NULL,
    data          TEXT    NOT NULL CONSTRAINT outbox_data_is_json CHECK (json_valid(data)),
    -- When the event is due. A process that claims it moves this on, so that another one publishes it if that process dies.
    publish_after INTEGER NOT NULL DEFAULT (CAST(unixepoch('subsec') * 1000000 AS INTEGER))
) STRICT;
