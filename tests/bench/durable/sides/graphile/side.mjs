// Measures graphile-worker on PostgreSQL: no-op jobs, single or in chains in which each job adds the next one.
//
// Usage: node side.mjs DSN RUNS STEPS. It prints one JSON line: moves (jobs), seconds.
//
// The settings are those of its own performance test: a local queue of 500 jobs, completions in batches, 24 jobs at
// once. As there, all first jobs are added before the clock starts, and it is read when the last job has been handled;
// the completion of that one may still be on its way.

import { Logger, run, runMigrations } from "graphile-worker";
import pg from "pg";

const WARM_UP_RUNS = 200;
const CONCURRENT_JOBS = 24;
const ADD = `
  SELECT graphile_worker.add_jobs(array_agg(json_populate_record(
    NULL::graphile_worker.job_spec,
    json_build_object('identifier', 'step', 'payload', json_build_object('left', $2::int))
  )))
  FROM generate_series(1, $1::int)`;

const [connectionString, runs, steps] = [process.argv[2], Number(process.argv[3]), Number(process.argv[4])];
const logger = new Logger(() => () => {});
const preset = {
  worker: {
    connectionString,
    logger,
    concurrentJobs: CONCURRENT_JOBS,
    maxPoolSize: CONCURRENT_JOBS + 1,
    localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
    completeJobBatchDelay: 0,
    failJobBatchDelay: 0,
  },
};

let chainsLeft = 0;
let allEnded = () => {};

const taskList = {
  step: async ({ left }, helpers) => {
    if (left > 0) {
      await helpers.addJob("step", { left: left - 1 });
    } else if (--chainsLeft === 0) {
      allEnded();
    }
  },
};

async function workOff(pool, count) {
  chainsLeft = count;
  const ended = new Promise((resolve) => (allEnded = resolve));
  await pool.query(ADD, [count, steps - 1]);
  const begin = process.hrtime.bigint();
  const runner = await run({ preset, taskList, noHandleSignals: true });
  await ended;
  const seconds = Number(process.hrtime.bigint() - begin) / 1e9;
  await runner.stop();
  return seconds;
}

await runMigrations({ connectionString, logger });
const pool = new pg.Pool({ connectionString });
await workOff(pool, WARM_UP_RUNS);
const seconds = await workOff(pool, runs);
const { rows } = await pool.query("SELECT count(*)::int AS left FROM graphile_worker._private_jobs");
await pool.end();
if (rows[0].left > 0) {
  throw new Error(`${rows[0].left} jobs were left`);
}
console.log(JSON.stringify({ moves: runs * steps, seconds }));
