"""Every place of a definition that names a Python function, with the part that the function plays there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from stepwell._domain.definition import PythonHandler

if TYPE_CHECKING:
    from stepwell._domain.definition import Handler, Status, WorkflowDefinition


class Role(Enum):
    """What a function is called for; the value is how messages name it."""

    STEP = "a step or timeout"
    CALLBACK = "a callback"
    ARM = "the `at` of a timeout"
    TICK = "a schedule"
    MESSAGE = "a connector"
    HOOK = "a hook"
    DELETION = "the data deletion"


@dataclass(frozen=True, kw_only=True)
class Element:
    """One such place. ``path`` is that of the Workflow object; ``to`` is empty where no status is named."""

    path: str
    role: Role
    ref: str
    to: tuple[str, ...] = ()


def python_elements(definition: WorkflowDefinition) -> Iterator[Element]:
    """All of them, in the order of the Workflow object."""
    for i, status in enumerate(definition.statuses):
        yield from _of_status(f"spec.statuses[{i}]", status)
    for i, connector in enumerate(definition.connectors):
        if isinstance(connector.handler, PythonHandler):
            path = f"spec.connectors[{i}].handler.python"
            yield Element(path=path, role=Role.MESSAGE, ref=connector.handler.ref)
    hooks = definition.hooks
    for name, hook in (("onPause", hooks.on_pause), ("onCancel", hooks.on_cancel), ("onComplete", hooks.on_complete)):
        if isinstance(hook, PythonHandler):
            yield Element(path=f"spec.hooks.{name}.python", role=Role.HOOK, ref=hook.ref)
    if definition.data_deletion is not None:
        yield Element(path="spec.dataDeletion.python", role=Role.DELETION, ref=definition.data_deletion.ref)
    for i, schedule in enumerate(definition.schedules):
        if schedule.function is not None:
            yield Element(path=f"spec.schedules[{i}].filter.python", role=Role.TICK, ref=schedule.function.ref)


def _of_status(path: str, status: Status) -> Iterator[Element]:
    if status.step is not None:
        yield from _of(f"{path}.step", Role.STEP, status.step.handler, status.step.to)
    for i, callback in enumerate(status.callbacks):
        yield from _of(f"{path}.callbacks[{i}]", Role.CALLBACK, callback.handler, callback.to)
    for i, timeout in enumerate(status.timeouts):
        yield from _of(f"{path}.timeouts[{i}]", Role.STEP, timeout.handler, timeout.to)
        if timeout.at is not None:
            yield Element(path=f"{path}.timeouts[{i}].at.python", role=Role.ARM, ref=timeout.at.ref)


def _of(path: str, role: Role, handler: Handler, to: tuple[str, ...]) -> Iterator[Element]:
    if isinstance(handler, PythonHandler):
        yield Element(path=f"{path}.handler.python", role=role, ref=handler.ref, to=to)
