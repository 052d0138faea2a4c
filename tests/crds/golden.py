"""What a person sees is on file: ``GOLDEN=write pytest tests/crds`` writes it anew, for a diff to show."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tests.cluster.apiserver import ApiServer

DIRECTORY = Path(__file__).parent / "golden"
_UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_AGE = re.compile(r"(?<=\s)\d{1,3}s(?=\s|$)", re.MULTILINE)


def transcript(server: ApiServer, namespace: str, commands: Iterable[str]) -> str:
    """Each command as one types it, and what it answers; none of their arguments has a space in it."""
    told = []
    for line in commands:
        done = server.kubectl("-n", namespace, *line.split(), check=False)
        told.append(f"$ kubectl {line}\n{_ageless(line, done.stdout)}{done.stderr}".rstrip("\n"))
    return "\n\n".join(told) + "\n"


def _ageless(line: str, answer: str) -> str:
    """An answer whose tables tell no age of this very minute."""
    before, heading, table = answer.rpartition("\nEvents:") if line.startswith("describe") else ("", "", answer)
    return before + heading + _AGE.sub(lambda age: "0s".ljust(len(age[0])), table)


def same_everywhere(text: str, names: Mapping[str, str]) -> str:
    """The text without what differs from one run to the next: ids, times and names made up."""
    for name, written in names.items():
        text = text.replace(name, written)
    text = _UID.sub("00000000-0000-0000-0000-000000000000", text)
    text = re.sub(r"(Creation Timestamp:|Resource Version:)( +)\S+", r"\1\2...", text)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def compare(name: str, text: str) -> None:
    """Fails where ``text`` is not what the file says; writes the file if asked to."""
    path = DIRECTORY / f"{name}.txt"
    if os.environ.get("GOLDEN") == "write":
        DIRECTORY.mkdir(exist_ok=True)
        path.write_text(text, "utf-8")
    assert text.splitlines() == path.read_text("utf-8").splitlines(), "GOLDEN=write pytest tests/crds writes it anew"
