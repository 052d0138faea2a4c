"""Payloads that are unlike anything else in the world, so that one can look for them everywhere."""

from __future__ import annotations

import re
from collections.abc import Iterator

_MARK = re.compile(r"payload\(([^|()]+)\|([^()]*)\)")


def mark(owner: str, part: str = "") -> str:
    """A text that names whose payload it is."""
    return f"payload({owner}|{part})"


def owner_of(text: str) -> str:
    """Whose payload the first mark in a text is; empty: there is none."""
    found = _MARK.search(text)
    return "" if found is None else found[1]


def owners_in(data: bytes | str) -> Iterator[str]:
    """Whose payloads are in there, each as often as it is."""
    text = data.decode("utf-8", "replace") if isinstance(data, bytes) else data
    return (found[1] for found in _MARK.finditer(text))
