"""Where settings stand: the environment before files, a later file before an earlier one, and each knows its place.

A file is YAML, or a directory with one file for each setting, as Kubernetes mounts a Secret. What is empty is not set.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from stepwell.errors import Problem

PREFIX = "STEPWELL_"
OTHERS = ("STEPWELL_DEBUG", "STEPWELL_POD_UID", "STEPWELL_SETTINGS", "STEPWELL_STORE")
"""Variables of ours that are no settings of a worker."""
MAX_FILE = 1024 * 1024

_OTHER_FAMILIES = ("STEPWELL_SECRET_",)
_PEM = "-----BEGIN "
# What Kubernetes sets in every pod for a Service whose name begins with "stepwell":
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_OF_A_SERVICE = re.compile(r"(.+?)_(?:SERVICE_HOST|SERVICE_PORT(?:_.+)?|PORT(?:_[0-9]+_(?:TCP|UDP|SCTP)(?:_.+)?)?)")


@dataclass(frozen=True, kw_only=True)
class Setting:
    """A setting that there is. ``path`` holds its names in YAML, from the outside to the inside."""

    path: tuple[str, ...]
    secret: bool = False
    is_file: bool = False

    @property
    def name(self) -> str:
        """Such as ``kafka.caFile``."""
        return ".".join(self.path)

    @property
    def key(self) -> str:
        """The name in one word, for a file of a directory: ``kafkaCaFile``."""
        return self.path[0] + "".join(part[0].upper() + part[1:] for part in self.path[1:])

    @property
    def variable(self) -> str:
        """Such as ``STEPWELL_KAFKA_CA_FILE``."""
        return PREFIX + re.sub("(?<=[a-z0-9])(?=[A-Z])", "_", self.key).upper()


@dataclass(frozen=True, kw_only=True)
class Given:
    """A value, and where it stands."""

    value: Any = field(repr=False)
    place: str


@dataclass(kw_only=True)
class Found:
    """All that was given, by the name of the setting."""

    values: dict[str, Given] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    """One line each."""


def gather(known: Sequence[Setting], files: Sequence[Path], environ: Mapping[str, str]) -> Found:
    """Read all sources; what is wrong with one hides nothing of the others."""
    found = Found()
    for path in files:
        try:
            _read(path, known, found)
        except OSError as error:
            found.problems.append(_problem(path, f"cannot be read: {error.strerror}"))
        except UnicodeDecodeError as error:
            found.problems.append(_problem(path, f"is not UTF-8 (byte {error.start})"))
    for setting in known:
        if environ.get(setting.variable):
            found.values[setting.name] = Given(value=environ[setting.variable], place=setting.variable)
    found.warnings += _unknown_variables(known, environ)
    return found


def _read(path: Path, known: Sequence[Setting], found: Found) -> None:
    if path.is_dir():
        _read_directory(path, known, found)
    elif path.stat().st_size > MAX_FILE:
        found.problems.append(_problem(path, f"is larger than {MAX_FILE} bytes"))
    else:
        _read_yaml(path, known, found)


def _read_directory(path: Path, known: Sequence[Setting], found: Found) -> None:
    by_key = {setting.key: setting for setting in known}
    # Kubernetes keeps versions of a mounted Secret beside it, under names that begin with two dots.
    for file in sorted(file for file in path.iterdir() if not file.name.startswith(".") and file.is_file()):
        setting = by_key.get(file.name)
        if setting is None:
            close = _nearest(file.name, by_key)
            # A Secret may hold what is for others; what is nearly one of ours is a slip.
            if close:
                found.warnings.append(f"{file}: unknown setting; did you mean {close}?")
        elif file.stat().st_size > MAX_FILE:
            found.problems.append(_problem(file, f"is larger than {MAX_FILE} bytes"))
        else:
            text = file.read_text("utf-8").rstrip("\r\n")
            # A certificate is wanted as a file, and here it is one.
            value = file.name if setting.is_file and text.startswith(_PEM) else text
            _put(found, setting, value, file)


def _read_yaml(path: Path, known: Sequence[Setting], found: Found) -> None:
    try:
        document = yaml.safe_load(path.read_text("utf-8"))
    except yaml.MarkedYAMLError as error:
        # Of the error only the place: what it quotes may be a secret.
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        found.problems.append(_problem(path, f"is not YAML (line {line})"))
        return
    except yaml.YAMLError:
        found.problems.append(_problem(path, "is not YAML"))
        return
    if document is None:
        return
    if not isinstance(document, dict):
        found.problems.append(_problem(path, "must be a mapping of settings"))
        return
    names = {(setting.key,): setting for setting in known} | {setting.path: setting for setting in known}
    for keys, value in _leaves(document, {setting.path[:-1] for setting in known if len(setting.path) > 1}):
        setting = names.get(keys)
        if setting is not None:
            _put(found, setting, value, path)
            continue
        name = ".".join(keys)
        close = _nearest(name, [".".join(each) for each in names])
        rule = "unknown setting" + (f"; did you mean {close}?" if close else "")
        found.problems.append(Problem(file=str(path), path=name, value="", rule=rule))


def _leaves(
    document: Mapping[Any, Any], groups: set[tuple[str, ...]], above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in document.items():
        keys = (*above, str(key))
        if keys in groups and isinstance(value, dict):
            yield from _leaves(value, groups, keys)
        elif keys not in groups or value is not None:
            yield keys, value


def _put(found: Found, setting: Setting, value: Any, file: Path) -> None:
    if value is None or value == "":
        return
    if setting.is_file and isinstance(value, str):
        value = str(file.parent / value)
    found.values[setting.name] = Given(value=value, place=str(file))


def _unknown_variables(known: Sequence[Setting], environ: Mapping[str, str]) -> Iterator[str]:
    names = [setting.variable for setting in known] + list(OTHERS)
    for name in sorted(environ):
        mine = name.startswith(PREFIX) and not name.startswith(_OTHER_FAMILIES)
        if not mine or name in names or _is_of_a_service(name, environ):
            continue
        close = _nearest(name, names)
        yield f"{name}: unknown setting" + (f"; did you mean {close}?" if close else "")


def _is_of_a_service(name: str, environ: Mapping[str, str]) -> bool:
    found = _OF_A_SERVICE.fullmatch(name)
    return found is not None and f"{found[1]}_SERVICE_HOST" in environ


def _nearest(name: str, names: Sequence[str] | Mapping[str, Setting]) -> str:
    folded = {re.sub("[^a-z0-9]", "", each.lower()): each for each in names}
    close = difflib.get_close_matches(re.sub("[^a-z0-9]", "", name.lower()), folded, n=1, cutoff=0.75)
    return folded[close[0]] if close else ""


def _problem(path: Path, rule: str) -> Problem:
    return Problem(path=str(path), value="", rule=rule)
