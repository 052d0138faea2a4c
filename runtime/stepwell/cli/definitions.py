"""``stepwell manifest`` and ``stepwell graph``: a definition as an object of the cluster, and as a picture."""

from __future__ import annotations

import re
import sys
from typing import Annotated

import typer

from stepwell.cli.errors import UsageError
from stepwell.cli.render import Output, print_json


def manifest(
    target: Annotated[str, typer.Argument(metavar="MODULE:ATTR", help="A stepwell.Workflow, such as shop.orders:wf.")],
    image: Annotated[
        str | None, typer.Option("--image", metavar="IMAGE", help="Image of the workers, with your code in it.")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace of the object.")
    ] = None,
    replicas: Annotated[
        int | None, typer.Option("--replicas", metavar="NUMBER", min=1, max=256, help="Workers of the workflow.")
    ] = None,
    output: Annotated[Output, typer.Option("--output", "-o", help="For people (YAML) or for programs.")] = Output.TABLE,
) -> None:
    """Print the Workflow object of a workflow written in Python."""
    from stepwell._worker.targets import is_module, workflow_at  # noqa: PLC0415  (pydantic)
    from stepwell.application import Application, unnameable  # noqa: PLC0415  (as above)
    from stepwell.errors import DefinitionErrors  # noqa: PLC0415  (as above)
    from stepwell.resources import WorkflowResource, from_definition, to_manifest, to_yaml  # noqa: PLC0415  (as above)

    if not is_module(target):
        raise UsageError(f"{target!r} must be MODULE:ATTR")
    application = Application.of(workflow_at(target))
    problems = unnameable(application)
    if problems:
        raise DefinitionErrors(application.definition.name, problems)
    written = to_manifest(from_definition(application.definition, image=image))
    if namespace is not None:
        _check_namespace(namespace)
        written["metadata"]["namespace"] = namespace
    if replicas is not None:
        if "worker" not in written["spec"]:
            raise UsageError("--replicas: needs --image")
        written["spec"]["worker"]["replicas"] = replicas
    resource = WorkflowResource.model_validate(written)
    if output is Output.JSON:
        print_json(to_manifest(resource))
    else:
        sys.stdout.write(to_yaml(resource))


def _check_namespace(name: str) -> None:
    """A DNS label, which the API server asks for (RFC 1123)."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", name) is None:
        rule = "must be 1 to 63 lower-case letters, digits and dashes, and neither begin nor end with a dash"
        raise UsageError(f"--namespace: {name!r} {rule}")


def graph(
    target: Annotated[str, typer.Argument(metavar="FILE|MODULE:ATTR", help="A manifest, or a stepwell.Workflow.")],
    workflow: Annotated[
        str | None, typer.Option("--workflow", "-w", metavar="NAME", help="Which one, if the file holds several.")
    ] = None,
) -> None:
    """Print the statuses and moves of a workflow as a Mermaid diagram."""
    from stepwell._domain.diagram import mermaid  # noqa: PLC0415  (as above)
    from stepwell._worker.targets import definitions_of  # noqa: PLC0415  (as above)

    found = [one for one in definitions_of(target) if workflow is None or one.name == workflow]
    if len(found) != 1:
        names = ", ".join(one.name for one in found) or "none"
        raise UsageError(f"{target} must hold exactly one such workflow; choose by --workflow (found: {names})")
    sys.stdout.write(mermaid(found[0]))
