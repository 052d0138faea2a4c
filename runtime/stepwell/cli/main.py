"""The command ``stepwell``: every command loads only what it needs, so that help and completion answer at once."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli import definitions, dev, lint, migrate, runs, worker, workflows
from stepwell.cli.errors import EXIT_CODES, OneLineGroup

app = typer.Typer(
    name="stepwell",
    cls=OneLineGroup,
    help="Durable, typed workflows: state machines that live for days and never lose a step.",
    epilog=EXIT_CODES,
    no_args_is_help=True,
    # Plain text: the same in a terminal, a file and a pager, and quicker.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(*, wanted: bool) -> None:
    if wanted:
        from importlib.metadata import PackageNotFoundError, version  # noqa: PLC0415  (20 ms)

        try:
            typer.echo(f"stepwell {version('stepwell')}")
        except PackageNotFoundError:
            typer.echo("stepwell (from a source tree)")
        raise typer.Exit


@app.callback()
def options(
    _version_wanted: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=lambda v: _version(wanted=v), is_eager=True)
    ] = False,
) -> None:
    """Durable, typed workflows: state machines that live for days and never lose a step."""


app.command("dev", short_help="Run workflows in this process.")(dev.dev)
app.command("worker", short_help="Run workflows over PostgreSQL and Kafka, beside other workers.")(worker.worker)
app.command("lint", short_help="Find every fault of manifests.")(lint.lint)
app.command("manifest", short_help="Print a workflow as an object of Kubernetes.")(definitions.manifest)
app.command("graph", short_help="Print a workflow as a Mermaid diagram.")(definitions.graph)
app.command("migrate", short_help="Bring a database to this release's schema.")(migrate.migrate)
app.add_typer(runs.app, name="runs")
app.add_typer(workflows.app, name="workflows")


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="stepwell")
