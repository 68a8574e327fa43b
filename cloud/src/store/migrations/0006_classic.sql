-- Classic frames (W1 to W17): what the ledger's row of one says, value by value, in the tables that scripts on a Meshlium read.
CREATE TABLE classic (
    reading  INTEGER PRIMARY KEY,          -- reading.id, of quarantined ones too
    suite    TEXT    NOT NULL,             -- classic, or classic-hardened
    serial   TEXT    NOT NULL,             -- lower-case hex, or decimal (v12); of tiny frames that of the device
    node_id  TEXT    NOT NULL,
    outer    INTEGER NOT NULL,             -- type byte as it came; -1: a tiny frame has none
    type     INTEGER NOT NULL,             -- type byte of what could be read: of the inner frame, if it opened
    sequence INTEGER,                      -- NULL: nothing opened
    equal    INTEGER NOT NULL,             -- blocks of ciphertext that an earlier frame of it has too
    codes    TEXT    NOT NULL,             -- of docs/protocol.md 14, one space between; empty: nothing against it
    content  TEXT    NOT NULL              -- JSON: fields, and the rest that could not be read
) STRICT;
-- One row for each field of a reading. `sync` is for connectors outside: one bit each (W15).
CREATE TABLE classic_value (
    id        INTEGER PRIMARY KEY,
    reading   INTEGER NOT NULL,
    position  INTEGER NOT NULL,            -- in the frame, from 0
    tag       TEXT    NOT NULL,
    value     TEXT    NOT NULL,            -- as an ASCII frame has it; several numbers with ; between
    timestamp TEXT    NOT NULL,            -- when the gateway received it, UTC
    sync      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX classic_value_at ON classic_value (timestamp);
-- Frames for the cloud, as they came (W14).
CREATE TABLE classic_cloud (
    reading   INTEGER PRIMARY KEY,
    timestamp TEXT    NOT NULL,
    raw       BLOB    NOT NULL,
    sync      INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE INDEX classic_cloud_at ON classic_cloud (timestamp);
CREATE TABLE classic_last (
    did       BLOB    NOT NULL,            -- two devices that say the same node id do not hide each other
    tag       TEXT    NOT NULL,
    node_id   TEXT    NOT NULL,
    value     TEXT    NOT NULL,
    timestamp TEXT    NOT NULL,
    PRIMARY KEY (did, tag)
) STRICT, WITHOUT ROWID;
-- What is remembered of the last frames of a device: 512 rows, each 125 bytes at most.
CREATE TABLE classic_history (
    did    BLOB    NOT NULL,
    slot   INTEGER NOT NULL,               -- number modulo 512
    number INTEGER NOT NULL,
    frame  BLOB    NOT NULL,
    PRIMARY KEY (did, slot)
) STRICT, WITHOUT ROWID;
-- Who speaks and is not in the book. The oldest make room.
CREATE TABLE classic_unknown (
    net     INTEGER NOT NULL,
    serial  TEXT    NOT NULL,
    gateway INTEGER NOT NULL,              -- that heard it last
    carrier TEXT    NOT NULL,
    first   INTEGER NOT NULL,
    last    INTEGER NOT NULL,
    reports INTEGER NOT NULL,              -- a gateway reports one in ten minutes at most
    frame   BLOB    NOT NULL,              -- the last one
    PRIMARY KEY (net, serial)
) STRICT, WITHOUT ROWID;

-- Meshlium's tables (W14), columns in its order. `sync` alone can be written.
CREATE VIEW sensorParser AS
    SELECT v.id AS id, k.node_id AS id_wasp, upper(k.serial) AS id_secret, k.type AS frame_type,
           k.sequence AS frame_number, v.tag AS sensor, v.value AS value, v.timestamp AS timestamp, v.sync AS sync,
           'noraw' AS raw, 0 AS parser_type, 'local' AS MeshliumID
    FROM classic_value v CROSS JOIN classic k ON k.reading = v.reading;
CREATE TRIGGER sensorParser_sync INSTEAD OF UPDATE OF sync ON sensorParser BEGIN
    UPDATE classic_value SET sync = NEW.sync WHERE id = OLD.id;
END;
CREATE TRIGGER sensorParser_rest INSTEAD OF UPDATE OF id, id_wasp, id_secret, frame_type, frame_number, sensor, value,
    timestamp, raw, parser_type, MeshliumID ON sensorParser BEGIN
    SELECT RAISE(ABORT, 'of sensorParser, sync alone can be written');
END;
CREATE VIEW sensorCloud AS
    SELECT c.reading AS id, c.timestamp AS timestamp, 'local' AS MeshliumID, c.sync AS sync, upper(k.serial) AS id_node,
           k.outer AS frame_type, hex(c.raw) AS raw
    FROM classic_cloud c CROSS JOIN classic k ON k.reading = c.reading;
CREATE TRIGGER sensorCloud_sync INSTEAD OF UPDATE OF sync ON sensorCloud BEGIN
    UPDATE classic_cloud SET sync = NEW.sync WHERE reading = OLD.id;
END;
CREATE TRIGGER sensorCloud_rest INSTEAD OF UPDATE OF id, timestamp, MeshliumID, id_node, frame_type, raw ON sensorCloud BEGIN
    SELECT RAISE(ABORT, 'of sensorCloud, sync alone can be written');
END;
CREATE VIEW last_data AS
    SELECT node_id AS id_wasp, tag AS sensor, value AS value, timestamp AS timestamp FROM classic_last;
-- The last row of classic_value that a broker has acknowledged (docs/operate.md, MQTT).
CREATE TABLE meshlium_cursor (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    id   INTEGER NOT NULL
) STRICT;
INSERT INTO meshlium_cursor VALUES (1, 0);
