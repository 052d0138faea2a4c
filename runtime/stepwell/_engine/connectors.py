"""Each foreign message has its effect once, or leaves a dead letter; then the connector moves on.

The effect carries the message's own key (topic, partition, offset, broker timestamp), so reading a message twice
changes nothing, and the position may be saved after the effect.

What is read first after taking over may be what the reader before ended of: of that each message is counted before it
is turned, one at a time. One that was begun before and came to no end runs alone in its process, and one that was begun
too often becomes a dead letter.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from stepwell._domain.definition import Connector
from stepwell._domain.ids import ForeignID
from stepwell._domain.record import InboxRow, StartRequest
from stepwell._domain.retry import backoff, failure_of
from stepwell._domain.states import PauseCode
from stepwell._engine.asides import Asides, CallbackWish
from stepwell._engine.context import Context
from stepwell._engine.starting import start_one
from stepwell.errors import InvalidObjectError, PermanentError, RuleError, RunNotFoundError, StoreError
from stepwell.ports.source import Message, MessageSource
from stepwell.ports.store import DeadLetter, StartOutcome

log = logging.getLogger(__name__)

_TROUBLE_WAIT = 1.0
_IDLE_WAIT = 0.5
_DEATHS = 3
"""Processes that may end of one message."""


def role_of(workflow: str, connector: Connector) -> str:
    """The role of whoever reads for a connector; what two read is started once, but is work for two."""
    return f"connector/{workflow}/{connector.name}"


@dataclass(slots=True)
class _Line:
    """Messages of one partition, in order, that were read and not turned."""

    messages: deque[Message] = field(default_factory=deque)
    failures: int = 0
    """Of the first one."""
    next_at: datetime | None = None
    """When the first one is tried again."""
    begun: int = 0
    """How often the first one was begun, with the time that this process has counted; 0: it has counted none."""


class ConnectorLoop:
    """One connector of one workflow: one message after another in a partition, and partitions beside each other."""

    def __init__(
        self, context: Context, asides: Asides, workflow: str, connector: Connector, source: MessageSource
    ) -> None:
        self._context = context
        self._asides = asides
        self._workflow = workflow
        self._connector = connector
        self._source = source
        self._lines: dict[int, _Line] = {}
        self._last: Message | None = None
        """The last one that was read and is not saved."""
        self._reading = False
        self._wary = False
        """Whether this is what was read first."""

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            if not self._context.holds(self.role):
                await self._rest()
                continue
            try:
                turned = await self.drain()
                next_at = self.next_at
                if next_at is not None:
                    left = (next_at - self._context.store.now()).total_seconds()
                    await self._context.clock.sleep(max(left, 0.0))
                elif not turned:
                    await self._source.changed()
            except StoreError as error:
                log.warning(
                    "connector put off",
                    extra={
                        "action": "connector_failed",
                        "connector": self._connector.name,
                        "error": type(error).__name__,
                        "reason": str(error),
                    },
                )
                await asyncio.sleep(_TROUBLE_WAIT)

    @property
    def next_at(self) -> datetime | None:
        """When a message that failed is tried again; None: none has."""
        return min((line.next_at for line in self._lines.values() if line.next_at is not None), default=None)

    @property
    def role(self) -> str:
        """One process reads for all."""
        return role_of(self._workflow, self._connector)

    async def _rest(self) -> None:
        """Somebody else reads, from where this process stored that it was."""
        if self._reading:
            self._lines.clear()
            self._last, self._reading = None, False
            await self._source.close()
        await self._context.clock.sleep(_IDLE_WAIT)

    async def drain(self) -> int:
        """Turn all messages that are there, up to one that has to be tried again later; returns how many."""
        turned = 0
        while await self._filled():
            turned += await self._drain_all()
            if self._lines_left():
                break
            # Only now: what is read and not turned would be passed over by the next read.
            if self._last is not None:
                await self._source.save(self._last)
            self._last, self._wary = None, False
        return turned

    async def _drain_all(self) -> int:
        lines = list(self._lines.values())
        turned = 0
        # One at a time when wary: a neighbour must not be taken for what ends the process.
        for group in [[line] for line in lines] if self._wary else [lines]:
            # All of them to an end, whatever becomes of one: none may be at work when the next turn begins.
            for each in await asyncio.gather(*map(self._drain, group), return_exceptions=True):
                if isinstance(each, BaseException):
                    raise each
                turned += each
        return turned

    async def _filled(self) -> bool:
        if not self._lines_left():
            if not self._reading:
                self._reading = self._wary = True
            for message in await self._source.read(self._context.settings.connector_batch):
                self._lines.setdefault(message.partition, _Line()).messages.append(message)
                self._last = message
        return self._lines_left()

    def _lines_left(self) -> bool:
        return any(line.messages for line in self._lines.values())

    async def _drain(self, line: _Line) -> int:
        turned = 0
        while line.messages and await self._turn(line, line.messages[0]):
            message = line.messages.popleft()
            if self._wary:
                # Or what comes before the one that ends the process would be turned again each time, that one first.
                await self._source.done(message)
            turned += 1
        return turned

    async def close(self) -> None:
        """Let go of the stream."""
        await self._source.close()

    async def _turn(self, line: _Line, message: Message) -> bool:
        """Whether the message is done with; False: it has failed and is tried again at its line's ``next_at``."""
        now = self._context.store.now()
        if line.next_at is not None and line.next_at > now:
            return False
        try:
            reason = await self._effect(line, message)
        except StoreError:
            raise
        except asyncio.CancelledError:
            # The process lives, and stops.
            with suppress(StoreError):
                await self._take_back(line, message)
            raise
        except (PermanentError, RuleError, InvalidObjectError, RunNotFoundError) as error:
            # The message itself is at fault: another try would say the same.
            reason = str(failure_of(error))
        except Exception as error:  # noqa: BLE001  (user code may raise anything; the dead letter keeps the reason)
            reason = str(failure_of(error))
            options = self._connector.options
            line.failures += 1
            await self._take_back(line, message)
            if line.failures < (options.pause_after_errors or self._context.settings.connector_attempts):
                line.next_at = now + backoff(options, attempts=line.failures, jitter=self._context.jitter())
                return False
        if reason:
            await self._bury(message, reason)
        line.failures, line.next_at, line.begun = 0, None, 0
        return True

    async def _effect(self, line: _Line, message: Message) -> str:
        """The message's effect, as ``_once``; or why it is not turned any more."""
        solitude = self._context.solitude
        async with solitude.beside():
            if not self._wary or await self._count(line, message) == 1:
                return await self._once(message)
            # While it waits for its turn, its process may end of another.
            await self._take_back(line, message)
        async with solitude.alone():
            if await self._count(line, message) > _DEATHS:
                return f"{PauseCode.PROCESS_DIED}: the process of its worker ended during each of {_DEATHS} tries"
            return await self._once(message)

    async def _count(self, line: _Line, message: Message) -> int:
        """How often it was begun and came to no end, this time too: a process that lives has counted once."""
        if not line.begun:
            place = *self._place, message.partition
            line.begun = await self._context.store.begin_message(*place, offset=message.offset)
        return line.begun

    async def _take_back(self, line: _Line, message: Message) -> None:
        if line.begun:
            await self._context.store.end_message(*self._place, message.partition, offset=message.offset)
            line.begun = 0

    @property
    def _place(self) -> tuple[str, str, str]:
        return self._context.settings.namespace, self._workflow, self._connector.name

    async def _once(self, message: Message) -> str:
        """The message's effect; a reason where it could have none."""
        effect = await self._asides.message(self._workflow, self._connector, message)
        if effect is None:
            return ""
        if isinstance(effect, CallbackWish):
            return await self._call_back(effect, message)
        return await self._start(effect)

    async def _start(self, request: StartRequest) -> str:
        definition = self._context.hosted[request.workflow].definition
        started = await start_one(self._context.tracer, self._context.store, definition, request)
        return f"AlreadyRunning: {started.run_id}" if started.outcome is StartOutcome.BUSY else ""

    async def _call_back(self, wish: CallbackWish, message: Message) -> str:
        store = self._context.store
        record = await store.find(self._context.settings.namespace, self._workflow, ForeignID(wish.foreign_id))
        if record is None:
            raise RunNotFoundError(self._workflow, wish.foreign_id)
        now = store.now()
        accepted = await store.accept(
            InboxRow(
                inbox_id=wish.inbox_id,
                namespace=record.namespace,
                workflow=record.workflow,
                run_id=record.run_id,
                name=wish.name,
                payload=wish.payload,
                created_at=now,
                hold_until=now + wish.hold,
                request_id=f"connector/{self._connector.name}/{message.request_key}",
                trace=record.trace,
            )
        )
        return accepted.refusal.value if accepted.refusal is not None else ""

    async def _bury(self, message: Message, reason: str) -> None:
        log.warning(
            "dead letter",
            extra={
                "action": "dead_letter",
                "connector": self._connector.name,
                "topic": message.topic,
                "partition": message.partition,
                "offset": message.offset,
            },
        )
        await self._context.store.bury(
            DeadLetter(
                namespace=self._context.settings.namespace,
                workflow=self._workflow,
                connector=self._connector.name,
                topic=message.topic,
                partition=message.partition,
                offset=message.offset,
                reason=reason,
                sha256=hashlib.sha256(message.value).hexdigest(),
                at=self._context.store.now(),
            )
        )
