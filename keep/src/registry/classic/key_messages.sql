-- Key messages of hardened classic devices (docs/protocol.md 12). Made when a book is made, or when an older one is opened for changes.
CREATE TABLE IF NOT EXISTS classic_servers (   -- RSA keys of the cloud that key messages are sealed for
    kid          BLOB PRIMARY KEY,         -- srv_kid
    bits         INTEGER NOT NULL,
    spki         BLOB NOT NULL,
    sealed       BLOB NOT NULL,            -- PKCS #8
    made_at      INTEGER NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS classic_enrolled (  -- who may send them (kr1_auth = mac)
    did          BLOB NOT NULL REFERENCES classic_devices,
    level        INTEGER NOT NULL,         -- as in classic_hardened
    bits         INTEGER NOT NULL,         -- size of the cloud's key that it seals for
    sealed       BLOB NOT NULL,            -- enrolment key
    made_at      INTEGER NOT NULL,
    PRIMARY KEY (did, level)
) STRICT;
CREATE TABLE IF NOT EXISTS classic_standing (  -- where a key stands; without a row it waits for its first frame
    did          BLOB NOT NULL,
    level        INTEGER NOT NULL,
    epoch        INTEGER NOT NULL,
    standing     INTEGER NOT NULL,         -- 0 pending, 1 active, 2 draining
    until_ms     INTEGER,                  -- of one that drains: its end
    message      BLOB,                     -- SHA-256 of the KR1 that brought it, and what that one was answered
    answer       BLOB,
    PRIMARY KEY (did, level, epoch)
) STRICT;
