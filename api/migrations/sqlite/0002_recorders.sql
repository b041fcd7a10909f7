-- The last batch that each recorder stored, written together with it: a batch that is tried again is not counted again.
CREATE TABLE recorders (
    recorder TEXT PRIMARY KEY,
    batch BIGINT NOT NULL,
    at BIGINT NOT NULL
);
