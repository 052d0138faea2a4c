"""The runs of one workflow, typed by it: what is refused was never stored, and a lost race is tried again.

Methods take a run by its run id or its foreign id; see ``by_foreign_id``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, TypeVar, overload

from stepwell._domain.decide import begin
from stepwell._domain.decision import Nothing
from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.http_protocol import TRACEPARENT
from stepwell._domain.ids import ForeignID, InboxID, RunID, RunRef
from stepwell._domain.outcomes import Cancel, DeleteData, Pause, Resume, Retry, Wish
from stepwell._domain.record import CallbackState, InboxRow, Record, RefusalReason, StartRequest
from stepwell._domain.states import RunState
from stepwell._domain.wishes import wish
from stepwell.builder import Callback
from stepwell.callables import (
    CallbackReceipt,
    Codec,
    HistoryEntry,
    RawCodec,
    RunRecord,
    checked_foreign_id,
    history_entry,
    run_record,
)
from stepwell.client.refs import find_run
from stepwell.client.waiting import NotThereError, Passage, settled, until
from stepwell.errors import (
    AlreadyRunningError,
    CallbackRefusedError,
    InvalidObjectError,
    RunNotFoundError,
    StoreUnavailableError,
    WaitTimeoutError,
)
from stepwell.ports.clock import Clock
from stepwell.ports.store import Order, RecordStore, RunQuery, StartOutcome
from stepwell.ports.tracing import Facts, SpanName, Tracer, spanned

ObjectT = TypeVar("ObjectT")
StatusT = TypeVar("StatusT", bound=str)
PayloadT = TypeVar("PayloadT")

JsonObject = dict[str, Any]

_PAGE = 100
_TRIES = 100
_JSON_PAYLOAD = RawCodec(label="payload", mapping=False)


@dataclass(frozen=True, kw_only=True)
class Access:
    """How a client reaches runs. ``actor`` is who the history says it was."""

    store: RecordStore
    clock: Clock
    namespace: str
    actor: str
    new_id: Callable[[], str]
    tracer: Tracer | None = None


@dataclass(frozen=True, kw_only=True)
class Typing(Generic[ObjectT, StatusT]):
    """What gives a workflow's runs their types."""

    workflow: str
    definition: Callable[[], Awaitable[WorkflowDefinition]]
    codec: Callable[[WorkflowDefinition], Codec[ObjectT]]
    status_of: Callable[[str], StatusT]


class Runs(Generic[ObjectT, StatusT]):
    """Made by ``client.runs(workflow)`` or ``client.untyped(name)``."""

    def __init__(self, access: Access, typing: Typing[ObjectT, StatusT]) -> None:
        self._access = access
        self._typing = typing

    async def trigger(
        self,
        foreign_id: str,
        object: ObjectT,  # noqa: A002  (the run's object, as everywhere)
        *,
        start: StatusT | None = None,
        request_id: str | None = None,
        trace: str = "",
    ) -> RunRecord[ObjectT, StatusT]:
        """Start a run. With a ``request_id``, a repeat after an unknown outcome answers with the first call's run.

        ``trace``: the caller's W3C traceparent. The run keeps it, its events carry it, handlers read it as
        ``run.trace``, and HTTP handlers are sent it.

        Raises ``AlreadyRunningError`` if an unfinished run has the foreign id, ``InvalidObjectError`` for an object
        that is not of the model, holds NaN, or is over 256 KiB.
        """
        definition = await self._typing.definition()
        codec, store = self._typing.codec(definition), self._access.store
        if start is not None and definition.status(str(start)) is None:
            raise InvalidObjectError("start", f"{str(start)!r} is not a status of workflow {definition.name!r}")
        request = StartRequest(
            namespace=self._access.namespace,
            workflow=definition.name,
            run_id=RunID(self._access.new_id()),
            foreign_id=ForeignID(str(checked_foreign_id(foreign_id))),
            object=codec.encode(object),
            actor=self._access.actor,
            start=None if start is None else str(start),
            key=_request_key(request_id),
            trace=_checked_trace(trace),
        )
        with spanned(self._access.tracer, Facts(name=SpanName.TRIGGER, workflow=definition.name), trace) as span:
            request = replace(request, trace=span.trace or trace)
            decision = begin(definition, request, store.now())
            [started] = await store.start([(request, decision)])
            span.of(started.run_id)
            span.outcome("repeated" if started.repeated else started.outcome.value.lower())
        if started.outcome is StartOutcome.BUSY:
            raise AlreadyRunningError(definition.name, foreign_id, started.run_id)
        if started.repeated:
            return self._view(await self._load(started.run_id), codec)
        return self._view(decision.record, codec)

    async def get(self, run: RunRef) -> RunRecord[ObjectT, StatusT]:
        """The run as it is now. Raises ``RunNotFoundError``."""
        definition = await self._typing.definition()
        return self._view(await self._find(run), self._typing.codec(definition))

    @overload
    async def callback(
        self,
        target: Callback[ObjectT, StatusT, PayloadT, Any],
        run: RunRef,
        payload: PayloadT,
        *,
        request_id: str | None = None,
        wait: None = None,
    ) -> CallbackReceipt: ...
    @overload
    async def callback(
        self,
        target: Callback[ObjectT, StatusT, PayloadT, Any],
        run: RunRef,
        payload: PayloadT,
        *,
        request_id: str | None = None,
        wait: timedelta,
    ) -> RunRecord[ObjectT, StatusT]: ...
    async def callback(
        self,
        target: Callback[ObjectT, StatusT, PayloadT, Any],
        run: RunRef,
        payload: PayloadT,
        *,
        request_id: str | None = None,
        wait: timedelta | None = None,
    ) -> CallbackReceipt | RunRecord[ObjectT, StatusT]:
        """Call a run back; it is stored, and applied when the run waits for it. ``wait``: for the outcome.

        Raises ``CallbackRefusedError`` if the run has finished, or (waiting) if the call was refused;
        ``InvalidObjectError`` for the payload; ``WaitTimeoutError``, which leaves the call in place.
        """
        return await self._call(target.name, run, target.codec.encode(payload), request_id, wait)

    async def callback_by_name(
        self, name: str, run: RunRef, payload: Any, *, request_id: str | None = None, wait: timedelta | None = None
    ) -> CallbackReceipt | RunRecord[ObjectT, StatusT]:
        """As ``callback``, for who has no token; ``payload`` is plain JSON, checked by the worker only."""
        return await self._call(name, run, _JSON_PAYLOAD.encode(payload), request_id, wait)

    async def wait_for(
        self,
        run: RunRef,
        *until_: StatusT | RunState,
        timeout: timedelta,  # noqa: ASYNC109  (virtual time, too)
    ) -> RunRecord[ObjectT, StatusT]:
        """Wait until the run has entered one of these statuses, or is in one of these states, from now on.

        The answer is the run as last seen: it may have gone on. Raises ``WaitTimeoutError``, at once for a run that
        has finished and can never get there.
        """
        if not until_:
            raise ValueError("wait_for needs a status or a state to wait for")
        definition = await self._typing.definition()
        clock, began = self._access.clock, self._access.clock.monotonic()
        states = frozenset(one for one in until_ if isinstance(one, RunState))
        statuses = frozenset(str(one) for one in until_ if not isinstance(one, RunState))
        passage = Passage(self._access.store, await self._find(run), statuses, states)
        codec = self._typing.codec(definition)
        try:
            record = await until(self._access.store, clock, timeout, passage.look)
        except NotThereError:
            waited = timedelta(seconds=clock.monotonic() - began)
            raise WaitTimeoutError(str(run), waited, self._view(passage.last, codec)) from None
        return self._view(record, codec)

    async def pause(self, run: RunRef, *, reason: str = "") -> RunRecord[ObjectT, StatusT]:
        """Let it stand still; no handler starts later than a second after this returns."""
        return await self._wish(run, Pause(actor=self._access.actor, reason=reason))

    async def resume(self, run: RunRef, *, reason: str = "") -> RunRecord[ObjectT, StatusT]:
        """Let a paused run go on. Raises ``InvalidMoveError`` for one that has finished."""
        return await self._wish(run, Resume(actor=self._access.actor, reason=reason))

    async def cancel(self, run: RunRef, *, reason: str = "") -> RunRecord[ObjectT, StatusT]:
        """End it where it is. Raises ``InvalidMoveError`` for a completed run."""
        return await self._wish(run, Cancel(actor=self._access.actor, reason=reason))

    async def delete_data(self, run: RunRef, *, reason: str = "") -> RunRecord[ObjectT, StatusT]:
        """Have a finished run's object rewritten or erased. Raises ``InvalidMoveError`` for an unfinished one."""
        return await self._wish(run, DeleteData(actor=self._access.actor, reason=reason))

    async def retry(self, run: RunRef, *, reason: str = "") -> RunRecord[ObjectT, StatusT]:
        """Try a parked, skipped or error-paused run again now."""
        return await self._wish(run, Retry(actor=self._access.actor, reason=reason))

    async def history(self, run: RunRef) -> Sequence[HistoryEntry[StatusT]]:
        """All versions of a run, oldest first."""
        await self._typing.definition()
        record = await self._find(run)
        rows = await self._access.store.history(record.run_id)
        return [history_entry(row, self._typing.status_of) for row in rows]

    async def list(
        self,
        *,
        foreign_id: str | None = None,
        status: StatusT | Sequence[StatusT] = (),
        state: RunState | Sequence[RunState] = (),
        created_after: datetime | None = None,
        created_before: datetime | None = None,
        order: Literal["newest", "oldest"] = "newest",
        limit: int | None = None,
    ) -> AsyncIterator[RunRecord[ObjectT, StatusT]]:
        """The workflow's runs, by their start, read page by page; each argument narrows."""
        codec = self._typing.codec(await self._typing.definition())
        after: RunID | None = None
        left = limit
        while left is None or left > 0:
            size = _PAGE if left is None else min(left, _PAGE)
            query = RunQuery(
                namespace=self._access.namespace,
                workflow=self._typing.workflow,
                foreign_id=None if foreign_id is None else ForeignID(str(foreign_id)),
                statuses=tuple(str(one) for one in ((status,) if isinstance(status, str) else status)),
                states=(state,) if isinstance(state, RunState) else tuple(state),
                created_after=created_after,
                created_before=created_before,
                order=Order(order),
                after=after,
                limit=size,
            )
            page = await self._access.store.list(query)
            for record in page:
                yield self._view(record, codec)
            if len(page) < size:
                return
            after = page[-1].run_id
            left = None if left is None else left - len(page)

    async def _wish(self, run: RunRef, wished: Wish) -> RunRecord[ObjectT, StatusT]:
        definition = await self._typing.definition()
        codec, store = self._typing.codec(definition), self._access.store
        record = await self._find(run)
        for _ in range(_TRIES):
            decision = wish(definition, record, wished, store.now())
            if isinstance(decision, Nothing):
                return self._view(record, codec)
            [won] = await store.advance([decision])
            if won is not None:
                return self._view(decision.record, codec)
            record = await self._load(record.run_id)
        raise StoreUnavailableError(f"run {record.run_id} moved {_TRIES} times while it was to be changed; try again")

    async def _call(
        self, name: str, run: RunRef, payload: bytes, request_id: str | None, wait: timedelta | None
    ) -> CallbackReceipt | RunRecord[ObjectT, StatusT]:
        definition = await self._typing.definition()
        record = await self._find(run)
        holds = [c.hold for status in definition.statuses for c in status.callbacks if c.name == name]
        if not holds:
            detail = f"workflow {definition.name!r} has no callback of this name"
            raise CallbackRefusedError(record.run_id, name, RefusalReason.WRONG_STATUS.value, detail)
        now = self._access.store.now()
        row = InboxRow(
            inbox_id=InboxID(self._access.new_id()),
            namespace=record.namespace,
            workflow=record.workflow,
            run_id=record.run_id,
            name=name,
            payload=payload,
            created_at=now,
            hold_until=now + max(holds),
            request_id=_request_key(request_id),
            trace=record.trace,
        )
        facts = Facts(
            name=SpanName.CALLBACK,
            workflow=record.workflow,
            run_id=record.run_id,
            status=record.status,
            kind="callback",
            element=name,
        )
        with spanned(self._access.tracer, facts, record.trace) as span:
            accepted = await self._access.store.accept(row)
            span.outcome("refused" if accepted.refusal else "repeated" if accepted.repeated else "accepted")
        if accepted.refusal is not None:
            raise CallbackRefusedError(accepted.run_id, name, accepted.refusal.value)
        receipt = CallbackReceipt(id=accepted.inbox_id, run_id=accepted.run_id, repeated=accepted.repeated)
        return receipt if wait is None else await self._outcome(definition, receipt, name, wait)

    async def _outcome(
        self, definition: WorkflowDefinition, receipt: CallbackReceipt, name: str, wait: timedelta
    ) -> RunRecord[ObjectT, StatusT]:
        store = self._access.store
        try:
            status = await until(store, self._access.clock, wait, lambda: settled(store, receipt.id))
        except NotThereError:
            last = self._view(await self._load(receipt.run_id), self._typing.codec(definition))
            raise WaitTimeoutError(receipt.run_id, wait, last) from None
        if status.state is CallbackState.REFUSED:
            reason = status.refusal.value if status.refusal is not None else RefusalReason.REFUSED.value
            raise CallbackRefusedError(receipt.run_id, name, reason, status.detail)
        return self._view(await self._load(receipt.run_id), self._typing.codec(definition))

    async def _find(self, run: RunRef) -> Record:
        return await find_run(self._access.store, self._access.namespace, self._typing.workflow, run)

    async def _load(self, run_id: RunID) -> Record:
        loaded = (await self._access.store.load([run_id])).get(run_id)
        if loaded is None:
            raise RunNotFoundError(self._typing.workflow, run_id)
        return loaded.record

    def _view(self, record: Record, codec: Codec[ObjectT]) -> RunRecord[ObjectT, StatusT]:
        return run_record(record, codec, self._typing.status_of)


def _checked_trace(trace: str) -> str:
    """Empty, or of the form of W3C Trace Context, level 1: it ends in headers of other people's services."""
    if trace and not TRACEPARENT.fullmatch(trace):
        raise InvalidObjectError("trace", "must be a W3C traceparent, such as 00-<32 hex digits>-<16 hex digits>-01")
    return trace


def _request_key(request_id: str | None) -> str | None:
    if request_id is None:
        return None
    try:
        return f"request/{checked_foreign_id(request_id)}"
    except InvalidObjectError as error:
        raise InvalidObjectError("request_id", error.rule) from None
