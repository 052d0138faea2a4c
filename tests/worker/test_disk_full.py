"""The disk of the database is full: whoever asks is told so, and all goes on by itself when there is room again.

The database lies on a small file system of its own, which only root can mount; the server's log, whose fullness no
server survives, does not.
"""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from tests.cluster.kafka import Broker
from tests.cluster.postgres import Server
from tests.worker.flow import Order, wf
from tests.worker.kit import PATIENCE, Process, crew

from stepwell import RunID, RunState
from stepwell.client import Client
from stepwell.errors import StoreUnavailableError

SIZE = "48m"
FULL = "no room left on its disk"
SOME = 20
WITHIN = timedelta(seconds=60)


@dataclass(frozen=True, kw_only=True)
class Disk:
    """One that can be filled."""

    mount: Path

    @property
    def data(self) -> Path:
        """Where the server puts its files."""
        return self.mount / "data"

    def fill(self) -> None:
        """Leave nothing free."""
        with (self.mount / "ballast").open("wb", buffering=0) as ballast:
            for size in (1 << 20, 1 << 12):
                with suppress(OSError):
                    while ballast.write(bytes(size)):
                        pass

    def free(self) -> None:
        """There is room again."""
        (self.mount / "ballast").unlink()


@pytest.fixture
def disk(postgres: Server) -> Iterator[Disk]:
    mount = Path(tempfile.mkdtemp(prefix="stepwell-disk-"))
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", mount], check=True)  # noqa: S603, S607
    made = Disk(mount=mount)
    made.data.mkdir()
    shutil.chown(made.data, postgres.user)
    mount.chmod(0o755)
    yield made
    subprocess.run(["umount", "--lazy", mount], check=True)  # noqa: S603, S607  (the system's own, here and above)
    mount.rmdir()


async def test_nothing_is_lost_and_all_goes_on_by_itself(
    postgres: Server, kafka: Broker, disk: Disk, tmp_path: Path
) -> None:
    async with postgres.database_at(disk.data) as dsn, crew(postgres, kafka, tmp_path) as team:
        team.dsn = dsn
        worker = team.start()
        await worker.ready()
        async with Client.connect(dsn, namespace=team.namespace) as client:
            acknowledged = await started(client, until_refused=False)
            disk.fill()
            acknowledged += await started(client, until_refused=True)
            await said(worker, FULL)
            assert worker.page("/healthz") == (200, "ok\n")
            disk.free()
            acknowledged.append((await client.runs(wf).trigger("afterwards", Order())).id)
            for run in acknowledged:
                await client.runs(wf).wait_for(run, RunState.COMPLETED, timeout=WITHIN)
        assert await worker.stop() == 0, worker.log.read_text()
        # It was no failed attempt: nobody is paused for it.
        assert "StoreRefusedRowError" not in worker.log.read_text()


async def started(client: Client, *, until_refused: bool) -> list[RunID]:
    """Runs that were acknowledged: some, or all until one is refused."""
    ids: list[RunID] = []
    async with asyncio.timeout(PATIENCE):
        with nullcontext() if not until_refused else pytest.raises(StoreUnavailableError, match=FULL):
            while until_refused or len(ids) < SOME:
                ids.append((await client.runs(wf).trigger(f"{until_refused}-{len(ids)}", Order())).id)
    return ids


async def said(worker: Process, text: str) -> None:
    """Return once it has logged this."""
    async with asyncio.timeout(PATIENCE):
        while text not in worker.log.read_text():
            assert worker.popen.poll() is None, worker.log.read_text()
            await asyncio.sleep(0.05)
