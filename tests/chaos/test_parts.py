"""What the rounds are made of: notes survive a killed process, plans repeat, and each fault's own promise is judged."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.chaos import effects
from tests.chaos.campaign import seeds_of, table
from tests.chaos.checker import Counts
from tests.chaos.effects import DIRECTORY, read_calls
from tests.chaos.evidence import Ask, Evidence, Span, Violation
from tests.chaos.faults import FAULTS
from tests.chaos.faults.handlers import AllFail, BadHandlers
from tests.chaos.faults.processes import ClockJumps, repeats_are_explained, taken_over
from tests.chaos.faults.servers import RowLocked, goes_on
from tests.chaos.flow import Order
from tests.chaos.load import Load, plans
from tests.chaos.marks import mark, owners_in
from tests.chaos.readout import found_of, owed_times
from tests.chaos.round import Result
from tests.chaos.story import changed, good
from tests.chaos.timeline import timeline

NOTES_AND_DIES = """
import os, signal
from types import SimpleNamespace
from tests.chaos.effects import noted
run = SimpleNamespace(id="r", status="New", version=1, attempt=1, idempotency_key="r/1")
with noted("step", run) as note:
    note.asks_for("child")
    note.to("Checked")
with noted("timeout", run, name="expire") as note:
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_handler_did_is_known_though_its_process_was_killed(tmp_path: Path) -> None:
    path = os.pathsep.join(sys.path)
    died = subprocess.run(  # noqa: S603  (the lines above)
        [sys.executable, "-c", NOTES_AND_DIES],
        env={**os.environ, "PYTHONPATH": path, DIRECTORY: str(tmp_path)},
        check=False,
        timeout=60,
    )

    whole, half = read_calls(tmp_path)

    assert died.returncode == -signal.SIGKILL
    assert (whole.kind, whole.key, whole.answer, whole.children) == ("step", "r/1", "to Checked", ("child",))
    assert whole.ended is not None
    assert whole.ended >= whole.began
    assert (half.kind, half.name, half.ended, half.answer) == ("timeout", "expire", None, "")


def test_a_seed_is_a_plan() -> None:
    load = Load(seconds=20, rate=10)

    assert plans(7, load) == plans(7, load) != plans(8, load)
    assert len({plan.owner for plan in plans(7, load)}) == 200


def test_a_load_has_everything_in_it() -> None:
    many = plans(1, Load(seconds=100, rate=10, poison=0.05))

    assert all(
        0 < sum(map(wanted, many)) < len(many)
        for wanted in (
            lambda plan: plan.foreign_id.startswith("hot"),
            lambda plan: plan.callback_after is not None,
            lambda plan: plan.pause_after is not None,
            lambda plan: plan.cancel_after is not None,
            lambda plan: plan.erase,
            lambda plan: plan.order.review,
            lambda plan: plan.order.child,
            lambda plan: plan.order.waits,
            lambda plan: plan.order.saves > 0,
            lambda plan: "raise" in str(plan.order.plan),
            lambda plan: "exit-always" in str(plan.order.plan),
        )
    )


def test_payloads_are_found_wherever_they_are() -> None:
    text = Order(mark=mark("7-aa"), text=mark("7-aa", "verdict")).model_dump_json()

    assert list(owners_in(text.encode())) == ["7-aa", "7-aa"]
    found = list(found_of({"table run": {"7-aa", "8-bb"}}, {"log 0": {"9-cc"}}, {"run-7": "7-aa"}))
    assert [(each.run_id, each.place) for each in found] == [("run-7", "table run"), ("", "log 0: 9-cc")]


def test_a_schedule_owes_every_full_minute() -> None:
    since, until = datetime(2026, 1, 1, 10, 0, 30, tzinfo=UTC), datetime(2026, 1, 1, 10, 3, tzinfo=UTC)

    assert sorted(planned.minute for planned in owed_times("minutely", since, until).times) == [1, 2, 3]
    assert not owed_times("minutely", since, since).times


def test_every_fault_of_the_list_is_there() -> None:
    listed = {f"F{number}" for number in (0, 1, *range(3, 11), *range(15, 18))}

    assert set(FAULTS) == listed
    assert all(fault.name == name and fault.title for name, fault in FAULTS.items())
    seeds = [seed for fault in FAULTS.values() for seed in seeds_of(fault, 30)]
    assert len(set(seeds)) == len(seeds)


def test_the_table_adds_up() -> None:
    counts = Counts(triggers=10, moves=50, calls=60, repeats=2)
    results = [
        Result(fault="F1", seed=seed, counts=counts, violations=found, seconds=1.0, measured={}, kept=None)
        for seed, found in [(1001, []), (1002, [Violation("P1", "r", "is lost")])]
    ]

    assert table(results).splitlines()[1].split()[-5:] == ["2", "20", "100", "4", "1"]


class Played(SimpleNamespace):
    """As much of a round as a judge looks at."""

    def __init__(self, name: str, **known: Any) -> None:
        super().__init__(**{"fault": SimpleNamespace(name=name), "measured": {}, "deadly": 0, **known})


def judged(verdict: Iterator[Violation]) -> list[str]:
    return [violation.what for violation in verdict]


def test_a_late_take_over_is_found() -> None:
    story = good()
    story.calls[:] = [call for call in story.calls if call.run_id != "run-5" or call.kind == "step"]
    changed(story.calls, lambda c: c.run_id == "run-5", began=316.0, ended=316.1)

    assert judged(taken_over(Played("F1"), story.evidence(), 299.0)) == [
        "was started 1.0 s behind it and begun after 17.0 s"
    ]
    assert judged(taken_over(Played("F1"), good().evidence(), 299.0)) == []


def test_a_handler_that_is_called_again_without_a_need_is_found() -> None:
    story = good()
    first = next(call for call in story.calls if call.run_id == "run-4")
    story.calls.append(replace(first, pid=8, began=first.began + 2, ended=first.began + 2.1))
    worker = SimpleNamespace(pid=first.pid, killed=None)
    played = Played("F1", fleet=SimpleNamespace(workers=[worker]))

    [found] = judged(repeats_are_explained(played, story.evidence()))
    assert "called again 2.00 s later, without a need" in found
    worker.killed = first.began + 1
    assert judged(repeats_are_explained(played, story.evidence())) == []
    worker.killed = first.began + 3
    assert judged(repeats_are_explained(played, story.evidence())) != []


def test_a_standstill_behind_an_outage_is_found() -> None:
    story = good()
    played = Played("F4", servers=SimpleNamespace(down=280.0, back=291.0))

    # The next thing that happens is run-5's first step.
    assert judged(goes_on(played, story.evidence(), 10.0)) == []
    assert judged(goes_on(played, story.evidence(), 5.0)) == ["nothing went on for 9.5 s after the server was back"]
    assert judged(goes_on(played, story.evidence(full=[Span(began=291, ended=295)]), 5.0)) == []


def test_only_what_came_meanwhile_shows_that_the_broker_works_again() -> None:
    story = good()
    played = Played("F5", servers=SimpleNamespace(down=199.9, back=201.0))
    seen: dict[bool, list[str]] = {
        through: judged(goes_on(played, story.evidence(), 5.0, through_kafka=through)) for through in (False, True)
    }

    assert seen[False] == []
    # run-4 came while it was down, and had its first step before it was back; the next first step is run-5's.
    assert seen[True] == ["nothing went on for 99.5 s after the server was back"]


def test_a_handler_that_ends_its_process_for_ever_is_found() -> None:
    story = good()
    step = next(call for call in story.calls if (call.run_id, call.version) == ("run-4", 1))
    dead = [replace(step, pid=pid, ended=None, answer="") for pid in (11, 12, 13)]
    evidence = story.evidence(calls=[*story.calls, *dead])
    played = Played("F10", poisoned={"run-4": "New"})

    assert judged(BadHandlers().judge(played, evidence)) == ["ends its process and was not paused for it: []"]
    pause = replace(story.lines[0], run_id="run-4", version=9, kind="pause", reason="ProcessDied: 3 times")
    assert judged(BadHandlers().judge(played, replace(evidence, lines=[*story.lines, pause]))) == []


def test_a_run_that_is_blamed_for_another_is_found() -> None:
    story = good()
    pause = replace(story.lines[0], run_id="run-4", version=9, kind="pause", reason="ProcessDied: 3 times")
    evidence = story.evidence(lines=[*story.lines, pause])

    found = judged(BadHandlers().judge(Played("F10", poisoned={"run-1": "New"}), evidence))
    assert found == ["is paused at version 9 for what others did"]


def test_a_message_that_ends_its_process_for_ever_is_found() -> None:
    played, evidence = Played("F10", poisoned={}, deadly=1), good().evidence()

    assert judged(BadHandlers().judge(played, evidence)) == ["1 messages end their process, dead letters: []"]
    buried = replace(evidence, letters=["ProcessDied: 3 times", "InvalidObjectError: no JSON"])
    assert judged(BadHandlers().judge(played, buried)) == []


def test_a_storm_of_retries_is_found() -> None:
    played = Played("F15")
    played.measured = {"usual per s": 50.0, "failing per s": 120.0, "failed at": 150.0, "healed at": 160.0}

    assert "120 statements/s while all failed, 50 before" in judged(AllFail().judge(played, good().evidence()))


def test_a_flapping_member_is_found() -> None:
    played = Played("F8")
    played.measured = {"members": 3.0}

    story = good()
    hour_ahead = replace(story.calls[0], wall=story.calls[0].began + 3600)
    story.calls[1:] = [replace(call, wall=call.began) for call in story.calls[1:]]

    found = judged(ClockJumps().judge(played, story.evidence(calls=[hour_ahead, *story.calls[1:]])))
    assert found == ["3 members are on record, not 2: somebody flapped"]


def test_a_clock_that_never_jumped_is_told() -> None:
    played = Played("F8")
    played.measured = {"members": 2.0}
    calls = [replace(call, wall=call.began) for call in good().calls]

    found = judged(ClockJumps().judge(played, good().evidence(calls=calls)))
    assert found == ["no handler ever saw a clock that jumped: the round shows nothing"]


def test_a_neighbour_of_a_locked_row_that_waits_is_found() -> None:
    story = good()
    changed(story.calls, lambda c: (c.run_id, c.version, c.kind) == ("run-4", 2, "step"), began=206.0, ended=206.1)
    played = Played("F17", locked=frozenset({"run-9"}), locked_while=Span(began=200.0, ended=208.0))

    [found] = judged(RowLocked().judge(played, story.evidence()))
    assert found.startswith("while 1 rows were locked, another run waited 5.")


def test_a_run_is_told_in_order() -> None:
    evidence: Evidence = good().evidence()
    told = timeline(evidence, "run-3").splitlines()

    moments = [float(line.split()[0]) for line in told[1:]]
    assert moments == sorted(moments)
    assert any(f"answered  {Ask.PAUSE}" in line for line in told)


def test_threads_of_one_process_write_into_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    threads = 8
    monkeypatch.setenv(effects.DIRECTORY, str(tmp_path))
    for _ in range(20):
        monkeypatch.setattr(effects, "_open", {})
        at_once = threading.Barrier(threads)

        def call(at_once: threading.Barrier = at_once) -> None:
            at_once.wait()
            with effects.noted("step", object()) as note:
                note.says("skip", None)

        with ThreadPoolExecutor(threads) as pool:
            for done in [pool.submit(call) for _ in range(threads)]:
                done.result()
    files = list(tmp_path.iterdir())
    assert len(files) == 20
    assert [call.answer for call in effects.read_calls(tmp_path)] == ["skip"] * 20 * threads
