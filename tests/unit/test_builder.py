"""A workflow written in Python becomes a definition, or a list of all that is wrong with it, each with its place."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from enum import Enum, StrEnum
from typing import Any, Literal

import pytest
from pydantic import BaseModel, RootModel

from stepwell import (
    CatchUp,
    ConcurrencyPolicy,
    DefinitionErrors,
    Directive,
    HeaderSecret,
    InProcess,
    InvalidObjectError,
    JsonLines,
    KafkaTopic,
    Message,
    Options,
    Rule,
    Run,
    RunRecord,
    Steps,
    Tick,
    TimersOnPause,
    TriggerRequest,
    Workflow,
)
from stepwell._domain.definition import (
    CelHandler,
    HttpHandler,
    Migration,
    PythonHandler,
    Source,
    SourceKind,
)
from stepwell.builder import limits
from stepwell.resources import types


class S(StrEnum):
    NEW = "New"
    REVIEW = "Review"
    DONE = "Done"
    GONE = "Gone"


class Other(StrEnum):
    DONE = "Done"


class Order(BaseModel):
    total: int = 1


class Cat(BaseModel):
    name: str = "Tom"


class Verdict(BaseModel):
    approved: bool


@asynccontextmanager
async def resources() -> AsyncGenerator[int]:
    yield 5


async def advance(run: Run[Order]) -> Literal[S.REVIEW]:
    return S.REVIEW


async def finish(run: Run[Order]) -> Literal[S.DONE, S.GONE] | Directive:
    return S.DONE


def workflow(**settings: Any) -> Workflow[Order, S, None]:
    """A sound one, but for the step of NEW."""
    wf = Workflow("orders", object=Order, status=S, start=S.NEW, **settings)
    wf.step(S.REVIEW)(finish)
    return wf


def sound(**settings: Any) -> Workflow[Order, S, None]:
    wf = workflow(**settings)
    wf.step(S.NEW)(advance)
    return wf


def problems(wf: Workflow[Any, Any, Any]) -> list[str]:
    with pytest.raises(DefinitionErrors) as raised:
        wf.build()
    return [str(problem) for problem in raised.value.problems]


def assert_one(wf: Workflow[Any, Any, Any], *words: str) -> None:
    """There is one problem, it names a place, and it holds these words."""
    [problem] = problems(wf)
    assert re.match(rf"{__name__}:\d+ ", problem), problem
    for word in words:
        assert word in problem, problem


class TestDefinition:
    def test_a_status_without_work_is_terminal(self) -> None:
        definition = sound().build()
        assert [(s.name, s.terminal) for s in definition.statuses] == [
            ("New", False),
            ("Review", False),
            ("Done", True),
            ("Gone", True),
        ]
        assert (definition.name, definition.start) == ("orders", "New")
        assert definition.status("Review").destinations == {"Done", "Gone"}
        assert definition.status("New").step.handler == PythonHandler(ref=f"{__name__}:advance")
        assert definition.object_schema == Order.model_json_schema()

    def test_settings(self) -> None:
        definition = sound(
            lifespan=resources,
            partitions=3,
            retry_paused_after=timedelta(),
            timers_on_pause=TimersOnPause.RUN,
            retention=timedelta(days=3),
            migrations={"Old": S.REVIEW},
        ).build()
        assert definition.lifespan == f"{__name__}:resources"
        assert (definition.partitions, definition.retry_paused_after) == (3, timedelta())
        assert (definition.timers_on_pause, definition.retention) == (TimersOnPause.RUN, timedelta(days=3))
        assert definition.migrations == (Migration(source="Old", to="Review"),)

    def test_an_element_overrides_only_what_it_sets(self) -> None:
        wf = workflow(options=Options(attempt_timeout=timedelta(minutes=5), concurrency=3))
        wf.step(S.NEW, options=Options(concurrency=64))(advance)
        definition = wf.build()
        step = definition.status("New").step
        assert (step.options.concurrency, step.options.attempt_timeout) == (64, timedelta(minutes=5))
        assert definition.status("Review").step.options == definition.defaults
        assert definition.defaults.concurrency == 3

    def test_http_and_route(self) -> None:
        wf = Workflow("orders", object=Order, status=S, start=S.NEW)
        wf.http(S.NEW, "https://x.example/a", to=[S.REVIEW], headers={"authorization": HeaderSecret(name="n", key="k")})
        wf.route(S.REVIEW, Rule(when="object.total > 1", to=S.DONE, set={"total": "0"}), Rule(to=S.GONE))
        definition = wf.build()
        http, cel = definition.status("New").step.handler, definition.status("Review").step
        assert isinstance(http, HttpHandler)
        assert (http.headers[0].secret_name, http.headers[0].secret_key, http.headers[0].value) == ("n", "k", None)
        assert isinstance(cel.handler, CelHandler)
        assert cel.to == ("Done", "Gone")
        assert cel.handler.rules[0].set == (("total", "0"),)

    def test_callbacks_and_timeouts(self) -> None:
        wf = sound()

        @wf.callback(S.REVIEW, hold=timedelta(0))
        def reviewed(run: Run[Order], verdict: Verdict) -> Literal[S.DONE]:
            return S.DONE

        @wf.timeout(S.REVIEW, at=lambda run: run.now, to=[S.GONE], name="expire")
        def late(run: Run[Order]) -> S:
            return S.GONE

        review = wf.build().status("Review")
        assert (review.callbacks[0].name, review.callbacks[0].to, review.callbacks[0].hold) == (
            "reviewed",
            ("Done",),
            timedelta(0),
        )
        assert review.timeouts[0].name == "expire"
        assert review.timeouts[0].after is None
        assert review.timeouts[0].at is not None

    def test_one_callback_may_stand_at_several_statuses_by_one_name(self) -> None:
        wf = sound()

        @wf.callback(S.NEW, to=[S.GONE])
        @wf.callback(S.REVIEW)
        def withdrawn(run: Run[Order], reason: str) -> Literal[S.GONE]:
            return S.GONE

        definition = wf.build()
        refs = {definition.status(name).callback("withdrawn").handler for name in ("New", "Review")}
        assert len(refs) == 1
        assert withdrawn.name == "withdrawn"

    async def test_a_token_is_still_the_function(self) -> None:
        wf = sound()

        @wf.callback(S.REVIEW)
        async def reviewed(run: Run[Order], verdict: Verdict) -> Literal[S.DONE]:
            """Somebody decided."""
            return S.DONE

        @wf.callback(S.REVIEW, name="short")
        def sync(run: Run[Order], reason: str) -> Literal[S.GONE]:
            return S.GONE

        run: Any = None
        assert await reviewed(run, Verdict(approved=True)) is S.DONE
        assert await sync(run, "x") is S.GONE
        assert (reviewed.__name__, reviewed.__doc__, sync.name) == ("reviewed", "Somebody decided.", "short")
        request = reviewed.request("7", Verdict(approved=True))
        assert (request.name, request.foreign_id, request.payload) == ("reviewed", "7", b'{"approved":true}')
        with pytest.raises(InvalidObjectError):
            reviewed.request("", Verdict(approved=True))

    def test_connectors_schedules_hooks_and_deletion(self) -> None:
        wf = sound()

        @wf.connector("payments", KafkaTopic("p", start_from="latest"))
        def one(message: Message[Order]) -> TriggerRequest[Order] | None: ...

        @wf.connector("lines", JsonLines("a/b.jsonl"))
        def two(order: Order) -> None: ...

        @wf.connector("local", InProcess("t"))
        def three(message: Message[bytes]) -> None: ...

        @wf.schedule(
            "nightly",
            cron="0 2 * * 1-5",
            time_zone="Europe/Oslo",
            catch_up=CatchUp.NONE,
            concurrency_policy=ConcurrencyPolicy.REPLACE,
            starting_deadline=timedelta(minutes=1),
            suspend=True,
        )
        def nightly(tick: Tick) -> TriggerRequest[Order] | None: ...

        @wf.on_pause
        @wf.on_cancel
        def tell(run: RunRecord[Order, S]) -> None: ...

        @wf.data_deletion
        def forget(order: Order) -> Order:
            return Order()

        definition = wf.build()
        assert [c.source for c in definition.connectors] == [
            Source(kind=SourceKind.KAFKA, topic="p", start_from="latest"),
            Source(kind=SourceKind.JSON_LINES, topic="a/b.jsonl"),
            Source(kind=SourceKind.IN_PROCESS, topic="t"),
        ]
        [schedule] = definition.schedules
        assert (schedule.cron, schedule.time_zone, schedule.catch_up) == ("0 2 * * 1-5", "Europe/Oslo", CatchUp.NONE)
        assert (schedule.concurrency_policy, schedule.suspend) == (ConcurrencyPolicy.REPLACE, True)
        assert definition.hooks.on_pause == definition.hooks.on_cancel
        assert definition.hooks.on_complete is None
        assert definition.data_deletion is not None

    def test_statuses_may_come_from_data(self) -> None:
        names = {"A": "a", "B": "b", "C": "c"}
        dynamic = StrEnum("dynamic", names)
        wf = Workflow("dyn", object=Order, status=dynamic, start=dynamic("a"))
        for source, target in (("a", "b"), ("b", "c")):
            wf.step(dynamic(source), to=[dynamic(target)])(lambda run, target=target: dynamic(target))
        definition = wf.build()
        assert list(definition.edges()) == [("a", "b"), ("b", "c")]
        assert definition.status("a").step.handler != definition.status("b").step.handler

    def test_building_again_sees_what_was_added(self) -> None:
        wf = sound()
        first = wf.build()
        assert wf.build() is first
        wf.on_complete(lambda run: None)
        assert wf.build().hooks.on_complete is not None

    def test_a_decorated_function_is_the_function(self) -> None:
        wf = workflow()
        assert wf.step(S.NEW)(advance) is advance

    def test_local_types_are_found(self) -> None:
        class L(StrEnum):
            A = "A"
            B = "B"

        class Local(BaseModel):
            n: int

        wf = Workflow("local", object=Local, status=L, start=L.A)

        @wf.step(L.A)
        def go(run: Run[Local]) -> Literal[L.B]:
            raise NotImplementedError

        assert wf.build().status("A").step.to == ("B",)


class TestParts:
    def test_a_part_is_taken_in_whole(self) -> None:
        part = Steps(Order, S)
        wf = workflow()
        wf.include(part)
        part.step(S.NEW)(advance)
        assert wf.build().status("New").step.handler == PythonHandler(ref=f"{__name__}:advance")

    def test_a_duplicate_names_both_places(self) -> None:
        part = Steps(Order, S)
        part.step(S.NEW)(finish)
        wf = sound()
        wf.include(part)
        [problem] = problems(wf)
        places = re.findall(rf"{__name__}:(\d+)", problem)
        assert sorted(map(int, places)) == sorted([advance.__code__.co_firstlineno, finish.__code__.co_firstlineno])
        assert "step New" in problem

    def test_a_part_of_another_object_or_enum_is_refused(self) -> None:
        wf = sound()
        wf.include(Steps(Cat, Other))
        first, second = problems(wf)
        assert "object=Cat" in first
        assert "status=Other" in second

    def test_a_part_makes_requests_for_whoever_asks(self) -> None:
        part, wf = Steps(Order, S), sound()
        assert part.trigger("1", Order()).workflow is None
        request = wf.trigger("1", Order(total=3), start=S.REVIEW)
        assert (request.workflow, request.start, request.encoded) == ("orders", "Review", b'{"total":3}')
        with pytest.raises(InvalidObjectError):
            wf.trigger("", Order())
        with pytest.raises(InvalidObjectError, match="must be of Order"):
            wf.trigger("1", Cat())


class TestProblems:
    def test_they_come_all_at_once_and_in_order(self) -> None:
        wf = Workflow("Orders!", object=Order, status=S, start=S.NEW, partitions=0)
        wf.step(S.NEW)(lambda run: S.DONE)
        wf.schedule("nightly", cron="61 * * * *", time_zone="Mars/Olympus")(lambda tick: None)
        wf.http(S.REVIEW, "ftp://x", to=[])
        found = problems(wf)
        assert len(found) >= 6
        for words in ("'Orders!'", "partitions=0", "names no destination", "absolute http", "cron='61 * * * *'"):
            assert any(words in one for one in found), words

    def test_no_destination(self) -> None:
        wf = workflow()
        wf.step(S.NEW)(lambda run: S.DONE)
        assert any("step New" in one and "-> Literal[S.NEXT, ...]" in one for one in problems(wf))

    def test_to_and_annotation_must_agree(self) -> None:
        wf = workflow()
        wf.step(S.NEW, to=[S.REVIEW, S.DONE])(advance)
        assert_one(wf, "to=Review, Done", "names Review", "leave to= out")

    def test_to_and_annotation_may_agree(self) -> None:
        wf = workflow()
        wf.step(S.NEW, to=[S.REVIEW])(advance)
        assert wf.build().status("New").step.to == ("Review",)

    @pytest.mark.parametrize("annotation", [Literal["Review"], Literal[Other.DONE]])
    def test_a_literal_of_something_else(self, annotation: Any) -> None:
        def handler(run: Run[Order]) -> S: ...

        handler.__annotations__["return"] = annotation
        wf = workflow()
        wf.step(S.NEW, to=[S.REVIEW])(handler)
        assert any("is no member of S" in one for one in problems(wf))

    def test_a_status_that_is_none(self) -> None:
        wf: Any = sound()
        wf.step("Created", to=[S.DONE])(lambda run: S.DONE)
        wf.route(Other.DONE, Rule(to=S.DONE))
        first, second = problems(wf)
        assert "'Created'" in first
        assert "Other.DONE" in second

    def test_a_start_that_is_none(self) -> None:
        wf: Any = Workflow("orders", object=Order, status=S, start=Other.DONE)  # type: ignore[type-var, unused-ignore]
        wf.step(S.NEW)(advance)
        wf.step(S.REVIEW)(finish)
        assert any("start=<Other.DONE: 'Done'>" in one for one in problems(wf))

    def test_another_model(self) -> None:
        def handler(run: Run[Cat]) -> Literal[S.REVIEW]: ...

        wf: Any = workflow()
        wf.step(S.NEW)(handler)
        assert_one(wf, "Run[Cat]", "must be Run[Order]")

    def test_an_annotation_that_cannot_be_resolved(self) -> None:
        def handler(run: Run[Order]) -> Missing: ...  # noqa: F821  (that is the point)

        wf: Any = workflow()
        wf.step(S.NEW, to=[S.REVIEW])(handler)
        assert_one(wf, "'Missing'", "runtime-evaluated-decorators")

    def test_a_status_that_nothing_reaches(self) -> None:
        wf = Workflow("orders", object=Order, status=S, start=S.REVIEW)
        wf.step(S.NEW)(advance)
        wf.step(S.REVIEW)(finish)
        assert_one(wf, f"{advance.__code__.co_firstlineno} status New", "no run can reach")

    def test_no_end(self) -> None:
        class Loop(StrEnum):
            A = "A"

        wf = Workflow("loop", object=Order, status=Loop, start=Loop.A)
        wf.step(Loop.A, to=[Loop.A])(lambda run: Loop.A)
        assert any("no status is terminal" in one for one in problems(wf))

    def test_statuses_that_differ_by_case_or_have_bad_names(self) -> None:
        class Odd(StrEnum):
            A = "a"
            B = "A"
            C = "with space"

        wf = Workflow("odd", object=Order, status=Odd, start=Odd.A)
        wf.step(Odd.A, to=[Odd.B, Odd.C])(lambda run: Odd.B)
        found = problems(wf)
        assert any("only by case" in one for one in found)
        assert any("Odd.C = 'with space'" in one for one in found)

    def test_a_rule_with_an_unknown_name(self) -> None:
        wf = Workflow("orders", object=Order, status=S, start=S.NEW)
        wf.route(S.NEW, Rule(when="objekt.total > 1", to=S.REVIEW), Rule(to=S.DONE))
        wf.step(S.REVIEW)(finish)
        assert_one(wf, "step New handler.cel", "objekt")

    def test_a_callback_or_timeout_twice(self) -> None:
        wf = sound()
        for _ in range(2):
            wf.callback(S.REVIEW, name="same", to=[S.DONE])(_reviewed)
            wf.timeout(S.REVIEW, after=timedelta(hours=1), name="same", to=[S.DONE])(_late)
        first, second = problems(wf)
        assert "callback Review/same" in first
        assert "timeout Review/same" in second
        assert all("stands already at" in one for one in (first, second))

    def test_hooks_schedules_connectors_and_deletion_twice(self) -> None:
        wf: Any = sound()
        for _ in range(2):
            wf.on_pause(lambda run: None)
            wf.schedule("s", cron="* * * * *")(lambda tick: None)
            wf.connector("c", InProcess("t"))(_on_message)
            wf.data_deletion(lambda order: order)
        found = problems(wf)
        assert [re.sub(r"^\S+ ", "", one).split(":")[0] for one in found] == [
            "connector c",
            "schedule s",
            "hook on_pause",
            "data deletion",
        ]

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            (Options(concurrency=0), "concurrency=0"),
            (Options(concurrency=4097), "must be from 1 to 4096"),
            (Options(pause_after_errors=-1), "pause_after_errors=-1"),
            (Options(attempt_timeout=timedelta()), "attempt_timeout=0:00:00"),
            (Options(delay=timedelta(days=3651)), "to 3650 days"),
            (Options(delay=timedelta(microseconds=1)), "whole milliseconds"),
            (Options(backoff_initial=timedelta(hours=1)), "must not be longer than backoff_max"),
        ],
    )
    def test_an_option_out_of_bounds(self, options: Options, words: str) -> None:
        wf = workflow()
        wf.step(S.NEW, options=options)(advance)
        assert_one(wf, "step New", words)

    def test_an_option_that_there_is_not(self) -> None:
        wf: Any = workflow()
        wf.step(S.NEW, options={"concurency": 3})(advance)
        assert_one(wf, "concurency")

    @pytest.mark.parametrize(
        ("url", "headers", "words"),
        [
            ("warehouse/pick", {}, "absolute http"),
            ("https://user:the-secret@x.example", {}, "HeaderSecret"),
            ("https://x.example", {"Authorization": "Bearer the-secret"}, "carries a credential"),
            ("https://x.example", {"Idempotency-Key": "1"}, "set by Stepwell"),
            ("https://x.example", {"a b": "1"}, "not the name of an HTTP header"),
            ("https://x.example", {"X-A": "the-secret\r\nX-B: 1"}, "line breaks"),
        ],
    )
    def test_a_call_that_is_refused(self, url: str, headers: dict[str, str], words: str) -> None:
        wf = workflow()
        wf.http(S.NEW, url, to=[S.REVIEW], headers=headers)
        [problem] = problems(wf)
        assert words in problem
        assert "the-secret" not in problem

    def test_a_timeout_needs_exactly_one_time(self) -> None:
        wf: Any = sound()
        wf.timeout(S.REVIEW, to=[S.DONE])(_late)
        assert any("exactly one of after= and at=" in one for one in problems(wf))

    def test_a_name_that_is_none_asks_for_one(self) -> None:
        wf = sound()
        wf.timeout(S.REVIEW, after=timedelta(hours=1), to=[S.DONE])(lambda run: S.DONE)
        assert_one(wf, "'<lambda>'", "give it one with name=")

    def test_too_many_of_something(self) -> None:
        wf = sound()
        for n in range(9):
            wf.callback(S.REVIEW, name=f"c{n}", to=[S.DONE])(_reviewed)
        assert_one(wf, "status Review", "has 9 callbacks, at most 8")

    def test_a_payload_without_a_type(self) -> None:
        wf: Any = sound()
        wf.callback(S.REVIEW, name="c", to=[S.DONE])(lambda run, payload: S.DONE)
        assert_one(wf, "callback Review/c", "must annotate its payload")

    def test_a_migration_of_a_present_status(self) -> None:
        assert_one(sound(migrations={"Review": S.DONE}), "migrations['Review']")

    @pytest.mark.parametrize(
        ("object_type", "status", "words"),
        [
            (dict, S, ["object=dict", "pydantic model"]),
            (RootModel[list[int]], S, ["with fields, not a RootModel"]),
            (Order, Enum("plain", {"A": "A"}), ["status=plain", "StrEnum"]),
        ],
    )
    def test_an_object_or_status_of_the_wrong_kind(self, object_type: Any, status: Any, words: list[str]) -> None:
        wf: Any = Workflow("odd", object=object_type, status=status, start=next(iter(status)))
        assert_one(wf, *words)

    def test_a_model_without_a_schema(self) -> None:
        wf = Workflow("odd", object=_Unschemable, status=S, start=S.NEW)
        wf.step(S.NEW, to=[S.DONE, S.REVIEW, S.GONE])(lambda run: S.DONE)
        wf.step(S.REVIEW, to=[S.DONE])(lambda run: S.DONE)
        assert_one(wf, "_Unschemable", "has no JSON Schema")


class _Opaque:
    pass


class _Unschemable(BaseModel):
    model_config = {"arbitrary_types_allowed": True}
    it: _Opaque | None = None


def _reviewed(run: Run[Order], payload: str) -> S:
    return S.DONE


def _late(run: Run[Order]) -> S:
    return S.DONE


def _on_message(message: Message[Order]) -> None:
    return None


def test_names_are_those_of_the_workflow_object() -> None:
    assert limits.STATUS_NAME == types.STATUS_NAME
    assert limits.WORKFLOW_NAME == types.WORKFLOW_NAME
    assert limits._TOKEN == types.HEADER_NAME


def test_a_due_time_is_asked_of_the_function() -> None:
    wf = sound()

    @wf.timeout(S.REVIEW, at=_noon)
    def late(run: Run[Order]) -> Literal[S.GONE]:
        return S.GONE

    assert wf.build().status("Review").timeouts[0].at == PythonHandler(ref=f"{__name__}:_noon")


def _noon(run: Run[Order]) -> datetime:
    return datetime(2026, 1, 1, 12, tzinfo=UTC)
