"""News of runs that objects follow: one read for all of them, and only after somebody has stored something.

A run that moved is only noted here; what is told of it, and when, is planned when its object is looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Hashable, Iterable, Mapping
from itertools import islice

from stepwell import RunState
from stepwell.control import Runs
from stepwell.errors import StoreError
from stepwell.ports.steering import Glance
from stepwell_operator.cluster.cache import Key

log = logging.getLogger(__name__)

SPACING = 0.25
"""Seconds between two reads at least."""
ENDED_EVERY = 20.0
"""Seconds between two reads of runs that have ended: only an erasure changes them, and it has a minute to show."""
_AT_ONCE = 2000
_AFTER_TROUBLE = 1.0


class News:
    """For one event loop. ``tell`` is given the objects whose runs have moved."""

    def __init__(self, runs: Runs, tell: Callable[[Iterable[Key]], None]) -> None:
        self._runs = runs
        self._tell = tell
        self._moving: dict[Key, Glance] = {}
        self._ended: dict[Key, Glance] = {}
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._moving) + len(self._ended)

    def follow(self, key: Key, run: Glance) -> None:
        """Tell of this object when its run is not as in ``run`` any more."""
        self.leave(key)
        if run.finished_at is None or run.state is RunState.REQUESTED_DATA_DELETED:
            self._moving[key] = run
        else:
            self._ended[key] = run
        self._some.set()

    def leave(self, key: Key) -> None:
        """Tell of it no more."""
        self._moving.pop(key, None)
        self._ended.pop(key, None)

    async def run(self) -> None:
        """Read for ever."""
        loop = asyncio.get_running_loop()
        ended_at = loop.time()
        while True:
            if not len(self):
                self._some.clear()
                await self._some.wait()
            try:
                await self._runs.changed()
                await self._look(self._moving)
                if loop.time() - ended_at >= ENDED_EVERY:
                    ended_at = loop.time()
                    await self._look(self._ended)
            except StoreError as error:
                log.warning("runs cannot be read", extra={"action": "news_unreadable", "error": type(error).__name__})
                await asyncio.sleep(_AFTER_TROUBLE)
            await asyncio.sleep(SPACING)

    async def _look(self, runs: Mapping[Key, Glance]) -> None:
        followed = iter(list(runs.items()))
        while part := list(islice(followed, _AT_ONCE)):
            glances = await self._runs.glances({run.run_id for _, run in part})
            self._tell(key for key, run in part if _stamp(glances.get(run.run_id)) != _stamp(run))


def _stamp(run: Glance | None) -> Hashable:
    """What differs whenever something differs that is told."""
    if run is None:
        return None
    return (run.version, run.attempts, run.state, run.pause_code, run.reason, run.last_error)
