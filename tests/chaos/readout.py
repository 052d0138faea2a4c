"""What the servers hold at the end, read by plain SQL and as plain records: none of the engine's code is asked."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, TopicPartition  # type: ignore[import-untyped]  # (it ships no types)
from aiokafka.errors import KafkaError  # type: ignore[import-untyped]  # (as above)
from tests.chaos.evidence import FinalRun, Found, Heard, InboxLine, Line, Planned, TickLine
from tests.chaos.marks import owners_in

_TOPICS_SECONDS = 30.0
_PAUSE = 0.2
_RUNS = """
SELECT run_id, foreign_id, state, status, version, coalesce(pause_code, '') AS pause_code, last_error, reason
FROM (SELECT {0} FROM run UNION ALL SELECT {0} FROM run_finished) AS every
"""
_COLUMNS = "run_id, foreign_id, state, status, version, pause_code, last_error, reason"
_LINES = "SELECT run_id, version, kind, at, from_status, to_status, state, actor, reason FROM history ORDER BY 1, 2"
_INBOX = "SELECT inbox_id, run_id, name, state, coalesce(refusal, '') AS refusal FROM inbox"
_TICKS = "SELECT schedule, planned, outcome, reason, coalesce(run_id, '') AS run_id FROM tick"


@dataclass(frozen=True, kw_only=True)
class Stored:
    """Everything that one database says of what happened."""

    runs: Mapping[str, FinalRun]
    lines: Sequence[Line]
    inbox: Mapping[str, InboxLine]
    ticks: Sequence[TickLine]
    places: Mapping[str, set[str]]
    """Whose payloads are in which table."""
    letters: Sequence[str]
    """The reasons of the dead letters."""


async def read_store(dsn: str, wall: float) -> Stored:
    """``wall``: what has to be taken from the store's time (Unix seconds) to get the machine's monotonic time."""
    connection = await asyncpg.connect(dsn, server_settings={"search_path": "stepwell"})
    try:
        runs = [FinalRun(**row) for row in await connection.fetch(_RUNS.format(_COLUMNS))]
        lines = [
            Line(**{**row, "at": row["at"].timestamp() - wall}) for row in map(dict, await connection.fetch(_LINES))
        ]
        inbox = [InboxLine(**row) for row in await connection.fetch(_INBOX)]
        ticks = [
            TickLine(**row, at=row["planned"].timestamp() - wall) for row in map(dict, await connection.fetch(_TICKS))
        ]
        letters = await connection.fetch("SELECT reason FROM dead_letter")
        return Stored(
            letters=[reason for (reason,) in letters],
            runs={run.run_id: run for run in runs},
            lines=lines,
            inbox={line.inbox_id: line for line in inbox},
            ticks=[tick for tick in ticks if tick.reason != "Introduced"],
            places={f"table {name}": owners async for name, owners in _payloads(connection)},
        )
    finally:
        await connection.close()


async def _payloads(connection: asyncpg.Connection) -> Any:
    names = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'stepwell'")
    for (name,) in names:
        rows = await connection.fetch(f"SELECT * FROM {name}")  # noqa: S608  (a name from the catalogue)
        cells = (cell for row in rows for cell in row.values() if isinstance(cell, str | bytes))
        yield name, {owner for cell in cells for owner in owners_in(cell)}


async def read_topics(bootstrap: str, prefix: str) -> tuple[list[Heard], dict[str, set[str]]]:
    """All records of all topics of a namespace: the events in them, and whose payloads they hold."""
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    heard: list[Heard] = []
    places: dict[str, set[str]] = {}
    try:
        topics = [topic for topic in await _all_topics(consumer) if topic.startswith(prefix)]
        shards = [TopicPartition(topic, n) for topic in topics for n in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(shards)
        ends = await consumer.end_offsets(shards) if shards else {}
        for shard in shards:
            await consumer.seek_to_beginning(shard)
        while any([await consumer.position(shard) < end for shard, end in ends.items()]):
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    places.setdefault(f"topic {record.topic}", set()).update(owners_in(record.value or b""))
                    heard.append(_heard(record))
    finally:
        await consumer.stop()
    return heard, places


async def _all_topics(consumer: AIOKafkaConsumer) -> set[str]:
    """The driver gives up when one answer of the broker fails to come, as on a connection that was just lost."""
    give_up_at = time.monotonic() + _TOPICS_SECONDS
    while True:
        try:
            found: set[str] = await consumer.topics()
        except KafkaError:
            if time.monotonic() > give_up_at:
                raise
            await asyncio.sleep(_PAUSE)
        else:
            return found


def _heard(record: Any) -> Heard:
    members = json.loads(record.value)
    return Heard(
        topic=record.topic,
        partition=record.partition,
        offset=record.offset,
        kind=members["k"],
        run_id=members["run"],
        version=members["n"],
        status=members["st"],
    )


def read_logs(paths: Sequence[Path]) -> dict[str, set[str]]:
    """Whose payloads the workers' own output holds: nobody's may be there, erased or not."""
    return {f"log {path.name}": set(owners_in(path.read_bytes())) for path in paths}


def found_of(
    stored: Mapping[str, set[str]], logs: Mapping[str, set[str]], erased: Mapping[str, str]
) -> Iterator[Found]:
    """``erased``: by run id, whose payload must be gone from ``stored``."""
    for run_id, owner in erased.items():
        yield from (Found(run_id=run_id, place=place) for place, owners in stored.items() if owner in owners)
    yield from (Found(run_id="", place=f"{place}: {owner}") for place, owners in logs.items() for owner in owners)


def owed_times(schedule: str, since: datetime, until: datetime) -> Planned:
    """The full minutes after ``since`` up to ``until``: what ``* * * * *`` plans."""
    first = since.replace(second=0, microsecond=0) + timedelta(minutes=1)
    count = max((until - first) // timedelta(minutes=1) + 1, 0)
    return Planned(schedule=schedule, times=frozenset(first + timedelta(minutes=n) for n in range(count)))
