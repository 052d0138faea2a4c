"""Durations as users write them (``1h30m``, ``250ms``): parsing what was formatted gives the same duration back.

The form is that of Go and of Kubernetes' own fields, in whole milliseconds and without days, signs or fractions.
"""

from __future__ import annotations

import re
from datetime import timedelta

DURATION_PATTERN = "^([0-9]{1,5}h)?([0-9]{1,5}m)?([0-9]{1,8}s)?([0-9]{1,5}ms)?$"
DURATION_WORDS = "a duration such as 90s, 1h30m or 250ms: whole numbers with h, m, s, ms, in this order"
MAX_DURATION = timedelta(hours=87_600)
MAX_DURATION_TEXT = "87600h"

_FORM = re.compile("(?:([0-9]{1,5})h)?(?:([0-9]{1,5})m)?(?:([0-9]{1,8})s)?(?:([0-9]{1,5})ms)?")
_MILLISECOND = timedelta(milliseconds=1)


def parse_duration(text: str) -> timedelta:
    """The duration that ``text`` means; ValueError if it is not of that form or longer than ten years."""
    found = _FORM.fullmatch(text)
    if found is None or not text:
        raise ValueError(f"{text!r} is not {DURATION_WORDS}")
    hours, minutes, seconds, millis = (int(part or 0) for part in found.groups())
    duration = timedelta(hours=hours, minutes=minutes, seconds=seconds, milliseconds=millis)
    if duration > MAX_DURATION:
        raise ValueError(f"{text!r} is longer than {MAX_DURATION_TEXT}")
    return duration


def format_duration(duration: timedelta) -> str:
    """The shortest text for a duration of 0 to ten years; ValueError if it is not a whole number of milliseconds."""
    millis, rest = divmod(duration, _MILLISECOND)
    if rest or not timedelta() <= duration <= MAX_DURATION:
        raise ValueError(f"{duration} is not a whole number of milliseconds from 0 to {MAX_DURATION_TEXT}")
    seconds, millis = divmod(millis, 1000)
    minutes, seconds = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    parts = ((hours, "h"), (minutes, "m"), (seconds, "s"), (millis, "ms"))
    return "".join(f"{number}{unit}" for number, unit in parts if number) or "0s"
