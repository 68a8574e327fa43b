-- Where readings go: how far each sink is. The readings themselves are the queue; nothing is copied.
CREATE TABLE outbox (
    name TEXT PRIMARY KEY,
    kind TEXT NOT NULL,             -- a name stays with its kind
    reading INTEGER NOT NULL,       -- all readings up to this one are at the sink, or are dead letters, or from before it
    raised INTEGER NOT NULL,        -- the same of labels
    since INTEGER NOT NULL,
    sent INTEGER NOT NULL DEFAULT 0,
    retried INTEGER NOT NULL DEFAULT 0,
    asked INTEGER NOT NULL DEFAULT 0, -- grows when a person wants it tried now
    paused INTEGER,                 -- when a person stopped it
    gone INTEGER,                   -- when it was left out of cloud.toml
    tried INTEGER,
    failed TEXT                     -- what it said since the last that it took
) STRICT, WITHOUT ROWID;

-- What a sink will never take, in its words, until a person sends it again and it does.
CREATE TABLE dead_letter (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    sink TEXT NOT NULL,
    reading INTEGER NOT NULL,
    label INTEGER NOT NULL,         -- 1: what the sink refused is the raised label
    at INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    said TEXT NOT NULL,
    again INTEGER,                  -- when a person sent it again
    UNIQUE (sink, reading, label)
) STRICT;
CREATE INDEX dead_letter_of ON dead_letter (reading);
