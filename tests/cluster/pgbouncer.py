"""A pgbouncer of the tests' own, in transaction mode: the next statement may be on another connection to the server."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from tests.cluster.kept import Kept, free_ports
from tests.cluster.postgres import Server

STARTUP_SECONDS = 20.0
_PLACES = os.pathsep.join(("/usr/sbin", "/usr/local/sbin", os.environ.get("PATH", "")))

_CONFIG = """\
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = {most}
max_client_conn = 100
server_round_robin = 1
{more}
"""


def program() -> str:
    """Where pgbouncer is, installed if it is missing and we may."""
    found = shutil.which("pgbouncer", path=_PLACES)
    if found is None and os.geteuid() == 0 and shutil.which("apt-get"):
        print("stepwell: no pgbouncer on this machine: installing the package pgbouncer")  # noqa: T201  (it takes a while)
        subprocess.run(["apt-get", "install", "-y", "-qq", "pgbouncer"], check=False, capture_output=True)  # noqa: S607  (where it is, is its own affair)
        found = shutil.which("pgbouncer", path=_PLACES)
    if found is None:
        pytest.fail("no pgbouncer: install the package `pgbouncer` (the tests start their own)")
    return found


def _configured(server: Server, *, most: int, more: str) -> tuple[Path, int]:
    directory = Path(tempfile.mkdtemp(prefix="stepwell-pgbouncer-"))
    (port,) = free_ports(1)
    text = _CONFIG.format(server=server.port, port=port, directory=directory, most=most, more=more)
    (directory / "pgbouncer.ini").write_text(text)
    (directory / "users").write_text(f'"{server.user}" ""\n')
    directory.chmod(0o755)
    return directory, port


@asynccontextmanager
async def pooled(server: Server, dsn: str, *, most: int = 3, more: str = "") -> AsyncIterator[str]:
    """The DSN by which a database of this server is reached through a pooler with so many connections to it."""
    directory, port = _configured(server, most=most, more=more)
    # It refuses to run as root.
    identity = ["-u", server.user] if os.geteuid() == 0 else []
    process = Kept(
        [program(), "-q", *identity, directory / "pgbouncer.ini"], directory=directory, log=directory / "log"
    )
    through = f"postgresql://{server.user}@127.0.0.1:{port}{urlsplit(dsn).path}"
    try:
        await _ready(through, directory / "log")
        yield through
    finally:
        process.end(keep=False)


async def _ready(dsn: str, log: Path) -> None:
    try:
        async with asyncio.timeout(STARTUP_SECONDS):
            while True:
                try:
                    connection = await asyncpg.connect(dsn, statement_cache_size=0)
                except OSError:
                    await asyncio.sleep(0.02)
                else:
                    await connection.close()
                    return
    except TimeoutError:
        pytest.fail(f"pgbouncer does not answer: see {log}")
