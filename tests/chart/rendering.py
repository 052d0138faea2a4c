"""What the chart makes of values: the objects in an order of their own, so that only their content is compared.

A case is a file of values. Comments at its top may say ``release:`` and ``namespace:``. What a case makes is kept as
its difference from the case ``base``, whose objects are kept whole; texts that have files of their own are left out.
``python -m tests.chart.rendering`` writes all of them anew.
"""

from __future__ import annotations

import difflib
import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
CHART = ROOT / "charts" / "stepwell"
CASES = sorted((HERE / "cases").glob("*.yaml"))
REFUSED = sorted((HERE / "refused").glob("*.yaml"))
SNAPSHOTS = HERE / "snapshots"
BASE = HERE / "cases" / "base.yaml"
TIMEOUT_SECONDS = 900.0

Object = dict[str, Any]


@cache
def helm() -> str:
    """The program; it is compiled if this machine has none yet."""
    tools = ROOT / "tests" / "cluster" / "kind" / "tools"
    done = subprocess.run([tools], stdout=subprocess.PIPE, text=True, check=True, timeout=TIMEOUT_SECONDS)  # noqa: S603  (ours)
    return f"{done.stdout.strip()}/helm"


class _Strict(yaml.SafeLoader):
    """Refuses a key that stands twice: the API server would take one of the two."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=deep) for key, _ in node.value]
        assert len(set(keys)) == len(keys), f"{node.start_mark}: a key stands twice: {sorted(keys)}"
        return super().construct_mapping(node, deep)


def run_helm(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Its exit code and output."""
    return subprocess.run(  # noqa: S603  (as above)
        [helm(), *arguments], capture_output=True, text=True, check=False, timeout=60
    )


def told(case: Path, key: str, default: str) -> str:
    """What a comment of the case says."""
    found = re.search(rf"^# {key}: (.+)$", case.read_text("utf-8"), re.MULTILINE)
    return found[1] if found else default


def template(case: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`helm template` with the values of a case."""
    release, namespace = told(case, "release", "stepwell"), told(case, "namespace", "stepwell-system")
    return run_helm("template", release, CHART, "--namespace", namespace, "--values", case, *arguments)


@cache
def objects(case: Path) -> tuple[Object, ...]:
    """All objects of a case, hooks and tests too."""
    done = template(case)
    assert done.returncode == 0, done.stderr
    found = [document for document in yaml.load_all(done.stdout, Loader=_Strict) if document is not None]
    return tuple(sorted(found, key=place))


def place(found: Object) -> tuple[str, str, str]:
    """Kind, namespace and name."""
    metadata = found["metadata"]
    return found["kind"], metadata.get("namespace", ""), metadata["name"]


def notes(case: Path) -> str:
    """What Helm says after the installation."""
    release, namespace = told(case, "release", "stepwell"), told(case, "namespace", "stepwell-system")
    done = run_helm(
        "install",
        release,
        CHART,
        "--dry-run=client",
        "--namespace",
        namespace,
        "--values",
        case,
        "--disable-openapi-validation",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.partition("\nNOTES:\n")[2]


@cache
def _texts() -> dict[str, str]:
    files = [path for path in (CHART / "files").iterdir() if path.suffix in {".py", ".json"}]
    return {path.read_text("utf-8").strip(): f"(the text of files/{path.name})" for path in files}


# They are on every object, and one test asks for them.
_ON_ALL = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/part-of", "app.kubernetes.io/version")


def _shortened(value: Any) -> Any:
    if isinstance(value, list):
        return [_shortened(each) for each in value]
    if not isinstance(value, dict):
        return _texts().get(value.strip(), value) if isinstance(value, str) else value
    if value.get("kind") == "CustomResourceDefinition":
        value = {key: value[key] for key in ("apiVersion", "kind", "metadata")}
    if "objects.json" in value:
        value = {**value, "objects.json": json.loads(value["objects.json"])}
    return {key: _shortened(inner) for key, inner in value.items() if key not in _ON_ALL}


def texts(case: Path) -> dict[str, str]:
    """Each object of a case as YAML, by its place."""
    return {
        " ".join(filter(None, place(found))): yaml.safe_dump(
            _shortened(found), sort_keys=True, width=140, default_flow_style=None
        )
        for found in objects(case)
    }


def difference(case: Path) -> Iterator[str]:
    """What a case changes, object by object. Without the numbers of lines, which would move with the base."""
    before, after = texts(BASE), texts(case)
    for name in sorted(before | after):
        if name not in after:
            yield f"--- {name}"
        elif name not in before:
            yield f"+++ {name}"
            yield from (f"+{line}" for line in after[name].splitlines())
        elif before[name] != after[name]:
            yield f"=== {name}"
            lines = difflib.unified_diff(before[name].splitlines(), after[name].splitlines(), n=1, lineterm="")
            yield from ("@@" if line.startswith("@@") else line.rstrip() for line in list(lines)[2:])


def snapshots() -> Iterator[tuple[Path, str]]:
    """Each file of snapshots, and what should be in it."""
    for case in CASES:
        yield snapshot(case)


def snapshot(case: Path) -> tuple[Path, str]:
    """The file of one case, and what should be in it."""
    if case == BASE:
        return SNAPSHOTS / "base.yaml", "---\n".join(texts(case).values())
    return SNAPSHOTS / f"{case.stem}.diff", "".join(f"{line}\n" for line in difference(case))


def main() -> None:
    """Write all of them."""
    SNAPSHOTS.mkdir(exist_ok=True)
    for old in SNAPSHOTS.iterdir():
        old.unlink()
    for path, wanted in snapshots():
        path.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
