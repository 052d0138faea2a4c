"""One measurement of a MODEL of the reference end to end: five no-op steps, an outbox, a serial relay, Kafka.

Run as ``python -m tests.bench.durable.sides.model_steps --dsn DSN --kafka HOST:PORT --runs R``; prints one JSON line.

- A *move* is one stored change of status. All runs, with the events of their triggers, are stored before the clock
  starts; it is read when the last run has come to its last status.
- Every status has a topic and one consumer, which handles one event at a time: look the run up, call the step, store
  (see `model_store`), commit the offset.
- One relay polls the outbox every 250 ms for at most 1,000 rows, sends each to Kafka, waits for the acknowledgement,
  deletes the row, and takes the next: the reference's own defaults.

Kinder than the original where we had the choice: its Kafka client would wait up to a second for more to send.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from contextlib import AsyncExitStack
from time import perf_counter
from typing import Any

import asyncpg
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from tests.bench.durable.sides.model_schema import STEPS, WORKFLOW, Moves, create, event, parse
from tests.bench.process import NotMeasuredError, say

POLL_SECONDS = 0.25
LOOKUP_LIMIT = 1000
LIMIT_SECONDS = 80.0
_PENDING = "SELECT id, data FROM outbox WHERE workflow_name = $1 LIMIT $2"
_DELETE = "DELETE FROM outbox WHERE id = $1"


def topic(status: int) -> str:
    return f"model-{WORKFLOW}-{status}"


async def relay(connection: asyncpg.Connection[Any], producer: AIOKafkaProducer) -> None:
    pending, delete = await connection.prepare(_PENDING), await connection.prepare(_DELETE)
    while True:
        for number, stored in await pending.fetch(WORKFLOW, LOOKUP_LIMIT):
            run, status = parse(stored)
            await producer.send_and_wait(topic(status), key=run.encode(), value=stored)
            await delete.fetch(number)
        await asyncio.sleep(POLL_SECONDS)


async def no_op(stored: bytes) -> dict[str, Any]:
    """The user's step: it gets the object decoded."""
    found: dict[str, Any] = json.loads(stored)
    return found


async def consume(status: int, consumer: AIOKafkaConsumer, steps: Moves, ended: asyncio.Semaphore) -> None:
    while True:
        message = await consumer.getone()
        run, _ = parse(message.value)
        row = await steps.look_up(run)
        if row["status"] == status:
            json.dumps(await no_op(row["object"]))
            await steps.store(run, status + 1)
            if status == STEPS:
                ended.release()
        place = TopicPartition(message.topic, message.partition)
        await consumer.commit({place: message.offset + 1})


async def make_topics(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        names = [topic(status) for status in range(1, STEPS + 2)]
        await admin.delete_topics([name for name in names if name in await admin.list_topics()])
        while set(names) & set(await admin.list_topics()):  # noqa: ASYNC110  (the broker tells nobody)
            await asyncio.sleep(0.05)
        await admin.create_topics([NewTopic(name, num_partitions=1, replication_factor=1) for name in names])
    finally:
        await admin.close()


async def measure(dsn: str, bootstrap: str, runs: int) -> dict[str, float]:
    await make_topics(bootstrap)
    ended = asyncio.Semaphore(0)
    async with AsyncExitStack() as stack:

        async def connect() -> asyncpg.Connection[Any]:
            connection = await asyncpg.connect(dsn)
            stack.push_async_callback(connection.close)
            return connection

        ids = await create(dsn, runs, told=False)
        producer = AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
        await producer.start()
        stack.push_async_callback(producer.stop)
        loops = []
        for status in range(1, STEPS + 1):
            consumer = AIOKafkaConsumer(
                bootstrap_servers=bootstrap, group_id=f"model-{status}", enable_auto_commit=False
            )
            consumer.assign([TopicPartition(topic(status), 0)])
            await consumer.start()
            stack.push_async_callback(consumer.stop)
            await consumer.seek_to_beginning()
            steps = await Moves.prepare(await connect())
            loops.append(asyncio.create_task(consume(status, consumer, steps, ended)))
        outbox = await connect()
        tell = (await Moves.prepare(outbox)).tell
        async with outbox.transaction():
            for number, run in enumerate(ids):
                await tell.fetch(f"trigger-{number}", WORKFLOW, event(run, 1))
        begin = perf_counter()
        loops.append(asyncio.create_task(relay(outbox, producer)))
        counted = asyncio.create_task(_wait_for(ended, runs))
        await asyncio.wait([*loops, counted], timeout=LIMIT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
        seconds = perf_counter() - begin
        for loop in loops:
            if loop.done():
                loop.result()
            loop.cancel()
        await asyncio.gather(*loops, return_exceptions=True)
        if not counted.done():
            counted.cancel()
            raise NotMeasuredError(f"the runs did not end within {LIMIT_SECONDS:g} s")
        return {"moves": STEPS * runs, "seconds": seconds}


async def _wait_for(ended: asyncio.Semaphore, runs: int) -> None:
    for _ in range(runs):
        await ended.acquire()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--kafka", required=True)
    parser.add_argument("--runs", type=int, required=True)
    options = parser.parse_args()
    say(measure(options.dsn, options.kafka, options.runs))
