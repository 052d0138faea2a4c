from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.cli.support import FLOWS, REPOSITORY, call

from stepwell.resources import parse_manifests


@pytest.fixture(autouse=True)
def _in_flows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(FLOWS)
    monkeypatch.syspath_prepend(str(FLOWS))


def test_a_manifest_is_what_lint_accepts_and_says_what_the_code_says(tmp_path: Path) -> None:
    result = call("manifest", "parcel_flow:wf", "--image", "registry.example/p:1", "-n", "shop", "--replicas", "3")
    assert result.exit_code == 0, result.stderr
    parsed = parse_manifests(result.stdout, "stdout")
    assert parsed.problems == ()
    written = yaml.safe_load(result.stdout)
    assert written["metadata"] == {"name": "parcels", "namespace": "shop"}
    assert (written["spec"]["worker"]["image"], written["spec"]["worker"]["replicas"]) == ("registry.example/p:1", 3)
    (tmp_path / "out.yaml").write_text(result.stdout)
    assert call("lint", tmp_path / "out.yaml", "--import", "--strict").exit_code == 0


def test_a_manifest_as_json() -> None:
    result = call("manifest", "parcel_flow:wf", "-o", "json")
    assert json.loads(result.stdout)["kind"] == "Workflow"


def test_a_graph_is_the_same_from_code_and_from_its_manifest(tmp_path: Path) -> None:
    from_code = call("graph", "parcel_flow:wf").stdout
    (tmp_path / "out.yaml").write_text(call("manifest", "parcel_flow:wf").stdout)
    assert call("graph", tmp_path / "out.yaml").stdout == from_code
    assert from_code == (
        "stateDiagram-v2\n"
        "    [*] --> New\n"
        "    New --> Weighed\n"
        "    Weighed --> Asking\n"
        "    Weighed --> Sent\n"
        "    Asking --> Sent: said\n"
        "    Asking --> Kept: said, expire after 1h\n"
        "    Sent --> [*]\n"
        "    Kept --> [*]\n"
    )


def test_a_graph_of_one_of_several(tmp_path: Path) -> None:
    several = REPOSITORY / "examples"
    result = call("graph", several)
    assert result.exit_code == 2
    assert "--workflow" in result.stderr
    assert call("graph", several, "-w", "orders").stdout.startswith("stateDiagram-v2\n    [*] --> Created\n")


def test_replicas_need_an_image() -> None:
    assert call("manifest", "parcel_flow:wf", "--replicas", "2").exit_code == 2
    named = call("manifest", "parcel_flow:wf", "-n", "Big Shop")
    assert (named.exit_code, named.stdout) == (2, "")
    assert named.stderr.startswith("error: --namespace: 'Big Shop' must be 1 to 63 lower-case letters")


def test_a_function_without_a_name_is_told_before_it_is_deployed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unnameable_flow.py").write_text(
        "from parcel_flow import Parcel, S\n"
        "from stepwell import Run, Workflow\n"
        "wf = Workflow('short', object=Parcel, status=S, start=S.NEW)\n"
        "for one, to in ((S.NEW, S.WEIGHED), (S.WEIGHED, S.ASKING), (S.ASKING, S.SENT)):\n"
        "    @wf.step(one, to=[to, S.KEPT])\n"
        "    async def move(run: Run[Parcel], to: S = to) -> S:\n"
        "        return to\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    result = call("manifest", "unnameable_flow:wf", "--image", "x")
    assert result.exit_code == 2
    assert "cannot be named module:function" in result.stderr
