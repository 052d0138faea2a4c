from __future__ import annotations

from typing import Any

import cel
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from stepwell._domain.cel_eval import FUNCTIONS, Bound, compile_expression
from stepwell._domain.cel_scan import MACROS, UnreadableError, scan
from stepwell._domain.definition import (
    Callback,
    CallbackAction,
    CelHandler,
    CelRule,
    Connector,
    ConnectorRule,
    Hooks,
    HttpHandler,
    Json,
    Schedule,
    Source,
    SourceKind,
    Status,
    Step,
    Timeout,
    TriggerAction,
    WorkflowDefinition,
)
from stepwell._domain.rules import (
    CALLBACK_NAMES,
    STEP_NAMES,
    check_expression,
    rule_problems,
)
from stepwell.errors import RuleError


def problems(text: str, schema: Json | None = None, names: frozenset[str] = STEP_NAMES) -> str:
    return " | ".join(check_expression(text, names=names, object_schema=schema))


# The fence


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("'" + "x" * 1023 + "'", "1025 bytes long: at most 1024"),
        ("'" + "é" * 600 + "'", "bytes long"),
        ("[1].all(x, [1].all(y, y > x))", "inside another macro"),
        ("object.lines.map(x, x.tags.filter(t, t != ''))", "inside another macro"),
        ("[1].all((x), x > 0)", "must be a plain name"),
        ("object.code.matches(object.pattern)", "must be a literal"),
        ("object.code.matches('a' + object.pattern)", "must be a literal"),
        ("matches(object.code, object.pattern)", "must be a literal"),
        ("object.code.matches('(x{1,100}){1,20}y')", "too large"),
        ("object.code.matches('" + "x" * 300 + "')", "too large"),
        ("+".join(["object.a"] * 40), "39 additions: at most 32"),
        ("object.a" + ".map(x, x)" * 9, "9 macros: at most 8"),
        ("planned.getHours('Europe/Oslo') == 1", "takes no argument"),
        ("Order{total: 1}", "messages"),
        ("object.name.lowerAscii() == 'x'", "no function lowerAscii()"),
        ("cel.bind(x, 1, x)", "no function bind()"),
        ("(" * 200 + "1" + ")" * 200, "line 1"),
        ("object.?a", "line 1, column 7: unsupported syntax '.?'"),
        ("99999999999999999999", "invalid int literal"),
        ("", "line 1, column 1: mismatched input the end"),
    ],
)
def test_what_the_fence_refuses_is_refused_by_the_check_and_by_the_compiler(text: str, told: str) -> None:
    assert told in problems(text, names=STEP_NAMES | {"planned"})
    with pytest.raises(RuleError) as caught:
        compile_expression(text)
    assert told in caught.value.cause


def test_an_expression_of_exactly_the_limit_is_taken() -> None:
    assert problems("'" + "x" * 1022 + "'") == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("object.totl > 1 && totl", "unknown name 'totl'"),
        ("foreignId == '1'", "unknown name 'foreignId': did you mean 'foreignID'?"),
        ("payload.ok", "unknown name 'payload'; here are attempt, foreignID, object, status, version"),
        (".object.a == 1", "unknown name '.object'"),
        ("object.name.startWith('x')", "no function startWith(): did you mean 'startsWith'?"),
        ("all(object.lines)", "all() is a macro"),
        ("object.code.matches('(')", "cannot use the pattern '('"),
        ("object.code.matches('a(?=b)')", "without look-around"),
    ],
)
def test_unknown_names_and_functions(text: str, told: str) -> None:
    assert told in problems(text)


def test_the_names_of_macros_are_not_unknown_and_types_are_names() -> None:
    assert problems("object.lines.all(line, line.n > 0) && type(object.n) == int") == ""
    assert "unknown name 'line'" in problems("object.lines.all(line, line.n > 0) && line.n > 0")
    assert problems("payload.ok", names=CALLBACK_NAMES) == ""


def test_all_problems_are_told_at_once() -> None:
    assert len(check_expression("nope + foo(1) + [1].all(x, [1].all(y, true))", names=STEP_NAMES)) == 3


def test_every_allowed_function_is_one_of_the_library() -> None:
    calls = {
        "bytes": "bytes('a')", "contains": "'a'.contains('a')", "double": "double(1)", "duration": "duration('1s')",
        "dyn": "dyn(1)", "endsWith": "'a'.endsWith('a')", "int": "int('1')", "matches": "'a'.matches('a')",
        "size": "size('a')", "startsWith": "'a'.startsWith('a')", "string": "string(1)", "type": "type(1)",
        "timestamp": "timestamp('2026-01-01T00:00:00Z')", "uint": "uint(1)",
    }  # fmt: skip
    for name in FUNCTIONS:
        text = calls.get(name, f"timestamp('2026-01-01T00:00:00Z').{name}()")
        compile_expression(text).program.execute({})


# The scanner against the library


TERMS = st.sampled_from(
    [
        "object",
        "payload",
        "x",
        "1",
        "1.5",
        ".5",
        "1u",
        "0x1F",
        "1e3",
        "true",
        "null",
        "'it'",
        r"'a\'b'",
        '"//"',
        "r'\\'",
        "b'x'",
        "'''a'b'''",
        'R"""x"y"""',
        r"'\u0041'",
        ".y",
        "[]",
        "{}",
    ]
)


def _grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    forms = st.sampled_from(
        [
            "{a}.f",
            "{a}['k']",
            "{a}[0]",
            "{a}[{b}]",
            "({a})",
            "{a} + {b}",
            "{a} in {b}",
            "!{a}",
            "-{a}",
            "{a} ? {b} : {a}",
            "[{a}, {b}]",
            "{{'k': {a}, {b}: 1}}",
            "{a}.all(x, {b})",
            "{a}.map(i, {b})",
            "{a}.filter(j, x > {b})",
            "has({a}.f)",
            "size({a})",
            "{a}.contains({b})",
            "{a}.matches('p')",
            "{a} // end\n",
            "{a}\n. f",
            "{a}.all(x, y, {b})",
            "{a}.map(i, {a}, {b})",
            "{a}.exists_one(x, x.f == {b})",
            "{a} && {b} || {a}",
            "{a}.size().f",
            "f({a}).g({b})",
        ]
    )
    return st.builds(lambda form, a, b: form.format(a=a, b=b), forms, inner, inner)


@settings(max_examples=500)
@given(st.recursive(TERMS, _grow, max_leaves=8))
@example("object.all(object, object.f > 1)")
@example(".x in .y")
def test_the_scanner_agrees_with_the_library(text: str) -> None:
    try:
        program = cel.compile(text)
    except ValueError:
        return
    found = scan(text)
    references = program.references()
    assert found.variables | found.bound_names == set(references["variables"]) | found.bound_names
    assert found.variables <= set(references["variables"])
    # With three arguments ``all`` is a plain call to the library and a macro to the scanner: refused either way.
    assert {name for name in references["functions"] if name.isidentifier()} - MACROS == found.functions


@settings(max_examples=300)
@given(st.text("objectx.[]{}()'\"\\/+-,:?!&|<>=0123456789 \n\tealmprb", max_size=40))
def test_any_text_is_compiled_or_refused(text: str) -> None:
    try:
        compile_expression(text)
    except RuleError:
        check_expression(text, names=STEP_NAMES)
    except UnreadableError:
        pytest.fail("the scanner's own error came out")


def test_variables_of_macros_are_followed_into_lists() -> None:
    found = scan("object.lines.all(x, x.price > object.min) && object.names.exists(k, k == 'a')")
    assert [r.text for r in found.bound] == ["object.lines[*].price", "object.names[*]"]
    assert [(r.text, r.macro) for r in found.references] == [
        ("object.lines", ""), ("object.min", "all"), ("object.names", ""),
    ]  # fmt: skip


# Schemas


class Line(BaseModel):
    sku: str
    price: float
    note: str | None = None


class Customer(BaseModel):
    email: str
    friends: list[Customer] = []


class Order(BaseModel):
    total: int
    lines: list[Line] = []
    customer: Customer | None = None
    labels: dict[str, int] = {}
    anything: Any = None
    by_sku: dict[str, Line] = {}


SCHEMA = Order.model_json_schema()


@pytest.mark.parametrize(
    "text",
    [
        "object.total > 1",
        "object.lines.all(x, x.price > 0.0 && x.note != '')",
        "object.lines[0].sku == ''",
        "object.customer.friends[0].friends[1].email == ''",
        "has(object.customer) && object['customer']['email'] == ''",
        "object.labels.red == 1 && object.labels.all(k, k != '')",
        "object.by_sku.a1.price > 1.0",
        "object.anything.a.b[0].c == 1",
        "object.lines.filter(x, x.price > 1.0).map(y, y.whatever).size() > 0",
        "size(object) > 1",
    ],
)
def test_paths_of_a_pydantic_schema(text: str) -> None:
    assert problems(text, SCHEMA) == ""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("object.totl > 1", "no field 'totl' in object: did you mean 'total'?"),
        ("object.lines.all(x, x.prize > 0.0)", "no field 'prize' in object.lines[*]: did you mean 'price'?"),
        ("object.lines[0].q == 1", "no field 'q' in object.lines[0] (it has note, price, sku)"),
        ("object.customer.mail == ''", "no field 'mail' in object.customer: did you mean 'email'?"),
        ("object.customer.friends[0].frends == []", "did you mean 'friends'?"),
        ("object.total.cents == 1", "no field 'cents' in object.total"),
        ("object.by_sku.a1.prce > 1.0", "did you mean 'price'?"),
        ("object.total[0] == 1", "no list or map at object.total"),
        ("object.labels.all(k, k.x == 1)", "no field 'x' in object.labels[*]"),
        ("has(object['totl'].x)", "no field 'totl'"),
    ],
)
def test_paths_that_a_pydantic_schema_lacks(text: str, told: str) -> None:
    assert told in problems(text, SCHEMA)


@pytest.mark.parametrize(
    ("schema", "known"),
    [
        ({"type": "object"}, True),
        ({}, True),
        (True, True),
        ({"type": "object", "additionalProperties": False}, False),
        ({"properties": {"a": {}}}, False),
        ({"properties": {"a": {}}, "additionalProperties": True}, True),
        ({"properties": {"a": {}}, "additionalProperties": {"type": "string"}}, True),
        ({"properties": {"a": {}}, "patternProperties": {"^zz": {}}}, True),
        ({"oneOf": [{"properties": {"a": {}}}, {"properties": {"zz": {}}}]}, True),
        ({"allOf": [{"properties": {"a": {}}}, {"properties": {"zz": {}}}]}, True),
        ({"properties": {"a": {}}, "allOf": [{"properties": {"zz": {}}}]}, True),
        ({"anyOf": [{"properties": {"a": {}}}, {"type": "null"}]}, False),
        ({"$ref": "https://example.com/order.json"}, True),
        ({"$ref": "#"}, False),
        ({"if": {}, "properties": {"a": {}}}, True),
    ],
)
def test_a_path_is_a_problem_only_if_the_schema_rules_it_out(schema: Json, known: bool) -> None:
    assert (problems("object.zz == 1", schema) == "") is known


# A whole definition


def cel_handler(*texts: str | None, **fields: str) -> CelHandler:
    return CelHandler(rules=tuple(CelRule(to="Done", when=text, set=tuple(fields.items())) for text in texts))


def test_problems_have_the_place_in_the_workflow_object() -> None:
    bad = cel_handler("nope == 1", None, note="object.x +")
    definition = WorkflowDefinition(
        name="orders",
        start="A",
        statuses=(
            Status(name="A", step=Step(handler=cel_handler(None), to=("Done",))),
            Status(
                name="B",
                step=Step(handler=bad, to=("Done",)),
                callbacks=(Callback(name="c", handler=cel_handler("payload.ok", "payloads.ok"), to=("Done",)),),
                timeouts=(Timeout(name="t", handler=cel_handler(None, "payload.ok"), to=("Done",)),),
            ),
            Status(name="Done", terminal=True),
        ),
        schedules=(
            Schedule(name="s", cron="0 2 * * *", filter_cel="planned.getDayOfWeek() != 0", foreign_id_cel="plan"),
        ),
        connectors=(
            Connector(
                name="k",
                source=Source(kind=SourceKind.KAFKA, topic="t"),
                handler=(
                    ConnectorRule(
                        when="message.kind == 'new'",
                        action=TriggerAction(foreign_id="message.id", object=(("total", "mesage.total"),)),
                    ),
                    ConnectorRule(
                        when="object.a",
                        action=CallbackAction(name="c", foreign_id="key", payload=(("ok", "true"), ("at", "planned"))),
                    ),
                ),
            ),
        ),
        hooks=Hooks(on_cancel=cel_handler(None), on_pause=HttpHandler(url="https://x.example/")),
    )
    assert [(p.path, p.rule.split(":")[0].split(";")[0]) for p in rule_problems(definition)] == [
        ("spec.statuses[1].step.handler.cel.rules[0].when", "unknown name 'nope'"),
        ("spec.statuses[1].step.handler.cel.rules[0].set.note", "line 1, column 11"),
        ("spec.statuses[1].step.handler.cel.rules[1].set.note", "line 1, column 11"),
        ("spec.statuses[1].callbacks[0].handler.cel.rules[1].when", "unknown name 'payloads'"),
        ("spec.statuses[1].callbacks[0].handler.cel.rules", "no rule may match, which pauses the run"),
        ("spec.statuses[1].timeouts[0].handler.cel.rules[1].when", "unknown name 'payload'"),
        ("spec.statuses[1].timeouts[0].handler.cel.rules[1]", "is never reached"),
        ("spec.connectors[0].handler.cel.rules[0].trigger.object.total", "unknown name 'mesage'"),
        ("spec.connectors[0].handler.cel.rules[1].when", "unknown name 'object'"),
        ("spec.connectors[0].handler.cel.rules[1].callback.payload.at", "unknown name 'planned'"),
        ("spec.hooks.onCancel", "a hook moves nothing"),
        ("spec.schedules[0].foreignIDFrom.cel", "unknown name 'plan'"),
    ]


def test_the_schema_of_the_object_is_used() -> None:
    definition = WorkflowDefinition(
        name="orders",
        start="A",
        object_schema=SCHEMA,
        statuses=(
            Status(name="A", step=Step(handler=cel_handler("object.totl > 1", None), to=("Done",))),
            Status(name="Done", terminal=True),
        ),
    )
    [problem] = rule_problems(definition)
    assert str(problem) == (
        "spec.statuses[0].step.handler.cel.rules[0].when: 'object.totl > 1': "
        "the object schema has no field 'totl' in object: did you mean 'total'?"
    )


def test_one_conversion_serves_all_rules() -> None:
    class Counting(dict[str, Json]):
        reads = 0

        def __getitem__(self, key: str) -> Json:
            self.reads += 1
            return super().__getitem__(key)

    obj = Counting(total=1)
    compiled = [compile_expression(f"object.total == {n}") for n in range(20)]
    bound = Bound(compiled, {"object": obj})
    assert [bound.evaluate(one) for one in compiled] == [n == 1 for n in range(20)]
    assert obj.reads == 1
