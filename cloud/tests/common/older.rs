//! A store as an earlier version of the cloud left it.

use std::path::Path;

/// What undoes each migration, the newest first: its number, and SQL that gives the store the form that it had before.
const UNDO: [(u32, &str); 12] = [
    (21, "DROP INDEX reading_held;"),
    (20, "DROP TABLE dead_letter; DROP TABLE outbox;"),
    (19, "DROP TABLE part; DROP TABLE spared; DROP INDEX context_erased;"),
    (18, "DROP TABLE token_use; DROP TABLE probe;"),
    (17, "DROP TABLE why;"),
    (16, "ALTER TABLE meshlium_cursor DROP COLUMN raised; DROP INDEX classic_value_of;"),
    (15, "DROP TABLE alarm_sent; DROP TABLE alarm_sink; DROP TABLE alarm; DROP TABLE alarm_window;"),
    (14, "ALTER TABLE heard DROP COLUMN path;"),
    (
        13,
        "CREATE TABLE before (did BLOB NOT NULL, chain INTEGER NOT NULL, number INTEGER NOT NULL, idx INTEGER NOT NULL,
             count INTEGER NOT NULL, bytes BLOB NOT NULL, UNIQUE (did, chain, number, idx)) STRICT;
         INSERT INTO before SELECT did, chain, number, idx, count, bytes FROM batch_part;
         DROP TABLE batch_part;
         ALTER TABLE before RENAME TO batch_part;",
    ),
    (12, "DROP TABLE heard; ALTER TABLE receipt DROP COLUMN others;"),
    (11, "DROP TABLE unknown_row;"),
    (
        10,
        "DROP TABLE raised;
         CREATE TABLE before (did BLOB NOT NULL, number INTEGER NOT NULL, idx INTEGER NOT NULL, count INTEGER NOT NULL,
             bytes BLOB NOT NULL, UNIQUE (did, number, idx)) STRICT;
         INSERT INTO before SELECT did, number, idx, count, bytes FROM batch_part;
         DROP TABLE batch_part;
         ALTER TABLE before RENAME TO batch_part;
         CREATE TABLE before (did BLOB NOT NULL, number INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,
             UNIQUE (did, number, idx)) STRICT;
         INSERT INTO before SELECT did, number, idx, hash FROM batch_leaf;
         DROP TABLE batch_leaf;
         ALTER TABLE before RENAME TO batch_leaf;
         DROP INDEX batch_open; DROP INDEX batch_closed; DROP INDEX batch_late; DROP INDEX batch_chain;
         ALTER TABLE batch DROP COLUMN chain;
         CREATE INDEX batch_open ON batch (did) WHERE state = 0 OR missing <> 0;",
    ),
];

/// Takes a store back to the form that it had after migration `version`, with its rows.
pub fn take_back(path: &Path, version: u32) {
    let db = rusqlite::Connection::open(path).unwrap();
    let now: u32 = db.pragma_query_value(None, "user_version", |r| r.get(0)).unwrap();
    assert_eq!(now, UNDO[0].0, "what undoes the newest migration is missing here");
    for (_, undo) in UNDO.iter().filter(|(number, _)| *number > version) {
        db.execute_batch(undo).unwrap();
    }
    db.pragma_update(None, "user_version", version).unwrap();
}
