-- What receipts of gateways prove of single readings (docs/protocol.md 13.3, item 9). Of devices that sign, the envelope in
-- which each gateway brought a reading first is kept; of the other envelopes of its batch, their leaf hashes. Readings of
-- before have none.
CREATE TABLE heard (
    reading  INTEGER NOT NULL,
    gateway  INTEGER NOT NULL,
    receipt  INTEGER NOT NULL,
    idx      INTEGER NOT NULL,             -- among the envelopes of the receipt
    envelope BLOB    NOT NULL,             -- as it stood in the batch
    PRIMARY KEY (reading, gateway)
) STRICT, WITHOUT ROWID;
CREATE INDEX heard_under ON heard (receipt, idx);
ALTER TABLE receipt ADD COLUMN others BLOB; -- 32 bytes for each envelope that is not in heard, in order; NULL: none is
