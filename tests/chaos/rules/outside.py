"""P8 and P9: what was erased is nowhere to be found; and who reads a topic is told of things that are so, in order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from tests.chaos.evidence import Ask, Evidence, Heard, Violation

_OF_A_VERSION = frozenset({"step", "delete", "timeout", "arm", "hook", "start"})


def erased_is_gone(evidence: Evidence) -> Iterator[Violation]:
    """P8: an acknowledged erasure is carried out, and nothing of ours returns the payload afterwards."""
    for note in evidence.notes:
        if note.ask is Ask.ERASE and note.acknowledged:
            run = evidence.runs.get(note.run_id)
            if run is not None and run.state != "DataDeleted":
                yield Violation("P8", note.run_id, f"its erasure was acknowledged, and it is {run.state}")
    for found in evidence.found:
        yield Violation("P8", found.run_id, f"its payload is still in {found.place}")


def events_are_true_and_in_order(evidence: Evidence) -> Iterator[Violation]:
    """P9: a run's events lie in one partition, tell of stored versions only, and come in order while all is well."""
    places: dict[tuple[str, str], set[int]] = defaultdict(set)
    newest: dict[tuple[str, str], int] = {}
    for heard in sorted(evidence.heard, key=lambda heard: (heard.topic, heard.partition, heard.offset)):
        if not heard.run_id:
            continue
        key = (heard.topic, heard.run_id)
        places[key].add(heard.partition)
        yield from _is_so(evidence, heard)
        if heard.kind != "step":
            continue
        seen = newest.get(key, 0)
        if heard.version < seen and not evidence.unrest and not _repeated(evidence, heard):
            what = f"version {heard.version} was first heard of behind version {seen} ({_place(heard)})"
            yield Violation("P9", heard.run_id, what)
        newest[key] = max(seen, heard.version)
    for (topic, run_id), partitions in places.items():
        if len(partitions) > 1:
            yield Violation("P9", run_id, f"its events lie in partitions {sorted(partitions)} of {topic}")


def _is_so(evidence: Evidence, heard: Heard) -> Iterator[Violation]:
    lines = evidence.history.get(heard.run_id, ())
    line = next((line for line in lines if line.version == heard.version), None)
    if heard.kind in _OF_A_VERSION and line is None:
        yield Violation(
            "P9", heard.run_id, f"{heard.kind} of version {heard.version}, which was never stored ({_place(heard)})"
        )
    elif heard.kind in {"step", "delete"} and line is not None and line.to_status != heard.status:
        what = f"{heard.kind} of version {heard.version} in {heard.status}, which is {line.to_status} ({_place(heard)})"
        yield Violation("P9", heard.run_id, what)


def _repeated(evidence: Evidence, heard: Heard) -> bool:
    """Whether an outsider has heard of this version before."""
    return any(
        other.run_id == heard.run_id
        and (other.topic, other.kind, other.version) == (heard.topic, heard.kind, heard.version)
        and other.offset < heard.offset
        for other in evidence.heard
    )


def _place(heard: Heard) -> str:
    return f"{heard.topic}/{heard.partition}@{heard.offset}"
