"""A definition printed as an object, written as YAML, read and converted back is the same definition."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stepwell._domain.definition import (
    Callback,
    CallbackAction,
    CatchUp,
    CelHandler,
    CelRule,
    ConcurrencyPolicy,
    Connector,
    ConnectorRule,
    Handler,
    Hooks,
    HttpHandler,
    HttpHeader,
    Migration,
    Options,
    PythonHandler,
    Schedule,
    Source,
    SourceKind,
    Status,
    Step,
    Timeout,
    TimersOnPause,
    TriggerAction,
    WorkflowDefinition,
)
from stepwell.errors import DefinitionErrors
from stepwell.resources import (
    WorkflowResource,
    from_definition,
    parse_manifests,
    to_definition,
    to_manifest,
    to_yaml,
)

HANDLER = PythonHandler(ref="shop.orders:handle")
SECRET = {"secret_name": "shop", "secret_key": "token"}
NAMES = ("Created", "Paid", "on-hold", "Done")

refs = st.sampled_from([HANDLER, PythonHandler(ref="a.b:C.d")])
durations = st.integers(min_value=1, max_value=10**9).map(lambda millis: timedelta(milliseconds=millis))
destinations = st.lists(st.sampled_from(NAMES), min_size=1, unique=True).map(tuple)
expressions = st.sampled_from(["true", "object.total > 5", "'a: b # c'", "\"é\" + 'x'"])
pairs = st.dictionaries(st.sampled_from(["a", "b", "yes", "n"]), expressions).map(lambda d: tuple(sorted(d.items())))
json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.sampled_from(["", "yes", "2026-11-22", "1e3", "é\n"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "y", "1"]), inner, max_size=2),
    max_leaves=5,
)
objects = st.dictionaries(st.sampled_from(["a", "on", "x-y"]), json, max_size=2)


@st.composite
def options(draw: st.DrawFn) -> Options:
    return Options(
        concurrency=draw(st.sampled_from([1, 64, 4096])),
        attempt_timeout=draw(st.sampled_from([timedelta(seconds=30), timedelta(milliseconds=1)])),
        backoff_initial=draw(st.sampled_from([timedelta(seconds=1), timedelta(seconds=2)])),
        backoff_max=draw(st.sampled_from([timedelta(minutes=5), timedelta(hours=1)])),
        pause_after_errors=draw(st.integers(0, 2)),
        delay=draw(st.sampled_from([timedelta(), timedelta(seconds=1)])),
        lag_alert_after=draw(st.sampled_from([timedelta(minutes=30), timedelta(hours=48)])),
    )


headers = st.sampled_from(
    [
        (),
        (HttpHeader(name="X-A", value=""), HttpHeader(name="Cookie", **SECRET)),
    ]
)
https = st.builds(
    HttpHandler,
    url=st.just("https://warehouse.example/pick?a=b"),
    method=st.sampled_from(["POST", "PUT"]),
    timeout=durations,
    headers=headers,
)


@st.composite
def handlers(draw: st.DrawFn, to: tuple[str, ...]) -> Handler:
    rule = st.builds(CelRule, to=st.sampled_from(to), when=st.none() | expressions, set=pairs)
    rules = st.lists(rule, min_size=1, max_size=3).map(tuple)
    return draw(st.one_of(refs, https, st.builds(CelHandler, rules=rules)))


@st.composite
def statuses(draw: st.DrawFn, name: str) -> Status:
    def element() -> dict[str, Any]:
        to = draw(destinations)
        return {"handler": draw(handlers(to)), "to": to, "options": draw(options())}

    step = Step(**element(), worker=draw(st.sampled_from([None, {}, {"replicas": 3}]))) if draw(st.booleans()) else None
    callbacks = [Callback(name=f"c{i}", **element(), hold=draw(durations)) for i in range(draw(st.integers(0, 2)))]
    due: dict[str, Any] = draw(st.sampled_from([{"after": timedelta(hours=72)}, {"at": HANDLER}]))
    timeouts = (
        [Timeout(name="late", **element(), **due)] if (step is None and not callbacks) or draw(st.booleans()) else []
    )
    return Status(name=name, step=step, callbacks=tuple(callbacks), timeouts=tuple(timeouts))


starts = st.none() | st.sampled_from(NAMES)
actions = st.one_of(
    st.builds(TriggerAction, foreign_id=expressions, object=pairs, start=starts),
    st.builds(CallbackAction, name=st.just("c0"), foreign_id=expressions, payload=pairs),
)
connectors = st.builds(
    Connector,
    name=st.just("payments"),
    source=st.builds(
        Source, kind=st.just(SourceKind.KAFKA), topic=st.just("a.b"), start_from=st.sampled_from(["earliest", "latest"])
    ),
    handler=refs
    | st.lists(st.builds(ConnectorRule, action=actions, when=st.none() | expressions), min_size=1, max_size=2).map(
        tuple
    ),
    options=options(),
)
foreign = st.sampled_from([{}, {"foreign_id": "nightly"}, {"foreign_id_cel": "string(planned)"}])
filters = st.sampled_from([{}, {"filter_cel": "true"}, {"function": HANDLER}])
schedules = st.builds(
    lambda foreign, filters, **fields: Schedule(name="nightly", cron="0 2 * * *", **foreign, **filters, **fields),
    foreign,
    filters,
    time_zone=st.sampled_from(["UTC", "Europe/Oslo"]),
    object=st.none() | objects,
    start=starts,
    suspend=st.booleans(),
    starting_deadline=st.none() | durations,
    catch_up=st.sampled_from(CatchUp),
    concurrency_policy=st.sampled_from(ConcurrencyPolicy),
)
hooks = st.builds(Hooks, on_pause=st.none() | refs, on_cancel=st.none() | https, on_complete=st.none() | refs)
definitions = st.builds(
    WorkflowDefinition,
    name=st.just("orders"),
    start=st.sampled_from(NAMES),
    statuses=st.tuples(*(statuses(name) for name in NAMES[:-1]), st.just(Status(name="Done", terminal=True))),
    namespace=st.sampled_from(["default", "shop"]),
    suspend=st.booleans(),
    defaults=options(),
    object_schema=st.none() | objects,
    lifespan=st.none() | st.just("shop.app:lifespan"),
    worker=st.sampled_from([None, {"image": "shop:1", "env": [{"name": "A", "value": "yes"}]}]),
    partitions=st.sampled_from([12, 1, 256]),
    retry_paused_after=st.sampled_from([timedelta(hours=1), timedelta()]),
    timers_on_pause=st.sampled_from(TimersOnPause),
    retention=st.none() | durations,
    connectors=st.lists(connectors, max_size=1).map(tuple),
    hooks=hooks,
    data_deletion=st.none() | refs,
    schedules=st.lists(schedules, max_size=1).map(tuple),
    migrations=st.sampled_from([(), (Migration(source="Old", to="Paid"),)]),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(definitions)
def test_round_trip(definition: WorkflowDefinition) -> None:
    resource = from_definition(definition)
    assert to_definition(resource) == definition
    parsed = parse_manifests(to_yaml(resource), "orders.yaml")
    assert parsed.problems == ()
    assert parsed.workflows == (resource,)
    assert to_definition(parsed.workflows[0]) == definition


def test_what_equals_its_default_is_not_written() -> None:
    plain = WorkflowDefinition(
        name="orders",
        start="Created",
        statuses=(
            Status(name="Created", step=Step(handler=HANDLER, to=("Done",))),
            Status(name="Done", terminal=True),
        ),
    )
    assert yaml.safe_load(to_yaml(from_definition(plain, image="shop:1"))) == {
        "apiVersion": "stepwell.dev/v1alpha1",
        "kind": "Workflow",
        "metadata": {"name": "orders"},
        "spec": {
            "start": "Created",
            "worker": {"image": "shop:1"},
            "statuses": [
                {"name": "Created", "step": {"handler": {"python": "shop.orders:handle"}, "to": ["Done"]}},
                {"name": "Done", "terminal": True},
            ],
        },
    }


def test_options_are_the_elements_on_top_of_the_defaults_on_top_of_the_built_in_ones() -> None:
    manifest = to_manifest(from_definition(FULL))
    manifest["spec"]["defaults"] = {"concurrency": 10, "errorBackoff": {"max": "1m"}}
    manifest["spec"]["statuses"][0]["step"] = {
        "handler": {"python": "a:b"},
        "to": ["Done"],
        "errorBackoff": {"initial": "5s"},
        "pauseAfterErrors": 0,
    }
    step = to_definition(WorkflowResource.model_validate(manifest)).statuses[0].step
    assert step is not None
    assert step.options == Options(
        concurrency=10, backoff_initial=timedelta(seconds=5), backoff_max=timedelta(minutes=1), pause_after_errors=0
    )


FULL = WorkflowDefinition(
    name="orders",
    start="Created",
    statuses=(
        Status(name="Created", step=Step(handler=HANDLER, to=("Done",))),
        Status(name="Done", terminal=True),
    ),
)


def test_an_image_replaces_the_one_that_was_written() -> None:
    written = replace(FULL, worker={"image": "old:1", "replicas": 3}, lifespan="shop.app:lifespan")
    worker = to_manifest(from_definition(written, image="new:2"))["spec"]["worker"]
    assert worker == {"image": "new:2", "replicas": 3, "lifespan": "shop.app:lifespan"}


def test_an_element_that_keeps_the_built_in_value_says_so_against_other_defaults() -> None:
    written = replace(FULL, defaults=Options(concurrency=10))
    step = to_manifest(from_definition(written))["spec"]["statuses"][0]["step"]
    assert step["concurrency"] == 64


def test_the_order_of_a_mapping_means_nothing() -> None:
    full = (Path(__file__).parent / "manifests" / "full.yaml").read_text()
    (workflow,) = parse_manifests(full, "full.yaml").workflows
    (other,) = parse_manifests(yaml.safe_dump(to_manifest(workflow), sort_keys=True), "sorted.yaml").workflows
    assert to_definition(other) == to_definition(workflow)


@pytest.mark.parametrize("kind", [SourceKind.JSON_LINES, SourceKind.IN_PROCESS])
def test_only_kafka_connectors_can_be_deployed(kind: SourceKind) -> None:
    connector = Connector(name="payments", source=Source(kind=kind, topic="payments"), handler=HANDLER)
    kafka = replace(connector, name="bank", source=Source(kind=SourceKind.KAFKA, topic="bank"))
    with pytest.raises(DefinitionErrors, match="only Kafka connectors can be deployed") as caught:
        from_definition(replace(FULL, connectors=(kafka, connector)))
    assert [(problem.path, problem.value) for problem in caught.value.problems] == [
        ("spec.connectors[1]", repr(kind.value))
    ]


def test_what_an_object_cannot_say_is_told_all_at_once() -> None:
    local = PythonHandler(ref="shop.orders:main.<locals>.handle")
    step = Step(handler=local, to=("Done",), options=Options(concurrency=0))
    broken = replace(FULL, name="Orders", statuses=(Status(name="Created", step=step), FULL.statuses[1]))
    with pytest.raises(DefinitionErrors) as caught:
        from_definition(broken)
    assert {problem.path for problem in caught.value.problems} == {
        "metadata.name",
        "spec.statuses[0].step.handler.python",
        "spec.statuses[0].step.concurrency",
    }


def test_a_duration_finer_than_a_millisecond_cannot_be_written() -> None:
    with pytest.raises(DefinitionErrors, match="whole number of milliseconds"):
        from_definition(replace(FULL, retention=timedelta(microseconds=1500)))


def test_an_object_without_a_name_has_no_definition() -> None:
    manifest = to_manifest(from_definition(FULL))
    manifest["metadata"] = {"generateName": "orders-"}
    with pytest.raises(DefinitionErrors, match=r"metadata\.name"):
        to_definition(WorkflowResource.model_validate(manifest))
