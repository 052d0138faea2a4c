"""What several rounds gave, and whether it is what was promised; nothing is measured, read or printed here.

A figure is a median with both ends. A target that nobody measured is not passed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import median
from typing import assert_never


@dataclass(frozen=True, kw_only=True)
class Spread:
    """What several rounds gave for one figure."""

    middle: float
    lowest: float
    highest: float


class Bound(StrEnum):
    """On which side of its limit a figure has to be."""

    AT_LEAST = ">="
    AT_MOST = "<="
    BELOW = "<"


class Word(StrEnum):
    """How a target ended."""

    MET = "pass"
    MISSED = "MISS"
    NOT_MEASURED = "not measured"


@dataclass(frozen=True, kw_only=True)
class Target:
    """A promise about one figure."""

    what: str
    bound: Bound
    limit: float
    unit: str

    def word_for(self, figure: Spread | None) -> Word:
        """Judge the median; the spread is shown, not judged."""
        if figure is None:
            return Word.NOT_MEASURED
        match self.bound:
            case Bound.AT_LEAST:
                met = figure.middle >= self.limit
            case Bound.AT_MOST:
                met = figure.middle <= self.limit
            case Bound.BELOW:
                met = figure.middle < self.limit
            case _:
                assert_never(self.bound)
        return Word.MET if met else Word.MISSED


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """A target with what was found; `figure` is None where nothing was measured."""

    target: Target
    figure: Spread | None

    @property
    def word(self) -> Word:
        """Whether the target is met."""
        return self.target.word_for(self.figure)


def spread(values: Sequence[float]) -> Spread:
    """Median and range of at least one value."""
    return Spread(middle=median(values), lowest=min(values), highest=max(values))


def number(value: float) -> str:
    """Three digits that mean something, or all of the integer part: 0.034, 4.27, 36.1, 15,700."""
    if value >= 100 or value == 0:
        return f"{value:,.0f}"
    if value >= 10:
        return f"{value:.1f}"
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def cell(figure: Spread | None, unit: str = "") -> str:
    """A figure as text."""
    if figure is None:
        return "-"
    return f"{number(figure.middle)}{unit} ({number(figure.lowest)}..{number(figure.highest)})"


def wanted(target: Target) -> str:
    """A limit as text."""
    return f"{target.bound} {target.limit:,g}{target.unit}"


def aligned(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: int) -> list[str]:
    """Columns as wide as their widest cell; the first `left` columns start at the left, the others end at the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = [header, ["-" * width for width in widths], *rows]
    return [
        "  ".join(
            text.ljust(width) if index < left else text.rjust(width)
            for index, (text, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    ]
