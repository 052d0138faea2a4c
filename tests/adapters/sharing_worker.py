"""A worker of ``test_sharing``: shares shards and a role by PostgreSQL, reads them from Kafka, and tells what it does.

One line of JSON for each thing that happens; a line on its input has it drain and leave.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from stepwell._engine.membership import Members
from stepwell._engine.shards import Shards
from stepwell.adapters.kafka import KafkaEvents, KafkaSettings
from stepwell.adapters.postgres import PostgresMembership
from stepwell.ports.stream import Delivery

ROLE = "keeper"

_STDOUT = 1


@dataclass(frozen=True, kw_only=True)
class Job:
    dsn: str
    bootstrap: str
    topic: str
    partitions: int
    name: str
    interval: float
    duration: float
    handling: float
    """Seconds that a handler takes."""


def tell(what: str, **facts: Any) -> None:
    """The monotonic clock is one for all processes of a machine."""
    # In one piece: two threads tell.
    os.write(_STDOUT, json.dumps({"what": what, "at": time.monotonic(), **facts}).encode() + b"\n")


class Lines(logging.Handler):
    """What the log tells, as lines."""

    def emit(self, record: logging.LogRecord) -> None:
        tell("log", action=getattr(record, "action", ""), reason=getattr(record, "reason", ""))


async def handle(stream: KafkaEvents, delivery: Delivery, seconds: float) -> None:
    tell("began", run=delivery.event.run_id)
    await asyncio.sleep(seconds)
    tell("ended", run=delivery.event.run_id)
    stream.finish([delivery])


async def read(stream: KafkaEvents, seconds: float) -> None:
    async with asyncio.TaskGroup() as handlers:
        while True:
            for delivery in await stream.receive():
                handlers.create_task(handle(stream, delivery, seconds))


async def report(members: Members, shards: Shards) -> None:
    known = None
    while True:
        state = {
            "name": members.name,
            "held": sorted(shard.partition for shard in shards.held),
            "keeps": members.holds(ROLE),
            "live": len(members.view.live),
        }
        if state != known:
            tell("state", **state)
            known = state
        await asyncio.sleep(0.005)


async def told_to_leave() -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    await reader.readline()


async def main(job: Job) -> None:
    settings = KafkaSettings(
        bootstrap=job.bootstrap, replication_factor=1, min_insync=1, commit_every=timedelta(milliseconds=200)
    )
    stream = await KafkaEvents.open(settings, "sharing")

    async def partitions() -> Mapping[str, int]:
        return {job.topic: job.partitions}

    membership = PostgresMembership(job.dsn, "default", interval=job.interval, duration=job.duration)
    members = Members(membership, name=job.name, topics=[job.topic], roles=[ROLE])
    shards = Shards(
        members,
        stream,
        partitions=partitions,
        on_suspect=lambda shard, end: tell("suspect", partition=shard.partition, end=end),
        on_unfinished=lambda left: tell("unfinished", runs=[delivery.event.run_id for delivery in left]),
    )
    async with members, shards:
        reading = [asyncio.create_task(read(stream, job.handling)), asyncio.create_task(report(members, shards))]
        await told_to_leave()
        await members.drain()
        tell("drained", held=len(shards.held), listed=len(members.own.held), keeps=members.holds(ROLE))
        for task in reading:
            task.cancel()
        await asyncio.wait(reading)
    await stream.close()


if __name__ == "__main__":
    logging.getLogger("stepwell").addHandler(Lines())
    logging.getLogger("stepwell").setLevel(logging.INFO)
    asyncio.run(main(Job(**json.loads(sys.argv[1]))))
