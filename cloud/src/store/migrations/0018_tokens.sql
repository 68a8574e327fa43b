-- When each token of the API was used last, to the minute.
CREATE TABLE token_use (
    hash BLOB PRIMARY KEY,          -- SHA-256 of the token
    at INTEGER NOT NULL,
    place TEXT NOT NULL             -- the address that it came from
) STRICT, WITHOUT ROWID;

-- Written by whoever asks whether the store can be written.
CREATE TABLE probe (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    at INTEGER NOT NULL
) STRICT;
