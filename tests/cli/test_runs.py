from __future__ import annotations

import json
import re
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest
from tests.cli.support import FLOWS, Ended, Kept, call, database_of, ran, running, stopped, until

ASKS = '{"grams": 5, "ask": true}'


@pytest.fixture(scope="module", params=["file", "database"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    """One store, with the engine running on it in another process all the while."""
    here = tmp_path_factory.mktemp("runs")
    for name in ("parcel_flow.py", "parcels.yaml"):
        shutil.copy(FLOWS / name, here)
    with ExitStack() as stack:
        kept = Kept(here=here, args=("--store", here / "stepwell.db"))
        if request.param == "database":
            dsn = stack.enter_context(database_of(request.getfixturevalue("postgres")))
            kept = Kept(here=here, args=("--dsn", dsn, "--namespace", "post"), dsn=dsn)
        # A database has no topics of its own, and this one is empty either way.
        topic = ("--topic", "parcels.arrived=arrivals.jsonl")
        served = ("-f", "parcel_flow:wf", "-f", "parcels.yaml")
        process = stack.enter_context(running("dev", *served, *topic, *kept.args, cwd=here))
        until(lambda: process.poll() is not None or known(kept), "both workflows")
        assert process.poll() is None
        yield kept


def known(store: Kept) -> bool:
    result = call("workflows", "list", *store.args, "-o", "json")
    return result.exit_code == 0 and len(json.loads(result.stdout)["workflows"]) == 2


def data(store: Kept, *args: str) -> Any:
    result = call("runs", *args, *store.args, "-o", "json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def test_a_run_from_its_trigger_to_its_end(store: Kept) -> None:
    begun = call("runs", "trigger", "walk", "-w", "parcels", "--object", ASKS, "--wait-for", "Asking", *store.args)
    assert re.fullmatch(r"started parcels/walk \(\S{36}\): Running, Asking\n", begun.stdout), begun.stderr
    shown = data(store, "show", "walk")
    assert (shown["state"], shown["status"], shown["object"]["grams"]) == ("Running", "Asking", 5)
    [timer] = shown["timers"]
    assert (timer["name"], timer["attempts"]) == ("expire", 0)
    table = call("runs", "show", "walk", "-w", "parcels", *store.args).stdout.partition("Timers:\n")[2]
    assert [line[:6] for line in table.splitlines()] == ["  NAME", "  expi"]
    assert re.fullmatch(r"waits for callback said or timeout expire in (1h|60m|59m\d*s?) \(.*\)", shown["why"])

    answer = call(
        "runs", "callback", "walk", "--name", "said", "--payload", '{"send": true}', "--wait", "20s", *store.args
    )
    assert answer.exit_code == 0, answer.stderr
    assert answer.stdout.startswith("called back parcels/walk (")
    assert data(store, "wait", "walk", "--for", "Sent", "--timeout", "1s")["state"] == "Completed"
    history = data(store, "history", "walk")["history"]
    assert [(e["version"], e["to"], e["actor"]) for e in history] == [
        (1, "New", "cli"),
        (2, "Weighed", "step"),
        (3, "Asking", "step"),
        (4, "Sent", "callback/said"),
    ]
    assert all(e["dwellSeconds"] >= 0 for e in history[:-1])
    assert history[-1]["dwellSeconds"] is None

    assert call("runs", "delete-data", "walk", "--reason", "asked", *store.args).exit_code == 0
    assert data(store, "wait", "walk", "--for", "DataDeleted", "--timeout", "20s")["object"] == {}


def test_pause_resume_cancel_several_at_once(store: Kept) -> None:
    for name in ("p1", "p2"):
        data(store, "trigger", name, "-w", "parcels", "--object", ASKS, "--wait-for", "status=Asking")
    paused = call("runs", "pause", "p1", "nobody", "p2", "nothing", "--reason", "fraud check", *store.args)
    assert paused.exit_code == 1
    assert [line.split(" ")[:2] for line in paused.stdout.splitlines()] == [
        ["paused", "parcels/p1"],
        ["paused", "parcels/p2"],
    ]
    assert paused.stderr.splitlines() == [
        "error: workflow 'parcels, routes' has no run 'nobody'",
        "error: workflow 'parcels, routes' has no run 'nothing'",
    ]
    assert data(store, "show", "p1")["why"] == "is paused: Requested: fraud check"
    assert {r["foreignID"] for r in data(store, "list", "--state", "paused", "-w", "parcels")["runs"]} == {"p1", "p2"}
    assert [r["state"] for r in data(store, "resume", "p1", "p2")["runs"]] == ["Running", "Running"]
    assert [r["state"] for r in data(store, "cancel", "p1", "p2")["runs"]] == ["Cancelled", "Cancelled"]
    again = call("runs", "resume", "p1", *store.args)
    assert again.exit_code == 1
    assert re.fullmatch(r"error: run \S{36} is Cancelled: it cannot become Running\n", again.stderr)


def test_a_run_that_errors_paused_is_retried(store: Kept) -> None:
    bomb = '{"grams": 1, "fail": "for good"}'
    run = data(store, "trigger", "bomb", "-w", "parcels", "--object", bomb, "--wait-for", "Paused")
    assert run["pauseReason"] == "PermanentError"
    shown = call("runs", "show", "bomb", *store.args).stdout
    assert "Why:         is paused: PermanentError: " in shown
    assert "; tried again in " in shown
    assert "\x1b" not in shown
    assert call("runs", "retry", "bomb", *store.args).exit_code == 0
    until(lambda: data(store, "show", "bomb")["version"] == 4, "the second pause")
    assert call("runs", "cancel", "bomb", *store.args).exit_code == 0


def test_trigger_is_idempotent_by_request_id(store: Kept) -> None:
    args = ("trigger", "again", "-w", "parcels", "--object", ASKS)
    first = data(store, *args, "--request-id", "r1")
    assert data(store, *args, "--request-id", "r1")["runID"] == first["runID"]
    busy = call("runs", *args, *store.args)
    assert busy.exit_code == 1
    assert busy.stderr == (
        f"error: workflow 'parcels': foreign id 'again' is taken by the unfinished run {first['runID']}\n"
    )


def test_a_reference_is_a_foreign_id_unless_said_otherwise(store: Kept) -> None:
    real = data(store, "trigger", "plain", "-w", "parcels", "--object", ASKS)["runID"]
    decoy = data(store, "trigger", real, "-w", "parcels", "--object", ASKS)["runID"]
    assert data(store, "show", real)["runID"] == decoy
    assert data(store, "show", real, "--by-id")["runID"] == real
    assert call("runs", "show", "plain", "--by-id", *store.args).exit_code == 1


def test_a_foreign_id_of_two_workflows_needs_the_workflow(store: Kept) -> None:
    data(store, "trigger", "twice", "-w", "parcels", "--object", ASKS)
    data(store, "trigger", "twice", "-w", "routes", "--object", '{"grams": 5000}')
    both = call("runs", "show", "twice", *store.args)
    assert (both.exit_code, both.stderr) == (
        2,
        "error: --workflow is required: parcels, routes have a run with foreign id 'twice'\n",
    )
    assert data(store, "show", "twice", "-w", "routes")["workflow"] == "routes"
    assert call("runs", "show", "twice", "-w", "nope", *store.args).exit_code == 1


def test_lists_are_filtered_ordered_and_paged(store: Kept) -> None:
    ids = [
        data(store, "trigger", f"list-{n}", "-w", "routes", "--object", '{"grams": 5000}')["runID"] for n in range(5)
    ]
    late = data(store, "show", "list-3")["startedAt"]
    heavy = ("list", "-w", "routes", "--status", "Heavy")
    until(lambda: {r["runID"] for r in data(store, *heavy)["runs"]} >= set(ids), "all of them")
    first = data(store, "list", "-w", "routes", "--order", "oldest", "--created-after", late, "--limit", "1")
    assert [r["foreignID"] for r in first["runs"]] == ["list-4"]
    page = data(store, *heavy, "--limit", "2")
    assert [r["foreignID"] for r in page["runs"]] == ["list-4", "list-3"]
    assert [r["foreignID"] for r in data(store, *heavy, "--limit", "2", "--after", page["after"])["runs"]] == [
        "list-2",
        "list-1",
    ]
    assert data(store, "list", "--created-before", "1d")["runs"] == []
    assert data(store, "list", "--foreign-id", "list-0", "--created-after", "1h")["runs"][0]["runID"] == ids[0]
    table = call("runs", "list", "--foreign-id", "list-0", *store.args).stdout.splitlines()
    assert re.split(" {3,}", table[0])[:4] == ["WORKFLOW", "FOREIGN ID", "STATE", "STATUS"]
    assert re.split(" {3,}", table[1])[:4] == ["routes", "list-0", "Running", "Heavy"]


@pytest.mark.parametrize(
    ("args", "code", "told"),
    [
        (("list", "--state", "Sleeping"), 2, "--state: 'Sleeping' is not one of Initiated"),
        (("list", "--created-after", "yesterday"), 2, "--created-after: 'yesterday' must be a time such as"),
        (("list", "--after", "x"), 2, "--after: 'x' must be a run id"),
        (("list", "--order", "sideways"), 2, "Invalid value for '--order': 'sideways' is not one of"),
        (("trigger", "x", "-w", "parcels", "--object", "{"), 2, "--object: is not JSON: "),
        (("trigger", "x", "-w", "parcels", "--object", "[]"), 2, "object: must be a JSON object, not list"),
        (("trigger", "x", "-w", "parcels", "--object", '{"grams": NaN}'), 2, "--object: is not JSON: NaN"),
        (("trigger", "x", "-w", "parcels", "--object", "@none.json"), 2, "--object: none.json cannot be read"),
        (
            ("trigger", "x", "-w", "parcels", "--object", ASKS, "--start", "Nowhere"),
            2,
            "start: 'Nowhere' is not a status",
        ),
        (("trigger", "x", "--object", ASKS), 2, "--workflow is required where there is not exactly one"),
        (("trigger", "x", "-w", "nope", "--object", ASKS), 1, "no workflow 'nope' is known to this store"),
        (("show", "nobody"), 1, "workflow 'parcels, routes' has no run 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_told(store: Kept, args: tuple[str, ...], code: int, told: str) -> None:
    result = call("runs", *args, *store.args)
    assert (result.exit_code, result.stdout) == (code, "")
    assert result.stderr.startswith(f"error: {told}")
    assert len(result.stderr.splitlines()) == 1


def test_waits_end_in_time_and_tell_why(store: Kept) -> None:
    run = data(store, "trigger", "w", "-w", "parcels", "--object", ASKS, "--wait-for", "Asking")["runID"]
    late = call("runs", "wait", "w", "--for", "Completed", "--timeout", "150ms", *store.args)
    assert late.exit_code == 4
    assert re.fullmatch(rf"error: run {run}: not there after \S+ s: it is in Asking \(Running\)\n", late.stderr)
    unknown = call("runs", "wait", "w", "--for", "Askng", *store.args)
    assert unknown.exit_code == 2
    assert "neither a status of parcels nor a state" in unknown.stderr
    data(store, "cancel", "w")
    assert call("runs", "wait", "w", "--for", "Sent", *store.args).exit_code == 1, "it never can"


def test_control_c_ends_a_wait_and_leaves_the_run(store: Kept) -> None:
    asked = ("trigger", "left", "-w", "parcels", "--object", ASKS, "--wait-for", "Sent", *store.args)
    with running("runs", *asked, cwd=store.here) as process:
        until(lambda: call("runs", "show", "left", *store.args).exit_code == 0, "the run")
        ended = stopped(process, signal.SIGINT)
    assert (ended.code, ended.out, ended.err) == (130, "", "interrupted\n")
    assert data(store, "wait", "left", "--for", "Asking", "--timeout", "20s")["state"] == "Running"


def test_callbacks_that_are_refused(store: Kept) -> None:
    data(store, "trigger", "c", "-w", "parcels", "--object", ASKS, "--wait-for", "Asking")
    bad = call("runs", "callback", "c", "--name", "said", "--payload", '{"send": []}', "--wait", "20s", *store.args)
    assert bad.exit_code == 1
    assert "refused: BadPayload" in bad.stderr
    assert call("runs", "callback", "c", "--name", "sung", *store.args).exit_code == 1
    given = call("runs", "callback", "c", "--name", "said", "--payload", "-", *store.args, given='{"send": false}')
    assert given.exit_code == 0
    assert given.stdout.startswith("accepted ")
    assert data(store, "wait", "c", "--for", "Kept", "--timeout", "20s")["status"] == "Kept"


def test_suspend_stops_a_workflow_and_resume_goes_on(store: Kept) -> None:
    assert call("workflows", "suspend", "routes", *store.args).stdout == "suspended routes\n"
    data(store, "trigger", "held", "-w", "routes", "--object", '{"grams": 1}')
    shown = data(store, "show", "held")
    assert (shown["workflowSuspended"], shown["why"]) == (True, "workflow routes is suspended")
    listed = json.loads(call("workflows", "list", *store.args, "-o", "json").stdout)["workflows"]
    assert {row["name"]: row["suspended"] for row in listed} == {"parcels": False, "routes": True}
    assert call("workflows", "resume", "routes", *store.args).exit_code == 0
    assert data(store, "wait", "held", "--for", "Light", "--timeout", "20s")["state"] == "Completed"
    assert call("workflows", "suspend", "nope", *store.args).exit_code == 1


def test_processes_at_once_on_one_store_do_not_hinder_each_other(store: Kept) -> None:
    def start(number: int) -> Ended:
        args = ("trigger", f"many-{number}", "-w", "parcels", "--object", '{"grams": 1}', "--wait-for", "Sent")
        return ran("runs", *args, *store.args, cwd=store.here)

    with ThreadPoolExecutor(4) as pool:
        ended = list(pool.map(start, range(8)))
    assert [(one.code, one.err) for one in ended] == [(0, "")] * 8
