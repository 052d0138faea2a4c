"""YAML as kubectl reads it, with the line of every field; what would silently mean something else is a fault.

Kubernetes reads YAML 1.1 without its times and base-60 numbers: ``yes`` and ``y`` are true, ``12:30`` is a string. A
key that stands twice, one that is no string, and one document that unfolds into millions of nodes are refused.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from stepwell.resources.schema import Loc
from stepwell.resources.words import KEY_RULE

MAX_NODES = 500_000
"""Nodes of one document after its aliases are unfolded; the largest legal Workflow has fewer than 100,000."""


@dataclass(frozen=True, kw_only=True)
class DocumentFault:
    """A fault of the text itself; ``loc`` is empty where no field can be named."""

    loc: Loc = ()
    line: int
    rule: str


@dataclass(frozen=True, kw_only=True)
class Document:
    """One document: its value, the lines of its fields (from 1), and its own faults."""

    value: Any
    lines: Mapping[Loc, int]
    faults: tuple[DocumentFault, ...] = ()

    def line(self, loc: Loc) -> int:
        """The line of a field, or of the nearest field around it."""
        while loc not in self.lines and loc:
            loc = loc[:-1]
        return self.lines.get(loc, 1)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader with the scalars of Kubernetes' YAML reader.

    Not its C twin, which is five times as fast and dies of a segmentation fault on deeply nested text.
    """


_REPLACED = frozenset({"bool", "int", "float", "timestamp", "value"})
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag.rpartition(":")[2] not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_SCALARS = {
    "bool": ("(?i:y|yes|true|on|n|no|false|off)", "yYnNtTfFoO"),
    "int": ("[-+]?(0b[0-1_]+|0o?[0-7_]+|0x[0-9a-fA-F_]+|0|[1-9][0-9_]*)", "-+0123456789"),
    "float": (
        r"[-+]?([.][0-9]+|[0-9][0-9_]*([.][0-9_]*)?)([eE][-+]?[0-9]+)?|[-+]?[.](inf|Inf|INF)|[.](nan|NaN|NAN)",
        "-+.0123456789",
    ),
}


class _Dumper(yaml.SafeDumper):
    """Quotes whatever any YAML 1.1 reader would take for something else: PyYAML alone leaves ``y`` bare."""


for _kind, (_pattern, _first) in _SCALARS.items():
    for _yaml in (_Loader, _Dumper):
        _yaml.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"({_pattern})$"), list(_first))


def _boolean(loader: _Loader, node: yaml.ScalarNode) -> bool:
    return loader.construct_scalar(node).lower() in {"y", "yes", "true", "on"}


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    digits = text.lstrip("+-")
    octal = digits.isdigit() and digits.startswith("0")
    number = int(digits, 8) if octal else int(digits, 0)
    return -number if text.startswith("-") else number


_Loader.add_constructor("tag:yaml.org,2002:bool", _boolean)
_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def dumped(value: Any) -> str:
    """A JSON value as one YAML document."""
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120))


def documents(text: str) -> Iterator[Document]:
    """Every document that is not empty. After a syntax error there is one more, without a value, that tells of it."""
    try:
        yield from _read(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        rule = " ".join(part for part in ("not YAML:", error.context, error.problem) if part)
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        yield Document(value=None, lines={}, faults=(DocumentFault(line=line, rule=f"{rule} (column {column})"),))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = "nested too deeply" if isinstance(error, RecursionError) else str(error).splitlines()[0]
        yield Document(value=None, lines={}, faults=(DocumentFault(line=1, rule=f"not YAML: {first}"),))


def _read(text: str) -> Iterator[Document]:
    loader = _Loader(text)
    try:
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                yield _document(loader, node)
    finally:
        loader.dispose()


def _document(loader: _Loader, node: yaml.Node) -> Document:
    line = node.start_mark.line + 1
    size = _size(node, {}, set())
    if size is None or size > MAX_NODES:
        rule = "an alias holds itself" if size is None else f"unfolds into more than {MAX_NODES} values"
        return Document(value=None, lines={}, faults=(DocumentFault(line=line, rule=rule),))
    lines: dict[Loc, int] = {}
    faults: list[DocumentFault] = []
    _survey(node, (), lines, faults)
    lines[()] = line
    return Document(value=loader.construct_document(node), lines=lines, faults=tuple(faults))


def _size(node: yaml.Node, known: dict[int, int], above: set[int]) -> int | None:
    """Number of nodes after aliases are unfolded; None for a node that holds itself."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    if id(node) in above:
        return None
    if id(node) not in known:
        children = node.value if isinstance(node, yaml.SequenceNode) else [part for pair in node.value for part in pair]
        total = 1
        for child in children:
            size = _size(child, known, above | {id(node)})
            if size is None:
                return None
            total += size
        known[id(node)] = total
    return known[id(node)]


def _survey(node: yaml.Node, loc: Loc, lines: dict[Loc, int], faults: list[DocumentFault]) -> None:
    """Note the line of every field, and the keys that stand twice or are no strings."""
    lines[loc] = node.start_mark.line + 1
    if isinstance(node, yaml.SequenceNode):
        for index, child in enumerate(node.value):
            _survey(child, (*loc, index), lines, faults)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: set[Hashable] = set()
    for key, child in node.value:
        line = key.start_mark.line + 1
        name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
        merged = key.tag == "tag:yaml.org,2002:merge"
        if key.tag != "tag:yaml.org,2002:str" and not merged:
            faults.append(DocumentFault(loc=(*loc, name), line=line, rule=KEY_RULE))
        if name in seen and not merged:
            faults.append(DocumentFault(loc=(*loc, name), line=line, rule="this key stands here twice"))
        seen.add(name)
        if not merged:
            _survey(child, (*loc, name), lines, faults)
            lines[(*loc, name)] = line
