"""What others print about themselves, as numbers: Prometheus' text format, and ``/proc`` of a container's process."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')
_MIB = 1024.0

Labels = Mapping[str, str]


def samples(page: str, name: str) -> Iterator[tuple[Labels, float]]:
    """All samples of a metric: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format."""
    for line in page.splitlines():
        if line.startswith((f"{name}{{", f"{name} ")):
            head, _, value = line.rpartition(" ")
            yield dict(_LABEL.findall(head)), float(value)


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process at one moment; times are in seconds."""

    cpu: float
    """Used so far, by children that have ended too."""
    started: float
    """When it was started, in Unix time."""
    rss: float
    """In MiB, with the pages of files that it has mapped."""
    anonymous: float
    """In MiB, without those: what a node cannot drop, and what kubelets call RSS."""


SHOW_PROCESS = "cat /proc/1/stat /proc/uptime; getconf CLK_TCK; date +%s.%N; grep -E 'VmRSS|RssAnon' /proc/1/status"
"""What a shell in the container is to say for `process`."""

_TIMES, _STARTED = slice(11, 15), 19
"""Places behind the name in ``/proc/PID/stat``: user, system, and both of the children waited for; and the start."""


def process(told: str) -> Process:
    """From what `SHOW_PROCESS` says."""
    stat, uptime, ticks, now, rss, anonymous = told.splitlines()
    # The name is in parentheses, and may hold anything.
    fields = stat.rpartition(")")[2].split()
    per_second = int(ticks)
    age = float(uptime.split()[0]) - int(fields[_STARTED]) / per_second
    return Process(
        cpu=sum(map(int, fields[_TIMES])) / per_second,
        started=float(now) - age,
        rss=int(rss.split()[1]) / _MIB,
        anonymous=int(anonymous.split()[1]) / _MIB,
    )
