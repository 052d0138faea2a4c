"""The servers that every side is measured on: one PostgreSQL and one Kafka, set up as for production on one disk.

Nothing is traded for speed: a commit is on the disk before it is acknowledged. Each measurement gets a fresh database,
and whatever the one before left to write is written before the next one begins.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import asyncpg
from tests.cluster import kafka, postgres

ON_DISK = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "wal_level": "replica",
    "shared_buffers": "1GB",
    "effective_cache_size": "4GB",
    "max_wal_size": "8GB",
    "checkpoint_timeout": "15min",
    "random_page_cost": "1.1",
    "max_connections": "200",
    "listen_addresses": "127.0.0.1",
    # Dates the commits of the latency row, and everybody's.
    "track_commit_timestamp": "on",
    # Counts the statements of the idle row. Nobody else's are tracked.
    "shared_preload_libraries": "pg_stat_statements",
    "pg_stat_statements.track": "none",
}
SERVER_JVM = ("-server", "-Xms1g", "-Xmx1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20")
"""What Kafka's own start script says."""

_SYNCS = 51
_PAGE = 8192
_SHOWN = ("fsync", "synchronous_commit", "full_page_writes", "wal_level", "shared_buffers", "max_wal_size")


@dataclass(frozen=True, kw_only=True)
class Services:
    """Both servers, running."""

    postgres: postgres.Server
    kafka: kafka.Broker
    where: Path | None

    @property
    def pids(self) -> tuple[int, int]:
        """The roots of their process trees."""
        return self.postgres.pid, self.kafka.pid

    @asynccontextmanager
    async def database(self, *, migrated: bool = True) -> AsyncIterator[str]:
        """The DSN of a fresh database: ours with ``migrated``, else empty. It is dropped afterwards."""
        async with self.postgres.database(migrated=migrated) as dsn:
            await self.checkpoint()
            yield dsn

    async def checkpoint(self) -> None:
        """Write out what earlier measurements left, so that nobody pays for somebody else's pages."""
        connection = await asyncpg.connect(self.postgres.dsn("postgres"))
        try:
            await connection.execute("CHECKPOINT")
        finally:
            await connection.close()

    async def disk(self) -> str:
        """What it takes to have a page on the disk: every commit waits for that, and commits at once share it."""
        seconds = await asyncio.to_thread(_sync_seconds, self.where)
        return f"fdatasync of a page {1000 * seconds:.2g} ms"

    async def describe(self) -> str:
        """Versions and the settings that matter, as the servers tell them."""
        connection = await asyncpg.connect(self.postgres.dsn("postgres"))
        try:
            version = await connection.fetchval("SHOW server_version")
            shown = [f"{name}={await connection.fetchval(f'SHOW {name}')}" for name in _SHOWN]
        finally:
            await connection.close()
        return (
            f"PostgreSQL {version} ({', '.join(shown)}); "
            f"Kafka {kafka.KAFKA_VERSION}, one broker ({' '.join(SERVER_JVM[1:3])}, acks=all)"
        )


@contextmanager
def running(where: Path | None) -> Iterator[Services]:
    """Both servers on the disk of ``where`` (None: the system's own place for temporary files)."""
    with postgres.running(ON_DISK, where=where) as server, kafka.running(where=where, jvm=SERVER_JVM) as broker:
        yield Services(postgres=server, kafka=broker, where=where)


def _sync_seconds(where: Path | None) -> float:
    """The median of some tries."""
    with tempfile.TemporaryFile(dir=where) as file:
        taken = []
        for _ in range(_SYNCS):
            os.pwrite(file.fileno(), os.urandom(_PAGE), 0)
            begin = perf_counter()
            os.fdatasync(file.fileno())
            taken.append(perf_counter() - begin)
    return median(taken)
