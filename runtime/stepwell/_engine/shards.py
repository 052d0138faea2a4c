"""The shards that this worker reads are those that it wins among the live, handed over one by one.

A winner takes a shard only when no live member lists it. A loser fetches no more of it, lets run what runs, commits,
and only then strikes it off, so that handlers which finish in time run once. A shard that a dead member listed is
suspect: one of its events may be what killed that one.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

from stepwell._domain.claims import Holding, turn
from stepwell._domain.shards import winners
from stepwell._engine.membership import Members
from stepwell.errors import StoreError
from stepwell.ports.membership import Shard
from stepwell.ports.stream import Delivery, ShardedStream

log = logging.getLogger(__name__)

_RETRY = 1.0
"""Seconds between two tries to learn something from the stream."""


class Shards:
    """Use it as an async context manager inside ``Members``; leaving gives up what is still held.

    ``partitions`` tells how many each topic has; it is asked again and again, and may raise ``StoreError``.
    ``on_suspect`` is told of each shard that a dead member held, and its end at the take-over, before anything of it is
    delivered. ``on_unfinished`` is given what a given-up shard left unfinished: the next holder is delivered it, too.
    Neither may block.
    """

    def __init__(
        self,
        members: Members,
        stream: ShardedStream,
        *,
        partitions: Callable[[], Awaitable[Mapping[str, int]]],
        on_suspect: Callable[[Shard, int], None],
        on_unfinished: Callable[[Sequence[Delivery]], None],
    ) -> None:
        self._members = members
        self._stream = stream
        self._partitions = partitions
        self._on_suspect = on_suspect
        self._on_unfinished = on_unfinished
        self._counts: Mapping[str, int] = {}
        self._holding: Holding[Shard] = Holding()
        self._awaited: frozenset[Shard] = frozenset()
        self._suspect: set[Shard] = set()
        self._known: dict[str, tuple[frozenset[str], int, frozenset[int]]] = {}
        """Topic: what the last assignment was made of, and the partitions that it gave to this worker."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        """Nothing is wanted."""
        self._let_go_times = 0

    async def __aenter__(self) -> Self:
        """Take part in sharing out."""
        self._members.attach(self)
        self._spawn(self._watch_growth())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up everything, with the usual patience."""
        await self._let_go(self._members.settings.patience)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._members.detach(self)

    @property
    def held(self) -> frozenset[Shard]:
        """What is read now."""
        return self._holding.active

    @property
    def listed(self) -> frozenset[Shard]:
        """See ``Part.listed``."""
        return self._holding.listed

    @property
    def awaits(self) -> bool:
        """See ``Part.awaits``."""
        return bool(self._awaited)

    def look(self, *, published: frozenset[Shard]) -> None:
        """Take, claim and give up what follows from the view."""
        view, own = self._members.view, self._members.name
        others = view.listed_by_others(own).shards
        done = turn(self._holding, wanted=self._wanted(), others=others, published=published)
        self._holding, self._awaited = done.holding, done.awaited
        for dead in view.dead.values():
            self._suspect |= dead.held & (done.holding.claimed | done.taken)
        self._suspect &= done.holding.listed
        if done.given_up:
            log.info("shards are given up", extra={"action": "shards_leaving", "shards": len(done.given_up)})
        for shard in sorted(done.given_up):
            self._spawn(self._leave(shard))
        self._take(done.taken)

    async def drop(self) -> None:
        """Let go of everything at once."""
        await self._let_go(timedelta())
        self._closed = False

    async def _let_go(self, patience: timedelta) -> None:
        # Tasks that take or leave something need not be waited for: what they began counts no more.
        self._closed = True
        self._let_go_times += 1
        held = self._holding.active | self._holding.leaving
        left = await self._stream.give_up(sorted(held), patience=patience)
        self._holding, self._awaited = Holding(), frozenset()
        self._suspect.clear()
        self._note_unfinished(left)

    def _wanted(self) -> frozenset[Shard]:
        if self._closed or self._members.is_draining:
            return frozenset()
        return frozenset(
            Shard(topic, partition)
            for topic, count in self._counts.items()
            for partition in self._won(topic, count, self._members.candidates(topic))
        )

    def _won(self, topic: str, count: int, candidates: frozenset[str]) -> frozenset[int]:
        known = self._known.get(topic)
        if known is not None and known[:2] == (candidates, count):
            return known[2]
        own = self._members.name
        won = frozenset(n for n, name in enumerate(winners(topic, count, candidates)) if name == own)
        self._known[topic] = (candidates, count, won)
        return won

    def _take(self, shards: frozenset[Shard]) -> None:
        if not shards:
            return
        log.info(
            "shards are taken",
            extra={"action": "shards_taken", "shards": len(shards), "suspect": len(shards & self._suspect)},
        )
        suspect = shards & self._suspect
        self._suspect -= suspect
        self._stream.take(sorted(shards - suspect))
        if suspect:
            self._spawn(self._take_suspect(suspect))

    async def _take_suspect(self, shards: frozenset[Shard]) -> None:
        """Their ends are known before anything of them is delivered."""
        before = self._let_go_times
        while True:
            try:
                reach = await self._stream.reach(sorted(shards))
                break
            except StoreError as error:
                log.warning("no end of a shard", extra={"action": "reach_failed", "error": str(error)})
                await asyncio.sleep(_RETRY)
        wanted = shards & self._holding.active if before == self._let_go_times else frozenset[Shard]()
        for shard in sorted(wanted):
            self._on_suspect(shard, reach[shard].end)
        self._stream.take(sorted(wanted))

    async def _leave(self, shard: Shard) -> None:
        before = self._let_go_times
        left = await self._stream.give_up([shard], patience=self._members.settings.patience)
        self._note_unfinished(left)
        if before == self._let_go_times:
            self._holding = self._holding.left(shard)
            self._members.publish()

    def _note_unfinished(self, deliveries: Sequence[Delivery]) -> None:
        if deliveries:
            log.info("events are left unfinished", extra={"action": "events_left", "events": len(deliveries)})
            self._on_unfinished(deliveries)

    async def _watch_growth(self) -> None:
        while True:
            pause = self._members.settings.growth_interval
            try:
                counts = await self._partitions()
            except StoreError as error:
                log.warning("no numbers of partitions", extra={"action": "partitions_unknown", "error": str(error)})
                pause = min(pause, _RETRY)
            else:
                if counts != self._counts:
                    # By the next view, so that nothing changes hands while nobody can be told of it.
                    self._counts = dict(counts)
                    self._members.publish()
            await asyncio.sleep(pause)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("shards cannot be shared out", exc_info=error, extra={"action": "loop_failed"})
            self._members.fail(error)
