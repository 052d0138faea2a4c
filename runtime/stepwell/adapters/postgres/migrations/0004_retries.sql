-- Retries are released by a budget, so they may be due for long. What waits because somebody wanted it to (a delay, a
-- pause between two repetitions) must not be looked for behind them.
--
-- attempts is set together with not_before wherever it is set, so that a move still writes no index.
CREATE INDEX run_waits ON run (not_before) WHERE not_before IS NOT NULL AND attempts = 0;
CREATE INDEX run_retries ON run (namespace, workflow, not_before) WHERE not_before IS NOT NULL AND attempts > 0;

-- Moves of the last minute, by workflow; see the budget.
ALTER TABLE worker ADD COLUMN moves jsonb NOT NULL DEFAULT '{}';
