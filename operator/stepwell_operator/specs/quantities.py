"""A quantity as the API server writes it, so that a child as it was applied and as it is read are the same.

Its canonical form has no fraction, and the largest unit of its own kind (of 1000 or of 1024) that leaves none. Of what
a container asks for, thousandths are the smallest part.
https://pkg.go.dev/k8s.io/apimachinery/pkg/api/resource#Quantity
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from fractions import Fraction

_FORM = re.compile(r"([+-]?(?:[0-9]+|[0-9]*[.][0-9]+))([numkMGTPE]|[KMGTPE]i)?")
_FACTORS = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_DECIMAL = ("m", "", "k", "M", "G", "T", "P", "E")
_BINARY = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")
_KI = 1024


def canonical(text: str) -> str:
    """The same quantity; one of a form that nobody writes (2e3, 5.) is left as it is."""
    found = _FORM.fullmatch(text)
    if found is None:
        return text
    number, unit = Fraction(found[1]), found[2] or ""
    if not unit.endswith("i"):
        return _decimal(number * Fraction(10) ** _FACTORS[unit])
    value = number * _KI ** _BINARY.index(unit)
    if abs(value) < _KI or value.denominator != 1:
        return _decimal(value)
    power = max(p for p in range(len(_BINARY)) if value % _KI**p == 0)
    return f"{value / _KI**power}{_BINARY[power]}"


def _decimal(value: Fraction) -> str:
    thousandths = math.ceil(value * 1000)
    if not thousandths:
        return "0"
    power = max(p for p in range(len(_DECIMAL)) if thousandths % 1000**p == 0)
    return f"{thousandths // 1000**power}{_DECIMAL[power]}"


def amounts(given: Mapping[str, str]) -> dict[str, str]:
    """Resources with canonical quantities."""
    return {name: canonical(quantity) for name, quantity in given.items()}
