"""Commands that change runs by hand: each run by itself, and the exit code tells of the first that refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import typer

from stepwell._worker.places import Place
from stepwell.cli.errors import ExitCode, UsageError, report
from stepwell.cli.options import ByIDOption, OutputOption, ReasonOption, RefsArgument, WorkflowOption, run
from stepwell.cli.places import store_at, with_place
from stepwell.cli.render import Output, print_json, told
from stepwell.errors import StepwellError

Steer = Callable[[Any, Any], Awaitable[Any]]


def _steer(
    refs: list[str], done: str, steer: Steer, *, workflow: str | None, by_id: bool, place: Place, output: Output
) -> None:
    """Do the same to several runs; one that refuses does not stop the others, but decides the exit code."""

    async def work() -> ExitCode:
        from stepwell.cli.references import find  # noqa: PLC0415  (the store's modules)
        from stepwell.cli.views import run_json  # noqa: PLC0415  (as above)

        code, changed = ExitCode.OK, []
        async with store_at(place) as opened:
            for ref in refs:
                try:
                    record = await find(opened, ref, workflow=workflow, by_id=by_id)
                    await steer(opened.client.untyped(record.workflow), record.run_id)
                except (StepwellError, UsageError) as error:
                    refused = report(error)
                    code = code or refused
                    continue
                after = (await opened.store.load([record.run_id]))[record.run_id].record
                changed.append(after)
                if output is Output.TABLE:
                    typer.echo(told(after, done))
        if output is Output.JSON:
            print_json({"runs": [run_json(record) for record in changed]})
        return code

    code = run(work())
    if code:
        raise typer.Exit(code)


@with_place
def pause(
    place: Place,
    refs: RefsArgument,
    reason: ReasonOption = "",
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let runs stand still until they are resumed; no handler starts later than a second after this."""
    steer: Steer = lambda runs, ref: runs.pause(ref, reason=reason)  # noqa: E731  (one expression, one use)
    _steer(refs, "paused", steer, workflow=workflow, by_id=by_id, place=place, output=output)


@with_place
def resume(
    place: Place,
    refs: RefsArgument,
    reason: ReasonOption = "",
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Let paused runs go on."""
    steer: Steer = lambda runs, ref: runs.resume(ref, reason=reason)  # noqa: E731  (as above)
    _steer(refs, "resumed", steer, workflow=workflow, by_id=by_id, place=place, output=output)


@with_place
def cancel(
    place: Place,
    refs: RefsArgument,
    reason: ReasonOption = "",
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """End runs where they are."""
    steer: Steer = lambda runs, ref: runs.cancel(ref, reason=reason)  # noqa: E731  (as above)
    _steer(refs, "cancelled", steer, workflow=workflow, by_id=by_id, place=place, output=output)


@with_place
def retry(
    place: Place,
    refs: RefsArgument,
    reason: ReasonOption = "",
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Try runs again now that errors stopped, or that wait for their next attempt."""
    steer: Steer = lambda runs, ref: runs.retry(ref, reason=reason)  # noqa: E731  (as above)
    _steer(refs, "retried", steer, workflow=workflow, by_id=by_id, place=place, output=output)


@with_place
def delete_data(
    place: Place,
    refs: RefsArgument,
    reason: ReasonOption = "",
    workflow: WorkflowOption = None,
    by_id: ByIDOption = False,
    output: OutputOption = Output.TABLE,
) -> None:
    """Have the objects of finished runs rewritten or erased. This cannot be undone."""
    steer: Steer = lambda runs, ref: runs.delete_data(ref, reason=reason)  # noqa: E731  (as above)
    _steer(refs, "erasing", steer, workflow=workflow, by_id=by_id, place=place, output=output)
