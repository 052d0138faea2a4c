"""What is known of one run, in the order in which it happened: to be read by who looks for a cause."""

from __future__ import annotations

from tests.chaos.evidence import Evidence


def timeline(evidence: Evidence, run_id: str) -> str:
    """One line for each note, call and version, in seconds of the machine's monotonic time."""
    told: list[tuple[float, str]] = []
    for note in evidence.notes:
        if note.run_id == run_id:
            told.append((note.asked, f"asked     {note.ask} {note.request_id}"))
            told.append((note.answered, f"answered  {note.ask} {note.request_id} {note.answer} {note.detail}"))
    for call in evidence.calls_of.get(run_id, ()):
        name = call.name or call.status
        what = f"{call.kind} {name} v{call.version} attempt {call.attempt} pid {call.pid} {call.key}"
        told.append((call.began, f"began     {what}"))
        if call.ended is not None:
            told.append((call.ended, f"ended     {what}: {call.answer}"))
    for line in evidence.history.get(run_id, ()):
        what = f"v{line.version} {line.kind} {line.from_status} to {line.to_status}, {line.state}, by {line.actor}"
        told.append((line.at, f"stored    {what} {line.reason}"))
    told += [(span.began, f"unrest    until {span.ended:.3f}") for span in evidence.unrest]
    return "\n".join([f"run {run_id}", *(f"{at:12.3f}  {what}" for at, what in sorted(told)), ""])
