-- What is counted together within the last minutes (crate alarm: Window); the row goes when it is quiet. -1: none.
CREATE TABLE alarm_window (
    code TEXT NOT NULL,
    net INTEGER NOT NULL,
    gateway INTEGER NOT NULL,
    sid INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (code, net, gateway, sid)
) WITHOUT ROWID;

CREATE TABLE alarm (
    n INTEGER PRIMARY KEY AUTOINCREMENT,
    id BLOB NOT NULL UNIQUE,
    at INTEGER NOT NULL,
    cause TEXT NOT NULL,            -- a code, or "dropped"
    severity INTEGER NOT NULL,      -- 2 warning, 3 high, 4 critical
    net INTEGER NOT NULL,
    gateway INTEGER NOT NULL,
    sid INTEGER NOT NULL,
    times INTEGER NOT NULL,
    over INTEGER                    -- when it was over
);
CREATE INDEX alarm_open ON alarm (cause, net, gateway, sid) WHERE over IS NULL;

CREATE TABLE alarm_sink (
    name TEXT PRIMARY KEY,
    upto INTEGER NOT NULL,          -- all alarms up to this one are at the sink, or from before it
    tried INTEGER,                  -- when the last one was tried
    failed TEXT                     -- what it said since the last that it took
) WITHOUT ROWID;

-- Alarms behind alarm_sink.upto that the sink has taken.
CREATE TABLE alarm_sent (
    sink TEXT NOT NULL,
    n INTEGER NOT NULL,
    PRIMARY KEY (sink, n)
) WITHOUT ROWID;
