"""Orders that come in beside a test, at a rate by the clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

from tests.e2e.shop import Shop, order

PER_SECOND = 5


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
