-- Everything of an installation: runs, what hangs on them, and the events that are not handled yet.
--
-- Times are the store's; 'infinity' is "never", and NULL keeps one meaning: nothing is awaited. Ids are UUIDv7 texts
-- compared byte by byte (COLLATE "C"), so their order is the order of the starts whatever the database's collation.

-- One row. schema: the last file of this directory that was run. min_code: the oldest code that may still work with it.
CREATE TABLE meta (
    only_one        boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    schema          integer NOT NULL,
    min_code        integer NOT NULL,
    installation_id text NOT NULL DEFAULT gen_random_uuid()::text
);
INSERT INTO meta (schema, min_code) VALUES (1, 1);

-- Runs that are not finished, and those that finished a moment ago. No index and no predicate names state, status,
-- version or updated_at: a move then writes no index at all (a "heap-only" update), for which pages keep room free.
CREATE TABLE run (
    run_id      text COLLATE "C" NOT NULL PRIMARY KEY,
    namespace   text NOT NULL,
    workflow    text NOT NULL,
    foreign_id  text NOT NULL,
    state       text NOT NULL,
    status      text NOT NULL,
    version     bigint NOT NULL CHECK (version > 0),
    visit       bigint NOT NULL,
    work        bigint NOT NULL,
    started_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    entered_at  timestamptz NOT NULL,
    attempts    integer NOT NULL,
    not_before  timestamptz,
    crashes     integer NOT NULL,
    pause_code  text,
    finished_at timestamptz,
    trace       text NOT NULL,
    last_error  text NOT NULL,
    reason      text NOT NULL,
    -- Bytes, not jsonb: the user's own text comes back as it was written, and \u0000 in it is nobody's trouble.
    object      bytea NOT NULL,
    -- How many callbacks were ever bound to the run. A move that looks into the inbox is made only if it still stands
    -- as it did when the statement began: a statement does not see what was committed after that.
    inbox_no    bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_cost_delay = 0);
CREATE UNIQUE INDEX run_unfinished ON run (namespace, workflow, foreign_id) WHERE finished_at IS NULL;
CREATE INDEX run_due ON run (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX run_finished_at ON run (finished_at) WHERE finished_at IS NOT NULL;

-- Runs that finished a while ago and are moved no more, in the same columns. Partitioned by the time of the start, which
-- is what a run id begins with; the default partition catches what no partition was made for.
CREATE TABLE run_finished (
    run_id      text COLLATE "C" NOT NULL PRIMARY KEY,
    namespace   text NOT NULL,
    workflow    text NOT NULL,
    foreign_id  text NOT NULL,
    state       text NOT NULL,
    status      text NOT NULL,
    version     bigint NOT NULL,
    visit       bigint NOT NULL,
    work        bigint NOT NULL,
    started_at  timestamptz NOT NULL,
    updated_at  timestamptz NOT NULL,
    entered_at  timestamptz NOT NULL,
    attempts    integer NOT NULL,
    not_before  timestamptz,
    crashes     integer NOT NULL,
    pause_code  text,
    finished_at timestamptz,
    trace       text NOT NULL,
    last_error  text NOT NULL,
    reason      text NOT NULL,
    object      bytea NOT NULL,
    inbox_no    bigint NOT NULL
) PARTITION BY RANGE (run_id);
CREATE TABLE run_finished_default PARTITION OF run_finished DEFAULT;
CREATE INDEX run_finished_of_foreign_id ON run_finished (namespace, workflow, foreign_id, run_id);
CREATE INDEX run_finished_by_end ON run_finished (namespace, workflow, finished_at);

-- The primary key is the second net under "each version happens once", and all rows of a run lie in one partition.
CREATE TABLE history (
    run_id      text COLLATE "C" NOT NULL,
    version     bigint NOT NULL,
    kind        text NOT NULL,
    at          timestamptz NOT NULL,
    from_status text NOT NULL,
    to_status   text NOT NULL,
    state       text NOT NULL,
    actor       text NOT NULL,
    reason      text NOT NULL,
    PRIMARY KEY (run_id, version)
) PARTITION BY RANGE (run_id);
CREATE TABLE history_default PARTITION OF history DEFAULT;

-- Events on their way out. slot: the minute of the store's clock, modulo 3. A slot that is empty and two minutes old is
-- truncated, so that a table of which every row is deleted needs no vacuum to stay small.
CREATE SEQUENCE outbox_id AS bigint;
CREATE TABLE outbox (
    slot       smallint NOT NULL CHECK (slot BETWEEN 0 AND 2),
    id         bigint NOT NULL DEFAULT nextval('outbox_id'),
    created_at timestamptz NOT NULL,
    kind       text NOT NULL,
    namespace  text NOT NULL,
    workflow   text NOT NULL,
    run_id     text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    status     text NOT NULL,
    name       text NOT NULL,
    trace      text NOT NULL,
    PRIMARY KEY (id, slot)
) PARTITION BY LIST (slot);
CREATE TABLE outbox_0 PARTITION OF outbox FOR VALUES IN (0);
CREATE TABLE outbox_1 PARTITION OF outbox FOR VALUES IN (1);
CREATE TABLE outbox_2 PARTITION OF outbox FOR VALUES IN (2);

-- due_at NULL and remaining_ms NULL: user code is still to name the time. remaining_ms not NULL: frozen.
CREATE TABLE timer (
    run_id       text COLLATE "C" NOT NULL,
    visit        bigint NOT NULL,
    name         text COLLATE "C" NOT NULL,
    due_at       timestamptz,
    remaining_ms bigint,
    next_at      timestamptz,
    attempts     integer NOT NULL,
    last_error   text NOT NULL,
    PRIMARY KEY (run_id, visit, name)
);
CREATE INDEX timer_next ON timer (next_at) WHERE next_at IS NOT NULL;

CREATE TABLE hook (
    run_id     text COLLATE "C" NOT NULL,
    version    bigint NOT NULL,
    name       text COLLATE "C" NOT NULL,
    next_at    timestamptz NOT NULL,
    attempts   integer NOT NULL,
    last_error text NOT NULL,
    PRIMARY KEY (run_id, version, name)
);
CREATE INDEX hook_next ON hook (next_at);

CREATE TABLE inbox (
    -- Given out while the run is locked, so within a run it is the order in which callbacks were stored.
    seq        bigint GENERATED ALWAYS AS IDENTITY,
    inbox_id   text COLLATE "C" NOT NULL PRIMARY KEY,
    namespace  text NOT NULL,
    workflow   text NOT NULL,
    run_id     text COLLATE "C" NOT NULL,
    name       text NOT NULL,
    payload    bytea NOT NULL,
    created_at timestamptz NOT NULL,
    hold_until timestamptz NOT NULL,
    request_id text,
    state      text NOT NULL,
    refusal    text,
    detail     text NOT NULL,
    next_at    timestamptz,
    attempts   integer NOT NULL,
    last_error text NOT NULL,
    trace      text NOT NULL
);
CREATE UNIQUE INDEX inbox_request ON inbox (namespace, workflow, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX inbox_run ON inbox (run_id, seq);
CREATE INDEX inbox_next ON inbox (next_at) WHERE next_at IS NOT NULL;

-- Runs that a handler asked for, until they are started: exactly once by (run_id, version, n).
CREATE TABLE requested_start (
    run_id       text COLLATE "C" NOT NULL,
    version      bigint NOT NULL,
    n            integer NOT NULL,
    namespace    text NOT NULL,
    workflow     text NOT NULL,
    new_run_id   text COLLATE "C" NOT NULL,
    foreign_id   text NOT NULL,
    object       bytea NOT NULL,
    actor        text NOT NULL,
    start        text,
    key          text,
    reason       text NOT NULL,
    if_none_ever boolean NOT NULL,
    trace        text NOT NULL,
    next_at      timestamptz NOT NULL,
    attempts     integer NOT NULL,
    last_error   text NOT NULL,
    PRIMARY KEY (run_id, version, n)
);
CREATE INDEX requested_start_next ON requested_start (next_at);

-- A decided tick has no next_at.
CREATE TABLE tick (
    namespace  text NOT NULL,
    workflow   text NOT NULL,
    schedule   text NOT NULL,
    planned    timestamptz NOT NULL,
    outcome    text NOT NULL,
    reason     text NOT NULL,
    run_id     text COLLATE "C",
    attempts   integer NOT NULL,
    last_error text NOT NULL,
    next_at    timestamptz,
    PRIMARY KEY (namespace, workflow, schedule, planned)
);
CREATE INDEX tick_next ON tick (next_at) WHERE next_at IS NOT NULL;

-- The first outcome of each idempotency key, kept longer than the run itself.
CREATE TABLE trigger_key (
    namespace text NOT NULL,
    workflow  text NOT NULL,
    key       text NOT NULL,
    outcome   text NOT NULL,
    run_id    text COLLATE "C" NOT NULL,
    at        timestamptz NOT NULL,
    PRIMARY KEY (namespace, workflow, key)
);
CREATE INDEX trigger_key_at ON trigger_key (namespace, workflow, at);

CREATE TABLE workflow (
    namespace  text NOT NULL,
    name       text COLLATE "C" NOT NULL,
    definition text NOT NULL,
    generation bigint NOT NULL,
    suspended  boolean NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (namespace, name)
);

CREATE TABLE connector_position (
    namespace text NOT NULL,
    workflow  text NOT NULL,
    connector text NOT NULL,
    shard     integer NOT NULL,
    next      bigint NOT NULL,
    PRIMARY KEY (namespace, workflow, connector, shard)
);

CREATE TABLE dead_letter (
    seq       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    namespace text NOT NULL,
    workflow  text NOT NULL,
    connector text NOT NULL,
    topic     text NOT NULL,
    shard     integer NOT NULL,
    place     bigint NOT NULL,
    reason    text NOT NULL,
    sha256    text NOT NULL,
    at        timestamptz NOT NULL,
    UNIQUE (namespace, workflow, connector, topic, shard, place)
);
