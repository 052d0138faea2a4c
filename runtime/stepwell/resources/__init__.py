"""The kinds Workflow and Run: whatever the API server's schema and rules refuse, these models refuse, all at once."""

from __future__ import annotations

from stepwell.resources.convert import from_definition, to_definition, to_manifest, to_yaml
from stepwell.resources.parse import ParsedManifests, parse_manifests
from stepwell.resources.root import GROUP, VERSION, problems_of
from stepwell.resources.run import RunResource, RunSpec, RunStatus
from stepwell.resources.workflow import WorkflowResource, WorkflowSpec, WorkflowStatus

__all__ = [
    "GROUP",
    "VERSION",
    "ParsedManifests",
    "RunResource",
    "RunSpec",
    "RunStatus",
    "WorkflowResource",
    "WorkflowSpec",
    "WorkflowStatus",
    "from_definition",
    "parse_manifests",
    "problems_of",
    "to_definition",
    "to_manifest",
    "to_yaml",
]
