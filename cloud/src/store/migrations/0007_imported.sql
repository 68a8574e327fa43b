-- What a Meshlium stored before, or beside us: its word, which nobody proves here. Never in the ledger.
CREATE TABLE import_source (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE,          -- the operator's name of that Meshlium
    net  INTEGER NOT NULL
) STRICT;
-- One row for each dump, and one for the live database.
CREATE TABLE import_run (
    id        INTEGER PRIMARY KEY,
    source    INTEGER NOT NULL,
    digest    BLOB    NOT NULL,            -- of the dump's size and head; empty: the live database
    place     TEXT    NOT NULL,            -- where to go on, JSON; empty: at the beginning
    done      INTEGER NOT NULL DEFAULT 0,  -- 1: everything was read
    stored    INTEGER NOT NULL DEFAULT 0,  -- rows that were new
    repeated  INTEGER NOT NULL DEFAULT 0,  -- rows that were there
    unsaid    INTEGER NOT NULL DEFAULT 0,  -- lines of the report that there was no room for
    UNIQUE (source, digest)
) STRICT;
CREATE TABLE imported_value (
    id         INTEGER PRIMARY KEY,
    source     INTEGER NOT NULL,
    row        INTEGER NOT NULL,           -- its id in sensorParser
    did        BLOB    NOT NULL,
    serial     TEXT    NOT NULL,           -- as in classic
    node_id    TEXT    NOT NULL,
    type       INTEGER,
    sequence   INTEGER,
    tag        TEXT    NOT NULL,
    value      TEXT    NOT NULL,
    timestamp  TEXT    NOT NULL,           -- when the Meshlium received it, UTC
    sync       INTEGER NOT NULL,           -- as it was there
    UNIQUE (source, row)
) STRICT;
CREATE INDEX imported_value_at ON imported_value (timestamp);
CREATE INDEX imported_value_of ON imported_value (did, id);
CREATE TABLE imported_cloud (
    id         INTEGER PRIMARY KEY,
    source     INTEGER NOT NULL,
    row        INTEGER NOT NULL,           -- its id in sensorCloud
    did        BLOB    NOT NULL,
    serial     TEXT    NOT NULL,
    type       INTEGER NOT NULL,
    raw        TEXT    NOT NULL,           -- as the Meshlium kept it
    timestamp  TEXT    NOT NULL,
    sync       INTEGER NOT NULL,
    UNIQUE (source, row)
) STRICT;
CREATE INDEX imported_cloud_at ON imported_cloud (timestamp);
CREATE TABLE import_note (
    id     INTEGER PRIMARY KEY,
    run    INTEGER NOT NULL,
    book   INTEGER NOT NULL,               -- 1: of nodes and keys
    line   INTEGER NOT NULL,
    tbl    TEXT    NOT NULL,
    row    INTEGER,
    reason TEXT    NOT NULL,
    fate   TEXT    NOT NULL,               -- left, refused or taken
    text   TEXT    NOT NULL
) STRICT;
CREATE INDEX import_note_of ON import_note (run, line);

-- Meshlium's tables show it too, under negative ids and with the name of that Meshlium.
DROP VIEW sensorParser;
CREATE VIEW sensorParser AS
    SELECT v.id AS id, k.node_id AS id_wasp, upper(k.serial) AS id_secret, k.type AS frame_type,
           k.sequence AS frame_number, v.tag AS sensor, v.value AS value, v.timestamp AS timestamp, v.sync AS sync,
           'noraw' AS raw, 0 AS parser_type, 'local' AS MeshliumID
    FROM classic_value v CROSS JOIN classic k ON k.reading = v.reading
    UNION ALL
    SELECT -i.id, i.node_id, upper(i.serial), i.type, i.sequence, i.tag, i.value, i.timestamp, i.sync, 'noraw', 0,
           'imported ' || s.name
    FROM imported_value i CROSS JOIN import_source s ON s.id = i.source;
CREATE TRIGGER sensorParser_sync INSTEAD OF UPDATE OF sync ON sensorParser BEGIN
    UPDATE classic_value SET sync = NEW.sync WHERE id = OLD.id;
    UPDATE imported_value SET sync = NEW.sync WHERE id = -OLD.id;
END;
CREATE TRIGGER sensorParser_rest INSTEAD OF UPDATE OF id, id_wasp, id_secret, frame_type, frame_number, sensor, value,
    timestamp, raw, parser_type, MeshliumID ON sensorParser BEGIN
    SELECT RAISE(ABORT, 'of sensorParser, sync alone can be written');
END;
DROP VIEW sensorCloud;
CREATE VIEW sensorCloud AS
    SELECT c.reading AS id, c.timestamp AS timestamp, 'local' AS MeshliumID, c.sync AS sync, upper(k.serial) AS id_node,
           k.outer AS frame_type, hex(c.raw) AS raw
    FROM classic_cloud c CROSS JOIN classic k ON k.reading = c.reading
    UNION ALL
    SELECT -i.id, i.timestamp, 'imported ' || s.name, i.sync, upper(i.serial), i.type, i.raw
    FROM imported_cloud i CROSS JOIN import_source s ON s.id = i.source;
CREATE TRIGGER sensorCloud_sync INSTEAD OF UPDATE OF sync ON sensorCloud BEGIN
    UPDATE classic_cloud SET sync = NEW.sync WHERE reading = OLD.id;
    UPDATE imported_cloud SET sync = NEW.sync WHERE id = -OLD.id;
END;
CREATE TRIGGER sensorCloud_rest INSTEAD OF UPDATE OF id, timestamp, MeshliumID, id_node, frame_type, raw ON sensorCloud BEGIN
    SELECT RAISE(ABORT, 'of sensorCloud, sync alone can be written');
END;
