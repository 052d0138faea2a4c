"""What an expression names and repeats, read from its tokens; agrees with the library on every text that it compiles.

The library tells names, but neither paths (``object.items``) nor what stands inside a macro, and these are what bound
the cost of an evaluation, which cannot be stopped once it has begun. A text that this module cannot follow is refused.
Grammar: https://github.com/google/cel-spec/blob/master/doc/langdef.md#syntax
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

MACROS: Final = frozenset({"all", "exists", "exists_one", "existsOne", "map", "filter"})
MAX_MACROS: Final = 8
MAX_ADDITIONS: Final = 32
"""Each ``+`` copies both of its operands."""
MAX_PATTERN: Final = 256
"""Characters of a regular expression."""
MAX_REPEATS: Final = 64
"""The sum of the counts in the braces of a regular expression, each of which multiplies its compiled size."""

_TOKEN = re.compile(
    r"""(?P<space>(?:[ \t\n\f\r]|//[^\n]*)+)
    |(?P<string>[bB]?[rR](?:'{3}.*?'{3}|"{3}.*?"{3}|'[^'\n\r]*'|"[^"\n\r]*")
        |[bB]?(?:'{3}(?:[^\\]|\\.)*?'{3}|"{3}(?:[^\\]|\\.)*?"{3}|'(?:[^'\\\n\r]|\\.)*'|"(?:[^"\\\n\r]|\\.)*"))
    |(?P<number>0[xX][0-9a-fA-F]+[uU]?|[0-9]*\.[0-9]+(?:[eE][+-]?[0-9]+)?|[0-9]+[eE][+-]?[0-9]+|[0-9]+[uU]?)
    |(?P<name>[A-Za-z_][A-Za-z0-9_]*)
    |(?P<mark>&&|\|\||[<>=!]=|[-+*/%!<>?:.,()\[\]{}])""",
    re.VERBOSE | re.DOTALL,
)
_WORDS = frozenset({"true", "false", "null", "in"})
_ESCAPE = re.compile(
    r"\\([abfnrtv\\'\"`?]|[xX][0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U000[0-9a-fA-F]{5}|U0010[0-9a-fA-F]{4}|[0-3][0-7]{2})"
)
_SIMPLE = dict(zip("abfnrtv\\'\"`?", "\a\b\f\n\r\t\v\\'\"`?", strict=True))
_COUNTS = re.compile(r"\{([0-9]+)(?:,([0-9]*))?\}")


class UnreadableError(ValueError):
    """The text holds something that this module does not follow."""


@dataclass(frozen=True, kw_only=True)
class Each:
    """In a path: any one entry of a list, or any one key of a map."""


Part = str | int | Each
EACH: Final = Each()


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One use of a variable: its name and the constant selectors behind it (``object.lines[0]["sku"]``)."""

    root: str
    path: tuple[Part, ...]
    macro: str = ""
    """The macro in whose body it stands."""

    @property
    def text(self) -> str:
        """As a user would write it."""
        parts = (f".{p}" if isinstance(p, str) else f"[{p}]" if isinstance(p, int) else "[*]" for p in self.path)
        return self.root + "".join(parts)


@dataclass(kw_only=True)
class Scan:
    """All that the tokens tell. ``bound`` are uses of a macro's own variable, with the path that it runs over."""

    references: list[Reference] = field(default_factory=list)
    bound: list[Reference] = field(default_factory=list)
    bound_names: set[str] = field(default_factory=set)
    functions: set[str] = field(default_factory=set)
    fields: set[str] = field(default_factory=set)
    """Every field name that the text itself holds."""
    macros: list[str] = field(default_factory=list)
    commas: int = 0
    growth: int = 1
    """By how much chained ``map`` bodies can multiply what they run over: the product of their uses of it."""
    patterns: list[str] = field(default_factory=list)
    """Of ``matches()``, within their limits."""
    repeated_matches: int = 0
    """Weight of the regular expressions that are compiled anew for each entry."""
    problems: list[str] = field(default_factory=list)

    @property
    def variables(self) -> frozenset[str]:
        """Names that must be given from outside."""
        return frozenset(reference.root for reference in self.references)


@dataclass(frozen=True, kw_only=True)
class _Token:
    kind: str
    text: str


@dataclass(kw_only=True)
class _Frame:
    opener: str
    call: str = ""
    start: int = 0
    variable: str = ""
    over: Reference | None = None
    uses: int = 0

    @property
    def macro(self) -> str:
        return self.call if self.variable else ""


def tokens(text: str) -> list[tuple[str, str]]:
    """(kind, text) of each token; ``UnreadableError`` at the first character that begins none."""
    return [(token.kind, token.text) for token in _tokens(text)]


def _tokens(text: str) -> list[_Token]:
    out: list[_Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            raise UnreadableError(f"character {at + 1} begins nothing that CEL knows")
        if found.lastgroup != "space":
            out.append(_Token(kind=found.lastgroup or "", text=found.group()))
        at = found.end()
    return out


def scan(text: str) -> Scan:
    """Read a text that the library has compiled already; ``problems`` are the parts of the fence that it breaks."""
    return _Scanner(_tokens(text)).run()


class _Scanner:
    def __init__(self, given: list[_Token]) -> None:
        self.tokens = given
        self.at = 0
        self.stack: list[_Frame] = []
        self.out = Scan()

    def run(self) -> Scan:
        while self.at < len(self.tokens):
            token = self.tokens[self.at]
            if token.kind == "name" and token.text not in _WORDS:
                self._name(token.text)
            else:
                self._mark(token)
                self.at += 1
        self._limits()
        return self.out

    def _peek(self, offset: int = 0) -> str:
        index = self.at + offset
        return self.tokens[index].text if 0 <= index < len(self.tokens) else ""

    def _name(self, name: str) -> None:
        """At a name: a call, a selector behind something computed, or a variable with its path."""
        after_dot = self._peek(-1) == "."
        if self._peek(1) == "(":
            self._open_call(name, method=after_dot, over=None)
            return
        if self._peek(1) == "{":
            self.out.problems.append(f"messages ({name}{{...}}) are not part of a rule: write a map, {{'key': value}}")
        if after_dot and self.at >= 2 and self._ends_operand(self.at - 2):  # noqa: PLR2004  (the token before the dot)
            self.out.fields.add(name)
            self.at += 1
            return
        self.at += 1
        path = self._selectors()
        reference = self._refer(f".{name}" if after_dot else name, path)
        if self._peek() == "." and self._peek(2) == "(":
            self.at += 1
            self._open_call(self._peek(), method=True, over=reference)

    def _ends_operand(self, index: int) -> bool:
        token = self.tokens[index]
        return token.text in {")", "]", "}"} if token.kind == "mark" else token.text != "in"

    def _selectors(self) -> tuple[Part, ...]:
        """Take ``.field``, ``[0]`` and ``["field"]`` for as long as they are constant."""
        path: list[Part] = []
        while True:
            if self._peek() == "." and self._peek(2) != "(" and self._kind(1) == "name":
                path.append(self._peek(1))
                self.at += 2
            elif self._peek() == "[" and self._peek(2) == "]" and self._kind(1) in {"string", "number"}:
                constant = _constant(self.tokens[self.at + 1])
                if constant is None:
                    break
                path.append(constant)
                self.at += 3
            else:
                break
        self.out.fields.update(part for part in path if isinstance(part, str))
        return tuple(path)

    def _kind(self, offset: int) -> str:
        index = self.at + offset
        return self.tokens[index].kind if index < len(self.tokens) else ""

    def _refer(self, name: str, path: tuple[Part, ...]) -> Reference:
        frame = next((f for f in reversed(self.stack) if f.variable), None)
        if frame is not None and name == frame.variable:
            frame.uses += 1
            over = frame.over
            whole = Reference(root=over.root if over else "", path=((*over.path, EACH, *path) if over else path))
            self.out.bound.append(whole)
            return whole
        reference = Reference(root=name, path=path, macro=frame.macro if frame else "")
        self.out.references.append(reference)
        return reference

    def _open_call(self, name: str, *, method: bool, over: Reference | None) -> None:
        """At the name of a call, whose ``(`` follows."""
        self.at += 2
        frame = _Frame(opener="(", call=name, start=self.at)
        self.stack.append(frame)
        if method and name in MACROS:
            self._open_macro(frame, over)
        elif name == "has" and not method:
            return
        else:
            self.out.functions.add(name)
            if name.startswith("get") and self._peek() != ")":
                self.out.problems.append(f"{name}() takes no argument: a time is read in the offset that it carries")

    def _open_macro(self, frame: _Frame, over: Reference | None) -> None:
        self.out.macros.append(frame.call)
        if any(f.variable for f in self.stack):
            self.out.problems.append(f"{frame.call}() stands inside another macro, which would multiply their costs")
        if self._kind(0) != "name" or self._peek(1) != ",":
            self.out.problems.append(f"the first argument of {frame.call}() must be a plain name")
            return
        frame.variable, frame.over = self._peek(), over
        self.out.bound_names.add(frame.variable)
        self.at += 2

    def _mark(self, token: _Token) -> None:
        constant = _constant(token)
        if isinstance(constant, str):
            self.out.fields.add(constant)
        if token.text in {"(", "[", "{"}:
            self.stack.append(_Frame(opener=token.text, start=self.at))
        elif token.text in {")", "]", "}"} and self.stack:
            self._close(self.stack.pop())
        elif token.text == ",":
            self.out.commas += 1

    def _close(self, frame: _Frame) -> None:
        if frame.macro == "map":
            self.out.growth *= max(1, frame.uses)
        if frame.call == "matches":
            self._pattern(frame)

    def _pattern(self, frame: _Frame) -> None:
        """At the ``)`` of ``matches(...)``: its last argument must be one literal."""
        literal = self.tokens[self.at - 1]
        alone = self.at - 1 == frame.start or self._peek(-2) == ","
        pattern = _constant(literal) if alone and literal.kind == "string" else None
        if not isinstance(pattern, str):
            self.out.problems.append("the pattern of matches() must be a literal string: data must not choose it")
            return
        repeats = sum(int(most or least) for least, most in _COUNTS.findall(pattern))
        if len(pattern) > MAX_PATTERN or repeats > MAX_REPEATS:
            limit = f"{MAX_PATTERN} characters, and {MAX_REPEATS} as the sum of its repetitions {{n}}"
            self.out.problems.append(f"the pattern of matches() is too large: at most {limit}")
            return
        self.out.patterns.append(pattern)
        if any(f.variable for f in self.stack):
            self.out.repeated_matches += 1 + repeats

    def _limits(self) -> None:
        additions = sum(1 for token in self.tokens if token.text == "+")
        if additions > MAX_ADDITIONS:
            self.out.problems.append(f"{additions} additions: at most {MAX_ADDITIONS}")
        if len(self.out.macros) > MAX_MACROS:
            self.out.problems.append(f"{len(self.out.macros)} macros: at most {MAX_MACROS}")


def _constant(token: _Token) -> str | int | None:
    """The value of a literal string or integer; None for all other tokens."""
    if token.kind == "number":
        return int(token.text) if token.text.isdigit() else None
    if token.kind != "string" or token.text[0] in "bB":
        return None
    raw = token.text[0] in "rR"
    body = token.text[1:] if raw else token.text
    quotes = 3 if body[:3] in {"'''", '"""'} else 1
    body = body[quotes:-quotes]
    return body if raw else _ESCAPE.sub(_unescaped, body)


def _unescaped(found: re.Match[str]) -> str:
    code = found.group(1)
    if code in _SIMPLE:
        return _SIMPLE[code]
    return chr(int(code[1:], 16) if code[0] in "xXuU" else int(code, 8))
