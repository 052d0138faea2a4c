"""Workers share the runs of a namespace; killing, stopping or adding one loses nothing and repeats little."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

from tests.cluster.kafka import Broker
from tests.cluster.postgres import Server
from tests.worker.flow import Order, S, Word, reviewed, wf
from tests.worker.kit import Process, crew, logs

from stepwell import RunState
from stepwell.client import Client

SECONDS = timedelta(seconds=1)


async def test_a_worker_takes_runs_all_their_way(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    async with crew(postgres, kafka, tmp_path) as team, Client.connect(team.dsn, namespace=team.namespace) as client:
        worker = team.start()
        await worker.ready()
        runs = client.runs(wf)
        started = [await runs.trigger(str(n), Order(review=n % 10 == 0)) for n in range(60)]
        calls = (runs.callback(reviewed, run.id, Word(by="ann"), wait=30 * SECONDS) for run in started[::20])
        await asyncio.gather(*calls)
        ended = [await runs.wait_for(run.id, RunState.COMPLETED, timeout=30 * SECONDS) for run in started]
        assert [record.status for record in ended[:12]] == [S.SENT, *[S.SENT] * 9, S.LATE, S.SENT]
        assert ended[0].object.path == ["paid", "packed", "ann"]
        for record in ended:
            history = await runs.history(record.id)
            assert [entry.version for entry in history] == list(range(1, record.version + 1))
        metrics = metrics_of(worker)
        assert metrics['stepwell_role_held{role="keeper"}'] == 1
        assert metrics['stepwell_role_held{role="connector/orders/shop"}'] == 1
        assert metrics["stepwell_shards_held"] == wf.build().partitions
        assert metrics["stepwell_members"] == 1
        assert metrics['stepwell_events_published_total{by="writer",outcome="taken"}'] > 0
        assert await worker.stop() == 0, worker.log.read_text()


def metrics_of(worker: Process) -> dict[str, float]:
    status, page = worker.page("/metrics")
    assert status == 200
    lines = (line.rpartition(" ") for line in page.splitlines() if line and not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_a_killed_worker_is_replaced_and_no_run_is_lost(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    async with crew(postgres, kafka, tmp_path) as team, Client.connect(team.dsn, namespace=team.namespace) as client:
        first, second = team.start(), team.start()
        await asyncio.gather(first.ready(), second.ready())
        runs = client.runs(wf)
        started = [await runs.trigger(str(n), Order()) for n in range(50)]
        first.kill()
        started += [await runs.trigger(str(n), Order()) for n in range(50, 100)]
        try:
            for run in started:
                await runs.wait_for(run.id, RunState.COMPLETED, timeout=30 * SECONDS)
        except Exception:
            print(logs(team.workers))  # noqa: T201  (whoever looks at the failure needs it)
            raise
