"""The sides that are not Python: built or installed once into a cache, by the ordinary clients and the locks kept here.

Whatever is missing on this machine is a `BenchError` that says so: that side is then not measured.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.process import BenchError

SIDES = Path(__file__).resolve().parent / "sides"
INSTALL_SECONDS = 600.0


def graphile(dsn: str, runs: int, steps: int) -> list[str]:
    """The command of graphile-worker's side."""
    source = SIDES / "graphile"
    node, npm = _program("node"), _program("npm")
    ready = _cache("graphile", source)
    if not ready.is_dir():
        making = ready.with_name(f"{ready.name}.{os.getpid()}")
        shutil.copytree(source, making, ignore=shutil.ignore_patterns("node_modules"))
        _run([npm, "ci", "--no-audit", "--no-fund"], cwd=making)
        making.rename(ready)
    return [node, str(ready / "side.mjs"), dsn, str(runs), str(steps)]


def river(dsn: str, runs: int, steps: int) -> list[str]:
    """The command of River's side."""
    source = SIDES / "river"
    go = _program("go")
    ready = _cache("river", source)
    if not ready.is_file():
        making = ready.with_name(f"{ready.name}.{os.getpid()}")
        _run([go, "build", "-o", str(making), "."], cwd=source)
        making.rename(ready)
    return [str(ready), "-dsn", dsn, "-runs", str(runs), "-steps", str(steps)]


def versions() -> str:
    """What the locks say."""
    package = (SIDES / "graphile" / "package.json").read_text().split('"graphile-worker": "')[1].split('"')[0]
    module = (SIDES / "river" / "go.mod").read_text().split("riverqueue/river v")[1].split()[0]
    return f"graphile-worker {package}, River {module}"


def _cache(name: str, source: Path) -> Path:
    """A place whose name changes with what it is made of."""
    digest = hashlib.sha256()
    for path in sorted(path for path in source.iterdir() if path.is_file()):
        digest.update(path.read_bytes())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stepwell-bench"
    root.mkdir(parents=True, exist_ok=True)
    return root / f"{name}-{digest.hexdigest()[:12]}"


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise BenchError(f"no {name} on this machine")
    return found


def _run(command: Sequence[str], *, cwd: Path) -> None:
    done = subprocess.run(  # noqa: S603 - commands of the benchmark's own
        list(command), cwd=cwd, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
    )
    if done.returncode:
        raise BenchError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stderr[-2000:].rstrip()}")
