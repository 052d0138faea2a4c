"""A handler in any language: one call an attempt; the answer says where the run goes, or whether to try again."""

from __future__ import annotations

import os
import re
from typing import Any, assert_never

from stepwell._domain import http_protocol as protocol
from stepwell._domain.definition import HttpHandler
from stepwell._domain.outcomes import Answer, Fails, Failure, Goes, Skips
from stepwell._domain.record import Record
from stepwell._domain.states import PauseCode
from stepwell._engine.context import Context
from stepwell.callables import Codec
from stepwell.errors import PermanentError
from stepwell.ports.http import AddressRefusedError, HttpAnswer, HttpCall, HttpCallError

_OK = range(200, 300)


class HttpHandlers:
    """Calls services."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def answer(
        self,
        record: Record,
        handler: HttpHandler,
        *,
        to: tuple[str, ...],
        key: str,
        attempt: int,
        payload: bytes | None,
        codec: Codec[Any],
        trace: str,
    ) -> Answer:
        """One attempt. Every answer has its meaning; a call without one, or to a refused address, raises."""
        got = await self._send(record, handler, key=key, attempt=attempt, payload=payload, trace=trace)
        meant = protocol.read_answer(
            got.status, got.headers, got.body, truncated=got.truncated, to=to, now=self._context.store.now()
        )
        match meant:
            case protocol.Goes():
                # An object that does not fit the model is a failed attempt: the service may answer better next time.
                stored = record.object if meant.object is None else codec.encode(codec.decode(meant.object))
                return Goes(to=meant.status, object=stored)
            case protocol.Skips():
                return Skips()
            case protocol.Retries():
                return Fails(failure=Failure(kind="HttpRetry", message=meant.reason), delay=meant.delay)
            case protocol.Parks():
                failure = Failure(kind="HttpRefused", message=meant.reason)
                return Fails(failure=failure, pause=PauseCode.PERMANENT_ERROR)
            case _:
                assert_never(meant)

    async def tell(self, record: Record, handler: HttpHandler, *, key: str, attempt: int, trace: str) -> None:
        """Tell a service of a change: any 2xx is an answer, all else raises and is tried again."""
        got = await self._send(record, handler, key=key, attempt=attempt, payload=None, trace=trace)
        if got.status not in _OK:
            raise HttpCallError(f"answered {got.status}")

    async def _send(
        self, record: Record, handler: HttpHandler, *, key: str, attempt: int, payload: bytes | None, trace: str
    ) -> HttpAnswer:
        facts = protocol.RunFacts(
            id=record.run_id,
            foreign_id=record.foreign_id,
            workflow=record.workflow,
            status=record.status,
            version=record.version,
            attempt=attempt,
            object=record.object,
        )
        headers, body = protocol.build_request(
            facts, key=key, payload=payload, traceparent=trace or None, headers=_headers(handler)
        )
        call = HttpCall(method=handler.method, url=handler.url, headers=headers, body=body, timeout=handler.timeout)
        try:
            return await self._context.http.send(call)
        except AddressRefusedError as error:
            raise PermanentError(str(error)) from error


def _headers(handler: HttpHandler) -> dict[str, str]:
    out: dict[str, str] = {}
    for header in handler.headers:
        value = header.value
        if header.secret_name is not None and header.secret_key is not None:
            variable = secret_variable(header.secret_name, header.secret_key)
            value = os.environ.get(variable)
            if value is None:
                raise PermanentError(f"header {header.name}: the environment variable {variable} is not set")
        out[header.name] = value or ""
    return out


def secret_variable(name: str, key: str) -> str:
    """The environment variable that holds a Secret's key, for a header with ``valueFrom.secretKeyRef``."""
    return "STEPWELL_SECRET_" + re.sub(r"[^A-Z0-9]", "_", f"{name}_{key}".upper())
