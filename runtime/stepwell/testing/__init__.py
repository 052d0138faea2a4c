"""The public test kit: a world with virtual time, and the conformance suites of every port."""

from stepwell.testing.http import FakeHttp, SentCall
from stepwell.testing.world import World

__all__ = ["FakeHttp", "SentCall", "World"]
