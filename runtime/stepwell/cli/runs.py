"""``stepwell runs``: start, look at and steer runs of a store, beside the process that runs them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from stepwell._worker.places import Place
from stepwell.cli import steering
from stepwell.cli.options import (
    ByIDOption,
    OutputOption,
    RefArgument,
    WorkflowOption,
    duration_value,
    json_value,
    run,
    run_id_value,
    time_value,
)
from stepwell.cli.places import store_at, with_place
from stepwell.cli.render import Output, clean, print_json, told

if TYPE_CHECKING:
    from stepwell._domain.record import Record
    from stepwell._worker.opened import Opened

app = typer.Typer(help="Start, look at and steer runs of a store.", no_args_is_help=True)

_MOST = 10_000


@app.command()
@with_place
def trigger(
    place: Place,
    foreign_id: Annotated[str, typer.Argument(metavar="FOREIGN_ID", help="Your own key, such as an order number.")],
    workflow: WorkflowOption = None,
    whole: Annotated[
        str, typer.Option("--object", metavar="JSON|@FILE|-", help="The run's object: JSON, @FILE, or - for stdin.")
    ] = "{}",
    start: Annotated[
        str | None, typer.Option("--start", metavar="STATUS", help="Status to start in. Default: the workflow's.")
    ] = None,
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", metavar="ID", help="Makes a repeat harmless: it answers with the first outcome."),
    ] = None,
    wait_for: Annotated[
        list[str] | None,
        typer.Option("--wait-for", metavar="GOAL", help="Wait for this status or state. May be repeated."),
    ] = None,
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="For --wait-for.")] = "60s",
    output: OutputOption = Output.TABLE,
) -> None:
    """Start a run."""
    value = json_value("--object", whole)

    async def work() -> None:
        from stepwell.cli.references import goal, the_workflow  # noqa: PLC0415  (the store's modules)

        async with store_at(place) as opened:
            row = await the_workflow(opened, workflow)
            goals = [goal(row, text) for text in wait_for or ()]
            limit = duration_value("--timeout", timeout)
            runs = opened.client.untyped(row.name)
            begun = await runs.trigger(foreign_id, value, start=start, request_id=request_id)
            if goals:
                await runs.wait_for(begun.id, *goals, timeout=limit)
            await _print(opened, begun.id, "started", output)

    run(work())


@app.command("list")
@with_place
def list_(
    place: Place,
    workflow: WorkflowOption = None,
    status: Annotated[
        list[str] | None, typer.Option("--status", metavar="STATUS", help="Only in this status. May be repeated.")
    ] = None,
    state: Annotated[
        list[str] | None, typer.Option("--state", metavar="STATE", help="Only in this state. May be repeated.")
    ] = None,
    foreign_id: Annotated[
        str | None, typer.Option("--foreign-id", metavar="ID", help="Only of this foreign id.")
    ] = None,
    created_after: Annotated[
        str | None, typer.Option("--created-after", metavar="TIME", help="A time (ISO 8601), or how long ago: 2h, 3d.")
    ] = None,
    created_before: Annotated[
        str | None, typer.Option("--created-before", metavar="TIME", help="As --created-after.")
    ] = None,
    order: Annotated[Literal["newest", "oldest"], typer.Option("--order", help="Which come first.")] = "newest",
    limit: Annotated[int, typer.Option("--limit", metavar="NUMBER", min=1, max=_MOST, help="How many at most.")] = 50,
    after: Annotated[
        str | None, typer.Option("--after", metavar="RUN_ID", help="The last run id of the page before.")
    ] = None,
    output: OutputOption = Output.TABLE,
) -> None:
    """List runs, by their start."""

    async def work() -> None:
        from stepwell._domain.ids import ForeignID  # noqa: PLC0415  (as above)
        from stepwell.cli.references import states, workflow_rows  # noqa: PLC0415  (as above)
        from stepwell.ports.store import Order, RunQuery  # noqa: PLC0415  (as above)

        async with store_at(place) as opened:
            now = opened.store.now()
            if workflow is not None:
                await workflow_rows(opened, workflow)
            query = RunQuery(
                namespace=opened.namespace,
                workflow=workflow,
                foreign_id=None if foreign_id is None else ForeignID(foreign_id),
                statuses=tuple(status or ()),
                states=states(state or []),
                created_after=None if created_after is None else time_value("--created-after", created_after, now),
                created_before=None if created_before is None else time_value("--created-before", created_before, now),
                order=Order(order),
                after=None if after is None else run_id_value("--after", after),
                limit=limit + 1,
            )
            _print_page(await opened.store.list(query), limit, now, output)

    run(work())


def _print_page(found: Sequence[Record], limit: int, now: datetime, output: Output) -> None:
    """One page of the runs that were found, one more than which says that there are others."""
    from stepwell.cli.views import print_runs, run_json  # noqa: PLC0415  (as above)

    page, more = found[:limit], len(found) > limit
    if output is Output.JSON:
        next_ = page[-1].run_id if more else None
        print_json({"runs": [run_json(record, with_object=False) for record in page], "after": next_})
        return
    print_runs(page, now)
    if more:
        typer.echo(f"there are more: --after {page[-1].run_id}", err=True)


@app.command(short_help="Show a run and what it waits for.")
@with_place
def show(
    place: Place,
    ref: RefArgument,
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show a run with its object, timers, callbacks and hooks, and what it waits for."""

    async def work() -> None:
        from stepwell._domain.serialized import definition_of_json  # noqa: PLC0415  (as above)
        from stepwell.cli.references import find, the_workflow  # noqa: PLC0415  (as above)
        from stepwell.cli.views import Details  # noqa: PLC0415  (as above)

        async with store_at(place) as opened:
            record = await find(opened, ref, workflow=workflow, by_id=by_id)
            row = await the_workflow(opened, record.workflow)
            details = Details(
                record=record,
                suspended=row.suspended,
                definition=definition_of_json(row.definition),
                timers=await opened.store.timers(record.run_id),
                callbacks=await opened.store.waiting(record.run_id),
                hooks=await opened.store.hooks(record.run_id),
                now=opened.store.now(),
            )
            if output is Output.JSON:
                print_json(details.as_json())
            else:
                details.print()

    run(work())


@app.command(short_help="Show every change of a run.")
@with_place
def history(
    place: Place,
    ref: RefArgument,
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Show every change of a run: who, from where to where, why, and how long it stood there."""

    async def work() -> None:
        from stepwell.cli.references import find  # noqa: PLC0415  (as above)
        from stepwell.cli.views import history_json, print_history  # noqa: PLC0415  (as above)

        async with store_at(place) as opened:
            record = await find(opened, ref, workflow=workflow, by_id=by_id)
            entries = await opened.store.history(record.run_id)
            if output is Output.JSON:
                entries_json = history_json(entries, opened.store.now())
                print_json({"runID": record.run_id, "foreignID": record.foreign_id, "history": entries_json})
            else:
                print_history(entries, opened.store.now())

    run(work())


@app.command(short_help="Call a run back.")
@with_place
def callback(
    place: Place,
    ref: RefArgument,
    name: Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the callback.")],
    payload: Annotated[
        str, typer.Option("--payload", metavar="JSON|@FILE|-", help="JSON, @FILE, or - for stdin.")
    ] = "null",
    request_id: Annotated[
        str | None,
        typer.Option("--request-id", metavar="ID", help="Makes a repeat harmless: it answers with the first receipt."),
    ] = None,
    wait: Annotated[
        str | None, typer.Option("--wait", metavar="DURATION", help="Wait this long for the outcome.")
    ] = None,
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Call a run back: stored at once, and applied when the run waits for it."""
    value = json_value("--payload", payload)

    async def work() -> None:
        from stepwell.callables import CallbackReceipt  # noqa: PLC0415  (as above)
        from stepwell.cli.references import find  # noqa: PLC0415  (as above)

        async with store_at(place) as opened:
            limit = None if wait is None else duration_value("--wait", wait)
            record = await find(opened, ref, workflow=workflow, by_id=by_id)
            runs = opened.client.untyped(record.workflow)
            answer = await runs.callback_by_name(name, record.run_id, value, request_id=request_id, wait=limit)
            if not isinstance(answer, CallbackReceipt):
                await _print(opened, record.run_id, "called back", output)
            elif output is Output.JSON:
                print_json({"id": answer.id, "runID": answer.run_id, "repeated": answer.repeated})
            else:
                typer.echo(f"accepted {answer.id} for {clean(f'{record.workflow}/{record.foreign_id}')}")

    run(work())


@app.command(short_help="Wait for a status or a state.")
@with_place
def wait(
    place: Place,
    ref: RefArgument,
    until: Annotated[
        list[str],
        typer.Option(
            "--for", metavar="GOAL", help="A status, a state, status=NAME or state=NAME. May be repeated: any of them."
        ),
    ],
    timeout: Annotated[str, typer.Option("--timeout", metavar="DURATION", help="How long at most.")] = "60s",
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Wait until a run is in a status or a state, or has passed through it since now."""

    async def work() -> None:
        from stepwell.cli.references import find, goal, the_workflow  # noqa: PLC0415  (as above)

        async with store_at(place) as opened:
            limit = duration_value("--timeout", timeout)
            record = await find(opened, ref, workflow=workflow, by_id=by_id)
            goals = [goal(await the_workflow(opened, record.workflow), text) for text in until]
            await opened.client.untyped(record.workflow).wait_for(record.run_id, *goals, timeout=limit)
            await _print(opened, record.run_id, "is there:", output)

    run(work())


async def _print(opened: Opened, run_id: Any, done: str, output: Output) -> None:
    from stepwell.cli.views import run_json  # noqa: PLC0415  (as above)

    record = (await opened.store.load([run_id]))[run_id].record
    if output is Output.JSON:
        print_json(run_json(record))
    else:
        typer.echo(told(record, done))


app.command(short_help="Let runs stand still until resumed.")(steering.pause)
app.command()(steering.resume)
app.command()(steering.cancel)
app.command(short_help="Try runs again now.")(steering.retry)
app.command("delete-data", short_help="Erase the objects of finished runs.")(steering.delete_data)
