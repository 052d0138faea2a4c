"""All that is done for a run is in one trace, from whoever asked for it to its last step; and nothing of its data."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from enum import StrEnum
from typing import Any, Literal, Never

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import BaseModel

from stepwell import CallbackRefusedError, Client, JsonLines, Message, Options, Run, TriggerRequest, Workflow
from stepwell._domain.definition import Connector
from stepwell._domain.record import Event, EventKind
from stepwell._engine.relay import Relay
from stepwell._engine.supervisor import Engine, Ports
from stepwell._engine.telemetry import Tally
from stepwell.adapters.embedded import EmbeddedStore, SystemClock, file_source
from stepwell.adapters.opentelemetry import OpenTelemetryTracer
from stepwell.application import Application
from stepwell.errors import AlreadyRunningError, InvalidObjectError
from stepwell.ports.source import MessageSource
from stepwell.ports.stream import Delivery
from stepwell.ports.tracing import Facts, SpanName
from stepwell.testing import FakeHttp

SECRET = "hunter2-SECRET"  # noqa: S105  (it stands for a run's data)
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
URL = "https://warehouse.example/pick"
LIMIT = timedelta(seconds=20)
QUICK = Options(backoff_initial=timedelta(milliseconds=10), backoff_max=timedelta(milliseconds=10))


class Order(BaseModel):
    card: str = SECRET
    tries: int = 0


class Answer(BaseModel):
    word: str = SECRET


class S(StrEnum):
    NEW = "New"
    PICKED = "Picked"
    ASKED = "Asked"
    DONE = "Done"


def shop(provider: TracerProvider) -> Workflow[Order, S, None]:
    wf: Workflow[Order, S, None] = Workflow("shop", object=Order, status=S, start=S.NEW, options=QUICK)

    @wf.step(S.NEW)
    async def pay(run: Run[Order]) -> Literal[S.PICKED]:
        with provider.get_tracer("of the user").start_as_current_span("charge"):
            await asyncio.sleep(0)
        if run.attempt == 1:
            raise ConnectionError(f"card {SECRET} refused")
        if run.foreign_id == "parent":
            run.trigger(wf.trigger("child", Order(), start=S.ASKED))
        return S.PICKED

    wf.http(S.PICKED, URL, to=[S.ASKED])

    @wf.callback(S.ASKED)
    def answered(run: Run[Order], answer: Answer) -> Literal[S.DONE]:
        with provider.get_tracer("of the user").start_as_current_span("in a thread"):
            return S.DONE

    @wf.connector("arrivals", JsonLines("arrivals.jsonl"))
    def arrived(message: Message[Order]) -> TriggerRequest[Order]:
        return wf.trigger("arrived", message.value, start=S.ASKED)

    @wf.on_complete
    async def completed(run: object) -> None:
        return None

    return wf


class Spans:
    def __init__(self, **given: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(**given)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = OpenTelemetryTracer(self.provider)

    @property
    def ended(self) -> list[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def of(self, name: str, **attributes: object) -> list[ReadableSpan]:
        wanted = {f"stepwell.{key}": value for key, value in attributes.items()}
        found = [span for span in self.ended if span.name == name]
        return [span for span in found if wanted.items() <= dict(span.attributes or {}).items()]


@pytest.fixture
def spans() -> Spans:
    return Spans()


def no_source(_: str, connector: Connector) -> Never:
    raise AssertionError(connector)


@asynccontextmanager
async def working(spans: Spans, tmp_path: Any) -> AsyncIterator[tuple[Client, Workflow[Order, S, None], FakeHttp]]:
    wf, clock, http = shop(spans.provider), SystemClock(), FakeHttp()
    store = EmbeddedStore.open(None, clock=clock)
    http.respond(URL, json={"status": "Asked"})

    def source(workflow: str, connector: Connector) -> MessageSource:
        files = {"arrivals.jsonl": tmp_path / "arrivals.jsonl"}
        found = file_source(store, namespace="default", workflow=workflow, connector=connector, files=files)
        assert found is not None
        return found

    ports = Ports(
        store=store,
        stream=store.stream(),
        clock=clock,
        telemetry=Tally(),
        http=http,
        source_of=source,
        tracer=spans.tracer,
    )
    try:
        async with Engine([Application.of(wf)], ports):
            yield Client(store, clock, tracer=spans.tracer), wf, http
    finally:
        await store.close()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(LIMIT.total_seconds()):
        while not condition():  # noqa: ASYNC110  (the exporter tells nobody)
            await asyncio.sleep(0.01)


def told(span: ReadableSpan) -> str:
    return f"{span.to_json()} {span.status.description}"


async def test_one_trace_holds_the_whole_way_of_a_run(spans: Spans, tmp_path: Any) -> None:
    async with working(spans, tmp_path) as (client, wf, http):
        runs = client.runs(wf)
        with spans.provider.get_tracer("of the caller").start_as_current_span("checkout") as checkout:
            run = await runs.trigger("1", Order())
        await runs.wait_for(run.id, S.ASKED, timeout=LIMIT)
        await runs.callback_by_name("answered", run.id, {"word": SECRET}, wait=LIMIT)
        await until(lambda: spans.of("stepwell.hook"))
    trace_id = checkout.get_span_context().trace_id
    assert {span.context.trace_id for span in spans.ended} == {trace_id}
    (trigger,) = spans.of("stepwell.trigger")
    assert trigger.parent is not None
    assert trigger.parent.span_id == checkout.get_span_context().span_id
    assert dict(trigger.attributes or {}) == {
        "stepwell.workflow": "shop",
        "stepwell.run.id": run.id,
        "stepwell.outcome": "started",
    }
    attempts = spans.of("stepwell.attempt")
    assert all(span.parent is not None and span.parent.span_id == trigger.context.span_id for span in attempts)
    words = ("status", "kind", "attempt", "outcome")
    assert [tuple((span.attributes or {})[f"stepwell.{word}"] for word in words) for span in attempts] == [
        ("New", "step", 1, "failed"),
        ("New", "step", 2, "moved"),
        ("Picked", "step", 1, "moved"),
        ("Asked", "callback", 1, "moved"),
    ]
    failed = attempts[0]
    assert (failed.status.status_code, failed.status.description) == (StatusCode.ERROR, "ConnectionError")
    assert (failed.attributes or {})["error.type"] == "ConnectionError"
    assert failed.events == ()
    assert (spans.of("stepwell.callback")[0].attributes or {})["stepwell.outcome"] == "accepted"
    (hook,) = spans.of("stepwell.hook")
    assert ((hook.attributes or {})["stepwell.element"], hook.kind) == ("on_complete", SpanKind.CONSUMER)
    # The user's own spans are part of the attempt that made them, in the loop and in a thread.
    inside = {span.name: span for span in spans.ended if not span.name.startswith("stepwell")}
    assert inside["in a thread"].parent is not None
    assert inside["in a thread"].parent.span_id == attempts[3].context.span_id
    (call,) = http.calls
    assert call.headers["traceparent"][:-2] == f"00-{trace_id:032x}-{attempts[2].context.span_id:016x}-"
    assert int(call.headers["traceparent"][-2:], 16) & 1, "sampled"
    assert SECRET not in "".join(map(told, spans.ended))


async def test_a_given_trace_is_joined(spans: Spans, tmp_path: Any) -> None:
    async with working(spans, tmp_path) as (client, wf, _):
        run = await client.runs(wf).trigger("2", Order(), trace=TRACE)
        await client.runs(wf).wait_for(run.id, S.ASKED, timeout=LIMIT)
    (trigger,) = spans.of("stepwell.trigger")
    assert f"{trigger.context.trace_id:032x}" == TRACE.split("-")[1]
    assert trigger.parent is not None
    assert f"{trigger.parent.span_id:016x}" == TRACE.split("-")[2]
    assert run.trace[:-2] == f"00-{trigger.context.trace_id:032x}-{trigger.context.span_id:016x}-"


async def test_runs_that_a_run_and_a_message_start_have_their_own_trigger(spans: Spans, tmp_path: Any) -> None:
    (tmp_path / "arrivals.jsonl").write_text(f'{{"card": "{SECRET}"}}\n')
    async with working(spans, tmp_path) as (client, wf, _):
        runs = client.runs(wf)
        parent = await runs.trigger("parent", Order())
        await runs.wait_for(parent.id, S.ASKED, timeout=LIMIT)
        await until(lambda: len(spans.of("stepwell.trigger")) == 3)
        child = [run async for run in runs.list(foreign_id="child")]
        arrived = [run async for run in runs.list(foreign_id="arrived")]
    (of_child,) = [s for s in spans.of("stepwell.trigger") if (s.attributes or {})["stepwell.run.id"] == child[0].id]
    (of_parent,) = [s for s in spans.of("stepwell.trigger") if (s.attributes or {})["stepwell.run.id"] == parent.id]
    assert of_child.parent is not None
    assert of_child.parent.span_id == of_parent.context.span_id
    assert child[0].trace.split("-")[1] == parent.trace.split("-")[1]
    (of_message,) = [
        s for s in spans.of("stepwell.trigger") if (s.attributes or {})["stepwell.run.id"] == arrived[0].id
    ]
    assert of_message.parent is None
    assert arrived[0].trace.split("-")[2] == f"{of_message.context.span_id:016x}"


async def test_what_is_refused_is_told(spans: Spans, tmp_path: Any) -> None:
    async with working(spans, tmp_path) as (client, wf, _):
        runs = client.runs(wf)
        run = await runs.trigger("3", Order(), start=S.ASKED)
        with pytest.raises(AlreadyRunningError):
            await runs.trigger("3", Order())
        with pytest.raises(CallbackRefusedError):
            await runs.callback_by_name("answered", run.id, {"word": [SECRET]}, wait=LIMIT)
        with pytest.raises(InvalidObjectError):
            await runs.trigger("4", Order(card="\ud800"))
        await runs.cancel(run.id)
        with pytest.raises(CallbackRefusedError):
            await runs.callback_by_name("answered", run.id, {})
    assert [(span.attributes or {})["stepwell.outcome"] for span in spans.of("stepwell.trigger")] == ["started", "busy"]
    assert [(s.attributes or {})["stepwell.outcome"] for s in spans.of("stepwell.callback")] == ["accepted", "refused"]
    assert (spans.of("stepwell.attempt")[0].attributes or {})["stepwell.outcome"] == "refused"
    assert SECRET not in "".join(map(told, spans.ended))


async def test_a_trace_that_is_not_sampled_is_passed_on_and_told_to_nobody(tmp_path: Any) -> None:
    spans = Spans(sampler=ALWAYS_OFF)
    async with working(spans, tmp_path) as (client, wf, http):
        run = await client.runs(wf).trigger("5", Order())
        await client.runs(wf).wait_for(run.id, S.ASKED, timeout=LIMIT)
    assert spans.ended == []
    passed_on = http.calls[0].headers["traceparent"]
    assert passed_on.split("-")[1] == run.trace.split("-")[1]
    assert not int(passed_on[-2:], 16) & 1


async def test_without_a_tracer_nothing_is_made(tmp_path: Any) -> None:
    spans = Spans()
    clock = SystemClock()
    store = EmbeddedStore.open(None, clock=clock)
    wf = shop(spans.provider)
    run = await Client(store, clock).runs(wf).trigger("6", Order())
    assert run.trace == ""
    await store.close()
    assert spans.ended == []


class Publisher:
    def __init__(self, *answers: bool) -> None:
        self._answers = answers

    async def publish(self, events: Any) -> tuple[bool, ...]:
        return self._answers


class Outbox:
    def __init__(self, overdue: list[Delivery]) -> None:
        self._overdue = overdue

    def hand_to(self, taker: Any) -> None:
        raise AssertionError

    async def overdue(self, namespace: str, limit: int) -> list[Delivery]:
        return self._overdue

    def published(self, deliveries: Any) -> None:
        pass


def event(run_id: str, trace: str) -> Event:
    named = {"namespace": "default", "workflow": "shop", "status": "New", "name": "", "version": 1}
    return Event(kind=EventKind.STEP, run_id=run_id, trace=trace, **named)  # type: ignore[arg-type]


async def test_each_event_of_a_traced_run_is_published_in_its_trace(spans: Spans) -> None:
    deliveries = [
        Delivery(event=event(run_id, trace), position=n)
        for n, (run_id, trace) in enumerate([("a", TRACE), ("b", ""), ("c", TRACE)])
    ]
    relay = Relay(Outbox(deliveries), Publisher(True, True, False), Tally(), tracer=spans.tracer)
    assert await relay.sweep("default") == 2
    assert [
        ((span.attributes or {})["stepwell.run.id"], (span.attributes or {})["stepwell.outcome"])
        for span in spans.of("stepwell.publish")
    ] == [("a", "published"), ("c", "left")]
    assert {f"{span.context.trace_id:032x}" for span in spans.ended} == {TRACE.split("-")[1]}


async def test_what_ends_a_span_is_told_by_its_class(spans: Spans) -> None:
    class BrokenError(Exception):
        pass

    with pytest.raises(BrokenError), spans.tracer.span(Facts(name=SpanName.HOOK, workflow="shop"), TRACE):
        raise BrokenError(SECRET)
    (span,) = spans.ended
    assert (span.attributes or {})["error.type"] == "BrokenError"
    assert span.status.description == "BrokenError"
    assert SECRET not in told(span)
