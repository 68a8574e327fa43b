-- What goes to the deployment's log (docs/protocol.md 13.2), in this order, written with the event itself (W9).
CREATE TABLE log_entry (
    id      INTEGER PRIMARY KEY,
    kind    TEXT    NOT NULL,              -- b1, g1, en, rv, rs, cf
    ref     INTEGER,                       -- b1: row of batch; g1: row of receipt
    did     BLOB,                          -- en, cf: the device
    record  BLOB,                          -- all but b1 and g1, whose records stand in their own tables
    idx     INTEGER UNIQUE                 -- its place in the log, once that is known
) STRICT;
CREATE UNIQUE INDEX log_of ON log_entry (kind, ref) WHERE ref IS NOT NULL;
CREATE INDEX log_waiting ON log_entry (id) WHERE idx IS NULL;
CREATE INDEX log_records ON log_entry (kind, id) WHERE record IS NOT NULL;
INSERT INTO log_entry (kind, ref) SELECT 'b1', id FROM batch WHERE state = 1 ORDER BY id;
