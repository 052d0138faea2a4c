"""Runs that come in beside a test, at a rate by the clock: by Run objects, and from a pod without Kubernetes' help."""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.chaos.evidence import Answer, Ask, Note
from tests.cluster.kind_cluster import Object
from tests.e2e.programs import program
from tests.e2e.shop import Shop, order

PER_SECOND = 5
_STARTER = Path(__file__).with_name("starter.py")
_TO_END_SECONDS = 120


@contextmanager
def orders_coming_in(shop: Shop) -> Iterator[list[str]]:
    """The names of those that were made so far."""
    names: list[str] = []
    stop = threading.Event()

    def make() -> None:
        began = time.monotonic()
        while not stop.wait(max(0.0, began + len(names) / PER_SECOND - time.monotonic())):
            batch = [f"order-{len(names) + number}" for number in range(PER_SECOND)]
            shop.apply(*map(order, batch))
            names.extend(batch)

    with ThreadPoolExecutor(max_workers=1) as pool:
        made = pool.submit(make)
        try:
            yield names
        finally:
            stop.set()
        made.result()


class Starter:
    """A pod that starts runs, ``rate`` a second, until it is told that it is enough, or for ``seconds``.

    ``where``: ``{"workflow": NAME}`` for the client, ``{"topic": NAME}`` for messages that a connector turns into runs.
    """

    def __init__(
        self, shop: Shop, name: str, *, where: Mapping[str, str], fields: Object, rate: float, seconds: int
    ) -> None:
        self._shop = shop
        self._name = name
        self._longest = seconds + _TO_END_SECONDS
        options = {**where, "prefix": name, "object": json.dumps(fields), "rate": f"{rate:g}", "seconds": str(seconds)}
        arguments = [f"--{key}={value}" for key, value in options.items()]
        image = shop.cluster.images["examples"]
        shop.apply(*program(name, image, _STARTER, *arguments, seconds=self._longest))

    def started(self) -> dict[str, str]:
        """What was acknowledged so far: foreign ids, and the ids of their runs where those are known."""
        told = str(self._shop.kubectl("logs", self._name).stdout).splitlines()
        return dict(json.loads(line) for line in told if line.startswith("["))

    def begun(self) -> bool:
        """Whether something was acknowledged."""
        return bool(self._phase() != "Pending" and self.started())

    def stop(self) -> dict[str, str]:
        """End it; returns all that it asked for, which is acknowledged by then."""
        self._shop.kubectl("exec", self._name, "--", "sh", "-c", "kill -TERM 1", check=False)
        return self.ended()

    def ended(self) -> dict[str, str]:
        """Wait until it has ended; returns the same."""
        self._shop.wait(f"{self._name} ends", lambda: self._phase() in {"Succeeded", "Failed"}, seconds=self._longest)
        if self._phase() == "Failed":
            pytest.fail(f"{self._name} failed: {self._shop.kubectl('logs', self._name, '--tail', '20').stdout}")
        return self.started()

    def _phase(self) -> str:
        return str(self._shop.get("pod", self._name)["status"]["phase"])


def notes_of(started: Mapping[str, str]) -> list[Note]:
    """What a caller was told, for the checker."""
    return [
        Note(
            ask=Ask.TRIGGER,
            foreign_id=foreign_id,
            asked=-math.inf,
            answered=math.inf,
            answer=Answer.ACKNOWLEDGED,
            run_id=run_id,
            request_id=foreign_id,
        )
        for foreign_id, run_id in started.items()
    ]
