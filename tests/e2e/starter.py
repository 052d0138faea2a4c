"""Starts runs from a pod, so many a second by the clock, and prints each that was acknowledged.

The clock asks, whatever becomes of it: what cannot be stored just then is asked for again under the same request id
until it is. It ends by itself after some seconds, or sooner by SIGTERM, once everything that was asked for is
acknowledged; what is not by then makes it fail. Each line of output is a JSON list: foreign id, and run id where there
is one. With a topic instead of a workflow, what is acknowledged is a message, and a connector makes the run of it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaProducer

from stepwell import Client
from stepwell.errors import StoreError

SENDERS = 16
RETRY_SECONDS = 0.5
PATIENCE_SECONDS = 60.0

Start = Callable[[str], Awaitable[str]]
"""Takes a foreign id; returns once it is acknowledged, with the id of the run if that is known."""


@asynccontextmanager
async def by_client(workflow: str, fields: dict[str, Any]) -> AsyncGenerator[Start]:
    """As a user's program does."""
    async with Client.connect(os.environ["STEPWELL_DSN"], namespace=os.environ["STEPWELL_NAMESPACE"]) as client:
        runs = client.untyped(workflow)

        async def start(foreign_id: str) -> str:
            while True:
                try:
                    run = await runs.trigger(foreign_id, fields, request_id=foreign_id)
                except StoreError as error:
                    print(f"{foreign_id}: {error}", file=sys.stderr)
                    await asyncio.sleep(RETRY_SECONDS)
                else:
                    return str(run.id)

        yield start


@asynccontextmanager
async def by_topic(topic: str, fields: dict[str, Any]) -> AsyncGenerator[Start]:
    """Messages of which a connector makes runs; each has its foreign id in the field ``id``."""
    bootstrap = os.environ["STEPWELL_KAFKA_BOOTSTRAP"]
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True) as producer:

        async def start(foreign_id: str) -> str:
            await producer.send_and_wait(topic, json.dumps({**fields, "id": foreign_id}).encode())
            return ""

        yield start


async def ask(asked: asyncio.Queue[str], prefix: str, *, rate: float, seconds: float, enough: asyncio.Event) -> None:
    """Put in what the clock wants, until it is enough."""
    clock = asyncio.get_running_loop().time
    began, count = clock(), 0
    while not enough.is_set() and (elapsed := clock() - began) < seconds:
        while count < elapsed * rate:
            asked.put_nowait(f"{prefix}-{count}")
            count += 1
        with suppress(TimeoutError):
            await asyncio.wait_for(enough.wait(), 1 / rate)


async def send(asked: asyncio.Queue[str], start: Start) -> None:
    """One of those that start, for ever."""
    while True:
        foreign_id = await asked.get()
        print(json.dumps([foreign_id, await start(foreign_id)]), flush=True)
        asked.task_done()


async def main(options: argparse.Namespace) -> None:
    enough, asked = asyncio.Event(), asyncio.Queue[str]()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, enough.set)
    fields = json.loads(options.object)
    starting: AbstractAsyncContextManager[Start] = (
        by_client(options.workflow, fields) if options.workflow else by_topic(options.topic, fields)
    )
    async with starting as start, asyncio.TaskGroup() as tasks:
        senders = [tasks.create_task(send(asked, start)) for _ in range(SENDERS)]
        await ask(asked, options.prefix, rate=options.rate, seconds=options.seconds, enough=enough)
        await asyncio.wait_for(asked.join(), PATIENCE_SECONDS)
        for sender in senders:
            sender.cancel()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--workflow")
    where.add_argument("--topic")
    parser.add_argument("--prefix", required=True)
    parser.add_argument("--object", default="{}")
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    asyncio.run(main(parser.parse_args()))
