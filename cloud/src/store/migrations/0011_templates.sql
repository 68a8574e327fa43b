-- Rows of templates that nobody registered, by device: they are kept as they came.
CREATE TABLE unknown_row (
    did      BLOB PRIMARY KEY,
    n        INTEGER NOT NULL,
    id       INTEGER NOT NULL,             -- template of the last one, as the bits of a number without a sign
    at       INTEGER NOT NULL              -- Unix milliseconds: when that came
) STRICT;
