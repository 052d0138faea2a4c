"""Which store a command is about: a file or a database, named by an option rather than by the environment.

An option beats a variable, and of two options, or two variables, none is guessed at.
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell._worker.places import DEFAULT_NAMESPACE, DEFAULT_STORE, Place
from stepwell.cli.errors import UsageError

if TYPE_CHECKING:
    from stepwell._worker.opened import Opened

StoreOption = Annotated[
    Path, typer.Option("--store", metavar="FILE", envvar="STEPWELL_STORE", help="The file that keeps everything.")
]
DsnOption = Annotated[
    str | None,
    typer.Option(
        "--dsn",
        metavar="URL",
        envvar="STEPWELL_DSN",
        help="Instead of a file: postgresql://USER:PASSWORD@HOST/NAME.",
    ),
]
NamespaceOption = Annotated[
    str, typer.Option("--namespace", metavar="NAME", envvar="STEPWELL_NAMESPACE", help="Within the database.")
]
_OPTIONS = (
    ("store", StoreOption, DEFAULT_STORE),
    ("dsn", DsnOption, None),
    ("namespace", NamespaceOption, DEFAULT_NAMESPACE),
)


def place_of(ctx: typer.Context) -> Place:
    """What the options and variables of a command mean together. Raises ``UsageError``."""
    store, dsn, namespace = (ctx.params.get(name) for name, *_ in _OPTIONS)
    given = {name: _source(ctx, name) for name, *_ in _OPTIONS}
    for source, names in (("COMMANDLINE", "--store, --dsn"), ("ENVIRONMENT", "STEPWELL_STORE, STEPWELL_DSN")):
        chosen = [name for name in ("store", "dsn") if given[name] == source]
        if len(chosen) > 1:
            raise UsageError(f"{names}: are both given: name the one that is meant with --store or --dsn")
        if chosen:
            break
    file = Path(store) if store else DEFAULT_STORE
    if dsn and chosen == ["dsn"]:
        return Place(file=file, dsn=dsn, namespace=namespace or DEFAULT_NAMESPACE)
    if given["namespace"] == "COMMANDLINE":
        raise UsageError("--namespace: is for --dsn: a file holds one namespace")
    return Place(file=file)


def with_place(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--store``, ``--dsn`` and ``--namespace``; it is handed the ``place`` that they mean."""
    parameter = inspect.Parameter
    own = [each for each in inspect.signature(command, eval_str=True).parameters.values() if each.name != "place"]
    added = [
        parameter(name, parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)
        for name, annotation, default in _OPTIONS
    ]
    # What says how to answer stands last in the help of every command.
    last = [each for each in own if each.name == "output"]
    rest = [each for each in own if each.name != "output"]
    context = parameter("ctx", parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    parameters = [context, *rest, *added, *last]

    @wraps(command)
    def called(ctx: typer.Context, **options: Any) -> None:
        for name, *_ in _OPTIONS:
            del options[name]
        command(**options, place=place_of(ctx))

    signature = inspect.Signature([each.replace(kind=parameter.KEYWORD_ONLY) for each in parameters])
    # What typer reads.
    vars(called)["__signature__"] = signature
    called.__annotations__ = {each.name: each.annotation for each in parameters}
    return called


@asynccontextmanager
async def store_at(place: Place) -> AsyncIterator[Opened]:
    """The open store of a command."""
    from stepwell._worker.opened import opened  # noqa: PLC0415  (the client's modules: not for `--help`)

    async with opened(place) as found:
        yield found


def _source(ctx: typer.Context, name: str) -> str:
    source = ctx.get_parameter_source(name)
    return "" if source is None else source.name
