"""A server is trusted by the authority and the name that the DSN says, and whoever is not is told with what to do."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from tests.adapters.test_postgres_engine import Order, wf
from tests.cli.support import call
from tests.cluster.certificates import Authority
from tests.cluster.postgres import IN_MEMORY, Server, running

from stepwell.adapters.postgres import PostgresStore, migrate
from stepwell.client import Client
from stepwell.errors import StoreRefusedError

SECRET = "hunter2-SECRET"  # noqa: S105  (it opens nothing)


@dataclass(frozen=True, kw_only=True)
class Secured:
    server: Server
    authority: Authority
    stranger: Authority

    def dsn(self, database: str, *, mode: str, root: Path | None = None, host: str = "localhost") -> str:
        name = database.rpartition("/")[2]
        more = "" if root is None else f"&sslrootcert={root}"
        return f"postgresql://{self.server.user}:{SECRET}@{host}:{self.server.port}/{name}?sslmode={mode}{more}"


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with tempfile.TemporaryDirectory(prefix="stepwell-tls-") as made:
        directory = Path(made)
        directory.chmod(0o755)
        authority = Authority(directory, "authority")
        cert_file, key_file = authority.sign("localhost")
        if os.geteuid() == 0:
            # The server refuses a key that is not its own.
            os.chown(key_file, pwd.getpwnam("postgres").pw_uid, -1)
        settings = {**IN_MEMORY, "ssl": "on", "ssl_cert_file": str(cert_file), "ssl_key_file": str(key_file)}
        with running(settings, where=None) as server:
            yield Secured(server=server, authority=authority, stranger=Authority(directory, "stranger"))


async def test_a_server_that_is_who_it_says_is_used_over_tls(secured: Secured) -> None:
    async with secured.server.database(migrated=False) as database:
        dsn = secured.dsn(database, mode="verify-full", root=secured.authority.file)
        await migrate(dsn)
        async with Client.connect(dsn) as client:
            await client.runs(wf).trigger("1", Order())
            admin = await asyncpg.connect(database)
            ssl = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = $1"
            assert await admin.fetchval(ssl, "stepwell-client") is True
            await admin.close()


async def refusal(dsn: str) -> str:
    with pytest.raises(StoreRefusedError) as raised:
        await PostgresStore.open(dsn)
    assert SECRET not in str(raised.value)
    with pytest.raises(StoreRefusedError, match=re.escape(str(raised.value))):
        await migrate(dsn)
    return str(raised.value)


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_another_authority_is_refused(secured: Secured, mode: str) -> None:
    told = await refusal(secured.dsn("postgres", mode=mode, root=secured.stranger.file))
    assert "the server's certificate is not accepted (unable to get local issuer certificate)" in told
    assert "name the authority that signed it by sslrootcert=FILE in the DSN" in told


async def test_another_name_is_refused_where_names_count(secured: Secured) -> None:
    told = await refusal(secured.dsn("postgres", mode="verify-full", root=secured.authority.file, host="127.0.0.1"))
    assert "is not accepted (IP address mismatch, certificate is not valid for '127.0.0.1'.)" in told
    async with secured.server.database() as database:
        dsn = secured.dsn(database, mode="verify-ca", root=secured.authority.file, host="127.0.0.1")
        store = await PostgresStore.open(dsn)
        await store.close()


async def test_a_file_that_is_not_there_or_no_certificate_is_named(secured: Secured, tmp_path: Path) -> None:
    missing, other = tmp_path / "none.pem", tmp_path / "other.pem"
    other.write_text("not a certificate")
    told = await refusal(secured.dsn("postgres", mode="verify-full", root=missing))
    assert told == f"sslrootcert of the DSN: {missing}: must be a file that this process can read"
    told = await refusal(secured.dsn("postgres", mode="verify-full", root=other))
    assert "sslrootcert, sslcert and sslkey must be PEM files" in told


async def test_a_server_without_tls_is_refused_where_it_is_asked_for(postgres: Server) -> None:
    told = await refusal(f"{postgres.dsn('postgres')}?sslmode=require")
    assert told == "it speaks no TLS: switch it on there (ssl = on), or ask for less (sslmode=prefer)"


async def test_a_mode_that_there_is_not(postgres: Server) -> None:
    told = await refusal(f"{postgres.dsn('postgres')}?sslmode=banana")
    assert told.startswith("the DSN cannot be used: `sslmode` parameter must be one of: disable, allow, prefer")


async def test_the_command_tells_it_in_one_line(secured: Secured) -> None:
    dsn = secured.dsn("postgres", mode="verify-full", root=secured.stranger.file)
    told = await asyncio.to_thread(call, "runs", "list", "--dsn", dsn)
    assert told.exit_code == 3
    assert told.stderr.startswith(
        f"error: postgresql://localhost:{secured.server.port}/postgres: the server's certificate is not accepted"
    )
    assert len(told.stderr.splitlines()) == 1
    assert SECRET not in told.output
