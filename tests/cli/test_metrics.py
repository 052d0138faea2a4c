"""``--metrics`` is asked over real HTTP of a real process, and ``--log-format json`` is read line by line."""

from __future__ import annotations

import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.cli.support import FLOWS, PATIENCE, environment, lines, ran, running, stopped, until

SECRET = "ada-4111-1111"  # noqa: S105  (a payload, to be searched for)


@pytest.fixture
def here(tmp_path: Path) -> Path:
    shutil.copy(FLOWS / "parcel_flow.py", tmp_path)
    return tmp_path


def asked(url: str, *, method: str = "GET") -> tuple[int, str]:
    request = urllib.request.Request(url, method=method)  # noqa: S310  (http, by construction)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:  # noqa: S310  (as above)
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as refused:
        with refused:
            return refused.code, refused.read().decode()


def samples(url: str) -> dict[str, dict[tuple[str, ...], float]]:
    """Values by metric, and there by the values of its labels, in the order of their names."""
    status, text = asked(f"{url}/metrics")
    assert status == 200
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(value for _, value in sorted(sample.labels.items()))] = sample.value
    return found


@contextmanager
def serving(*args: str | Path, cwd: Path, where: str = "0") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``stepwell dev`` and the root of its pages, as it tells it."""
    with running("dev", "-f", "parcel_flow:wf", "--metrics", where, *args, cwd=cwd) as process:
        assert process.stderr is not None
        told = process.stderr.readline()
        match = re.fullmatch(r"metrics on (http://\S+:\d+)/metrics\n", told)
        assert match is not None, told
        yield process, match[1]


def test_metrics_are_scraped_while_it_works(here: Path) -> None:
    lines(
        here / "t.jsonl",
        [
            {"foreignID": "plain", "object": {"grams": 1}},
            {"foreignID": "once", "object": {"grams": 1, "fail": "once"}},
            {"foreignID": "bomb", "object": {"grams": 1, "fail": "for good"}},
        ],
    )
    with serving("--trigger", "t.jsonl", cwd=here) as (process, url):
        assert url.startswith("http://127.0.0.1:")
        moved = ("step", "moved", "Weighed", "parcels")
        until(lambda: samples(url).get("stepwell_attempts_total", {}).get(moved) == 2, "both parcels")
        found = samples(url)
        assert found["stepwell_attempts_total"]["step", "failed", "New", "parcels"] == 2
        assert found["stepwell_attempt_errors_total"] == {
            ("ConnectionError", "New", "parcels"): 1,
            ("PermanentError", "New", "parcels"): 1,
        }
        assert found["stepwell_run_state_changes_total"]["Running", "Completed", "parcels"] == 2
        assert found["stepwell_loops_running"] == {("dispatcher",): 1, ("keeper",): 1, ("connector",): 1}
        assert found["stepwell_commit_batch_size_sum"][()] >= 6
        assert asked(f"{url}/healthz") == (200, "ok\n")
        assert asked(f"{url}/readyz") == (200, "ok\n")
        assert asked(url)[0] == 404
        assert asked(f"{url}/metrics", method="POST")[0] == 405
        assert asked(f"{url}/metrics", method="HEAD") == (200, "")
        ended = stopped(process)
    assert ended.code == 0
    with serving(cwd=here) as (_, url):
        until(lambda: "stepwell_runs" in samples(url), "the first count")
        found = samples(url)
        assert found["stepwell_runs"]["Completed", "Sent", "parcels"] == 2
        assert found["stepwell_runs_paused"] == {("PermanentError", "parcels"): 1, ("none", "parcels"): 0}


def test_it_listens_on_the_loopback_unless_told_otherwise(here: Path) -> None:
    with serving(cwd=here) as (_, url), pytest.raises(urllib.error.URLError, match="refused"):
        asked(url.replace("127.0.0.1", "127.0.0.2"))
    with serving(cwd=here, where="127.0.0.2:0") as (_, url):
        assert url.startswith("http://127.0.0.2:")
        assert asked(f"{url}/healthz")[0] == 200


def sockets_of(pid: int) -> set[str]:
    """What a process holds open that is a socket, each as ``socket:[INODE]``; it may close files meanwhile."""
    held = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):
            held.add(link.readlink().name)
    return {name for name in held if name.startswith("socket:")}


def test_nothing_listens_unless_it_is_asked_for(here: Path) -> None:
    with running("dev", "-f", "parcel_flow:wf", cwd=here) as process:
        until((here / "stepwell.db").exists, "the store")
        sockets = sockets_of(process.pid)
        listening = [row.split() for row in Path("/proc/net/tcp").read_text("ascii").splitlines()[1:]]
        inodes = {f"socket:[{row[9]}]" for row in listening if row[3] == "0A"}
        assert sockets & inodes == set()
        assert stopped(process).err == "stopping: running handlers may finish (again to stop at once)\n"


def test_an_address_that_is_taken_is_told(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = ran("dev", "-f", "parcel_flow:wf", "--metrics", str(port), cwd=here)
    assert ended.code == 1
    assert re.fullmatch(rf"error: 127\.0\.0\.1:{port} cannot be listened on: .*in use.*\n", ended.err)


@pytest.mark.parametrize("given", ["", "x", "70000", "::1:80", "127.0.0.1:", "-1", "٣"])
def test_an_address_that_is_none_is_wrong_usage(here: Path, given: str) -> None:
    ended = ran("dev", "-f", "parcel_flow:wf", f"--metrics={given}", cwd=here)
    assert ended.code == 2
    assert ended.err == f"error: --metrics: {given!r} must be [HOST:]PORT, with a port from 0 to 65535\n"


def test_without_the_extra_it_says_what_to_install(here: Path) -> None:
    code = "import sys; sys.modules['prometheus_client'] = None; import stepwell.__main__ as m; m.main()"
    args = [sys.executable, "-c", code, "dev", "-f", "parcel_flow:wf", "--metrics", "0"]
    done = subprocess.run(  # noqa: S603  (our own command)
        args, cwd=here, env=environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "error: --metrics: prometheus-client is not installed: pip install 'stepwell[metrics]'\n"


TALKS = """
import logging
from enum import StrEnum
from typing import Literal
from pydantic import BaseModel
from stepwell import Directive, PermanentError, Run, Workflow
class S(StrEnum):
    NEW = "New"
    WAIT = "Wait"
    DONE = "Done"
class Order(BaseModel):
    card: str
    how: str = ""
wf = Workflow("orders", object=Order, status=S, start=S.NEW)
@wf.step(S.NEW)
async def charge(run: Run[Order]) -> Literal[S.WAIT] | Directive:
    if run.object.how == "fails":
        raise PermanentError("card " + run.object.card)
    run.log.info("charged\\n\\u2028%s", "3 euros", extra={"amount": 3, "order": run.object, "action": "charged"})
    try:
        raise ValueError(run.object.card)
    except ValueError:
        logging.getLogger("bank").exception("the bank is odd")
    logging.getLogger("bank").warning("%d fits not", "a word")
    run.object.how = "changed"
    return run.skip()
@wf.callback(S.WAIT)
async def said(run: Run[Order], word: str) -> Literal[S.DONE]:
    return S.DONE
"""


def logged(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_every_line_of_json_logs_parses_and_none_holds_a_payload(here: Path) -> None:
    (here / "talks.py").write_text(TALKS)
    lines(
        here / "t.jsonl",
        [
            {"foreignID": "1001", "object": {"card": SECRET}},
            {"foreignID": "1002", "object": {"card": SECRET, "how": "fails"}},
            {"foreignID": "1003", "object": {"card": 7}},
        ],
    )
    args = ("dev", "-f", "talks:wf", "--trigger", "t.jsonl", "--log-format", "json", "--metrics", "0")
    ended = ran(*args, "--until-idle", cwd=here)
    assert ended.code == 1
    assert SECRET not in ended.err
    records = logged(ended.err)
    assert [record for record in records if not {"time", "level", "logger", "action", "message"} <= set(record)] == []
    by_action = {record["action"]: record for record in records}
    assert set(by_action) == {"metrics_served", "trigger_refused", "charged", "log", "skip_dropped_changes"}
    ids = {"workflow": "orders", "status": "New", "foreign_id": "1001", "version": 1, "attempt": 1}
    for action in ("charged", "skip_dropped_changes"):
        assert {key: by_action[action][key] for key in ids} == ids
        assert re.fullmatch(r"[0-9a-f-]{36}", by_action[action]["run"])
    assert by_action["charged"]["message"] == "charged\n\u20283 euros"
    assert (by_action["charged"]["amount"], by_action["charged"]["order"]) == (3, "<Order>")
    assert by_action["trigger_refused"]["message"].startswith("t.jsonl:3: card: ")
    bank = [record for record in records if record["logger"] == "bank"]
    assert [(record["level"], record["message"]) for record in bank] == [
        ("error", "the bank is odd"),
        ("warning", "%d fits not"),
    ]
    assert bank[0]["error"] == "ValueError"
    assert re.fullmatch(r"talks\.py:\d+ charge", bank[0]["trace"][-1])


def test_json_logs_tell_a_stop_and_a_failure_too(here: Path) -> None:
    with running("dev", "-f", "parcel_flow:wf", "--log-format", "json", cwd=here) as process:
        until((here / "stepwell.db").exists, "the store")
        second = ran("dev", "-f", "parcel_flow:wf", "--log-format", "json", cwd=here)
        [failed] = logged(second.err)
        assert (second.code, failed["action"], failed["error"]) == (3, "failed", "StoreRefusedError")
        assert f"in use by the engine in process {process.pid}" in failed["message"]
        ended = stopped(process, signal.SIGTERM)
    assert [record["action"] for record in logged(ended.err)] == ["stopping"]
    wrong = ran("dev", "-f", "parcel_flow:wf", "--topic", "no", "--log-format", "json", cwd=here)
    [usage] = logged(wrong.err)
    assert (wrong.code, usage["level"], usage["message"]) == (2, "error", "--topic: 'no' must be NAME=FILE")


def test_lines_for_people_hold_no_payload_either(here: Path) -> None:
    (here / "talks.py").write_text(TALKS)
    lines(here / "t.jsonl", [{"foreignID": "1001", "object": {"card": SECRET}}])
    ended = ran("dev", "-f", "talks:wf", "--trigger", "t.jsonl", "--until-idle", "--log-format", "text", cwd=here)
    assert ended.code == 0, "a log call that is wrong fails no handler"
    charged, *others = ended.err.splitlines()
    assert re.fullmatch(
        r"info: charged 3 euros run=\S{36} foreign_id=1001 workflow=orders status=New version=1 attempt=1"
        r" amount=3 order=<Order> action=charged",
        charged,
    )
    assert others[:2] == ["error: the bank is odd stepwell=bank", "warning: %d fits not stepwell=bank"]
    assert SECRET not in ended.err
