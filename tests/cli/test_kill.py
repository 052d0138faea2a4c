"""``stepwell dev`` is killed a hundred times at any moment, and nothing is lost, done twice, or off the graph."""

from __future__ import annotations

import asyncio
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cli.support import COMMAND, FLOWS, PATIENCE, ran

from stepwell import RunState
from stepwell._domain.ids import ForeignID
from stepwell._domain.record import EntryKind
from stepwell._worker.opened import opened
from stepwell._worker.places import DEFAULT_NAMESPACE, Place
from stepwell.errors import CallbackRefusedError, RunNotFoundError
from stepwell.ports.store import RunQuery

SEED = 20261123
KILLS = 100
WHOLE_STARTS = 6
"""Kills of a process that was started from nothing; the others are forked with all modules loaded, to save time."""
PER_CYCLE = 12
EDGES = {("Packed", "Signed"), ("Signed", "Asking"), ("Asking", "Agreed"), ("Agreed", "Gone")}
STEPS = {"Packed", "Signed", "Agreed"}

ZYGOTE = """
import os, sys
sys.path.insert(0, os.getcwd())
import stepwell.cli.main, stepwell._worker.dev, stepwell._worker.targets, stepwell.cli.live_view, kill_flow
print("ready", flush=True)
for _ in sys.stdin:
    pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_RDWR), 0)
        os.dup2(os.open("dev.out", os.O_WRONLY | os.O_CREAT | os.O_APPEND), 1)
        stepwell.cli.main.app(sys.argv[1:])
    print(pid, flush=True)
    _, status = os.waitpid(pid, 0)
    print(status, flush=True)
"""


class Zygote:
    """Starts the command by forking, and says how each process ended."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the zygote is gone"
        return line

    def start(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return int(self._line())

    def ended_by(self) -> int:
        return os.waitstatus_to_exitcode(int(self._line()))


@contextmanager
def zygote(command: list[str], cwd: Path) -> Iterator[Zygote]:
    with subprocess.Popen(  # noqa: S603  (our own program)
        [sys.executable, "-c", ZYGOTE, *command], cwd=cwd, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Zygote(process)
        finally:
            process.kill()


class Caller:
    """Calls runs back from outside, half of them, while the engine dies and comes back."""

    def __init__(self, store: Path, rng: random.Random) -> None:
        self._store = store
        self._rng = rng
        self._todo: list[str] = []
        self.accepted: list[str] = []

    def wants(self, foreign_id: str) -> None:
        if self._rng.random() < 0.5:
            self._todo.append(foreign_id)

    async def call(self) -> None:
        """Whoever exists by now is called; the others next time."""
        todo, self._todo = self._todo, []
        async with opened(Place(file=self._store)) as store:
            runs = store.client.untyped("kills")
            for foreign_id in todo:
                try:
                    await runs.callback_by_name(
                        "agreed", ForeignID(foreign_id), {"by": "me"}, request_id=f"call-{foreign_id}"
                    )
                    self.accepted.append(foreign_id)
                except RunNotFoundError:
                    self._todo.append(foreign_id)
                except CallbackRefusedError as error:
                    assert error.reason == "RunFinished"  # noqa: PT017  (the only refusal there may be)


def wait_while(pid: int, seconds: float) -> None:
    """Let it work; it is a moment and not a condition that is waited for here, and the moment is the test."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        os.kill(pid, 0)
        time.sleep(min(0.005, max(0.0, deadline - time.monotonic())))


async def states(store: Path) -> Counter[str]:
    async with opened(Place(file=store)) as found:
        counts = await found.store.counts(DEFAULT_NAMESPACE)
    return Counter({str(state): sum(c.runs for c in counts if c.state is state) for state in RunState})


def test_a_hundred_kills_lose_nothing(tmp_path: Path) -> None:
    rng = random.Random(SEED)
    shutil.copy(FLOWS / "kill_flow.py", tmp_path)
    store, feed = tmp_path / "kill.db", tmp_path / "feed.jsonl"
    command = ["dev", "-f", "kill_flow:wf", "--store", str(store), "--trigger", str(feed)]
    caller = Caller(store, rng)
    fed: list[str] = []
    killed_at_work = 0

    with zygote(command, tmp_path) as forked:
        for kill in range(KILLS):
            new = [f"k{kill}-{n}" for n in range(PER_CYCLE)]
            with feed.open("a", encoding="utf-8") as file:
                file.writelines(f"{json.dumps({'foreignID': name, 'object': {'name': name}})}\n" for name in new)
            fed += new
            for name in new:
                caller.wants(name)
            if kill % (KILLS // WHOLE_STARTS) == 1:
                process = subprocess.Popen(  # noqa: S603  (our own command)
                    [*COMMAND, *command], cwd=tmp_path, stdout=subprocess.DEVNULL
                )
                wait_while(process.pid, rng.uniform(0.2, 1.2))
                process.send_signal(signal.SIGKILL)
                assert process.wait(PATIENCE) == -signal.SIGKILL
            else:
                pid = forked.start()
                if store.exists() and kill % 3 == 0:
                    asyncio.run(caller.call())
                wait_while(pid, rng.uniform(0.0, 0.3))
                os.kill(pid, signal.SIGKILL)
                assert forked.ended_by() == -signal.SIGKILL
            if store.exists():
                killed_at_work += asyncio.run(states(store))[RunState.RUNNING] > 0

        pid = forked.start()
        deadline = time.monotonic() + PATIENCE
        while (now := asyncio.run(states(store)))[RunState.COMPLETED] < len(fed):
            asyncio.run(caller.call())
            assert time.monotonic() < deadline, f"of {len(fed)} triggers: {now}"
        os.kill(pid, signal.SIGTERM)
        assert forked.ended_by() == 0

    assert killed_at_work > KILLS * 0.8
    asyncio.run(check(store, tmp_path, fed, caller))
    again = ran(*command, "--until-idle", "-o", "json", cwd=tmp_path)
    assert again.code == 0
    assert again.summary["triggers"] == {
        "lines": len(fed),
        "started": 0,
        "repeated": len(fed),
        "busy": 0,
        "bad": 0,
        "complete": True,
    }
    assert again.summary["runs"] == again.summary["completed"] == len(fed)


async def check(store: Path, cwd: Path, fed: list[str], caller: Caller) -> None:
    async with opened(Place(file=store)) as found:
        records = await found.store.list(RunQuery(namespace=DEFAULT_NAMESPACE, limit=len(fed) * 2))
        assert Counter(str(record.foreign_id) for record in records) == Counter(fed)
        left_by: Counter[str] = Counter()
        for record in records:
            history = await found.store.history(record.run_id)
            assert [entry.version for entry in history] == list(range(1, record.version + 1))
            assert history[0].kind is EntryKind.TRIGGER
            moves = [(e.from_status, e.to_status) for e in history if e.kind is EntryKind.MOVE]
            assert set(moves) == EDGES
            assert len(moves) == len(EDGES)
            assert record.status == "Gone"
            left_by[next(e.actor for e in history if e.from_status == "Asking")] += 1
            assert not await found.store.timers(record.run_id)
            assert not await found.store.waiting(record.run_id)
    assert set(left_by) == {"callback/agreed", "timeout/impatient"}
    assert 0 < left_by["callback/agreed"] <= len(caller.accepted)
    check_effects((cwd / "effects.log").read_text("utf-8").splitlines(), {r.run_id: r.foreign_id for r in records})


def check_effects(lines: list[str], known: dict[str, str]) -> None:
    keys: dict[tuple[str, str], set[str]] = defaultdict(set)
    for line in lines:
        run_id, status, key = line.split(" ")
        assert run_id in known
        keys[run_id, status].add(key)
    assert set(keys) == {(run_id, status) for run_id in known for status in STEPS}
    assert {len(found) for found in keys.values()} == {1}, "a retry came with another idempotency key"
    assert len({key for found in keys.values() for key in found}) == len(keys), "two steps shared a key"
    assert len(lines) > len(keys), "no kill hit a step between its effect and its move: the test is too tame"
