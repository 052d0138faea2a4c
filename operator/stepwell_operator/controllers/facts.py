"""What a status tells of runs and schedules: counted once a minute for all Workflows, by a few statements."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from stepwell.control import Known, Workflows
from stepwell.errors import StoreError
from stepwell.ports.steering import LiveCount, ScheduleKey
from stepwell_operator.cluster.cache import Key, Of

log = logging.getLogger(__name__)

INTERVAL = 60.0
_LAGS_FROM = timedelta(seconds=1)

Late = tuple[Key, str, datetime]
"""A Workflow, a status, and since when a run waits there for its step."""


class Facts:
    """For one event loop. ``tell`` is given the Workflows of which there is something new to be told."""

    def __init__(self, workflows: Workflows, tell: Callable[[Iterable[Key]], None]) -> None:
        self._workflows = workflows
        self._tell = tell
        self._live: dict[Key, tuple[LiveCount, ...]] = {}
        self._ticks: dict[ScheduleKey, datetime] = {}
        self._scheduled: dict[Key, tuple[ScheduleKey, ...]] = {}
        self._next: dict[Key, datetime] = {}

    def live(self, key: Key) -> Sequence[LiveCount]:
        """Its unfinished runs, as of the last minute."""
        return self._live.get(key, ())

    @property
    def ticks(self) -> Mapping[ScheduleKey, datetime]:
        """The last planned time of each schedule, as of the last minute."""
        return self._ticks

    def schedules(self, key: Key, known: Known | None, upcoming: datetime | None) -> None:
        """From now on the schedules of this Workflow are followed; ``upcoming`` is what was told to come next."""
        names = () if known is None else tuple(schedule.name for schedule in known.definition.schedules)
        self._scheduled[key] = tuple(ScheduleKey(key.namespace, key.name, name) for name in names)
        if not names:
            del self._scheduled[key]
        if upcoming is None:
            self._next.pop(key, None)
        else:
            self._next[key] = upcoming

    def leave(self, key: Key) -> None:
        """There is no such Workflow."""
        self._scheduled.pop(key, None)
        self._next.pop(key, None)

    async def run(self, now: Callable[[], datetime], then: Callable[[datetime], Awaitable[None]]) -> None:
        """Count for ever; ``then`` is called after each count."""
        while True:
            await asyncio.sleep(INTERVAL)
            try:
                at = now()
                await self.count(at)
                await then(at)
            except StoreError as error:
                log.warning(
                    "runs cannot be counted", extra={"action": "facts_unreadable", "error": type(error).__name__}
                )

    async def count(self, now: datetime) -> None:
        """Count once, and tell of what differs from the last time, or should by now."""
        live: defaultdict[Key, list[LiveCount]] = defaultdict(list)
        for each in await self._workflows.live_everywhere():
            live[Key(Of.WORKFLOW, each.namespace, each.workflow)].append(each)
        counted = {key: tuple(counts) for key, counts in live.items()}
        wanted = [schedule for schedules in self._scheduled.values() for schedule in schedules]
        ticks = dict(await self._workflows.last_ticks(wanted))
        changed = {
            key for key in counted.keys() | self._live.keys() if _told(counted.get(key)) != _told(self._live.get(key))
        }
        changed |= {key for key, at in self._next.items() if at <= now}
        changed |= {
            Key(Of.WORKFLOW, each.namespace, each.workflow) for each, at in ticks.items() if self._ticks.get(each) != at
        }
        self._live, self._ticks = counted, ticks
        self._tell(changed)

    def late(self, now: datetime) -> list[Late]:
        """Runs that wait for their step, the oldest of each status."""
        return [
            (key, each.status, each.oldest)
            for key, counts in self._live.items()
            for each in counts
            if each.oldest is not None and now - each.oldest > _LAGS_FROM
        ]


def _told(counts: Sequence[LiveCount] | None) -> list[tuple[str, str, int]]:
    """Without since when the oldest waits, which is another time at each look."""
    return [(each.status, each.state.value, each.runs) for each in counts or ()]
