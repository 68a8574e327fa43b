-- Classic devices: Waspmote and Plug & Sense! nodes. Made when a book is made, or when an older one is opened for changes.
CREATE TABLE IF NOT EXISTS classic_networks (  -- those that take classic devices
    net          INTEGER PRIMARY KEY REFERENCES networks
) STRICT;
CREATE TABLE IF NOT EXISTS classic_sensors (   -- sensors that users added to their nodes' software
    net          INTEGER PRIMARY KEY REFERENCES networks,
    file         TEXT NOT NULL             -- as the operator gave it
) STRICT;
CREATE TABLE IF NOT EXISTS classic_shared (    -- devices that have one key with others (AR-07); the key does not stand here
    grp          INTEGER NOT NULL,         -- each key is one group
    did          BLOB NOT NULL,
    PRIMARY KEY (grp, did)
) STRICT;
CREATE TABLE IF NOT EXISTS classic_hardened (  -- keys of the hardened profile that were brought by hand
    did          BLOB NOT NULL REFERENCES classic_devices,
    level        INTEGER NOT NULL,         -- 2 for the gateway, 3 for the cloud
    epoch        INTEGER NOT NULL,
    gw           INTEGER REFERENCES gateways, -- the one gateway that has it: two would answer under one nonce
    sealed       BLOB NOT NULL,
    made_at      INTEGER NOT NULL,
    PRIMARY KEY (did, level, epoch)
) STRICT;
CREATE TABLE IF NOT EXISTS classic_devices (
    did          BLOB PRIMARY KEY,         -- v15: the serial; v12: 4 zero bytes and the serial
    sid          INTEGER NOT NULL,
    net          INTEGER NOT NULL REFERENCES networks,
    serial       TEXT NOT NULL UNIQUE,
    node_id      TEXT,
    sensors      TEXT,                     -- the nodes' table, where it is not that of their hardware
    dev_eui      BLOB UNIQUE,
    is_hardened  INTEGER NOT NULL,
    gateway_bits INTEGER,                  -- size of its key for the gateway, if it has one
    gateway_weak TEXT,                     -- what makes that one easy to guess
    cloud_bits   INTEGER,
    cloud_weak   TEXT,
    words        TEXT,                     -- the operator's words for a weak key
    sealed       BLOB NOT NULL,            -- both keys
    added_at     INTEGER NOT NULL,
    revoked_at   INTEGER,
    UNIQUE (net, sid)
) STRICT;
CREATE TABLE IF NOT EXISTS classic_signing_keys (  -- RSA, of hardened nodes; only grows
    name         BLOB PRIMARY KEY,         -- the first 8 bytes of SHA-256 of the SubjectPublicKeyInfo
    did          BLOB NOT NULL REFERENCES classic_devices,
    spki         BLOB NOT NULL,            -- SubjectPublicKeyInfo, DER
    origin       INTEGER NOT NULL,         -- 0 not known, 1 made on the device, 2 in a secure element, 3 made elsewhere
    chain        TEXT NOT NULL,            -- its certificate, PEM
    not_after    INTEGER NOT NULL,
    certified_at INTEGER NOT NULL,
    revoked_at   INTEGER
) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS classic_signing_key_in_force ON classic_signing_keys (did) WHERE revoked_at IS NULL;
