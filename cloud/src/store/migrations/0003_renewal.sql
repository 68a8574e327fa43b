-- Contexts that were agreed by EDHOC, and the generation of what gateways are pushed of them.
ALTER TABLE context ADD COLUMN agreed_at INTEGER;  -- Unix milliseconds; NULL: installed
ALTER TABLE context ADD COLUMN m3 BLOB;            -- SHA-256 of the message_3 that made it: a repeat of that one
ALTER TABLE context ADD COLUMN m4 BLOB;            -- is answered by this message_4, also after a restart
CREATE TABLE generation (
    only  INTEGER PRIMARY KEY CHECK (only = 1),
    value INTEGER NOT NULL                         -- at least the Unix second of its last change: a restored copy goes on above
) STRICT;
INSERT INTO generation VALUES (1, 0);
