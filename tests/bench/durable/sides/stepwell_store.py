"""One measurement of our store alone: moves per second with N runs in flight, each move with its history and its event.

Run as ``python -m tests.bench.durable.sides.stepwell_store --dsn DSN --in-flight N --moves M``; prints one JSON line.

- A *move* is one ``PostgresStore.advance`` of one decision, as the engine's rules make it: a compare-and-swap of the
  row, a row of history and a row of the outbox, which is deleted again along with a later move.
- Decisions are made before the clock starts: what the engine costs is measured end to end, not here.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
from time import perf_counter

from tests.bench.process import NotMeasuredError, say

from stepwell._domain.decide import begin, decide
from stepwell._domain.decision import Decision
from stepwell._domain.definition import Options, PythonHandler, Status, Step, WorkflowDefinition
from stepwell._domain.ids import ForeignID, RunID, uuid7
from stepwell._domain.outcomes import ByStep, Goes
from stepwell._domain.record import Record, StartRequest
from stepwell.adapters.postgres import PostgresStore
from stepwell.ports.stream import EventStream

NAMESPACE = "default"
OBJECT = b'{"number": 1, "text": "' + b"x" * 170 + b'"}'
WARM_UP_MOVES = 8

_CODE = PythonHandler(ref="bench:handler")
ROUND_AND_ROUND = WorkflowDefinition(
    name="bench",
    start="Ping",
    statuses=(
        Status(name="Ping", step=Step(handler=_CODE, to=("Pong", "Done"), options=Options())),
        Status(name="Pong", step=Step(handler=_CODE, to=("Ping", "Done"), options=Options())),
        Status(name="Done", terminal=True),
    ),
)


def request(store: PostgresStore, number: int) -> StartRequest:
    return StartRequest(
        namespace=NAMESPACE,
        workflow=ROUND_AND_ROUND.name,
        run_id=RunID(uuid7(store.now(), number.to_bytes(10, "big"))),
        foreign_id=ForeignID(f"order-{number}"),
        object=OBJECT,
        actor="sdk",
        start=None,
        key=None,
        if_none_ever=False,
        trace="",
    )


def path(store: PostgresStore, record: Record, moves: int) -> list[Decision]:
    """The next decisions of a run, one after another."""
    made: list[Decision] = []
    for _ in range(moves):
        answer = Goes(to="Pong" if record.status == "Ping" else "Ping", object=OBJECT)
        decision = decide(ROUND_AND_ROUND, record, ByStep(), answer, store.now(), jitter=0.5)
        if not isinstance(decision, Decision):
            raise NotMeasuredError(f"no decision for a run in status {record.status}: {decision}")
        made.append(decision)
        record = decision.record
    return made


async def lane(store: PostgresStore, stream: EventStream, decisions: list[Decision]) -> None:
    """One run: a move is asked for as soon as the one before is stored, and its event is done with then."""
    for decision in decisions:
        (won,) = await store.advance([decision], keep={decision.record.run_id})
        if won is None or won.kept is None:
            raise NotMeasuredError(f"run {decision.record.run_id}: version {decision.record.version} was not stored")
        stream.finish([won.kept])


async def measure(dsn: str, in_flight: int, moves: int) -> dict[str, float]:
    store = await PostgresStore.open(dsn, name="bench")
    try:
        await store.make_partitions()
        stream = store.stream()
        wishes = [request(store, number) for number in range(in_flight)]
        begun = [(wish, begin(ROUND_AND_ROUND, wish, store.now())) for wish in wishes]
        await store.start(begun)
        share = max(1, moves // in_flight)
        paths = [path(store, decision.record, WARM_UP_MOVES + share) for _, decision in begun]
        await asyncio.gather(*(lane(store, stream, each[:WARM_UP_MOVES]) for each in paths))
        gc.collect()
        gc.freeze()
        started = perf_counter()
        await asyncio.gather(*(lane(store, stream, each[WARM_UP_MOVES:]) for each in paths))
        seconds = perf_counter() - started
        for each in (paths[0], paths[-1]):
            last = each[-1].record
            history = await store.history(last.run_id)
            if [entry.version for entry in history] != list(range(1, last.version + 1)):
                raise NotMeasuredError(f"run {last.run_id}: {len(history)} rows of history; expected {last.version}")
        return {"moves": share * in_flight, "seconds": seconds}
    finally:
        await store.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dsn", required=True)
    parser.add_argument("--in-flight", type=int, required=True)
    parser.add_argument("--moves", type=int, required=True)
    options = parser.parse_args()
    say(measure(options.dsn, options.in_flight, options.moves))
