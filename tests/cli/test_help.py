from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.support import COMMAND, REPOSITORY, call, environment, ran

from stepwell.cli.errors import EXIT_CODES, ExitCode


def cpu_of(*command: str) -> float:
    """Seconds of the processor, which a busy machine does not change as it changes the time on the wall."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment(), stdout=subprocess.DEVNULL, check=True)  # noqa: S603  (our own command)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_help_is_quick() -> None:
    assert min(cpu_of(*COMMAND, "--help") for _ in range(3)) < 0.5


def test_help_loads_neither_the_engine_nor_a_driver() -> None:
    code = (
        "import sys, stepwell.cli.main;"
        "print([m for m in sys.modules if m.split('.')[0] in"
        " {'aiohttp', 'jsonschema', 'pydantic', 'rich', 'sqlite3', 'yaml'}"
        " or m.startswith('stepwell._engine')])"
    )
    done = subprocess.run(  # noqa: S603  (our own code)
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_help_tells_every_exit_code() -> None:
    shown = call("--help").stdout
    for code in ExitCode:
        assert f"\n  {int(code):<4} " in EXIT_CODES
        assert f"    {int(code):<4} " in shown


def test_the_documentation_tells_every_exit_code_and_command() -> None:
    text = (REPOSITORY / "docs/cli.md").read_text("utf-8")
    for code in ExitCode:
        assert f"| {int(code)} |" in text
    for command in ("dev", "lint", "manifest", "graph", "workflows list", "workflows suspend", "workflows resume"):
        assert f"stepwell {command}" in text
    shown = call("runs", "--help").stdout.partition("Commands:")[2]
    names = [line.split()[0] for line in shown.splitlines() if line.startswith("  ")]
    assert len(names) == 11
    for name in names:
        assert f"runs {name}" in text


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("runs", "show"), "error: Missing argument 'REF' (see stepwell runs show --help)"),
        (("lint", "--qqqq", "x"), "error: No such option: --qqqq (see stepwell lint --help)"),
        (("nothing",), "error: No such command 'nothing' (see stepwell --help)"),
        (("runs", "wait", "1"), "error: Missing option '--for' (see stepwell runs wait --help)"),
        (("runs", "list", "--limit", "0"), None),
        (("dev", "-f", "nowhere.yaml"), "error: nowhere.yaml: is neither a file or directory nor MODULE:ATTR"),
        (("dev", "-f", "no_such_module:wf"), "error: no_such_module:wf: there is no module 'no_such_module'"),
        (("graph", "stepwell:Run"), "error: stepwell:Run: is type, not a stepwell.Workflow"),
    ],
)
def test_wrong_usage_is_one_line_and_code_2(tmp_path: Path, args: tuple[str, ...], told: str | None) -> None:
    ended = ran(*args, cwd=tmp_path)
    assert ended.code == 2
    assert ended.out == ""
    assert len(ended.err.splitlines()) == 1
    assert told is None or ended.err == f"{told}\n"


def test_a_group_alone_shows_its_help() -> None:
    result = call("runs")
    assert result.exit_code == 2
    assert "delete-data" in result.stderr


def test_a_missing_store_is_code_3_and_is_not_made(tmp_path: Path) -> None:
    store = tmp_path / "none.db"
    result = call("runs", "list", "--store", store)
    assert (result.exit_code, store.exists()) == (3, False)
    assert result.stderr.startswith(f"error: there is no store {store}: start `stepwell dev` first")


def test_a_file_that_is_no_store_is_code_3_and_left_alone(tmp_path: Path) -> None:
    store = tmp_path / "notes.txt"
    store.write_text("not a database, and longer than a header of one would be" * 10)
    before = store.read_bytes()
    result = call("runs", "list", "--store", store)
    assert result.exit_code == 3
    assert len(result.stderr.splitlines()) == 1
    assert store.read_bytes() == before


@pytest.mark.parametrize("store", [".", "inside", "nowhere/stepwell.db"])
def test_a_store_that_can_be_no_file_is_code_3_and_leaves_nothing_behind(tmp_path: Path, store: str) -> None:
    (tmp_path / "w.yaml").write_text((Path(__file__).parent / "flows/parcels.yaml").read_text("utf-8"))
    (tmp_path / "inside").mkdir()
    ended = ran("dev", "-f", "w.yaml", "--store", store, "--until-idle", cwd=tmp_path)
    assert (ended.code, ended.out) == (3, "")
    assert ended.err == f"error: {store} must be a file in a directory that exists\n"
    assert {path.name for path in tmp_path.iterdir()} == {"w.yaml", "inside"}


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    result = call("runs", "list", "--store", tmp_path / "none.db", env={"STEPWELL_DEBUG": "1"})
    assert type(result.exception).__name__ == "StoreRefusedError"


def test_a_reader_that_stops_reading_costs_no_traceback(tmp_path: Path) -> None:
    with subprocess.Popen(  # noqa: S603  (our own command)
        [*COMMAND, "--help"], cwd=tmp_path, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


def test_completion_knows_workflows_and_runs(tmp_path: Path) -> None:
    (tmp_path / "w.yaml").write_text((Path(__file__).parent / "flows/parcels.yaml").read_text("utf-8"))
    assert ran("dev", "-f", "w.yaml", "--until-idle", cwd=tmp_path).code == 0

    def completed(words: str) -> list[str]:
        env = {**environment(), "_STEPWELL_COMPLETE": "complete_bash", "COMP_WORDS": words}
        env["COMP_CWORD"] = str(len(words.split(" ")) - 1)
        done = subprocess.run(COMMAND, cwd=tmp_path, env=env, capture_output=True, text=True, check=True)  # noqa: S603
        return done.stdout.split()

    assert completed("stepwell runs show he") == ["heavy"]
    assert completed("stepwell runs list --workflow r") == ["routes"]
    assert completed("stepwell workflows suspend ") == ["routes"]
    assert completed("stepwell runs show --store none.db x") == []
