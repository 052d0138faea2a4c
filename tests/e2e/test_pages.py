"""What the pages show of a cluster is what happens on one: those blocks are run here, in order, as a reader would."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cluster.kind_cluster import ROOT, KindCluster
from tests.docs.pages import THE_SAMPLE, blocks, pages
from tests.docs.session import Session

PAGES = [page for page in pages() if any(block.is_for_a_cluster(THE_SAMPLE) for block in blocks(page))]


@pytest.fixture(scope="module")
def sample(release: KindCluster) -> Iterator[KindCluster]:
    """The cluster as `make kind-up` leaves it, with the sample in the namespace `default`."""
    release.up("sample")
    yield release
    release.kubectl("delete", "swr", "--all", "--namespace", "default")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_commands_of_a_page_do_what_it_says(sample: KindCluster, page: Path, tmp_path: Path) -> None:
    (tmp_path / "charts").symlink_to(ROOT / "charts")
    programs = [sample.kubectl_program.parent, sample.tools]
    with Session(tmp_path, path=programs, KUBECONFIG=str(sample.kubeconfig)) as session:
        for block in blocks(page):
            if block.is_for_a_cluster(THE_SAMPLE) or "file" in block.markers:
                session.run(block)
