"""Services that handlers call, as a test says they answer; a call that no test expected fails loudly."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stepwell.ports.http import HttpAnswer, HttpCall, HttpCallError


@dataclass(frozen=True, kw_only=True)
class SentCall:
    """What a handler sent."""

    method: str
    url: str
    headers: Mapping[str, str]
    json: Any


class FakeHttp:
    """An ``HttpCaller`` whose answers are set by url. The last answer set for a url is given for ever."""

    def __init__(self) -> None:
        self._answers: dict[str, deque[HttpAnswer | Exception]] = {}
        self._given: dict[str, HttpAnswer | Exception] = {}
        self.calls: list[SentCall] = []

    def respond(
        self, url: str, status: int = 200, json: Any = None, *, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer calls of this url; several answers are given one after another."""
        self._set(url, HttpAnswer(status=status, headers=dict(headers or {}), body=_encode(json)))

    def fail(self, url: str, message: str = "connection refused") -> None:
        """The next call of this url gets no answer."""
        self._set(url, HttpCallError(message))

    def _set(self, url: str, answer: HttpAnswer | Exception) -> None:
        self._answers.setdefault(url, deque()).append(answer)

    async def send(self, call: HttpCall) -> HttpAnswer:
        """Record the call and answer it."""
        self.calls.append(
            SentCall(method=call.method, url=call.url, headers=dict(call.headers), json=json.loads(call.body))
        )
        if answers := self._answers.get(call.url):
            self._given[call.url] = answers.popleft()
        answer = self._given.get(call.url)
        if answer is None:
            raise AssertionError(
                f"{call.method} {call.url} was called: say `world.http.respond({call.url!r}, ...)` first"
            )
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def close(self) -> None:
        """Nothing is open."""


def _encode(value: Any) -> bytes:
    return b"" if value is None else json.dumps(value).encode()
