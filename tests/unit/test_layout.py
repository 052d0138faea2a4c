"""What the tree itself must keep: sizes, names, documented surface, declared dependencies."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from tests.unit import public_api

import stepwell

ROOT = Path(__file__).resolve().parents[2]
RUNTIME = sorted((ROOT / "runtime").rglob("*.py"))
SOURCES = [*RUNTIME, *sorted((ROOT / "operator").rglob("*.py")), *sorted((ROOT / "examples").rglob("*.py"))]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

MAX_MODULE = 400
MAX_FUNCTION = 60


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def functions(tree: ast.AST) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("directory", ["operator", "runtime"])
def test_source_roots_are_no_packages(directory: str) -> None:
    """With an ``__init__.py``, ``operator/`` would hide the standard library's module of that name."""
    assert not (ROOT / directory / "__init__.py").exists()


def test_no_module_is_too_long() -> None:
    lengths = {name_of(path): len(path.read_text("utf-8").splitlines()) for path in SOURCES}

    assert {name: length for name, length in lengths.items() if length > MAX_MODULE} == {}


def test_no_function_is_too_long() -> None:
    long = {}
    for path in SOURCES:
        for node in functions(ast.parse(path.read_text("utf-8"))):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > MAX_FUNCTION:
                long[f"{name_of(path)}:{node.lineno} {node.name}"] = length

    assert long == {}


def test_every_module_states_its_invariant() -> None:
    silent = [name_of(path) for path in RUNTIME if not ast.get_docstring(ast.parse(path.read_text("utf-8")))]

    assert silent == []


_ELSEWHERE = re.compile(r"(?<![\w.~}])/(?:home|root|work|Users|workspace|mnt)/\w|\.\./shared\b")
_UNFINISHED = re.compile(r"\b(?:TO" + r"DO|FIX" + r"ME|XX" + r"X)\b")
_TEXT = {".py", ".md", ".sql", ".toml", ".yaml", ".yml", ".json", ".txt", ".sh", ".cfg"}
_MADE = {".git", ".venv", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", "__pycache__", "dist", "build"}


def texts() -> Iterator[Path]:
    for path in sorted(ROOT.rglob("*")):
        parts = set(path.relative_to(ROOT).parts)
        made = parts & _MADE or any(part.startswith(".venv") for part in parts)
        named = path.suffix in _TEXT or path.name in {"Makefile", "Dockerfile"} or ".ci" in parts
        if not made and named and path.is_file() and path != Path(__file__).resolve():
            yield path


@pytest.mark.parametrize("pattern", [_ELSEWHERE, _UNFINISHED], ids=["paths of one machine", "unfinished work"])
def test_no_file_speaks_of(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:100]}"
        for path in texts()
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        # What .ci/run takes from beside the checkout it takes only where it is.
        if pattern.search(line) and not (name_of(path) == ".ci/run" and "KIND_NODE_PREBUILT" in line)
    ]

    assert found == []


def test_no_test_sleeps() -> None:
    """A test waits for a condition with a deadline, or moves the clock.

    A pause between two looks, inside a ``while``, is such a wait; ``asyncio.sleep(0)`` only lets others run.
    """
    slept = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        tree = ast.parse(path.read_text("utf-8"))
        looks = {id(node) for loop in ast.walk(tree) if isinstance(loop, ast.While) for node in ast.walk(loop)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call) or ast.unparse(node) == "asyncio.sleep(0)" or id(node) in looks:
                continue
            if ast.unparse(node.func) in {"time.sleep", "asyncio.sleep", "sleep"}:
                slept.append(f"{name_of(path)}:{node.lineno}")

    assert slept == []


def test_the_public_surface_is_the_one_on_record() -> None:
    """A name added, removed or changed: ``python -m tests.unit.public_api`` notes it, the changelog tells it."""
    assert public_api.described().splitlines() == public_api.FILE.read_text("utf-8").splitlines()


@pytest.mark.parametrize("module", public_api.MODULES)
def test_all_is_sorted_and_true(module: str) -> None:
    loaded = importlib.import_module(module)

    assert len(set(loaded.__all__)) == len(loaded.__all__)
    assert [name for name in loaded.__all__ if not hasattr(loaded, name)] == []
    assert not [name for name in loaded.__all__ if name.startswith("_") and name != "__version__"]


def test_what_is_imported_when_asked_for_is_what_checkers_see() -> None:
    """The package's page names each import twice: for checkers, and for ``__getattr__``."""
    tree = ast.parse((ROOT / "runtime/stepwell/__init__.py").read_text("utf-8"))
    (seen,) = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    homes = {
        node.module: tuple(alias.name for alias in node.names) for node in seen.body if isinstance(node, ast.ImportFrom)
    }

    assert vars(stepwell)["_HOMES"] == homes
    assert sorted(name for names in homes.values() for name in names) == sorted(set(stepwell.__all__) - {"__version__"})


def undocumented(module: str) -> Iterator[str]:
    loaded = importlib.import_module(module)
    for name in loaded.__all__:
        value = getattr(loaded, name)
        if inspect.isroutine(value) and not value.__doc__:
            yield f"{module}.{name}"
        if not inspect.isclass(value) or not value.__module__.startswith("stepwell"):
            continue
        if not vars(value).get("__doc__"):
            yield f"{module}.{name}"
        for member, inner in vars(value).items():
            function = inner.fget if isinstance(inner, property) else getattr(inner, "__func__", inner)
            if not member.startswith("_") and inspect.isfunction(function) and not _documented(function):
                yield f"{module}.{name}.{member}"


def _documented(function: Any) -> bool:
    ours = str(function.__module__).startswith("stepwell")
    return bool(function.__doc__) or not ours


@pytest.mark.parametrize("module", public_api.MODULES)
def test_every_public_name_has_a_docstring(module: str) -> None:
    assert list(undocumented(module)) == []


def loaded_by(code: str, directory: Path) -> set[str]:
    """Asked of a fresh interpreter: this one has loaded everything."""
    import subprocess  # noqa: PLC0415  (for this alone)

    done = subprocess.run(  # noqa: S603  (ours)
        [sys.executable, "-c", f"{code}; import sys; print(*sorted(sys.modules))"],
        cwd=directory,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(done.stdout.split())


def test_the_facade_loads_no_driver(tmp_path: Path) -> None:
    loaded = loaded_by("from stepwell import *", tmp_path)
    drivers = {
        "_sqlite3",
        "aiohttp",
        "aiokafka",
        "asyncpg",
        "cel",
        "kopf",
        "kubernetes",
        "prometheus_client",
        "sqlite3",
    }
    assert "stepwell.client" in loaded
    assert loaded & (drivers | {"jsonschema", "rich", "typer", "yaml"}) == set()


WORKER = "import stepwell.cli.main, stepwell.cli.worker, stepwell._worker.worker, stepwell.resources"


def test_a_worker_loads_nothing_that_only_few_need(tmp_path: Path) -> None:
    """Each of these is half a MiB to 10, of the 60 that an idle worker may take."""
    loaded = loaded_by(WORKER, tmp_path)
    assert {"aiokafka", "asyncpg", "prometheus_client"} <= loaded
    packages = {"aiohttp", "croniter", "jsonschema", "kubernetes", "opentelemetry", "rich", "sqlite3", "urllib3"}
    assert loaded & (packages | {"cel.cli", "stepwell.cli.dev", "stepwell.cli.runs"}) == set()


BROUGHT = {"pydantic-core": "pydantic", "referencing": "jsonschema", "yarl": "aiohttp"}
"""Types of a dependency's own interface that live in a package which it brings."""


def third_party() -> dict[str, set[str]]:
    """The packages that the runtime imports, each with the files that do; whoever runs the suites has pytest."""
    found: dict[str, set[str]] = {}
    for path in RUNTIME:
        if "conformance" in path.parts:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
                names = [node.module]
            for name in names:
                top = name.partition(".")[0]
                if top not in sys.stdlib_module_names and top != "stepwell":
                    found.setdefault(top, set()).add(name_of(path))
    return found


def distribution(requirement: str) -> str:
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert match is not None
    return match[0].lower().replace("_", "-")


def test_what_the_runtime_imports_is_declared_and_what_is_declared_is_imported() -> None:
    declared = {distribution(text) for text in PROJECT["dependencies"]}
    optional = {distribution(text) for extra in PROJECT["optional-dependencies"].values() for text in extra}
    installed = packages_distributions()
    used: set[str] = set()
    for top in third_party():
        names = {distribution(name) for name in installed.get(top, [top])}
        # Several packages may share one name at the top, and bring each other.
        used |= names & (declared | optional | set(BROUGHT)) or names

    assert used - declared - optional - set(BROUGHT) == set()
    assert set(BROUGHT.values()) <= declared
    # The zones of tzdata are read by the standard library.
    assert declared - used - {"tzdata"} == set()


def test_drivers_are_extras() -> None:
    extras = PROJECT["optional-dependencies"]

    assert set(extras) == {"postgres", "kafka", "metrics", "tracing", "worker", "operator"}
    base = {distribution(text) for text in PROJECT["dependencies"]}
    assert base & {"asyncpg", "aiokafka", "kubernetes", "kopf", "opentelemetry-api", "prometheus-client"} == set()


def test_the_version_is_told_once() -> None:
    assert PROJECT["version"] == stepwell.__version__
    assert PROJECT["requires-python"] == ">=3.11"
