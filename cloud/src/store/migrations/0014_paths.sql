-- Where few envelopes of a batch are kept, each has the path to its receipt's root: that is less than the leaf hashes of all others.
ALTER TABLE heard ADD COLUMN path BLOB;    -- 32 bytes each, the leaf's sibling first; NULL: receipt.others has what is needed
