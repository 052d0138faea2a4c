"""Members that are objects of one process: the same promises as over a network, and a network that a test can cut."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from stepwell._domain.silence import Sign
from stepwell.errors import StoreUnavailableError
from stepwell.ports.membership import Lost, Member, View, silence


@dataclass
class _Record:
    owner: object
    member: Member
    beat: int = 1
    is_dead: bool = False


@dataclass
class Neighbourhood:
    """What the members of one test share. While ``cut`` is set, none of them can ask anything."""

    cut: bool = False
    _records: dict[str, _Record] = field(default_factory=dict)

    def membership(
        self,
        *,
        interval: float = 3.0,
        duration: float = 9.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> InProcessMembership:
        """One more member's, as another process would have it."""
        return InProcessMembership(self, interval=interval, duration=duration, monotonic=monotonic)

    def records(self) -> dict[str, _Record]:
        """What is stored."""
        if self.cut:
            raise StoreUnavailableError("the neighbourhood is cut off")
        return self._records


class InProcessMembership:
    """Implements ``Membership`` among objects of one process; every call is atomic."""

    def __init__(
        self, neighbourhood: Neighbourhood, *, interval: float, duration: float, monotonic: Callable[[], float]
    ) -> None:
        self.interval = interval
        self.duration = duration
        self._neighbourhood = neighbourhood
        self._monotonic = monotonic
        self._silence = silence(interval, duration)
        self._joined: str | None = None
        self._lost: tuple[str, Lost] | None = None

    async def beat(self, own: Member) -> View | Lost:
        """See ``Membership.beat``."""
        records = self._neighbourhood.records()
        if self._lost is not None and self._lost[0] == own.name:
            return self._lost[1]
        stored = records.get(own.name)
        lost = self._trouble(own.name, stored)
        if lost is not None:
            self._joined, self._lost = None, (own.name, lost)
            return lost
        beat = 1 if stored is None else stored.beat + 1
        records[own.name] = _Record(owner=self, member=_frozen(own), beat=beat)
        self._joined = own.name
        return self._view(own.name, records)

    async def bury(self, name: str) -> None:
        """See ``Membership.bury``."""
        records = self._neighbourhood.records()
        if name in records and records[name].is_dead:
            del records[name]

    async def leave(self) -> None:
        """See ``Membership.leave``."""
        records = self._neighbourhood.records()
        own = records.get(self._joined or "")
        if own is not None and own.owner is self and not own.is_dead:
            del records[own.member.name]
        self._joined = None

    async def close(self) -> None:
        """There is nothing to let go of."""

    def _trouble(self, name: str, stored: _Record | None) -> Lost | None:
        if stored is None:
            return Lost.GONE if self._joined == name else None
        if stored.owner is not self:
            return Lost.ANOTHERS
        return Lost.DECLARED_DEAD if stored.is_dead else None

    def _view(self, own: str, records: dict[str, _Record]) -> View:
        now = self._monotonic()
        others = {name: record for name, record in records.items() if name != own and not record.is_dead}
        signs = {name: Sign((id(record.owner), record.beat)) for name, record in others.items()}
        for name in self._silence.listen(now, signs):
            records[name].is_dead = True
        return View(
            live={name: record.member for name, record in records.items() if not record.is_dead},
            dead={name: record.member for name, record in records.items() if record.is_dead},
            look_within=self._silence.next_end(now),
        )


def _frozen(member: Member) -> Member:
    """As it is now, whatever becomes of the dictionaries in it."""
    return replace(member, in_flight=dict(member.in_flight), seen=dict(member.seen), moves=dict(member.moves))
