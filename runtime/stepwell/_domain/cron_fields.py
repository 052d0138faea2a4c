"""The five fields of a cron expression as sets of numbers; what implementations read differently is refused.

``croniter`` expands the fields. It also reads ``3-3`` as the whole field, ``22-2`` as a wrap around midnight and
``5/15`` as ``5-59/15``, where other crons refuse them or mean something else, so none of these gets that far.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stepwell.errors import DefinitionError, Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_VALUE = r"[0-9]{1,2}|[A-Z]{3}"
_TERM = re.compile(rf"(?:\*|(?P<low>{_VALUE})(?:-(?P<high>{_VALUE}))?)(?:/(?P<step>[0-9]{{1,2}}))?")


@dataclass(frozen=True, kw_only=True)
class CronFields:
    """What each field allows, and which of them begin with ``*``: cron's rules for days and shifts hang on that."""

    minutes: tuple[int, ...]
    hours: tuple[int, ...]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday, as in cron."""
    elapsed: bool
    """Minute or hour begins with ``*``."""
    both_days: bool
    """Day-of-month or day-of-week begins with ``*``: a day must match both."""


@dataclass(frozen=True, kw_only=True)
class _Field:
    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()

    def number(self, text: str) -> int | None:
        """The number that a value or a name stands for, None if the field has no such one."""
        if text in self.names:
            return self.names.index(text) + self.low
        return int(text) if text.isdigit() and self.low <= int(text) <= self.high else None


_FIELDS = (
    _Field(name="minute", low=0, high=59),
    _Field(name="hour", low=0, high=23),
    _Field(name="day-of-month", low=1, high=31),
    _Field(name="month", low=1, high=12, names=_MONTHS),
    _Field(name="day-of-week", low=0, high=7, names=_WEEKDAYS),
)


def parse_fields(expression: str) -> CronFields:
    """The fields of an expression; DefinitionError (``cron``, the expression, the rule) if there is a doubt."""
    texts = re.split(r"[ \t]+", expression.strip(" \t").upper())
    rule = _refusal(texts) or next(filter(None, map(_field_refusal, _FIELDS, texts)), None)
    if rule is not None:
        raise DefinitionError(Problem(path="cron", value=expression, rule=rule))
    # Only schedules need it, and with what it loads it would take 1 MiB of every worker.
    from croniter import CroniterError, croniter  # noqa: PLC0415

    try:
        expanded, _ = croniter.expand(" ".join(texts))
    except CroniterError as exc:
        raise DefinitionError(Problem(path="cron", value=expression, rule=str(exc))) from exc
    minutes, hours, days, months, weekdays = map(_numbers, _FIELDS, expanded)
    starred = [text.startswith("*") for text in texts]
    return CronFields(
        minutes=minutes,
        hours=hours,
        days=frozenset(days),
        months=frozenset(months),
        weekdays=frozenset(day % 7 for day in weekdays),
        elapsed=starred[0] or starred[1],
        both_days=starred[2] or starred[4],
    )


def _numbers(field: _Field, expanded: Sequence[int | str]) -> tuple[int, ...]:
    if "*" in expanded:
        return tuple(range(field.low, field.high + 1))
    return tuple(sorted(int(value) for value in expanded))


def _refusal(texts: list[str]) -> str | None:
    """What is wrong with the expression as a whole."""
    if texts[0].startswith("@"):
        return "nicknames are refused: write the five fields (@daily is 0 0 * * *; @reboot has no planned time)"
    if "=" in texts[0]:
        return "an expression holds no zone: write it into timeZone"
    if len(texts) != len(_FIELDS):
        return "exactly five fields are needed: minute hour day-of-month month day-of-week"
    return None


def _field_refusal(field: _Field, text: str) -> str | None:
    """What is wrong with one field."""
    return next(filter(None, (_term_refusal(field, term) for term in text.split(","))), None)


def _term_refusal(field: _Field, term: str) -> str | None:
    """What is wrong with one term of a field's list."""
    match = _TERM.fullmatch(term)
    if match is None:
        return f"{field.name} {term!r}: only *, values, a-b and lists are understood (no L, W, #, ?, R, H)"
    low, high, step = match["low"], match["high"], match["step"]
    for value in filter(None, (low, high)):
        if field.number(value) is None:
            names = f" or {field.names[0]}..{field.names[-1]}" if field.names else ""
            return f"{field.name} {value!r}: not in {field.low}..{field.high}{names}"
    if high and (field.number(low) or 0) >= (field.number(high) or 0):
        return f"{field.name} {term!r}: a range must go up; write a list for one that wraps, a value for one of one"
    if step and low and not high:
        return f"{field.name} {term!r}: a step needs * or a range before it, as in {low}-{field.high}/{step}"
    if step and not 1 <= int(step) <= field.high:
        return f"{field.name} {term!r}: the step is not in 1..{field.high}"
    return None
