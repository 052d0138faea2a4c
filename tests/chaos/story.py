"""Evidence written by hand: a small world in which all went well, to be spoiled in one place at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from tests.chaos.evidence import (
    Answer,
    Ask,
    Call,
    Evidence,
    FinalRun,
    Graph,
    Heard,
    InboxLine,
    Line,
    Note,
    Planned,
    TickLine,
)

GRAPH = Graph(
    starts=frozenset({"New", "Sent"}),
    ends=frozenset({"Done", "Rejected"}),
    moves={
        ("New", "step"): frozenset({"Review", "Sent"}),
        ("Review", "callback/reviewed"): frozenset({"Sent", "Rejected"}),
        ("Review", "timeout/remind"): frozenset({"Review"}),
        ("Review", "timeout/expire"): frozenset({"Rejected"}),
        ("Sent", "step"): frozenset({"Done"}),
    },
    timeouts={("Review", "remind"): 1.0, ("Review", "expire"): 5.0},
    hooks=frozenset({"on_pause", "on_cancel", "on_complete"}),
)
MINUTE = datetime(2026, 1, 1, 12, tzinfo=UTC)
TICKS = frozenset(MINUTE + timedelta(minutes=n) for n in range(3))
CLOSED = 1000.0


@dataclass
class Run:
    """One run under way; each method adds what would have been seen of it, a second later."""

    story: Story
    run_id: str
    foreign_id: str
    now: float
    status: str = ""
    state: str = "Initiated"
    version: int = 0
    visit: int = 0
    work: int = 0
    erased: bool = False

    def line(self, kind: str, to: str, state: str, actor: str) -> None:
        self.version += 1
        self.story.lines.append(
            Line(
                run_id=self.run_id,
                version=self.version,
                kind=kind,
                at=self.now,
                from_status=self.status,
                to_status=to,
                state=state,
                actor=actor,
            )
        )
        if kind in {"trigger", "move"}:
            self.visit = self.work = self.version
        elif kind == "save":
            self.work = self.version
        self.status, self.state = to, state
        self.story.runs[self.run_id] = FinalRun(
            run_id=self.run_id, foreign_id=self.foreign_id, state=state, status=to, version=self.version
        )
        if kind in {"trigger", "move"} and state != "Completed":
            self.heard("step")

    def heard(self, kind: str) -> None:
        self.story.heard.append(
            Heard(
                topic="t",
                partition=int(self.run_id[-1]) % 2,
                offset=next(self.story.numbers),
                kind=kind,
                run_id=self.run_id,
                version=self.version,
                status=self.status,
            )
        )

    def call(self, kind: str, key: str, answer: str, *, name: str = "", children: tuple[str, ...] = ()) -> None:
        self.now += 1
        self.story.calls.append(
            Call(
                kind=kind,
                name=name,
                run_id=self.run_id,
                status=self.status,
                version=self.version,
                attempt=1,
                key=key,
                pid=7,
                began=self.now - 0.5,
                ended=self.now - 0.1,
                answer=answer,
                children=children,
            )
        )

    def step(self, to: str, *, children: tuple[str, ...] = ()) -> None:
        self.call("step", f"{self.run_id}/{self.work}", f"to {to}", children=children)
        self.line("move", to, "Completed" if to in GRAPH.ends else "Running", "step")
        self.completed()

    def save(self) -> None:
        self.call("step", f"{self.run_id}/{self.work}", "save")
        self.line("save", self.status, "Running", "step")

    def callback(self, to: str) -> None:
        receipt = f"inbox-{self.run_id}"
        self.story.note(Ask.CALLBACK, self, receipt=receipt)
        self.story.inbox[receipt] = InboxLine(inbox_id=receipt, run_id=self.run_id, name="reviewed", state="Applied")
        self.call("callback", receipt, f"to {to}", name="reviewed")
        self.line("move", to, "Completed" if to in GRAPH.ends else "Running", "callback/reviewed")
        self.completed()

    def timeout(self, name: str, to: str | None = None) -> None:
        self.call("timeout", f"{self.run_id}/{self.visit}/{name}", f"to {to}" if to else "save", name=name)
        self.line(
            "move" if to else "save",
            to or self.status,
            "Completed" if to in GRAPH.ends else "Running",
            f"timeout/{name}",
        )
        self.completed()

    def completed(self) -> None:
        if self.state == "Completed":
            self.call("hook", "", "done", name="on_complete")

    def wish(self, ask: Ask, state: str, hook: str = "") -> None:
        self.now += 1
        self.line(str(ask), self.status, state, "sdk")
        self.story.note(ask, self)
        if hook:
            self.call("hook", "", "done", name=hook)

    def erase(self) -> None:
        self.now += 1
        self.line("delete", self.status, "RequestedDataDeleted", "sdk")
        self.heard("delete")
        self.story.note(Ask.ERASE, self)
        self.line("delete", self.status, "DataDeleted", "data-deletion")


@dataclass
class Story:
    """Everything that was seen."""

    notes: list[Note] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    runs: dict[str, FinalRun] = field(default_factory=dict)
    lines: list[Line] = field(default_factory=list)
    inbox: dict[str, InboxLine] = field(default_factory=dict)
    heard: list[Heard] = field(default_factory=list)
    ticks: list[TickLine] = field(default_factory=list)
    numbers: count[int] = field(default_factory=count)

    def note(self, ask: Ask, run: Run, receipt: str = "") -> None:
        self.notes.append(
            Note(
                ask=ask,
                foreign_id=run.foreign_id,
                run_id=run.run_id,
                asked=run.now - 0.01,
                answered=run.now + 0.01,
                answer=Answer.ACKNOWLEDGED,
                request_id=f"{ask}-{run.run_id}-{run.version}",
                receipt=receipt,
            )
        )

    def told(self, ask: Ask, now: float, foreign_id: str = "") -> None:
        answer = Answer.ACKNOWLEDGED
        self.notes.append(Note(ask=ask, foreign_id=foreign_id, asked=now - 0.01, answered=now + 0.01, answer=answer))

    def run(self, run_id: str, foreign_id: str, now: float, *, actor: str = "sdk", status: str = "New") -> Run:
        run = Run(self, run_id, foreign_id, now)
        run.line("trigger", status, "Initiated", actor)
        if actor == "sdk":
            self.note(Ask.TRIGGER, run)
        return run

    def evidence(self, **changed: Any) -> Evidence:
        return Evidence(
            **{
                "graph": GRAPH,
                "notes": self.notes,
                "calls": self.calls,
                "runs": self.runs,
                "lines": self.lines,
                "ticks": self.ticks,
                "inbox": self.inbox,
                "heard": self.heard,
                "owed": [Planned(schedule="minutely", times=TICKS)],
                "settled": CLOSED,
                "closed": CLOSED,
            }
            | changed
        )


def good() -> Story:
    """Four callers' runs, a child, and the runs of a schedule."""
    story = Story()
    first = story.run("run-1", "a", 100.0)
    first.save()
    first.step("Review")
    first.now += 0.6
    first.timeout("remind")
    first.callback("Sent")
    first.step("Done", children=("a.6",))
    story.run("run-2", "a.6", 110.0, actor="run/run-1", status="Sent").step("Done")
    # The same foreign id again, once it is free.
    again = story.run("run-3", "a", 120.0)
    again.step("Review")
    again.wish(Ask.PAUSE, "Paused", "on_pause")
    again.now += 10
    again.wish(Ask.RESUME, "Running")
    again.wish(Ask.CANCEL, "Cancelled", "on_cancel")
    erased = story.run("run-4", "b", 200.0)
    erased.step("Sent")
    erased.step("Done")
    erased.erase()
    late = story.run("run-5", "c", 300.0)
    late.step("Review")
    late.now += 0.6
    late.timeout("remind")
    late.now += 0.6
    late.call("timeout", "run-5/2/remind", "skip", name="remind")
    late.now += 1.4
    late.timeout("expire", "Rejected")
    fed = story.run("run-6", "feed-1", 600.0, actor="connector/feed", status="Sent")
    story.told(Ask.FEED, 599.0, foreign_id="feed-1")
    fed.step("Done")
    story.told(Ask.SUSPEND, 700.0)
    story.told(Ask.CONTINUE, 710.0)
    for number, planned in enumerate(sorted(TICKS)):
        run = story.run(f"run-t{number}", f"t{number}", 400.0 + number, actor="schedule/minutely", status="Sent")
        run.step("Done")
        story.ticks.append(tick(planned, "Started", run.run_id))
    return story


def tick(planned: datetime, outcome: str, run_id: str = "", reason: str = "") -> TickLine:
    """One planned time of the schedule."""
    at = (planned - MINUTE).total_seconds()
    return TickLine(schedule="minutely", planned=planned, at=at, outcome=outcome, reason=reason, run_id=run_id)


def changed(items: list[Any], condition: Callable[[Any], bool], **values: Any) -> None:
    """Replace fields of the one item that is meant."""
    [index] = [number for number, item in enumerate(items) if condition(item)]
    items[index] = replace(items[index], **values)
