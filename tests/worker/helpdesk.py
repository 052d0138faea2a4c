"""Replay an event log through Kafka: ``python -m tests.worker.helpdesk LOG.csv.gz [--rows N] [--json]``.

Rows go to a topic, keyed by case, as fast as it takes them; a connector of two workers turns them into runs and
callbacks; one of the two is killed when half of the rows have been moves, and only then the last of the rows are sent.
The clock is the real one.

Exits with 0 only if every row after a case's first was one move, every case that ends closed was archived, and the
history of each run is its rows in order.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
from aiokafka import AIOKafkaProducer  # type: ignore[import-untyped]  # (it ships no types)
from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # type: ignore[import-untyped]  # (as above)
from examples.helpdesk.log import ARCHIVED, LogError, Row, read_log
from examples.helpdesk.served import TOPIC, Told, served
from tests.cluster.kafka import Broker
from tests.cluster.kafka import running as running_kafka
from tests.cluster.postgres import IN_MEMORY, Server
from tests.cluster.postgres import running as running_postgres
from tests.worker.kit import Crew, crew

from stepwell import EntryKind
from stepwell.client import Client

PARTITIONS = 12
CLOSED = "Closed"
ARCHIVE_SECONDS = 60
"""How long a closed case waits for another row beside the time that the rows take, at the least."""
_ROWS_A_SECOND = 100
"""What even a busy machine does; by it the archiving time-out is made longer than the feed."""
_BEFORE_THE_KILL = 0.9
"""Of the rows; a worker is killed when half of them are moves."""
_PATIENCE = 120.0
"""Seconds without any progress after which something is lost."""
_SHOWN = 20


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What replaying came to."""

    rows: int
    runs: int
    callback_moves: int
    archived: int
    final: dict[str, int]
    killed_after_moves: int
    feed_seconds: float
    """From the first row sent to the last one moved."""
    seconds: float


def wanted(rows: Sequence[Row]) -> dict[str, list[str]]:
    """The activities of each case in order, with the archive behind those that end closed."""
    cases: dict[str, list[str]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row.activity)
    for activities in cases.values():
        if activities[-1] == CLOSED:
            activities.append(ARCHIVED)
    return cases


async def feed(broker: Broker, rows: Sequence[Row], killed: asyncio.Event) -> None:
    """Send all rows, those of a case in order; the last of them only when a worker was killed."""
    admin = AIOKafkaAdminClient(bootstrap_servers=broker.bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(TOPIC, PARTITIONS, 1)])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap, enable_idempotence=True, acks="all", linger_ms=5)
    await producer.start()
    try:
        seen = Counter[str]()
        sent = []
        for number, row in enumerate(sorted(rows, key=lambda row: (row.at, row.number))):
            if number == int(len(rows) * _BEFORE_THE_KILL):
                await asyncio.gather(*sent)
                await killed.wait()
            told = Told(case=row.case, n=seen[row.case], activity=row.activity, resource=row.resource, timestamp=row.at)
            seen[row.case] += 1
            sent.append(await producer.send(TOPIC, told.model_dump_json().encode(), key=row.case.encode()))
        await asyncio.gather(*sent)
    finally:
        await producer.stop()


class Watch:
    """What is stored by now, read from the database itself."""

    def __init__(self, connection: asyncpg.Connection[Any]) -> None:
        self._connection = connection

    async def moves(self) -> int:
        """Moves by callbacks."""
        return int(
            await self._connection.fetchval("SELECT count(*) FROM stepwell.history WHERE actor LIKE 'callback/%'")
        )

    async def finished(self) -> int:
        """Runs that came to their end."""
        live = "SELECT count(*) FROM stepwell.run WHERE finished_at IS NOT NULL"
        return int(await self._connection.fetchval(f"SELECT ({live}) + (SELECT count(*) FROM stepwell.run_finished)"))  # noqa: S608

    async def until(self, what: str, count: Any, target: int, *, patience: float = _PATIENCE) -> None:
        """Return once there are so many; ends the program when nothing moves for so many seconds."""
        last, moved_at = -1, time.monotonic()
        while (now := await count()) < target:
            if now > last:
                last, moved_at = now, time.monotonic()
            elif time.monotonic() - moved_at > patience:
                raise SystemExit(f"{what}: {now} of {target}, and none more for {patience:.0f} s")
            print(f"{what}: {now} of {target}", file=sys.stderr, flush=True)
            await asyncio.sleep(1)


async def replay(
    team: Crew, broker: Broker, rows: Sequence[Row], log: Path, *, archive_after: float
) -> tuple[Figures, list[str]]:
    """Replay, and compare with what the rows say. ``archive_after``: seconds that must be longer than the feed."""
    began = time.monotonic()
    cases = wanted(rows)
    told = {"HELPDESK_LOG": str(log), "HELPDESK_ARCHIVE_AFTER": str(archive_after)}
    first, second = (team.start("-f", "examples.helpdesk.served:wf", **told) for _ in range(2))
    await asyncio.gather(first.ready(), second.ready())
    connection = await asyncpg.connect(team.dsn)
    try:
        watch = Watch(connection)
        fed = time.monotonic()
        killed = asyncio.Event()
        feeding = asyncio.ensure_future(feed(broker, rows, killed))
        target = len(rows) - len(cases)
        await watch.until("moves", watch.moves, target // 2)
        killed_after = await watch.moves()
        first.kill()
        killed.set()
        await feeding
        await watch.until("moves", watch.moves, target)
        feed_seconds = time.monotonic() - fed
        ending = sum(activities[-1] == ARCHIVED for activities in cases.values())
        await watch.until("archived", watch.finished, ending, patience=archive_after + _PATIENCE)
    finally:
        await connection.close()
    made = served(log, closed=CLOSED, archive_after=timedelta(seconds=archive_after))
    names = {str(status): activity for activity, status in made.activities.statuses.items()}
    found, moves = dict[str, list[str]](), 0
    async with Client.connect(team.dsn, namespace=team.namespace) as client:
        runs = client.runs(made.workflow)
        async for run in runs.list():
            entries = [e for e in await runs.history(run.id) if e.kind in {EntryKind.TRIGGER, EntryKind.MOVE}]
            moves += sum(entry.actor.startswith("callback/") for entry in entries)
            found[run.foreign_id] = [names[entry.to_name] for entry in entries]
    assert await second.stop() == 0, second.log.read_text()
    figures = Figures(
        rows=len(rows),
        runs=len(found),
        callback_moves=moves,
        archived=sum(visits[-1] == ARCHIVED for visits in found.values()),
        final=dict(Counter(visits[-1] for visits in found.values()).most_common()),
        killed_after_moves=killed_after,
        feed_seconds=round(feed_seconds, 1),
        seconds=round(time.monotonic() - began, 1),
    )
    return figures, list(differences(found, cases))


def differences(found: dict[str, list[str]], cases: dict[str, list[str]]) -> Iterator[str]:
    """Where the runs are not what the rows say."""
    for case in sorted(cases.keys() | found.keys()):
        if found.get(case) != cases.get(case):
            yield f"case {case}: replayed {found.get(case)}, the rows say {cases.get(case)}"


async def _replay(postgres: Server, kafka: Broker, log: Path, rows: Sequence[Row]) -> tuple[Figures, list[str]]:
    with tempfile.TemporaryDirectory() as directory:
        async with crew(postgres, kafka, Path(directory)) as team:
            return await replay(team, kafka, rows, log, archive_after=ARCHIVE_SECONDS + len(rows) / _ROWS_A_SECOND)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: replayed, and as the rows say. 1: it differs. 2: the log was refused."""
    parser = argparse.ArgumentParser(prog="python -m tests.worker.helpdesk", description=__doc__)
    parser.add_argument("log", type=Path, help="a CSV file, gzipped or not")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    options = parser.parse_args(arguments)
    try:
        rows = read_log(options.log)
    except (LogError, OSError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    with running_postgres(IN_MEMORY, where=None) as postgres, running_kafka() as kafka:
        figures, differing = asyncio.run(_replay(postgres, kafka, options.log.resolve(), rows))
    print(json.dumps(asdict(figures)) if options.json else "\n".join(f"{k}: {v}" for k, v in asdict(figures).items()))
    for line in differing[:_SHOWN]:
        print(f"differs: {line}", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
