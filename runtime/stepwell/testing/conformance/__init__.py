"""Suites that tell whether an adapter keeps the promises of ``stepwell.ports``: run them on your own.

They need ``pytest``, ``pytest-asyncio`` and ``hypothesis``. Subclass a suite and give it one fixture, ``backend``: how
to open the adapter on data of its own, how to kill it, and how to look at the events that it stored::

    class MyBackend(StoreBackend):
        def __init__(self, path, clock): ...
        async def open(self): return await MyStore.connect(self.path, clock=self.clock)
        async def crash(self, store): await store.kill()
        async def events(self): return await read_events(self.path)

    class TestMyStore(RecordStoreSuite):
        @pytest.fixture
        def backend(self, tmp_path, clock):
            return MyBackend(tmp_path / "data", clock)

====================  ===============================  ===================================
Every store is opened with the suite's ``clock``, which stands still until a test moves it: the store's ``now()`` must
follow it. No test sleeps; what is waited for has a deadline in real time. Records and decisions are made by the
engine's own rules, so that what is stored is what a worker would store.
"""

import pytest

for _name in ("base", "builders", "chores", "clocks", "connectors", "inbox", "lists", "races", "runs", "streams"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")
for _name in ("membership", "outlooks", "repairs", "ticks", "timers"):
    pytest.register_assert_rewrite(f"{__name__}.{_name}")

from stepwell.testing.conformance.backend import (  # noqa: E402  (asserts are rewritten only in what is imported after)
    SourceBackend,
    StoreBackend,
    StreamBackend,
    TopicBackend,
)
from stepwell.testing.conformance.chores import ChoreSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.clock import ManualClock  # noqa: E402  (as above)
from stepwell.testing.conformance.clocks import ClockSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.connectors import ConnectorSuite, SourceSuite, TopicSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.inbox import InboxSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.lists import ReadSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.membership import MembershipBackend, MembershipSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.outlooks import OutlookSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.races import RaceSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.repairs import RepairSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.runs import RunSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.streams import EventStreamSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.ticks import TickSuite  # noqa: E402  (as above)
from stepwell.testing.conformance.timers import TimersSuite  # noqa: E402  (as above)

__all__ = [
    "ClockSuite",
    "EventStreamSuite",
    "ManualClock",
    "MembershipBackend",
    "MembershipSuite",
    "OutlookSuite",
    "RecordStoreSuite",
    "SourceBackend",
    "SourceSuite",
    "StoreBackend",
    "StreamBackend",
    "TopicBackend",
    "TopicSuite",
]


class RecordStoreSuite(
    RunSuite, RaceSuite, ReadSuite, InboxSuite, ChoreSuite, TimersSuite, TickSuite, ConnectorSuite, RepairSuite
):
    """The whole contract of ``RecordStore``: an adapter passes all of it, or is none."""
