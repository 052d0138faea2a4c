"""A file of triggers starts each of its lines once, however often and however abruptly the process is started again.

A line is remembered by its file, its number and its content, so an edited line is a new one. The file is streamed: at
most one batch is in memory, and reading waits while the engine has enough to do.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from stepwell._domain.decide import begin
from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.record import StartRequest
from stepwell._engine.starting import start_one
from stepwell.application import Application
from stepwell.callables import MAX_OBJECT, checked_foreign_id
from stepwell.errors import DefinitionError, InvalidObjectError, Problem
from stepwell.ports.store import RunStore, Started, StartOutcome
from stepwell.ports.tracing import Tracer

BATCH = 256
"""Lines in one statement; a group of the store's writer is no larger."""

MAX_LINE = MAX_OBJECT + 16 * 1024
"""Bytes: the largest object, and room for what stands around it."""

_KEYS = ("foreignID", "object", "start", "workflow", "requestID")
_MAX_REQUEST_ID = 253


@dataclass(kw_only=True)
class FeedResult:
    """What became of the lines so far."""

    lines: int = 0
    started: int = 0
    repeated: int = 0
    """Started by an earlier process, or earlier in this file."""
    busy: int = 0
    """Their foreign id was taken by an unfinished run."""
    bad: int = 0
    """Not valid; each was told by file and line."""
    done: bool = False

    @property
    def clean(self) -> bool:
        """Whether every line has its run."""
        return not self.bad and not self.busy


@dataclass(frozen=True, kw_only=True)
class _Line:
    """One line, with where it stands."""

    path: Path
    number: int
    text: bytes
    too_long: bool = False

    @property
    def key(self) -> str:
        """The default request id."""
        digest = hashlib.sha256(self.text).hexdigest()[:16]
        return f"file/{self.path}:{self.number}/{digest}"


class _BadLineError(Exception):
    """Why a line starts nothing."""


@dataclass(kw_only=True)
class Feed:
    """Starts runs from one file. ``tell`` is given one line of text for each that starts none."""

    path: Path
    store: RunStore
    applications: Mapping[str, Application]
    namespace: str
    new_id: Callable[[datetime], str]
    tell: Callable[[str], None]
    room: Callable[[], Awaitable[None]]
    """Returns when the engine can take more."""
    tracer: Tracer | None = None
    """Makes a span for each line that is asked for."""
    result: FeedResult = field(default_factory=FeedResult)

    async def run(self) -> None:
        """Read to the end of the file. Raises ``DefinitionError`` if it cannot be opened."""
        try:
            file = self.path.open("rb")
        except OSError as error:
            rule = f"cannot be read: {error.strerror}"
            raise DefinitionError(Problem(path=str(self.path), value="", rule=rule)) from error
        with file:
            batch: list[_Line] = []
            for line in _lines(self.path.resolve(), file):
                batch.append(line)
                if len(batch) == BATCH:
                    await self._start(batch)
                    batch = []
                    await self.room()
            await self._start(batch)
        self.result.done = True

    async def _start(self, batch: list[_Line]) -> None:
        begun: list[tuple[_Line, tuple[StartRequest, Decision]]] = []
        for line in batch:
            self.result.lines += 1
            try:
                begun.append((line, self._begun(line)))
            except (_BadLineError, InvalidObjectError) as error:
                self.result.bad += 1
                self.tell(f"{self.path}:{line.number}: {error}")
        if begun:
            answers = await self._answers([one for _, one in begun])
            for (line, (request, _)), answer in zip(begun, answers, strict=True):
                self._count(line, request, answer)

    async def _answers(self, begun: Sequence[tuple[StartRequest, Decision]]) -> Sequence[Started]:
        if self.tracer is None:
            return await self.store.start(begun)
        # Each in a task of its own, or else each span would be the parent of the next.
        return await asyncio.gather(
            *(
                start_one(self.tracer, self.store, self.applications[request.workflow].definition, request)
                for request, _ in begun
            )
        )

    def _count(self, line: _Line, request: StartRequest, answer: Started) -> None:
        if answer.outcome is StartOutcome.BUSY:
            self.result.busy += 1
            taken = f"foreign id {request.foreign_id!r} is taken by the unfinished run {answer.run_id}"
            self.tell(f"{self.path}:{line.number}: {taken}")
        elif answer.repeated:
            self.result.repeated += 1
        else:
            self.result.started += 1

    def _begun(self, line: _Line) -> tuple[StartRequest, Decision]:
        given = _parsed(line)
        application = self._application(given.get("workflow"))
        now = self.store.now()
        own_key = _optional_text(given, "requestID")
        if own_key is not None and len(own_key) > _MAX_REQUEST_ID:
            raise _BadLineError(f"requestID: has {len(own_key)} characters; at most {_MAX_REQUEST_ID} are kept")
        codec = application.codec
        whole = json.dumps(given.get("object") or {}, ensure_ascii=False).encode("utf-8", "surrogatepass")
        request = StartRequest(
            namespace=self.namespace,
            workflow=application.definition.name,
            run_id=RunID(self.new_id(now)),
            foreign_id=checked_foreign_id(given["foreignID"]),
            object=codec.encode(codec.decode(whole)),
            actor="cli",
            start=_optional_text(given, "start"),
            # The same key as the SDK's, so that it does not matter who repeats a request.
            key=line.key if own_key is None else f"request/{own_key}",
        )
        return request, begin(application.definition, request, now)

    def _application(self, name: object) -> Application:
        if name is None and len(self.applications) == 1:
            return next(iter(self.applications.values()))
        known = ", ".join(sorted(self.applications))
        if name is None:
            raise _BadLineError(f"workflow: is required where there are several: {known}")
        if not isinstance(name, str) or name not in self.applications:
            raise _BadLineError(f"workflow: {name!r} is not one of {known}")
        return self.applications[name]


def _lines(path: Path, file: BinaryIO) -> Iterator[_Line]:
    """Lines that are not empty; one that is too long is cut, so that memory stays bounded."""
    number = 0
    while text := file.readline(MAX_LINE + 1):
        number += 1
        too_long = len(text) > MAX_LINE and not text.endswith(b"\n")
        if too_long:
            while rest := file.readline(MAX_LINE):
                if rest.endswith(b"\n"):
                    break
        if text.strip():
            yield _Line(path=path, number=number, text=text.strip(), too_long=too_long)


def _parsed(line: _Line) -> dict[str, Any]:
    if line.too_long:
        raise _BadLineError(f"is longer than {MAX_LINE} bytes")
    try:
        given = json.loads(line.text, parse_constant=_no_constant)
    except UnicodeDecodeError as error:
        raise _BadLineError(f"is not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise _BadLineError(f"is not JSON: {error.msg} (column {error.colno})") from None
    except (ValueError, RecursionError) as error:
        told = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _BadLineError(f"is not JSON: {told}") from None
    if not isinstance(given, dict):
        raise _BadLineError("must be a JSON object with foreignID and object")
    unknown = [name for name in given if name not in _KEYS]
    if unknown:
        raise _BadLineError(f"{unknown[0]}: unknown field; there are {', '.join(_KEYS)}")
    if "foreignID" not in given:
        raise _BadLineError("foreignID: is required")
    if not isinstance(given["foreignID"], str):
        raise _BadLineError("foreignID: must be a string")
    return given


def _optional_text(given: Mapping[str, Any], name: str) -> str | None:
    value = given.get(name)
    if value is not None and (not isinstance(value, str) or not value):
        raise _BadLineError(f"{name}: must be a string that is not empty")
    return value


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
