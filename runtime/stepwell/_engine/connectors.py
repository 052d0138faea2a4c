"""Each foreign message has its effect once, or leaves a dead letter; then the connector moves on.

The effect carries the message's own key (topic, partition, offset, broker timestamp), so reading a message twice
changes nothing, and the position may be saved after the effect.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging

from stepwell._domain.decide import begin
from stepwell._domain.definition import Connector
from stepwell._domain.ids import ForeignID
from stepwell._domain.record import InboxRow, StartRequest
from stepwell._domain.retry import backoff, failure_of
from stepwell._engine.asides import Asides, CallbackWish
from stepwell._engine.context import Context
from stepwell.errors import InvalidObjectError, PermanentError, RuleError, RunNotFoundError, StoreError
from stepwell.ports.source import Message, MessageSource
from stepwell.ports.store import DeadLetter, StartOutcome

log = logging.getLogger(__name__)

_TROUBLE_WAIT = 1.0


class ConnectorLoop:
    """One connector of one workflow."""

    def __init__(
        self, context: Context, asides: Asides, workflow: str, connector: Connector, source: MessageSource
    ) -> None:
        self._context = context
        self._asides = asides
        self._workflow = workflow
        self._connector = connector
        self._source = source

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            try:
                if not await self.drain():
                    await self._source.changed()
            except StoreError as error:
                log.warning(
                    "connector put off",
                    extra={
                        "action": "connector_failed",
                        "connector": self._connector.name,
                        "error": type(error).__name__,
                    },
                )
                await asyncio.sleep(_TROUBLE_WAIT)

    async def drain(self) -> int:
        """Turn all messages that are there; returns how many."""
        turned = 0
        while messages := await self._source.read(self._context.settings.connector_batch):
            for message in messages:
                await self._turn(message)
            await self._source.save(messages[-1])
            turned += len(messages)
        return turned

    async def close(self) -> None:
        """Let go of the stream."""
        await self._source.close()

    async def _turn(self, message: Message) -> None:
        tries = self._connector.options.pause_after_errors or self._context.settings.connector_attempts
        for attempt in range(1, tries + 1):
            try:
                reason = await self._once(message)
            except StoreError:
                raise
            except (PermanentError, RuleError, InvalidObjectError, RunNotFoundError) as error:
                # The message itself is at fault: another try would say the same.
                reason = str(failure_of(error))
            except Exception as error:  # noqa: BLE001  (user code may raise anything; the dead letter keeps the reason)
                reason = str(failure_of(error))
                if attempt < tries:
                    wait = backoff(self._connector.options, attempts=attempt, jitter=self._context.jitter())
                    await self._context.clock.sleep(wait.total_seconds())
                    continue
            if reason:
                await self._bury(message, reason)
            return

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
        [started] = await self._context.store.start([(request, begin(definition, request, self._context.store.now()))])
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
