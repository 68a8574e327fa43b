-- Batches are numbered within a chain: 0 for that of a device over all its epochs; of one that keeps none of its numbers (mode
-- R) each boot is a chain of its own, named by the row of its context.
ALTER TABLE batch ADD COLUMN chain INTEGER NOT NULL DEFAULT 0;
UPDATE batch SET chain = ctx WHERE ctx IN (SELECT id FROM context WHERE bctx <> x'');
-- What is kept of one device has bounds from now on (docs/protocol.md 13.1); the newest stay.
UPDATE batch SET state = 3 WHERE id IN (SELECT id FROM
    (SELECT id, row_number() OVER (PARTITION BY did ORDER BY id DESC) AS n FROM batch WHERE state = 0) WHERE n > 64);
DELETE FROM batch WHERE id IN (SELECT id FROM
    (SELECT id, row_number() OVER (PARTITION BY did ORDER BY id DESC) AS n FROM batch WHERE state > 1) WHERE n > 256);
DROP INDEX batch_open;
CREATE INDEX batch_open ON batch (did, id) WHERE state = 0;
CREATE INDEX batch_closed ON batch (did, id) WHERE state > 1;
CREATE INDEX batch_late ON batch (ctx, first) WHERE missing <> 0;
CREATE INDEX batch_chain ON batch (did, chain, id) WHERE state = 1;
ALTER TABLE batch_part RENAME TO batch_part_before;
CREATE TABLE batch_part (
    did      BLOB    NOT NULL,
    chain    INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    idx      INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    bytes    BLOB    NOT NULL,
    UNIQUE (did, chain, number, idx)
) STRICT;
INSERT INTO batch_part SELECT did, 0, number, idx, count, bytes FROM batch_part_before;
DROP TABLE batch_part_before;
ALTER TABLE batch_leaf RENAME TO batch_leaf_before;
CREATE TABLE batch_leaf (
    did      BLOB    NOT NULL,
    chain    INTEGER NOT NULL,
    number   INTEGER NOT NULL,
    idx      INTEGER NOT NULL,             -- among the readings of the batch
    hash     BLOB    NOT NULL,
    at       INTEGER NOT NULL,             -- Unix milliseconds: when it came last
    UNIQUE (did, chain, number, idx)
) STRICT;
INSERT INTO batch_leaf SELECT did, 0, number, idx, hash, unixepoch() * 1000 FROM batch_leaf_before;
DROP TABLE batch_leaf_before;
-- Labels that were raised, in order: what followers of readings are told.
CREATE TABLE raised (
    id       INTEGER PRIMARY KEY,
    reading  INTEGER NOT NULL
) STRICT;
