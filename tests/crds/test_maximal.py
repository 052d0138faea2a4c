"""Whatever is legal can be stored and changed: CEL's budget at run time is not used up by an object at its bounds.

Every bound at its maximum in one object would be far beyond what etcd takes (1.5 MiB), so there are several, each with
other bounds at their maximum; a last test sees that none is forgotten. A rule may cost 10 million when the definition
is accepted, and only one million when it is asked (https://kubernetes.io/docs/reference/using-api/cel/).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from tests.cluster.apiserver import ApiServer
from tests.crds.kit import Door
from tests.crds.objects import SCHEMAS

from stepwell.resources import RunResource, WorkflowResource

Part = dict[str, Any]

SHORT = [f"S{n:03}" for n in range(200)]
LONG = [name.ljust(63, "x") for name in SHORT]
LONGEST = "00001h00001m00000001s00001ms"
EXPRESSION = "e" * 1024
TIME = "2026-11-22T22:00:00." + "0" * 43 + "Z"
PYTHON: Part = {"python": f"{'m' * 127}:{'f' * 128}"}
KEY_REF = {"name": "n" * 253, "key": "k" * 253}
LABELS = {f"{'a' * 253}/{f'l{n:02}'.ljust(63, 'x')}": "v" * 63 for n in range(32)}
OPTIONS: Part = {
    "concurrency": 4096,
    "attemptTimeout": LONGEST,
    "errorBackoff": {"initial": LONGEST, "max": LONGEST},
    "pauseAfterErrors": 2**31 - 1,
    "delay": LONGEST,
    "lagAlertAfter": LONGEST,
}
HEADERS = [
    *({"name": f"X-{n:02}".ljust(64, "h"), "value": "v" * 2048} for n in range(15)),
    {"name": "Authorization", "valueFrom": {"secretKeyRef": KEY_REF}},
]
URL = "https://h/" + "u" * 2038
PODS: Part = {
    "replicas": 256,
    "resources": {
        kind: {f"example.com/r{n:02}": "0" * 62 + "1k" for n in range(16)} for kind in ("limits", "requests")
    },
    "nodeSelector": LABELS,
    "tolerations": [
        {"key": "k" * 32768 if n == 0 else "k", "value": "v" * (32768 if n == 0 else 1), "tolerationSeconds": 2**53 - 1}
        for n in range(32)
    ],
}


def pairs(length: int) -> dict[str, str]:
    return {f"f{n:02}": "e" * length for n in range(32)}


def element(handler: Part, to: list[str], **more: Any) -> Part:
    return {"handler": handler, "to": to, **more}


def status(name: str, make: Any, callbacks: int, timeouts: int) -> Part:
    return {
        "name": name,
        "step": make(),
        **({"callbacks": [make(name=LONG[n], hold=LONGEST) for n in range(callbacks)]} if callbacks else {}),
        **({"timeouts": [make(name=LONG[n], after=LONGEST) for n in range(timeouts)]} if timeouts else {}),
    }


def workflow(names: list[str], make: Any, *, callbacks: int = 0, timeouts: int = 0, **spec: Any) -> Part:
    return {"start": names[-1], "statuses": [status(name, make, callbacks, timeouts) for name in names], **spec}


def destinations() -> Part:
    """83,200 destinations, each looked up among 200 statuses."""

    def make(**more: Any) -> Part:
        # Short names of the elements too: it is their number that counts.
        short = {"name": more["name"][:4]} if more else {}
        return element({"python": "m:f"}, SHORT[-32:], **{**more, **short})

    return workflow(SHORT, make, callbacks=8, timeouts=4)


def long_names() -> Part:
    return workflow(LONG, lambda **more: element({"python": "m:f"}, LONG[-32:], **more), callbacks=1, timeouts=1)


def rules() -> Part:
    """32 rules per element, each of which is compared with 32 destinations at most."""
    handler = {"cel": {"rules": [{"to": name} for name in reversed(SHORT[:32])]}}
    return workflow(SHORT[:64], lambda **more: element(handler, SHORT[:32], **more), callbacks=2, timeouts=4)


def texts_of_rules() -> Part:
    one = {"when": EXPRESSION, "to": LONG[0], "set": pairs(1024)}
    handler = {"cel": {"rules": [one] * 13}}
    return workflow(LONG[:1], lambda **more: element(handler, LONG[:1], **more), callbacks=1, timeouts=1)


def options() -> Part:
    """Every duration of every element."""

    def make(**more: Any) -> Part:
        short = {"name": more["name"][:4]} if more else {}
        return element({"python": "m:f"}, SHORT[:1], **{**OPTIONS, **more, **short})

    return workflow(
        SHORT[:64], make, callbacks=8, timeouts=4, defaults=OPTIONS, retention=LONGEST, retryPausedAfter=LONGEST
    )


def urls() -> Part:
    return workflow(SHORT, lambda **more: element({"http": {"url": URL}}, SHORT[:1], **more), callbacks=1, timeouts=1)


def calls() -> Part:
    handler = {"http": {"url": URL, "timeout": LONGEST, "headers": HEADERS}}
    hooks = dict.fromkeys(("onPause", "onCancel", "onComplete"), handler)
    make = lambda **more: element(handler, SHORT[:1], **more)
    return workflow(SHORT[:2], make, callbacks=8, timeouts=4, hooks=hooks)


def functions() -> Part:
    hooks = dict.fromkeys(("onPause", "onCancel", "onComplete"), PYTHON)
    spec = workflow(SHORT, lambda **more: element(PYTHON, SHORT[:1], **more), callbacks=2, hooks=hooks)
    late = {"name": "at", "at": PYTHON, "handler": PYTHON, "to": SHORT[:1]}
    spec["statuses"][0]["timeouts"] = [late]
    return {**spec, "dataDeletion": PYTHON}


def sources() -> Part:
    terminal = [{"name": name, "terminal": True} for name in LONG]
    start = LONG[-1]
    trigger: Part = {"foreignID": "key", "object": pairs(3), "start": start}
    full: Part = {"foreignID": EXPRESSION, "object": pairs(1024), "start": start}
    call: Part = {"name": start, "foreignID": EXPRESSION, "payload": pairs(1024)}
    connector: Part = {"kafka": {"topic": "t" * 249}, **OPTIONS}
    connectors = [
        {"name": LONG[n], **connector, "handler": {"cel": {"rules": [{"when": "true", "trigger": trigger}] * 32}}}
        for n in range(18)
    ]
    by_text = {"cel": {"rules": [{"when": EXPRESSION, "trigger": full}, {"callback": call}]}}
    connectors += [
        {"name": LONG[18], **connector, "handler": by_text},
        {"name": LONG[19], **connector, "handler": PYTHON},
    ]
    return {
        "start": start,
        "partitions": 255,
        "statuses": terminal,
        "connectors": connectors,
        "schedules": [schedule(n) for n in range(50)],
        "migrations": [{"from": f"G{n:03}".ljust(63, "x"), "to": start} for n in range(200)],
    }


def schedule(n: int) -> Part:
    foreign = {"foreignID": "i" * 253} if n % 2 else {"foreignIDFrom": {"cel": EXPRESSION}}
    return {
        "name": LONG[n],
        "cron": ",".join(["00"] * 83) + " 2 * * *",
        "timeZone": "Z" + "z" * 30 + "/" + "z" * 32,
        **foreign,
        "start": LONG[-1],
        "filter": {"cel": EXPRESSION} if n % 2 else PYTHON,
        "startingDeadline": LONGEST,
        "object": {"kind": "x" * 1000},
    }


def pods() -> Part:
    worker: Part = {
        **PODS,
        "image": "i" * 512,
        "imagePullSecrets": [{"name": f"s{n:02}".ljust(253, "x")} for n in range(16)],
        "connectionSecretRef": {"name": "c" * 253},
        "env": [
            *({"name": f"E{n:02}".ljust(256, "X"), "value": "v" * (32768 if n == 0 else 1)} for n in range(98)),
            {"name": "ONE", "valueFrom": {"secretKeyRef": KEY_REF}},
            {"name": "TWO", "valueFrom": {"configMapKeyRef": KEY_REF}},
        ],
        "envFrom": [{kind: {"name": "n" * 253}} for kind in ("secretRef", "configMapRef") * 16],
        "topologySpreadConstraints": [
            {
                "maxSkew": 2**31 - 1,
                "minDomains": 2**31 - 1,
                "topologyKey": f"t{n:02}".ljust(317, "x"),
                "whenUnsatisfiable": "DoNotSchedule",
            }
            for n in range(16)
        ],
        "serviceAccountName": "a" * 253,
        "podLabels": LABELS,
        "podAnnotations": dict.fromkeys(LABELS, "v" * 4096),
        "terminationGracePeriod": LONGEST,
        "lifespan": PYTHON["python"],
    }
    own = element({"python": "m:f"}, SHORT[:1], worker=PODS)
    # As many workers of single steps as fit.
    statuses = [{"name": name, "step": own} for name in SHORT[:8]]
    return {"start": SHORT[0], "worker": worker, "statuses": statuses}


WORKFLOWS = {
    make.__name__: make
    for make in (*(destinations, long_names, rules, texts_of_rules, options, urls, calls, functions, sources, pods),)
}


def run() -> Part:
    entries = {f"key-{n:04}": {"amount": n, "text": "x" * 32} for n in range(900)}
    return {
        "workflowRef": {"name": "w" * 50},
        "foreignID": "é" * 253,
        "object": entries,
        "start": LONG[0],
        "desiredState": "Paused",
        "requestedAt": TIME,
        "reason": "r" * 1024,
        "ttlAfterFinished": LONGEST,
    }


def conditions() -> list[Part]:
    condition = {
        "status": "True",
        "observedGeneration": 2**53 - 1,
        "lastTransitionTime": TIME,
        "reason": "R" * 1024,
        "message": "m" * 2048,
    }
    return [{"type": f"t{n:02}".ljust(316, "x"), **condition} for n in range(31)] + [
        {**condition, "type": "Ready", "message": "m" * 32768}
    ]


STATUSES: dict[str, Part] = {
    "Workflow": {
        "observedGeneration": 2**53 - 1,
        "replicas": 2**31 - 1,
        "selector": "s" * 32768,
        "conditions": conditions(),
        "runs": dict.fromkeys(
            SCHEMAS["Workflow"]["properties"]["status"]["properties"]["runs"]["properties"], 2**53 - 1
        ),
        "schedules": [{"name": name, "lastScheduleTime": TIME, "nextScheduleTime": TIME} for name in LONG[:50]],
    },
    "Run": {
        "observedGeneration": 2**53 - 1,
        "runID": "r" * 64,
        "foreignID": "i" * 253,
        "currentStatus": LONG[0],
        "version": 2**53 - 1,
        "attempts": 2**31 - 1,
        "startedAt": TIME,
        "finishedAt": TIME,
        "reason": "r" * 32768,
        "lastError": "e" * 32768,
        "conditions": conditions(),
    },
}


def manifest(kind: str, name: str, spec: Part) -> Part:
    return {"apiVersion": "stepwell.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


@pytest.fixture(scope="module")
def door(cluster_api: ApiServer) -> Door:
    return Door(cluster_api, cluster_api.namespace())


@pytest.mark.parametrize("name", WORKFLOWS)
def test_a_workflow_at_its_bounds_is_stored_and_changed(name: str, door: Door) -> None:
    content = manifest("Workflow", name.replace("_", "-").ljust(50, "w"), WORKFLOWS[name]())
    WorkflowResource.model_validate(content)
    assert len(json.dumps(content)) < 1_500_000, "etcd would not take it"

    assert door.create("Workflow", content, dry=False).causes == ()
    # Every rule of the spec is asked again.
    changed = door.patch("Workflow", content["metadata"]["name"], {"spec": {"suspend": True, "partitions": 256}})
    assert changed.causes == ()
    assert changed.object["metadata"]["generation"] == 2
    door.delete("Workflow", content["metadata"]["name"])


def test_a_run_at_its_bounds_is_stored_and_changed(door: Door) -> None:
    content = manifest("Run", "r" * 253, run())
    RunResource.model_validate(content)

    assert door.create("Run", content, dry=False).causes == ()
    assert door.patch("Run", "r" * 253, {"spec": {"desiredState": "Running"}}).causes == ()
    erased = door.patch("Run", "r" * 253, {"spec": {"desiredState": "DataDeleted", "object": None}})
    assert erased.causes == ()
    assert "object" not in erased.object["spec"]


def test_an_object_of_a_run_that_is_too_large_for_us_can_still_be_steered(door: Door) -> None:
    """The operator refuses it; whoever made it must be able to take it back."""
    entries = {f"key-{n:05}": list(range(10)) for n in range(25_000)}
    content = manifest("Run", "large", {"workflowRef": {"name": "orders"}, "object": entries})
    assert len(json.dumps(content)) > 1_000_000

    assert door.create("Run", content, dry=False).causes == ()
    assert door.patch("Run", "large", {"spec": {"desiredState": "Cancelled"}}).causes == ()
    assert door.patch("Run", "large", {"spec": {"object": None}}).causes == ()


@pytest.mark.parametrize("kind", ["Workflow", "Run"])
def test_a_status_at_its_bounds_is_stored(kind: str, door: Door) -> None:
    spec = run() if kind == "Run" else {"start": "A", "statuses": [{"name": "A", "terminal": True}]}
    assert door.create(kind, manifest(kind, "told", spec), dry=False).accepted

    assert door.patch(kind, "told", {"status": STATUSES[kind]}, sub="status").causes == ()


Largest = dict[tuple[str, str], int]


def most_of(schema: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """(bound, maximum) of what a schema bounds; the pattern of a duration ends before its bound does."""
    for bound in ("maxLength", "maxItems", "maxProperties", "maximum"):
        if bound in schema and "enum" not in schema:
            most = int(schema[bound])
            yield bound, min(most, len(LONGEST)) if "ms)?" in schema.get("pattern", "") else most


def bounds(schema: Mapping[str, Any], path: str) -> Iterator[tuple[tuple[str, str], int]]:
    """Everything that is bounded, by path and bound."""
    yield from (((path, bound), most) for bound, most in most_of(schema))
    for key, inner in schema.get("properties", {}).items():
        yield from bounds(inner, f"{path}.{key}")
    for key, mark in (("items", "[]"), ("additionalProperties", "{}")):
        if key in schema:
            yield from bounds(schema[key], path + mark)


def measure(schema: Mapping[str, Any], value: Any, path: str, largest: Largest, seen: set[tuple[int, str]]) -> None:
    """Note the largest size of everything that is bounded. What many places share is looked at once."""
    if (id(value), path) in seen:
        return
    seen.add((id(value), path))
    for bound, _ in most_of(schema):
        size = value if isinstance(value, int) else len(value)
        largest[path, bound] = max(size, largest.get((path, bound), 0))
    for key, inner in schema.get("properties", {}).items():
        if key in value:
            measure(inner, value[key], f"{path}.{key}", largest, seen)
    if "items" in schema:
        for item in value:
            measure(schema["items"], item, f"{path}[]", largest, seen)
    if "additionalProperties" in schema:
        for item in value.values():
            measure(schema["additionalProperties"], item, path + "{}", largest, seen)


@pytest.mark.parametrize("kind", ["Workflow", "Run"])
def test_no_bound_is_forgotten(kind: str) -> None:
    specs = [make() for make in WORKFLOWS.values()] if kind == "Workflow" else [run()]
    spec, status = (SCHEMAS[kind]["properties"][key] for key in ("spec", "status"))
    # The change that follows the creation takes the partitions to their end.
    largest: Largest = {(".spec.partitions", "maximum"): 256}
    seen: set[tuple[int, str]] = set()
    for value in specs:
        measure(spec, value, ".spec", largest, seen)
    measure(status, STATUSES[kind], ".status", largest, seen)

    every = [*bounds(spec, ".spec"), *bounds(status, ".status")]
    assert len(every) > 20
    assert [place for place, most in every if largest.get(place, 0) != most] == []
