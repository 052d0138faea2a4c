"""A workflow made from the activities of a log: any may follow any, and one that stays closed is archived in the end.

The functions stand here by their names; which statuses there are is a matter of the log.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Any, Final, cast

from pydantic import AwareDatetime, BaseModel

from examples.helpdesk.expected import ARCHIVE_AFTER
from examples.helpdesk.log import ARCHIVED
from stepwell import Callback, Run, Workflow

MOST_ACTIVITIES: Final = 199
"""A workflow has at most 200 statuses, and one is the archive."""
MOST_DESTINATIONS: Final = 32
"""Of one callback: with more activities than this, several callbacks share them."""
_LONGEST_NAME: Final = 56
"""Characters, so that a number fits behind."""


class Ticket(BaseModel):
    """What is stored of a case: how it stands, and how many rows it has seen."""

    activity: str
    resource: str
    at: AwareDatetime
    rows: int = 1


class Seen(BaseModel):
    """What a row of the log tells."""

    activity: str
    resource: str
    timestamp: AwareDatetime


@dataclass(frozen=True, kw_only=True)
class Activities:
    """Which status stands for which activity."""

    status_type: type[StrEnum]
    statuses: Mapping[str, StrEnum]
    """By activity; ``archived`` is there too."""

    @classmethod
    def of(cls, activities: Iterable[str]) -> Activities:
        """One status for each activity, in this order, and the archive. Raises ``ValueError`` for too many."""
        known = list(dict.fromkeys(activities))
        if len(known) > MOST_ACTIVITIES:
            raise ValueError(f"{len(known)} activities: a workflow can have {MOST_ACTIVITIES}, and an archive")
        names = status_names([ARCHIVED, *known])
        members = {f"S{number}": name for number, name in enumerate(names.values())}
        status_type = cast("type[StrEnum]", StrEnum("Status", members))
        return cls(status_type=status_type, statuses={name: status_type(text) for name, text in names.items()})

    @property
    def archived(self) -> StrEnum:
        """The end."""
        return self.statuses[ARCHIVED]

    @property
    def working(self) -> tuple[StrEnum, ...]:
        """Every status but the end."""
        return tuple(status for status in self.statuses.values() if status is not self.archived)


def status_names(activities: Iterable[str]) -> dict[str, str]:
    """A name for each activity that a status may have: letters, digits and dashes, unique even without case."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for activity in activities:
        name = plain = _plain(activity)
        number = 1
        while name.casefold() in taken:
            number += 1
            name = f"{plain}-{number}"
        taken.add(name.casefold())
        names[activity] = name
    return names


def _plain(activity: str) -> str:
    letters = unicodedata.normalize("NFKD", activity).encode("ascii", "ignore").decode()
    text = re.sub(r"[^A-Za-z0-9]+", "-", letters).strip("-")
    if not text[:1].isalpha():
        text = f"Activity-{text}"
    return text[:_LONGEST_NAME].strip("-")


async def moved(run: Run[Ticket, Activities], seen: Seen) -> StrEnum:
    """Whatever a row says comes next; to the same status too, which is a new visit with a timer of its own."""
    run.object = Ticket(activity=seen.activity, resource=seen.resource, at=seen.timestamp, rows=run.object.rows + 1)
    return run.deps.statuses[seen.activity]


async def archive(run: Run[Ticket, Activities]) -> StrEnum:
    """Nobody touched the closed ticket for thirty days."""
    return run.deps.archived


@dataclass(frozen=True, kw_only=True)
class Desk:
    """The workflow of a log, and by which callback a run comes to an activity."""

    workflow: Workflow[Ticket, Any, Activities]
    activities: Activities
    moves: Mapping[str, Callback[Ticket, Any, Seen, Activities]]


def desk(
    activities: Activities,
    *,
    closed: str,
    name: str = "helpdesk",
    lifespan: Callable[[], AbstractAsyncContextManager[Activities]] | None = None,
    archive_after: timedelta = ARCHIVE_AFTER,
) -> Desk:
    """Make the workflow. Raises ``DefinitionErrors`` when it is built, for what no workflow can be."""
    working = activities.working
    wf: Workflow[Ticket, Any, Activities] = Workflow(
        name, object=Ticket, status=activities.status_type, start=working[0], lifespan=lifespan
    )
    tokens: dict[str, Callback[Ticket, Any, Seen, Activities]] = {}
    for first in range(0, len(working), MOST_DESTINATIONS):
        group = working[first : first + MOST_DESTINATIONS]
        called = "moved" if not first else f"moved-{first // MOST_DESTINATIONS + 1}"
        for status in working:
            token = wf.callback(status, to=group, name=called)(moved)
            tokens |= {str(to): token for to in group}
    closing = activities.statuses[closed]
    wf.timeout(closing, after=archive_after, to=[activities.archived])(archive)
    moves = {activity: tokens[str(to)] for activity, to in activities.statuses.items() if to is not activities.archived}
    return Desk(workflow=wf, activities=activities, moves=moves)


USUAL: Final = Activities.of(
    ["Assign seriousness", "Take in charge ticket", "Wait", "Require upgrade", "Resolve ticket", "Closed"]
)
"""What most tickets go through."""


@asynccontextmanager
async def usual() -> AsyncGenerator[Activities]:
    """The handlers' dependencies, where the workflow is served as it stands here."""
    yield USUAL


wf = desk(USUAL, closed="Closed", lifespan=usual).workflow
