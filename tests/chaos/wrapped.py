"""The worker under test with faults built into it from outside: production code has no switch for any of them.

Each is asked for by a variable of the environment (``Inject``); without any, this is ``stepwell`` and nothing else.
"""

from __future__ import annotations

import asyncio
import os
import random
import resource
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Any

import time_machine

import stepwell._worker.worker
import stepwell.adapters.kafka.consumer
import stepwell.cli.main
import stepwell.cli.worker
from stepwell._engine.settings import EngineSettings
from stepwell._engine.supervisor import Broker

_MEBI = 1024 * 1024
_LOOK = 0.05
_CHANCE = 0.05


class Inject(StrEnum):
    """Variables of the environment."""

    DIE_BETWEEN = "CHAOS_DIE_BETWEEN"
    """A file: once it is there, the process may die between publishing events and deleting their rows."""
    EVERY_ROLE = "CHAOS_EVERY_ROLE"
    """Play every single role, whoever else does."""
    RECONCILE = "CHAOS_RECONCILE"
    """Seconds between two passes of the reconciler, in place of a minute."""
    STUCK = "CHAOS_STUCK"
    """A file: once it is there, the consumer that there is by then is given no record any more."""
    MEMORY = "CHAOS_MEMORY"
    """MiB of address space that the process may have."""
    CLOCK = "CHAOS_CLOCK"
    """A file with the seconds by which the wall clock is wrong; it may be rewritten at any time."""


def main(arguments: Sequence[str]) -> int:
    """Run the command; raises ``SystemExit``."""
    for variable, inject in _INJECTIONS.items():
        value = os.environ.get(variable)
        if value:
            inject(value)
    stepwell.cli.main.app(args=list(arguments), prog_name="stepwell")
    return 0


def _die_between(path: str) -> None:
    def between() -> None:
        if random.random() < _CHANCE and Path(path).exists():
            os.kill(os.getpid(), signal.SIGKILL)

    _replace(stepwell._worker.worker, "Broker", partial(Broker, between=between))


def _every_role(_: str) -> None:
    plan = stepwell.cli.worker._plan
    _replace(stepwell.cli.worker, "_plan", lambda *given, **named: replace(plan(*given, **named), every_role=True))


def _reconcile(seconds: str) -> None:
    quick = partial(EngineSettings, reconcile_interval=float(seconds))
    _replace(stepwell._worker.worker, "EngineSettings", quick)


def _stuck(path: str) -> None:
    opened, asked_for = stepwell.adapters.kafka.consumer.open_consumer, Path(path).exists

    async def open_one(*given: Any) -> Any:
        consumer, born_later = await opened(*given), asked_for()
        getmany = consumer.getmany

        async def poll(*shards: Any, timeout_ms: int = 0, **named: Any) -> Any:
            if not born_later and asked_for():
                await asyncio.sleep(timeout_ms / 1000)
                return {}
            return await getmany(*shards, timeout_ms=timeout_ms, **named)

        consumer.getmany = poll
        return consumer

    _replace(stepwell.adapters.kafka.consumer, "open_consumer", open_one)


def _memory(mebibytes: str) -> None:
    most = int(mebibytes) * _MEBI
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _clock(path: str) -> None:
    """The wall clock of this process jumps; its monotonic clock goes on, as the kernel's does when somebody sets it."""
    wrong = time_machine.travel(time.time(), tick=True).start()

    def follow() -> None:
        shifted = 0.0
        while True:
            asked = float(Path(path).read_text("utf-8") or 0)
            if asked != shifted:
                wrong.shift(asked - shifted)
                shifted = asked
            time.sleep(_LOOK)

    threading.Thread(target=follow, daemon=True).start()


def _replace(module: Any, name: str, value: Any) -> None:
    assert hasattr(module, name), f"{module.__name__} has no {name} any more: the fault would be built into nothing"
    setattr(module, name, value)


_INJECTIONS: dict[Inject, Callable[[str], None]] = {
    Inject.DIE_BETWEEN: _die_between,
    Inject.EVERY_ROLE: _every_role,
    Inject.RECONCILE: _reconcile,
    Inject.STUCK: _stuck,
    Inject.MEMORY: _memory,
    Inject.CLOCK: _clock,
}
