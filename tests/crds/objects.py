"""Objects for Hypothesis, grown from the schema in ``crds/``: legal ones, and ones with a few places changed at random.

What the schema alone cannot say (which status exists, which of several fields may stand together) is chosen here, so
that a grown object is legal. Whether a changed one is, nobody knows: the API server and the models must say the same.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from stepwell._domain.durations import DURATION_PATTERN
from stepwell.resources import crd, types

Schema = Mapping[str, Any]
Draw = st.DrawFn

CRDS = Path(__file__).parents[2] / "crds"
STATUSES = ("A", "Paid", "In-Review", "x_1", "Z" + "z" * 62)


def schema_of(kind: crd.Kind) -> Schema:
    """The schema as the API server has it."""
    document = yaml.safe_load((CRDS / kind.file).read_text("utf-8"))
    schema: Schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


SCHEMAS = {kind.kind: schema_of(kind) for kind in crd.KINDS}

_URLS = ("https://a", "http://a.example:8080/x/%7Ey?z=1&y=%zz", "http://[::1]:80/", "https://A_b-1/" + "p" * 2000)
_CRONS = ("0 2 * * *", "*/5  0-23/2 1,15 JAN-mar,12 sun,1-5", "59 23 31 12 7", "00 01 01 01 0")
_BY_PATTERN: dict[str, st.SearchStrategy[str]] = {
    types.STATUS_NAME: st.sampled_from(["a", "Note", "b-2", "c_d", "E" * 63]),
    types.WORKFLOW_NAME: st.sampled_from(["orders", "a", "a-1", "w" * 50]),
    types.PYTHON_REF: st.sampled_from(["a:b", "shop.orders:take_payment", "_x.y1:Z.run", "m:" + "f" * 254]),
    types.OBJECT_NAME: st.sampled_from(["shop", "a.b-c", "0", "n" * 253]),
    types.DATA_KEY: st.sampled_from(["key", ".dot", "A_b-c.d", "k" * 253]),
    types.ENV_NAME: st.sampled_from(["TZ", "_a1", "STEPWEL_", "E" * 256]),
    types.LABEL_VALUE: st.sampled_from(["", "a", "A.b_c-9", "v" * 63]),
    types.IMAGE: st.sampled_from(["shop:1", "registry.example:5000/a/b@sha256:00", "i" * 512]),
    types.URL: st.sampled_from(_URLS),
    types.HEADER_NAME: st.sampled_from(["X-Tenant", "x!#$%&'*+.^_`|~-", "h" * 64]),
    types.PRINTABLE: st.sampled_from(["", "1001", "ünï cödé ☃ 😀", '"quoted"', "p" * 253]).filter(bool),
    types.TOPIC: st.sampled_from(["payments", "a.b_c-9", "t" * 249]),
    types.TIME_ZONE: st.sampled_from(["UTC", "Europe/Oslo", "America/Argentina/Salta", "Etc/GMT+5"]),
    types.CONDITION_TYPE: st.sampled_from(["Ready", "stepwell.dev/Ready"]),
    types.CONDITION_REASON: st.sampled_from(["AsWished", "A", "Aa_b,c:d_"]),
    types.QUANTITY: st.sampled_from(["1", "500m", "1.5Gi", ".5", "1e3", "+2", "-1", "12E"]),
    DURATION_PATTERN: st.sampled_from(["1ms", "90s", "1h30m", "87600h", "1h0m0s1ms", "00001m", "500ms"]),
}
_MAP_KEYS = st.sampled_from(["team", "example.com/team", "a.b/c_d", "cpu"])
_FREE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5) | st.floats(-1e9, 1e9),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=4,
)
_TEXT = st.sampled_from(["x", "object.total > 1000", "a\nb", "ß", " "])
_TIMES = st.sampled_from(["2026-11-22T22:00:00Z", "2026-02-28T23:59:59.123456+01:00", "1970-01-01T00:00:00Z"])
ONE_OF: dict[frozenset[str], int] = {
    frozenset({"python", "http", "cel"}): 1,
    frozenset({"python", "http"}): 1,
    frozenset({"python", "cel"}): 1,
    frozenset({"value", "valueFrom"}): 1,
    frozenset({"secretKeyRef", "configMapKeyRef"}): 1,
    frozenset({"secretRef", "configMapRef"}): 1,
    frozenset({"trigger", "callback"}): 1,
    frozenset({"after", "at"}): 1,
    frozenset({"foreignID", "foreignIDFrom"}): 0,
}
"""Fields of which one stands alone, and how many there must at least be."""


class Grower:
    """Grows values below a schema; ``declared`` are the statuses of the object."""

    def __init__(self, draw: Draw, declared: tuple[str, ...]) -> None:
        self._draw = draw
        self._declared = declared

    def value(self, schema: Schema, key: str = "") -> Any:
        """Any legal value."""
        if "enum" in schema:
            return self._draw(st.sampled_from(schema["enum"]))
        if schema.get("x-kubernetes-int-or-string"):
            return self._draw(_BY_PATTERN[schema["pattern"]] | st.integers(0, 9))
        if schema.get("x-kubernetes-preserve-unknown-fields"):
            return self._draw(st.dictionaries(st.text(max_size=3), _FREE, max_size=2))
        make: dict[str, Callable[[Schema, str], Any]] = {
            "boolean": lambda _schema, _key: self._draw(st.booleans()),
            "integer": lambda schema, _key: self._integer(schema),
            "string": self._text,
            "array": self._list,
            "object": self._object,
        }
        return make[schema["type"]](schema, key)

    def _integer(self, schema: Schema) -> int:
        least, most = int(schema["minimum"]), int(schema["maximum"])
        return self._draw(st.sampled_from([least, most, min(most, least + 3)]))

    def _text(self, schema: Schema, key: str) -> str:
        if key in {"to", "start"}:
            return self._draw(st.sampled_from(self._declared))
        if schema.get("format") == "date-time":
            return self._draw(_TIMES)
        if key == "cron":
            return self._draw(st.sampled_from(_CRONS))
        return self._draw(_BY_PATTERN.get(schema.get("pattern", ""), _TEXT))

    def _list(self, schema: Schema, key: str) -> list[Any]:
        items = schema["items"]
        if schema["x-kubernetes-list-type"] == "set":
            return self._draw(st.lists(st.sampled_from(self._declared), min_size=1, max_size=3, unique=True))
        values = [self.value(items, key) for _ in range(self._draw(st.integers(schema.get("minItems", 0), 2)))]
        keys = schema.get("x-kubernetes-list-map-keys", [])
        different = {tuple(value[key] for key in keys): value for value in values} if keys else {}
        return list(different.values()) if keys else values

    def _object(self, schema: Schema, key: str) -> dict[str, Any]:
        if "additionalProperties" in schema:
            keys = self._draw(st.sets(_MAP_KEYS, max_size=2))
            return {name: self.value(schema["additionalProperties"], key) for name in sorted(keys)}
        properties = schema["properties"]
        chosen = set(schema.get("required", ()))
        for name in properties:
            if name not in chosen and self._draw(st.integers(0, 2)) == 0:
                chosen.add(name)
        # The first that fits: a handler is of three kinds, a notice of two of them.
        group, least = next((pair for pair in ONE_OF.items() if pair[0] <= set(properties)), (frozenset[str](), 0))
        chosen -= group
        chosen |= set(self._draw(st.permutations(sorted(group)))[: self._draw(st.integers(least, 1))])
        return {name: self.value(properties[name], name) for name in properties if name in chosen}


@st.composite
def legal_specs(draw: Draw, kind: str) -> dict[str, Any]:
    """The spec of a legal object."""
    declared = tuple(draw(st.permutations(STATUSES))[: draw(st.integers(1, 3))])
    grower = Grower(draw, declared)
    spec: dict[str, Any] = grower.value(SCHEMAS[kind]["properties"]["spec"])
    if kind == "Workflow":
        items = SCHEMAS[kind]["properties"]["spec"]["properties"]["statuses"]["items"]
        spec["statuses"] = [_status(draw, grower.value(items), name, grower, items) for name in declared]
        spec["migrations"] = [{"from": "Gone", "to": draw(st.sampled_from(declared))}][: draw(st.integers(0, 1))]
    _mend(spec)
    return spec


@st.composite
def grown_statuses(draw: Draw, kind: str) -> dict[str, Any]:
    """What the operator might write into the status of an object."""
    grower = Grower(draw, STATUSES)
    status: dict[str, Any] = grower.value(SCHEMAS[kind]["properties"]["status"])
    return status


def _status(draw: Draw, status: dict[str, Any], name: str, grower: Grower, items: Schema) -> dict[str, Any]:
    status["name"] = name
    work = [key for key in ("step", "callbacks", "timeouts") if key in status]
    if draw(st.booleans()):
        for key in work:
            del status[key]
        status["terminal"] = True
    else:
        status.pop("terminal", None)
        if not work:
            status["step"] = grower.value(items["properties"]["step"])
    return status


def _mend(value: Any) -> None:
    """What several fields must keep together."""
    if isinstance(value, list):
        for item in value:
            _mend(item)
    if not isinstance(value, dict):
        return
    rules = (value.get("handler") or {}).get("cel", {}).get("rules", ()) if "to" in value else ()
    for rule in rules:
        rule["to"] = value["to"][0]
    if {"initial", "max"} <= set(value):
        value["initial"] = "1ms"
    if str(value.get("name", "")).startswith("STEPWELL_"):
        value["name"] = "OTHER"
    for inner in value.values():
        _mend(inner)


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every (container, key) of a document."""
    keys: Any = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from places(value[key])


_ODD_TEXTS = (
    *("", "x", "a b", "1", "yes", "é", "A\n", "-a", "a-", "a.b", "A/b/c", "@", "a@b", "x" * 300, "x" * 40000),
    *("https://u:p@h", "Undeclared", "kubernetes.io/a", "STEPWELL_X", "Cookie", "Traceparent", "UTC", "+01:00"),
    *(
        "*",
        "60 * * * *",
        "* * * * * *",
        "0s",
        "1d",
        "1h1h",
        "5m1h",
        "99999h",
        "1",
        "1.5Gi",
        "a:b",
        "2026-02-30T00:00:00Z",
    ),
)
_ODD_OTHERS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 257, 2**31, 1.0, 1.5),
    *([], {}, [None], [""], ["a", "a"], {"": ""}, {"name": "a"}, {"python": "a:b"}),
)
_ODD = st.sampled_from(_ODD_TEXTS) | st.sampled_from(_ODD_OTHERS)


@st.composite
def changed(draw: Draw, spec: dict[str, Any]) -> dict[str, Any]:
    """The same document with one place changed, or two."""
    root = {"spec": copy.deepcopy(spec)}
    for _ in range(draw(st.sampled_from([1, 1, 1, 2]))):
        every = list(places(root["spec"]))
        if not every:
            break
        container, key = every[draw(st.integers(0, len(every) - 1))]
        _change(draw, container, key, every)
    return root["spec"]


def _change(draw: Draw, container: Any, key: Any, every: list[tuple[Any, Any]]) -> None:
    value = container[key]
    match draw(st.sampled_from(["odd", "odd", "drop", "twice", "unknown", "case", "borrow", "longer", "next"])):
        case "drop":
            del container[key]
        case "twice" if isinstance(value, list) and value:
            value.append(copy.deepcopy(value[draw(st.integers(0, len(value) - 1))]))
        case "unknown" if isinstance(value, dict):
            value[draw(st.sampled_from(["extra", "namespace", "hostPath", "Name", "status"]))] = "x"
        case "case" if isinstance(container, dict):
            container[draw(st.sampled_from([str(key).lower(), str(key).capitalize()]))] = container.pop(key)
        case "borrow":
            other, at = every[draw(st.integers(0, len(every) - 1))]
            # What an earlier change took away is not there to be borrowed.
            if (at in other) if isinstance(other, dict) else at < len(other):
                container[key] = copy.deepcopy(other[at])
        case "longer" if isinstance(value, str):
            container[key] = value + draw(st.sampled_from(["a", "-", ".", " ", "\n", "é", ":", "/", "@", "0", "Z"]))
        case "next" if isinstance(value, int):
            container[key] = value + draw(st.sampled_from([-1, 1, 0.0, 0.5]))
        case _:
            # A copy: what is sampled is one value for all examples.
            container[key] = copy.deepcopy(draw(_ODD))
