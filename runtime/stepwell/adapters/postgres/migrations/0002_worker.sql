-- Who works on this database, outside Kubernetes: one row per worker, which it rewrites every three seconds.
--
-- Nobody compares times of two machines. A worker is silent if others saw nothing new of it (incarnation, beat) for as
-- long as it takes, by their own clocks; then dead_at is set by a compare-and-swap on what they saw, and that is final:
-- the worker's next beat finds it and joins as somebody new. renewed_at only makes the count more exact.

-- Rewritten over and over and found by its key: room is kept, so that no index is written ("heap-only" updates).
CREATE TABLE worker (
    namespace   text COLLATE "C" NOT NULL,
    name        text COLLATE "C" NOT NULL,
    -- Of the process: two that were given one name are told apart by it.
    incarnation text NOT NULL,
    beat        bigint NOT NULL,
    joined_at   timestamptz NOT NULL,
    renewed_at  timestamptz NOT NULL,
    dead_at     timestamptz,
    -- Lists of texts (able: the roles that it can play); held: partitions by topic; in_flight, seen: a number by workflow.
    topics      jsonb NOT NULL,
    able        jsonb NOT NULL,
    held        jsonb NOT NULL,
    roles       jsonb NOT NULL,
    in_flight   jsonb NOT NULL,
    seen        jsonb NOT NULL,
    draining    jsonb NOT NULL,
    PRIMARY KEY (namespace, name)
) WITH (fillfactor = 50);
