"""What user code does wrong: every way in which a handler can misbehave, and all of them at once."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Iterator, Mapping

from tests.chaos.evidence import Ask, Evidence, Violation
from tests.chaos.faults.processes import TAKE_OVER_SECONDS, keep_going
from tests.chaos.flow import FAILING
from tests.chaos.load import COMMON_TROUBLES, Load
from tests.chaos.round import Fault, Round
from tests.chaos.wrapped import Inject

EVERY_TROUBLE: Mapping[str, float] = {
    **COMMON_TROUBLES,
    "nul": 3,
    "surrogate": 3,
    "pause-nul": 2,
    "exit-call": 3,
    "exit": 2,
    "eat": 2,
    "wrong-type": 3,
    "elsewhere": 3,
    "nothing-known": 3,
    "huge": 3,
    "nan": 3,
    "wrong-object": 3,
    "lone-surrogate": 3,
    "hang": 3,
    "block": 1,
}
_ENDS_ITS_PROCESS = "ProcessDied"
_TRIES = 3
"""After so many processes it is given up."""


class BadHandlers(Fault):
    """Handlers raise, hang, end the process, eat memory, and return what nobody can store."""

    name = "F10"
    title = "handlers that misbehave in every way"
    load = Load(seconds=12.0, rate=5.0, troubles=EVERY_TROUBLE, troubled=0.5, poison=0.03, deadly=4)
    recovery = TAKE_OVER_SECONDS
    patience = 150.0

    def environment(self, round_: Round) -> dict[str, str]:
        return {Inject.MEMORY: "6000"}

    async def strike(self, round_: Round) -> None:
        """The handlers themselves are the fault; a worker that they ended is started again, as Kubernetes does."""
        died = await keep_going(round_, self, until=time.monotonic() + self.load.seconds)
        going_on = keep_going(round_, self, until=time.monotonic() + 2 * self.patience)
        round_.aside.append(asyncio.create_task(going_on))
        round_.measured["died"] = float(died)

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        for run_id, status in round_.poisoned.items():
            lines = evidence.history.get(run_id, ())
            tries = [call for call in evidence.calls_of.get(run_id, ()) if call.status == status and not call.ended]
            reasons = [line.reason for line in lines if line.kind == "pause"]
            if len(tries) >= _TRIES and not any(reason.startswith(_ENDS_ITS_PROCESS) for reason in reasons):
                yield Violation(self.name, run_id, f"ends its process and was not paused for it: {reasons}")
        for line in evidence.lines:
            if line.reason.startswith(_ENDS_ITS_PROCESS) and line.run_id not in round_.poisoned:
                yield Violation(self.name, line.run_id, f"is paused at version {line.version} for what others did")
        deadly = [reason for reason in evidence.letters if reason.startswith(_ENDS_ITS_PROCESS)]
        if len(deadly) != round_.deadly:
            yield Violation(self.name, "", f"{round_.deadly} messages end their process, dead letters: {deadly}")


class AllFail(Fault):
    """Every step fails for a while: scaled down from ten minutes, with a back-off that is scaled down too."""

    name = "F15"
    title = "all handlers fail for a while"
    usual_seconds = 8.0
    failing_seconds = 15.0
    load = Load(seconds=35.0, rate=4.0)
    recovery = 5.0

    async def strike(self, round_: Round) -> None:
        flag = round_.fleet.effects / FAILING
        usual = await self._statements(round_, self.usual_seconds)
        began = time.monotonic()
        flag.touch()
        failing = await self._statements(round_, self.failing_seconds)
        flag.unlink()
        round_.measured |= {"usual per s": usual, "failing per s": failing}
        round_.measured |= {"failed at": began, "healed at": time.monotonic()}

    async def _statements(self, round_: Round, seconds: float) -> float:
        """Transactions of the database that were committed, a second."""
        began, before = time.monotonic(), await _commits(round_)
        await asyncio.sleep(seconds)
        return (await _commits(round_) - before) / (time.monotonic() - began)

    def judge(self, round_: Round, evidence: Evidence) -> Iterator[Violation]:
        usual, failing = round_.measured["usual per s"], round_.measured["failing per s"]
        if failing > 2 * usual:
            yield Violation(self.name, "", f"{failing:.0f} statements/s while all failed, {usual:.0f} before")
        failed, healed = round_.measured.pop("failed at"), round_.measured.pop("healed at")
        before = _latency(evidence, 0, failed - 3)
        after = _latency(evidence, healed + 5, evidence.closed)
        round_.measured |= {"usual ms": before * 1000, "after ms": after * 1000}
        if after > max(2 * before, before + 1.0) and not evidence.strained(healed, evidence.closed):
            yield Violation(self.name, "", f"new runs get their first step after {after:.2f} s, {before:.2f} s before")


async def _commits(round_: Round) -> int:
    rows = await round_.sql("SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()")
    return int(rows[0][0])


def _latency(evidence: Evidence, since: float, until: float) -> float:
    """The median time from an acknowledged trigger to the run's first handler."""
    waits = [
        evidence.calls_of[note.run_id][0].began - note.asked
        for note in evidence.notes
        if note.ask is Ask.TRIGGER and note.acknowledged and since < note.answered < until
        if note.run_id in evidence.calls_of
    ]
    return statistics.median(waits) if waits else float("inf")
