"""A reference on the command line is a foreign id unless ``--by-id`` is given: what it looks like decides nothing."""

from __future__ import annotations

from stepwell._domain.ids import ForeignID, RunID
from stepwell._domain.record import Record
from stepwell._domain.serialized import definition_of_json
from stepwell._domain.states import RunState
from stepwell._worker.opened import Opened
from stepwell.cli.errors import UsageError
from stepwell.errors import RunNotFoundError, UnknownWorkflowError
from stepwell.ports.store import WorkflowRow


async def workflow_rows(opened: Opened, workflow: str | None) -> list[WorkflowRow]:
    """The workflow of this name, or all of them. Raises ``UnknownWorkflowError``."""
    rows = list(await opened.store.workflows(opened.namespace))
    if workflow is None:
        return rows
    found = [row for row in rows if row.name == workflow]
    if not found:
        raise UnknownWorkflowError(workflow)
    return found


async def the_workflow(opened: Opened, workflow: str | None) -> WorkflowRow:
    """The workflow that is meant: named, or the only one."""
    rows = await workflow_rows(opened, workflow)
    if len(rows) != 1:
        known = ", ".join(row.name for row in rows) or "none"
        raise UsageError(f"--workflow is required where there is not exactly one: this store has {known}")
    return rows[0]


async def find(opened: Opened, ref: str, *, workflow: str | None, by_id: bool) -> Record:
    """The run that is meant. Raises ``RunNotFoundError``, ``UnknownWorkflowError``, or ``UsageError`` for two."""
    rows = await workflow_rows(opened, workflow)
    names = [row.name for row in rows]
    if by_id:
        loaded = (await opened.store.load([RunID(ref)])).get(RunID(ref))
        if loaded is None or loaded.record.workflow not in names:
            raise RunNotFoundError(", ".join(names), ref)
        return loaded.record
    found = [await opened.store.find(opened.namespace, name, ForeignID(ref)) for name in names]
    records = [record for record in found if record is not None]
    if not records:
        raise RunNotFoundError(", ".join(names), ref)
    if len(records) > 1:
        several = ", ".join(record.workflow for record in records)
        raise UsageError(f"--workflow is required: {several} have a run with foreign id {ref!r}")
    return records[0]


def goal(row: WorkflowRow, text: str) -> str | RunState:
    """What ``--for`` means: ``status=Paid``, ``state=Paused``, or a bare word, which is a status if there is one."""
    kind, equals, name = text.partition("=")
    declared = {status.name for status in definition_of_json(row.definition).statuses}
    if (kind == "status" or not equals) and (name if equals else text) in declared:
        return name if equals else text
    state = _state(name if equals else text)
    if state is not None and kind != "status":
        return state
    known = ", ".join([*sorted(declared), *(f"state={one}" for one in RunState)])
    raise UsageError(f"--for: {text!r} is neither a status of {row.name} nor a state: {known}")


def states(given: list[str]) -> tuple[RunState, ...]:
    """The states of these names, in any case."""
    found = []
    for text in given:
        state = _state(text)
        if state is None:
            raise UsageError(f"--state: {text!r} is not one of {', '.join(RunState)}")
        found.append(state)
    return tuple(found)


def _state(text: str) -> RunState | None:
    return next((state for state in RunState if state.lower() == text.lower()), None)
