"""The replay through Kafka by two workers, one of which is killed, on a small log with loops and odd endings."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

from examples.helpdesk.log import read_log
from tests.cluster.kafka import Broker
from tests.cluster.postgres import Server
from tests.worker.helpdesk import replay
from tests.worker.kit import crew

CASES = 24
ACTIVITIES = ("Assign seriousness", "Take in charge ticket", "Wait", "Closed")


def write_log(path: Path) -> int:
    """A log that was made by chance, the same each time; returns how many cases do not end closed."""
    chance, at, open_cases = random.Random(7), datetime(2012, 1, 1, tzinfo=UTC), 0
    lines = ["case_id,activity,lifecycle,resource,timestamp"]
    for case in range(CASES):
        activities = [chance.choice(ACTIVITIES) for _ in range(chance.randint(1, 8))]
        if case % 6:
            activities.append("Closed")
        open_cases += activities[-1] != "Closed"
        for activity in activities:
            at += timedelta(minutes=1)
            lines.append(f"Case {case},{activity},complete,Value {case % 3},{at.isoformat()}")
    path.write_text("\n".join(lines) + "\n")
    return open_cases


async def test_every_row_is_one_move_though_a_worker_is_killed(postgres: Server, kafka: Broker, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"
    open_cases = write_log(log)
    rows = read_log(log)
    async with crew(postgres, kafka, tmp_path) as team:
        figures, differing = await replay(team, kafka, rows, log, archive_after=25)
    assert differing == []
    assert figures.runs == CASES
    assert figures.callback_moves == len(rows) - CASES
    assert figures.archived == CASES - open_cases
    assert figures.killed_after_moves < figures.callback_moves
