"""Each ``workflow.yaml`` is what its example's code says: ``python -m examples.manifests`` writes, tests compare."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from stepwell import Workflow
from stepwell.resources import from_definition, to_yaml

ROOT = Path(__file__).parent
TOPICS = ("getting_started", "orders", "callback", "connector", "schedule", "timeout", "helpdesk")
IMAGE = "registry.example/{topic}:1.0.0"


def manifest(workflow: Workflow[Any, Any, Any], topic: str) -> str:
    """The Workflow object as YAML, with an image of the topic's name (an image's name has no underscore)."""
    return to_yaml(from_definition(workflow.build(), image=IMAGE.format(topic=topic.replace("_", "-"))))


def assert_manifest(workflow: Workflow[Any, Any, Any], topic: str) -> None:
    """The file in the topic's directory is up to date."""
    written = (ROOT / topic / "workflow.yaml").read_text("utf-8")
    assert written == manifest(workflow, topic), f"run `python -m examples.manifests {topic}`"


def main(topics: list[str]) -> None:
    """Write the manifests of these topics, or of all."""
    for topic in topics or TOPICS:
        module = importlib.import_module(f"examples.{topic}.workflow")
        (ROOT / topic / "workflow.yaml").write_text(manifest(module.wf, topic), "utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
