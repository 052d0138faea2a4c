-- What a control plane outside (the operator of a cluster) must remember, since nothing that it sees there is its own.

-- The Workflow object that governs a workflow; all NULL: none does, and workers register the definition themselves.
-- wished_suspend: the suspension that the object asked for last. Only a change of it suspends or resumes, so that what
-- was done by hand meanwhile is not undone by an edit of something else.
ALTER TABLE workflow
    ADD COLUMN uid               text,
    ADD COLUMN object_generation bigint,
    ADD COLUMN object_created_at timestamptz,
    ADD COLUMN wished_suspend    boolean;

-- One row for each Run object, by its uid, written in the transaction that starts its run. outcome is final. acted is
-- the generation of the last wish that was evaluated, written in the transaction that carries it out: a wish is carried
-- out once, and refused once.
CREATE TABLE run_object (
    uid       text COLLATE "C" NOT NULL PRIMARY KEY,
    namespace text NOT NULL,
    workflow  text NOT NULL,
    outcome   text NOT NULL,
    run_id    text COLLATE "C" NOT NULL,
    acted     bigint NOT NULL,
    refusal   text NOT NULL,
    at        timestamptz NOT NULL
);
