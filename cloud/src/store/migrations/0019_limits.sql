-- What is kept of each part, and how far it was pruned (docs/operate.md, "Limits"). Counted beside ingest, never in it.
CREATE TABLE part (
    name     TEXT PRIMARY KEY,
    n        INTEGER NOT NULL DEFAULT 0,   -- rows that are kept
    bytes    INTEGER NOT NULL DEFAULT 0,   -- what they take, about
    measured INTEGER NOT NULL DEFAULT 0,   -- the last id that was counted
    pruned   INTEGER NOT NULL DEFAULT 0,   -- the last id that was looked at; of the ledger, since when contexts drain
    till     INTEGER NOT NULL DEFAULT 0,   -- Unix milliseconds: what came before may be pruned
    gone     INTEGER NOT NULL DEFAULT 0    -- rows that were pruned since the store was made
) STRICT, WITHOUT ROWID;
INSERT INTO part (name) VALUES ('readings'), ('ledger'), ('refusals'), ('alarms'), ('evidence');
-- Readings behind part.pruned that something still needed.
CREATE TABLE spared (reading INTEGER PRIMARY KEY) STRICT;
-- Contexts whose keys are erased: nothing opens under them any more, and no row of theirs decides anything.
CREATE INDEX context_erased ON context (since) WHERE standing = 3 AND sealed IS NULL AND bctx = x'' AND level > 1;
