-- Since when a device has said what it says of its network keys, and to whom a key was given.
ALTER TABLE link_keys ADD COLUMN since INTEGER NOT NULL DEFAULT 0;
UPDATE link_keys SET since = at;
CREATE TABLE link_told (
    did       BLOB PRIMARY KEY,
    idx       INTEGER NOT NULL,            -- index of the network key that was put into an answer to it
    at        INTEGER NOT NULL             -- when, the first time
) STRICT;
