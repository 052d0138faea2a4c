"""The elements of one status: a step, callbacks and timeouts, each with the destinations that its annotation names."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum

from stepwell._domain.definition import (
    Callback,
    CelHandler,
    Connector,
    Handler,
    HttpHandler,
    Options,
    Source,
    SourceKind,
    Status,
    Step,
    Timeout,
)
from stepwell.builder import limits
from stepwell.builder.ledger import Ledger
from stepwell.builder.pieces import CallbackPiece, Code, ConnectorPiece, StepPiece, TimeoutPiece
from stepwell.builder.values import InProcess, JsonLines, KafkaTopic
from stepwell.builder.values import Source as SourceValue
from stepwell.callables import HandlerShape, inspect_arm, inspect_callback, inspect_message, inspect_step

StatusPiece = StepPiece | CallbackPiece | TimeoutPiece


@dataclass(frozen=True, kw_only=True)
class Elements:
    """Turns pieces into elements, noting every fault."""

    ledger: Ledger
    defaults: Options

    @staticmethod
    def label(piece: StatusPiece) -> str:
        """How messages call an element."""
        match piece:
            case StepPiece():
                return f"step {piece.status}"
            case CallbackPiece():
                return f"callback {piece.status}/{piece.name}"
            case TimeoutPiece():
                return f"timeout {piece.status}/{piece.name}"

    def status(self, path: str, member: StrEnum, pieces: Sequence[StatusPiece]) -> Status:
        """One status; without pieces it is terminal."""
        kept = self._unique(pieces)
        steps = [piece for piece in kept if isinstance(piece, StepPiece)]
        callbacks = [piece for piece in kept if isinstance(piece, CallbackPiece)]
        timeouts = [piece for piece in kept if isinstance(piece, TimeoutPiece)]
        for what, found, most in (
            ("callbacks", callbacks, limits.MAX_CALLBACKS),
            ("timeouts", timeouts, limits.MAX_TIMEOUTS),
        ):
            if len(found) > most:
                self.ledger.fault(self.ledger.places[path], "", f"has {len(found)} {what}, at most {most}")
        return Status(
            name=str(member),
            terminal=not pieces,
            step=self._step(f"{path}.step", steps[0]) if steps else None,
            callbacks=tuple(self._callback(f"{path}.callbacks[{i}]", piece) for i, piece in enumerate(callbacks)),
            timeouts=tuple(self._timeout(f"{path}.timeouts[{i}]", piece) for i, piece in enumerate(timeouts)),
        )

    def _unique(self, pieces: Sequence[StatusPiece]) -> list[StatusPiece]:
        kept: dict[tuple[type[StatusPiece], str], StatusPiece] = {}
        for piece in pieces:
            name = "" if isinstance(piece, StepPiece) else piece.name
            first = kept.setdefault((type(piece), name), piece)
            if first is not piece:
                rule = f"stands already at {first.place}: keep one of them"
                self.ledger.fault(f"{piece.place} {self.label(piece)}", "", rule)
        return list(kept.values())

    def _step(self, path: str, piece: StepPiece) -> Step:
        at = self._placed(path, piece)
        options = self.ledger.options(at, self.defaults, piece.options)
        handler: Handler
        match piece.handler:
            case Code() as code:
                handler = self.ledger.python(code)
                to = self._destinations(at, piece, inspect_step(code.function, code.names))
            case HttpHandler() as handler:
                self.ledger.http(at, handler)
                to = self._given(at, piece)
            case CelHandler() as handler:
                to = self._given(at, piece)
        return Step(handler=handler, to=to, options=options)

    def _callback(self, path: str, piece: CallbackPiece) -> Callback:
        at = self._placed(path, piece)
        self._check_name(at, piece.name)
        rule = limits.duration_rule(piece.hold, zero=True)
        if rule is not None:
            self.ledger.fault(at, f"hold={piece.hold}", rule)
        shape = inspect_callback(piece.code.function, piece.code.names)
        return Callback(
            name=piece.name,
            handler=self.ledger.python(piece.code),
            to=self._destinations(at, piece, shape),
            hold=piece.hold,
            options=self.ledger.options(at, self.defaults, piece.options),
        )

    def _timeout(self, path: str, piece: TimeoutPiece) -> Timeout:
        at = self._placed(path, piece)
        self._check_name(at, piece.name)
        if (piece.after is None) == (piece.at is None):
            self.ledger.fault(at, "", "must have exactly one of after= and at=")
        rule = None if piece.after is None else limits.duration_rule(piece.after, zero=False)
        if rule is not None:
            self.ledger.fault(at, f"after={piece.after}", rule)
        if piece.at is not None:
            self._faults(f"{at} at=", inspect_arm(piece.at.function, piece.at.names))
        shape = inspect_step(piece.code.function, piece.code.names)
        return Timeout(
            name=piece.name,
            handler=self.ledger.python(piece.code),
            to=self._destinations(at, piece, shape),
            after=piece.after,
            at=None if piece.at is None else self.ledger.python(piece.at),
            options=self.ledger.options(at, self.defaults, piece.options),
        )

    def connector(self, index: int, piece: ConnectorPiece) -> Connector:
        """A connector of the workflow."""
        at = f"{piece.place} connector {piece.name}"
        self.ledger.places[f"spec.connectors[{index}]"] = at
        self._check_name(at, piece.name)
        for rule in inspect_message(piece.code.function, piece.code.names).faults:
            self.ledger.fault(at, "", rule)
        return Connector(
            name=piece.name,
            source=_source(piece.source),
            handler=self.ledger.python(piece.code),
            options=self.ledger.options(at, self.defaults, piece.options),
        )

    def _placed(self, path: str, piece: StatusPiece) -> str:
        at = f"{piece.place} {self.label(piece)}"
        self.ledger.places[path] = at
        return at

    def _check_name(self, at: str, name: str) -> None:
        rule = limits.name_rule(name)
        if rule is not None:
            self.ledger.fault(at, repr(name), f"{rule}; give it one with name=")

    def _faults(self, at: str, shape: HandlerShape) -> None:
        for rule in shape.faults:
            self.ledger.fault(at, "", rule)
        ours = self.ledger.plan.object_type
        if shape.model is not None and shape.model is not ours:
            theirs = getattr(shape.model, "__name__", shape.model)
            self.ledger.fault(at, f"Run[{theirs}]", f"must be Run[{ours.__name__}], the workflow's object")

    def _destinations(self, at: str, piece: StatusPiece, shape: HandlerShape) -> tuple[str, ...]:
        """What the annotation and ``to=`` say together."""
        self._faults(at, shape)
        given = self._members(at, piece.to, "to=")
        if shape.members is None:
            if not piece.to and not shape.faults:
                rule = (
                    "names no destination: annotate what it returns, `-> Literal[S.NEXT, ...]`"
                    " (with `| Directive` if it returns one), or give to=[...]"
                )
                self.ledger.fault(at, "", rule)
            return self._bounded(at, given)
        named = self._members(at, shape.members, "its return annotation")
        if piece.to and set(named) != set(given):
            rule = f"must agree with its return annotation, which names {', '.join(named)}: leave to= out"
            self.ledger.fault(at, f"to={', '.join(given)}", rule)
        return self._bounded(at, named)

    def _given(self, at: str, piece: StatusPiece) -> tuple[str, ...]:
        if not piece.to:
            self.ledger.fault(at, "", "names no destination")
        return self._bounded(at, self._members(at, piece.to, "to="))

    def _members(self, at: str, members: Sequence[object], where: str) -> tuple[str, ...]:
        kind = self.ledger.plan.status_type
        for member in members:
            if not isinstance(member, kind):
                shown = f"{type(member).__name__}.{member.name}" if isinstance(member, Enum) else repr(member)
                self.ledger.fault(at, shown, f"stands in {where} and is no member of {kind.__name__}")
        return tuple(dict.fromkeys(str(member) for member in members if isinstance(member, kind)))

    def _bounded(self, at: str, names: tuple[str, ...]) -> tuple[str, ...]:
        if len(names) > limits.MAX_DESTINATIONS:
            self.ledger.fault(at, "", f"has {len(names)} destinations, at most {limits.MAX_DESTINATIONS}")
        return names


def _source(source: SourceValue) -> Source:
    match source:
        case KafkaTopic():
            return Source(kind=SourceKind.KAFKA, topic=source.topic, start_from=source.start_from)
        case JsonLines():
            return Source(kind=SourceKind.JSON_LINES, topic=source.path)
        case InProcess():
            return Source(kind=SourceKind.IN_PROCESS, topic=source.topic)
