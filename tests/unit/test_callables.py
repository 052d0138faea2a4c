"""What user code is handed, what it may answer, and what is stored of it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import Annotated, Any, Literal, Never

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, computed_field, field_validator

from stepwell._domain.ids import ForeignID, RunID
from stepwell.callables import (
    MAX_OBJECT,
    BoundArm,
    BoundMessage,
    BoundTick,
    CallbackRequest,
    Directive,
    DirectiveKind,
    Message,
    ObjectCodec,
    RawCodec,
    Run,
    RunFacts,
    RunRecord,
    Tick,
    TriggerRequest,
    answer_of,
    by_foreign_id,
    checked_foreign_id,
    codec_of,
    inspect_arm,
    inspect_callback,
    inspect_deletion,
    inspect_hook,
    inspect_message,
    inspect_step,
    names_in_annotations,
    place_of,
    ref_of,
)
from stepwell.errors import DefinitionError, InvalidObjectError

NOW = datetime(2026, 11, 22, 10, tzinfo=UTC)


class S(StrEnum):
    NEW = "New"
    DONE = "Done"


class Line(BaseModel):
    price: float = 1.0


class Order(BaseModel):
    total: int = 1
    note: str | None = None
    ratio: float | None = None
    anything: Any = None
    lines: list[Line] = []
    weights: dict[str, float] = {}


def a_run(**facts: Any) -> Run[Order, None]:
    given = {
        "id": RunID("r"),
        "foreign_id": ForeignID("f"),
        "workflow": "orders",
        "status": "New",
        "version": 1,
        "attempt": 1,
        "idempotency_key": "r/1",
        "now": NOW,
    }
    return Run(object=Order(), deps=None, facts=RunFacts(**{**given, **facts}))


class TestRun:
    def test_its_facts_are_read_only(self) -> None:
        run = a_run(version=7, attempt=2, trace="00-1-2-01")
        assert (run.id, run.foreign_id, run.workflow, run.status) == ("r", "f", "orders", "New")
        assert (run.version, run.attempt, run.now, run.trace, run.deps) == (7, 2, NOW, "00-1-2-01", None)
        assert run.idempotency_key == "r/1"
        with pytest.raises(AttributeError):
            run.version = 8
        with pytest.raises(AttributeError):
            run.anything_else = 8

    def test_its_object_may_be_changed_and_replaced(self) -> None:
        run = a_run()
        run.object.total = 5
        run.object = run.object.model_copy(update={"note": "x"})
        assert run.object == Order(total=5, note="x")

    def test_a_log_line_carries_the_ids_and_what_the_caller_adds(self, caplog: Any) -> None:
        with caplog.at_level(logging.INFO):
            a_run().log.info("hello", extra={"mine": 1})
        record = caplog.records[0]
        assert (record.run, record.workflow, record.attempt, record.mine) == ("r", "orders", 1, 1)

    def test_its_text_does_not_show_the_object(self) -> None:
        run = a_run()
        run.object.note = "secret"
        assert "secret" not in repr(run)
        assert "New" in repr(run)

    @pytest.mark.parametrize("after", [timedelta(seconds=-1), timedelta(days=4000)])
    def test_a_repeat_is_within_ten_years(self, after: Any) -> None:
        with pytest.raises(ValueError, match="save_and_repeat"):
            a_run().save_and_repeat(after=after)

    @pytest.mark.parametrize("call", ["pause", "cancel"])
    def test_a_reason_is_text(self, call: Any) -> None:
        with pytest.raises(TypeError, match="reason is a string, not int"):
            getattr(a_run(), call)(5)

    def test_a_requested_start_is_kept_with_its_workflow(self) -> None:
        run = a_run()
        run.trigger(TriggerRequest.of("a", Order(), workflow="audit"))
        run.trigger(TriggerRequest.of("b", Order()))
        assert [(one.workflow, one.foreign_id) for one in run.requested] == [("audit", "a"), ("orders", "b")]

    def test_only_a_request_can_be_triggered(self) -> None:
        with pytest.raises(TypeError, match="not Order"):
            a_run().trigger(Order())


class TestAnswer:
    @pytest.mark.parametrize("returned", [S.DONE, "Done"])
    def test_a_status_by_its_name(self, returned: Any) -> None:
        answer = answer_of(a_run(), returned)
        assert answer == "Done"
        assert type(answer) is str

    def test_a_directive_of_this_run(self) -> None:
        run = a_run()
        directive = run.save_and_repeat(after=timedelta(minutes=5))
        answer = answer_of(run, directive)
        assert isinstance(answer, Directive)
        assert (answer.kind, answer.after) == (DirectiveKind.SAVE_AND_REPEAT, timedelta(minutes=5))

    def test_a_forgotten_return_says_what_to_write(self) -> None:
        run = a_run()
        run.skip()
        with pytest.raises(TypeError, match=r"write `return run\.skip\(\.\.\.\)`"):
            answer_of(run, S.DONE)

    def test_one_of_two_directives_was_forgotten(self) -> None:
        run = a_run()
        run.pause("a")
        with pytest.raises(TypeError, match=r"run\.pause"):
            answer_of(run, run.cancel("b"))

    def test_a_directive_of_another_run_is_refused(self) -> None:
        with pytest.raises(TypeError, match="another run"):
            answer_of(a_run(), a_run().skip())

    def test_a_start_that_nothing_would_store_is_refused(self) -> None:
        run = a_run()
        run.trigger(TriggerRequest.of("a", Order()))
        with pytest.raises(TypeError, match=r"run\.skip\(\) stores nothing"):
            answer_of(run, run.skip())

    @pytest.mark.parametrize("returned", [None, 5, ["Done"], Order()])
    def test_anything_else_is_refused_by_its_type(self, returned: Any) -> None:
        with pytest.raises(TypeError, match=f"not {type(returned).__name__}"):
            answer_of(a_run(), returned)


class Unforgiving:
    def __eq__(self, other: object) -> bool:
        raise RuntimeError("not comparable")

    __hash__ = None


class TestObjectCodec:
    codec: ObjectCodec[Order] = ObjectCodec(Order)

    @given(st.builds(Order, total=st.integers(), note=st.text(), weights=st.dictionaries(st.text(), st.floats(0, 1))))
    def test_what_is_encoded_comes_back_equal(self, order: Any) -> None:
        assert self.codec.decode(self.codec.encode(order)) == order

    def test_each_decoding_is_a_new_object(self) -> None:
        data = self.codec.encode(Order())
        first = self.codec.decode(data)
        first.lines.append(Line())
        assert self.codec.decode(data).lines == []

    @pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
    @pytest.mark.parametrize(
        ("field", "place"),
        [("ratio", "ratio"), ("anything", "anything[1].deep"), ("lines", "lines[0].price"), ("weights", "weights.kg")],
    )
    def test_nan_and_infinity_are_refused_wherever_they_are(self, bad: Any, field: Any, place: Any) -> None:
        value = {"ratio": bad, "anything": [1, {"deep": bad}], "weights": {"kg": bad}}.get(field)
        if field == "lines":
            value = [Line()]
            value[0].price = bad
        order = Order()
        setattr(order, field, value)
        with pytest.raises(InvalidObjectError) as raised:
            self.codec.encode(order)
        assert raised.value.field == place

    @pytest.mark.parametrize("mode", ["constants", "strings", "null"])
    def test_a_models_own_setting_does_not_let_infinity_in(self, mode: Any) -> None:
        class Odd(BaseModel):
            model_config = ConfigDict(ser_json_inf_nan=mode)
            x: float | None = None

        with pytest.raises(InvalidObjectError, match="x: is NaN or Infinity"):
            ObjectCodec(Odd).encode(Odd(x=float("inf")))

    def test_text_that_reads_infinity_is_just_text(self) -> None:
        order = Order(note="NaN and Infinity and null")
        assert self.codec.decode(self.codec.encode(order)) == order

    def test_a_value_of_the_wrong_type_is_refused_without_being_quoted(self) -> None:
        order = Order()
        order.total = "the-secret"
        with pytest.raises(InvalidObjectError) as raised:
            self.codec.encode(order)
        assert raised.value.field == "total"
        assert "the-secret" not in str(raised.value)
        assert raised.value.__cause__ is None
        assert raised.value.__suppress_context__

    def test_a_value_that_json_cannot_express_is_refused(self) -> None:
        with pytest.raises(InvalidObjectError, match="JSON cannot express"):
            self.codec.encode(Order(anything=object()))

    def test_a_value_that_refuses_comparison_is_looked_through(self) -> None:
        class Holder(BaseModel):
            model_config = ConfigDict(arbitrary_types_allowed=True)
            x: float = 1.0
            odd: Annotated[Any, Field(exclude=True)] = None

        holder = Holder(odd=Unforgiving())
        assert ObjectCodec(Holder).encode(holder) == b'{"x":1.0}'

    def test_another_model_is_refused(self) -> None:
        with pytest.raises(InvalidObjectError, match="must be of Order, not of Line"):
            self.codec.encode(Line())

    def test_a_cycle_and_too_deep_a_value_are_refused(self) -> None:
        circle: list[Any] = []
        circle.append(circle)
        deep: list[Any] = []
        for _ in range(260):
            deep = [deep]
        for value in (circle, deep):
            with pytest.raises(InvalidObjectError, match="object"):
                self.codec.encode(Order(anything=value))
        with pytest.raises(InvalidObjectError, match="recursion limit"):
            self.codec.decode(b'{"anything":' + b"[" * 300 + b"]" * 300 + b"}")

    def test_the_size_is_bounded_to_the_byte(self) -> None:
        empty = len(self.codec.encode(Order(note="")))
        self.codec.encode(Order(note="x" * (MAX_OBJECT - empty)))
        with pytest.raises(InvalidObjectError, match=f"{MAX_OBJECT + 1} bytes"):
            self.codec.encode(Order(note="x" * (MAX_OBJECT - empty + 1)))

    def test_a_lone_surrogate_is_refused(self) -> None:
        with pytest.raises(InvalidObjectError):
            self.codec.encode(Order(note="\ud800"))

    def test_a_model_that_does_not_read_its_own_writing_is_refused(self) -> None:
        class Fickle(BaseModel):
            n: int = 1

            @field_validator("n")
            @classmethod
            def odd(cls, value: int) -> int:
                if value % 2 == 0:
                    raise ValueError(f"{value} is even")
                return value

        fickle = Fickle()
        fickle.n = 42
        with pytest.raises(InvalidObjectError) as raised:
            ObjectCodec(Fickle).encode(fickle)
        assert (raised.value.field, raised.value.rule) == ("n", "breaks the rule value_error")

    def test_aliases_computed_fields_and_names_survive(self) -> None:
        class Aliased(BaseModel):
            model_config = ConfigDict(extra="forbid")
            number: int = Field(alias="no")

            @computed_field
            @property
            def double(self) -> int:
                return 2 * self.number

        codec: ObjectCodec[Aliased] = ObjectCodec(Aliased)
        assert codec.encode(Aliased(no=3)) == b'{"no":3}'
        assert codec.decode(b'{"number":4}').number == 4

    @pytest.mark.parametrize(
        ("data", "field", "rule"),
        [
            (b"", "object", "Invalid JSON"),
            (b"[]", "object", "should be an object"),
            (b'{"total":"the-secret"}', "total", "valid integer"),
            (b'{"lines":[{"price":1},{"price":"the-secret"}]}', "lines[1].price", "valid number"),
            (b'{"total":[],"note":[]}', "total", "and 1 more"),
            (b"\xff", "object", "Invalid JSON"),
        ],
    )
    def test_what_does_not_fit_names_the_field_and_the_rule(self, data: Any, field: Any, rule: Any) -> None:
        with pytest.raises(InvalidObjectError, match=rule) as raised:
            self.codec.decode(data)
        assert raised.value.field == field
        assert "the-secret" not in str(raised.value)

    def test_a_payload_may_be_of_any_type(self) -> None:
        codec = codec_of(list[Line] | None, label="payload")
        assert codec.decode(codec.encode([Line(price=2)])) == [Line(price=2)]
        assert codec.encode(None) == b"null"
        with pytest.raises(InvalidObjectError, match="payload"):
            codec.decode(b"7")

    def test_an_unhashable_type_has_a_codec_too(self) -> None:
        codec = codec_of(Annotated[int, Field(gt=0), ["unhashable"]], label="payload")
        assert codec.decode(b"5") == 5
        with pytest.raises(InvalidObjectError, match="greater than 0"):
            codec.decode(b"0")


class TestRawCodec:
    @pytest.mark.parametrize("value", [{}, {"a": [1, 2.5, None, True, "x", {"b": []}]}, {"big": 2**70}])
    def test_json_comes_back_as_it_went(self, value: Any) -> None:
        codec = RawCodec()
        assert codec.decode(codec.encode(value)) == value

    @pytest.mark.parametrize(
        ("value", "place", "rule"),
        [
            ({"a": float("nan")}, "a", "NaN"),
            ({"a": [0, float("inf")]}, "a[1]", "Infinity"),
            ({"a": {1: 2}}, "a", "key"),
            ({"a": (1,)}, "a", "tuple"),
            ({"a": {"b": datetime(2026, 1, 1, tzinfo=UTC)}}, "a.b", "datetime"),
            ([1], "object", "must be a JSON object, not list"),
            ({"a": "\ud800"}, "object", "Unicode"),
            ({"a": "x" * MAX_OBJECT}, "object", "at most"),
        ],
    )
    def test_what_is_no_json_object_is_refused(self, value: Any, place: Any, rule: Any) -> None:
        with pytest.raises(InvalidObjectError, match=rule) as raised:
            RawCodec().encode(value)
        assert raised.value.field == place

    def test_a_cycle_is_refused(self) -> None:
        circle: dict[str, Any] = {}
        circle["again"] = circle
        with pytest.raises(InvalidObjectError, match="refers to itself"):
            RawCodec().encode(circle)

    @pytest.mark.parametrize("data", [b"", b"{", b'{"a":NaN}', b'{"a":Infinity}', b"\xff", b"[" * 300])
    def test_what_is_no_json_cannot_be_decoded(self, data: Any) -> None:
        with pytest.raises(InvalidObjectError, match="is not JSON"):
            RawCodec().decode(data)

    def test_a_schema_is_kept_to_and_a_value_never_quoted(self) -> None:
        schema = {
            "type": "object",
            "properties": {"lines": {"type": "array", "items": {"properties": {"n": {"type": "integer"}}}}},
            "required": ["lines"],
        }
        codec = RawCodec(schema)
        assert codec.decode(codec.encode({"lines": [{"n": 1}]})) == {"lines": [{"n": 1}]}
        with pytest.raises(InvalidObjectError) as raised:
            codec.encode({"lines": [{"n": "the-secret"}]})
        assert raised.value.field == "lines[0].n"
        assert raised.value.rule == 'breaks the schema\'s rule type: "integer"'
        with pytest.raises(InvalidObjectError, match="required"):
            codec.decode(b"{}")

    def test_what_is_no_schema_is_a_fault_of_the_definition(self) -> None:
        with pytest.raises(DefinitionError) as raised:
            RawCodec({"properties": {"a": {"type": "whole"}}})
        assert raised.value.problem.path == "objectSchema.properties.a.type"

    def test_a_reference_to_elsewhere_is_never_fetched(self) -> None:
        codec = RawCodec({"$ref": "http://127.0.0.1:9/schema.json"})
        with pytest.raises(InvalidObjectError, match="does not hold itself"):
            codec.encode({})


class TestRequests:
    @pytest.mark.parametrize("text", ["1", "x" * 253, "München/7 ☃"])
    def test_a_foreign_id_is_nearly_any_text(self, text: Any) -> None:
        assert checked_foreign_id(text) == text

    @pytest.mark.parametrize("text", ["", "x" * 254, "a\nb", "a\x7f", "\ud800", 5])
    def test_what_is_no_foreign_id_is_refused(self, text: Any) -> None:
        with pytest.raises(InvalidObjectError, match="foreign_id"):
            checked_foreign_id(text)

    def test_a_reference_by_foreign_id_is_its_text(self) -> None:
        assert by_foreign_id("7") == "7"
        assert type(str(by_foreign_id("7"))) is str

    def test_a_request_does_not_change_with_its_object(self) -> None:
        order = Order(total=1)
        request = TriggerRequest.of("a", order, start=S.DONE)
        order.total = 2
        assert b'"total":1' in request.encoded
        assert (request.start, request.workflow) == ("Done", None)
        assert "total" not in repr(request)

    def test_a_request_of_plain_json(self) -> None:
        assert TriggerRequest.of("a", {"total": 1}).encoded == b'{"total":1}'
        assert CallbackRequest.of("reviewed", "a", None).payload == b"null"
        with pytest.raises(InvalidObjectError, match="payload"):
            CallbackRequest.of("reviewed", "a", float("nan"))

    def test_a_tick_names_its_run_by_its_utc_time(self) -> None:
        tick = Tick(schedule="nightly", planned=datetime(2026, 10, 25, 4, tzinfo=timezone(timedelta(hours=2))))
        assert tick.foreign_id == "nightly-20261025T020000Z"


class TestBound:
    def test_a_due_time_needs_a_zone(self) -> None:
        assert BoundArm.due(datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == datetime(
            2026, 1, 1, tzinfo=UTC
        )
        with pytest.raises(ValueError, match="no time zone"):
            BoundArm.due(datetime(2026, 1, 1))  # noqa: DTZ001  (that is the point)
        with pytest.raises(TypeError, match="not float"):
            BoundArm.due(5.0)

    def test_a_tick_answers_with_a_request_of_its_own_workflow(self) -> None:
        own, other = TriggerRequest.of("a", Order()), TriggerRequest.of("a", Order(), workflow="audit")
        assert BoundTick.answer(own, workflow="orders") is own
        assert BoundTick.answer(other, workflow="audit") is other
        assert BoundTick.answer(None, workflow="orders") is None
        assert BoundTick.answer(True, workflow="orders") is True
        with pytest.raises(TypeError, match="cannot start runs of 'audit'"):
            BoundTick.answer(other, workflow="orders")
        with pytest.raises(TypeError, match="not Order"):
            BoundTick.answer(Order(), workflow="orders")

    def test_a_message_is_decoded_as_its_function_wants_it(self) -> None:
        raw = Message(topic="t", partition=1, offset=2, at=NOW, key=b"k", value=b'{"price":3}')
        codec = codec_of(Line, label="message")
        whole = BoundMessage(ref="r", function=print, is_async=False, value=codec, whole=True)
        bare = BoundMessage(ref="r", function=print, is_async=False, value=codec, whole=False)
        assert bare.argument(raw) == Line(price=3)
        assert whole.argument(raw) == Message(topic="t", partition=1, offset=2, at=NOW, key=b"k", value=Line(price=3))
        with pytest.raises(InvalidObjectError, match="message"):
            bare.argument(Message(topic="t", partition=1, offset=2, at=NOW, key=None, value=b"nonsense"))

    def test_a_message_answers_with_a_request_or_nothing(self) -> None:
        request = CallbackRequest.of("reviewed", "a", None)
        assert BoundMessage.answer(request) is request
        assert BoundMessage.answer(None) is None
        with pytest.raises(TypeError, match="not bool"):
            BoundMessage.answer(True)


async def plain(run: Run[Order, None]) -> Literal[S.NEW, S.DONE]:
    return S.NEW


def with_directive(run: Run[Order]) -> Literal[S.DONE] | Directive:
    return S.DONE


def by_name(run: Run[dict[str, Any]]) -> Literal["Paid"]:
    return "Paid"


def awaited(run: Run[Order]) -> Awaitable[Literal[S.DONE]]:
    return plain(run)


class Handler:
    async def __call__(self, run: Run[Order]) -> Literal[S.DONE]:
        return S.DONE

    def method(self, run: Run[Order]) -> Literal[S.DONE]:
        return S.DONE


def wrapped(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    async def inner(*args: Any) -> Any:
        return await function(*args)

    return inner


class TestInspection:
    @pytest.mark.parametrize(
        ("function", "statuses", "model", "is_async"),
        [
            (plain, ("New", "Done"), Order, True),
            (with_directive, ("Done",), Order, False),
            (by_name, ("Paid",), dict[str, Any], False),
            (awaited, ("Done",), Order, True),
            (Handler(), ("Done",), Order, True),
            (Handler().method, ("Done",), Order, False),
            (wrapped(plain), ("New", "Done"), Order, True),
            (functools.partial(plain), ("New", "Done"), Order, True),
        ],
    )
    def test_what_a_signature_promises(self, function: Any, statuses: Any, model: Any, is_async: Any) -> None:
        shape = inspect_step(function)
        assert shape.faults == ()
        assert (shape.statuses, shape.model, shape.is_async) == (statuses, model, is_async)

    def test_an_annotation_may_leave_the_statuses_open(self) -> None:
        def enum(run: Run) -> S: ...
        def text(run: Any) -> str: ...
        def mixed(run: Any) -> Literal[S.NEW] | S: ...
        def bare(run: Any): ...  # noqa: ANN202  (that is the point)
        def only(run: Any) -> Directive: ...

        for function in (enum, text, mixed, bare, only):
            shape = inspect_step(function)
            assert (shape.faults, shape.statuses, shape.model) == ((), None, None), function

    @pytest.mark.parametrize(
        ("source", "rule"),
        [
            ("def f(): ...", "is called with one argument"),
            ("def f(run, other): ...", "is called with one argument"),
            ("def f(run, *, other): ...", "is called with one argument"),
            ("def f(run: int): ...", "must annotate its first parameter as Run"),
            ("def f(run) -> None: ...", "may return None"),
            ("def f(run) -> Literal['A'] | None: ...", "may return None"),
            ("def f(run) -> int: ...", "not int"),
            ("def f(run) -> Missing: ...", "'Missing'.*not known at run time.*TYPE_CHECKING"),
            ("def f(run: Run[Missing]): ...", "runtime-evaluated-decorators"),
            ("def f(run) -> 1 + 'a': ...", "cannot be resolved"),
            ("def f(run):\n  yield 1", "is a generator"),
            ("async def f(run):\n  yield 1", "is a generator"),
        ],
    )
    def test_a_fault_is_told_in_words(self, source: Any, rule: Any) -> Never:
        scope: dict[str, Any] = {"Run": Run, "Literal": Literal}
        exec("from __future__ import annotations\n" + source, scope)  # noqa: S102  (the test's own text)
        [fault] = inspect_step(scope["f"]).faults
        with pytest.raises(AssertionError, match=rule):
            raise AssertionError(fault)

    def test_all_faults_come_at_once(self) -> None:
        def f(run: int, other: str) -> None: ...

        assert len(inspect_step(f).faults) == 3

    def test_other_annotations_need_not_be_resolvable(self) -> None:
        def f(run: Run[Order], cache: Nowhere = None) -> Literal[S.DONE]: ...  # noqa: F821  (that is the point)

        assert inspect_step(f).faults == ()

    def test_local_names_are_found_where_the_function_was_written(self) -> None:
        class Local(BaseModel):
            pass

        L = StrEnum("L", {"A": "A"})  # noqa: N806  (an enum)

        def f(run: Run[Local]) -> L.A: ...
        def g(run: Run[Local]) -> L: ...

        assert inspect_step(g).faults != ()
        names = names_in_annotations(g, locals())
        assert set(names) == {"Local", "L"}
        assert inspect_step(g, names).model is Local

    def test_a_callback_needs_a_payload_with_a_type(self) -> None:
        def good(run: Run[Order], payload: Line) -> Literal[S.DONE]: ...
        def untyped(run: Run[Order], payload) -> Literal[S.DONE]: ...  # noqa: ANN001  (that is the point)
        def without(run: Run[Order]) -> Literal[S.DONE]: ...

        assert inspect_callback(good).payload is Line
        assert "annotate its payload" in inspect_callback(untyped).faults[0]
        assert "2 arguments (run, payload)" in inspect_callback(without).faults[0]

    def test_a_connector_takes_the_message_or_its_value(self) -> None:
        def whole(message: Message[Line]) -> None: ...
        def value(line: Line) -> None: ...
        def raw(message: Message[bytes]) -> None: ...
        def untyped(message) -> None: ...  # noqa: ANN001  (that is the point)

        assert (inspect_message(whole).payload, inspect_message(whole).whole) == (Line, True)
        assert (inspect_message(value).payload, inspect_message(value).whole) == (Line, False)
        assert inspect_message(raw).payload is bytes
        assert "annotate its message" in inspect_message(untyped).faults[0]

    def test_the_other_parts(self) -> None:
        def due(run: Run[Order]) -> datetime: ...
        def hook(run: RunRecord[Order, S]) -> None: ...
        def forget(order: Order) -> Order: ...

        assert inspect_arm(due).model is Order
        assert (inspect_hook(hook).model, inspect_hook(hook).status_type) == (Order, S)
        assert inspect_deletion(forget).model is Order

    def test_places_and_references(self) -> None:
        line = plain.__code__.co_firstlineno
        assert place_of(plain) == f"{__name__}:{line}"
        assert place_of(wrapped(functools.partial(plain))) == f"{__name__}:{line}"
        assert ref_of(plain) == f"{__name__}:plain"
        assert ref_of(Handler().method) == f"{__name__}:Handler.method"
        assert ref_of(Handler()) == f"{__name__}:Handler.__call__"
