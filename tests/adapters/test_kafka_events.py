"""Published events reach whoever holds their shard, in order, at least once until they are finished."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta

import pytest
from tests.adapters.kafka_kit import (
    DEADLINE,
    append,
    event,
    events_of,
    fresh_topic,
    publish,
    publishing,
    receive,
    receiving,
    settings_of,
    shards_of,
    until,
)
from tests.cluster.kafka import Broker

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell.adapters.kafka import KafkaEvents, KafkaPublisher, KafkaSettings, Malformed, Reach, Shard
from stepwell.adapters.kafka.consumer import FIRST_POSITION
from stepwell.errors import StoreUnavailableError

NO_TIME = timedelta(0)


@pytest.fixture
def settings(kafka: Broker) -> KafkaSettings:
    return settings_of(kafka)


async def test_events_come_as_they_were_published(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings)
    sent = [event(n, kind=kind, name=kind.value) for n, kind in enumerate(EventKind)]
    sent.append(replace(event(kind=EventKind.TICK, name="nightly"), run_id=RunID(""), trace=""))
    async with receiving(settings, shards_of(topic, 1)) as stream:
        waiting = asyncio.create_task(receive(stream, len(sent)))
        await publish(settings, topic, sent)
        deliveries = await waiting
        assert events_of(deliveries) == sent
        positions = [delivery.position for delivery in deliveries]
        assert positions == sorted(set(positions))
        assert positions[0] >= FIRST_POSITION
        assert stream.pending() == 0


async def test_events_of_one_run_stay_in_order_though_callers_overlap(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings, 4)
    runs, versions = 20, 30
    async with publishing(settings, topic) as publisher, receiving(settings, shards_of(topic, 4)) as stream:

        async def walk(run: int) -> None:
            for version in range(1, versions + 1):
                assert await publisher.publish([event(run, version)]) == [True]

        await asyncio.gather(*(walk(run) for run in range(runs)))
        together = [asyncio.create_task(publisher.publish([event(99, n)])) for n in range(1, 51)]
        await asyncio.gather(*together)
        seen = defaultdict[str, list[int]](list)
        for delivery in await receive(stream, runs * versions + 50):
            seen[delivery.event.run_id].append(delivery.event.version)
    assert seen.pop(event(99).run_id) == list(range(1, 51))
    assert len(seen) == runs
    assert all(each == list(range(1, versions + 1)) for each in seen.values())


async def test_throughput(settings: KafkaSettings, capsys: pytest.CaptureFixture[str]) -> None:
    topic = await fresh_topic(settings, 12)
    total, group = 20_480, 256
    async with publishing(settings, topic) as publisher, receiving(settings, shards_of(topic, 12)) as stream:
        started = time.perf_counter()
        used = time.process_time()
        for first in range(0, total, group):
            assert all(await publisher.publish([event(n) for n in range(first, first + group)]))
        published, spent = time.perf_counter() - started, time.process_time() - used
        received = await receive(stream, total)
        stream.finish(received)
        everything = time.perf_counter() - started
    assert len({delivery.event.run_id for delivery in received}) == total
    with capsys.disabled():
        print(  # noqa: T201  (what it is for)
            f"\nkafka: {total} events over 12 partitions, one group of {group} at a time: {total / published:.0f}/s"
            f" published, {spent / total * 1e6:.0f} µs of CPU each; {total / everything:.0f}/s until all were received"
        )


async def test_what_was_not_finished_comes_again_and_nothing_below_is_lost(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings, 2)
    sent = [event(n) for n in range(40)]
    await publish(settings, topic, sent)
    async with receiving(settings, shards_of(topic, 2), "again") as stream:
        deliveries = await receive(stream, 40)
        kept = {deliveries[5].event, deliveries[31].event}
        stream.finish([delivery for delivery in deliveries if delivery.event not in kept])
    async with receiving(settings, shards_of(topic, 2), "again") as stream:
        lows = {shard: reach.committed or 0 for shard, reach in (await stream.reach(shards_of(topic, 2))).items()}
        ends = {shard: reach.end for shard, reach in (await stream.reach(shards_of(topic, 2))).items()}
        repeated = await receive(stream, sum(ends.values()) - sum(lows.values()))
        assert kept <= set(events_of(repeated)) < set(sent)
        stream.finish(repeated)
        await until_committed(stream, topic, 2)
    last = event(100)
    async with receiving(settings, shards_of(topic, 2), "again") as stream:
        await publish(settings, topic, [last])
        assert events_of(await receive(stream, 1)) == [last]


async def until_committed(stream: KafkaEvents, topic: str, partitions: int) -> None:
    """All of a topic is committed, by whoever reads it."""
    async with asyncio.timeout(DEADLINE):
        reach: Mapping[Shard, Reach] = {}
        while not reach or any(each.committed != each.end for each in reach.values()):
            reach = await stream.reach(shards_of(topic, partitions))


async def test_a_crash_repeats_what_was_finished_and_not_committed(settings: KafkaSettings) -> None:
    slow = replace(settings, commit_every=timedelta(hours=1))
    topic = await fresh_topic(settings)
    sent = [event(n) for n in range(3)]
    await publish(settings, topic, sent)
    first = await KafkaEvents.open(slow, "crash", shards_of(topic, 1))
    stream_one = await receive(first, 3)
    first.finish(stream_one)
    await first.abandon()
    async with receiving(slow, shards_of(topic, 1), "crash") as second:
        deliveries = await receive(second, 3)
        assert events_of(deliveries) == sent, "duplicates, in order"
        second.finish(deliveries)
    async with receiving(slow, shards_of(topic, 1), "crash") as third:
        await publish(settings, topic, [event(9)])
        assert events_of(await receive(third, 1)) == [event(9)], "closing committed"


async def test_others_positions_are_passed_over(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings)
    await publish(settings, topic, [event(1), event(2)])
    async with receiving(settings, shards_of(topic, 1), "others") as stream:
        first, second = await receive(stream, 2)
        stream.finish([replace(first, position=1), replace(second, position=second.position + 1)])
        stream.finish([second, second])
        stream.finish([])
        assert list(stream.unfinished(shards_of(topic, 1))) == [first]


async def test_a_shard_goes_from_one_holder_to_the_other_without_loss(settings: KafkaSettings) -> None:
    """Events are published all the time, shards go to and fro, each holder finishes most of what it receives."""
    topic = await fresh_topic(settings, 4)
    shards = shards_of(topic, 4)
    done, received = set[Event](), list[Event]()
    async with (
        publishing(settings, topic) as publisher,
        receiving(settings, shards, "both") as one,
        receiving(settings, [], "both") as two,
    ):

        async def work(stream: KafkaEvents) -> None:
            while True:
                deliveries = await stream.receive()
                received.extend(events_of(deliveries))
                await asyncio.sleep(0.005)
                done.update(events_of(deliveries))
                stream.finish(deliveries)

        workers = [asyncio.create_task(work(stream)) for stream in (one, two)]
        sent = list[Event]()
        for turn in range(16):
            some = [event(turn * 100 + n) for n in range(50)]
            sent.extend(some)
            publishing_some = asyncio.create_task(publisher.publish(some))
            giver, taker = (one, two) if turn % 2 == 0 else (two, one)
            moving = [shard for shard in shards if shard in giver.shards][: 1 + turn % 3]
            assert await giver.give_up(moving) == []
            assert not giver.shards & set(moving)
            taker.take(moving)
            assert all(await publishing_some)
        await until(lambda: done == set(sent))
        for task in workers:
            task.cancel()
        await asyncio.wait(workers)
        assert one.shards | two.shards == set(shards)
    assert len(received) == len(sent), "each holder finished and committed what it had, so nothing came twice"


async def test_what_is_not_finished_when_a_shard_is_given_up_goes_to_the_next_holder(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings, 2)
    first, second = shards_of(topic, 2)
    await publish(settings, topic, [event(n) for n in range(20)])
    async with receiving(settings, [first, second], "left") as one, receiving(settings, [], "left") as two:
        deliveries = await receive(one, 20)
        left = await one.give_up([first], patience=NO_TIME)
        assert 0 < len(left) < 20
        assert list(one.unfinished([second])) == [each for each in deliveries if each not in left]
        one.finish(deliveries)
        two.take([first])
        assert events_of(await receive(two, len(left))) == events_of(left)
        assert await one.give_up([first]) == [], "it is not held any more"


async def test_a_shard_taken_back_while_it_is_given_up_loses_nothing(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings)
    shards = shards_of(topic, 1)
    await publish(settings, topic, [event(1)])
    async with receiving(settings, shards) as stream:
        [held] = await receive(stream, 1)
        giving_up = asyncio.create_task(stream.give_up(shards))
        reading = asyncio.create_task(receive(stream, 2))
        await asyncio.sleep(0)
        await publish(settings, topic, [event(2)])
        stream.take(shards)
        stream.finish([held])
        assert await giving_up == []
        assert stream.shards == set(shards)
        await publish(settings, topic, [event(3)])
        assert events_of(await reading) == [event(2), event(3)]


async def test_a_stream_without_shards_waits_for_some(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings)
    await publish(settings, topic, [event(1)])
    async with receiving(settings, []) as stream:
        waiting = asyncio.create_task(receive(stream, 1))
        await asyncio.sleep(0)
        assert not waiting.done()
        assert stream.pending() == 0
        stream.take(shards_of(topic, 1))
        assert events_of(await waiting) == [event(1)]


async def test_cancelling_a_wait_loses_nothing(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings)
    received, number = list[Event](), 60
    async with publishing(settings, topic) as publisher, receiving(settings, shards_of(topic, 1)) as stream:
        for n in range(number):
            waiting = asyncio.create_task(stream.receive())
            await publisher.publish([event(n)])
            for _ in range(n % 9):
                await asyncio.sleep(0)
            waiting.cancel()
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                received.extend(events_of(waiting.result()))
        received.extend(events_of(await receive(stream, number - len(received))))
    assert received == [event(n) for n in range(number)]


async def test_what_is_stored_and_not_received_is_pending(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings, 2)
    await publish(settings, topic, [event(n) for n in range(10)])
    async with receiving(settings, shards_of(topic, 2)) as stream:
        await until(lambda: stream.pending() == 10)
        await receive(stream, 10)
        assert stream.pending() == 0


async def test_records_that_are_no_events_are_reported_and_passed_over(
    settings: KafkaSettings, caplog: pytest.LogCaptureFixture
) -> None:
    topic = await fresh_topic(settings)
    await append(settings, topic, [(b"k", b"4111-SECRET"), (None, b"{}")])
    await publish(settings, topic, [event(1)])
    await append(settings, topic, [(b"k", None)])
    await publish(settings, topic, [event(2)])
    told = list[Malformed]()
    with caplog.at_level(logging.WARNING):
        async with receiving(settings, shards_of(topic, 1), "malformed", told) as stream:
            deliveries = await receive(stream, 2)
            assert events_of(deliveries) == [event(1), event(2)]
            stream.finish(deliveries)
            await until_committed(stream, topic, 1)
    assert [(each.topic, each.partition, each.offset) for each in told] == [(topic, 0, n) for n in (0, 1, 3)]
    assert told[0].sha256 == hashlib.sha256(b"4111-SECRET").hexdigest()
    assert [record.__dict__["action"] for record in caplog.records if "stepwell" in record.name] == [
        "record_malformed"
    ] * 3
    assert "SECRET" not in caplog.text + repr([record.__dict__ for record in caplog.records])


async def test_a_consumer_that_stopped_delivering_is_noticed_and_built_anew(settings: KafkaSettings) -> None:
    impatient = replace(settings, stuck_after=timedelta(seconds=1))
    topic = await fresh_topic(settings)
    await publish(settings, topic, [event(1), event(2)])
    async with receiving(impatient, shards_of(topic, 1)) as stream:
        await receive(stream, 2)
        consumer: object = stream._consumer
        consumer._fetcher._fetch_task.cancel()  # type: ignore[attr-defined]  # (the driver's own task)
        waiting = asyncio.create_task(receive(stream, 1))
        await publish(settings, topic, [event(3)])
        assert events_of(await waiting) == [event(3)], "and nothing that was delivered before"
        assert stream.rebuilt == 1


async def test_nobody_is_built_anew_while_there_is_nothing_to_read(settings: KafkaSettings) -> None:
    hasty = replace(settings, stuck_after=timedelta(milliseconds=400), commit_every=timedelta(milliseconds=10))
    topic = await fresh_topic(settings)
    await publish(settings, topic, [event(1)])
    async with receiving(hasty, shards_of(topic, 1)) as stream:
        stream.finish(await receive(stream, 1))
        looks, before = counted(stream), stream.rebuilt
        waiting = asyncio.create_task(receive(stream, 1))
        await until(lambda: looks() > 5)
        assert stream.rebuilt == before
        await publish(settings, topic, [event(2)])
        assert events_of(await waiting) == [event(2)]


def counted(stream: KafkaEvents) -> Callable[[], int]:
    """How often the watchdog has looked from now on."""
    seen = set[float]()

    def looks() -> int:
        seen.add(stream._watchdog._looked_at)
        return len(seen)

    return looks


async def test_a_closed_stream_says_so(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings)
    async with receiving(settings, shards_of(topic, 1)) as stream:
        waiting = asyncio.create_task(stream.receive())
        await asyncio.sleep(0)
        await stream.close()
        with pytest.raises(StoreUnavailableError, match="closed"):
            await waiting
        with pytest.raises(StoreUnavailableError, match="closed"):
            await stream.receive()


async def test_a_full_queue_and_a_closed_publisher_answer_at_once(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings)
    small = replace(settings, publish_queue=10)
    async with publishing(small, topic) as publisher:
        answer = await publisher.publish([event(n) for n in range(15)])
        assert answer == [True] * 10 + [False] * 5
        assert (publisher.overflown, publisher.waiting) == (5, 0)
        assert await publisher.publish([]) == []
    assert await publisher.publish([event(1)]) == [False]


async def test_cancelling_a_publish_frees_its_place(settings: KafkaSettings) -> None:
    async with publishing(settings, "stepwell.default.no-such-topic") as publisher:
        publishing_some = asyncio.create_task(publisher.publish([event(1)]))
        await asyncio.sleep(0)
        assert publisher.waiting == 1
        publishing_some.cancel()
        await asyncio.wait([publishing_some])
        assert publisher.waiting == 0


async def test_a_producer_that_failed_for_good_is_replaced(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings)
    async with publishing(settings, topic) as publisher:
        assert await publisher.publish([event(1)]) == [True]
        broken: object = publisher._producer
        manager = broken._txn_manager  # type: ignore[attr-defined]  # (the driver's own count of sequences)
        for key in manager._sequence_numbers:
            manager._sequence_numbers[key] += 7
        assert await publisher.publish([event(2)]) == [False], "the broker refused a sequence with a gap"
        assert await publisher.publish([event(3), event(4)]) == [True, True]
        assert publisher._producer is not broken
    async with receiving(settings, shards_of(topic, 1)) as stream:
        assert events_of(await receive(stream, 3)) == [event(1), event(3), event(4)]


async def test_a_topic_that_is_missing_is_made(settings: KafkaSettings, kafka: Broker) -> None:
    made = list[str]()

    async def make(topic: str) -> None:
        made.append(topic)

    publisher = await KafkaPublisher.open(
        replace(settings, publish_timeout=timedelta(seconds=1)), lambda _: "a b", make
    )
    assert await publisher.publish([event(1)]) == [False]
    await publisher.close()
    assert set(made) == {"a b"}


async def test_reach_is_told_of_shards_that_are_not_held(settings: KafkaSettings) -> None:
    topic = await fresh_topic(settings, 1)
    await publish(settings, topic, [event(n) for n in range(7)])
    async with receiving(settings, []) as stream:
        reach = (await stream.reach([Shard(topic, 0)]))[Shard(topic, 0)]
        assert (reach.committed, reach.end) == (None, 7)
