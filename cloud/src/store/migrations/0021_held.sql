-- Rows under contexts of before a restore (docs/protocol.md 8.4): flag 32. There are few, or none.
CREATE INDEX reading_held ON reading (id) WHERE flags & 32 <> 0;
