"""Everything that differs between two operators, read once from the environment; the secret in it is never shown."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from stepwell.control import Address, parse_duration
from stepwell.errors import Problem, SettingsError

T = TypeVar("T")

_LABEL = re.compile("[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


@dataclass(frozen=True, kw_only=True)
class OperatorSettings:
    """What one operator process is told."""

    dsn: str = field(repr=False)
    """The database of the installation, as ``postgresql://…``, when the process was started."""
    dsn_file: Path | None = None
    """Where it stands, and is changed when its password is. None: nowhere."""
    namespace: str
    """Where the operator itself lives: its Lease is there."""
    identity: str
    """What tells this process from the others that want the Lease."""
    lease: str = "stepwell-operator"
    namespaces: tuple[str, ...] | None = None
    """Whose Workflows and Runs it serves; None: those of all namespaces."""
    address: Address = field(default_factory=lambda: Address(host="0.0.0.0", port=8080))  # noqa: S104  (of a pod)
    kubeconfig: str | None = None
    """None: the pod's ServiceAccount."""
    writes_per_second: int = 100
    """To the API server, over a while; twice as many at once."""
    runs_kept: int = 1000
    """Run objects in a namespace, above which those go first whose runs ended first."""
    ttl: timedelta = timedelta(hours=1)
    """Of a Run object that says nothing of it."""
    workers: int = 16
    """Objects that are looked at at once."""
    watch_silence: timedelta = timedelta(seconds=90)
    """After which a watch that says nothing is made anew: what it watches may have changed all the same."""
    log_level: str = "info"


def load_settings(environ: Mapping[str, str]) -> OperatorSettings:
    """Read the environment. Raises ``SettingsError`` with everything that is wrong."""
    given = _Given(environ)
    dsn = given.text("STEPWELL_DSN", required=True)
    namespaces = tuple(each.strip() for each in given.text("STEPWELL_WATCH_NAMESPACES").split(",") if each.strip())
    for each in namespaces:
        if not _LABEL.fullmatch(each):
            given.fault("STEPWELL_WATCH_NAMESPACES", each, "must be names of namespaces, with commas between")
    if dsn and not dsn.startswith(("postgresql://", "postgres://")):
        given.fault("STEPWELL_DSN", "", "must be postgresql://USER:PASSWORD@HOST/NAME")
    level = given.text("STEPWELL_LOG_LEVEL") or "info"
    if level not in {"debug", "info", "warning", "error"}:
        given.fault("STEPWELL_LOG_LEVEL", level, "must be debug, info, warning or error")
    settings = OperatorSettings(
        dsn=dsn,
        dsn_file=Path(file) if (file := given.text("STEPWELL_DSN_FILE")) else None,
        namespace=given.text("POD_NAMESPACE") or "default",
        identity=given.text("POD_NAME") or socket.gethostname(),
        lease=given.text("STEPWELL_LEASE") or OperatorSettings.lease,
        namespaces=namespaces or None,
        address=given.parsed("STEPWELL_METRICS", _address, Address(host="0.0.0.0", port=8080)),  # noqa: S104  (of a pod)
        kubeconfig=given.text("KUBECONFIG") or None,
        writes_per_second=given.parsed("STEPWELL_WRITES_PER_SECOND", _number, OperatorSettings.writes_per_second),
        runs_kept=given.parsed("STEPWELL_RUNS_KEPT", _number, OperatorSettings.runs_kept),
        ttl=given.parsed("STEPWELL_RUN_TTL", _duration, OperatorSettings.ttl),
        workers=given.parsed("STEPWELL_WORKERS", _number, OperatorSettings.workers),
        watch_silence=given.parsed("STEPWELL_WATCH_SILENCE", _duration, OperatorSettings.watch_silence),
        log_level=level,
    )
    if given.problems:
        raise SettingsError(given.problems)
    return settings


class _Given:
    """The environment, and what is wrong with it."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.problems: list[Problem] = []

    def text(self, name: str, *, required: bool = False) -> str:
        value = self._environ.get(name, "").strip()
        if required and not value:
            self.fault(name, "", "is not set")
        return value

    def parsed(self, name: str, parse: Callable[[str], T], otherwise: T) -> T:
        value = self.text(name)
        if not value:
            return otherwise
        try:
            return parse(value)
        except ValueError as error:
            self.fault(name, value, str(error))
            return otherwise

    def fault(self, name: str, value: str, rule: str) -> None:
        self.problems.append(Problem(path=name, value=repr(value) if value else "", rule=rule))


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) > 0):
        raise ValueError("must be a whole number above 0")
    return int(text)


def _duration(text: str) -> timedelta:
    try:
        return parse_duration(text)
    except ValueError:
        raise ValueError("must be a duration such as 90s or 1h30m") from None


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError:
        raise ValueError("must be [HOST:]PORT, with a port from 0 to 65535") from None
