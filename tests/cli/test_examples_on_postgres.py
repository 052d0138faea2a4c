"""Every example runs on a database as it does on a file: its manifest, its handlers, its whole way."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from examples.manifests import TOPICS
from examples.orders import demo
from tests.cli.support import REPOSITORY, Kept, call, database_of, running, until
from tests.cluster.postgres import Server


@pytest.fixture(scope="module", params=["database", "database and broker"])
def kept(request: pytest.FixtureRequest, postgres: Server) -> Iterator[Kept]:
    """All of them served by one process, from what their READMEs name."""
    with ExitStack() as stack:
        dsn = stack.enter_context(database_of(postgres))
        beside = request.param == "database and broker"
        broker = ("--kafka", request.getfixturevalue("kafka").bootstrap) if beside else ()
        kept = Kept(here=REPOSITORY, args=("--dsn", dsn), dsn=dsn)
        manifests = [part for topic in TOPICS for part in ("-f", f"examples/{topic}/workflow.yaml")]
        given = (
            *("--trigger", lines_for_getting_started(stack)),
            *("--topic", "payments.events=examples/connector/payments.jsonl"),
        )
        process = stack.enter_context(running("dev", *manifests, *given, *broker, *kept.args, cwd=REPOSITORY))
        until(lambda: process.poll() is not None or served(kept) == len(TOPICS), "all workflows")
        assert process.poll() is None
        yield kept


def lines_for_getting_started(stack: ExitStack) -> Path:
    """The example's own lines, which name no workflow where there is only one."""
    directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    lines = (REPOSITORY / "examples/getting_started/signups.jsonl").read_text("utf-8").splitlines()
    rows = [{**json.loads(line), "workflow": "getting-started"} for line in lines]
    (directory / "signups.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows), "utf-8")
    return directory / "signups.jsonl"


def served(kept: Kept) -> int:
    result = call("workflows", "list", *kept.args, "-o", "json")
    return 0 if result.exit_code else len(json.loads(result.stdout)["workflows"])


def data(kept: Kept, *args: str) -> Any:
    result = call("runs", *args, *kept.args, "-o", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def waited(kept: Kept, workflow: str, foreign_id: str, goal: str) -> Any:
    found = ("list", "-w", workflow, "--foreign-id", foreign_id)
    until(lambda: data(kept, *found)["runs"], foreign_id)
    return data(kept, "wait", foreign_id, "-w", workflow, "--for", goal, "--timeout", "20s")


def test_getting_started(kept: Kept) -> None:
    assert waited(kept, "getting-started", "ada", "Completed")["status"] == "Welcomed"
    assert waited(kept, "getting-started", "bob", "Completed")["status"] == "Refused"


def test_callback(kept: Kept) -> None:
    leave = '{"employee": "ada", "first_day": "2026-07-01", "days": 14}'
    data(kept, "trigger", "leave-1", "-w", "callback", "--object", leave)

    def answered(manager: str) -> Any:
        payload = json.dumps({"manager": manager, "approved": True})
        told = ("runs", "callback", "leave-1", "-w", "callback", "--name", "answered", "--payload", payload)
        return call(*told, "--wait", "20s", *kept.args)

    own = answered("ada")
    assert own.exit_code == 1
    assert "nobody answers a request of their own" in own.stderr
    assert answered("bob").exit_code == 0
    assert data(kept, "show", "leave-1", "-w", "callback")["status"] == "Approved"


def test_connector(kept: Kept) -> None:
    assert waited(kept, "connector", "7001", "Completed")["status"] == "Booked"
    assert waited(kept, "connector", "7003", "Completed")["status"] == "Void"


def test_timeout(kept: Kept) -> None:
    ends_at = datetime.now(UTC) + timedelta(seconds=2)
    trial = json.dumps({"customer": "ada", "ends_at": ends_at.isoformat()})
    data(kept, "trigger", "ada", "-w", "timeout", "--object", trial)
    ended = waited(kept, "timeout", "ada", "Ended")
    assert ended["object"]["letters"] == ["Your trial has ended."]
    assert datetime.fromisoformat(ended["finishedAt"]) >= ends_at


def test_schedule(kept: Kept) -> None:
    data(kept, "trigger", "by-hand", "-w", "schedule", "--object", '{"day": "2026-01-31"}')
    assert waited(kept, "schedule", "by-hand", "Published")["object"]["text"].startswith("Report on 2026-01-31")


def test_helpdesk(kept: Kept) -> None:
    ticket = {"activity": "Assign seriousness", "resource": "Ada", "at": "2026-01-31T10:00:00Z"}
    data(kept, "trigger", "case-1", "-w", "helpdesk", "--object", json.dumps(ticket))
    seen = {"activity": "Closed", "resource": "Bob", "timestamp": "2026-02-01T10:00:00Z"}
    data(
        kept, "callback", "case-1", "-w", "helpdesk", "--name", "moved", "--payload", json.dumps(seen), "--wait", "20s"
    )
    shown = data(kept, "show", "case-1", "-w", "helpdesk")
    assert (shown["status"], [timer["name"] for timer in shown["timers"]]) == ("Closed", ["archive"])


def test_orders(kept: Kept) -> None:
    """The warehouse of the manifest is nobody's; the demo brings one of its own."""
    data(kept, "trigger", "1001", "-w", "orders", "--object", '{"customer": "ada", "total": 42}')
    assert waited(kept, "orders", "1001", "Paid")["object"]["charge"]
    data(kept, "trigger", "1002", "-w", "orders", "--object", '{"customer": "bob", "total": 0}')
    assert waited(kept, "orders", "1002", "Cancelled")["reason"] == "the basket is empty"


def test_the_demo(kept: Kept, capsys: pytest.CaptureFixture[str]) -> None:
    assert kept.dsn is not None
    asked = ["--orders", "60", "--seed", "3", "--dsn", kept.dsn]
    assert demo.main(asked) == 0
    told = capsys.readouterr().out
    assert "WRONG" not in told
    assert "money charged = totals of the paid orders" in told
    assert demo.main(asked) == 2
    assert "there are runs in namespace orders-demo already" in capsys.readouterr().err
