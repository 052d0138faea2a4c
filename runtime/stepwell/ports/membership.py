"""Who works here, who died, and who holds what: it shares out the work, and no write is ever right because of it.

A view changes only by a successful read; whoever cannot ask keeps the one that it has and declares nobody dead. A death
is a fact that stands in the store, so all see the same one, and a renewal races it fairly: one of the two is there
first, and the other one is told. Silence is measured by the monotonic clock of whoever watches, never by comparing the
wall clocks of two machines: a clock that jumps, stands still or fails over kills nobody.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NamedTuple, Protocol, Self

from stepwell._domain.silence import Silence


class Shard(NamedTuple):
    """A partition of one topic; whoever holds it handles the events in it."""

    topic: str
    partition: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """The record of one worker, as it last wrote it itself."""

    name: str
    """Unique for each time that a process joins: whoever comes back after it was lost has another one.

    A DNS label or several with dots between, so that it can name an object of Kubernetes.
    """
    topics: frozenset[str] = frozenset()
    """The topics whose events it can handle: it takes part in sharing out their partitions."""
    able: frozenset[str] = frozenset()
    """The single roles that it can play."""
    held: frozenset[Shard] = frozenset()
    """What it reads, is about to read, or has not finished giving up."""
    roles: frozenset[str] = frozenset()
    """The single roles that it plays, or is about to play."""
    in_flight: Mapping[str, int] = field(default_factory=dict)
    """Workflow: attempts that are running."""
    seen: Mapping[str, int] = field(default_factory=dict)
    """Workflow: the newest generation that it acts by. It was seen before ``in_flight`` was counted."""
    moves: Mapping[str, int] = field(default_factory=dict)
    """Workflow: moves that it stored in the last minute."""
    draining: bool = False
    """It takes nothing any more, and gives up what it holds."""

    def texts(self) -> dict[str, str]:
        """Every field but the name as a text, for stores that hold texts: annotations, columns."""
        partitions: dict[str, list[int]] = {}
        for topic, partition in sorted(self.held):
            partitions.setdefault(topic, []).append(partition)
        values: dict[str, Any] = {
            "topics": sorted(self.topics),
            "able": sorted(self.able),
            "held": partitions,
            "roles": sorted(self.roles),
            "in-flight": dict(sorted(self.in_flight.items())),
            "seen": dict(sorted(self.seen.items())),
            "moves": dict(sorted(self.moves.items())),
            "draining": self.draining,
        }
        return {name: json.dumps(value, separators=(",", ":")) for name, value in values.items()}

    @classmethod
    def of_texts(cls, name: str, texts: Mapping[str, str]) -> Self:
        """The record that ``texts`` tells; what is missing or unreadable in it is taken for empty.

        A record that somebody damaged, or that newer code wrote, must not blind those who read it: its worker is there
        all the same, and a shard that two hold is harmless.
        """
        values = {key: _parsed(text) for key, text in texts.items()}
        return cls(
            name=name,
            topics=frozenset(_strings(values.get("topics"))),
            able=frozenset(_strings(values.get("able"))),
            held=frozenset(
                Shard(topic, partition)
                for topic, partitions in _entries(values.get("held"))
                for partition in (partitions if isinstance(partitions, list) else ())
                if _is_number(partition)
            ),
            roles=frozenset(_strings(values.get("roles"))),
            in_flight={key: number for key, number in _entries(values.get("in-flight")) if _is_number(number)},
            seen={key: number for key, number in _entries(values.get("seen")) if _is_number(number)},
            moves={key: number for key, number in _entries(values.get("moves")) if _is_number(number)},
            draining=values.get("draining") is True,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What one read told."""

    live: Mapping[str, Member] = field(default_factory=dict)
    """By name. The reader's own record is among them, as it wrote it just before."""
    dead: Mapping[str, Member] = field(default_factory=dict)
    """Records that ran out without having been given up, as they were then; here until somebody buries them."""
    look_within: float = float("inf")
    """Seconds after which, if it stays silent, the next member may be declared dead: look again then, or before."""

    def listed_by_others(self, own: str) -> Holdings:
        """What the live members but ``own`` list."""
        others = [member for name, member in self.live.items() if name != own]
        return Holdings(
            shards=frozenset(shard for member in others for shard in member.held),
            roles=frozenset(role for member in others for role in member.roles),
        )


class Holdings(NamedTuple):
    """What somebody lists."""

    shards: frozenset[Shard]
    roles: frozenset[str]


class Lost(StrEnum):
    """Why a member is none any more: what it held may be others' by now. It drops all, and joins as somebody new."""

    GONE = "gone"
    """There is no such record: it was declared dead and buried, or deleted by hand."""
    ANOTHERS = "anothers"
    """Another process lives under this name."""
    DECLARED_DEAD = "declared_dead"
    """It was silent for so long that somebody declared it dead."""


class Membership(Protocol):
    """The membership of one process, used by one event loop that does nothing else.

    Nothing is opened before the first ``beat``. No call takes as long as ``interval``. Each of them raises
    ``StoreUnavailableError`` if nothing could be learned (and it may have happened or not), ``StoreRefusedError`` if
    somebody has to mend something first; both leave the view that one has as it is.
    """

    @property
    def interval(self) -> float:
        """Seconds between two beats of a member that is well."""
        ...

    @property
    def duration(self) -> float:
        """Seconds of silence after which a member is declared dead. A silent member must count on that."""
        ...

    async def beat(self, own: Member) -> View | Lost:
        """Write the own record, then read all; the first beat of a name joins under it.

        The others' records are read after the *previous* successful beat's own record was there for all to read (this
        one's may not be yet). So of two that list the same thing, at least one sees the other by its next beat: whoever
        lists a thing, and at the next beat finds that nobody else does, has it alone.

        Races: a renewal and a declaration of death: if the renewal is first, nobody died; else the answer is ``Lost``,
        now and for ever under this name. Two that join under one name: the second one is ``Lost``. An own record that
        ran out while nobody could say so is renewed as if nothing had been.

        Others are declared dead here: those of whom this process read nothing new for ``duration``, while it could read
        all the time. Two that declare one death declare it once.
        """
        ...

    async def bury(self, name: str) -> None:
        """Remove the record of a dead member: all that it held has found somebody. Others may do the same at once.

        A live one is not touched.
        """
        ...

    async def leave(self) -> None:
        """Give up the own record: nobody declares it dead, and what it listed is free at once.

        Harmless if there is none. A record that was declared dead stays. The next ``beat`` joins again.
        """
        ...

    async def close(self) -> None:
        """Let go of connections, and leave the record as it is. Calling it twice is harmless."""
        ...


def silence(interval: float, duration: float) -> Silence:
    """How an adapter measures it, given its own beats."""
    return Silence(duration=duration, attention=1.5 * interval)


def _parsed(text: str) -> object:
    try:
        value: object = json.loads(text)
    except ValueError:
        return None
    return value


def _strings(value: object) -> Iterable[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else ()


def _entries(value: object) -> Collection[tuple[str, Any]]:
    return value.items() if isinstance(value, dict) else ()


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
