"""A definition and its code are served only if they agree; whatever disagrees is told at once, with its place."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import pytest

from stepwell import Application, DefinitionErrors, InProcess, Rule, RunRecord, Workflow, bind
from stepwell._domain.definition import (
    Callback,
    CelHandler,
    CelRule,
    Connector,
    Handler,
    Hooks,
    PythonHandler,
    Schedule,
    Source,
    SourceKind,
    Status,
    Step,
    Timeout,
    WorkflowDefinition,
)
from stepwell.application import unnameable
from stepwell.application.schemas import disagreements
from stepwell.callables import (
    RAW_BYTES,
    BoundArm,
    BoundCallback,
    BoundDeletion,
    BoundHook,
    BoundMessage,
    BoundStep,
    BoundTick,
    ObjectCodec,
    RawCodec,
)

SHOP = """
    from __future__ import annotations
    from contextlib import asynccontextmanager
    from datetime import datetime
    from enum import StrEnum
    from typing import Any, Literal
    from pydantic import BaseModel
    from stepwell import Directive, Message, Run, RunRecord, Tick, TriggerRequest, Workflow

    class S(StrEnum):
        NEW = "New"
        DONE = "Done"
        GONE = "Gone"

    class Order(BaseModel):
        total: int
        note: str | None = None

    class Cat(BaseModel):
        name: str

    class Verdict(BaseModel):
        approved: bool

    @asynccontextmanager
    async def lifespan():
        yield 5

    async def generator():
        yield 5

    async def step(run: Run[Order, int]) -> Literal["Done", "Gone"] | Directive: ...
    def enum_step(run: Run[Order]) -> Literal[S.DONE]: ...
    def open_step(run: Run[Order]) -> str: ...
    def any_step(run): ...
    def json_step(run: Run[dict[str, Any]]) -> Literal["Done"]: ...
    def cat_step(run: Run[Cat]) -> Literal["Done"]: ...
    def wrong_step(run: Run[Order]) -> Literal["Done", "Lost"]: ...
    def no_step(a, b, c): ...
    async def reviewed(run: Run[Order], verdict: Verdict) -> Literal["Done"]: ...
    def no_payload(run: Run[Order]) -> Literal["Done"]: ...
    def odd_payload(run: Run[Order], payload: Thing) -> Literal["Done"]: ...
    class Thing: ...
    def due(run: Run[Order]) -> datetime: ...
    def nightly(tick: Tick) -> bool: ...
    def on_message(message: Message[Verdict]) -> TriggerRequest[Order] | None: ...
    def on_bytes(message: Message[bytes]) -> None: ...
    def alert(run: RunRecord[Order, S]) -> None: ...
    def forget(order: Order) -> Order: ...
    value = 7

    wf = Workflow("built", object=Order, status=S, start=S.NEW)

    @wf.callback(S.NEW)
    def token(run: Run[Order], verdict: Verdict) -> Literal[S.DONE]: ...
"""


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    (tmp_path / "shop_code.py").write_text(dedent(SHOP))
    (tmp_path / "broken_code.py").write_text("raise RuntimeError('boom')")
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("shop_code")
    sys.modules.pop("shop_code", None)


def python(name: str) -> PythonHandler:
    return PythonHandler(ref=name if ":" in name else f"shop_code:{name}")


def defined(step: Handler | str = "step", *, to: tuple[str, ...] = ("Done", "Gone"), **rest: Any) -> WorkflowDefinition:
    handler = python(step) if isinstance(step, str) else step
    return WorkflowDefinition(
        name="orders",
        start="New",
        statuses=(
            Status(name="New", step=Step(handler=handler, to=to)),
            Status(name="Done", terminal=True),
            Status(name="Gone", terminal=True),
        ),
        **rest,
    )


def with_callback(name: str) -> WorkflowDefinition:
    callback = Callback(name="reviewed", handler=python(name), to=("Done",))
    definition = defined()
    return replace(
        definition, statuses=(replace(definition.statuses[0], callbacks=(callback,)), *definition.statuses[1:])
    )


def faults(definition: WorkflowDefinition) -> list[str]:
    with pytest.raises(DefinitionErrors) as raised:
        bind(definition)
    return [str(problem) for problem in raised.value.problems]


@pytest.mark.usefixtures("shop")
class TestBind:
    def test_each_part_is_bound(self, shop: Any) -> None:
        full = replace(
            defined(lifespan="shop_code:lifespan"),
            statuses=(
                Status(
                    name="New",
                    step=Step(handler=python("step"), to=("Done", "Gone")),
                    callbacks=(Callback(name="reviewed", handler=python("reviewed"), to=("Done",)),),
                    timeouts=(Timeout(name="late", handler=python("enum_step"), to=("Done",), at=python("due")),),
                ),
                Status(name="Done", terminal=True),
                Status(name="Gone", terminal=True),
            ),
            connectors=(
                Connector(name="c", source=Source(kind=SourceKind.IN_PROCESS, topic="t"), handler=python("on_message")),
                Connector(name="d", source=Source(kind=SourceKind.IN_PROCESS, topic="t"), handler=python("on_bytes")),
            ),
            hooks=Hooks(on_pause=python("alert")),
            data_deletion=python("forget"),
            schedules=(Schedule(name="nightly", cron="0 2 * * *", function=python("nightly")),),
        )
        app = bind(full)
        kinds = {ref.partition(":")[2]: type(bound) for ref, bound in app.bound.items()}
        assert kinds == {
            "step": BoundStep,
            "reviewed": BoundCallback,
            "enum_step": BoundStep,
            "due": BoundArm,
            "on_message": BoundMessage,
            "on_bytes": BoundMessage,
            "alert": BoundHook,
            "forget": BoundDeletion,
            "nightly": BoundTick,
        }
        assert app.bound["shop_code:step"].is_async
        assert not app.bound["shop_code:due"].is_async
        assert app.bound["shop_code:step"].function is shop.step
        reviewed, on_bytes = app.bound["shop_code:reviewed"], app.bound["shop_code:on_bytes"]
        assert isinstance(reviewed, BoundCallback)
        assert reviewed.payload.decode(b'{"approved":true}') == shop.Verdict(approved=True)
        assert isinstance(on_bytes, BoundMessage)
        assert on_bytes.value is RAW_BYTES
        hook = app.bound["shop_code:alert"]
        assert isinstance(hook, BoundHook)
        assert hook.status_of is shop.S
        assert app.codec.decode(b'{"total":3}') == shop.Order(total=3)
        assert app.lifespan is shop.lifespan
        assert app.unchecked == ()

    def test_a_token_counts_as_its_function(self, shop: Any) -> None:
        assert bind(with_callback("token")).bound["shop_code:token"].function is shop.token.function

    def test_a_handler_that_does_not_say_where_it_goes_is_noted(self) -> None:
        assert bind(defined("open_step")).unchecked == ("shop_code:open_step",)

    def test_objects_without_a_model_are_json_under_the_schema(self) -> None:
        schema = {"type": "object", "required": ["total"]}
        for name in ("json_step", "any_step"):
            codec = bind(defined(name, to=("Done",), object_schema=schema)).codec
            assert isinstance(codec, RawCodec)
            assert codec.decode(b'{"total":"x"}') == {"total": "x"}
            assert codec.schema() == schema

    def test_a_schema_that_says_little_agrees(self, shop: Any) -> None:
        for schema in ({"type": "object"}, ObjectCodec(shop.Order).schema()):
            assert isinstance(bind(defined(object_schema=schema)).codec, ObjectCodec)

    @pytest.mark.parametrize(
        ("definition", "words"),
        [
            (lambda: defined("nowhere:step"), ["spec.statuses[0].step.handler.python", "no module 'nowhere'"]),
            (lambda: defined("shop_code:nothing"), ["has no 'nothing'"]),
            (lambda: defined("shop_code:Order.nothing"), ["has no 'Order.nothing'"]),
            (lambda: defined("broken_code:step"), ["importing it failed", "RuntimeError"]),
            (lambda: defined("no_colon:"), ["must be module:function"]),
            (lambda: defined("value"), ["is int, not a function"]),
            (lambda: defined("no_step"), ["shop_code:no_step (shop_code:", "is called with one argument"]),
            (lambda: defined("wrong_step"), ["may return 'Lost'", "Done, Gone"]),
            (lambda: defined("step", to=("Done",)), ["may return 'Gone'"]),
            (lambda: with_callback("cat_step"), ["spec.statuses[0].callbacks[0].handler.python", "2 arguments"]),
            (lambda: with_callback("no_payload"), ["2 arguments"]),
            (lambda: with_callback("odd_payload"), ["payload's type cannot be read from JSON"]),
            (lambda: defined(data_deletion=python("due")), ["spec.dataDeletion.python", "share one object"]),
            (lambda: defined(lifespan="shop_code:value"), ["spec.worker.lifespan", "is int"]),
            (lambda: defined(lifespan="shop_code:generator"), ["@asynccontextmanager"]),
            (lambda: defined(lifespan="shop_code:gone"), ["has no 'gone'"]),
            (
                lambda: defined(object_schema={"properties": {"total": {"type": "string"}}, "required": ["total"]}),
                ["spec.objectSchema.properties.total", "lets in string", "Order (shop_code:step"],
            ),
            (lambda: defined("any_step", object_schema={"type": "thing"}), ["objectSchema.type"]),
        ],
    )
    def test_a_disagreement_has_its_place_and_rule(
        self, definition: Callable[[], WorkflowDefinition], words: list[str]
    ) -> None:
        [fault] = faults(definition())
        for word in words:
            assert word in fault

    def test_all_come_at_once(self) -> None:
        found = faults(
            defined(
                "wrong_step",
                lifespan="nowhere:lifespan",
                hooks=Hooks(on_cancel=python("no_step")),
                schedules=(Schedule(name="s", cron="0 2 * * *", function=python("nothing")),),
            )
        )
        assert len(found) == 4

    def test_handlers_share_one_object(self) -> None:
        definition = with_callback("reviewed")
        mixed = replace(definition.statuses[0], step=Step(handler=python("cat_step"), to=("Done",)))
        [fault] = faults(replace(definition, statuses=(mixed, *definition.statuses[1:])))
        assert "takes Order" in fault
        assert "takes Cat" in fault

    def test_a_hooks_enum_must_know_every_status(self) -> None:
        definition = defined(hooks=Hooks(on_pause=python("alert")))
        more = replace(definition, statuses=(*definition.statuses, Status(name="Extra", terminal=True)))
        [fault] = faults(more)
        assert "its S lacks the status 'Extra'" in fault

    def test_one_function_cannot_play_two_parts(self) -> None:
        connector = Connector(name="c", source=Source(kind=SourceKind.IN_PROCESS, topic="t"), handler=python("forget"))
        [fault] = faults(defined(connectors=(connector,), data_deletion=python("forget")))
        assert "cannot be the data deletion here and something else elsewhere" in fault

    def test_what_has_no_code_needs_none(self) -> None:
        rules = CelHandler(rules=(CelRule(to="Done"), CelRule(to="Gone")))
        app = bind(defined(rules))
        assert app.bound == {}
        assert isinstance(app.codec, RawCodec)


class TestBuilt:
    def test_what_was_built_is_bound_to_the_very_functions(self, shop: Any) -> None:
        wf = shop.wf
        local = lambda run: shop.S.DONE
        wf.step(shop.S.NEW, to=[shop.S.DONE, shop.S.GONE])(local)
        wf.timeout(shop.S.NEW, after=timedelta(hours=1), name="t", to=[shop.S.GONE])(lambda run: shop.S.GONE)
        wf.on_pause(_hook)
        app = Application.of(wf)
        assert local in [bound.function for bound in app.bound.values()]
        assert len(app.bound) == 4
        hook = app.bound[f"{__name__}:_hook"]
        assert isinstance(hook, BoundHook)
        assert hook.status_of is shop.S
        assert (app.status_of, app.codec) == (shop.S, wf.codec)

    def test_what_has_no_importable_name_is_told(self, shop: Any) -> None:
        wf = shop.wf
        wf.step(shop.S.NEW, to=[shop.S.DONE, shop.S.GONE])(lambda run: shop.S.DONE)
        wf.on_pause(_hook)
        [problem] = unnameable(Application.of(wf))
        assert problem.path == "spec.statuses[0].step.handler.python"
        assert "cannot be named module:function" in problem.rule

    def test_a_redefined_function_has_no_name_of_its_own(self, shop: Any) -> None:
        def other(run: Any) -> Any: ...

        other.__module__, other.__qualname__ = "shop_code", "enum_step"
        wf = shop.wf
        wf.step(shop.S.NEW, to=[shop.S.DONE, shop.S.GONE])(other)
        wf.timeout(shop.S.NEW, after=timedelta(hours=1))(shop.enum_step)
        app = Application.of(wf)
        assert {"shop_code:enum_step", "shop_code:enum_step#2"} < set(app.bound)
        assert [problem.path for problem in unnameable(app)] == [
            "spec.statuses[0].step.handler.python",
            "spec.statuses[0].timeouts[0].handler.python",
        ]

    def test_strings_are_for_yaml_and_members_for_python(self, shop: Any) -> None:
        wf = shop.wf
        wf.step(shop.S.NEW)(shop.step)
        with pytest.raises(DefinitionErrors, match="'Done': stands in its return annotation"):
            Application.of(wf)

    def test_a_faulty_workflow_is_no_application(self, shop: Any) -> None:
        with pytest.raises(DefinitionErrors):
            Application.of(Workflow("w", object=shop.Order, status=shop.S, start=shop.S.NEW))

    def test_a_workflow_of_rules_needs_no_code(self, shop: Any) -> None:
        wf: Any = Workflow("rules", object=shop.Order, status=shop.S, start=shop.S.NEW)
        wf.route(shop.S.NEW, Rule(when="object.total > 1", to=shop.S.DONE), Rule(to=shop.S.GONE))
        assert Application.of(wf).bound == {}

    def test_a_connector_of_its_own_type(self, shop: Any) -> None:
        wf: Any = Workflow("c", object=shop.Order, status=shop.S, start=shop.S.NEW)
        wf.route(shop.S.NEW, Rule(to=shop.S.DONE, when="true"), Rule(to=shop.S.GONE))
        wf.connector("c", InProcess("t"))(shop.on_message)
        bound = Application.of(wf).bound["shop_code:on_message"]
        assert isinstance(bound, BoundMessage)
        assert bound.whole


def _hook(run: RunRecord[Any, Any]) -> None: ...


class TestSchemas:
    model: ClassVar[Any] = {
        "type": "object",
        "properties": {
            "n": {"type": "integer"},
            "x": {"type": "number"},
            "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "kind": {"$ref": "#/$defs/Kind"},
            "lines": {"type": "array", "items": {"$ref": "#/$defs/Line"}},
        },
        "required": ["n"],
        "$defs": {
            "Kind": {"enum": ["a", "b"]},
            "Line": {"type": "object", "properties": {"price": {"type": "number"}}, "required": ["price"]},
        },
    }

    @pytest.mark.parametrize(
        "schema",
        [
            model,
            {},
            {"type": "object"},
            {"type": "object", "required": ["n"], "properties": {"n": {"type": "integer", "maximum": 5}}},
            {"required": ["n"], "properties": {"n": {}, "x": {"type": "integer"}, "maybe": {"type": "string"}}},
            {"required": ["n"], "properties": {"kind": {"const": "a"}}},
            {"required": ["n"], "properties": {"maybe": {"type": ["string", "null"]}}},
            {"required": ["n"], "properties": {"kind": {"$ref": "#/nowhere"}}},
        ],
    )
    def test_what_lets_in_no_more_agrees(self, schema: Any) -> None:
        assert disagreements(schema, self.model) == []

    @pytest.mark.parametrize(
        ("schema", "path", "words"),
        [
            ({"type": "array"}, ".", "lets in array"),
            ({"properties": {"n": {"type": "integer"}}}, ".required", "'n'"),
            ({"required": ["n"], "properties": {"n": {"type": "number"}}}, ".properties.n", "takes integer"),
            ({"required": ["n"], "properties": {"gone": {}}}, ".properties.gone", "would drop it"),
            ({"required": ["n"], "properties": {"kind": {"enum": ["a", "c"]}}}, ".properties.kind.enum", "'c'"),
            (
                {"required": ["n"], "properties": {"maybe": {"type": ["string", "integer"]}}},
                ".properties.maybe",
                "lets in integer",
            ),
            (
                {"required": ["n"], "properties": {"lines": {"items": {"properties": {"price": {}}}}}},
                ".properties.lines.items.required",
                "'price'",
            ),
        ],
    )
    def test_what_lets_in_more_does_not(self, schema: Any, path: str, words: str) -> None:
        [(where, rule)] = disagreements(schema, self.model)
        assert where == path
        assert words in rule

    def test_a_model_that_takes_more_fields_agrees(self) -> None:
        assert disagreements({"properties": {"more": {}}}, {"properties": {}, "additionalProperties": True}) == []

    def test_a_schema_that_refers_to_itself_ends(self) -> None:
        node = {"$ref": "#/$defs/Node", "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}}}
        other = {**node, "title": "other"}
        assert disagreements(node, other) == []
