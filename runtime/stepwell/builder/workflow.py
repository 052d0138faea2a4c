"""A workflow written in Python. ``build`` gives the frozen definition, or every problem at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from datetime import timedelta

from stepwell._domain.definition import TimersOnPause, WorkflowDefinition
from stepwell.builder.assembly import Assembled, assemble
from stepwell.builder.ledger import Plan
from stepwell.builder.pieces import Scope
from stepwell.builder.steps import Steps
from stepwell.builder.tokens import DepsT, EnumT, ModelT
from stepwell.builder.values import Options

_HOUR = timedelta(hours=1)


class Workflow(Steps[ModelT, EnumT, DepsT]):
    """A graph of statuses. Members of ``status`` that have no step, callback or timeout are its ends.

    ``lifespan`` yields the handlers' ``run.deps``; it is entered once per process before the first handler starts, and
    left after the last. ``retry_paused_after``: runs that errors paused are tried again after this; 0: never.
    ``retention``: finished runs are deleted after this; None: kept. ``migrations``: where live runs of a status that
    the enum has no more go, by the old status's name.
    """

    def __init__(
        self,
        name: str,
        *,
        object: type[ModelT],  # noqa: A002  (the run's object, as everywhere)
        status: type[EnumT],
        start: EnumT,
        lifespan: Callable[[], AbstractAsyncContextManager[DepsT]] | None = None,
        options: Options | None = None,
        partitions: int = 12,
        retry_paused_after: timedelta = _HOUR,
        timers_on_pause: TimersOnPause = TimersOnPause.FREEZE,
        retention: timedelta | None = None,
        migrations: Mapping[str, EnumT] | None = None,
    ) -> None:
        super().__init__(object, status)
        self.name = name
        self.lifespan = lifespan
        self._plan = Plan(
            place=Scope.of_caller(1).place,
            name=name,
            object_type=object,
            status_type=status,
            start=start,
            lifespan=lifespan,
            options=options,
            partitions=partitions,
            retry_paused_after=retry_paused_after,
            timers_on_pause=timers_on_pause,
            retention=retention,
            migrations=dict(migrations or {}),
        )
        self._parts: list[tuple[str, Steps[ModelT, EnumT, DepsT] | Steps[ModelT, EnumT, None]]] = []
        self._assembled: tuple[int, Assembled] | None = None

    @property
    def _workflow_name(self) -> str | None:
        return self.name

    def include(self, part: Steps[ModelT, EnumT, DepsT] | Steps[ModelT, EnumT, None]) -> None:
        """Take in all that a part has, now or when the workflow is built."""
        self._parts.append((Scope.of_caller(1).place, part))

    def build(self) -> WorkflowDefinition:
        """The definition. Raises ``DefinitionErrors`` with every problem, each with its ``module:line`` and remedy."""
        return self.assemble().definition

    def assemble(self) -> Assembled:
        """The definition with its functions; made again only if something was registered since."""
        pieces = [*self.pieces, *(piece for _, part in self._parts for piece in part.pieces)]
        size = len(pieces) + len(self._parts)
        if self._assembled is None or self._assembled[0] != size:
            parts = [(place, part.object_type, part.status_type) for place, part in self._parts]
            self._assembled = (size, assemble(self._plan, pieces, parts))
        return self._assembled[1]
