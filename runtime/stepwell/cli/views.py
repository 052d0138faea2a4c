"""Runs as people and programs see them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from stepwell._domain.definition import WorkflowDefinition
from stepwell._domain.record import NEVER, HistoryEntry, Hook, InboxRow, Record, Timer
from stepwell._domain.states import RunState
from stepwell._worker.live import why_stuck
from stepwell.cli.render import age, clean, clock_time, print_fields, print_table, timestamp


def run_json(record: Record, *, with_object: bool = True) -> dict[str, Any]:
    """A run, whole."""
    skipped = record.not_before == NEVER
    out: dict[str, Any] = {
        "runID": record.run_id,
        "workflow": record.workflow,
        "foreignID": record.foreign_id,
        "state": record.state,
        "status": record.status,
        "version": record.version,
        "attempts": record.attempts,
        "notBefore": None if skipped else timestamp(record.not_before),
        "skipped": skipped,
        "lastError": record.last_error,
        "pauseReason": record.pause_code,
        "reason": record.reason,
        "startedAt": timestamp(record.started_at),
        "enteredAt": timestamp(record.entered_at),
        "updatedAt": timestamp(record.updated_at),
        "finishedAt": timestamp(record.finished_at),
    }
    return {**out, "object": json.loads(record.object or b"null")} if with_object else out


def print_runs(records: Sequence[Record], now: datetime) -> None:
    """A table, as ``kubectl get`` has them."""
    columns = ("WORKFLOW", "FOREIGN ID", "STATE", "STATUS", "ATTEMPTS", "AGE", "IN STATUS", "RUN ID", "WHY")
    rows = [
        (
            record.workflow,
            record.foreign_id,
            record.state,
            record.status,
            record.attempts,
            age(now - record.started_at),
            age((record.finished_at or now) - record.entered_at),
            record.run_id,
            why_stuck(record) or record.reason,
        )
        for record in records
    ]
    print_table(columns, rows, empty="no runs found")


@dataclass(frozen=True, kw_only=True)
class Details:
    """A run and all that hangs on it."""

    record: Record
    suspended: bool
    definition: WorkflowDefinition
    timers: Sequence[Timer]
    callbacks: Sequence[InboxRow]
    hooks: Sequence[Hook]
    now: datetime

    @property
    def why(self) -> str:
        """What it is doing, or what it waits for."""
        record, status = self.record, self.definition.status(self.record.status)
        if record.state.finished:
            return f"has ended: {record.reason}" if record.reason else "has ended"
        if record.state is RunState.PAUSED:
            again = f"; tried again {self._when(record.not_before)}" if record.not_before else ""
            return f"is paused: {why_stuck(record)}{again}"
        if self.suspended:
            return f"workflow {record.workflow} is suspended"
        if status is None:
            return f"its status {record.status} is not in the workflow any more"
        if record.not_before is not None and record.not_before != NEVER:
            failed = f"attempt {record.attempts} failed: {record.last_error}; " if record.last_error else ""
            return f"{failed}next attempt {self._when(record.not_before)}"
        if status.step is not None and record.not_before is None:
            return "its step runs, or runs as soon as there is a free slot"
        return self._awaits([callback.name for callback in status.callbacks])

    def _awaits(self, callbacks: Sequence[str]) -> str:
        waits = [f"callback {name}" for name in callbacks]
        waits += [f"timeout {timer.name} {self._when(timer.due_at)}" for timer in self.timers]
        skipped = "its step answered skip(); " if self.record.not_before == NEVER else ""
        return f"{skipped}waits for {' or '.join(waits) or 'a person'}"

    def _when(self, at: datetime | None) -> str:
        if at is None:
            return "(no time yet)"
        return f"in {age(at - self.now)} ({clock_time(at)})" if at > self.now else f"now (due {clock_time(at)})"

    def as_json(self) -> dict[str, Any]:
        """All of it."""
        return {
            **run_json(self.record),
            "workflowSuspended": self.suspended,
            "why": self.why,
            "timers": [
                {
                    "name": timer.name,
                    "dueAt": timestamp(timer.due_at),
                    "remainingMs": timer.remaining_ms,
                    "attempts": timer.attempts,
                    "lastError": timer.last_error,
                }
                for timer in self.timers
            ],
            "callbacks": [
                {
                    "id": row.inbox_id,
                    "name": row.name,
                    "createdAt": timestamp(row.created_at),
                    "holdUntil": timestamp(row.hold_until),
                    "attempts": row.attempts,
                    "lastError": row.last_error,
                }
                for row in self.callbacks
            ],
            "hooks": [
                {
                    "name": hook.name,
                    "version": hook.version,
                    "nextAt": timestamp(hook.next_at),
                    "attempts": hook.attempts,
                    "lastError": hook.last_error,
                }
                for hook in self.hooks
            ],
        }

    def print(self) -> None:
        """For people."""
        record = self.record
        print_fields(
            [
                ("Foreign id", record.foreign_id),
                ("Run id", record.run_id),
                ("Workflow", record.workflow),
                ("State", record.state),
                ("Status", record.status),
                ("Version", record.version),
                ("Attempts", record.attempts),
                ("Last error", record.last_error),
                ("Started", clock_time(record.started_at)),
                ("In status", f"{age((record.finished_at or self.now) - record.entered_at)}"),
                ("Finished", record.finished_at and clock_time(record.finished_at)),
                ("Why", self.why),
            ]
        )
        sys.stdout.write("Object:\n")
        text = json.dumps(json.loads(record.object or b"null"), indent=2, ensure_ascii=False)
        sys.stdout.write("".join(f"  {clean_line(line)}\n" for line in text.splitlines()))
        self._print_lists()

    def _print_lists(self) -> None:
        waiting = [(r.name, f"for {age(self.now - r.created_at)}", r.attempts, r.last_error) for r in self.callbacks]
        parts = (
            ("Timers", [(t.name, self._timer(t), t.attempts, t.last_error) for t in self.timers]),
            ("Callbacks", waiting),
            ("Hooks", [(h.name, self._when(h.next_at), h.attempts, h.last_error) for h in self.hooks]),
        )
        for title, rows in parts:
            if rows:
                sys.stdout.write(f"{title}:\n")
                print_table(("NAME", "WHEN", "ATTEMPTS", "LAST ERROR"), rows, indent="  ")

    def _timer(self, timer: Timer) -> str:
        if timer.remaining_ms is not None:
            return f"frozen with {timer.remaining_ms / 1000:g} s left"
        return self._when(timer.due_at)


def clean_line(line: str) -> str:
    """As ``clean``, with the indentation kept."""
    body = line.lstrip(" ")
    return line[: len(line) - len(body)] + clean(body)


def history_json(entries: Sequence[HistoryEntry], now: datetime) -> list[dict[str, Any]]:
    """Every version, with how long the run stood as it left it."""
    return [
        {
            "version": entry.version,
            "kind": entry.kind,
            "at": timestamp(entry.at),
            "from": entry.from_status,
            "to": entry.to_status,
            "state": entry.state,
            "actor": entry.actor,
            "reason": entry.reason,
            "dwellSeconds": None if dwell is None else round(dwell.total_seconds(), 6),
        }
        for entry, dwell in _dwells(entries, now)
    ]


def print_history(entries: Sequence[HistoryEntry], now: datetime) -> None:
    """Oldest first."""
    columns = ("VERSION", "AT", "KIND", "FROM", "TO", "STATE", "ACTOR", "FOR", "REASON")
    rows = [
        (
            entry.version,
            clock_time(entry.at),
            entry.kind,
            entry.from_status or "-",
            entry.to_status,
            entry.state,
            entry.actor,
            "-" if dwell is None else _short(dwell.total_seconds()),
            entry.reason,
        )
        for entry, dwell in _dwells(entries, now)
    ]
    print_table(columns, rows)


def _short(seconds: float) -> str:
    return f"{round(seconds * 1000)}ms" if seconds < 1 else age(timedelta(seconds=seconds))


def _dwells(entries: Sequence[HistoryEntry], now: datetime) -> list[tuple[HistoryEntry, Any]]:
    """Each entry with the time until the next one; the last of an ended run has none."""
    ends = [entry.at for entry in entries[1:]]
    last = [] if not entries else [None if entries[-1].state.finished else now]
    return [
        (entry, None if end is None else end - entry.at) for entry, end in zip(entries, [*ends, *last], strict=True)
    ]
