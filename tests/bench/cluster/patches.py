"""Runs are paused and resumed by patches of their objects; the clock asks for the next one whatever became of the last.

The effect of a patch is what a person sees: the status of the object tells the new state, which it tells only once that
is stored. One clock, this process's, tells when the patch was sent and when the watch brought the status.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

from tests.bench.cluster.api import Server
from tests.bench.cluster.objects import WORKFLOW
from tests.bench.cluster.waiting import until
from tests.cluster.kind_cluster import Object

PATIENCE_SECONDS = 60.0


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A patch that is under way."""

    generation: int
    state: str
    sent: float


class Patches:
    """Of runs that wait. No object is patched again before the last patch had its effect."""

    def __init__(self, server: Server, path: str, names: Sequence[str]) -> None:
        self._server = server
        self._path = path
        self._names = names
        self._generations = dict.fromkeys(names, 1)
        self._states = dict.fromkeys(names, "Running")
        self._under_way: dict[str, Asked] = {}
        self.seconds: list[float] = []
        """What each patch took."""
        self.skipped = 0
        """Patches that were not sent, since the one before had not had its effect."""

    def see(self, run: Object, now: float) -> None:
        """Note a Run as the watch has brought it."""
        name, status = run["metadata"]["name"], run.get("status", {})
        asked = self._under_way.get(name)
        if asked is None or status.get("observedGeneration", 0) < asked.generation:
            return
        if status.get("state") == asked.state:
            self.seconds.append(now - asked.sent)
            del self._under_way[name]

    def next(self, number: int, now: float) -> tuple[str, Object] | None:
        """Whom the clock's next tick patches, and how; None: it has to be left out."""
        name = self._names[number % len(self._names)]
        if name in self._under_way:
            self.skipped += 1
            return None
        paused = self._states[name] == "Paused"
        self._states[name] = state = "Running" if paused else "Paused"
        self._generations[name] += 1
        self._under_way[name] = Asked(generation=self._generations[name], state=state, sent=now)
        return name, {"spec": {"desiredState": state}}

    async def play(self, version: str, *, per_second: float, seconds: float) -> None:
        """Patch by the clock, and wait until each patch had its effect."""
        watching = asyncio.create_task(self._watch(version))
        sending: list[asyncio.Task[Object]] = []
        began, number = perf_counter(), 0
        try:
            while (elapsed := perf_counter() - began) < seconds:
                while number <= elapsed * per_second:
                    patch = self.next(number, perf_counter())
                    number += 1
                    if patch is not None:
                        name, body = patch
                        sending.append(asyncio.create_task(self._server.patch(f"{self._path}/{name}", body)))
                await asyncio.sleep(1 / per_second / 10)
            await asyncio.gather(*sending)
            await until("every patch has its effect", self._all_seen, seconds=PATIENCE_SECONDS)
        finally:
            watching.cancel()

    async def _all_seen(self) -> bool:
        return not self._under_way

    async def _watch(self, version: str) -> None:
        selector = f"spec.workflowRef.name={WORKFLOW}"
        async for _, run in self._server.watch(self._path, version=version, selector=selector):
            self.see(run, perf_counter())
