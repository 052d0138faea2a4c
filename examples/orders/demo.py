"""A thousand orders and all that goes wrong: ``python -m examples.orders.demo [--orders N] [--seed N]``.

A real clock, an engine on a file (``--store FILE``) or a database (``--dsn URL``), a warehouse behind HTTP, and
reviewers who answer by callback. It ends by itself, and exits with 1 if the figures do not add up.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import timedelta
from pathlib import Path
from time import perf_counter
from typing import Self

from rich.console import Console
from rich.live import Live
from rich.table import Table

from examples.orders import workflow as shop
from examples.orders.plans import Plan, plans
from examples.orders.reviewers import Reviewers, Token
from examples.orders.services import ShakyBank, Warehouse
from examples.orders.summary import Books, books
from examples.orders.workflow import Deps, Order, S
from stepwell import Client, Options, Rule, Runs, RunState, StepwellError, StoreRefusedError, Workflow
from stepwell.embedded import serve

LANES = 8
"""Tills that take orders at once."""
NAMESPACE = "orders-demo"
LOOK_EVERY = 1.0
LONGEST = 120.0
"""Seconds after which something must be wrong."""
MOST_ORDERS = 100_000
UNFINISHED = (RunState.INITIATED, RunState.RUNNING)
QUICK = Options(
    attempt_timeout=timedelta(seconds=1.5),
    backoff_initial=timedelta(milliseconds=100),
    backoff_max=timedelta(seconds=1),
    concurrency=256,
)
PATIENCE = timedelta(seconds=4)
"""How long an order waits for its reviewer; three days in the workflow itself."""


def hurried(url: str, bank: ShakyBank) -> tuple[Workflow[Order, S, Deps], Token]:
    """The workflow's own functions with short times, and the warehouse's real address."""

    @asynccontextmanager
    async def resources() -> AsyncGenerator[Deps]:
        yield Deps(bank=bank)

    wf = Workflow("orders", object=Order, status=S, start=S.CREATED, lifespan=resources, options=QUICK)
    wf.step(S.CREATED, options=Options(pause_after_errors=6))(shop.take_payment)
    wf.http(S.PAID, url, to=[S.PICKED], timeout=timedelta(seconds=1))
    wf.route(
        S.PICKED,
        Rule(to=S.REVIEW, when="object.total > 1000"),
        Rule(to=S.SHIPPED, set={"carrier": "'post'"}),
    )

    reviewed = wf.callback(S.REVIEW)(shop.reviewed)
    wf.timeout(S.REVIEW, after=timedelta(seconds=2))(shop.remind)
    wf.timeout(S.REVIEW, after=PATIENCE)(shop.expire)
    wf.step(S.REFUND)(shop.pay_back)
    return wf, reviewed


class Display:
    """How many orders are where: a live table on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, orders: int) -> None:
        self._console = console
        self._orders = orders
        self._started = perf_counter()
        self._live = Live(console=console, refresh_per_second=4) if console.is_terminal else None

    @property
    def seconds(self) -> float:
        """Since the start."""
        return perf_counter() - self._started

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, where: Counter[str]) -> None:
        """The newest counts."""
        if self._live is None:
            counts = ", ".join(f"{name} {count}" for name, count in sorted(where.items())) or "no order yet"
            self._console.print(f"{self.seconds:5.1f} s  {counts}", highlight=False, soft_wrap=True)
            return
        table = Table("status", "orders", title=f"{where.total()} of {self._orders} orders, {self.seconds:.0f} s")
        for name, count in sorted(where.items()):
            table.add_row(name, str(count))
        self._live.update(table)


async def take_orders(runs: Runs[Order, S], wanted: Sequence[Plan]) -> None:
    """All orders come in, several at a time."""
    waiting: Iterator[Plan] = iter(wanted)

    async def till() -> None:
        for plan in waiting:
            order = Order(customer=plan.customer, total=plan.total)
            await runs.trigger(plan.foreign_id, order, request_id=plan.foreign_id)

    async with asyncio.TaskGroup() as tills:
        for _ in range(LANES):
            tills.create_task(till())


async def until_done(client: Client, orders: int, display: Display) -> None:
    """Return when every order has come to an end, or stands still."""
    while True:
        where: Counter[str] = Counter()
        unfinished = 0
        for count in await client.counts():
            paused = count.state is RunState.PAUSED
            where["Cancelled" if count.state is RunState.CANCELLED else "Paused" if paused else count.status] += (
                count.runs
            )
            unfinished += count.runs if count.state in UNFINISHED else 0
        display.show(where)
        if where.total() == orders and not unfinished:
            return
        await asyncio.sleep(LOOK_EVERY)


async def trade(wanted: Sequence[Plan], store: Path | str, console: Console) -> Books:
    """Run the shop until every order is done, and open the books.

    Raises ``StoreRefusedError`` if there are orders in the store already.
    """
    bank, warehouse = ShakyBank(wanted), Warehouse(wanted)
    async with warehouse.serving() as url:
        wf, reviewed = hurried(url, bank)
        kept = {"store": store} if isinstance(store, Path) else {"dsn": store, "namespace": NAMESPACE}
        async with serve(wf, **kept) as client:
            if await client.counts():
                raise StoreRefusedError(f"there are runs in namespace {NAMESPACE} already: the demo begins with none")
            runs = client.runs(wf)
            reviewers = Reviewers(runs, reviewed, wanted)
            with Display(console, len(wanted)) as display:
                async with asyncio.timeout(LONGEST), asyncio.TaskGroup() as work:
                    reviewing = work.create_task(reviewers.work())
                    work.create_task(take_orders(runs, wanted))
                    await until_done(client, len(wanted), display)
                    await reviewers.finish()
                    reviewing.cancel()
            return await books(runs, wanted, bank, warehouse, reviewers)


def report(kept: Books, seconds: float, console: Console) -> bool:
    """Print the figures; whether they add up."""
    console.print(f"\n{len(kept.plans)} orders in {seconds:.1f} s", highlight=False)
    rows = {
        "orders": ", ".join(f"{count} {ending}" for ending, count in kept.endings.most_common()),
        "attempts": f"{kept.attempts} requests to bank and warehouse, of which {kept.retries} were retries",
        "callbacks": f"{kept.reviewers.applied} applied, {kept.reviewers.repeated} repeated without effect, "
        + ", ".join(f"{count} refused ({reason})" for reason, count in sorted(kept.reviewers.refused.items())),
        "money": f"{kept.charged} euros charged and {kept.paid_back} paid back, in {len(kept.bank.ledger)} transfers,"
        " each under an idempotency key of its own",
    }
    for name, text in rows.items():
        console.print(f"{name:>10}  {text}", highlight=False, soft_wrap=True)
    wrong = [equation for equation in kept.equations() if not equation.holds]
    for equation in kept.equations():
        console.print(
            f"{'adds up' if equation.holds else 'WRONG':>10}  {equation.name}", highlight=False, soft_wrap=True
        )
    for equation in wrong:
        console.print(f"{equation.name}: {equation.left} is not {equation.right}", highlight=False, soft_wrap=True)
    return not wrong


def run(orders: int, seed: int, store: Path | str, console: Console) -> bool:
    """The whole demo; whether it adds up. ``store`` is a file or a DSN. Raises ``StoreRefusedError``."""
    started = perf_counter()
    kept = asyncio.run(trade(plans(orders, seed), store, console))
    return report(kept, perf_counter() - started, console)


@contextmanager
def hushed(logger: str) -> Iterator[None]:
    """What goes wrong is meant to: the alerts of a thousand orders would bury the table."""
    log = logging.getLogger(logger)
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)


def main(arguments: Sequence[str] | None = None) -> int:
    """0: it adds up. 1: it does not, or did not end. 2: the arguments or the store were refused."""
    parser = argparse.ArgumentParser(prog="python -m examples.orders.demo", description="Run a shop for a while.")
    parser.add_argument("--orders", type=int, default=1000, help="how many orders come in [1000]")
    parser.add_argument("--seed", type=int, default=1, help="what goes wrong is drawn from this [1]")
    parser.add_argument("--store", type=Path, help="keep the runs in this new file")
    parser.add_argument("--dsn", help=f"keep them in this database, in namespace {NAMESPACE}")
    options = parser.parse_args(arguments)
    if not 1 <= options.orders <= MOST_ORDERS:
        parser.error(f"--orders: {options.orders}: must be from 1 to {MOST_ORDERS}")
    if options.store is not None and options.store.exists():
        parser.error(f"--store: {options.store}: exists already; the demo begins with a new file")
    try:
        with tempfile.TemporaryDirectory(prefix="stepwell-demo-") as directory, hushed("examples.orders.workflow"):
            store = options.dsn or (options.store or Path(directory) / "orders.db").absolute()
            return 0 if run(options.orders, options.seed, store, Console()) else 1
    except KeyboardInterrupt:
        return 130
    except TimeoutError:
        print(f"not done after {LONGEST:g} s", file=sys.stderr)
        return 1
    except StepwellError as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
