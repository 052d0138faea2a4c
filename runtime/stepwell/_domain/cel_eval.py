"""CEL behind a fence: an evaluation cannot be stopped, so all that could make it long is refused before it begins.

The library holds the interpreter lock, has no time limit, and copies a list for each entry that ``map`` and ``filter``
add to it. Hence the static budget (1 KiB of text, no macro inside a macro, literal patterns), the budget for the input
(64 KiB, only the fields that the rules name are converted, one conversion for all rules of an element) and an estimate
of the copies from the sizes of those fields. Whatever goes wrong is a ``RuleError`` without a value of the run in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from stepwell._domain.cel_scan import Each, Reference, Scan, UnreadableError, scan
from stepwell._domain.cel_values import (
    MAX_INPUT,
    MAX_RESULT,
    Measure,
    ValueRefusedError,
    measure,
    result_as_json,
)
from stepwell.errors import RuleError

if TYPE_CHECKING:
    from stepwell._domain.cel_library import Context, Program
    from stepwell._domain.definition import Json

TYPE_NAMES: Final = frozenset({"bool", "bytes", "double", "int", "list", "map", "null_type", "string", "type", "uint"})
"""What ``type(x)`` can be compared with."""
FUNCTIONS: Final = frozenset(
    {"bytes", "contains", "double", "duration", "dyn", "endsWith", "int", "matches", "size", "startsWith", "string"}
    | {"timestamp", "type", "uint", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getFullYear"}
    | {"getHours", "getMilliseconds", "getMinutes", "getMonth", "getSeconds"}
)
MAX_TEXT: Final = 1024
"""Bytes of an expression."""
MAX_WORK: Final = 1_000_000
"""Copies of small values that the macros of one expression may make: 0.2 s at the most."""

_PATTERN_WEIGHT = 500
_SHOWN = 120
_OPERANDS = re.compile(r"Unsupported operation: ([a-z]+ \S{1,2} [a-z]+)\. ")
_FUNCTION = re.compile(r"Function '(\w+)' error")
_UNDEFINED = re.compile(r"Undefined variable or function: '([\w.]+)'")


@dataclass(frozen=True, kw_only=True, eq=False)
class Compiled:
    """An expression inside the fence, ready to be evaluated by any number of threads."""

    text: str
    program: Program
    scan: Scan


@lru_cache(maxsize=1024)
def compile_expression(text: str) -> Compiled:
    """Compile; the last 1024 texts are kept. Raises ``RuleError`` for a text that is wrong or outside the fence."""
    found = size_problem(text) or parse(text)
    if isinstance(found, str):
        raise RuleError(shown(text), found)
    unknown = sorted(found.scan.functions - FUNCTIONS)
    problems = [*found.scan.problems, *(f"there is no function {name}()" for name in unknown)]
    if problems:
        raise RuleError(shown(text), "; ".join(problems))
    return found


def size_problem(text: str) -> str | None:
    """Whether the text is too long to be looked at."""
    size = len(text.encode(errors="replace"))
    return f"it is {size} bytes long: at most {MAX_TEXT}" if size > MAX_TEXT else None


@lru_cache(maxsize=1024)
def parse(text: str) -> Compiled | str:
    """Compile without the fence; a string says why it is not CEL."""
    from stepwell._domain.cel_library import compile_cel  # noqa: PLC0415  (it takes a moment)

    try:
        return Compiled(text=text, program=compile_cel(text), scan=scan(text))
    except UnreadableError as error:
        return f"it cannot be read: {error}"
    except ValueError as error:
        return _syntax(str(error))
    except BaseException as error:
        if _is_exit(error):
            raise
        return "it cannot be compiled"


def pattern_problems(given: Scan) -> Iterator[str]:
    """Which of the literal patterns of ``matches()`` are no regular expressions of the library."""
    from stepwell._domain.cel_library import compile_cel  # noqa: PLC0415  (see parse)

    for pattern in given.patterns:
        try:
            compile_cel("''.matches(p)").execute({"p": pattern})
        except RuntimeError:
            yield f"matches() cannot use the pattern {shown(pattern)!r}: it follows RE2, without look-around"


def _syntax(message: str) -> str:
    """The library's first complaint without the quoted text: ``line 1, column 4: mismatched input '<EOF>'``."""
    found = re.search(r"ERROR: <input>:(\d+):(\d+): (?:Syntax error: )?([^\n]*)", message)
    if found is None:
        return "it is not CEL"
    line, column, complaint = found.groups()
    complaint = complaint.split(" expecting ")[0].replace("'<EOF>'", "the end")
    return f"line {line}, column {column}: {complaint[:_SHOWN]}"


class Bound:
    """Variables, checked and converted once for a set of expressions: only what these name is looked at.

    Raises ``RuleError`` when a field that they name cannot be converted.
    """

    def __init__(self, expressions: Iterable[Compiled], variables: Mapping[str, Json | datetime]) -> None:
        self._context: Context | None = None
        self._sizes: dict[tuple[str, str | None], Measure] = {}
        self._values: dict[str, Any] = {}
        total = 0
        for compiled in expressions:
            for reference in compiled.scan.references:
                if reference.root not in variables:
                    continue
                total += self._take(compiled, reference, variables[reference.root])
                if total > MAX_INPUT:
                    raise RuleError(shown(compiled.text), f"the fields that the rules name are over {MAX_INPUT} bytes")

    def _take(self, compiled: Compiled, reference: Reference, whole: Any) -> int:
        """Measure and keep the field of a reference; its bytes, or 0 when it is here already."""
        root, name = reference.root, _field(reference, whole)
        if (root, name) in self._sizes or (root, None) in self._sizes:
            return 0
        label = root if name is None else f"{root}.{name}"
        try:
            size = measure(label, whole if name is None else whole.get(name))
        except ValueRefusedError as error:
            refused = str(error)
        else:
            self._sizes[root, name] = size
            if name is None:
                self._values[root] = whole
            else:
                kept = self._values.setdefault(root, {})
                if name in whole:
                    kept[name] = whole[name]
            return size.bytes
        raise RuleError(shown(compiled.text), refused)

    def evaluate(self, compiled: Compiled) -> Any:
        """The result as the library gives it. Raises ``RuleError``."""
        work = self._work(compiled.scan)
        if work > MAX_WORK:
            cause = f"its macros would copy about {work} values: at most {MAX_WORK}, so they need shorter lists"
            raise RuleError(shown(compiled.text), cause)
        try:
            return compiled.program.execute(self._converted())
        except BaseException as error:
            if _is_exit(error):
                raise
            cause = _cause(error, compiled.scan)
        raise RuleError(shown(compiled.text), cause)

    def _converted(self) -> Context:
        from stepwell._domain.cel_library import Context  # noqa: PLC0415  (see parse)

        if self._context is None:
            self._context = Context(self._values)
        return self._context

    def _work(self, given: Scan) -> int:
        """Copies of values that the macros can make, at most: entries times what is copied for each of them."""
        if not given.macros:
            return 0
        fields = {(r.root, _field(r, self._values.get(r.root))) for r in given.references}
        total = sum((self._size(*one) for one in fields), Measure())
        entries = total.longest + given.commas
        copying = sum(1 for macro in given.macros if macro in {"map", "filter"})
        each = given.commas + given.repeated_matches * _PATTERN_WEIGHT + copying * given.growth * total.weight
        for reference in given.references:
            if reference.macro:
                each += self._weight(reference) * (entries if reference.macro == "map" else 1)
        return entries * each

    def _size(self, root: str, name: str | None) -> Measure:
        return self._sizes.get((root, name)) or self._sizes.get((root, None)) or Measure()

    def _weight(self, reference: Reference) -> int:
        """The weight of what a body names beside its own variable; nothing for a small scalar."""
        value = self._values.get(reference.root)
        for part in reference.path:
            value = _child(value, part)
        size = measure(reference.text, value)
        return size.weight if size.weight > 1 else 0


def _field(reference: Reference, whole: Any) -> str | None:
    """The top-level field of a map that a reference reads; None: all of the variable."""
    first = reference.path[0] if reference.path else None
    return first if isinstance(first, str) and isinstance(whole, Mapping) else None


def _child(value: Any, part: str | int | Each) -> Any:
    if isinstance(value, Mapping) and isinstance(part, str):
        return value.get(part)
    if isinstance(value, list) and isinstance(part, int) and part < len(value):
        return value[part]
    return None


def _is_exit(error: BaseException) -> bool:
    """Whether it only passes through here; a panic of the library is no Exception either, but is ours to tell."""
    return isinstance(error, KeyboardInterrupt | SystemExit | GeneratorExit)


def shown(text: str) -> str:
    """An expression as it stands in messages."""
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _cause(error: BaseException, given: Scan) -> str:
    """In words that hold no value: the library's own messages quote keys, numbers and strings."""
    message = str(error)
    match error:
        case KeyError():
            key = error.args[0] if error.args else None
            named = f"no field {key!r}" if key in given.fields else "no such key"
            return f"{named}: ask has(...) or `in` first"
        case IndexError():
            return "an index is beyond the end of its list"
        case ZeroDivisionError():
            return "division by zero"
        case OverflowError():
            return "a number or time became too large"
        case TypeError():
            found = _OPERANDS.match(message)
            what = found.group(1) if found else "an operator or selector met a type that it does not take"
            return f"{what}: CEL converts nothing by itself; see int(), double(), string() and has()"
        case RuntimeError():
            return _runtime_cause(message, given)
        case _:
            return f"it could not be evaluated ({type(error).__name__})"


def _runtime_cause(message: str, given: Scan) -> str:
    failed, undefined = _FUNCTION.match(message), _UNDEFINED.match(message)
    if failed and failed.group(1) in given.functions:
        return f"{failed.group(1)}() could not read its argument"
    if undefined and undefined.group(1) in given.functions:
        return f"{undefined.group(1)}() does not take arguments of these types"
    if undefined and undefined.group(1) in given.variables:
        return f"the name {undefined.group(1)!r} is not known here"
    return "it could not be evaluated"


def as_json(compiled: Compiled, result: Any) -> Json:
    """A result as JSON of at most 256 KiB. Raises ``RuleError``."""
    try:
        value = result_as_json("the result", result)
        measure("the result", value, limit=MAX_RESULT)
    except ValueRefusedError as error:
        refused = str(error)
    else:
        return value
    raise RuleError(shown(compiled.text), refused)


def as_bool(compiled: Compiled, result: Any) -> bool:
    """A result that must be a boolean. Raises ``RuleError``."""
    if not isinstance(result, bool):
        raise RuleError(shown(compiled.text), f"it must be true or false, and is {_type_name(result)}")
    return result


def as_string(compiled: Compiled, result: Any) -> str:
    """A result that must be a string. Raises ``RuleError``."""
    if not isinstance(result, str):
        raise RuleError(shown(compiled.text), f"it must be a string, and is {_type_name(result)}: see string()")
    return result


def _type_name(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"
