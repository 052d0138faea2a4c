"""This worker among the others: what it sees of them, what it lists as its own, and which single roles it plays.

A role or a shard is listed before it is used and struck off after; see ``_domain.claims``. All of it only saves work:
two that play one role, or hold one shard, are harmless.

    async with Members(PostgresMembership(dsn, namespace), name="worker-0", topics=topics, roles=["keeper"]) as members:
        async with Shards(members, stream, partitions=...):
            ...                           # members.view, members.holds("keeper")
            await members.drain()         # everything is given up, bit by bit
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import os
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Protocol, Self

from stepwell._domain.claims import Holding, turn
from stepwell._domain.shards import winner
from stepwell._engine.heartbeat import Heartbeat, Reports, Told
from stepwell._engine.settings import MemberSettings
from stepwell.ports.membership import Holdings, Member, Membership, Shard, View

log = logging.getLogger(__name__)

NOTHING = Holdings(shards=frozenset(), roles=frozenset())

_EXIT_CODE = 70
"""``EX_SOFTWARE`` of sysexits.h."""
_LAST_SECONDS = 5.0
_STDERR = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """What this worker does at one moment, for whoever waits until it is idle."""

    in_flight: Mapping[str, int] = field(default_factory=dict)
    """Workflow: attempts that are running."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """Workflow: the generation that decided whether they may."""
    moves: Mapping[str, int] = field(default_factory=dict)
    """Workflow: moves of the last minute."""


class Part(Protocol):
    """Something whose belongings are listed in the worker's record. Called on the main loop."""

    @property
    def listed(self) -> frozenset[Shard]:
        """What the record must name."""
        ...

    @property
    def awaits(self) -> bool:
        """Whether it waits for something that another member still lists."""
        ...

    def look(self, *, published: frozenset[Shard]) -> None:
        """The view has changed, or who takes part. ``published``: see ``claims.turn``."""
        ...

    async def drop(self) -> None:
        """Let go of everything, unfinished or not: it may be others' by now."""
        ...


def end_process(seconds: float, in_hand: Sequence[str]) -> None:
    """Say where everything hangs, and end: another one takes over, and whoever watches this process starts it again."""
    # Should the log itself be what hangs: this ends the process without the interpreter's help.
    faulthandler.dump_traceback_later(_LAST_SECONDS, exit=True, file=_STDERR)
    faulthandler.dump_traceback(file=_STDERR, all_threads=True)
    log.critical(
        "the event loop is silent: does a handler block it?",
        extra={"action": "loop_silent", "seconds": round(seconds), "runs": list(in_hand)},
    )
    os._exit(_EXIT_CODE)


class Members:
    """Use it as an async context manager on the engine's event loop: entering joins in the background, leaving leaves.

    Entering does not wait for the first answer, ``joined`` does. ``name`` tells people who this is (the pod's or the
    host's); a few characters are added each time that it joins. ``observe`` is called on this loop about once a second;
    ``in_hand`` names the runs that are handled just now, and is called from another thread if this loop hangs, and then
    ``end``. ``every_role``: believe that every role is held here, whoever else has it (to prove that it is harmless).
    """

    def __init__(
        self,
        membership: Membership,
        *,
        name: str,
        topics: Iterable[str] = (),
        roles: Iterable[str] = (),
        observe: Callable[[], Load] = Load,
        in_hand: Callable[[], Iterable[str]] = tuple,
        settings: MemberSettings | None = None,
        every_role: bool = False,
        end: Callable[[float, Sequence[str]], None] = end_process,
        suffix: Callable[[], str] = lambda: secrets.token_hex(3),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings or MemberSettings()
        self._base = name
        self._topics = frozenset(topics)
        self._able = frozenset(roles)
        self._observe = observe
        self._in_hand = in_hand
        self._every_role = every_role
        self._suffix = suffix
        self._monotonic = monotonic
        self._parts: list[Part] = []
        self._roles: Holding[str] = Holding()
        self._roles_awaited = False
        self._load = Load()
        self._draining = False
        self._dead_since: dict[str, float] = {}
        reports = Reports(
            told=self._told,
            lost=self._lost,
            pinged=self._pinged,
            failed=self._failed,
            silent=lambda seconds: end(seconds, self._hands()),
            monotonic=monotonic,
        )
        self._heart = Heartbeat(membership, reports, self.settings)
        self._returning: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self.name = self._new_name()
        """Under which this worker is known at present."""
        self.view = View()
        """What the last successful read told; nobody is known before the first one, and just after a loss."""

    async def __aenter__(self) -> Self:
        """Start to beat."""
        self._load = self._observe()
        self._heart.start()
        self._heart.join(self._record())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give up the record. Whoever holds anything should have drained before, or others take it at once."""
        await self._stop(leave=True)

    async def crash(self) -> None:
        """Stop as a killed process does: the record stays, until somebody declares it dead."""
        await self._stop(leave=False)

    async def _stop(self, *, leave: bool) -> None:
        if self._returning is not None:
            self._returning.cancel()
            await asyncio.gather(self._returning, return_exceptions=True)
        # Before anybody can read that they are free.
        self._roles, self._every_role = Holding(), False
        await self._heart.stop(leave=leave)

    @property
    def own(self) -> Member:
        """This worker's record as it should be by now; others may still read the one before."""
        return self._record()

    @property
    def is_well(self) -> bool:
        """Whether it is a member, as far as it can know. It stays one while its renewals cannot be stored."""
        return self._heart.well

    @property
    def is_renewing(self) -> bool:
        """Whether its last renewal was stored."""
        return self._heart.renewing

    @property
    def is_draining(self) -> bool:
        """Whether it gives up everything and takes nothing."""
        return self._draining

    def holds(self, role: str) -> bool:
        """Whether to play this single role now; ask before each turn of it, and write so that two are harmless."""
        return self._every_role or (role in self._roles.active and self.is_well)

    async def joined(self) -> None:
        """Return after the first successful beat, however long that takes."""
        await self._until(lambda: self.name in self.view.live)

    async def drain(self) -> None:
        """Take nothing more, give up everything bit by bit, and return when nothing is listed any more.

        It stays a member, with what it has in flight.
        """
        self._draining = True
        self._look(published=NOTHING)
        await self._until(lambda: not self._lists())

    async def failed(self) -> None:
        """Return never, or raise what stopped the heart or a part."""
        await self._until(lambda: False)

    def attach(self, part: Part) -> None:
        """List what this part has, and tell it of every view."""
        self._parts.append(part)
        self._look(published=NOTHING)

    def detach(self, part: Part) -> None:
        """Forget a part."""
        self._parts.remove(part)
        self.publish()

    def publish(self) -> None:
        """What is listed or shared out may have changed: have it written soon, and look at what comes back."""
        self._changed.set()
        self._heart.publish(self._record(), now=True)

    def fail(self, error: BaseException) -> None:
        """A part cannot go on."""
        self._failure = self._failure or error
        self._changed.set()

    def candidates(self, topic: str) -> frozenset[str]:
        """The members among whom the partitions of a topic are shared out."""
        return frozenset(m.name for m in self.view.live.values() if topic in m.topics and not m.draining)

    def _told(self, told: Told) -> None:
        self._note_deaths(told.view)
        self.view = told.view
        before = told.before
        published = NOTHING
        if before is not None:
            published = Holdings(shards=before.held & told.sent.held, roles=before.roles & told.sent.roles)
        self._look(published=published)
        self._bury()

    def _look(self, *, published: Holdings) -> None:
        """Look at the view, which is a new one or not, and have it published if anything follows from it."""
        self._share_roles(published.roles)
        for part in self._parts:
            part.look(published=published.shards)
        self._changed.set()
        own = self._record()
        stored = self.view.live.get(own.name)
        listed = stored is not None and (stored.held, stored.roles, stored.draining) == (
            own.held,
            own.roles,
            own.draining,
        )
        # What is claimed becomes ours only by one more look after all could read of it.
        settled = own.held <= published.shards and own.roles <= published.roles
        self._heart.publish(own, now=not (listed and settled))
        self._heart.hurry(hurried=self._roles_awaited or any(part.awaits for part in self._parts))

    def _share_roles(self, published: frozenset[str]) -> None:
        wanted = frozenset(role for role in self._able if not self._draining and self._wins(role))
        others = self.view.listed_by_others(self.name).roles
        done = turn(self._roles, wanted=wanted, others=others, published=published)
        # A role is given up in the moment in which nobody is told any more to play it.
        self._roles = Holding(claimed=done.holding.claimed, active=done.holding.active)
        self._roles_awaited = bool(done.awaited)
        for role in sorted(done.taken):
            log.info("role taken", extra={"action": "role_taken", "role": role, "member": self.name})
        for role in sorted(done.given_up):
            log.info("role given up", extra={"action": "role_given_up", "role": role, "member": self.name})

    def _wins(self, role: str) -> bool:
        takers = [m.name for m in self.view.live.values() if role in m.able and not m.draining]
        return winner(role, takers) == self.name

    def _note_deaths(self, view: View) -> None:
        for name in view.dead.keys() & self.view.live.keys():
            log.warning("a member died", extra={"action": "member_died", "member": name})
        now = self._monotonic()
        self._dead_since = {name: self._dead_since.get(name, now) for name in view.dead}

    def _bury(self) -> None:
        """Each of the dead is buried by one of us, once the living list all that it held."""
        listed = frozenset(shard for member in self.view.live.values() for shard in member.held)
        forgotten = self._monotonic() - self.settings.forget_dead.total_seconds()
        for name, dead in self.view.dead.items():
            is_over = dead.held <= listed or self._dead_since[name] <= forgotten
            if is_over and self.name == winner(name, self.view.live):
                self._heart.bury(name)

    def _lost(self, reason: str) -> None:
        log.warning(
            "no member any more: everything is dropped, and joined anew",
            extra={"action": "member_lost", "member": self.name, "reason": reason},
        )
        self._roles = Holding()
        self.view = View()
        self._returning = asyncio.ensure_future(self._return())
        self._returning.add_done_callback(self._returned)

    async def _return(self) -> None:
        for part in self._parts:
            await part.drop()

    def _returned(self, task: asyncio.Task[None]) -> None:
        self._returning = None
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.fail(error)
            return
        self.name = self._new_name()
        self._heart.join(self._record())
        self._changed.set()

    def _pinged(self) -> None:
        self._load = self._observe()
        self._heart.publish(self._record(), now=False)

    def _failed(self, error: BaseException) -> None:
        log.error("the heartbeat failed", exc_info=error, extra={"action": "loop_failed"})
        self.fail(error)

    def _hands(self) -> Sequence[str]:
        """Read from another thread, while the main loop hangs."""
        try:
            return list(self._in_hand())
        except Exception as error:  # noqa: BLE001  (it was changed while it was read; that must not keep this process)
            return [f"unknown: {type(error).__name__}"]

    def _lists(self) -> Collection[object]:
        return (*self._roles.listed, *(shard for part in self._parts for shard in part.listed))

    def _record(self) -> Member:
        return Member(
            name=self.name,
            topics=self._topics,
            able=self._able,
            held=frozenset[Shard]().union(*(part.listed for part in self._parts)),
            roles=self._roles.listed,
            in_flight=self._load.in_flight,
            seen=self._load.seen,
            moves=self._load.moves,
            draining=self._draining,
        )

    def _new_name(self) -> str:
        return f"{self._base}-{self._suffix()}"

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            if self._failure is not None:
                raise self._failure
            self._changed.clear()
            await self._changed.wait()
