"""A foreign stream is read without a gap and never backwards; what could not be turned is remembered once, unread."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace

import pytest
import pytest_asyncio

from stepwell.ports.source import Message, MessageSource
from stepwell.ports.store import DeadLetter, RecordStore, TopicStore
from stepwell.testing.conformance.backend import SourceBackend, TopicBackend
from stepwell.testing.conformance.base import DEADLINE, StoreSuite
from stepwell.testing.conformance.builders import HOUR, NAMESPACE, Desk
from stepwell.testing.conformance.clock import START
from stepwell.testing.conformance.races import at_once

Reopen = Callable[[], Awaitable[RecordStore]]
LETTER = DeadLetter(
    namespace=NAMESPACE,
    workflow="orders",
    connector="payments",
    topic="payments.events",
    partition=0,
    offset=7,
    reason="not JSON: line 1, column 3 (ž)",
    sha256="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    at=START,
)

PLACES = [
    (NAMESPACE, "orders", "payments", 0),
    (NAMESPACE, "orders", "payments", 1),
    (NAMESPACE, "orders", "refunds", 0),
    (NAMESPACE, "returns", "payments", 0),
    ("other", "orders", "payments", 0),
]
"""Each differs from the first in one respect."""


class ConnectorSuite(StoreSuite):
    async def test_a_position_is_kept_and_never_goes_back(self, desk: Desk, reopen: Reopen) -> None:
        place = (NAMESPACE, "orders", "payments", 0)
        assert await desk.store.position(*place) is None
        for offset, stands in ((0, 0), (5, 5), (3, 5), (5, 5), (2**40, 2**40)):
            await desk.store.save_position(*place, offset=offset)
            assert await desk.store.position(*place) == stands
        await reopen()
        assert await desk.store.position(*place) == 2**40

    async def test_positions_are_of_one_partition_of_one_connector(self, desk: Desk) -> None:
        for n, place in enumerate(PLACES):
            await desk.store.save_position(*place, offset=n)
        assert [await desk.store.position(*place) for place in PLACES] == [0, 1, 2, 3, 4]

    async def test_the_furthest_of_many_positions_stands(self, desk: Desk, second: RecordStore) -> None:
        place = (NAMESPACE, "orders", "payments", 0)
        stores = (desk.store, second)
        await at_once(*(stores[n % 2].save_position(*place, offset=(n * 37) % 101) for n in range(101)))
        assert await desk.store.position(*place) == 100

    async def test_a_message_that_comes_to_no_end_is_counted(self, desk: Desk, reopen: Reopen) -> None:
        place = (NAMESPACE, "orders", "payments", 0)
        assert [await desk.store.begin_message(*place, offset=5) for _ in range(2)] == [1, 2]
        await reopen()
        assert await desk.store.begin_message(*place, offset=5) == 3
        assert await desk.store.begin_message(*place, offset=2**40) == 1, "another one"
        assert [await desk.store.begin_message(*place, offset=5) for _ in range(2)] == [1, 2]

    async def test_a_message_that_comes_to_an_end_takes_back_its_own_count(self, desk: Desk) -> None:
        place = (NAMESPACE, "orders", "payments", 0)
        await desk.store.end_message(*place, offset=5)
        assert [await desk.store.begin_message(*place, offset=5) for _ in range(3)] == [1, 2, 3]
        await desk.store.end_message(*place, offset=5)
        assert await desk.store.begin_message(*place, offset=5) == 3
        await desk.store.end_message(*place, offset=4)
        assert await desk.store.begin_message(*place, offset=5) == 4, "that was another one"
        for _ in range(9):
            await desk.store.end_message(*place, offset=5)
        assert await desk.store.begin_message(*place, offset=5) == 1

    async def test_messages_are_counted_for_one_partition_of_one_connector(self, desk: Desk) -> None:
        for place in PLACES:
            assert await desk.store.begin_message(*place, offset=5) == 1
        await desk.store.end_message(*PLACES[0], offset=5)
        assert [await desk.store.begin_message(*place, offset=5) for place in PLACES] == [1, 2, 2, 2, 2]

    async def test_two_who_begin_a_message_at_once_are_both_counted(self, desk: Desk, second: RecordStore) -> None:
        place = (NAMESPACE, "orders", "payments", 0)
        stores = (desk.store, second)
        await at_once(*(stores[n % 2].begin_message(*place, offset=5) for n in range(20)))
        assert await desk.store.begin_message(*place, offset=5) == 21

    async def test_a_dead_letter_is_recorded_once(self, desk: Desk, second: RecordStore, reopen: Reopen) -> None:
        await desk.store.bury(LETTER)
        await second.bury(LETTER)
        await second.bury(replace(LETTER, reason="another reason"))
        await reopen()
        assert list(await desk.store.dead_letters(NAMESPACE, "orders")) == [LETTER]

    async def test_dead_letters_are_told_oldest_first(self, desk: Desk) -> None:
        letters = [
            LETTER,
            replace(LETTER, partition=1),
            replace(LETTER, offset=3, at=desk.clock.advance(HOUR)),
            replace(LETTER, topic="refunds.events", at=desk.clock.now()),
            replace(LETTER, connector="refunds", at=desk.clock.now()),
        ]
        for letter in letters:
            await desk.store.bury(letter)
        await desk.store.bury(replace(LETTER, workflow="returns"))
        await desk.store.bury(replace(LETTER, namespace="other"))
        assert list(await desk.store.dead_letters(NAMESPACE, "orders")) == letters
        assert list(await desk.store.dead_letters(NAMESPACE, "unknown")) == []


@pytest.mark.asyncio
class TopicSuite:
    """Topics of the embedded engine; an adapter overrides ``backend``."""

    @pytest.fixture
    def backend(self) -> TopicBackend:
        """The adapter under test, on data of its own for each test."""
        pytest.fail(f"{type(self).__name__} must have a fixture 'backend' that gives a TopicBackend")

    @pytest_asyncio.fixture
    async def topics(self, backend: TopicBackend) -> TopicStore:
        """The store; the backend closes it."""
        return await backend.open()

    async def test_messages_are_read_in_the_order_in_which_they_were_appended(self, topics: TopicStore) -> None:
        assert list(await topics.read("payments", 0, 10)) == []
        last = await topics.append("payments", [(b"k", b"a"), (None, b""), (b"", b"\x00\xff")])
        assert await topics.append("payments", [(None, b"d")]) == last + 1
        messages = await topics.read("payments", 0, 10)
        assert [(m.key, m.value) for m in messages] == [(b"k", b"a"), (None, b""), (b"", b"\x00\xff"), (None, b"d")]
        assert [m.offset for m in messages] == list(range(last - 2, last + 2))
        assert {m.topic for m in messages} == {"payments"}
        assert all(m.at.tzinfo is not None for m in messages)

    async def test_reading_begins_at_an_offset_and_is_bounded(self, topics: TopicStore) -> None:
        last = await topics.append("payments", [(None, b"%d" % n) for n in range(10)])
        assert [m.value for m in await topics.read("payments", last - 4, 2)] == [b"5", b"6"]
        assert list(await topics.read("payments", last + 1, 5)) == []

    async def test_topics_know_nothing_of_each_other(self, topics: TopicStore) -> None:
        await topics.append("payments", [(None, b"a")] * 3)
        await topics.append("refunds", [(None, b"b")])
        assert [m.value for m in await topics.read("refunds", 0, 10)] == [b"b"]

    async def test_an_acknowledged_message_survives_a_crash(self, topics: TopicStore, backend: TopicBackend) -> None:
        last = await topics.append("payments", [(b"k", b"a"), (None, b"b")])
        before = await topics.read("payments", 0, 10)
        await backend.crash(topics)
        reopened = await backend.open()
        assert await reopened.read("payments", 0, 10) == before
        assert await reopened.append("payments", [(None, b"c")]) == last + 1

    async def test_two_writers_leave_no_gap_and_no_double(self, topics: TopicStore, backend: TopicBackend) -> None:
        second = await backend.open()
        batches = [[(None, b"%d/%d" % (batch, n)) for n in range(3)] for batch in range(60)]
        lasts = await at_once(*((topics, second)[n % 2].append("t", batch) for n, batch in enumerate(batches)))
        messages = await topics.read("t", 0, 1000)
        first = messages[0].offset
        assert [m.offset for m in messages] == list(range(first, first + 180))
        for batch, last in zip(batches, lasts, strict=True):
            mine = messages[last - first - 2 : last - first + 1]
            assert [m.value for m in mine] == [value for _, value in batch], "a batch is in one piece"


@pytest.mark.asyncio
class SourceSuite:
    """Foreign streams; an adapter overrides ``backend``."""

    @pytest.fixture
    def backend(self) -> SourceBackend:
        """The adapter under test, on a topic of its own for each test."""
        pytest.fail(f"{type(self).__name__} must have a fixture 'backend' that gives a SourceBackend")

    @pytest_asyncio.fixture
    async def source(self, backend: SourceBackend) -> AsyncIterator[MessageSource]:
        """The connector's source."""
        source = await backend.open()
        yield source
        await source.close()

    async def test_nothing_is_read_while_there_is_nothing(self, source: MessageSource, backend: SourceBackend) -> None:
        assert list(await source.read(10)) == []
        await backend.publish([b'{"n":1}'])
        assert [m.value for m in await source.read(10)] == [b'{"n":1}']

    async def test_reading_goes_on_behind_the_last_reading(self, source: MessageSource, backend: SourceBackend) -> None:
        await backend.publish([b'{"n":%d}' % n for n in range(7)])
        pages = [await source.read(3) for _ in range(4)]
        assert [[m.value for m in page] for page in pages] == [
            [b'{"n":0}', b'{"n":1}', b'{"n":2}'],
            [b'{"n":3}', b'{"n":4}', b'{"n":5}'],
            [b'{"n":6}'],
            [],
        ]
        offsets = [m.offset for page in pages for m in page]
        assert offsets == sorted(set(offsets))

    async def test_a_restart_reads_on_behind_the_last_saved(
        self, source: MessageSource, backend: SourceBackend
    ) -> None:
        await backend.publish([b'{"n":%d}' % n for n in range(5)])
        first = await source.read(5)
        unsaved = await backend.open()
        assert list(await unsaved.read(5)) == list(first), "nothing was saved: all comes again, the same"
        await unsaved.close()
        await source.save(first[2])
        await source.save(first[0])
        restarted = await backend.open()
        again = await restarted.read(5)
        await restarted.close()
        assert list(again) == list(first[3:])
        assert [m.request_key for m in again] == [m.request_key for m in first[3:]], "so their effects are the same"

    async def test_a_restart_reads_on_behind_what_was_done_one_by_one(
        self, source: MessageSource, backend: SourceBackend
    ) -> None:
        await backend.publish([b'{"n":%d}' % n for n in range(5)])
        first = await source.read(5)
        for message in first[:3]:
            await source.done(message)
        restarted = await backend.open()
        assert list(await restarted.read(5)) == list(first[3:])
        await restarted.close()
        await source.save(first[-1])
        restarted = await backend.open()
        assert list(await restarted.read(5)) == []
        await restarted.close()

    async def test_each_message_has_a_key_of_its_own(self, source: MessageSource, backend: SourceBackend) -> None:
        await backend.publish([b"{}", b"{}", b"{}"])
        messages: list[Message] = list(await source.read(5))
        assert len({message.request_key for message in messages}) == 3
        assert all(message.at.tzinfo is not None for message in messages)

    async def test_news_wake(self, source: MessageSource, backend: SourceBackend) -> None:
        assert list(await source.read(5)) == []
        async with asyncio.timeout(DEADLINE):
            waiting = asyncio.create_task(source.changed())
            await asyncio.sleep(0)
            await backend.publish([b"{}"])
            while not await source.read(5):
                await waiting
                waiting = asyncio.create_task(source.changed())
        waiting.cancel()

    async def test_what_is_there_already_wakes_at_once(self, source: MessageSource, backend: SourceBackend) -> None:
        assert list(await source.read(5)) == []
        await backend.publish([b"{}"])
        async with asyncio.timeout(DEADLINE):
            await source.changed()
