-- The message that a connector has at work, in a partition that it has just taken over: one that ends the process of its
-- worker again and again is told by the count, and becomes a dead letter. At most one row for each partition.
CREATE TABLE connector_begun (
    namespace text NOT NULL,
    workflow  text NOT NULL,
    connector text NOT NULL,
    shard     integer NOT NULL,
    place     bigint NOT NULL,
    times     integer NOT NULL,
    PRIMARY KEY (namespace, workflow, connector, shard)
);
