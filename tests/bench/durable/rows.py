"""How each figure is measured: who is started on which database, and which of what they say is kept."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg
from tests.bench.durable import app, cpu, programs
from tests.bench.durable.fill import finished_runs
from tests.bench.durable.plan import Plan, Sizes
from tests.bench.durable.services import Services
from tests.bench.durable.table import Figure
from tests.bench.durable.workers import APP, Crew, crew
from tests.bench.process import run_side

SIDES = "tests.bench.durable.sides"
IN_FLIGHT = 256
STEPS = app.STEPS
LATENCY = Path(__file__).resolve().parent / "latency.yaml"
LIMIT_SECONDS = 150.0
BEAT_SECONDS = 3.0
SETTLE_SECONDS = 5.0
"""Of idle workers, after which only what they do for ever is left."""

Found = Mapping[Figure, float]
_STATEMENTS = """
SELECT coalesce(sum(calls), 0)::float8 FROM pg_stat_statements
WHERE dbid = (SELECT oid FROM pg_database WHERE datname = $1)
"""


async def side(command: Sequence[str]) -> Mapping[str, Any]:
    """Run one; others of this process go on meanwhile."""
    return await asyncio.to_thread(run_side, command, limit=LIMIT_SECONDS)


def python(name: str, *arguments: object) -> list[str]:
    """The command of a side written in Python."""
    return [sys.executable, "-m", f"{SIDES}.{name}", *map(str, arguments)]


@dataclass(kw_only=True)
class Bench:
    """All measurements, over one pair of servers."""

    plan: Plan
    services: Services
    directory: Path
    stack: AsyncExitStack
    sizes: Sizes = field(init=False)
    _stocked: dict[int, str] = field(default_factory=dict)
    """Databases with that many finished runs."""

    def __post_init__(self) -> None:
        self.sizes = Sizes(seconds=self.plan.seconds)

    async def store(self) -> Found:
        """Row 1, ours."""
        moves = self.sizes.of("store", first=20_000, least=10_000)
        async with self.services.database() as dsn:
            found = await side(python("stepwell_store", "--dsn", dsn, "--in-flight", IN_FLIGHT, "--moves", moves))
        return {Figure.STORE: self.sizes.learn("store", found)}

    async def store_model(self) -> Found:
        """Row 1, the model."""
        moves = self.sizes.of("store_model", first=2000, least=1000)
        async with self.services.database(migrated=False) as dsn:
            found = await side(python("model_store", "--dsn", dsn, "--consumers", 8, "--moves", moves))
        return {Figure.STORE_MODEL: self.sizes.learn("store_model", found)}

    async def steps(self) -> Found:
        """Rows 2 and 6: one worker at full load."""
        async with self.services.database() as dsn, self._crew(dsn) as team:
            await team.add("-f", f"{APP}:bench")
            found = await self._rate(team, "bench")
        rate = found["moves"] / found["seconds"]
        return {Figure.STEPS: rate, Figure.CPU: 1e6 * found["cpu_seconds"] / found["moves"]}

    async def steps_model(self) -> Found:
        """Row 2, the model."""
        runs = self.sizes.of("steps_model", first=500, least=250) // STEPS
        async with self.services.database(migrated=False) as dsn:
            bootstrap = self.services.kafka.bootstrap
            found = await side(python("model_steps", "--dsn", dsn, "--kafka", bootstrap, "--runs", runs))
        return {Figure.STEPS_MODEL: self.sizes.learn("steps_model", found)}

    async def steps_dbos(self) -> Found:
        """Row 3."""
        runs = self.sizes.of("dbos", first=IN_FLIGHT * STEPS, least=IN_FLIGHT * STEPS) // STEPS
        async with self.services.database(migrated=False) as dsn:
            arguments = ("--in-flight", IN_FLIGHT, "--runs", runs, "--mode", "async")
            found = await side(python("dbos_steps", "--dsn", dsn, *arguments))
        return {Figure.STEPS_DBOS: self.sizes.learn("dbos", found)}

    async def steps_procrastinate(self) -> Found:
        """Row 3."""
        runs = self.sizes.of("procrastinate", first=500, least=500) // STEPS
        async with self.services.database(migrated=False) as dsn:
            found = await side(python("procrastinate_steps", "--dsn", dsn, "--concurrency", 32, "--runs", runs))
        return {Figure.STEPS_PROCRASTINATE: self.sizes.learn("procrastinate", found)}

    async def graphile(self) -> Found:
        """Row 4: single jobs, and chains."""
        jobs = await self._program("graphile", programs.graphile, steps=1)
        return {
            Figure.JOBS_GRAPHILE: jobs,
            Figure.STEPS_GRAPHILE: await self._program("graphile-chains", programs.graphile, steps=STEPS),
        }

    async def river(self) -> Found:
        """Row 4: single jobs, and chains."""
        jobs = await self._program("river", programs.river, steps=1)
        return {
            Figure.JOBS_RIVER: jobs,
            Figure.STEPS_RIVER: await self._program("river-chains", programs.river, steps=STEPS),
        }

    async def _program(self, name: str, command: Callable[[str, int, int], list[str]], *, steps: int) -> float:
        runs = self.sizes.of(name, first=5000 if steps == 1 else 500, least=2000) // steps
        async with self.services.database(migrated=False) as dsn:
            found = await side(await asyncio.to_thread(command, dsn, runs, steps))
        return self.sizes.learn(name, found)

    async def latency(self) -> Found:
        """Row 5: two workers, one of which has every second step of one workflow."""
        async with self.services.database() as dsn, self._crew(dsn) as team:
            await asyncio.gather(
                team.add("-f", str(LATENCY), "--common"),
                team.add("-f", str(LATENCY), "--steps", "Two", "--steps", "Four"),
            )
            arguments = ("--dsn", dsn, "--namespace", team.namespace, "--runs", self.plan.latency_runs)
            found = await side(python("stepwell_latency", *arguments, "near", "far"))
        return {
            Figure.NEAR_P50: found["near_p50_ms"],
            Figure.NEAR_P99: found["near_p99_ms"],
            Figure.NEAR_WHOLE_P50: found["near_whole_p50_ms"],
            Figure.NEAR_WHOLE_P99: found["near_whole_p99_ms"],
            Figure.FAR_P50: found["far_p50_ms"],
            Figure.FAR_P99: found["far_p99_ms"],
            Figure.FAR_WHOLE_P50: found["far_whole_p50_ms"],
            Figure.FAR_WHOLE_P99: found["far_whole_p99_ms"],
        }

    async def waiting(self, figure: Figure, workers: int) -> Found:
        """Row 7."""
        async with self.services.database() as dsn, self._crew(dsn) as team:
            await team.add("-f", f"{APP}:waiting", number=workers)
            found = await self._rate(team, "waiting", unfinished=100 * workers)
        return {figure: found["moves"] / found["seconds"]}

    async def finished(self, figure: Figure, count: int) -> Found:
        """Row 8: as row 2, in a database that stays for all rounds."""
        if count not in self._stocked:
            dsn = await self.stack.enter_async_context(self.services.database())
            await finished_runs(dsn, count)
            await self.services.checkpoint()
            self._stocked[count] = dsn
        async with self._crew(self._stocked[count]) as team:
            await team.add("-f", f"{APP}:bench")
            found = await self._rate(team, "bench")
        return {figure: found["moves"] / found["seconds"]}

    async def idle(self) -> Found:
        """Row 9, once: two workers with twenty workflows, and nothing to do."""
        files = [part for number in range(app.IDLE_WORKFLOWS) for part in ("-f", f"{APP}:idle.w{number}")]
        async with self.services.database() as dsn, self._crew(dsn) as team:
            admin = await asyncpg.connect(self.services.postgres.dsn("postgres"))
            try:
                name = dsn.rsplit("/", 1)[1]
                await admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
                await admin.execute(f"ALTER DATABASE {name} SET pg_stat_statements.track = 'top'")
                await team.add(*files, number=2)
                await asyncio.sleep(SETTLE_SECONDS)
                statements, used = await admin.fetchval(_STATEMENTS, name), cpu.seconds(team.pids)
                await asyncio.sleep(self.plan.idle_seconds)
                statements = await admin.fetchval(_STATEMENTS, name) - statements
                used = cpu.seconds(team.pids) - used
            finally:
                await admin.close()
        seconds, workers = self.plan.idle_seconds, len(team.pids)
        return {
            Figure.IDLE_STATEMENTS: max(0.0, statements / seconds - workers / BEAT_SECONDS),
            Figure.IDLE_CPU: 100 * used / seconds / workers,
        }

    async def poisoned(self, figure: Figure, every: int) -> Found:
        """Row 10. A percentile takes many runs, and these are few a second."""
        async with self.services.database() as dsn, self._crew(dsn) as team:
            await team.add("-f", f"{APP}:bench")
            arguments = (
                "--dsn",
                dsn,
                "--namespace",
                team.namespace,
                "--every",
                every,
                "--seconds",
                3 * self.plan.seconds,
            )
            found = await side(python("stepwell_poisoned", *arguments))
        return {figure: found["p99_ms"]}

    @asynccontextmanager
    async def _crew(self, dsn: str) -> AsyncIterator[Crew]:
        async with crew(self.services, dsn, self.directory) as team:
            yield team

    async def _rate(self, team: Crew, workflow: str, *, unfinished: int = 2000) -> Mapping[str, Any]:
        watched: Iterable[int] = (*team.pids, *self.services.pids)
        arguments = ("--dsn", team.dsn, "--namespace", team.namespace, "--workflow", workflow)
        amounts = ("--unfinished", unfinished, "--warm", self.plan.warm_up, "--window", self.plan.seconds)
        return await side(python("stepwell_rate", *arguments, *amounts, "--watch", *watched))

    def measurements(self) -> list[tuple[int, str, Callable[[], Awaitable[Found]]]]:
        """Of one round, in order: row, name, and what to do."""
        plan = self.plan
        return [
            (1, "store", self.store),
            (1, "store, model", self.store_model),
            (2, "steps", self.steps),
            (2, "steps, model", self.steps_model),
            (3, "DBOS", self.steps_dbos),
            (3, "Procrastinate", self.steps_procrastinate),
            (4, "graphile-worker", self.graphile),
            (4, "River", self.river),
            (5, "latency", self.latency),
            (7, "waiting, 1 worker", lambda: self.waiting(Figure.WAITING_1, 1)),
            (7, "waiting, 4 workers", lambda: self.waiting(Figure.WAITING_4, 4)),
            (8, "few finished", lambda: self.finished(Figure.FEW_FINISHED, plan.few_finished)),
            (8, "many finished", lambda: self.finished(Figure.MANY_FINISHED, plan.many_finished)),
            (10, "clean", lambda: self.poisoned(Figure.CLEAN_P99, 0)),
            (10, "poisoned", lambda: self.poisoned(Figure.POISONED_P99, 100)),
        ]


NEEDED = {3: {2}, 4: {1, 2}, 6: {2}}
"""Rows that are judged by what is measured for others."""


def with_needed(rows: Iterable[int]) -> set[int]:
    """The rows whose measurements these take."""
    return {each for row in rows for each in {row, *NEEDED.get(row, ())}}


@asynccontextmanager
async def bench(plan: Plan, services: Services) -> AsyncIterator[Bench]:
    """Ready to measure; databases that stay for all rounds go at the end."""
    async with AsyncExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="stepwell-bench-"))
        yield Bench(plan=plan, services=services, directory=Path(directory), stack=stack)
