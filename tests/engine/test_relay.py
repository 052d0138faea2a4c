"""Events that a worker waits for go out at once, those in hand in company, and those of a run in order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tests.engine.kit import until

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell._engine import relay as module
from stepwell._engine.relay import Relay
from stepwell._engine.telemetry import Tally
from stepwell.ports.outbox import Taker
from stepwell.ports.stream import Delivery


class Outbox:
    """Hands out what a test says was stored."""

    def __init__(self) -> None:
        self.taker: Taker | None = None
        self.gone: list[int] = []

    def hand_to(self, taker: Taker) -> None:
        self.taker = taker

    async def overdue(self, namespace: str, limit: int) -> Sequence[Delivery]:
        raise NotImplementedError

    def published(self, deliveries: Sequence[Delivery]) -> None:
        self.gone += [delivery.position for delivery in deliveries]

    def stored(self, *events: tuple[str, int], kept: bool) -> None:
        """Events of these runs and versions; a version is the position too."""
        assert self.taker is not None
        deliveries = [Delivery(event=event(run, version), position=version) for run, version in events]
        self.taker(deliveries, {version for _, version in events} if kept else ())


class Publisher:
    """Remembers what was asked for at once."""

    def __init__(self) -> None:
        self.calls: list[list[tuple[str, int]]] = []

    async def publish(self, events: Sequence[Event]) -> Sequence[bool]:
        self.calls.append([(str(event.run_id), event.version) for event in events])
        return [True] * len(events)


def event(run: str, version: int) -> Event:
    return Event(
        kind=EventKind.STEP,
        namespace="default",
        workflow="shop",
        run_id=RunID(run),
        version=version,
        status="New",
        name="",
        trace="",
    )


def started() -> tuple[Relay, Outbox, Publisher]:
    outbox, publisher = Outbox(), Publisher()
    relay = Relay(outbox, publisher, Tally())
    relay.start()
    return relay, outbox, publisher


async def test_events_in_hand_go_out_together_after_a_moment() -> None:
    _, outbox, publisher = started()
    outbox.stored(("a", 1), ("b", 2), kept=True)
    await asyncio.sleep(0)
    outbox.stored(("a", 3), kept=True)
    await asyncio.sleep(0)
    assert publisher.calls == []
    await until(lambda: bool(publisher.calls))
    assert publisher.calls == [[("a", 1), ("a", 3), ("b", 2)]]
    assert outbox.gone == [1, 3, 2]


async def test_an_event_that_is_waited_for_goes_at_once_behind_those_of_its_run() -> None:
    _, outbox, publisher = started()
    outbox.stored(("a", 1), ("b", 2), kept=True)
    outbox.stored(("a", 3), ("c", 4), kept=False)
    await asyncio.sleep(0)
    assert publisher.calls == [[("a", 1), ("a", 3), ("c", 4)]]
    await until(lambda: len(publisher.calls) > 1)
    assert publisher.calls[1:] == [[("b", 2)]]


async def test_enough_of_them_wait_for_no_more() -> None:
    _, outbox, publisher = started()
    outbox.stored(*((f"run {n}", n) for n in range(module._ENOUGH)), kept=True)
    await asyncio.sleep(0)
    assert [len(call) for call in publisher.calls] == [module._ENOUGH]


async def test_what_waits_is_published_before_the_end() -> None:
    relay, outbox, publisher = started()
    outbox.stored(("a", 1), kept=True)
    await relay.stop()
    assert publisher.calls == [[("a", 1)]]
    assert outbox.gone == [1]
