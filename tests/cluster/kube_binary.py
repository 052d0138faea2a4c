"""The programs of a Kubernetes cluster, from one binary that is made once and kept in the user's cache.

A directory is in the cache only whole: it is made beside its place and moved there, so that whoever is killed or races
leaves nothing that a later run would trust.
"""

from __future__ import annotations

import lzma
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

KUBERNETES_VERSION = "1.37.2"
PREBUILT = "KIND_NODE_PREBUILT"
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
BUILD_SECONDS = 3600.0
_SOURCE = Path(__file__).parent / "kind_node" / "kube"
_STAMP = "k8s.io/component-base/version"


def cache() -> Path:
    """Where the programs are kept between test runs."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "stepwell-kube" / KUBERNETES_VERSION


def programs() -> Path:
    """A directory with etcd, kube-apiserver, kube-controller-manager and kubectl."""
    ready = cache()
    if not ready.is_dir():
        ready.parent.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix="making-", dir=ready.parent))
        try:
            _make(making / "bin", making)
            _publish(making / "bin", ready)
        finally:
            shutil.rmtree(making, ignore_errors=True)
    return ready


def _make(into: Path, work: Path) -> None:
    into.mkdir()
    packed = Path(os.environ[PREBUILT]) / "kube.xz" if os.environ.get(PREBUILT) else None
    if packed is not None and packed.is_file():
        with lzma.open(packed) as source, (into / "kube").open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    else:
        _compile(into / "kube", work / "source")
    (into / "kube").chmod(0o755)
    for name in PROGRAMS:
        (into / name).symlink_to("kube")


def _publish(made: Path, ready: Path) -> None:
    try:
        made.rename(ready)
    except OSError:
        # Another test run was quicker.
        assert ready.is_dir()


def _compile(binary: Path, source: Path) -> None:
    if shutil.which("go") is None:
        pytest.fail(
            f"no Go on this machine: install it (1.26, or any since 1.21, which fetches it) to compile Kubernetes "
            f"{KUBERNETES_VERSION} for the tests, or let {PREBUILT} name a directory with kube.xz"
        )
    print(  # noqa: T201  (it takes a while)
        f"stepwell: compiling Kubernetes {KUBERNETES_VERSION} for the tests: about 15 minutes on 2 cores, once "
        f"(kept in {cache()})",
        flush=True,
    )
    shutil.copytree(_SOURCE, source)
    module = (source / "go.mod.in").read_text("utf-8").replace("@KUBERNETES@", KUBERNETES_VERSION)
    (source / "go.mod").write_text(module + "\n" + _replacements(source), "utf-8")
    _go(["mod", "tidy"], source)
    minor = KUBERNETES_VERSION.split(".")[1]
    stamps = {"gitVersion": f"v{KUBERNETES_VERSION}", "gitMajor": "1", "gitMinor": minor}
    flags = " ".join(["-s", "-w", *(f"-X {_STAMP}.{name}={value}" for name, value in stamps.items())])
    _go(["build", "-trimpath", "-ldflags", flags, "-o", str(binary), "."], source)


def _replacements(source: Path) -> str:
    """Kubernetes asks for its own parts at v0.0.0, which are published under the numbers of its releases."""
    asked = _go(["mod", "download", "-json", f"k8s.io/kubernetes@v{KUBERNETES_VERSION}"], source.parent)
    [named] = [line.split('"')[3] for line in asked.splitlines() if '"GoMod"' in line]
    lines = [line.split() for line in Path(named).read_text("utf-8").splitlines()]
    parts = {words[0] for words in lines if len(words) > 2 and words[1] == "=>" and words[0].startswith("k8s.io/")}
    return "".join(f"replace {part} => {part} v0.{KUBERNETES_VERSION.partition('.')[2]}\n" for part in sorted(parts))


def _go(arguments: Sequence[str], where: Path) -> str:
    environment: Mapping[str, str] = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-mod=mod"}
    done = subprocess.run(  # noqa: S603  (arguments of our own)
        ["go", *arguments],  # noqa: S607  (wherever it is)
        cwd=where,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=BUILD_SECONDS,
    )
    if done.returncode:
        pytest.fail(
            f"go {arguments[0]} failed with exit code {done.returncode}:\n{(done.stdout + done.stderr)[-3000:]}"
        )
    return done.stdout
