-- What devices sign (docs/protocol.md 13.1). The salt stays with the reading, so that K_blind can be erased with its epoch;
-- tbs is made again from the reading's row and its context's.
CREATE TABLE leaf (
    reading  INTEGER PRIMARY KEY,
    salt     BLOB    NOT NULL,             -- 16 bytes
    batch    INTEGER                       -- the batch that proves the reading
) STRICT;
CREATE INDEX leaf_unproven ON leaf (reading) WHERE batch IS NULL;
-- What a device said it signed, whatever became of it.
CREATE TABLE batch (
    id        INTEGER PRIMARY KEY,
    did       BLOB    NOT NULL,
    number    INTEGER NOT NULL,            -- the device's own
    first     INTEGER NOT NULL,            -- sender number that bit 0 of the bitmap stands for
    bitmap    BLOB    NOT NULL,            -- 1 to 8 bytes, as signed
    signature BLOB    NOT NULL,
    ctx       INTEGER NOT NULL,            -- the context it came under; once verified, that of its readings
    at        INTEGER NOT NULL,            -- Unix milliseconds: when it came first
    state     INTEGER NOT NULL DEFAULT 0,  -- 0 open, 1 verified, 2 the signature does not hold, 3 cannot be completed
    missing   INTEGER,                     -- once verified: bits of readings that are not here, 64 of them
    statement BLOB,                        -- SHA-256 of what was signed
    leaves    BLOB,                        -- 32 bytes each, in order of their numbers
    cose      BLOB,                        -- the COSE_Sign1
    UNIQUE (did, number, first, bitmap, signature)
) STRICT;
CREATE INDEX batch_open ON batch (did) WHERE state = 0 OR missing <> 0;
-- Parts of signatures, until all are here.
CREATE TABLE batch_part (
    did      BLOB    NOT NULL,
    number   INTEGER NOT NULL,
    idx      INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    bytes    BLOB    NOT NULL,
    UNIQUE (did, number, idx)
) STRICT;
-- Leaf hashes by which a batch can be verified although readings are missing.
CREATE TABLE batch_leaf (
    did      BLOB    NOT NULL,
    number   INTEGER NOT NULL,
    idx      INTEGER NOT NULL,             -- among the readings of the batch
    hash     BLOB    NOT NULL,
    UNIQUE (did, number, idx)
) STRICT;
