"""One seed under one fault: a database of its own, workers, callers, the fault, recovery, and the verdict.

The verdict is the checker's; a fault adds what it promises beside the ten. Whatever is found, the round ends with every
process of it gone.
"""

from __future__ import annotations

import asyncio
import math
import random
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import asyncpg
from tests.chaos.checker import Counts, check, count
from tests.chaos.effects import read_calls
from tests.chaos.evidence import Answer, Evidence, Planned, Span, Violation
from tests.chaos.fleet import Fleet, Zygote
from tests.chaos.flow import NAME, S, wf
from tests.chaos.graph import graph_of
from tests.chaos.load import Callers, Load
from tests.chaos.machine import Machine
from tests.chaos.readout import Stored, found_of, owed_times, read_logs, read_store, read_topics
from tests.chaos.timeline import timeline
from tests.cluster.kafka import Broker
from tests.cluster.postgres import Server

from stepwell import Client
from stepwell._domain.serialized import definition_to_json
from stepwell.adapters.postgres import PostgresStore
from stepwell.ports.store import WorkflowRow

PLANNED_BEFORE = timedelta(minutes=5, seconds=30)
"""How long before the round the workflow was made: its schedule owes the planned times since then."""
READY_SECONDS = 60.0
_KEPT = 200_000
"""Characters of the broker's log."""
_LOOK = 0.1
_UNDER_WAY = 0.5
"""Seconds for which a statement may be under way whose rows say an earlier time."""
_AGE = "UPDATE workflow SET created_at = created_at - $1::interval RETURNING created_at"
_LEFT = """
SELECT (SELECT count(*) FROM run WHERE finished_at IS NULL) AS unfinished,
       (SELECT count(*) FROM run WHERE state = 'RequestedDataDeleted') AS deletions,
       (SELECT count(*) FROM run_finished WHERE state = 'RequestedDataDeleted') AS archived_deletions,
       (SELECT count(*) FROM hook) AS hooks,
       (SELECT count(*) FROM requested_start) AS starts,
       (SELECT count(*) FROM inbox WHERE state = 'Pending') AS callbacks,
       (SELECT count(*) FROM tick WHERE outcome = '') AS ticks,
       (SELECT count(*) FROM unnest($1::text[]) AS fed
        WHERE NOT EXISTS (SELECT FROM run WHERE foreign_id = fed)
        AND NOT EXISTS (SELECT FROM run_finished WHERE foreign_id = fed)) AS messages,
       (SELECT count(*) FROM unnest($2::timestamptz[]) AS owed
        WHERE NOT EXISTS (SELECT FROM tick WHERE planned = owed)) AS planned,
       (SELECT greatest($3 - count(*), 0) FROM dead_letter WHERE reason LIKE 'ProcessDied%') AS deadly
"""


class Fault:
    """Nothing is broken: what every fault is made from."""

    name = ""
    title = ""
    workers = 2
    load = Load()
    strikes = True
    """Whether anything is out of order while the callers call: then timeouts may be late, and events out of order."""
    shared = False
    """Whether it falls on a server, and so on all rounds that are played side by side."""
    own_database = False
    own_broker = False
    recovery = 0.0
    """Seconds after the fault's end in which timeouts may still be late."""
    patience = 90.0
    """Seconds after the load's end in which less must be left than ever before, until nothing is."""

    def environment(self, round_: Round) -> dict[str, str]:
        """What the workers are started with."""
        return {}

    async def strike(self, round_: Round) -> None:
        """Break things while the callers call; returns when nothing is broken any more."""
        if self.shared:
            await round_.servers.together(round_)

    async def blow(self, round_: Round) -> None:
        """What a shared fault does, once for all rounds that are under way."""

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        """What the fault promises beside P1 to P10."""
        yield from ()


@dataclass(kw_only=True, eq=False)
class Servers:
    """What the rounds of one group share."""

    postgres: Server
    kafka: Broker
    zygote: Zygote
    machine: Machine
    down: float = 0.0
    """When a server was first broken by the fault of the group."""
    back: float = 0.0
    """When a server was last there again, behind a fault of the group."""
    party: asyncio.Barrier = field(default_factory=lambda: asyncio.Barrier(1))
    """Where rounds that are played side by side wait for each other, before anything is broken."""
    _blow: asyncio.Task[None] | None = None

    async def together(self, round_: Round) -> None:
        """The group's fault: the first round that comes brings it about, the others wait with it for its end."""
        if self._blow is None or self._blow.done():
            self._blow = asyncio.ensure_future(round_.fault.blow(round_))
        await asyncio.shield(self._blow)


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one round."""

    fault: str
    seed: int
    counts: Counts
    violations: Sequence[Violation]
    seconds: float
    measured: Mapping[str, float]
    last: str = ""
    """What was done last, behind everything else."""
    kept: Path | None
    """Where everything that was seen lies, if anything was wrong."""


def broken_off(fault: Fault, seed: int, error: Exception, where: Path) -> Result:
    """The outcome of a round that never came to its verdict."""
    return Result(
        fault=fault.name,
        seed=seed,
        counts=Counts(triggers=0, moves=0, calls=0, repeats=0),
        violations=[Violation(fault.name, "", f"the round broke off: {error!r}")],
        seconds=0.0,
        measured={},
        kept=where / f"{fault.name}-{seed}",
    )


@dataclass(kw_only=True, eq=False)
class Round:
    """The state of one round, as a fault sees it."""

    fault: Fault
    seed: int
    servers: Servers
    directory: Path
    dsn: str
    fleet: Fleet
    rng: random.Random
    unrest: list[Span] = field(default_factory=list)
    measured: dict[str, float] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    """What went wrong that no promise has a name for."""
    poisoned: Mapping[str, str] = field(default_factory=dict)
    """Runs whose handler ends the process at every attempt, with the status in which it does."""
    deadly: int = 0
    """Foreign messages that end the process of whoever turns them."""
    last: str = ""
    """What was still to be done when it was last looked at, if anything was."""
    locked: frozenset[str] = frozenset()
    """Runs whose rows somebody had locked, and from when until when."""
    locked_while: Span | None = None
    aside: list[asyncio.Task[Any]] = field(default_factory=list)
    """What goes on until the round's end."""

    @property
    def namespace(self) -> str:
        return f"seed-{self.seed}"

    async def sql(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Ask the database, over a connection of its own."""
        connection = await asyncpg.connect(self.dsn, server_settings={"search_path": "stepwell"})
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()


async def run_round(fault: Fault, seed: int, servers: Servers, where: Path, *, keep: bool = False) -> Result:
    """Everything from an empty database to the verdict. ``keep``: what was seen, even if nothing was wrong."""
    directory = where / f"{fault.name}-{seed}"
    directory.mkdir(parents=True)
    began = time.monotonic()
    async with AsyncExitStack() as stack:
        dsn = await stack.enter_async_context(servers.postgres.database())
        environment = {
            "STEPWELL_DSN": dsn,
            "STEPWELL_NAMESPACE": f"seed-{seed}",
            "STEPWELL_KAFKA_BOOTSTRAP": servers.kafka.bootstrap,
            "STEPWELL_KAFKA_REPLICATION_FACTOR": "1",
            "STEPWELL_KAFKA_MIN_INSYNC": "1",
        }
        fleet = Fleet(servers.zygote, directory, environment)
        stack.push_async_callback(fleet.end)
        round_ = Round(
            fault=fault,
            seed=seed,
            servers=servers,
            directory=directory,
            dsn=dsn,
            fleet=fleet,
            rng=random.Random(f"{fault.name} {seed}"),
        )
        evidence = await _played(round_)
        violations = [*check(evidence), *fault.judge(round_, evidence)]
        violations += [Violation(fault.name, "", what) for what in round_.faults]
    if violations or keep:
        told = [str(violation) for violation in violations]
        concerned = evidence.runs if keep else {violation.run_id for violation in violations if violation.run_id}
        told += [timeline(evidence, run_id) for run_id in sorted(concerned)]
        (directory / "violations.txt").write_text("\n".join(told) + "\n", "utf-8")
        (directory / "kafka.log").write_text(servers.kafka.log_tail(_KEPT), "utf-8")
    else:
        shutil.rmtree(directory)
    return Result(
        fault=fault.name,
        seed=seed,
        counts=count(evidence),
        violations=violations,
        seconds=time.monotonic() - began,
        measured=round_.measured,
        last=round_.last,
        kept=directory if violations or keep else None,
    )


async def _played(round_: Round) -> Evidence:
    fault, fleet = round_.fault, round_.fleet
    since = await _plant(round_)
    started = time.monotonic()
    for _ in range(fault.workers):
        fleet.start(**fault.environment(round_))
    async with Client.connect(round_.dsn, namespace=round_.namespace) as client:
        callers = Callers(client, round_.seed, fault.load)
        await callers.try_out(READY_SECONDS)
        round_.unrest.append(Span(began=started, ended=time.monotonic()))
        await round_.servers.party.wait()
        struck = time.monotonic()
        async with asyncio.TaskGroup() as together:
            together.create_task(callers.call())
            together.create_task(callers.feed(round_.servers.kafka.bootstrap))
            together.create_task(callers.suspend())
            together.create_task(fault.strike(round_))
        round_.poisoned, round_.deadly = callers.poisoned, callers.deadly
        round_.measured["calm %"] = 100 * round_.servers.machine.calm(struck, time.monotonic())
        if fault.strikes:
            round_.unrest.append(Span(began=struck, ended=time.monotonic() + fault.recovery))
        owed = owed_times("minutely", since, datetime.now(UTC))
        settled = await _settle(round_, callers, owed)
    for task in round_.aside:
        task.cancel()
    await asyncio.gather(*round_.aside, return_exceptions=True)
    round_.faults += await fleet.drain()
    return await _evidence(round_, callers, owed, settled)


async def _plant(round_: Round) -> datetime:
    """Make the workflow known as if it had been made minutes ago; returns when that was."""
    store = await PostgresStore.open(round_.dsn)
    try:
        await store.register(
            WorkflowRow(namespace=round_.namespace, name=NAME, definition=definition_to_json(wf.build()))
        )
    finally:
        await store.close()
    [row] = await round_.sql(_AGE, PLANNED_BEFORE)
    created: datetime = row[0]
    return created


async def _settle(round_: Round, callers: Callers, owed: Planned) -> float:
    """Wait until nothing is left to do, resuming what stands still. A slow machine is waited for, a lost run is not.

    Returns since when there may be more: a planned time may start a run at any moment, and the last look saw no
    statement that was under way.
    """
    began = fewer_at = time.monotonic()
    fewest = math.inf
    while (looked := time.monotonic()) < fewer_at + round_.fault.patience:
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
            await callers.resume_what_stands()
            [counts] = await round_.sql(_LEFT, callers.fed, list(owed.times), callers.deadly)
            left = {name: count for name, count in counts.items() if count}
            if not left:
                break
            if sum(left.values()) < fewest:
                fewest, fewer_at = sum(left.values()), time.monotonic()
            round_.last = ", ".join(f"{count} {name}" for name, count in left.items())
        await asyncio.sleep(_LOOK)
    round_.measured["settled in s"] = time.monotonic() - began
    return looked - _UNDER_WAY


async def _evidence(round_: Round, callers: Callers, owed: Planned, settled: float) -> Evidence:
    wall = time.time() - time.monotonic()
    stored: Stored = await read_store(round_.dsn, wall)
    places = dict(stored.places)
    heard, topics = await read_topics(round_.servers.kafka.bootstrap, f"stepwell.{round_.namespace}.")
    places |= topics
    if not any(places.values()):
        round_.faults.append("no payload was found anywhere, erased or not: the search shows nothing")
    round_.measured["unknown"] = float(sum(note.answer is Answer.UNKNOWN for note in callers.notes))
    logs = read_logs([worker.log for worker in round_.fleet.workers])
    return Evidence(
        graph=graph_of(wf.build(), starts=frozenset({S.SENT})),
        notes=callers.notes,
        calls=read_calls(round_.fleet.effects),
        runs=stored.runs,
        lines=stored.lines,
        ticks=stored.ticks,
        inbox=stored.inbox,
        heard=heard,
        owed=[owed],
        found=list(found_of(places, logs, callers.owners)),
        letters=stored.letters,
        unrest=round_.unrest,
        full=round_.servers.machine.full,
        settled=settled,
        closed=time.monotonic(),
    )
