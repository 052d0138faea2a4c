"""Replay an event log: ``python -m examples.helpdesk.replay LOG.csv.gz [--closed Closed] [--store FILE] [--json]``.

Time is the log's own: the clock stands at a row's timestamp when the row comes in, and whatever falls due between two
rows happens between them. With ``--store`` the process may be killed at any moment and started again with the same
arguments: every row has a request id, the virtual time is stored, and the figures at the end are the same.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from time import perf_counter
from typing import Any

from examples.helpdesk.expected import AFTERWARDS, Expected, Visit, expected
from examples.helpdesk.log import ARCHIVED, LogError, Row, read_log
from examples.helpdesk.workflow import Activities, Desk, Seen, Ticket, desk
from stepwell import CallbackRefusedError, EntryKind, ForeignID, StepwellError
from stepwell.testing import World

MOVES = frozenset({EntryKind.TRIGGER, EntryKind.MOVE})
RUN_FINISHED = "RunFinished"
SHOWN_DIFFERENCES = 20


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What replaying came to."""

    runs: int
    callback_moves: int
    archived: int
    refused_rows: int
    final: dict[str, int]
    """How many cases ended where, by the last activity or ``archived``."""
    seconds: float


class Progress:
    """A line on stderr every so many seconds."""

    def __init__(self, total: int, every: float) -> None:
        self._total = total
        self._every = every
        self._started = self._told = perf_counter()
        self._skipped = 0

    @property
    def seconds(self) -> float:
        """Since the start."""
        return perf_counter() - self._started

    def skip(self, rows: int) -> None:
        """So many rows were done before."""
        self._skipped = rows

    def tell(self, done: int, at: object) -> None:
        """Say how far it is, unless it was said a moment ago."""
        if perf_counter() - self._told >= self._every or done == self._total:
            self._told = perf_counter()
            rate = (done - self._skipped) / self.seconds if self.seconds else 0.0
            print(f"{done} of {self._total} rows, {at}, {rate:.0f} rows/s", file=sys.stderr, flush=True)


class Replay:
    """One log on one world."""

    def __init__(
        self, rows: Sequence[Row], world: World[Ticket, Any, Activities], made: Desk, progress: Progress
    ) -> None:
        self._rows = sorted(rows, key=lambda row: (row.at, row.number))
        self._world = world
        self._desk = made
        self._progress = progress
        self._begun: set[str] = set()
        self.refused = 0

    async def run(self) -> None:
        """All rows in the order of time, and the time after the last one."""
        done = await self._skip_what_is_stored()
        self._progress.skip(done)
        for at, group in groupby(self._rows[done:], key=lambda row: row.at):
            await self._world.advance_to(at)
            for row in group:
                await self._hand_in(row)
                done += 1
                self._progress.tell(done, at.date())
        await self._world.advance_to(self._rows[-1].at + AFTERWARDS)

    async def _skip_what_is_stored(self) -> int:
        """How many rows an earlier process has handed in: all those before the stored time.

        Those of them that were refused left no trace; they are handed in, and refused, once more.
        """
        ended = {run.foreign_id: run.finished_at async for run in self._world.runs.list() if run.finished_at}
        done = 0
        for row in self._rows:
            if row.at >= self._world.now:
                break
            done += 1
            self._begun.add(row.case)
            end = ended.get(ForeignID(row.case))
            if end is not None and end <= row.at:
                await self._hand_in(row)
        return done

    async def _hand_in(self, row: Row) -> None:
        request_id = f"row-{row.number}"
        if row.case not in self._begun:
            self._begun.add(row.case)
            ticket = Ticket(activity=row.activity, resource=row.resource, at=row.at)
            start = self._desk.activities.statuses[row.activity]
            await self._world.runs.trigger(row.case, ticket, start=start, request_id=request_id)
            return
        seen = Seen(activity=row.activity, resource=row.resource, timestamp=row.at)
        move = self._desk.moves[row.activity]
        try:
            await self._world.runs.callback(move, ForeignID(row.case), seen, request_id=request_id)
        except CallbackRefusedError as error:
            if error.reason != RUN_FINISHED:
                raise
            self.refused += 1

    async def histories(self) -> dict[str, list[tuple[str, Visit]]]:
        """Of every run: who made each visit, the activity, and when."""
        names = {str(status): activity for activity, status in self._desk.activities.statuses.items()}
        found: dict[str, list[tuple[str, Visit]]] = {}
        async for run in self._world.runs.list():
            entries = await self._world.runs.history(run.id)
            visits = [(entry.actor, (names[entry.to_name], entry.at)) for entry in entries if entry.kind in MOVES]
            if run.foreign_id in found:
                raise SystemExit(f"case {run.foreign_id} has more than one run")
            found[run.foreign_id] = visits
        return found

    def figures(self, histories: dict[str, list[tuple[str, Visit]]]) -> Figures:
        """The totals, from what is stored."""
        actors = Counter(actor.partition("/")[0] for visits in histories.values() for actor, _ in visits)
        final = Counter(visits[-1][1][0] for visits in histories.values())
        return Figures(
            runs=len(histories),
            callback_moves=actors["callback"],
            archived=final[ARCHIVED],
            refused_rows=self.refused,
            final=dict(final.most_common()),
            seconds=round(self._progress.seconds, 3),
        )


def differences(figures: Figures, histories: dict[str, list[tuple[str, Visit]]], wanted: Expected) -> Iterator[str]:
    """Where the runs are not what the rows say."""
    for name in ("runs", "callback_moves", "archived", "refused_rows", "final"):
        got, want = getattr(figures, name), getattr(wanted, name)
        if got != want:
            yield f"{name}: replayed {got}, computed {want}"
    for case in sorted(wanted.cases.keys() | histories.keys()):
        got = [visit for _, visit in histories.get(case, [])]
        want = wanted.cases[case].visits if case in wanted.cases else []
        if got != want:
            yield f"case {case}: replayed {_way(got)}, computed {_way(want)}"


def _way(visits: Iterable[Visit]) -> str:
    return " -> ".join(f"{activity} at {at.isoformat()}" for activity, at in visits) or "nothing"


async def replay(
    rows: Sequence[Row], *, closed: str, store: Path | None = None, progress_every: float = 2.0
) -> tuple[Figures, list[str]]:
    """Replay the rows; what came of them, and how it differs from what they say."""
    if closed == ARCHIVED:
        raise ValueError(f"closed={closed!r}: is the name of the end that replaying adds")
    progress = Progress(len(rows), progress_every)
    made = desk(Activities.of([*(row.activity for row in rows), closed]), closed=closed)
    first = min(row.at for row in rows)
    async with World(made.workflow, deps=made.activities, store=store, start=first) as world:
        replaying = Replay(rows, world, made, progress)
        await replaying.run()
        histories = await replaying.histories()
    figures = replaying.figures(histories)
    return figures, list(differences(figures, histories, expected(rows, closed=closed)))


def main(arguments: Sequence[str] | None = None) -> int:
    """0: replayed and as computed. 1: it differs. 2: the log or the store was refused."""
    parser = argparse.ArgumentParser(prog="python -m examples.helpdesk.replay", description="Replay an event log.")
    parser.add_argument("log", type=Path, help="a CSV file, gzipped or not")
    parser.add_argument("--closed", default="Closed", help="the activity after which a case is archived [Closed]")
    parser.add_argument("--store", type=Path, help="keep the runs in this file, and go on from it")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--progress", type=float, default=2.0, metavar="SECONDS", help="between progress lines [2]")
    options = parser.parse_args(arguments)
    try:
        rows = read_log(options.log)
        replaying = replay(rows, closed=options.closed, store=options.store, progress_every=options.progress)
        figures, differing = asyncio.run(replaying)
    except KeyboardInterrupt:
        return 130
    except (LogError, OSError, StepwellError, ValueError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    if options.json:
        print(json.dumps(asdict(figures)))
    else:
        for name, value in asdict(figures).items():
            print(f"{name}: {value}")
    for line in differing[:SHOWN_DIFFERENCES]:
        print(f"differs: {line}", file=sys.stderr)
    if len(differing) > SHOWN_DIFFERENCES:
        print(f"and {len(differing) - SHOWN_DIFFERENCES} more differences", file=sys.stderr)
    return 1 if differing else 0


if __name__ == "__main__":
    sys.exit(main())
