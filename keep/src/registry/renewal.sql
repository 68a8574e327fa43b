-- What renewal by EDHOC needs (docs/protocol.md 11). Made when a book is made, or when an older one is opened for changes.
CREATE TABLE IF NOT EXISTS cloud_keys (
    kid         INTEGER PRIMARY KEY,       -- 0 to 23
    sealed      BLOB NOT NULL              -- the P-256 scalar
) STRICT;
CREATE TABLE IF NOT EXISTS renewals (
    did         BLOB PRIMARY KEY REFERENCES devices,
    x           BLOB NOT NULL UNIQUE,      -- of its public DH key, which no two devices share (AR-07)
    installed   INTEGER NOT NULL,          -- 0: its share holds no contexts, its first ones are agreed
    highest     INTEGER NOT NULL,          -- no epoch up to this one is agreed any more; written by the cloud as well
    agreed_at   INTEGER,                   -- when that one was agreed
    ordered_at  INTEGER                    -- when the operator ordered it to renew
) STRICT;
CREATE TABLE IF NOT EXISTS local_networks (    -- their devices agree keys with one gateway alone, and not with the cloud
    net         INTEGER PRIMARY KEY REFERENCES networks,
    gw          INTEGER NOT NULL REFERENCES gateways,
    x           BLOB NOT NULL              -- of that gateway's public DH key
) STRICT;
