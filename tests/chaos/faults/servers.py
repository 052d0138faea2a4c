"""What happens to the servers: restarted, cut off, wiped, repeated in another order, and locked by somebody.

A server is shared by the rounds that are played side by side, so what happens to it happens to all of them at once.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer  # type: ignore[import-untyped]  # (it ships no types)
from tests.chaos.evidence import Ask, Evidence, Span, Violation
from tests.chaos.load import COMMON_TROUBLES, Load
from tests.chaos.round import Fault, Round
from tests.chaos.wrapped import Inject

_HELD_SECONDS = 8.0
_AT_ONCE_SECONDS = 2.0
_COPY = ("chaos", b"copy")
_FREEZES = 0.5
"""The chance that a broker stands still for a while before it is killed."""
_HANGS = "consumer-hangs"
_STUCK = '"error": "Stuck"'
"""What a worker logs when its consumer is given nothing of what is there."""


class DatabaseRestarts(Fault):
    """PostgreSQL is killed, stopped, and has its connections cut, all in the middle of commits."""

    name = "F4"
    title = "PostgreSQL restarted, connections cut mid-commit"
    load = Load(seconds=14.0, rate=5.0)
    recovery = 20.0
    back_seconds = 10.0
    shared = True
    own_database = True

    async def blow(self, round_: Round) -> None:
        server, rng = round_.servers.postgres, round_.rng
        ways = [server.kill, server.stop, None, server.kill]
        rng.shuffle(ways)
        for way in ways:
            await asyncio.sleep(rng.uniform(0.5, 2.0))
            if way is None:
                await _cut_connections(round_)
            else:
                await asyncio.to_thread(way)
                await asyncio.sleep(rng.uniform(0, 0.5))
                await server.start()
            round_.servers.back = time.monotonic()

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        yield from goes_on(round_, evidence, self.back_seconds)


class BrokerRestarts(Fault):
    """The only Kafka broker is killed and started again, with its data."""

    name = "F5"
    title = "Kafka's broker restarted, a consumer stuck"
    load = Load(seconds=18.0, rate=4.0)
    recovery = 30.0
    back_seconds = 30.0
    shared = True
    own_broker = True
    wipes = False

    def environment(self, round_: Round) -> dict[str, str]:
        """The consumer of the first worker can be made to hang, silently."""
        if round_.fleet.workers or self.wipes:
            return {}
        return {Inject.STUCK: str(round_.directory / _HANGS), "STEPWELL_KAFKA_STUCK_AFTER": "4s"}

    async def strike(self, round_: Round) -> None:
        await super().strike(round_)
        (round_.directory / _HANGS).touch()

    async def blow(self, round_: Round) -> None:
        broker = round_.servers.kafka
        await asyncio.sleep(round_.rng.uniform(1.0, 3.0))
        if round_.rng.random() < _FREEZES:
            os.kill(broker.pid, signal.SIGSTOP)
            await asyncio.sleep(round_.rng.uniform(1.0, 4.0))
            os.kill(broker.pid, signal.SIGCONT)
        round_.servers.down = time.monotonic()
        await asyncio.to_thread(broker.kill)
        if self.wipes:
            await asyncio.to_thread(broker.wipe)
        await asyncio.sleep(round_.rng.uniform(0, 2.0))
        await asyncio.to_thread(broker.start)
        round_.servers.back = time.monotonic()

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        yield from goes_on(round_, evidence, self.back_seconds, through_kafka=True)
        log = round_.fleet.workers[0].log.read_text("utf-8")
        if not self.wipes and _STUCK not in log:
            yield Violation(self.name, "", "a consumer that was given nothing was never built anew")


class BrokerWiped(BrokerRestarts):
    """The broker comes back with nothing: no topic, no offset."""

    name = "F6"
    title = "Kafka's data wiped"
    # A message that nobody had read yet is lost with the topic: that is not ours to promise.
    load = Load(seconds=18.0, rate=4.0, feed=False)
    recovery = 60.0
    wipes = True

    def environment(self, round_: Round) -> dict[str, str]:
        # What is found lost after two minutes in production is found after ten seconds here.
        return {Inject.RECONCILE: "5"}


class Repeated(Fault):
    """Every message is delivered three times, the copies in another order."""

    name = "F9"
    title = "each message three times, in another order"
    load = Load(seconds=12.0, suspends=True)

    async def strike(self, round_: Round) -> None:
        broker = round_.servers.kafka
        until = time.monotonic() + self.load.seconds + 3
        consumer = AIOKafkaConsumer(bootstrap_servers=broker.bootstrap, enable_auto_commit=False)
        producer = AIOKafkaProducer(bootstrap_servers=broker.bootstrap)
        await consumer.start()
        await producer.start()
        copies = 0
        try:
            consumer.subscribe(pattern=rf"^stepwell\.{round_.namespace}\..*")
            while time.monotonic() < until:
                found = await consumer.getmany(timeout_ms=400)
                records = [r for part in found.values() for r in part if _COPY not in r.headers] * 2
                round_.rng.shuffle(records)
                for record in records:
                    headers = [*record.headers, _COPY]
                    await producer.send(
                        record.topic, record.value, record.key, partition=record.partition, headers=headers
                    )
                await producer.flush()
                copies += len(records)
        finally:
            await consumer.stop()
            await producer.stop()
        round_.measured["copies"] = float(copies)
        if not copies:
            round_.faults.append("no message was ever repeated: the round shows nothing")


class RowLocked(Fault):
    """Somebody's forgotten session has a run's row locked, and some values are of the kind that the server refuses."""

    name = "F17"
    title = "a row locked, a value refused, in full batches"
    load = Load(
        seconds=12.0,
        rate=12.0,
        troubles={**COMMON_TROUBLES, "nul": 8, "surrogate": 8, "pause-nul": 6, "lone-surrogate": 4},
        troubled=0.4,
    )

    async def strike(self, round_: Round) -> None:
        await asyncio.sleep(round_.rng.uniform(1.0, 2.0))
        connection = await asyncpg.connect(round_.dsn, server_settings={"search_path": "stepwell"})
        try:
            began, locked = time.monotonic(), set[str]()
            async with connection.transaction():
                while time.monotonic() < began + _HELD_SECONDS:
                    rows = await connection.fetch(
                        "SELECT run_id FROM run WHERE finished_at IS NULL ORDER BY random() LIMIT 1"
                        " FOR NO KEY UPDATE SKIP LOCKED"
                    )
                    locked.update(row[0] for row in rows)
                    await asyncio.sleep(_HELD_SECONDS / 3)
            round_.locked, round_.locked_while = frozenset(locked), Span(began=began, ended=time.monotonic())
        finally:
            await connection.close()

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        """Nobody but the locked runs waited between the end of a step and the beginning of the next."""
        assert round_.locked_while is not None
        began, ended, locked = round_.locked_while.began, round_.locked_while.ended, round_.locked
        slowest = 0.0
        for run_id, calls in evidence.calls_of.items():
            if run_id in locked:
                continue
            steps = {call.version: call for call in calls if call.kind == "step"}
            for version, call in steps.items():
                after = steps.get(version + 1)
                moved = call.ended is not None and call.answer.startswith("to ")
                if after is None or not moved or not began < (call.ended or 0) < ended:
                    continue
                slowest = max(slowest, after.began - (call.ended or 0))
        round_.measured["slowest neighbour"] = slowest
        if not locked:
            yield Violation(self.name, "", "no row was ever locked: the round shows nothing")
        if slowest > _AT_ONCE_SECONDS and not evidence.strained(began, ended):
            yield Violation(self.name, "", f"while {len(locked)} rows were locked, another run waited {slowest:.1f} s")


async def _cut_connections(round_: Round) -> None:
    """Of this round's database, at a moment at which something is being written."""
    for _ in range(5):
        with suppress(asyncpg.PostgresError, OSError):
            await round_.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        await asyncio.sleep(random.uniform(0, 0.1))


def goes_on(round_: Round, evidence: Evidence, seconds: float, *, through_kafka: bool = False) -> Iterator[Violation]:
    """Workers begin something in time after a server is back; ``through_kafka``: a run that came while it was away."""
    back, down = round_.servers.back, round_.servers.down
    came = {note.run_id for note in evidence.notes if note.ask is Ask.TRIGGER and note.answered > down}
    calls = (call.began for call in evidence.calls if not through_kafka or (call.run_id in came and call.version == 1))
    first = min((began for began in calls if began > back), default=evidence.closed)
    round_.measured["goes on after"] = first - back
    if first > back + seconds and not evidence.strained(back, back + seconds):
        yield Violation(round_.fault.name, "", f"nothing went on for {first - back:.1f} s after the server was back")
