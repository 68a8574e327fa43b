-- Parts of a classic node's signature stand apart by whose key they were sealed under (docs/protocol.md 13.4): what a gateway says
-- that it opened displaces nothing that the cloud opened. Each names the context it came under, so that a signature whose
-- parts are all here can be made a claim by a later process, too.
ALTER TABLE batch_part RENAME TO batch_part_before;
CREATE TABLE batch_part (
    did      BLOB    NOT NULL,
    chain    INTEGER NOT NULL,
    level    INTEGER NOT NULL,             -- 3 or 2 of classic nodes, 0 of devices with a record
    number   INTEGER NOT NULL,
    idx      INTEGER NOT NULL,
    count    INTEGER NOT NULL,
    bytes    BLOB    NOT NULL,
    ctx      INTEGER NOT NULL,
    UNIQUE (did, chain, level, number, idx)
) STRICT;
-- What is here came under the context that the device used last, as far as that is known.
INSERT INTO batch_part
    SELECT did, chain,
           coalesce((SELECT CASE substr(bctx, 4, 1) WHEN x'02' THEN 2 ELSE 3 END FROM context c
                     WHERE c.did = p.did AND level = 1 AND substr(bctx, 1, 3) = x'6b6579' ORDER BY id DESC LIMIT 1), 0),
           number, idx, count, bytes,
           CASE chain WHEN 0 THEN coalesce((SELECT max(id) FROM context c WHERE c.did = p.did), 0) ELSE chain END
    FROM batch_part_before p;
DROP TABLE batch_part_before;
