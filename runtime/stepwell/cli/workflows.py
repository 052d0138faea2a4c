"""``stepwell workflows``: what a store knows, and the switch that stops a whole workflow."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell._worker.places import Place
from stepwell.cli.options import OutputOption, complete_workflow, run
from stepwell.cli.places import store_at, with_place
from stepwell.cli.render import Output, age, clean, print_json, print_table, timestamp

app = typer.Typer(help="List, suspend and resume workflows of a store.", no_args_is_help=True)

NameArgument = Annotated[
    str, typer.Argument(metavar="WORKFLOW", help="Name of the workflow.", autocompletion=complete_workflow)
]


@app.command("list", short_help="List workflows and count their runs.")
@with_place
def list_(place: Place, output: OutputOption = Output.TABLE) -> None:
    """List workflows, with how many of their runs are at work, paused and ended."""

    async def work() -> None:
        from stepwell._worker.live import totals_of  # noqa: PLC0415  (the store's modules)

        async with store_at(place) as opened:
            now, rows = opened.store.now(), await opened.store.workflows(opened.namespace)
            counts = await opened.store.counts(opened.namespace)
            found = [(row, totals_of(tuple(c for c in counts if c.workflow == row.name))) for row in rows]
        if output is Output.JSON:
            print_json(
                {
                    "workflows": [
                        {
                            "name": row.name,
                            "generation": row.generation,
                            "suspended": row.suspended,
                            "createdAt": timestamp(row.created_at),
                            "runs": totals.runs,
                            "waiting": totals.waiting,
                            "paused": totals.paused,
                            "completed": totals.completed,
                            "cancelled": totals.cancelled,
                            "erased": totals.erased,
                        }
                        for row, totals in found
                    ]
                }
            )
            return
        columns = ("NAME", "SUSPENDED", "WAITING", "PAUSED", "COMPLETED", "CANCELLED", "ERASED", "GENERATION", "AGE")
        print_table(
            columns,
            [
                (
                    row.name,
                    "yes" if row.suspended else "no",
                    totals.waiting,
                    totals.paused,
                    totals.completed,
                    totals.cancelled,
                    totals.erased,
                    row.generation,
                    age(now - row.created_at) if row.created_at else "-",
                )
                for row, totals in found
            ],
            empty="no workflows found",
        )

    run(work())


@app.command(short_help="Stop steps, timers and schedules of a workflow.")
@with_place
def suspend(place: Place, name: NameArgument) -> None:
    """Start no step, timer or schedule of a workflow; triggers and callbacks are kept."""

    async def work() -> None:
        async with store_at(place) as opened:
            await opened.client.suspend(name)

    run(work())
    typer.echo(f"suspended {clean(name)}")


@app.command(short_help="End a suspension.")
@with_place
def resume(place: Place, name: NameArgument) -> None:
    """End a suspension; what fell due meanwhile happens now."""

    async def work() -> None:
        async with store_at(place) as opened:
            await opened.client.resume(name)

    run(work())
    typer.echo(f"resumed {clean(name)}")
