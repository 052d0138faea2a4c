"""A line of the JSON logs can always be read, and holds plain values only."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from stepwell._worker.logs import JsonFormatter, Repeats
from stepwell.callables import Run, RunFacts


class Order(BaseModel):
    card: str = "4111"


class Kind(StrEnum):
    STEP = "step"


class Unspeakable:
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


def formatted(message: object, *args: object, **extra: Any) -> dict[str, Any]:
    record = logging.LogRecord("stepwell.test", logging.INFO, __file__, 1, message, args, None)
    vars(record).update(extra)
    line = JsonFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    told: dict[str, Any] = json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    return told


def test_a_record_is_told_in_full() -> None:
    record = logging.LogRecord("stepwell.x", logging.WARNING, __file__, 1, "runs %s", ("wait",), None)
    record.created = datetime(2026, 1, 2, 3, 4, 5, 678000, UTC).timestamp()
    assert json.loads(JsonFormatter().format(record)) == {
        "time": "2026-01-02T03:04:05.678+00:00",
        "level": "warning",
        "logger": "stepwell.x",
        "action": "log",
        "message": "runs wait",
    }


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (3, 3),
        (2.5, 2.5),
        (True, True),
        (None, None),
        ("a", "a"),
        (Kind.STEP, "step"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
        (Order(), "<Order>"),
        ({"card": "4111"}, "<dict>"),
        (b"4111", "<bytes>"),
        (["4111"], "<list>"),
        (Unspeakable(), "<Unspeakable>"),
        ("x" * 2000, "x" * 1024 + "..."),
    ],
)
def test_only_plain_values_are_told(value: object, told: object) -> None:
    assert formatted("x", thing=value)["thing"] == told


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (["orders", "claims"], ["orders", "claims"]),
        ([Kind.STEP, Order(), ["4111"]], ["step", "<Order>", "<list>"]),
        ([str(n) for n in range(52)], [*(str(n) for n in range(50)), "and 2 more"]),
        (("orders",), "<tuple>"),
    ],
)
def test_lists_of_our_own_are_told_and_those_of_a_handler_are_not(value: object, told: object) -> None:
    record = logging.LogRecord("stepwell._engine.membership", logging.CRITICAL, __file__, 1, "x", (), None)
    vars(record)["runs"] = value
    assert json.loads(JsonFormatter().format(record))["runs"] == told


@given(st.text(st.characters()), st.text(st.characters()))
def test_any_text_makes_one_line_that_gives_it_back(message: str, value: str) -> None:
    told = formatted(message, thing=value)
    assert (told["message"], told["thing"]) == (message, value)


@pytest.mark.parametrize(
    ("message", "args", "told"),
    [
        ("%d", ("word",), "%d"),
        ("%s", (Unspeakable(),), "%s"),
        ("%s %s", (1,), "%s %s"),
        (Unspeakable(), (), "<Unspeakable>"),
    ],
)
def test_a_message_that_cannot_be_made_is_told_as_it_stands(message: object, args: tuple[Any, ...], told: str) -> None:
    assert formatted(message, *args)["message"] == told


def test_an_extra_names_the_action_and_overwrites_nothing_else() -> None:
    told = formatted("x", action="lag_alert", level="debug", time="never", logger="other")
    assert (told["action"], told["level"], told["logger"]) == ("lag_alert", "info", "stepwell.test")
    assert told["time"] != "never"


def test_an_exception_is_told_by_its_class_and_its_places() -> None:
    try:
        int("card 4111")
    except ValueError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    line = JsonFormatter().format(record)
    assert "4111" not in line
    told = json.loads(line)
    assert told["error"] == "ValueError"
    assert [place.partition(":")[0] for place in told["trace"]] == ["test_logs.py"]


def test_a_handlers_own_line_carries_the_ids_of_its_run(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "stepwell.run")
    facts: dict[str, Any] = {
        "id": "r-1", "foreign_id": "1001", "workflow": "orders", "status": "New", "version": 4, "attempt": 2
    }  # fmt: skip
    run = Run(object=Order(), deps=None, facts=RunFacts(**facts, idempotency_key="r-1/4", now=datetime.now(UTC)))
    run.log.info("hello", extra={"order": run.object})
    told = json.loads(JsonFormatter().format(caplog.records[0]))
    assert {key: told[key] for key in ("run", "foreign_id", "workflow", "status", "version", "attempt")} == {
        "run": "r-1",
        **{key: value for key, value in facts.items() if key != "id"},
    }
    assert "4111" not in json.dumps(told)


def warned(name: str = "stepwell._engine.keeper", level: int = logging.WARNING, **extra: Any) -> logging.LogRecord:
    record = logging.LogRecord(name, level, __file__, 1, "topic is not to be found", (), None)
    vars(record).update({"action": "topic_missing", **extra})
    return record


def test_a_trouble_that_goes_on_is_told_now_and_then_with_how_often_it_was_met() -> None:
    seconds = [0.0]
    repeats = Repeats(quiet=30, now=lambda: seconds[0])
    told = []
    for second in range(0, 70, 2):
        seconds[0] = second
        record = warned(topic="orders")
        if repeats.filter(record):
            told.append((second, vars(record).get("repeated")))
    assert told == [(0, None), (30, 14), (60, 14)]


def test_only_the_very_same_warnings_of_our_own_are_held_back() -> None:
    repeats = Repeats(now=lambda: 0.0)
    different = [
        warned(topic="orders"),
        warned(topic="claims"),
        warned("stepwell.adapters.kafka.producer", topic="orders"),
        warned(topics=["orders"]),
        warned(topics=["orders", "claims"]),
    ]
    assert [repeats.filter(record) for record in different] == [True] * len(different)
    assert [repeats.filter(warned(topic="orders")) for _ in range(2)] == [False] * 2
    for name, level in (("stepwell.run", logging.WARNING), ("shop", logging.WARNING), ("stepwell._x", logging.ERROR)):
        assert [repeats.filter(warned(name, level)) for _ in range(2)] == [True] * 2


def test_what_ended_is_forgotten() -> None:
    seconds = [0.0]
    repeats = Repeats(quiet=30, now=lambda: seconds[0])
    for number in range(1000):
        seconds[0] = number
        repeats.filter(warned(run=f"run {number}"))
    assert len(repeats._told) <= 61
