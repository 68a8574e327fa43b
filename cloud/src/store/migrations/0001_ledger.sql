-- One row is both ledger entry and reading: what makes a repeat visible and what is shown are written together (W7).
CREATE TABLE context (
    id        INTEGER PRIMARY KEY,
    net       INTEGER NOT NULL,
    did       BLOB    NOT NULL,
    level     INTEGER NOT NULL,            -- 3 C3, 2 the gateway's word for C2, 1 the link alone
    epoch     INTEGER NOT NULL,
    bctx      BLOB    NOT NULL,            -- empty, or the 8 bytes of a boot id; those of mode R stay for ever
    standing  INTEGER NOT NULL,            -- 1 active, 2 pending, 3 draining
    since     INTEGER NOT NULL,            -- Unix milliseconds: when it took this standing
    sealed    BLOB,                        -- MS3 and salt3 under the operator's vault, for draining contexts
    failures  INTEGER NOT NULL DEFAULT 0,  -- failed verifications
    bound     INTEGER NOT NULL DEFAULT 0,  -- our own sender numbers below this may have been used (W1)
    UNIQUE (net, did, level, epoch, bctx)
);
CREATE TABLE reading (
    id        INTEGER PRIMARY KEY,
    ctx       INTEGER NOT NULL,
    piv       INTEGER NOT NULL,
    variant   INTEGER NOT NULL,            -- 0; more only where two stand by a gateway's word alone
    hash      BLOB    NOT NULL,            -- ciphertext hash, 16 bytes
    sid       INTEGER NOT NULL,
    origin    INTEGER NOT NULL,
    gateway   INTEGER NOT NULL,
    seq       INTEGER NOT NULL,
    received  INTEGER NOT NULL,            -- Unix milliseconds, the gateway's clock
    ingested  INTEGER NOT NULL,            -- Unix milliseconds, our clock
    link      INTEGER NOT NULL,
    hops      INTEGER,
    key_index INTEGER,
    rssi      INTEGER,
    lqi       INTEGER,
    fresh     INTEGER NOT NULL,
    flags     INTEGER NOT NULL,
    payload   BLOB    NOT NULL,
    UNIQUE (ctx, piv, variant)
);
CREATE TABLE rejection (
    code    TEXT    NOT NULL,
    net     INTEGER NOT NULL,              -- -1 where it is not known, and so below
    gateway INTEGER NOT NULL,
    sid     INTEGER NOT NULL,
    place   TEXT    NOT NULL,              -- who refused: cloud or gateway
    n       INTEGER NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    UNIQUE (code, net, gateway, sid, place)
);
CREATE TABLE quarantine (
    id       INTEGER PRIMARY KEY,
    at       INTEGER NOT NULL,
    code     TEXT    NOT NULL,
    ctx      INTEGER NOT NULL,
    piv      INTEGER NOT NULL,
    hash     BLOB    NOT NULL,
    gateway  INTEGER NOT NULL,
    payload  BLOB    NOT NULL
);
CREATE TABLE orphan (
    id       INTEGER PRIMARY KEY,
    net      INTEGER NOT NULL,
    sid      INTEGER NOT NULL,
    at       INTEGER NOT NULL,
    gateway  INTEGER NOT NULL,
    hash     BLOB    NOT NULL UNIQUE,      -- of the whole envelope without its number and time: kept once
    envelope BLOB    NOT NULL
);
CREATE INDEX orphan_of ON orphan (net, sid);
CREATE TABLE sequence (
    gateway  INTEGER NOT NULL,
    boot     BLOB    NOT NULL,
    next     INTEGER NOT NULL,
    UNIQUE (gateway, boot)
);
CREATE TABLE receipt (
    id       INTEGER PRIMARY KEY,
    gateway  INTEGER NOT NULL,
    boot     BLOB    NOT NULL,
    first    INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    root     BLOB    NOT NULL,
    at       INTEGER NOT NULL,
    cose     BLOB    NOT NULL,
    UNIQUE (gateway, boot, first, count, root)
);
CREATE TABLE command (
    did      BLOB    NOT NULL,
    id       INTEGER NOT NULL,             -- grows per device
    op       INTEGER NOT NULL,
    args     BLOB    NOT NULL,             -- CBOR items, one after the other
    at       INTEGER NOT NULL,
    done     INTEGER,
    status   INTEGER,
    value    BLOB,
    UNIQUE (did, id)
);
CREATE TABLE report (
    did      BLOB PRIMARY KEY,             -- the last control map in which a device said how it is
    at       INTEGER NOT NULL,
    control  BLOB NOT NULL
);
CREATE TABLE pushed (
    gateway  INTEGER NOT NULL UNIQUE,
    version  INTEGER NOT NULL              -- of the state that it was pushed last
);
