"""Hooks, erasures and requested starts: each is a row stored with the change, and gone only when it is done.

So each runs at least once, however often the process dies; idempotency keys make the repeats harmless.
"""

from __future__ import annotations

import logging

from stepwell._domain.decide import deletion_failed, erased
from stepwell._domain.definition import Options, WorkflowDefinition
from stepwell._domain.retry import backoff, failure_of
from stepwell._domain.serialized import definition_of_json
from stepwell._engine.asides import Asides
from stepwell._engine.context import Context, Work
from stepwell._engine.starting import start_one
from stepwell._engine.suspects import beware
from stepwell.errors import StoreError, UnknownWorkflowError
from stepwell.ports.store import ChoreKey, Postponement, event_key

log = logging.getLogger(__name__)


class ChoreLoop:
    """Handles ``hook``, ``delete`` and ``start`` events."""

    def __init__(self, context: Context, asides: Asides) -> None:
        self._context = context
        self._asides = asides

    async def hook(self, work: Work) -> None:
        """Tell user code of a change, then forget that it was to be told."""
        hooks = await self._context.store.hooks(work.event.run_id)
        row = next((h for h in hooks if h.version == work.event.version and h.name == work.event.name), None)
        if row is not None and work.loaded is not None:
            definition = self._context.hosted[work.event.workflow].definition
            handler = definition.hooks.named(row.name)
            try:
                beware(work)
                if handler is not None:
                    await self._asides.hook(work.loaded.record, row, handler, work.lane)
            except Exception as error:  # noqa: BLE001  (user code may raise anything; the row keeps the reason)
                await self._failed(event_key(work.event), row.attempts, error, definition.defaults)
            else:
                await self._context.store.drop(event_key(work.event))
        self._context.stream.finish([work.delivery])

    async def delete(self, work: Work) -> None:
        """Rewrite or erase the object, and blank all else that could hold payload."""
        if work.loaded is None:
            return
        record = work.loaded.record
        try:
            beware(work)
            rewritten = await self._asides.deletion(record, work.lane)
        except Exception as error:  # noqa: BLE001  (user code may raise anything; the run keeps the reason)
            now, jitter = self._context.store.now(), self._context.jitter()
            decision = deletion_failed(record, failure_of(error), now, jitter=jitter)
            self._context.expect(decision.record.not_before)
        else:
            decision = erased(record, rewritten, self._context.store.now())
        won = await self._context.committer.commit(decision)
        if won is not None and decision.erases:
            self._context.telemetry.changed(record.workflow, record.state, decision.record.state)
        self._context.stream.finish([work.delivery])

    async def start(self, work: Work) -> None:
        """Start the run that a handler asked for; its key makes a repeat harmless."""
        event, key = work.event, event_key(work.event)
        wanted = dict(await self._context.store.requested_starts(event.run_id, event.version))
        request = wanted.get(int(event.name))
        if request is not None and not request.object:
            # The run that asked was erased meanwhile, and with it what the new one would have started with.
            await self._context.store.drop(key)
        elif request is not None:
            try:
                definition = await self._definition(request.workflow)
                await start_one(self._context.tracer, self._context.store, definition, request)
            except StoreError:
                raise
            except Exception as error:  # noqa: BLE001  (a target that is not there yet: tried again)
                await self._failed(key, 0, error, Options())
            else:
                await self._context.store.drop(key)
        self._context.stream.finish([work.delivery])

    async def _definition(self, workflow: str) -> WorkflowDefinition:
        hosted = self._context.hosted.get(workflow)
        if hosted is not None:
            return hosted.definition
        for row in await self._context.store.workflows(self._context.settings.namespace):
            if row.name == workflow:
                return definition_of_json(row.definition)
        raise UnknownWorkflowError(workflow)

    async def _failed(self, key: ChoreKey, attempts: int, error: Exception, options: Options) -> None:
        failure = failure_of(error)
        log.warning(
            "chore failed",
            extra={"action": "chore_failed", "chore": key.kind, "run": key.run_id, "error": failure.kind},
        )
        wait = backoff(options, attempts=attempts + 1, jitter=self._context.jitter())
        until = self._context.store.now() + wait
        await self._context.store.postpone(
            [Postponement(key=key, before_attempts=attempts, attempts=attempts + 1, next_at=until, error=str(failure))]
        )
        self._context.expect(until)
