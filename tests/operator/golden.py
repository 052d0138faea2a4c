"""The children of a Workflow in which every field is set; ``python -m tests.operator.golden`` notes them anew."""

from __future__ import annotations

from pathlib import Path

from tests.operator.manifests import as_yaml, full

from stepwell_operator.specs.children import children
from stepwell_operator.specs.definition import served
from stepwell_operator.specs.names import Owner

FILE = Path(__file__).parent / "golden" / "claims.yaml"


def written() -> str:
    """The manifests as they are built now."""
    wf = full()
    assert wf.spec.worker is not None
    owner = Owner(namespace="insurance", name="claims", uid="u-1")
    return as_yaml(list(children(owner, wf, wf.spec.worker, served(wf), installation="inst-1").values()))


if __name__ == "__main__":
    FILE.write_text(written(), "utf-8")
