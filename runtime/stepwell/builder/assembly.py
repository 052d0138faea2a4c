"""From registered pieces to a definition. Nothing is raised before everything has been looked at.

A piece at fault still takes part, as far as it can be understood, so that one mistake does not cause ten others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar

from pydantic import BaseModel, RootModel
from pydantic.errors import PydanticUserError

from stepwell._domain.cron import Cron
from stepwell._domain.definition import (
    Handler,
    Hooks,
    Migration,
    Options,
    PythonHandler,
    Status,
    WorkflowDefinition,
)
from stepwell._domain.definition import Schedule as ScheduleDefinition
from stepwell._domain.graph import graph_problems
from stepwell._domain.rule_check import rule_problems
from stepwell.builder import limits
from stepwell.builder.elements import Elements
from stepwell.builder.ledger import Ledger, Plan, named
from stepwell.builder.pieces import (
    CallbackPiece,
    Code,
    ConnectorPiece,
    DeletionPiece,
    HookPiece,
    Piece,
    SchedulePiece,
    StepPiece,
    TimeoutPiece,
)
from stepwell.callables import ObjectCodec, ref_of
from stepwell.errors import DefinitionError, DefinitionErrors

NamedT = TypeVar("NamedT", ConnectorPiece, SchedulePiece, HookPiece, DeletionPiece)


@dataclass(frozen=True, kw_only=True)
class Assembled:
    """A definition, and the function that each of its references means."""

    definition: WorkflowDefinition
    functions: Mapping[str, Code]


def assemble(plan: Plan, pieces: Sequence[Piece], parts: Sequence[tuple[str, Any, Any]]) -> Assembled:
    """Build a workflow. ``parts``: (place, object model, status enum) of what was included.

    Raises ``DefinitionErrors``.
    """
    ledger = Ledger(plan=plan)
    _check_types(ledger)
    making = _Assembly(plan=plan, ledger=ledger)
    for place, object_type, status_type in parts:
        making.check_part(place, object_type, status_type)
    definition = making.definition(pieces)
    ledger.problems += [ledger.placed(problem) for problem in (*graph_problems(definition), *rule_problems(definition))]
    if ledger.problems:
        raise DefinitionErrors(plan.name, list(dict.fromkeys(ledger.problems)))
    return Assembled(definition=definition, functions=ledger.functions)


def _check_types(ledger: Ledger) -> None:
    """Without a model and an enum nothing else can be looked at."""
    # Seen as they may be at run time, which no annotation promises.
    object_type: Any = ledger.plan.object_type
    status_type: Any = ledger.plan.status_type
    if not (isinstance(object_type, type) and issubclass(object_type, BaseModel)):
        ledger.fault(ledger.top, f"object={named(object_type)}", "must be a pydantic model")
    elif issubclass(object_type, RootModel):
        ledger.fault(ledger.top, f"object={named(object_type)}", "must be a model with fields, not a RootModel")
    if not (isinstance(status_type, type) and issubclass(status_type, StrEnum)):
        ledger.fault(ledger.top, f"status={named(status_type)}", "must be a StrEnum")
    if ledger.problems:
        raise DefinitionErrors(ledger.plan.name, ledger.problems)


@dataclass(frozen=True, kw_only=True)
class _Assembly:
    plan: Plan
    ledger: Ledger

    def check_part(self, place: str, object_type: Any, status_type: Any) -> None:
        for what, theirs, ours in (
            ("object", object_type, self.plan.object_type),
            ("status", status_type, self.plan.status_type),
        ):
            if theirs is not ours:
                rule = f"the included part has {what}={named(theirs)}, the workflow {named(ours)}: they must be one"
                self.ledger.fault(f"{place} include", "", rule)

    def definition(self, pieces: Sequence[Piece]) -> WorkflowDefinition:
        plan, at = self.plan, self.ledger.top
        self._settings(at)
        defaults = self.ledger.options(at, Options(), plan.options)
        elements = Elements(ledger=self.ledger, defaults=defaults)
        connectors = self._unique(pieces, ConnectorPiece, "connector", limits.MAX_CONNECTORS)
        schedules = self._unique(pieces, SchedulePiece, "schedule", limits.MAX_SCHEDULES)
        self.ledger.places["spec.start"] = at
        statuses = self._statuses(at, pieces, elements)
        return WorkflowDefinition(
            name=plan.name,
            start=str(plan.start),
            statuses=statuses,
            defaults=defaults,
            object_schema=self._schema(at),
            lifespan=None if plan.lifespan is None else ref_of(plan.lifespan),
            partitions=plan.partitions,
            retry_paused_after=plan.retry_paused_after,
            timers_on_pause=plan.timers_on_pause,
            retention=plan.retention,
            connectors=tuple(elements.connector(i, piece) for i, piece in enumerate(connectors)),
            hooks=self._hooks(pieces),
            data_deletion=self._deletion(pieces),
            schedules=tuple(self._schedule(i, piece) for i, piece in enumerate(schedules)),
            migrations=tuple(Migration(source=old, to=str(new)) for old, new in plan.migrations.items()),
        )

    def _settings(self, at: str) -> None:
        plan = self.plan
        rules: list[tuple[str, str | None]] = [
            (repr(plan.name), limits.workflow_name_rule(plan.name)),
            (f"retry_paused_after={plan.retry_paused_after}", limits.duration_rule(plan.retry_paused_after, zero=True)),
        ]
        if plan.retention is not None:
            rules.append((f"retention={plan.retention}", limits.duration_rule(plan.retention, zero=False)))
        if not 1 <= plan.partitions <= limits.MAX_PARTITIONS:
            rules.append((f"partitions={plan.partitions}", f"must be from 1 to {limits.MAX_PARTITIONS}"))
        if not isinstance(plan.start, plan.status_type):
            rules.append((f"start={plan.start!r}", f"must be a member of {named(plan.status_type)}"))
        current = {str(member) for member in plan.status_type}
        rules += [
            (f"migrations[{old!r}]", "is a status still: only runs of a removed one can be migrated")
            for old in plan.migrations
            if old in current
        ]
        for value, rule in rules:
            if rule is not None:
                self.ledger.fault(at, value, rule)

    def _schema(self, at: str) -> Any:
        try:
            return ObjectCodec[Any](self.plan.object_type).schema()
        except (PydanticUserError, TypeError) as error:
            first_line = str(error).partition("\n")[0]
            self.ledger.fault(at, f"object={named(self.plan.object_type)}", f"has no JSON Schema: {first_line}")
            return None

    def _statuses(self, at: str, pieces: Sequence[Piece], elements: Elements) -> tuple[Status, ...]:
        members = list(self.plan.status_type)
        if not 1 <= len(members) <= limits.MAX_STATUSES:
            rule = f"has {len(members)} members; a workflow has 1 to {limits.MAX_STATUSES} statuses"
            self.ledger.fault(at, named(self.plan.status_type), rule)
        known: list[StepPiece | CallbackPiece | TimeoutPiece] = []
        for piece in pieces:
            if isinstance(piece, StepPiece | CallbackPiece | TimeoutPiece):
                if isinstance(piece.status, self.plan.status_type):
                    known.append(piece)
                else:
                    rule = f"is registered for a status that is no member of {named(self.plan.status_type)}"
                    self.ledger.fault(f"{piece.place} {elements.label(piece)}", repr(piece.status), rule)
        statuses = []
        for index, member in enumerate(members):
            path = f"spec.statuses[{index}]"
            mine = [piece for piece in known if piece.status is member]
            self.ledger.places[path] = f"{mine[0].place} status {member}" if mine else f"{at} status {member}"
            bad_name = limits.name_rule(str(member))
            if bad_name is not None:
                self.ledger.fault(at, f"{named(self.plan.status_type)}.{member.name} = {str(member)!r}", bad_name)
            statuses.append(elements.status(path, member, mine))
        return tuple(statuses)

    def _unique(self, pieces: Iterable[Piece], kind: type[NamedT], what: str, most: int) -> list[NamedT]:
        found = [piece for piece in pieces if isinstance(piece, kind)]
        kept: dict[str, NamedT] = {}
        for piece in found:
            name = getattr(piece, "name", "")
            first = kept.setdefault(name, piece)
            if first is not piece:
                self.ledger.fault(
                    f"{piece.place} {what} {name}".rstrip(), "", f"stands already at {first.place}: keep one"
                )
        if len(kept) > most:
            self.ledger.fault(self.ledger.top, "", f"has {len(kept)} {what}s, at most {most}")
        return list(kept.values())

    def _hooks(self, pieces: Sequence[Piece]) -> Hooks:
        hooks: dict[str, Handler] = {}
        for piece in self._unique(pieces, HookPiece, "hook", 3):
            hooks[piece.name] = self.ledger.python(piece.code)
        return Hooks(**hooks)

    def _deletion(self, pieces: Sequence[Piece]) -> PythonHandler | None:
        kept = self._unique(pieces, DeletionPiece, "data deletion", 1)
        return self.ledger.python(kept[0].code) if kept else None

    def _schedule(self, index: int, piece: SchedulePiece) -> ScheduleDefinition:
        at = f"{piece.place} schedule {piece.name}"
        self.ledger.places[f"spec.schedules[{index}]"] = at
        rules: list[tuple[str, str | None]] = [(repr(piece.name), limits.name_rule(piece.name))]
        try:
            Cron.parse(piece.cron, piece.time_zone)
        except DefinitionError as error:
            rules.append((f"{error.problem.path}={error.problem.value!r}", error.problem.rule))
        if piece.starting_deadline is not None:
            deadline = limits.duration_rule(piece.starting_deadline, zero=False)
            rules.append((f"starting_deadline={piece.starting_deadline}", deadline))
        for value, rule in rules:
            if rule is not None:
                self.ledger.fault(at, value, rule)
        return ScheduleDefinition(
            name=piece.name,
            cron=piece.cron,
            time_zone=piece.time_zone,
            function=self.ledger.python(piece.code),
            catch_up=piece.catch_up,
            concurrency_policy=piece.concurrency_policy,
            starting_deadline=piece.starting_deadline,
            suspend=piece.suspend,
        )
