from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stepwell._domain.cel_eval import MAX_WORK
from stepwell._domain.definition import (
    CelHandler,
    CelRule,
    Json,
)
from stepwell._domain.rules import (
    RuleInput,
    RuleOutcome,
    RuleSet,
    evaluate_bool,
    evaluate_json,
    evaluate_string,
    planned_value,
)
from stepwell.errors import RuleError


def rule_set(*given: tuple[str | None, str] | tuple[str | None, str, dict[str, str]]) -> RuleSet:
    return RuleSet(
        CelHandler(
            rules=tuple(
                CelRule(when=one[0], to=one[1], set=tuple(one[2].items()) if len(one) > 2 else ()) for one in given
            )
        )
    )


def run(obj: Json, payload: Json = None) -> RuleInput:
    return RuleInput(object=obj, foreign_id="1001", status="Picked", version=3, attempt=1, payload=payload)


# Deciding


def test_the_first_rule_that_holds_decides() -> None:
    ruled = rule_set(("object.total > 1000", "Review"), ("object.total > 10", "Shipped"), (None, "Rejected"))
    assert [ruled.decide(run({"total": total})).to for total in (1001, 1000, 10)] == ["Review", "Shipped", "Rejected"]


def test_later_conditions_are_not_evaluated() -> None:
    assert rule_set(("true", "A"), ("object.missing > 1", "B")).decide(run({})).to == "A"


def test_set_replaces_top_level_fields_and_keeps_the_others() -> None:
    ruled = rule_set((None, "Shipped", {"carrier": "'post'", "address": "{'city': object.address.city}"}))
    before = {"total": 4, "address": {"city": "Oslo", "zip": "0150"}}
    outcome = ruled.decide(run(before))
    assert outcome == RuleOutcome(to="Shipped", set={"carrier": "post", "address": {"city": "Oslo"}})
    assert outcome.applied(before) == {"total": 4, "address": {"city": "Oslo"}, "carrier": "post"}
    assert before["address"] == {"city": "Oslo", "zip": "0150"}


def test_every_name_is_there() -> None:
    text = "object.a == 1 && foreignID == '1001' && status == 'Picked' && version == 3 && attempt == 1"
    assert rule_set((text + " && payload.ok", "A")).decide(run({"a": 1}, {"ok": True})).to == "A"


def test_a_payload_may_be_any_json() -> None:
    ruled = rule_set(("payload == null", "None"), ("type(payload) == list && payload[0] == 1", "List"), (None, "Other"))
    assert [ruled.decide(run({}, payload)).to for payload in (None, [1], "x")] == ["None", "List", "Other"]


@pytest.mark.parametrize("when", ["1", "'true'", "null", "object.total"])
def test_a_condition_that_is_no_boolean_is_an_error(when: str) -> None:
    with pytest.raises(RuleError, match="must be true or false"):
        rule_set((when, "A"), (None, "B")).decide(run({"total": 1}))


def test_no_rule_that_holds_is_an_error() -> None:
    with pytest.raises(RuleError, match="none of the 1 rules holds"):
        rule_set(("object.total > 1", "A")).decide(run({"total": 1}))


def test_a_wrong_rule_is_refused_when_it_is_compiled() -> None:
    with pytest.raises(RuleError, match="line 1, column 4"):
        rule_set(("1 +", "A"))


def test_set_needs_an_object_with_fields() -> None:
    with pytest.raises(RuleError, match="needs an object with fields"):
        rule_set((None, "A", {"x": "1"})).decide(run([1]))


def test_threads_share_a_rule_set() -> None:
    ruled = rule_set(("object.total > 500", "A"), (None, "B"))
    with ThreadPoolExecutor(4) as pool:
        got = list(pool.map(lambda n: ruled.decide(run({"total": n})).to, range(1000)))
    assert got == ["A" if n > 500 else "B" for n in range(1000)]


# Results


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("timestamp('2026-03-01T10:00:00Z')", "2026-03-01T10:00:00Z"),
        ("duration('1h') + duration('250ms')", "3600.25s"),
        ("duration('-90s')", "-90s"),
        ("duration('0s')", "0s"),
        ("duration('100s')", "100s"),
        ("b'\\xff\\x00'", "/wA="),
        ("{'a': [1, 2.5, true, null, 'x']}", {"a": [1, 2.5, True, None, "x"]}),
        ("9223372036854775807", 2**63 - 1),
    ],
)
def test_results_become_json(text: str, value: Json) -> None:
    assert evaluate_json(text, {}) == value


@pytest.mark.parametrize("text", ["0.0 / 0.0", "double('nan')", "[1.0 / 0.0]", "{1: 2}", "18446744073709551615u"])
def test_results_that_are_not_json_are_refused(text: str) -> None:
    with pytest.raises(RuleError):
        evaluate_json(text, {})


def test_a_result_is_bounded() -> None:
    text = "+".join(["object.note"] * 30)
    assert evaluate_json(text, {"object": {"note": "x" * 8000}}) == "x" * 240_000
    with pytest.raises(RuleError, match="over 256 KiB"):
        evaluate_json(text, {"object": {"note": "x" * 9000}})
    with pytest.raises(RuleError, match="over 256 KiB"):
        rule_set((None, "A", {"a": text, "b": text})).decide(run({"note": "x" * 8000}))


def test_typed_results() -> None:
    assert evaluate_bool("key in ['a', 'b']", {"key": "a"})
    assert evaluate_string("message.order + '-' + string(message.n)", {"message": {"order": "o", "n": 7}}) == "o-7"
    with pytest.raises(RuleError, match="must be a string, and is a int"):
        evaluate_string("message.n", {"message": {"n": 7}})
    with pytest.raises(RuleError, match="must be true or false, and is null"):
        evaluate_bool("null", {})


# Zones


def test_planned_is_read_in_the_zone_of_the_schedule() -> None:
    saturday_evening = datetime(2026, 3, 7, 23, 30, tzinfo=UTC)
    oslo = planned_value(saturday_evening, "Europe/Oslo")
    assert evaluate_json("planned.getDayOfWeek()", {"planned": oslo}) == 0
    assert evaluate_json("planned.getDayOfWeek()", {"planned": planned_value(saturday_evening, "UTC")}) == 6
    assert evaluate_json("[planned.getHours(), planned.getDate(), planned.getMonth()]", {"planned": oslo}) == [0, 8, 2]


def test_planned_carries_the_offset_of_its_own_day() -> None:
    for month, hours in ((1, 1), (7, 2)):
        value = planned_value(datetime(2026, month, 1, tzinfo=UTC), "Europe/Oslo")
        assert (value.utcoffset(), type(value.tzinfo)) == (timedelta(hours=hours), timezone)
    with pytest.raises(ValueError, match="offset"):
        planned_value(datetime(2026, 1, 1), "UTC")  # noqa: DTZ001  (the naive time is the fault)


@pytest.mark.parametrize("when", [datetime(2026, 1, 1, tzinfo=ZoneInfo("Europe/Oslo")), datetime(2026, 1, 1)])  # noqa: DTZ001
def test_other_times_are_refused_before_the_library_misreads_them(when: datetime) -> None:
    with pytest.raises(RuleError, match="planned holds a datetime"):
        evaluate_bool("planned.getHours() == 0", {"planned": when})


# Hostile input


def nested(depth: int) -> Json:
    out: Json = 1
    for _ in range(depth):
        out = [out]
    return out


@pytest.mark.parametrize("depth", [65, 1000, 300_000])
def test_deep_input_is_refused_before_the_library_follows_it(depth: int) -> None:
    with pytest.raises(RuleError, match=r"object\.a is nested deeper than 64 levels"):
        evaluate_bool("object.a == 1", {"object": {"a": nested(depth)}})


@pytest.mark.parametrize("value", [2**63, -(2**63) - 1, 2**70])
def test_integers_that_would_change_silently_are_refused(value: int) -> None:
    with pytest.raises(RuleError, match=r"object\.id holds an integer beyond 64 bits"):
        evaluate_json("object.id", {"object": {"id": value}})
    assert evaluate_json("object.id", {"object": {"id": 2**63 - 1}}) == 2**63 - 1


@pytest.mark.parametrize("value", [math.nan, math.inf, "\ud800", {1: 2}, (1,), object()])
def test_what_is_not_json_does_not_go_in(value: Any) -> None:
    with pytest.raises(RuleError, match=r"object\.a h"):
        evaluate_bool("object.a == 1", {"object": {"a": value}})


def test_only_the_fields_that_rules_name_are_looked_at() -> None:
    obj = {"small": 1, "huge": "x" * 300_000, "bad": object()}
    assert evaluate_bool("object.small == 1 && !has(object.other)", {"object": obj})
    for text in ("object.huge != ''", "size(object) == 3", "object[object.small] == 1", "object.all(k, true)"):
        with pytest.raises(RuleError, match=r"over 64 KiB|not JSON"):
            evaluate_bool(text, {"object": obj})


def test_the_input_is_bounded_over_all_rules_of_an_element() -> None:
    ruled = rule_set(("object.a == ''", "A"), ("object.b == ''", "B"), (None, "C"))
    assert ruled.decide(run({"a": "x" * 30_000, "b": "x" * 30_000})).to == "C"
    with pytest.raises(RuleError, match="over 65536 bytes"):
        ruled.decide(run({"a": "x" * 40_000, "b": "x" * 40_000}))


def test_a_field_counts_once_however_often_it_is_named() -> None:
    assert not evaluate_bool(" || ".join(["object.a == ''"] * 8), {"object": {"a": "x" * 60_000}})


LINES = [{"sku": f"s{n}", "price": n, "qty": 2} for n in range(700)]


@pytest.mark.parametrize(
    "text",
    [
        "object.lines.map(x, x).size() > 0",
        "object.lines.filter(x, x.qty > 0).size() > 0",
        "object.lines.map(x, [x, x, x, x]).size() > 0",
        "object.ids.map(x, object.lines).size() > 0",
        "object.ids.all(x, x in object.ids) && object.lines.all(x, size(object.lines) > 0)",
        "object.ids.all(x, 'a'.matches('a{60}'))",
    ],
)
def test_macros_that_would_copy_without_end_are_refused_before_they_start(text: str) -> None:
    started = datetime.now(UTC)
    with pytest.raises(RuleError, match="its macros would copy about"):
        evaluate_bool(text, {"object": {"lines": LINES, "ids": list(range(900))}})
    assert datetime.now(UTC) - started < timedelta(seconds=2)


@pytest.mark.parametrize(
    "text",
    [
        "object.lines.all(x, x.price <= object.limit) && object.lines.exists(x, x.sku == 's9')",
        "object.lines.exists_one(x, x.price == 5)",
        "size(object.lines) == 700",
    ],
)
def test_macros_that_only_read_take_long_lists(text: str) -> None:
    assert evaluate_bool(text, {"object": {"lines": LINES, "limit": 900}})


def test_macros_that_copy_take_an_ordinary_order() -> None:
    given: Json = {"object": {"lines": LINES[:250], "vat": 2}}
    assert evaluate_json("object.lines.filter(x, x.price > 247).map(x, x.price * object.vat)", given) == [496, 498]
    assert evaluate_json("object.lines.map(x, x.price)", {"object": {"lines": LINES[:300]}}) == list(range(300))


def test_the_estimate_knows_nested_growth() -> None:
    text = "object.l" + ".map(x, [x, x])" * 8
    assert evaluate_json(text, {"object": {"l": [1]}})
    with pytest.raises(RuleError, match=str(MAX_WORK)):
        evaluate_json(text, {"object": {"l": [1] * 40}})


# Messages


SECRET = "hunter2-secret"  # noqa: S105  (what a message must not hold)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("object.zzz == 1", "no field 'zzz'"),
        ("object.map[object.s] == 1", "no such key"),
        ("object.s + 1 == ''", "string + int"),
        ("object.s > 1", "a type that it does not take"),
        ("object.s.foo == 1", "a type that it does not take"),
        ("object.n / 0 == 1", "division by zero"),
        ("object.n % 0 == 1", "division by zero"),
        ("object.n * object.n == 1", "too large"),
        ("int(object.s) == 1", "int() could not read its argument"),
        ("duration(object.s) == duration('1s')", "duration() could not read its argument"),
        ("timestamp(object.s) == timestamp(object.s)", "timestamp() could not read its argument"),
        ("object.list[99] == 1", "beyond the end"),
        ("size(object.n) == 1", "size() does not take arguments of these types"),
        ("object.n.getHours() == 1", "getHours() does not take"),
        ("planned == 1", "the name 'planned' is not known here"),
    ],
)
def test_messages_tell_the_cause_without_values(text: str, told: str) -> None:
    obj = {"s": SECRET, "n": 4611686018427387904, "list": [SECRET], "map": {"other": SECRET}}
    with pytest.raises(RuleError) as caught:
        evaluate_bool(text, {"object": obj})
    assert told in caught.value.cause
    assert caught.value.expression == text
    chain = repr((str(caught.value), caught.value.__cause__, caught.value.__context__))
    assert SECRET not in chain
    assert "4611686018427387904" not in chain


NAMES = ["a", "b", "c", "deep"]
SECRETS = st.text("QWXZ", min_size=6, max_size=12)
VALUES = st.recursive(
    SECRETS | st.integers(10**6, 10**7) | st.none() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | SECRETS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.fixed_dictionaries(dict.fromkeys(NAMES, VALUES))
OPERANDS = st.sampled_from(["object.a", "object.b", "object.c", "object.deep.a", "object.a[0]", "object.b[object.a]"])
EXPRESSIONS = st.builds(
    lambda form, x, y: form.format(x=x, y=y),
    st.sampled_from(
        [
            "{x} + {y}",
            "{x} < {y}",
            "{x}[{y}]",
            "int({x})",
            "{x}.all(i, i > {y})",
            "{x}.map(i, i + {y})",
            "{x} in {y}",
            "size({x}) == {y}",
            "duration({x})",
            "{x} ? {y} : {x}",
            "-{x}",
            "{x}.contains({y})",
            "{x}.b.c",
            "{x} / 0",
            "timestamp({x}) - {y}",
            "{x} * 999999999999999",
            "{x} && {y}",
            "double({x}) + 1.0",
            "uint({x}) - uint({y})",
        ]
    ),
    OPERANDS,
    OPERANDS,
)


def leaves(value: Json) -> set[str]:
    match value:
        case dict():
            return set().union(*(leaves(v) for v in value.values()), {k for k in value if k not in NAMES})
        case list():
            return set().union(*(leaves(v) for v in value))
        case bool() | None:
            return set()
        case _:
            return {str(value)}


@settings(max_examples=300)
@given(EXPRESSIONS, OBJECTS)
def test_no_message_ever_holds_a_value(text: str, obj: Json) -> None:
    try:
        evaluate_json(text, {"object": obj})
    except RuleError as error:
        told = repr((str(error), error.__cause__, error.__context__))
        # The message quotes the expression, which may hold the same digits.
        assert not [leaf for leaf in leaves(obj) if leaf in told and leaf not in text]
