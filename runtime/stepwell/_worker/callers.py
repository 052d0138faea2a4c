"""Who sends the calls of HTTP handlers; nobody does, and nothing is loaded for it, where no handler is one."""

from __future__ import annotations

from collections.abc import Iterable

from stepwell._domain.definition import HttpHandler, WorkflowDefinition
from stepwell.ports.http import AddressRefusedError, HttpAnswer, HttpCall, HttpCaller


class NoHttp:
    """Stands where no handler calls anybody: the client's library costs a quarter of a second to load."""

    async def send(self, call: HttpCall) -> HttpAnswer:
        """Refuse, since no definition that was loaded names a url."""
        raise AddressRefusedError(f"{call.url} is named by no workflow of this process")

    async def close(self) -> None:
        """Nothing is open."""


def http_caller(definitions: Iterable[WorkflowDefinition], *, allow: tuple[str, ...]) -> HttpCaller:
    """The caller for these workflows. ``allow``: see ``AddressPolicy``."""
    if not any(_calls_out(definition) for definition in definitions):
        return NoHttp()
    from stepwell.adapters.http import AddressPolicy, AiohttpCaller  # noqa: PLC0415  (see ``NoHttp``)

    return AiohttpCaller(policy=AddressPolicy(allow=allow))


def _calls_out(definition: WorkflowDefinition) -> bool:
    elements = [
        element.handler
        for status in definition.statuses
        for element in (status.step, *status.callbacks, *status.timeouts)
        if element is not None
    ]
    hooks = definition.hooks
    return any(isinstance(h, HttpHandler) for h in (*elements, hooks.on_pause, hooks.on_cancel, hooks.on_complete))
