-- The operator's book. Secrets in it are sealed under the vault; without the passphrase this file opens nothing.
CREATE TABLE meta (
    version INTEGER NOT NULL               -- grows with every change; what gateways are told carries it
);
INSERT INTO meta VALUES (1);
CREATE TABLE networks (
    net         INTEGER PRIMARY KEY,
    name        TEXT NOT NULL UNIQUE,
    pan         INTEGER NOT NULL UNIQUE,
    profile     TEXT NOT NULL,
    grp         INTEGER NOT NULL,          -- gateway group of its C2 contexts
    override    TEXT                       -- the operator's words, for a network weaker than the combinations
);
CREATE TABLE network_keys (
    net         INTEGER NOT NULL REFERENCES networks,
    idx         INTEGER NOT NULL,
    phase       INTEGER NOT NULL,          -- 1 distribute, 2 switch, 3 retire, 4 keep
    sealed      BLOB NOT NULL,
    retired_at  INTEGER,                   -- it is in recovery since then
    UNIQUE (net, idx)
);
CREATE TABLE rotations (
    net            INTEGER PRIMARY KEY REFERENCES networks,
    previous       INTEGER NOT NULL,       -- index of the key before
    idx            INTEGER NOT NULL,       -- index of the new key
    started_at     INTEGER NOT NULL,
    switched_at    INTEGER,
    rolled_back_at INTEGER,
    retired_at     INTEGER,
    is_paused      INTEGER NOT NULL,
    is_urgent      INTEGER NOT NULL,       -- somebody is to be shut out
    starts_over    INTEGER NOT NULL        -- somebody was revoked who may have the new key
);
CREATE TABLE gateways (
    gw          INTEGER PRIMARY KEY,
    net         INTEGER NOT NULL REFERENCES networks,
    name        TEXT NOT NULL UNIQUE,
    sid         INTEGER NOT NULL,
    did         BLOB NOT NULL UNIQUE,
    is_primary  INTEGER NOT NULL,
    revoked_at  INTEGER
);
CREATE TABLE certificates (                -- every one that was issued: what is not here counts for nothing
    serial      TEXT PRIMARY KEY,          -- lower-case hex
    gw          INTEGER REFERENCES gateways, -- whose; NULL: the cloud's
    not_before  INTEGER NOT NULL,
    not_after   INTEGER NOT NULL,
    spki        BLOB NOT NULL UNIQUE,      -- SHA-256 of the SubjectPublicKeyInfo: no key is certified twice
    receipts    BLOB,                      -- SubjectPublicKeyInfo of the gateway's key for receipts
    chain       TEXT NOT NULL,             -- as it was handed out, PEM
    revoked_at  INTEGER
);
CREATE INDEX certificates_of ON certificates (gw);
CREATE TABLE enrolments (
    hash        BLOB PRIMARY KEY,          -- SHA-256 of the token; a token has 256 random bits
    gw          INTEGER NOT NULL REFERENCES gateways,
    expires_at  INTEGER NOT NULL,
    serial      TEXT REFERENCES certificates -- what it was used for
);
CREATE TABLE late_renewals (               -- the operator's word: renew once although the certificate has ended
    gw          INTEGER PRIMARY KEY REFERENCES gateways,
    until       INTEGER NOT NULL
);
CREATE TABLE history (                     -- of certificates; only grows
    id          INTEGER PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    gw          INTEGER REFERENCES gateways, -- about whom; NULL: the cloud
    who         TEXT NOT NULL,             -- by whose word
    deed        TEXT NOT NULL,
    serial      TEXT,
    spki        BLOB
);
CREATE TABLE devices (
    did         BLOB PRIMARY KEY,
    sid         INTEGER NOT NULL,
    net         INTEGER NOT NULL REFERENCES networks,
    policy      BLOB NOT NULL,
    overrides   INTEGER NOT NULL,
    words       TEXT,                      -- the operator's words for the overrides
    epoch       INTEGER NOT NULL,
    sealed      BLOB NOT NULL,
    digest      BLOB NOT NULL UNIQUE,      -- keyed, so that equal secrets of two devices are seen (AR-07)
    enrolled_at INTEGER NOT NULL,
    revoked_at  INTEGER,
    UNIQUE (net, sid)
);
CREATE TABLE tokens (
    name        TEXT PRIMARY KEY,
    hash        BLOB NOT NULL UNIQUE,      -- SHA-256; a token has 256 random bits
    created_at  INTEGER NOT NULL,
    revoked_at  INTEGER
);
