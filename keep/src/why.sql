-- Why something was refused, for a while. No payload: every text is of ours.
CREATE TABLE IF NOT EXISTS why (n INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB NOT NULL, at INTEGER NOT NULL,
    code TEXT NOT NULL, reason TEXT NOT NULL, expected TEXT NOT NULL, came TEXT NOT NULL, net INTEGER,
    gateway INTEGER, sid INTEGER);
CREATE INDEX IF NOT EXISTS why_id ON why (id);
CREATE INDEX IF NOT EXISTS why_code ON why (code, at);
CREATE INDEX IF NOT EXISTS why_at ON why (at);
