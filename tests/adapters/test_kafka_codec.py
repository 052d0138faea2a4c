"""An event survives being a record; whatever else a record holds is told apart, and its content is never told."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.adapters.kafka_kit import TRACE, event

from stepwell._domain.ids import RunID
from stepwell._domain.record import Event, EventKind
from stepwell.adapters.kafka.codec import MAX_VALUE, Malformed, decode, encode, key_of
from stepwell.adapters.kafka.driver import Header, partition_of
from stepwell.adapters.kafka.offsets import Progress
from stepwell.adapters.kafka.watchdog import Watchdog
from stepwell.ports.stream import Delivery


@dataclass(frozen=True, kw_only=True)
class FakeRecord:
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...] = ()
    topic: str = "stepwell.default.orders"
    partition: int = 3
    offset: int = 17
    timestamp: int = 0


def record_of(sent: Event) -> FakeRecord:
    key, value, headers = encode(sent)
    return FakeRecord(key=key, value=value, headers=tuple(headers))


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


EVENTS = st.builds(
    Event,
    kind=st.sampled_from(EventKind),
    namespace=TEXT,
    workflow=TEXT,
    run_id=TEXT.map(RunID),
    version=st.integers(0, 2**63),
    status=TEXT,
    name=TEXT,
    trace=st.sampled_from(["", TRACE]),
)


@given(EVENTS)
def test_an_event_survives(sent: Event) -> None:
    assert decode(record_of(sent)) == sent


@given(value=st.binary(max_size=200) | st.none(), key=st.binary(max_size=40) | st.none())
def test_no_foreign_record_crashes_the_reader(value: bytes | None, key: bytes | None) -> None:
    told = decode(FakeRecord(key=key, value=value))

    assert isinstance(told, Malformed)
    assert (told.topic, told.partition, told.offset) == ("stepwell.default.orders", 3, 17)
    assert told.sha256 == hashlib.sha256(value or b"").hexdigest()


def changed(**members: Any) -> FakeRecord:
    record = record_of(event())
    assert record.value is not None
    return replace(record, value=json.dumps({**json.loads(record.value), **members}).encode())


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (changed(v=2), "not of layout 1"),
        (changed(k="dance"), "k: no kind of event"),
        (changed(k=["step"]), "k: no kind of event"),
        (changed(n=True), "n: not a whole number"),
        (changed(n=-1), "n: not a whole number"),
        (changed(st=None), "st: not a text"),
        (changed(name=7), "name: not a text"),
        (changed(run="another"), "the key is not that of the run"),
        (replace(changed(), value=b"[1]"), "not a JSON object"),
        (replace(changed(), value=b"4111-SECRET"), "not JSON"),
        (replace(changed(), value=b"[" * 50_000), "not JSON"),
        (replace(changed(), value=b" " * (MAX_VALUE + 1)), "over 65536 bytes"),
        (replace(changed(), value=None), "no value"),
        (replace(changed(), key=None), "the key is not that of the run"),
    ],
)
def test_what_is_wrong_is_told_without_the_content(record: FakeRecord, reason: str) -> None:
    told = decode(record)

    assert isinstance(told, Malformed)
    assert told.reason.startswith(reason)
    assert "SECRET" not in repr(told)


def test_members_of_a_later_release_are_passed_over() -> None:
    assert decode(changed(later={"a": 1})) == event()


def test_a_broken_trace_drops_no_event() -> None:
    record = replace(record_of(event()), headers=(("traceparent", b"\xff00-"), ("other", None)))

    assert decode(record) == replace(event(), trace="00-")


def test_an_event_of_no_run_is_keyed_by_its_name() -> None:
    tick = replace(event(kind=EventKind.TICK, name="nightly"), run_id=RunID(""))

    assert key_of(tick) == b"orders/nightly"
    assert decode(record_of(tick)) == tick


def test_keys_go_where_java_s_client_sends_them() -> None:
    """Values of ``org.apache.kafka.common.utils.Utils.murmur2``, from Kafka's own ``UtilsTest``."""
    hashes = {b"21": -973932308, b"foobar": -790332482, b"a-little-bit-long-string": -985981536}

    assert {key: partition_of(key, 1 << 31) for key in hashes} == {
        key: value & 0x7FFFFFFF for key, value in hashes.items()
    }
    assert {partition_of(b"%d" % n, 12) for n in range(1000)} == set(range(12))


@given(st.lists(st.tuples(st.integers(1, 3), st.booleans(), st.integers(0, 50)), max_size=60))
def test_the_committed_offset_never_passes_an_unfinished_delivery(steps: list[tuple[int, bool, int]]) -> None:
    """Records with gaps between, some malformed; deliveries finish in any order."""
    progress, offset, unfinished = Progress(), 0, set[int]()
    for gap, malformed, choice in steps:
        offset += gap
        if malformed:
            progress.passed_over(offset)
        else:
            progress.delivered(offset, Delivery(event=event(), position=offset))
            unfinished.add(offset)
        if unfinished and choice % 2:
            done = sorted(unfinished)[choice % len(unfinished)]
            unfinished.discard(done)
            progress.finish(done)
            progress.finish(done)
        assert progress.safe == (min(unfinished) if unfinished else offset + 1)
        assert [delivery.position for delivery in progress.unfinished] == sorted(unfinished)
        assert progress.idle is not bool(unfinished)


def test_only_who_asks_in_vain_for_the_whole_span_is_stuck() -> None:
    dog = Watchdog(stuck_after=60)
    assert not dog.wants_to_know(0)
    dog.asking(0)
    assert dog.wants_to_know(1)
    assert not dog.wants_to_know(2)
    assert not dog.is_stuck(1, ahead=True)
    assert not dog.is_stuck(60, ahead=True)
    assert dog.is_stuck(61, ahead=True)
    dog.rebuilt(61)
    assert not dog.is_stuck(62, ahead=True)
    assert not dog.is_stuck(100, ahead=False)
    assert not dog.is_stuck(122, ahead=True)
    dog.answered()
    assert not dog.is_stuck(500, ahead=True)
    assert not dog.wants_to_know(500)
    dog.asking(500)
    assert not dog.is_stuck(501, ahead=True)
