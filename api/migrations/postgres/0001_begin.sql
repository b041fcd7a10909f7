-- Times are milliseconds since 1970; Discord's ids fit in 63 bits.

CREATE TABLE guilds (
    id BIGINT PRIMARY KEY,
    shard_id BIGINT NOT NULL,
    joined_at BIGINT,
    left_at BIGINT
);

CREATE TABLE guild_settings (
    guild_id BIGINT PRIMARY KEY,
    -- Counts up from 1 with each change: the ETag.
    revision BIGINT NOT NULL,
    -- A JSON array of names, in order.
    disabled_commands TEXT NOT NULL,
    command_prefix TEXT,
    updated_at BIGINT NOT NULL
);

CREATE TABLE incidents (
    -- In the order in which they were stored, over all epochs.
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    -- The manager's name for the event: stored once, however often it is sent. A gap has that of the event before which it is.
    epoch TEXT NOT NULL,
    revision BIGINT NOT NULL,
    at BIGINT NOT NULL,
    -- NULL for a gap, which concerns all shards.
    shard_id BIGINT,
    kind TEXT NOT NULL,
    instance TEXT,
    reason TEXT,
    count BIGINT NOT NULL,
    UNIQUE (epoch, revision, kind)
);
CREATE INDEX incidents_by_shard ON incidents (shard_id, id);
CREATE INDEX incidents_by_time ON incidents (at);

-- How far the manager's events are stored: one row, written together with them.
CREATE TABLE position (
    one BIGINT PRIMARY KEY CHECK (one = 1),
    epoch TEXT NOT NULL,
    revision BIGINT NOT NULL
);

CREATE TABLE command_counts (
    -- When the hour began.
    hour BIGINT NOT NULL,
    command_name TEXT NOT NULL,
    count BIGINT NOT NULL,
    PRIMARY KEY (hour, command_name)
);
