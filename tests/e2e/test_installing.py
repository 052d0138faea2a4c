"""Stepwell is installed and removed by the commands of docs/operations.md, over servers that speak TLS alone.

The cluster of the tests is emptied of Stepwell before, as one that never had it, and has its release again after.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from tests.cluster.certificates import Authority
from tests.cluster.kind_cluster import ROOT, KindCluster
from tests.docs.pages import OWN_SERVERS, blocks
from tests.docs.session import Session
from tests.e2e.secured import NAMESPACE, PODS, servers

PAGE = ROOT / "docs" / "operations.md"
SYSTEM = "stepwell-system"
OTHERS = ("shop", NAMESPACE)
PATIENCE = 240.0


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path, "ca")


@pytest.fixture
def empty(release: KindCluster, authority: Authority) -> Iterator[KindCluster]:
    """A cluster without Stepwell, in which the servers of the page are, and where its images can be had."""
    release.helm("uninstall", "stepwell", "--namespace", SYSTEM, "--wait")
    release.kubectl("delete", "namespace", SYSTEM, *OTHERS, "--ignore-not-found")
    release.kubectl("delete", "crd", "workflows.stepwell.dev", "runs.stepwell.dev")
    images = release.images
    for name in ("operator", "worker"):
        published = f"ghcr.io/stepwell/{name}:{_version()}"
        release.on_node("ctr", "--namespace", "k8s.io", "images", "tag", "--force", images[name], published)
    made = servers(authority, postgres=images["postgres"], kafka=images["kafka"])
    release.kubectl("apply", "--server-side", "-f", "-", stdin=yaml.safe_dump_all(made))
    for name in PODS:
        release.kubectl(
            *("wait", f"pod/{name}", "--namespace", NAMESPACE, "--for", "condition=Ready", "--timeout", "180s"),
            seconds=200,
        )
    yield release
    # Soon after a CRD is gone it takes a minute to delete a namespace, and nobody needs to wait for these.
    release.kubectl("delete", "namespace", *OTHERS, "--ignore-not-found", "--wait=false")
    release.kubectl("delete", "secret", "stepwell-database", "--namespace", SYSTEM, "--ignore-not-found")
    release.up("chart")


def _version() -> str:
    chart = yaml.safe_load((ROOT / "charts" / "stepwell" / "Chart.yaml").read_text("utf-8"))
    return str(chart["appVersion"])


def test_the_page_installs_and_removes_a_release(empty: KindCluster, authority: Authority, tmp_path: Path) -> None:
    """With them `helm test`, so a run that goes through database and brokers is part of it."""
    asked = [block for block in blocks(PAGE) if block.is_for_a_cluster(OWN_SERVERS)]
    assert len(asked) > 3
    (tmp_path / "charts").symlink_to(ROOT / "charts")
    assert authority.file == tmp_path / "ca.pem"
    programs = [empty.kubectl_program.parent, empty.tools]

    with Session(tmp_path, path=programs, patience=PATIENCE, KUBECONFIG=str(empty.kubeconfig)) as session:
        for block in asked:
            session.run(block)

    assert not [crd for crd in empty.list("crd") if crd["metadata"]["name"].endswith(".stepwell.dev")]
    assert json.loads(empty.helm("list", "--all-namespaces", "--output", "json").stdout) == []
