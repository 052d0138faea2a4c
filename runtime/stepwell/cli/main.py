"""The command ``stepwell``: a command loads itself and what it needs, and not the others.

So help and completion answer at once, and a worker, which lives for months, has nothing in memory that it never calls.
"""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer
from typer.main import get_group

from stepwell.cli.errors import EXIT_CODES, OneLineGroup

_COMMANDS = {
    "dev": ("dev:dev", "Run workflows in this process."),
    "worker": ("worker:worker", "Run workflows over PostgreSQL and Kafka, beside other workers."),
    "lint": ("lint:lint", "Find every fault of manifests."),
    "manifest": ("definitions:manifest", "Print a workflow as an object of Kubernetes."),
    "graph": ("definitions:graph", "Print a workflow as a Mermaid diagram."),
    "migrate": ("migrate:migrate", "Bring a database to this release's schema."),
    "runs": ("runs:app", None),
    "workflows": ("workflows:app", None),
}
"""Where each command is, and what it does; a group of commands says so itself."""


class _Commands(OneLineGroup):
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002  (the parser's shape)
        return [*_COMMANDS]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  (as above)
        # A name that there is not is compared with all that there are.
        for name in (cmd_name,) if cmd_name in _COMMANDS else _COMMANDS:
            if name not in self.commands:
                self.commands[name] = _loaded(name)
        return self.commands.get(cmd_name)


def _loaded(name: str) -> Any:
    place, short_help = _COMMANDS[name]
    module, _, attribute = place.partition(":")
    found = getattr(import_module(f"stepwell.cli.{module}"), attribute)
    alone = typer.Typer(rich_markup_mode=app.rich_markup_mode)
    if isinstance(found, typer.Typer):
        alone.add_typer(found, name=name)
    else:
        alone.command(name, short_help=short_help)(found)
    return get_group(alone).commands[name]


app = typer.Typer(
    name="stepwell",
    cls=_Commands,
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


def main() -> None:
    """Run the command line of this process."""
    app(prog_name="stepwell")
