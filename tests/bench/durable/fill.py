"""Finished runs by the million, as the archiver would have left them: history and all, spread over thirty days.

Written by the server itself, in the partitions that its upkeep would have made at those times.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import asyncpg

from stepwell.adapters.postgres import PostgresStore
from stepwell.adapters.postgres.connections import SCHEMA

DAYS = 30
CHUNK = 100_000
_WEEK = timedelta(days=7)
_FIRST_MONDAY = datetime.fromisoformat("1970-01-05T00:00:00+00:00")

# The id of a run begins with the milliseconds of its start, and its number makes it unique.
_FILL = """
WITH made AS (
    INSERT INTO run_finished (run_id, namespace, workflow, foreign_id, state, status, version, visit, work, started_at,
        updated_at, entered_at, attempts, not_before, crashes, pause_code, finished_at, trace, last_error, reason,
        object, inbox_no)
    SELECT left(id, 8) || '-' || right(id, 4) || '-7000-8000-' || lpad(to_hex(n), 12, '0'),
        'archive', 'bench', 'order-' || n, 'Completed', 'Done', 6, 6, 6, at, at + '5 s', at + '5 s', 0, NULL, 0, NULL,
        at + '5 s', '', '', '', convert_to('{"number": 1, "text": "' || repeat('x', 170) || '"}', 'UTF8'), 0
    FROM generate_series($1::int, $2::int) AS n,
        LATERAL (SELECT now() - $3::interval * (1 - n::float8 / $4::int) AS at) AS t,
        LATERAL (SELECT lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS id) AS i
    RETURNING run_id, started_at
)
INSERT INTO history (run_id, version, kind, at, from_status, to_status, state, actor, reason)
SELECT run_id, v, CASE v WHEN 1 THEN 'trigger' ELSE 'move' END, started_at + v * interval '1 second',
    (ARRAY['', 'One', 'Two', 'Three', 'Four', 'Five'])[v], (ARRAY['One', 'Two', 'Three', 'Four', 'Five', 'Done'])[v],
    (ARRAY['Initiated', 'Running', 'Running', 'Running', 'Running', 'Completed'])[v], 'worker', ''
FROM made, generate_series(1, 6) AS v
"""


async def finished_runs(dsn: str, count: int) -> None:
    """Put so many finished runs into a migrated database, and let the server get used to them."""
    store = await PostgresStore.open(dsn, name="bench-fill")
    try:
        week = store.now() - timedelta(days=DAYS)
        week -= (week - _FIRST_MONDAY) % _WEEK
        while week <= store.now():
            for table in ("history", "run_finished"):
                await store._make(table, week)
            week += _WEEK
        await store.make_partitions()
    finally:
        await store.close()
    connection = await asyncpg.connect(dsn, server_settings={"search_path": SCHEMA}, command_timeout=600)
    try:
        for first in range(1, count + 1, CHUNK):
            last = min(first + CHUNK - 1, count)
            await connection.execute(_FILL, first, last, timedelta(days=DAYS), count)
        await connection.execute("VACUUM ANALYZE run_finished")
        await connection.execute("VACUUM ANALYZE history")
    finally:
        await connection.close()
