-- A store that was put back from a copy (docs/protocol.md 8.4).
ALTER TABLE context ADD COLUMN restored_at INTEGER;  -- Unix milliseconds; what was answered under it before is not known
CREATE TABLE restored (at INTEGER NOT NULL) STRICT;  -- Unix milliseconds; only grows
