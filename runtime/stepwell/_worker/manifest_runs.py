"""A Run document starts one run for its content: unchanged, it never starts a second one in the same store."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from datetime import datetime

from stepwell._domain.decision import Decision
from stepwell._domain.ids import RunID
from stepwell._domain.outcomes import Cancel, DeleteData, Pause, Wish
from stepwell._domain.record import StartRequest
from stepwell._domain.wishes import wish
from stepwell._engine.starting import start_one
from stepwell.application import Application
from stepwell.callables import checked_foreign_id
from stepwell.errors import DefinitionError, InvalidMoveError, InvalidObjectError, Problem, UnknownWorkflowError
from stepwell.ports.store import RunStore, StartOutcome
from stepwell.ports.tracing import Tracer
from stepwell.resources import RunResource

_ACTOR = "cli"


async def start_run(
    resource: RunResource,
    *,
    store: RunStore,
    applications: Mapping[str, Application],
    namespace: str,
    new_id: Callable[[datetime], str],
    tracer: Tracer | None,
) -> str | None:
    """Trigger what a Run asks for, and carry out its wish once.

    Returns why no run was started, if that is so. Raises ``UnknownWorkflowError`` for one that is not served here.
    """
    name = resource.spec.workflow_ref.name
    if name not in applications:
        raise UnknownWorkflowError(name)
    application = applications[name]
    try:
        request = _request(resource, application, namespace, RunID(new_id(store.now())))
        started = await start_one(tracer, store, application.definition, request)
    except InvalidObjectError as error:
        called = resource.metadata.name or resource.metadata.generate_name or ""
        raise DefinitionError(Problem(path=f"Run {called}", value=error.field, rule=error.rule)) from error
    if started.outcome is StartOutcome.BUSY:
        return f"foreign id {request.foreign_id!r} is taken by the unfinished run {started.run_id}"
    await _carry_out(resource, application, store, started.run_id)
    return None


def _request(resource: RunResource, application: Application, namespace: str, run_id: RunID) -> StartRequest:
    spec, metadata = resource.spec, resource.metadata
    whole = json.dumps(spec.object or {}, ensure_ascii=False, sort_keys=True)
    content = json.dumps([spec.workflow_ref.name, spec.foreign_id, spec.start, spec.start_policy, whole])
    digest = hashlib.sha256(content.encode()).hexdigest()[:16]
    name = metadata.name or f"{metadata.generate_name}{digest[:8]}"
    codec = application.codec
    return StartRequest(
        namespace=namespace,
        workflow=application.definition.name,
        run_id=run_id,
        foreign_id=checked_foreign_id(spec.foreign_id or name),
        object=codec.encode(codec.decode(whole.encode())),
        actor=_ACTOR,
        start=spec.start,
        key=f"manifest/{name}/{digest}",
        reason=spec.reason or "",
        if_none_ever=spec.start_policy == "IfNoneEver",
    )


def _wish(resource: RunResource) -> Wish | None:
    reason = resource.spec.reason or ""
    wishes: dict[str, Wish] = {
        "Paused": Pause(actor=_ACTOR, reason=reason),
        "Cancelled": Cancel(actor=_ACTOR, reason=reason),
        "DataDeleted": DeleteData(actor=_ACTOR, reason=reason),
    }
    return wishes.get(resource.spec.desired_state or "")


async def _carry_out(resource: RunResource, application: Application, store: RunStore, run_id: RunID) -> None:
    """Only a run that has not moved yet: one that has was told already, by the process that started it."""
    wished = _wish(resource)
    loaded = (await store.load([run_id])).get(run_id)
    if wished is None or loaded is None or loaded.record.version != 1:
        return
    try:
        decision = wish(application.definition, loaded.record, wished, store.now())
    except InvalidMoveError:
        return  # as a cluster answers: the wish is refused, the run goes on
    if isinstance(decision, Decision):
        await store.advance([decision])
