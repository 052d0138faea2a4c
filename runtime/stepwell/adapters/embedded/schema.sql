-- One file, all of an installation: runs, what hangs on them, and the events that are not handled yet.
-- Times are microseconds since the Unix epoch; "never" is a time like any other (the last one a datetime can hold),
-- so that NULL keeps one meaning: nothing is awaited.

CREATE TABLE run (
    -- Rises with each start, so the newest run of a foreign id has the highest one, even within one microsecond.
    seq         INTEGER PRIMARY KEY,
    run_id      TEXT NOT NULL UNIQUE,
    namespace   TEXT NOT NULL,
    workflow    TEXT NOT NULL,
    foreign_id  TEXT NOT NULL,
    state       TEXT NOT NULL,
    status      TEXT NOT NULL,
    version     INTEGER NOT NULL CHECK (version > 0),
    visit       INTEGER NOT NULL,
    work        INTEGER NOT NULL,
    started_at  INTEGER NOT NULL,
    updated_at  INTEGER NOT NULL,
    entered_at  INTEGER NOT NULL,
    attempts    INTEGER NOT NULL,
    not_before  INTEGER,
    crashes     INTEGER NOT NULL,
    pause_code  TEXT,
    finished_at INTEGER,
    trace       TEXT NOT NULL,
    last_error  TEXT NOT NULL,
    reason      TEXT NOT NULL,
    -- Last, so that a count or a filter never reads the pages into which a large object overflows.
    object      BLOB NOT NULL
) STRICT;

-- At most one unfinished run per foreign id. A move that does not end the run leaves finished_at out of its SET
-- clause, or this index would be rewritten by every move.
CREATE UNIQUE INDEX run_unfinished ON run (namespace, workflow, foreign_id) WHERE finished_at IS NULL;
CREATE INDEX run_foreign_id ON run (namespace, workflow, foreign_id);
CREATE INDEX run_finished ON run (namespace, workflow, finished_at) WHERE finished_at IS NOT NULL;
CREATE INDEX run_due ON run (not_before) WHERE not_before IS NOT NULL;
CREATE INDEX run_by_start ON run (namespace, workflow, run_id);

CREATE TABLE history (
    run_id      TEXT NOT NULL,
    version     INTEGER NOT NULL,
    kind        TEXT NOT NULL,
    at          INTEGER NOT NULL,
    from_status TEXT NOT NULL,
    to_status   TEXT NOT NULL,
    state       TEXT NOT NULL,
    actor       TEXT NOT NULL,
    reason      TEXT NOT NULL,
    -- The second net under "each version happens once": two writers cannot both store it.
    PRIMARY KEY (run_id, version)
) STRICT, WITHOUT ROWID;

-- The broker. An id is never used twice (AUTOINCREMENT), so a reader's cursor cannot miss a row.
CREATE TABLE outbox (
    id        INTEGER PRIMARY KEY AUTOINCREMENT,
    kind      TEXT NOT NULL,
    namespace TEXT NOT NULL,
    workflow  TEXT NOT NULL,
    run_id    TEXT NOT NULL,
    version   INTEGER NOT NULL,
    status    TEXT NOT NULL,
    name      TEXT NOT NULL,
    trace     TEXT NOT NULL
) STRICT;

-- due_at NULL and remaining_ms NULL: user code is still to name the time. remaining_ms not NULL: frozen.
CREATE TABLE timer (
    run_id       TEXT NOT NULL,
    visit        INTEGER NOT NULL,
    name         TEXT NOT NULL,
    due_at       INTEGER,
    remaining_ms INTEGER,
    next_at      INTEGER,
    attempts     INTEGER NOT NULL,
    last_error   TEXT NOT NULL,
    PRIMARY KEY (run_id, visit, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX timer_next ON timer (next_at) WHERE next_at IS NOT NULL;

CREATE TABLE hook (
    run_id     TEXT NOT NULL,
    version    INTEGER NOT NULL,
    name       TEXT NOT NULL,
    next_at    INTEGER NOT NULL,
    attempts   INTEGER NOT NULL,
    last_error TEXT NOT NULL,
    PRIMARY KEY (run_id, version, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX hook_next ON hook (next_at);

CREATE TABLE inbox (
    -- The order in which callbacks were stored, which is the order in which they are applied.
    seq        INTEGER PRIMARY KEY AUTOINCREMENT,
    inbox_id   TEXT NOT NULL UNIQUE,
    namespace  TEXT NOT NULL,
    workflow   TEXT NOT NULL,
    run_id     TEXT NOT NULL,
    name       TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    hold_until INTEGER NOT NULL,
    request_id TEXT,
    state      TEXT NOT NULL,
    refusal    TEXT,
    detail     TEXT NOT NULL,
    next_at    INTEGER,
    attempts   INTEGER NOT NULL,
    last_error TEXT NOT NULL,
    trace      TEXT NOT NULL,
    payload    BLOB NOT NULL
) STRICT;
CREATE UNIQUE INDEX inbox_request ON inbox (namespace, workflow, request_id) WHERE request_id IS NOT NULL;
CREATE INDEX inbox_run ON inbox (run_id, seq);
CREATE INDEX inbox_next ON inbox (next_at) WHERE next_at IS NOT NULL;

-- Runs that a handler asked for, until they are started: exactly once by (run_id, version, n).
CREATE TABLE requested_start (
    run_id        TEXT NOT NULL,
    version       INTEGER NOT NULL,
    n             INTEGER NOT NULL,
    namespace     TEXT NOT NULL,
    workflow      TEXT NOT NULL,
    new_run_id    TEXT NOT NULL,
    foreign_id    TEXT NOT NULL,
    actor         TEXT NOT NULL,
    start         TEXT,
    key           TEXT,
    reason        TEXT NOT NULL,
    if_none_ever  INTEGER NOT NULL,
    trace         TEXT NOT NULL,
    next_at       INTEGER NOT NULL,
    attempts      INTEGER NOT NULL,
    last_error    TEXT NOT NULL,
    object        BLOB NOT NULL,
    PRIMARY KEY (run_id, version, n)
) STRICT, WITHOUT ROWID;
CREATE INDEX requested_start_next ON requested_start (next_at);

-- A decided tick has no next_at.
CREATE TABLE tick (
    namespace  TEXT NOT NULL,
    workflow   TEXT NOT NULL,
    schedule   TEXT NOT NULL,
    planned    INTEGER NOT NULL,
    outcome    TEXT NOT NULL,
    reason     TEXT NOT NULL,
    run_id     TEXT,
    attempts   INTEGER NOT NULL,
    last_error TEXT NOT NULL,
    next_at    INTEGER,
    PRIMARY KEY (namespace, workflow, schedule, planned)
) STRICT, WITHOUT ROWID;
CREATE INDEX tick_next ON tick (next_at) WHERE next_at IS NOT NULL;

-- The first outcome of each idempotency key, kept longer than the run itself.
CREATE TABLE trigger_key (
    namespace TEXT NOT NULL,
    workflow  TEXT NOT NULL,
    key       TEXT NOT NULL,
    outcome   TEXT NOT NULL,
    run_id    TEXT NOT NULL,
    at        INTEGER NOT NULL,
    PRIMARY KEY (namespace, workflow, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX trigger_key_at ON trigger_key (namespace, workflow, at);

CREATE TABLE workflow (
    namespace  TEXT NOT NULL,
    name       TEXT NOT NULL,
    definition TEXT NOT NULL,
    generation INTEGER NOT NULL,
    suspended  INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    PRIMARY KEY (namespace, name)
) STRICT, WITHOUT ROWID;

CREATE TABLE position (
    namespace TEXT NOT NULL,
    workflow  TEXT NOT NULL,
    connector TEXT NOT NULL,
    shard     INTEGER NOT NULL,
    next      INTEGER NOT NULL,
    PRIMARY KEY (namespace, workflow, connector, shard)
) STRICT, WITHOUT ROWID;

-- The message that a connector had at work when it took over: see 0005_begun.sql.
CREATE TABLE begun (
    namespace TEXT NOT NULL,
    workflow  TEXT NOT NULL,
    connector TEXT NOT NULL,
    shard     INTEGER NOT NULL,
    place     INTEGER NOT NULL,
    times     INTEGER NOT NULL,
    PRIMARY KEY (namespace, workflow, connector, shard)
) STRICT, WITHOUT ROWID;

CREATE TABLE dead_letter (
    seq       INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL,
    workflow  TEXT NOT NULL,
    connector TEXT NOT NULL,
    topic     TEXT NOT NULL,
    shard     INTEGER NOT NULL,
    place     INTEGER NOT NULL,
    reason    TEXT NOT NULL,
    sha256    TEXT NOT NULL,
    at        INTEGER NOT NULL,
    UNIQUE (namespace, workflow, connector, topic, shard, place)
) STRICT;

CREATE TABLE topic_message (
    topic TEXT NOT NULL,
    place INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    key   BLOB,
    value BLOB NOT NULL,
    PRIMARY KEY (topic, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE meta (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
