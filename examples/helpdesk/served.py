"""The workflow of a log as workers serve it: rows come in by Kafka, keyed by case, and become triggers and callbacks.

``HELPDESK_LOG`` names the log, from which the statuses are made; ``HELPDESK_ARCHIVE_AFTER`` says after how many seconds
a closed case is archived. The clock is the real one, so that must be longer than the rows take to come in.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import AwareDatetime, BaseModel

from examples.helpdesk.log import read_log
from examples.helpdesk.workflow import Activities, Desk, Seen, Ticket, desk
from stepwell import CallbackRequest, KafkaTopic, Message, TriggerRequest

TOPIC = "helpdesk.rows"


class Told(BaseModel):
    """A row of the log as a message. ``n`` counts the rows of a case from 0."""

    case: str
    n: int
    activity: str
    resource: str
    timestamp: AwareDatetime


def served(log: Path, *, closed: str, archive_after: timedelta) -> Desk:
    """The workflow, with its connector. Raises ``LogError``."""
    activities = Activities.of([*(row.activity for row in read_log(log)), closed])

    @asynccontextmanager
    async def known() -> AsyncGenerator[Activities]:
        yield activities

    made = desk(activities, closed=closed, lifespan=known, archive_after=archive_after)

    def told(message: Message[Told]) -> TriggerRequest[Ticket] | CallbackRequest:
        row = message.value
        if row.n == 0:
            ticket = Ticket(activity=row.activity, resource=row.resource, at=row.timestamp)
            return made.workflow.trigger(row.case, ticket, start=activities.statuses[row.activity])
        seen = Seen(activity=row.activity, resource=row.resource, timestamp=row.timestamp)
        return made.moves[row.activity].request(row.case, seen)

    made.workflow.connector("rows", KafkaTopic(TOPIC))(told)
    return made


def _of_environment() -> Any:
    log = os.environ.get("HELPDESK_LOG", "")
    if not log:
        raise ValueError("HELPDESK_LOG is not set: it must name the log that is replayed")
    seconds = float(os.environ.get("HELPDESK_ARCHIVE_AFTER", "120"))
    closed = os.environ.get("HELPDESK_CLOSED", "Closed")
    return served(Path(log), closed=closed, archive_after=timedelta(seconds=seconds)).workflow


def __getattr__(name: str) -> Any:
    # Made when a worker asks for it, and not by whoever only imports the names above.
    if name == "wf":
        made = globals()["wf"] = _of_environment()
        return made
    raise AttributeError(name)
