from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.support import FLOWS, REPOSITORY, call

BROKEN = sorted((REPOSITORY / "tests/unit/broken").glob("*.yaml"))
MARK = "# expect: "

WORKFLOW = """
apiVersion: stepwell.dev/v1alpha1
kind: Workflow
metadata: {{name: {name}}}
spec:
  start: New
  objectSchema: {{type: object, properties: {{grams: {{type: integer}}}}, required: [grams]}}
  statuses:
  - name: New
    step: {{handler: {{cel: {{rules: [{{to: Done}}]}}}}, to: [Done]}}
  - {{name: Done, terminal: true}}
{more}
"""
RUN = """
apiVersion: stepwell.dev/v1alpha1
kind: Run
metadata: {{name: {name}}}
spec: {{workflowRef: {{name: one}}, object: {object}, start: {start}}}
"""


def problems(*args: str | Path) -> list[dict[str, str]]:
    return json.loads(call("lint", *args, "-o", "json").stdout)["problems"]


def test_every_expected_fault_of_every_broken_manifest_is_told() -> None:
    found = problems(REPOSITORY / "tests/unit/broken")
    assert len(BROKEN) > 50
    for file in BROKEN:
        expected = [line.removeprefix(MARK) for line in file.read_text("utf-8").splitlines() if line.startswith(MARK)]
        assert expected, f"{file.name} expects nothing"
        mine = [p for p in found if p["file"] == str(file)]
        for line in expected:
            path, _, fragment = (part.strip() for part in line.partition("|"))
            told = [p for p in mine if p["path"] == path and fragment in f"{p['value']} {p['rule']}"]
            assert told, f"{file.name}: {line!r} is not among {mine}"


@pytest.mark.parametrize("file", BROKEN, ids=lambda file: file.stem)
def test_each_broken_manifest_fails_alone(file: Path) -> None:
    assert call("lint", file).exit_code == 1


def test_a_directory_as_kubernetes_mounts_it_has_each_file_once(tmp_path: Path) -> None:
    versions = tmp_path / "..2026_11_26"
    versions.mkdir()
    (versions / "workflow.yaml").write_text(WORKFLOW.format(name="one", more=""))
    (tmp_path / "..data").symlink_to(versions.name)
    (tmp_path / "workflow.yaml").symlink_to("..data/workflow.yaml")

    result = call("lint", tmp_path)

    assert result.exit_code == 0, result.stdout
    assert "1 file, 1 workflow" in result.stdout


def test_the_examples_are_clean_even_strictly() -> None:
    result = call("lint", "--strict", REPOSITORY / "examples")
    assert result.exit_code == 0, result.stdout
    assert "0 problems, 0 warnings" in result.stdout


def test_lines_are_sorted_and_name_file_line_path_value_and_rule(tmp_path: Path) -> None:
    (tmp_path / "b.yaml").write_text(WORKFLOW.format(name="one", more="  - {name: Lost, terminal: true}"))
    (tmp_path / "a.yaml").write_text(WORKFLOW.format(name="UPPER", more=""))
    result = call("lint", tmp_path)
    first, second, summary = result.stdout.splitlines()
    assert first.startswith(f"{tmp_path}/a.yaml:4: metadata.name: 'UPPER': must be ")
    assert second == (
        f"{tmp_path}/b.yaml:12: spec.statuses[2].name: 'Lost': no run can reach this status: it follows from no start"
    )
    assert summary == "2 files, 1 workflow, 0 runs: 2 problems, 0 warnings"
    assert result.exit_code == 1


def test_two_workflows_of_one_name_in_two_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.yaml").write_text(WORKFLOW.format(name="one", more=""))
    [found] = problems(tmp_path)
    assert (found["file"], found["path"]) == (f"{tmp_path}/b.yaml", "metadata.name")
    assert found["rule"] == f"this Workflow stands already at {tmp_path}/a.yaml:4"


def test_a_run_is_held_against_the_workflow_of_another_file(tmp_path: Path) -> None:
    (tmp_path / "workflow.yaml").write_text(WORKFLOW.format(name="one", more=""))
    (tmp_path / "runs.yml").write_text(
        "---".join(
            (
                RUN.format(name="good", object="{grams: 1}", start="New"),
                RUN.format(name="wrong-type", object="{grams: heavy}", start="New"),
                RUN.format(name="missing", object="{}", start="Newt"),
            )
        )
    )
    found = {(p["line"], p["path"]): p["rule"] for p in problems(tmp_path)}
    assert set(found) == {(10, "spec.object.grams"), (15, "spec.object"), (15, "spec.start")}
    assert found[10, "spec.object.grams"].startswith("does not fit spec.objectSchema: breaks the schema's rule type")
    assert "did you mean 'New'?" in found[15, "spec.start"]


def test_a_run_of_a_workflow_elsewhere_is_nobodys_fault(tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(RUN.format(name="good", object="{grams: heavy}", start="Anywhere"))
    assert problems(tmp_path) == []


SCHEDULED = """
  schedules:
  - {name: nightly, cron: "0 2 * * *", foreignID: nightly, object: {grams: 1}}
  - {name: hourly, cron: "0 * * * *", object: {grams: many}}
  - {name: never, cron: "0 0 30 2 *", timeZone: Europe/Olso, object: {grams: 1}}
"""


def test_schedules_are_tried_out(tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    file.write_text(WORKFLOW.format(name="one", more=SCHEDULED))
    found = {p["path"]: (p["severity"], p["rule"]) for p in problems(file)}
    assert found["spec.schedules[0].foreignID"][0] == "warning"
    assert "ForeignIDBusy" in found["spec.schedules[0].foreignID"][1]
    assert found["spec.schedules[1].object.grams"][0] == "error"
    assert found["spec.schedules[2].cron"][1].startswith("no day can ever match")
    assert found["spec.schedules[2].timeZone"][1].startswith("unknown time zone")
    assert len(found) == 4


WAITING = """
apiVersion: stepwell.dev/v1alpha1
kind: Workflow
metadata: {name: one}
spec:
  start: Wait
  statuses:
  - name: Wait
    timeouts:
    - {name: remind, after: 1h, handler: {cel: {rules: [{to: Wait}]}}, to: [Wait]}
    - {name: expire, after: 3h, handler: {cel: {rules: [{to: Done}]}}, to: [Done]}
  - name: Call
    step:
      attemptTimeout: 5s
      handler: {http: {url: "https://shop.example/x", timeout: 10s}}
      to: [Done]
  - {name: Done, terminal: true}
  migrations: [{from: Old, to: Call}]
"""


def test_warnings_do_not_fail_unless_strict(tmp_path: Path) -> None:
    file = tmp_path / "workflow.yaml"
    file.write_text(WAITING)
    found = {p["path"]: p["rule"] for p in problems(file)}
    assert found["spec.statuses[0].timeouts[1].after"].startswith("never comes: 'remind' fires after 1h")
    assert found["spec.statuses[1].step.handler.http.timeout"].startswith("is longer than attemptTimeout (5s)")
    assert len(found) == 2
    assert call("lint", file).exit_code == 0
    assert call("lint", file, "--strict").exit_code == 1
    assert ": warning: " in call("lint", file).stdout


CODE = """
apiVersion: stepwell.dev/v1alpha1
kind: Workflow
metadata: {name: one}
spec:
  start: New
  statuses:
  - name: New
    step: {handler: {python: "lint_target:move"}, to: [Done]}
  - name: Other
    step: {handler: {python: "lint_target:missing"}, to: [Done]}
  - {name: Done, terminal: true}
  migrations: [{from: Old, to: Other}]
"""


def test_import_tells_where_code_and_object_disagree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "lint_target.py").write_text(
        "from typing import Any, Literal\n"
        "from stepwell import Run\n"
        'async def move(run: Run[Any]) -> Literal["Done", "Dune"]:\n'
        '    return "Done"\n'
    )
    (tmp_path / "workflow.yaml").write_text(CODE)
    assert problems("workflow.yaml") == []
    found = {(p["line"], p["path"]): f"{p['value']} {p['rule']}" for p in problems("workflow.yaml", "--import")}
    assert set(found) == {
        (9, "spec.statuses[0].step.handler.python"),
        (11, "spec.statuses[1].step.handler.python"),
    }
    assert "lint_target:3" in found[9, "spec.statuses[0].step.handler.python"]
    assert "may return 'Dune'" in found[9, "spec.statuses[0].step.handler.python"]
    assert "has no 'missing'" in found[11, "spec.statuses[1].step.handler.python"]


def test_good_manifests_pass() -> None:
    result = call("lint", FLOWS / "parcels.yaml")
    assert (result.exit_code, result.stdout) == (0, "1 file, 1 workflow, 3 runs: 0 problems, 0 warnings\n")


def test_what_cannot_be_read_is_wrong_usage(tmp_path: Path) -> None:
    assert call("lint", tmp_path / "none.yaml").exit_code == 2
    empty = call("lint", tmp_path)
    assert (empty.exit_code, empty.stderr) == (2, f"error: no *.yaml or *.yml in {tmp_path}\n")


def test_a_file_that_is_not_text_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00")
    [found] = problems(tmp_path)
    assert found["rule"] == "is not UTF-8 (byte 0)"
