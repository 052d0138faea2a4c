"""A PostgreSQL server of the tests' own: made once, in memory, and gone with the tests however they end.

Measurements start one with `running` and settings of their own, on the disk that they measure.

It is started under a shell that waits on a pipe held by this process: when that closes, by whatever death, the shell
ends the server and deletes its data.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import pytest

from stepwell.adapters.postgres import migrate

T = TypeVar("T")

PROGRAMS = Path("/usr/lib/postgresql")
STARTUP_SECONDS = 30.0
_SHOWN = 4000
_TEMPLATE = "stepwell_template"

IN_MEMORY = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "max_wal_size": "256MB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum_naptime": "5s",
    "listen_addresses": "127.0.0.1",
    "deadlock_timeout": "100ms",
}
_KEEPER = """
cd /
"$@" >&2 & server=$!
while read -r word; do
    case $word in
        stop) kill -INT $server ;;
        kill) kill -STOP $server; pkill -KILL -P $server; kill -KILL $server ;;
        start) "$@" >&2 & server=$! ;;
    esac
    test $word = start || wait $server
    echo done
done
# The second ends it at once; but at its very start it ignores that one, as what a shell starts beside itself does.
kill -TERM $server
kill -QUIT $server
wait $server
rm -rf "$DATA"
"""


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server; each test has databases of its own."""

    port: int
    directory: Path
    user: str
    pid: int
    """Of the shell that the server runs under: the server and its backends descend from it."""
    numbers: Iterator[int]
    _tell: Callable[[str], None]

    def stop(self) -> None:
        """End the server as an administrator does who is in a hurry: every connection is cut. Its data stay."""
        self._tell("stop")

    def kill(self) -> None:
        """``kill -9`` of the server and of all its backends. Its data stay as they are."""
        self._tell("kill")

    async def start(self) -> None:
        """Start it again where it was; returns when it takes connections."""
        self._tell("start")
        await (await _connected(self)).close()

    def dsn(self, database: str) -> str:
        return f"postgresql://{self.user}@127.0.0.1:{self.port}/{database}"

    @asynccontextmanager
    async def database(self, *, migrated: bool = True) -> AsyncIterator[str]:
        """The DSN of a fresh database, which is dropped afterwards with whoever is connected."""
        name = f"test_{next(self.numbers)}"
        await self._administer(f"CREATE DATABASE {name}" + (f" TEMPLATE {_TEMPLATE}" if migrated else ""))
        yield self.dsn(name)
        await self._administer(f"DROP DATABASE {name} WITH (FORCE)")

    @asynccontextmanager
    async def database_at(self, place: Path) -> AsyncIterator[str]:
        """The same in an empty directory of the server's own user, for what may be filled or taken away."""
        name = f"test_{next(self.numbers)}"
        await self._administer(f"CREATE TABLESPACE {name} LOCATION '{place}'")
        await self._administer(f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE} TABLESPACE {name}")
        yield self.dsn(name)
        await self._administer(f"DROP DATABASE {name} WITH (FORCE)")
        await self._administer(f"DROP TABLESPACE {name}")

    async def _administer(self, sql: str) -> None:
        try:
            # Not kept open meanwhile: a test may start the server anew.
            connection = await asyncpg.connect(self.dsn("postgres"), timeout=STARTUP_SECONDS)
            try:
                await connection.execute(sql, timeout=STARTUP_SECONDS)
            finally:
                await connection.close(timeout=STARTUP_SECONDS)
        except TimeoutError:
            log = (self.directory / "log").read_text("utf-8", errors="replace")[-_SHOWN:]
            raise AssertionError(f"{sql}: nothing within {STARTUP_SECONDS:.0f} s; the server's log:\n{log}") from None


def programs() -> Path:
    """The newest PostgreSQL of this machine, installed if there is none and we may."""
    found = _newest()
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print("stepwell: no PostgreSQL on this machine: installing the package postgresql")  # noqa: T201  (it takes a while)
        subprocess.run(["apt-get", "install", "-y", "-qq", "postgresql"], check=False, capture_output=True)  # noqa: S607  (where it is, is its own affair)
        found = _newest()
    if found is None:
        pytest.fail(f"no PostgreSQL in {PROGRAMS}: install the package `postgresql` (the tests start their own server)")
    return found


def _newest() -> Path | None:
    found = [path.parent for path in PROGRAMS.glob("*/bin/postgres")]
    return max(found, key=lambda path: float(path.parent.name), default=None)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _unprivileged() -> dict[str, Any]:
    """The server refuses to run as root."""
    if os.geteuid() != 0:
        return {}
    names = {entry.pw_name for entry in pwd.getpwall()}
    entry = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _start(directory: Path, settings: Mapping[str, str]) -> tuple[subprocess.Popen[bytes], Server]:
    binaries, identity, port = programs(), _unprivileged(), _free_port()
    data = directory / "data"
    if identity:
        os.chown(directory, identity["user"], identity["group"])
    user = pwd.getpwuid(identity["user"]).pw_name if identity else getpass.getuser()
    subprocess.run(  # noqa: S603  (nothing from outside)
        [binaries / "initdb", "-D", data, "-U", user, "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd="/",
        **identity,
    )
    where = ("-D", data, "-k", directory, "-p", str(port))
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(  # noqa: S603  (nothing from outside)
            ["/bin/sh", "-c", _KEEPER, "sh", binaries / "postgres", *where, *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env={"DATA": str(directory), "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            start_new_session=True,
            **identity,
        )

    def tell(word: str) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{word}\n".encode())
        process.stdin.flush()
        assert process.stdout.readline() == b"done\n", "the server's keeper is gone"

    return process, Server(port=port, directory=directory, user=user, pid=process.pid, numbers=count(1), _tell=tell)


async def _connected(server: Server) -> asyncpg.Connection:
    async with asyncio.timeout(STARTUP_SECONDS):
        while True:
            try:
                return await asyncpg.connect(server.dsn("postgres"))
            except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
                await asyncio.sleep(0.02)


async def _ready(server: Server) -> None:
    connection = await _connected(server)
    await connection.execute(f"CREATE DATABASE {_TEMPLATE}")
    await connection.close()
    await migrate(server.dsn(_TEMPLATE))


def _run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@contextmanager
def running(settings: Mapping[str, str], *, where: Path | None) -> Iterator[Server]:
    """A server with these settings, its data in a new directory within ``where`` (None: the system's own place)."""
    directory = Path(tempfile.mkdtemp(prefix="stepwell-postgres-", dir=where))
    process, server = _start(directory, settings)
    try:
        _run(_ready(server))
        yield server
    finally:
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()
        process.wait(STARTUP_SECONDS)
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    """The server, started by the first test that asks for it."""
    memory = Path("/dev/shm")  # noqa: S108  (the directory in it is made by mkdtemp)
    with running(IN_MEMORY, where=memory if os.access(memory, os.W_OK) else None) as server:
        yield server
