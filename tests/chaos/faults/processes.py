"""What happens to worker processes: killed, frozen, deceived about the time, and given a role that another one has."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise

from tests.chaos.evidence import Ask, Call, Evidence, Span, Violation
from tests.chaos.fleet import Worker
from tests.chaos.load import Load
from tests.chaos.round import Fault, Round
from tests.chaos.wrapped import Inject

_HOUR = 3600.0
_DEADLY = "publishing-is-deadly"
_SWEPT = '"action": "outbox_swept"'
"""What a worker logs that plays the role of the keeper, when callers trigger runs."""

TAKE_OVER_SECONDS = 15.0
"""From a worker's death until its shards are read by others (a silent member is declared dead after 10 s)."""


class NothingBroken(Fault):
    """What all others are measured by, and where nothing excuses a late timeout."""

    name = "F0"
    title = "nothing is broken"
    strikes = False
    load = Load(suspends=True)


class Killed(Fault):
    """``kill -9`` of a worker, again and again; another one takes its place, but for the last."""

    name = "F1"
    title = "kill -9 of a worker, again and again"
    workers = 3
    kills = 4
    load = Load(seconds=26.0, rate=3.0)
    recovery = TAKE_OVER_SECONDS

    async def strike(self, round_: Round) -> None:
        for _ in range(self.kills):
            await asyncio.sleep(round_.rng.uniform(0.3, 2.0))
            await round_.fleet.kill(round_.rng.choice(round_.fleet.alive))
            round_.fleet.start(**self.environment(round_))
        await asyncio.sleep(1.0)
        last = round_.rng.choice(round_.fleet.alive)
        await round_.fleet.kill(last)
        round_.measured["last kill"] = time.monotonic()

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        yield from taken_over(round_, evidence, round_.measured.pop("last kill"))
        yield from repeats_are_explained(round_, evidence)


class Frozen(Fault):
    """A worker stands still for longer than its membership lasts, and wakes up again."""

    name = "F7"
    title = "a worker frozen past its lease, then woken"
    seconds = 14.0
    load = Load(seconds=20.0, rate=4.0)
    recovery = TAKE_OVER_SECONDS

    async def strike(self, round_: Round) -> None:
        await asyncio.sleep(round_.rng.uniform(0.5, 2.0))
        frozen = round_.rng.choice(round_.fleet.alive)
        frozen.signal(signal.SIGSTOP)
        round_.measured["frozen"] = time.monotonic()
        await asyncio.sleep(self.seconds + round_.rng.uniform(0, 2))
        frozen.signal(signal.SIGCONT)

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        yield from taken_over(round_, evidence, round_.measured.pop("frozen"))


class ClockJumps(Fault):
    """The wall clocks of the workers jump by an hour, each in its own direction, and back."""

    name = "F8"
    title = "clocks jump by an hour either way"
    load = Load(seconds=12.0, suspends=True)
    hours = (3600, -3600, 0, -3600, 3600, 0)

    def environment(self, round_: Round) -> dict[str, str]:
        path = round_.directory / f"clock-{len(round_.fleet.workers) % self.workers}"
        path.write_text("0", "utf-8")
        return {Inject.CLOCK: str(path)}

    async def strike(self, round_: Round) -> None:
        for number, jump in enumerate(self.hours):
            await asyncio.sleep(round_.rng.uniform(1.0, 2.0))
            worker = number % self.workers if jump else None
            for which in range(self.workers):
                if worker in {which, None}:
                    (round_.directory / f"clock-{which}").write_text(str(jump), "utf-8")
        rows = await round_.sql("SELECT count(*) FROM worker")
        round_.measured["members"] = float(rows[0][0])

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        members = round_.measured.pop("members")
        if members != self.workers:
            yield Violation(self.name, "", f"{members:.0f} members are on record, not {self.workers}: somebody flapped")
        wrong = [call.wall - call.began for call in evidence.calls]
        if max(wrong) - min(wrong) < _HOUR:
            yield Violation(self.name, "", "no handler ever saw a clock that jumped: the round shows nothing")


class DiesBetween(Fault):
    """Workers die of themselves between publishing events and deleting their rows."""

    name = "F3"
    title = "kill -9 between publishing and deleting"
    load = Load(seconds=12.0, suspends=True)
    recovery = TAKE_OVER_SECONDS

    def environment(self, round_: Round) -> dict[str, str]:
        return {Inject.DIE_BETWEEN: str(round_.directory / _DEADLY)}

    async def strike(self, round_: Round) -> None:
        deadly = round_.directory / _DEADLY
        deadly.touch()
        died = await keep_going(round_, self, until=time.monotonic() + self.load.seconds)
        deadly.unlink()
        # One may have died in between.
        round_.aside.append(asyncio.create_task(keep_going(round_, self, until=time.monotonic() + 2 * self.patience)))
        round_.measured["died"] = float(died)
        if not died:
            round_.faults.append("no worker ever died between publishing and deleting: the round shows nothing")


class EveryRole(Fault):
    """Every worker plays every single role, through the whole round."""

    name = "F16"
    title = "every single role held by all at once"
    strikes = False
    workers = 3
    load = Load(seconds=12.0, suspends=True)

    def environment(self, round_: Round) -> dict[str, str]:
        return {Inject.EVERY_ROLE: "1"}

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        keepers = sum(_SWEPT in worker.log.read_text("utf-8") for worker in round_.fleet.workers)
        if keepers < self.workers:
            yield Violation(self.name, "", f"{keepers} of {self.workers} workers played the keeper: it shows nothing")


async def keep_going(round_: Round, fault: Fault, until: float) -> int:
    """Start another worker for each that ended by itself; returns how many did."""
    ended: set[Worker] = set()
    while time.monotonic() < until:
        for worker in [*round_.fleet.workers]:
            if worker not in ended and worker.killed is None and not worker.alive:
                ended.add(worker)
                worker.killed = time.monotonic()
                # Whenever that was: others have to notice, and to take over.
                round_.unrest.append(Span(began=worker.killed, ended=worker.killed + fault.recovery))
                round_.fleet.start(**fault.environment(round_))
        await asyncio.sleep(0.05)
    return len(ended)


def taken_over(round_: Round, evidence: Evidence, struck: float) -> Iterator[Violation]:
    """Runs that were started behind a worker's death get their first handler in time."""
    steered = {note.run_id for note in evidence.notes if note.ask in {Ask.PAUSE, Ask.CANCEL}}
    slowest = 0.0
    for note in evidence.notes:
        latest = struck + TAKE_OVER_SECONDS
        if note.ask is not Ask.TRIGGER or not note.acknowledged or not struck < note.answered < latest:
            continue
        first = next((call.began for call in evidence.calls_of.get(note.run_id, ())), evidence.closed)
        if note.run_id not in steered:
            slowest = max(slowest, first - note.answered)
            if first > latest and not evidence.strained(struck, latest):
                what = f"was started {note.answered - struck:.1f} s behind it and begun after {first - struck:.1f} s"
                yield Violation(round_.fault.name, note.run_id, what)
    round_.measured["slowest first step"] = slowest


def repeats_are_explained(round_: Round, evidence: Evidence) -> Iterator[Violation]:
    """A handler is called again for one attempt only if the process that had it in hand was killed."""
    killed = {worker.pid: worker.killed for worker in round_.fleet.workers if worker.killed is not None}
    tries: dict[tuple[str, str, int, int], list[Call]] = defaultdict(list)
    for call in evidence.calls:
        if call.key:
            tries[call.kind, call.key, call.version, call.attempt].append(call)
    for calls in tries.values():
        ordered = sorted(calls, key=lambda call: call.began)
        for before, again in pairwise(ordered):
            if not before.began <= killed.get(before.pid, -1.0) <= again.began:
                later = again.began - before.began
                what = f"{again.kind} {again.key} was called again {later:.2f} s later, without a need"
                yield Violation(round_.fault.name, again.run_id, what)
