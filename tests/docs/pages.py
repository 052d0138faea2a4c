"""A page of the documentation as the list of its code blocks, each with what the comment before it says about it.

A comment directly before a block is invisible to readers and tells the test what to do with the block:

- ``<!-- file: shop.py -->``: write the block to this file instead of running it;
- ``<!-- background: listening -->``: start its one command, and go on once this text was printed;
- ``<!-- exits: 1 -->``: its last command ends with this status and not with 0;
- ``<!-- on a cluster: the sample -->``: leave it to ``tests/e2e``, which runs it where ``make kind-up`` has been;
- ``<!-- on a cluster: servers of its own -->``: likewise, on one without Stepwell, in reach of servers that speak TLS;
- ``<!-- not run: reason -->``: leave it alone. The reason is compulsory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LANGUAGES = frozenset({"python", "bash", "yaml", "console", "json", "mermaid", "text", "toml"})
RUN = frozenset({"python", "bash", "yaml", "console"})
ELSEWHERE = "on a cluster"
THE_SAMPLE, OWN_SERVERS = "the sample", "servers of its own"
MARKERS = frozenset({"file", "background", "exits", ELSEWHERE, "not run"})

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\s*$")
_MARKER = re.compile(r"^ *<!-- (?P<key>[a-z ]+?)(?:: (?P<value>.+?))? -->\s*$")


@dataclass(frozen=True, kw_only=True)
class Block:
    """One fenced block; ``line`` is that of its first line of code, from 1."""

    page: str
    line: int
    language: str
    text: str
    markers: dict[str, str]

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    @property
    def is_run(self) -> bool:
        return self.language in RUN and self.markers.keys().isdisjoint({"not run", ELSEWHERE})

    def is_for_a_cluster(self, with_what: str) -> bool:
        return self.markers.get(ELSEWHERE) == with_what


class PageError(Exception):
    """The page itself is malformed."""


def pages() -> list[Path]:
    """Every page that a reader meets."""
    below = (*sorted((ROOT / "docs").glob("*.md")), *sorted((ROOT / "examples").glob("**/README.md")))
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *below]


def blocks(page: Path) -> list[Block]:
    return list(_blocks(page.relative_to(ROOT).as_posix(), page.read_text("utf-8").splitlines()))


def _blocks(name: str, lines: list[str]) -> Iterator[Block]:
    markers: dict[str, str] = {}
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        if marker := _MARKER.match(line):
            key, value = marker["key"], marker["value"] or ""
            if key not in MARKERS or not value:
                raise PageError(
                    f"{name}:{number}: {line.strip()}: known are {', '.join(sorted(MARKERS))}, with a value"
                )
            if key == ELSEWHERE and value not in {THE_SAMPLE, OWN_SERVERS}:
                raise PageError(f"{name}:{number}: {value}: must be {THE_SAMPLE!r} or {OWN_SERVERS!r}")
            markers[key] = value
        elif fence := _FENCE.match(line):
            end = next((i for i in range(number, len(lines)) if lines[i].strip() == "```"), None)
            if end is None:
                raise PageError(f"{name}:{number}: this block never ends")
            indent = len(fence["indent"])
            text = "\n".join(inner[indent:] for inner in lines[number:end]) + "\n"
            yield Block(page=name, line=number + 1, language=fence["language"], text=text, markers=markers)
            markers = {}
            number = end + 1
        elif line.strip() and markers:
            raise PageError(f"{name}:{number}: a comment for the test stands before no block")


@dataclass(frozen=True, kw_only=True)
class Command:
    """One ``$`` line of a console block, with the lines that follow it there."""

    line: int
    text: str
    expected: tuple[str, ...]


def commands(block: Block) -> list[Command]:
    found: list[Command] = []
    for offset, line in enumerate(block.text.splitlines()):
        if line.startswith("$ "):
            found.append(Command(line=block.line + offset, text=line[2:], expected=()))
        elif found and (line.startswith("> ") or found[-1].text.endswith("\\")):
            last = found.pop()
            found.append(Command(line=last.line, text=f"{last.text}\n{line.removeprefix('> ')}", expected=()))
        elif found:
            last = found.pop()
            found.append(Command(line=last.line, text=last.text, expected=(*last.expected, line)))
        else:
            raise PageError(f"{block.place}: a console block begins with `$ command`")
    return found


_ID = re.compile(r"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z|\+00:00| UTC)?")
_AGO = re.compile(r"\b\d+(\.\d+)? ?(ms|s|m|h)(\d+(s|m|h))?\b")
_CLOCK = re.compile(r"\b\d\d:\d\d:\d\d\b")
_PID = re.compile(r"\bpid \d+")
# What the API server makes of generateName: https://pkg.go.dev/k8s.io/apimachinery/pkg/util/rand
_GENERATED = re.compile(r"-[bcdfghjklmnpqrstvwxz2456789]{5}\b")
_CHANGING = (
    (_ID, "ID"),
    (_TIME, "TIME"),
    (_AGO, "SPAN"),
    (_CLOCK, "TIME"),
    (_PID, "pid N"),
    (_GENERATED, "-NAME"),
)
"""In this order: an id holds what looks like a time, and a time what looks like a span."""


def normal(line: str) -> str:
    """What of a line does not change from run to run."""
    for pattern, instead in _CHANGING:
        line = pattern.sub(instead, line)
    return " ".join(line.split())


def missing(expected: tuple[str, ...], output: str) -> str | None:
    """The first expected line that the output does not have, in order; ``...`` in a line stands for anything."""
    left = iter(normal(line) for line in output.splitlines())
    for line in expected:
        wanted = normal(line)
        if wanted in {"", "..."}:
            continue
        pattern = re.compile(".*".join(re.escape(part) for part in wanted.split("...")))
        if not any(pattern.fullmatch(seen) for seen in left):
            return line
    return None
