"""A file that is not ours, not whole or too new is refused in words and left as it is; one engine runs per file."""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from stepwell._domain.ids import RunID
from stepwell.adapters.embedded import EmbeddedStore, EngineLock, SystemClock
from stepwell.adapters.embedded.file import APPLICATION_ID, SCHEMA_VERSION, translated
from stepwell.errors import StoreRefusedError, StoreUnavailableError
from stepwell.testing.conformance.builders import NAMESPACE, Desk


def opened(path: Path | None) -> EmbeddedStore:
    return EmbeddedStore.open(path, clock=SystemClock())


def desk(store: EmbeddedStore) -> Desk:
    return Desk(backend=None, store=store, clock=None)  # type: ignore[arg-type]  # neither is used by what is called


def empty(path: Path) -> None:
    path.touch()


def prose(path: Path) -> None:
    path.write_text("Dear diary, " * 500)


def header_only(path: Path) -> None:
    path.write_bytes(b"SQLite format 3\x00")


def other_application(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE photo (id INTEGER PRIMARY KEY)")
        conn.commit()


def empty_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("VACUUM")
        conn.execute("PRAGMA user_version = 7")


def newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as conn:
        conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")


def directory(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (empty, "not a Stepwell file"),
        (prose, "not a database"),
        (header_only, "not a"),
        (other_application, "not a Stepwell file"),
        (empty_database, "not a Stepwell file"),
        (newer, "use the newer Stepwell"),
        (directory, "is not a file"),
    ],
)
def test_a_foreign_file_is_refused_by_name_and_left_as_it_is(
    tmp_path: Path, make: Callable[[Path], None], says: str
) -> None:
    path = tmp_path / "work.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(StoreRefusedError, match=says) as refused:
        opened(path)
    assert str(path) in str(refused.value)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert [each.name for each in tmp_path.iterdir()] == ["work.db"]


async def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    store = opened(path)
    for _ in range(50):
        await desk(store).start()
    await store.close()
    raw = bytearray(path.read_bytes())
    for page in range(4096, len(raw), 4096):
        raw[page : page + 64] = os.urandom(64)
    path.write_bytes(raw)
    digest = hashlib.sha256(raw).digest()
    with pytest.raises(StoreRefusedError, match=r"runs\.db"):
        opened(path)
    assert hashlib.sha256(path.read_bytes()).digest() == digest


async def test_damage_that_is_met_later_is_told_in_the_same_words(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    first = opened(path)
    for _ in range(300):
        await desk(first).start()
    await first.close()
    store = opened(path)
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(size - 8192))
    with pytest.raises(StoreRefusedError, match="will not be overwritten"):
        await store.counts(NAMESPACE)
    await store.close()


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreRefusedError, match="no directory"):
        opened(tmp_path / "nowhere" / "runs.db")


async def test_what_was_stored_is_there_when_the_file_is_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "a b?c#d.db"
    store = opened(path)
    record = await desk(store).start()
    await store.close()
    await store.close()
    again = opened(path)
    assert (await again.load([record.run_id]))[record.run_id].record == record
    await again.close()


async def test_a_private_file_is_gone_when_it_is_closed() -> None:
    store = opened(None)
    record = await desk(store).start()
    assert (await store.load([record.run_id]))[record.run_id].record == record
    assert store.path.exists()
    await store.close()
    assert not store.path.parent.exists()


async def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = opened(tmp_path / "runs.db")
    stream = store.stream()
    waiting = asyncio.create_task(stream.receive())
    await asyncio.sleep(0)
    await store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        await waiting
    with pytest.raises(StoreUnavailableError, match="closed"):
        await store.load([RunID("any")])
    with pytest.raises(StoreUnavailableError, match="closed"):
        await desk(store).start()


async def test_two_that_make_one_file_at_once_share_it(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    stores = await asyncio.gather(*(asyncio.to_thread(opened, path) for _ in range(8)))
    records = [await desk(store).start() for store in stores]
    loaded = await stores[0].load([record.run_id for record in records])
    assert len(loaded) == 8
    for store in stores:
        await store.close()
    assert os.listdir(tmp_path) == ["runs.db"]  # noqa: PTH208  (a Path may not list a directory in async code)


HOLDER = """
import sys
from pathlib import Path
from stepwell.adapters.embedded import EngineLock
with EngineLock.acquire(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_second_engine_is_refused_and_told_who_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:  # noqa: S603  (our own text)
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(StoreRefusedError, match=rf"process {holder.pid}\b"):
            EngineLock.acquire(path)
        holder.kill()
    lock = EngineLock.acquire(path)
    with pytest.raises(StoreRefusedError, match=rf"process {os.getpid()}\b"):
        EngineLock.acquire(path)
    lock.release()
    lock.release()
    with EngineLock.acquire(path):
        pass


def test_errors_of_the_database_keep_their_kind(tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as one:
        one.execute("CREATE TABLE t (a)")
        one.execute("BEGIN IMMEDIATE")
        with closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
            with pytest.raises(sqlite3.OperationalError) as locked:
                other.execute("BEGIN IMMEDIATE")
            assert isinstance(translated(locked.value, path), StoreUnavailableError)
    mistake = ValueError("not the database's")
    assert translated(mistake, path) is mistake


def tables(path: Path) -> set[tuple[str, str]]:
    with closing(sqlite3.connect(path)) as conn:
        return set(conn.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"))


async def test_a_file_of_an_older_version_is_brought_up_to_date_and_keeps_its_runs(tmp_path: Path) -> None:
    path, fresh = tmp_path / "store.db", tmp_path / "fresh.db"
    await opened(fresh).close()
    store = opened(path)
    run = await desk(store).start()
    await store.close()
    with closing(sqlite3.connect(path)) as conn:
        conn.execute("DROP TABLE begun")
        conn.execute("PRAGMA user_version = 1")
    for _ in range(2):
        store = opened(path)
        assert run.run_id in await store.load([run.run_id])
        assert await store.begin_message(NAMESPACE, "orders", "payments", 0, offset=0) == 1
        await store.end_message(NAMESPACE, "orders", "payments", 0, offset=0)
        await store.close()
    assert tables(path) == tables(fresh)
