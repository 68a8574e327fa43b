CREATE TABLE link_keys (
    did       BLOB PRIMARY KEY,
    sending   INTEGER NOT NULL,            -- index of the network key that the device said it sends under
    receiving INTEGER,                     -- and another that it takes frames under
    at        INTEGER NOT NULL
) STRICT;
