"""A file of lines is read as it grows, by whole lines, and never read on when it is not the same file any more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stepwell.adapters.embedded import EmbeddedStore, JsonLinesSource, Position, SystemClock
from stepwell.errors import StoreRefusedError

DEADLINE = 20.0


@pytest.fixture
async def store() -> AsyncIterator[EmbeddedStore]:
    opened = EmbeddedStore.open(None, clock=SystemClock())
    yield opened
    await opened.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "orders.jsonl"


def source(store: EmbeddedStore, path: Path) -> JsonLinesSource:
    position = Position(store, namespace="default", workflow="orders", connector="feed")
    return JsonLinesSource(path, topic="orders.jsonl", position=position)


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


async def values(reading: JsonLinesSource, limit: int = 10) -> list[bytes]:
    return [message.value for message in await reading.read(limit)]


async def test_only_whole_lines_are_read_and_empty_ones_are_passed_over(store: EmbeddedStore, path: Path) -> None:
    reading = source(store, path)
    assert await values(reading) == []
    append(path, '{"n": 1}\n\n  \n{"n": 2}\n{"n"')
    first, second = await reading.read(10)
    assert (first.value, second.value) == (b'{"n": 1}', b'{"n": 2}')
    assert (first.offset, second.offset) == (0, 13)
    assert await values(reading) == []
    append(path, ": 3}\n")
    assert await values(reading) == [b'{"n": 3}']
    await reading.close()


async def test_a_restart_reads_on_behind_what_was_saved_with_the_same_keys(store: EmbeddedStore, path: Path) -> None:
    append(path, "1\n2\n3\n")
    reading = source(store, path)
    first, second, third = await reading.read(10)
    await reading.save(first)
    await reading.close()
    again = source(store, path)
    assert [message.request_key for message in await again.read(1)] == [second.request_key]
    assert [message.request_key for message in await again.read(1)] == [third.request_key]
    await again.save(third)
    assert await values(again) == []
    await again.close()


async def test_growth_wakes_who_waits(store: EmbeddedStore, path: Path) -> None:
    reading = source(store, path)
    assert await values(reading) == []
    waiting = asyncio.create_task(reading.changed())
    await asyncio.sleep(0)
    assert not waiting.done()
    append(path, "1\n")
    await asyncio.wait_for(waiting, DEADLINE)
    assert await values(reading) == [b"1"]
    await reading.close()


@pytest.mark.parametrize("restarted", [False, True])
@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.write_text("1\n"), "shorter"),
        (lambda path: path.unlink(), "gone"),
    ],
)
async def test_a_file_that_lost_what_was_read_is_refused(
    store: EmbeddedStore, path: Path, spoil: object, says: str, restarted: bool
) -> None:
    assert callable(spoil)
    append(path, "1\n2\n3\n")
    reading = source(store, path)
    await reading.save((await reading.read(10))[-1])
    spoil(path)
    if restarted:
        await reading.close()
        reading = source(store, path)
    with pytest.raises(StoreRefusedError, match=says) as refused:
        await reading.read(10)
    assert str(path) in str(refused.value)
    await reading.close()


async def test_another_file_under_the_same_name_is_refused(store: EmbeddedStore, path: Path) -> None:
    append(path, "1\n")
    reading = source(store, path)
    await reading.read(10)
    other = path.with_suffix(".new")
    append(other, "one longer than the first\nand more\n")
    other.rename(path)
    with pytest.raises(StoreRefusedError, match="replaced"):
        await reading.read(10)
    await reading.close()
