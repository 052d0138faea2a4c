from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import termios
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import asyncpg
import pytest
from tests.cli.support import (
    COMMAND,
    FLOWS,
    PATIENCE,
    Ended,
    database_of,
    environment,
    lines,
    ran,
    running,
    stopped,
    until,
)
from tests.cluster.postgres import Server

from stepwell.adapters.postgres import EngineLock


@pytest.fixture
def here(tmp_path: Path) -> Path:
    shutil.copy(FLOWS / "parcel_flow.py", tmp_path)
    shutil.copy(FLOWS / "parcels.yaml", tmp_path)
    return tmp_path


@pytest.fixture(params=["file", "database"])
def anywhere(request: pytest.FixtureRequest, here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Like ``here``, with a file or a database to keep runs in; which of them, the environment says."""
    if request.param == "file":
        yield here
        return
    with database_of(request.getfixturevalue("postgres")) as dsn:
        monkeypatch.setenv("STEPWELL_DSN", dsn)
        yield here


NO_PARCELS = ("--topic", "parcels.arrived=none.jsonl")
"""A database has no topics of its own."""


def listed(here: Path, *args: str) -> list[dict[str, object]]:
    ended = ran("runs", "list", "-o", "json", *args, cwd=here)
    assert ended.code == 0, ended.err
    runs: list[dict[str, object]] = json.loads(ended.out)["runs"]
    return runs


def known(here: Path) -> list[dict[str, object]]:
    """As ``listed``; a store that is not there yet has none."""
    return [] if ran("runs", "list", cwd=here).code else listed(here)


def test_until_idle_ends_with_figures_that_add_up(anywhere: Path) -> None:
    lines(
        anywhere / "t.jsonl",
        [
            {"foreignID": "plain", "object": {"grams": 1}},
            {"foreignID": "once", "object": {"grams": 1, "fail": "once"}},
            {"foreignID": "asks", "object": {"grams": 1, "ask": True}},
            {"foreignID": "kept", "object": {"grams": 1}, "start": "Kept"},
            {"foreignID": "late", "object": {"grams": 1}, "start": "Asking", "requestID": "r-1", "workflow": "parcels"},
        ],
    )
    ended = ran("dev", "-f", "parcel_flow:wf", *NO_PARCELS, "--trigger", "t.jsonl", "--until-idle", cwd=anywhere)
    assert ended.code == 0, ended.err
    triggers, totals = (line[10:] for line in ended.out.splitlines()[-2:])
    assert triggers == "5 lines = 5 started + 0 repeated + 0 busy + 0 bad"
    assert totals == "5 runs = 3 completed + 0 cancelled + 0 paused + 2 waiting"
    assert ended.err == ""
    assert {str(run["foreignID"]): run["status"] for run in listed(anywhere)} == {
        "plain": "Sent",
        "once": "Sent",
        "asks": "Asking",
        "kept": "Kept",
        "late": "Asking",
    }


def test_a_run_that_errors_paused_is_told_and_decides_the_exit_code(anywhere: Path) -> None:
    lines(anywhere / "t.jsonl", [{"foreignID": "bomb", "object": {"grams": 1, "fail": "for good"}}])
    args = ("dev", "-f", "parcel_flow:wf", *NO_PARCELS, "--trigger", "t.jsonl", "--until-idle")
    ended = ran(*args, cwd=anywhere)
    assert ended.code == 1
    assert re.search(
        r"^\S+  paused      parcels/bomb in New: PermanentError: .*the parcel .*ticks$", ended.out, re.MULTILINE
    )
    assert "\x1b" not in ended.out
    assert ended.out.endswith("1 runs = 0 completed + 0 cancelled + 1 paused + 0 waiting (1 paused by errors)\n")
    again = ran(*args, "-o", "json", cwd=anywhere)
    assert again.code == 1
    assert (again.summary["pausedByErrors"], again.summary["triggers"]["repeated"]) == (1, 1)
    assert not [event for event in again.events() if event["event"] == "paused"], "it was paused before: no news"


def test_every_bad_line_is_told_by_its_number_and_the_good_ones_start(here: Path) -> None:
    good = b'{"foreignID": "good", "object": {"grams": 1}}'
    texts = [
        good,
        b"{not json}",
        b"",
        b"[1]",
        b'{"foreignID": 7, "object": {}}',
        b'{"foreignID": "a", "object": {"grams": -1}}',
        b'{"foreignID": "a", "object": {"grams": NaN}}',
        b'{"foreignID": "a", "object": {"grams": 1}, "start": "Nowhere"}',
        b'{"foreignID": "a", "object": {"grams": 1}, "workflow": "other"}',
        b'{"foreignID": "a", "objekt": {"grams": 1}}',
        b'{"foreignID": "", "object": {"grams": 1}}',
        b'{"foreignID": "\xff", "object": {"grams": 1}}',
        b'{"foreignID": "a", "object": {"grams": 1}, "requestID": ""}',
        b'{"foreignID": "a", "object": {"grams": 1, "fail": "' + b"x" * 300_000 + b'"}}',
        good.replace(b"good", b"last"),
    ]
    (here / "t.jsonl").write_bytes(b"\n".join(texts))
    ended = ran("dev", "-f", "parcel_flow:wf", "--trigger", "t.jsonl", "--until-idle", cwd=here)
    assert ended.code == 1
    assert ended.err.splitlines() == [
        "error: t.jsonl:2: is not JSON: Expecting property name enclosed in double quotes (column 2)",
        "error: t.jsonl:4: must be a JSON object with foreignID and object",
        "error: t.jsonl:5: foreignID: must be a string",
        "error: t.jsonl:6: grams: Input should be greater than or equal to 0",
        "error: t.jsonl:7: is not JSON: NaN is not JSON",
        "error: t.jsonl:8: start: 'Nowhere' is not a status of workflow 'parcels'",
        "error: t.jsonl:9: workflow: 'other' is not one of parcels",
        "error: t.jsonl:10: objekt: unknown field; there are foreignID, object, start, workflow, requestID",
        "error: t.jsonl:11: foreign_id: has 0 characters; it must have 1 to 253",
        "error: t.jsonl:12: is not UTF-8 (byte 15)",
        "error: t.jsonl:13: requestID: must be a string that is not empty",
        "error: t.jsonl:14: is longer than 278528 bytes",
    ]
    assert "14 lines = 2 started + 0 repeated + 0 busy + 12 bad" in ended.out
    assert {run["foreignID"] for run in listed(here)} == {"good", "last"}


def test_the_same_file_starts_nothing_twice_and_an_edited_line_is_a_new_one(anywhere: Path) -> None:
    args = ("dev", "-f", "parcel_flow:wf", *NO_PARCELS, "--trigger", "t.jsonl", "--until-idle", "-o", "json")
    rows = [{"foreignID": str(n), "object": {"grams": n}} for n in range(600)]
    lines(anywhere / "t.jsonl", rows)
    first = ran(*args, cwd=anywhere)
    assert (first.code, first.summary["triggers"]["started"], first.summary["completed"]) == (0, 600, 600)
    rows[17]["object"] = {"grams": 99}
    rows.append({"foreignID": "600", "object": {"grams": 1}})
    lines(anywhere / "t.jsonl", rows)
    second = ran(*args, cwd=anywhere)
    assert (second.summary["triggers"]["started"], second.summary["triggers"]["repeated"]) == (2, 599)
    assert second.summary["runs"] == 602


def test_a_taken_foreign_id_is_told_again_and_again(here: Path) -> None:
    rows = [{"foreignID": "a", "object": {"grams": 1, "ask": True}}, {"foreignID": "a", "object": {"grams": 2}}]
    lines(here / "t.jsonl", rows)
    args = ("dev", "-f", "parcel_flow:wf", "--trigger", "t.jsonl", "--until-idle")
    for _ in range(2):
        ended = ran(*args, cwd=here)
        assert ended.code == 1
        assert re.fullmatch(r"error: t.jsonl:2: foreign id 'a' is taken by the unfinished run \S+\n", ended.err)


def test_run_documents_start_once_and_carry_out_their_wish(anywhere: Path) -> None:
    for _ in range(2):
        ended = ran("dev", "-f", "parcels.yaml", "--until-idle", "-o", "json", cwd=anywhere)
        assert ended.code == 0, ended.err
        assert (ended.summary["completed"], ended.summary["waiting"], ended.summary["paused"]) == (1, 1, 1)
    found = {str(run["foreignID"]): run for run in listed(anywhere)}
    assert {name: (run["state"], run["status"]) for name, run in found.items()} == {
        "first": ("Completed", "Light"),
        "heavy": ("Running", "Heavy"),
        "third": ("Paused", "New"),
    }
    assert found["third"]["reason"] == "not before Monday"
    assert ran("runs", "resume", "third", cwd=anywhere).code == 0
    assert ran("dev", "-f", "parcels.yaml", "--until-idle", cwd=anywhere).code == 0
    assert listed(anywhere, "--foreign-id", "third")[0]["state"] == "Completed", "the wish is carried out once"


def test_a_topic_is_read_from_a_file_that_grows(anywhere: Path) -> None:
    arrivals = anywhere / "arrivals.jsonl"
    arrivals.write_text('{"grams": 1}\nnot a parcel\n')
    args = ("dev", "-f", "parcel_flow:wf", "--topic", "parcels.arrived=arrivals.jsonl")
    with running(*args, "-o", "json", cwd=anywhere) as process:
        until(lambda: len(known(anywhere)) == 1, "the first parcel")
        with arrivals.open("a") as file:
            file.write('{"grams": 2}\n')
        until(lambda: len(listed(anywhere)) == 2, "the second parcel")
        ended = stopped(process)
    assert ended.code == 0
    [letter] = [event for event in ended.events() if event["event"] == "deadLetter"]
    assert (letter["topic"], letter["offset"], letter["connector"]) == ("parcels.arrived", 13, "arrivals")
    with arrivals.open("a") as file:
        file.write('{"grams": 3}\n')
    idle = ran(*args, "--until-idle", "-o", "json", cwd=anywhere)
    assert (idle.code, idle.summary["completed"]) == (0, 3), "until idle includes what stands in the file"


def test_two_engines_on_one_file_are_refused_by_name(here: Path) -> None:
    with running("dev", "-f", "parcel_flow:wf", cwd=here) as process:
        until((here / "stepwell.db").exists, "the store")
        second = ran("dev", "-f", "parcel_flow:wf", cwd=here)
        assert second.code == 3
        assert f"in use by the engine in process {process.pid}" in second.err
        assert stopped(process, signal.SIGINT).code == 0


def test_two_engines_on_one_database_are_refused_by_name(here: Path, postgres: Server) -> None:
    flow = ("-f", "parcel_flow:wf", *NO_PARCELS)
    with database_of(postgres) as dsn, running("dev", *flow, "--dsn", dsn, cwd=here) as process:
        until(lambda: ran("workflows", "suspend", "parcels", "--dsn", dsn, cwd=here).code == 0, "the workflow")
        second = ran("dev", *flow, "--dsn", dsn, cwd=here)
        assert second.code == 3
        assert re.search(rf"default is in use by stepwell dev \S+:{process.pid}: stop that one first", second.err)
        other = ran("dev", *flow, "--dsn", dsn, "--namespace", "other", "--until-idle", cwd=here)
        assert other.code == 0, other.err
        assert stopped(process, signal.SIGINT).code == 0


def test_a_database_has_no_topics_of_its_own(here: Path, postgres: Server) -> None:
    with database_of(postgres) as dsn:
        ended = ran("dev", "-f", "parcel_flow:wf", "--dsn", dsn, cwd=here)
    assert ended.code == 2
    assert ended.err == (
        "error: workflow parcels: connector arrivals: 'parcels.arrived': no broker is named:"
        " name one with --kafka, or read a file with --topic parcels.arrived=FILE\n"
    )


def test_an_engine_that_loses_its_database_to_another_one_says_so_and_ends(here: Path, postgres: Server) -> None:
    flow = ("-f", "parcel_flow:wf", *NO_PARCELS)
    with database_of(postgres) as dsn, running("dev", *flow, "--dsn", dsn, cwd=here) as process:
        until(lambda: ran("workflows", "suspend", "parcels", "--dsn", dsn, cwd=here).code == 0, "the workflow")
        asyncio.run(overtaken(dsn, process))
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 3, out
    assert "default is in use by stepwell dev" in err


async def overtaken(dsn: str, process: subprocess.Popen[str]) -> None:
    """Somebody takes the lock of an engine whose connection was cut."""
    admin = await asyncpg.connect(dsn)
    process.send_signal(signal.SIGSTOP)
    await admin.fetch(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND application_name LIKE 'stepwell dev %'"
    )
    lock = await EngineLock.acquire(dsn, namespace="default")
    process.send_signal(signal.SIGCONT)
    deadline = time.monotonic() + PATIENCE
    while process.poll() is None:
        assert time.monotonic() < deadline, "the engine goes on"
        await asyncio.sleep(0.05)
    await lock.release()
    await admin.close()


SLOW = """
import time, asyncio
from enum import StrEnum
from typing import Any, Literal
from pydantic import BaseModel
from stepwell import Run, Workflow
class S(StrEnum):
    NEW = "New"
    DONE = "Done"
class O(BaseModel):
    how: str
wf = Workflow("slow", object=O, status=S, start=S.NEW)
@wf.step(S.NEW)
async def work(run: Run[O]) -> Literal[S.DONE]:
    open("begun", "w").close()
    if run.object.how == "hang":
        await asyncio.sleep(3600)
    await asyncio.sleep(0.5)
    run.object.how = "finished"
    return S.DONE
"""


def test_a_signal_lets_the_running_handler_finish(anywhere: Path) -> None:
    (anywhere / "slow_flow.py").write_text(SLOW)
    lines(anywhere / "t.jsonl", [{"foreignID": "1", "object": {"how": "slowly"}}])
    with running("dev", "-f", "slow_flow:wf", "--trigger", "t.jsonl", cwd=anywhere) as process:
        until((anywhere / "begun").exists, "the handler")
        ended = stopped(process)
    assert ended.code == 0
    assert ended.err == "stopping: running handlers may finish (again to stop at once)\n"
    assert listed(anywhere)[0]["state"] == "Completed"


def test_a_second_signal_ends_at_once_and_loses_nothing(anywhere: Path) -> None:
    (anywhere / "slow_flow.py").write_text(SLOW)
    lines(anywhere / "t.jsonl", [{"foreignID": "1", "object": {"how": "hang"}}])
    with running("dev", "-f", "slow_flow:wf", "--trigger", "t.jsonl", cwd=anywhere) as process:
        until((anywhere / "begun").exists, "the handler")
        process.send_signal(signal.SIGTERM)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("stopping")
        process.send_signal(signal.SIGTERM)
        assert process.wait(5) == 130
    (anywhere / "slow_flow.py").write_text(SLOW.replace("3600", "0"))
    again = ran("dev", "-f", "slow_flow:wf", "--trigger", "t.jsonl", "--until-idle", "-o", "json", cwd=anywhere)
    assert (again.code, again.summary["completed"], again.summary["triggers"]["repeated"]) == (0, 1, 1)


HANGING = """
import time
from datetime import timedelta
from enum import StrEnum
from typing import Literal
from pydantic import BaseModel
from stepwell import Options, Run, Workflow
class S(StrEnum):
    NEW = "New"
    DONE = "Done"
class O(BaseModel):
    pass
short = Options(attempt_timeout=timedelta(milliseconds=100), pause_after_errors=1)
wf = Workflow("hangs", object=O, status=S, start=S.NEW, options=short)
@wf.step(S.NEW)
def work(run: Run[O]) -> Literal[S.DONE]:
    time.sleep(3600)
    return S.DONE
"""


def test_a_thread_that_never_returns_does_not_keep_the_process(here: Path) -> None:
    (here / "hanging_flow.py").write_text(HANGING)
    lines(here / "t.jsonl", [{"foreignID": "1"}])
    ended = ran("dev", "-f", "hanging_flow:wf", "--trigger", "t.jsonl", "--until-idle", "-o", "json", cwd=here)
    assert (ended.code, ended.summary["pausedByErrors"]) == (1, 1)


CALLS_OUT = """
apiVersion: stepwell.dev/v1alpha1
kind: Workflow
metadata: {name: calls}
spec:
  start: New
  statuses:
  - name: New
    step:
      handler: {http: {url: "http://127.0.0.1:%d/pick"}}
      to: [Done]
  - {name: Done, terminal: true}
---
apiVersion: stepwell.dev/v1alpha1
kind: Run
metadata: {name: one}
spec: {workflowRef: {name: calls}}
"""


def test_http_handlers_may_call_this_machine(here: Path) -> None:
    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b'{"status": "Done", "object": {"picked": true}}'
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the standard library's name)
            pass

    with HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            (here / "calls.yaml").write_text(CALLS_OUT % server.server_port)
            ended = ran("dev", "-f", "calls.yaml", "--until-idle", "-o", "json", cwd=here)
        finally:
            server.shutdown()
            thread.join()
    assert (ended.code, ended.summary["completed"]) == (0, 1), ended.err


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("-f", "parcel_flow:wf", "--topic", "nothing"), "error: --topic: 'nothing' must be NAME=FILE"),
        (("-f", "parcel_flow:wf", "--trigger", "none.jsonl"), "error: --trigger: there is no file none.jsonl"),
        (("-f", "parcel_flow:wf", "--store", "no/such/dir/s.db"), None),
        (
            ("-f", "parcel_flow:wf", "-f", "parcel_flow:wf"),
            "error: metadata.name: 'parcels': two workflows have this name",
        ),
        (("-f", "parcel_flow:S"), "error: parcel_flow:S: is EnumType, not a stepwell.Workflow"),
        (("-f", "broken.yaml"), "error: broken.yaml:3: metadata.name: 'UPPER': must be 1 to 50"),
    ],
)
def test_what_cannot_be_run_is_told_before_anything_runs(here: Path, args: tuple[str, ...], told: str | None) -> None:
    (here / "broken.yaml").write_text(
        (here / "parcels.yaml").read_text("utf-8").replace("name: routes}", "name: UPPER}")
    )
    ended = ran("dev", *args, cwd=here)
    assert ended.code == (3 if "--store" in args else 2)
    assert told is None or ended.err.startswith(told)
    assert not (here / "stepwell.db").exists()


def test_a_handler_that_cannot_be_imported_is_told_with_its_line(here: Path) -> None:
    text = (here / "parcels.yaml").read_text("utf-8")
    rules = '{cel: {rules: [{when: "object.grams > 1000", to: Heavy}, {to: Light}]}}'
    (here / "parcels.yaml").write_text(text.replace(rules, '{python: "parcel_flow:gone"}'))
    ended = ran("dev", "-f", "parcels.yaml", cwd=here)
    assert ended.code == 2
    assert ended.err.startswith("error: parcels.yaml:13: spec.statuses[0].step.handler.python: parcel_flow:gone: ")


def on_a_terminal(here: Path, *args: str, seen: tuple[str, ...]) -> Ended:
    """Run in a pseudo terminal until all of these were drawn, then stop it."""
    primary, secondary = pty.openpty()
    fcntl.ioctl(secondary, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 160, 0, 0))
    env = {**environment(), "TERM": "xterm-256color"}
    env.pop("COLUMNS")
    with subprocess.Popen(  # noqa: S603  (our own command)
        [*COMMAND, *args], cwd=here, env=env, stdin=secondary, stdout=secondary, stderr=subprocess.PIPE, text=True
    ) as process:
        os.close(secondary)
        drawn, deadline = "", time.monotonic() + PATIENCE
        asked = False
        while time.monotonic() < deadline:
            if not select.select([primary], [], [], 0.1)[0]:
                continue
            try:
                drawn += os.read(primary, 65536).decode("utf-8", "replace")
            except OSError:
                break
            if not asked and all(text in drawn for text in seen):
                process.send_signal(signal.SIGTERM)
                asked = True
        os.close(primary)
        if not asked:
            process.kill()
        assert process.stderr is not None
        told = process.stderr.read()
    return Ended(code=process.returncode, out=drawn, err=told)


def test_a_terminal_shows_a_live_table_and_what_is_stuck(here: Path) -> None:
    lines(
        here / "t.jsonl",
        [
            {"foreignID": "bomb", "object": {"grams": 1, "fail": "for good"}},
            {"foreignID": "asks", "object": {"grams": 1, "ask": True}},
        ],
    )
    ended = on_a_terminal(
        here, "dev", "-f", "parcel_flow:wf", "--trigger", "t.jsonl", seen=("Asking", "PermanentError: the parcel")
    )
    assert ended.code == 0, ended.err
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ended.out)
    assert "stepwell dev  parcels  stepwell.db" in text
    assert re.search(r"WORKFLOW +STATUS +RUNNING +PUT OFF +PAUSED +ENDED +OLDEST", text)
    assert re.search(r"parcels +Asking +1 +- +- +-", text)
    assert re.search(r"parcels +New +- +- +1 +-", text)
    assert re.search(r"Not going on", text)
    assert re.search(r"parcels +bomb +New +in (59m\d\ds|60m|1h|59m) +PermanentError", text)
    assert "\x1b[31m" not in ended.out.partition("ticks")[0][-60:], "a handler's text reached the terminal as it was"
    assert text.rstrip().endswith("2 runs = 0 completed + 0 cancelled + 1 paused + 1 waiting (1 paused by errors)")
