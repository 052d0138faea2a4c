"""Every event that was stored reaches somebody until it is finished, and nobody twice while nothing crashes."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
import pytest_asyncio

from stepwell._domain.record import Event, EventKind, Record
from stepwell.ports.store import RecordStore
from stepwell.ports.stream import Delivery, EventStream
from stepwell.testing.conformance.backend import StreamBackend
from stepwell.testing.conformance.base import DEADLINE, Stores, StoreSuite
from stepwell.testing.conformance.builders import Desk, unstorable


async def receive(stream: EventStream, count: int) -> list[Delivery]:
    """At least so many deliveries, in the order of the stream; fails if they do not come."""
    received: list[Delivery] = []
    async with asyncio.timeout(DEADLINE):
        while len(received) < count:
            some = await stream.receive()
            assert some, "an answer holds at least one"
            received.extend(some)
    return received


async def quiet(stream: EventStream) -> None:
    """Nothing is received while the loop turns, and so nothing more is stored that this stream would give."""
    waiting = asyncio.create_task(stream.receive())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done(), f"received {waiting.result()}"
    waiting.cancel()
    await asyncio.wait([waiting])


def events_of(deliveries: Sequence[Delivery]) -> list[Event]:
    """What was delivered."""
    return [delivery.event for delivery in deliveries]


class StreamSuite(StoreSuite):
    """Streams that read what a store stored; an adapter overrides ``backend`` with a ``StreamBackend``."""

    @pytest.fixture
    def backend(self) -> StreamBackend:
        """The adapter under test, on data of its own for each test."""
        pytest.fail(f"{type(self).__name__} must have a fixture 'backend' that gives a StreamBackend")

    @pytest_asyncio.fixture
    async def stream(self, backend: StreamBackend, desk: Desk) -> EventStream:
        """The stream of the desk's store."""
        return await backend.stream(desk.store)

    async def test_events_are_delivered_in_the_order_in_which_they_were_stored(
        self, desk: Desk, stream: EventStream
    ) -> None:
        records = [await desk.start() for _ in range(5)]
        records.append(await desk.go(records[0], "Created"))
        deliveries = await receive(stream, 6)
        assert [(e.run_id, e.version) for e in events_of(deliveries)] == [(r.run_id, r.version) for r in records]
        assert [delivery.position for delivery in deliveries] == sorted({d.position for d in deliveries})

    async def test_an_event_tells_what_was_stored(self, desk: Desk, stream: EventStream) -> None:
        request, begun = desk.begun(desk.request(start="Review"))
        await desk.store.start([(request, begun)])
        assert events_of(await receive(stream, 1)) == list(begun.events)

    async def test_whoever_waits_is_woken_by_the_next_event(self, desk: Desk, stream: EventStream) -> None:
        waiting = asyncio.create_task(receive(stream, 1))
        await asyncio.sleep(0)
        record = await desk.start()
        (delivery,) = await waiting
        assert delivery.event.run_id == record.run_id

    async def test_an_event_of_another_process_is_delivered(
        self, desk: Desk, stream: EventStream, second: RecordStore
    ) -> None:
        waiting = asyncio.create_task(receive(stream, 1))
        await asyncio.sleep(0)
        request = desk.request()
        await desk.ask(request, by=second)
        (delivery,) = await waiting
        assert delivery.event.run_id == request.run_id

    async def test_nothing_is_delivered_twice_while_nothing_crashes(self, desk: Desk, stream: EventStream) -> None:
        for _ in range(3):
            await desk.start()
        first = await receive(stream, 3)
        await quiet(stream)
        last = await desk.start()
        (delivery,) = await receive(stream, 1)
        assert delivery.event.run_id == last.run_id
        assert delivery.position not in {each.position for each in first}

    async def test_a_loser_s_events_are_delivered_to_nobody(self, desk: Desk, stream: EventStream) -> None:
        record = await desk.start()
        stale = desk.going(record, "Created", stored=b'{"loser":true}')
        await desk.go(record, "Created")
        await desk.store.advance([stale])
        assert len(await receive(stream, 2)) == 2
        await quiet(stream)

    async def test_cancelling_a_wait_loses_nothing(self, desk: Desk, stream: EventStream) -> None:
        expected, received = set(), list[Delivery]()
        for turns in range(25):
            waiting = asyncio.create_task(stream.receive())
            for _ in range(turns % 5):
                await asyncio.sleep(0)
            starting = asyncio.create_task(desk.start())
            for _ in range(turns % 7):
                await asyncio.sleep(0)
            waiting.cancel()
            expected.add((await starting).run_id)
            await asyncio.wait([waiting])
            if not waiting.cancelled():
                received.extend(waiting.result())
        received.extend(await receive(stream, len(expected) - len(received)))
        assert sorted(event.run_id for event in events_of(received)) == sorted(expected)

    async def test_what_is_stored_and_not_received_is_pending(self, desk: Desk, stream: EventStream) -> None:
        assert stream.pending() == 0
        for _ in range(3):
            await desk.start()
        assert stream.pending() == 3
        await receive(stream, 3)
        assert stream.pending() == 0

    async def test_many_events_are_all_delivered(self, desk: Desk, stream: EventStream) -> None:
        wishes = [desk.request() for _ in range(3000)]
        for n in range(0, 3000, 250):
            await desk.store.start([desk.begun(wish) for wish in wishes[n : n + 250]])
        deliveries = await receive(stream, 3000)
        assert [event.run_id for event in events_of(deliveries)] == [wish.run_id for wish in wishes]
        stream.finish(deliveries)
        await quiet(stream)


class FinishSuite(StreamSuite):
    async def test_what_was_not_finished_is_delivered_again_after_a_crash(
        self, desk: Desk, stream: EventStream, stores: Stores, backend: StreamBackend
    ) -> None:
        for _ in range(3):
            await desk.start()
        before = await receive(stream, 3)
        after = await self._after_crash(desk, stores, backend)
        assert events_of(await receive(after, 3)) == events_of(before)

    async def test_what_was_finished_before_a_later_write_is_not_delivered_again(
        self, desk: Desk, stream: EventStream, stores: Stores, backend: StreamBackend
    ) -> None:
        records = [await desk.start() for _ in range(4)]
        deliveries = await receive(stream, 4)
        stream.finish(deliveries[1:3])
        stream.finish([])
        last = await desk.start()
        after = await self._after_crash(desk, stores, backend)
        assert [event.run_id for event in events_of(await receive(after, 3))] == [
            records[0].run_id,
            records[3].run_id,
            last.run_id,
        ]

    async def test_a_crash_right_after_finishing_repeats_and_breaks_nothing(
        self, desk: Desk, stream: EventStream, stores: Stores, backend: StreamBackend
    ) -> None:
        record = await desk.start()
        (delivery,) = await receive(stream, 1)
        stream.finish([delivery])
        after = await self._after_crash(desk, stores, backend)
        last = await desk.go(record, "Created")
        received = {(event.run_id, event.version) for event in events_of(await receive(after, 1))}
        while (last.run_id, last.version) not in received:
            received |= {(event.run_id, event.version) for event in events_of(await receive(after, 1))}
        assert received <= {(record.run_id, 1), (record.run_id, 2)}

    async def test_finishing_is_not_lost_when_the_store_is_closed(
        self, desk: Desk, stream: EventStream, stores: Stores, backend: StreamBackend
    ) -> None:
        for _ in range(3):
            await desk.start()
        stream.finish(await receive(stream, 3))
        await desk.store.close()
        desk.store = await stores.open()
        after = await backend.stream(desk.store)
        last = await desk.start()
        assert [event.run_id for event in events_of(await receive(after, 1))] == [last.run_id]
        await quiet(after)

    async def test_a_write_that_the_store_refuses_forgets_no_finish(
        self, desk: Desk, stream: EventStream, stores: Stores, backend: StreamBackend
    ) -> None:
        record = await desk.start()
        stream.finish(await receive(stream, 1))
        assert await desk.store.advance([unstorable(desk.going(record, "Created"))]) == [None]
        last = await desk.start()
        after = await self._after_crash(desk, stores, backend)
        assert [event.run_id for event in events_of(await receive(after, 1))] == [last.run_id]
        await quiet(after)

    async def test_finishing_twice_is_harmless(self, desk: Desk, stream: EventStream) -> None:
        record = await desk.start()
        deliveries = await receive(stream, 1)
        stream.finish(deliveries)
        record = await desk.go(record, "Created")
        stream.finish(deliveries)
        stream.finish(await receive(stream, 1))
        await desk.go(record, "Created")
        (delivery,) = await receive(stream, 1)
        assert delivery.event.version == 3

    @staticmethod
    async def _after_crash(desk: Desk, stores: Stores, backend: StreamBackend) -> EventStream:
        await stores.crash(desk.store)
        desk.store = await stores.open()
        return await backend.stream(desk.store)


class KeepSuite(FinishSuite):
    async def test_a_kept_event_is_delivered_to_nobody_while_its_keeper_lives(
        self, desk: Desk, stream: EventStream
    ) -> None:
        record, other = await desk.start(), await desk.start()
        await receive(stream, 2)
        kept, left = await desk.store.advance(
            [desk.going(record, "Created"), desk.going(other, "Created")], keep={record.run_id}
        )
        assert kept is not None
        assert left is not None
        assert kept.kept is not None
        assert (kept.kept.event.kind, kept.kept.event.run_id, kept.kept.event.version) == (
            EventKind.STEP,
            record.run_id,
            2,
        )
        assert left.kept is None
        (delivery,) = await receive(stream, 1)
        assert delivery.event.run_id == other.run_id
        assert stream.pending() == 0
        await quiet(stream)

    async def test_a_kept_event_that_was_not_finished_is_delivered_after_a_crash(
        self, desk: Desk, stream: EventStream, stores: Stores, backend: StreamBackend
    ) -> None:
        await self._kept(desk, stream)
        after = await self._after_crash(desk, stores, backend)
        (event,) = events_of(await receive(after, 1))
        assert event.version == 2

    async def test_a_kept_event_is_finished_like_any_other(
        self, desk: Desk, stream: EventStream, stores: Stores, backend: StreamBackend
    ) -> None:
        _, delivery = await self._kept(desk, stream)
        stream.finish([delivery])
        last = await desk.start()
        after = await self._after_crash(desk, stores, backend)
        assert [event.run_id for event in events_of(await receive(after, 1))] == [last.run_id]
        await quiet(after)

    async def test_one_keeps_a_run_through_many_moves(self, desk: Desk, stream: EventStream) -> None:
        record, delivery = await self._kept(desk, stream)
        for version in range(3, 20):
            (won,) = await desk.store.advance([desk.going(record, "Created")], keep=[record.run_id])
            assert won is not None
            assert won.kept is not None
            assert won.kept.position > delivery.position
            stream.finish([delivery])
            delivery, record = won.kept, await desk.read(record.run_id)
            assert record.version == version
        await quiet(stream)

    async def test_only_the_step_s_event_is_kept(self, desk: Desk, stream: EventStream) -> None:
        record = await desk.start()
        stream.finish(await receive(stream, 1))
        (won,) = await desk.store.advance([desk.going(record, "Review")], keep=[record.run_id])
        assert won is not None
        assert won.kept is None
        (delivery,) = await receive(stream, 1)
        assert delivery.event.kind is EventKind.ARM

    async def test_a_loser_keeps_nothing(self, desk: Desk, stream: EventStream) -> None:
        record = await desk.start()
        stale = desk.going(record, "Created")
        moved = await desk.go(record, "Created")
        assert list(await desk.store.advance([stale], keep=[record.run_id])) == [None]
        versions = [delivery.event.version for delivery in await receive(stream, 2)]
        assert versions == [1, moved.version]

    async def test_keeping_a_run_that_is_not_moved_means_nothing(self, desk: Desk, stream: EventStream) -> None:
        record, other = await desk.start(), await desk.start()
        await receive(stream, 2)
        (won,) = await desk.store.advance([desk.going(record, "Created")], keep=[other.run_id])
        assert won is not None
        assert won.kept is None
        assert len(await receive(stream, 1)) == 1

    @staticmethod
    async def _kept(desk: Desk, stream: EventStream) -> tuple[Record, Delivery]:
        record = await desk.start()
        stream.finish(await receive(stream, 1))
        (won,) = await desk.store.advance([desk.going(record, "Created")], keep=[record.run_id])
        assert won is not None
        assert won.kept is not None
        return await desk.read(record.run_id), won.kept


class EventStreamSuite(KeepSuite):
    """Everything that a stream promises."""
