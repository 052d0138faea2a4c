"""One broken rule each: the table names the change, the path and a part of the rule."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from stepwell.resources import (
    RunResource,
    RunSpec,
    WorkflowResource,
    WorkflowSpec,
    parse_manifests,
    problems_of,
)
from stepwell.resources.schema import Model
from stepwell.resources.walk import Form, Shape, fields, root_shape

FULL = Path(__file__).parent / "manifests" / "full.yaml"
WORKFLOW, RUN = (document for document in yaml.safe_load_all(FULL.read_text()))
RUN["spec"]["requestedAt"] = "2026-11-22T22:00:00Z"
GONE = object()

STEP = "spec.statuses[0].step"
HTTP = "spec.statuses[1].step.handler.http"
CEL = "spec.statuses[2].step.handler.cel"
WAIT = "spec.statuses[3]"
TICK = "spec.schedules[0]"
RULE = "spec.connectors[0].handler.cel.rules"
POD = "spec.worker"

Row = tuple[str, Any, str, str]
"""Where to put what; where the problem is told (empty: in the same place); and a part of its rule."""

WORKFLOW_ROWS: list[Row] = [
    ("apiVersion", "stepwell.dev/v2", "", "must be one of stepwell.dev/v1alpha1"),
    ("kind", "Run", "", "must be one of Workflow"),
    ("metadata.name", "-orders", "", "begin with a letter"),
    ("metadata.name", "orders-", "", "not end with a dash"),
    ("metadata.name", "o" * 51, "", "at most 50 characters"),
    ("metadata.name", GONE, "metadata", "needs a name or a generateName"),
    ("metadata.lables", {}, "", "did you mean labels?"),
    ("spec", GONE, "", "is required"),
    ("spec", [], "", "must be a mapping"),
    ("spec.start", 7, "", "must be a string"),
    ("spec.start", "Filled", "", "did you mean 'Filed'?"),
    ("spec.suspend", "yes", "", "must be true or false"),
    ("spec.objectSchema", "x", "", "must be a mapping"),
    ("spec.partitions", 0, "", "must be at least 1"),
    ("spec.partitions", 257, "", "must be at most 256"),
    ("spec.partitions", 1.5, "", "must be a whole number"),
    ("spec.partitions", True, "", "must be a whole number"),
    ("spec.defaults.concurrency", 4097, "", "must be at most 4096"),
    ("spec.defaults.pauseAfterErrors", -1, "", "must be at least 0"),
    ("spec.defaults.errorBackoff.initial", "3m", "spec.defaults.errorBackoff", "must not be longer than max"),
    ("spec.defaults.errorBackoff.initial", "0s", "", "from 1ms to 87600h"),
    ("spec.defaults.delay", "1d", "", "must be a duration such as"),
    ("spec.defaults.delay", "", "", "must have at least 2 characters"),
    ("spec.retryPausedAfter", "1h1h", "", "must be a duration such as"),
    ("spec.retention", "99999h", "", "from 1ms to 87600h"),
    ("spec.timersOnPause", "Stop", "", "must be one of Freeze, Run"),
    ("spec.statuses", {}, "", "must be a list"),
    ("spec.statuses[0]", None, "", "must be a mapping"),
    ("spec.statuses[0].name", "A" * 64, "", "must have at most 63 characters"),
    ("spec.statuses[0].name", "9Filed", "", "begin with a letter"),
    ("spec.statuses[0].name", "Filed_", "", "end with a letter or digit"),
    ("spec.statuses[4].terminal", False, "spec.statuses[4]", "either terminal or has a step"),
    (f"{WAIT}.callbacks", [], "", "must have at least 1 entry"),
    (f"{WAIT}.callbacks[1].name", "report", "", "must be unique in this list; entry 0"),
    (f"{WAIT}.callbacks[0].hold", "-1s", "", "must be a duration such as"),
    (f"{WAIT}.timeouts[1].name", "remind", "", "must be unique in this list"),
    (f"{WAIT}.timeouts[0].after", GONE, f"{WAIT}.timeouts[0]", "exactly one of after, at"),
    (f"{WAIT}.timeouts[0].at", {"python": "a:b"}, f"{WAIT}.timeouts[0]", "exactly one of after, at"),
    (f"{WAIT}.timeouts[1].at", {"cel": "now"}, f"{WAIT}.timeouts[1].at.cel", "unknown field"),
    (f"{WAIT}.timeouts[1].to", ["Paid"], f"{WAIT}.timeouts[1].handler.cel.rules[0].to", "own `to`"),
    (f"{WAIT}.timeouts[0].to[0]", "Inspekted", "", "did you mean 'Inspected'?"),
    (f"{STEP}.to", [], "", "must have at least 1 entry"),
    (f"{STEP}.to", "Priced", "", "must be a list"),
    (f"{STEP}.to", ["Priced", "Priced"], f"{STEP}.to[1]", "stands in this list already"),
    (f"{STEP}.handler.python", "claims.intake", "", "module:function"),
    (f"{STEP}.handler.python", "claims.intake:<lambda>", "", "module:function"),
    (f"{STEP}.handler.pyton", "a:b", "", "did you mean python?"),
    (f"{STEP}.worker.image", "other", "", "unknown field"),
    (f"{STEP}.worker.replicas", 0, "", "must be at least 1"),
    (f"{HTTP}.url", "https://", "", "http or https url"),
    (f"{HTTP}.url", "/relative", "", "http or https url"),
    (f"{HTTP}.url", "https://user@pricing.example/", "", "user name"),
    (f"{HTTP}.url", "https://pricing.example/a b", "", "without spaces"),
    (f"{HTTP}.url", "https://a:b:c/", "", "http or https url with a host"),
    (f"{HTTP}.url", "https://[a:b:c]/", "", "absolute url with a host"),
    (f"{HTTP}.url", "https://a:65536/", "", "absolute url with a host"),
    (f"{HTTP}.url", "https://a/%zz", "", "absolute url with a host"),
    (f"{HTTP}.url", "ftp://user:hunter2@a\n/b c", "", "user name or password"),
    (f"{HTTP}.url", "https://a/" + "x" * 2048, "", "must have at most 2048 characters"),
    (f"{HTTP}.method", "GET", "", "must be one of POST, PUT, PATCH"),
    (f"{HTTP}.headers[0].name", "X Tenant", "", "name of an HTTP header"),
    (f"{HTTP}.headers[0].name", "Cookie", f"{HTTP}.headers[0].value", "use valueFrom.secretKeyRef"),
    (f"{HTTP}.headers[0].name", "X-API-Key", f"{HTTP}.headers[0].value", "use valueFrom.secretKeyRef"),
    (f"{HTTP}.headers[0].name", "Authorization", f"{HTTP}.headers[1].name", "must be unique"),
    (f"{HTTP}.headers[0].name", "traceparent", "", "set by Stepwell itself"),
    (f"{HTTP}.headers[0].value", "a\nb", "", "control characters"),
    (f"{HTTP}.headers[1].value", "x", f"{HTTP}.headers[1]", "exactly one of value, valueFrom"),
    (f"{HTTP}.headers[1].valueFrom.configMapKeyRef", {"name": "a", "key": "b"}, "", "unknown field"),
    (f"{CEL}.rules[0].to", "Refused", "", "own `to`"),
    (f"{CEL}.rules[0].when", "x" * 1025, "", "must have at most 1024 characters"),
    (f"{CEL}.rules[0].set.level", 1, "", "must be a string"),
    (f"{CEL}.rules", [{"to": "Paid"}] * 33, "", "must have at most 32 entries, not 33"),
    (f"{RULE}[0].callback", {"name": "report", "foreignID": "x"}, f"{RULE}[0]", "exactly one of trigger, callback"),
    (f"{RULE}[0].trigger.start", "Fild", "", "did you mean 'Filed'?"),
    (f"{RULE}[0].trigger.foreignId", "x", "", "did you mean foreignID?"),
    (f"{RULE}[1].callback.foreignID", GONE, "", "is required"),
    ("spec.connectors[0].kafka.topic", "portal claims", "", "name of a Kafka topic"),
    ("spec.connectors[0].kafka.startFrom", "begin", "", "must be one of earliest, latest"),
    ("spec.connectors[1].name", "portal", "", "must be unique"),
    ("spec.hooks.onPause", {"cel": {"rules": [{"to": "Paid"}]}}, "spec.hooks.onPause.cel", "unknown field"),
    ("spec.dataDeletion", "a:b", "", "must be a mapping"),
    (f"{TICK}.cron", "0 2 * *", "", "five cron fields"),
    (f"{TICK}.cron", "0 2 L * *", "", "five cron fields"),
    (f"{TICK}.cron", "0 2 * * MON#1", "", "five cron fields"),
    (f"{TICK}.cron", "*/0 2 * * *", "", "five cron fields"),
    (f"{TICK}.cron", "5/10 2 * * *", "", "five cron fields"),
    (f"{TICK}.cron", "@daily", "", "five cron fields"),
    (f"{TICK}.cron", "0 2 * * *\n", "", "five cron fields"),
    (f"{TICK}.cron", "CRON_TZ=UTC 0 2 * * *", "", "five cron fields"),
    (f"{TICK}.timeZone", "Local", "", "IANA time zone"),
    (f"{TICK}.timeZone", "../etc/passwd", "", "IANA time zone"),
    (f"{TICK}.foreignIDFrom", {"cel": "planned"}, TICK, "foreignID or foreignIDFrom, not both"),
    (f"{TICK}.filter.python", "a:b", f"{TICK}.filter", "exactly one of cel, python"),
    (f"{TICK}.catchUp", "Some", "", "must be one of Latest, All, None"),
    (f"{TICK}.concurrencyPolicy", "Deny", "", "must be one of Allow, Forbid, Replace"),
    (f"{TICK}.start", "Nowhere", "", "must be the name of a status"),
    ("spec.schedules[1].name", "nightly", "", "must be unique"),
    ("spec.migrations[0].from", "Paid", "", "no longer in spec.statuses"),
    ("spec.migrations[0].to", "Triaged", "", "must be the name of a status"),
    ("spec.migrations[1]", {"from": "Triaged", "to": "Paid"}, "spec.migrations[1].from", "must be unique"),
    (f"{POD}.image", "two words", "", "without spaces"),
    (f"{POD}.imagePullPolicy", "Sometimes", "", "must be one of Always, IfNotPresent, Never"),
    (f"{POD}.connectionSecretRef.name", "Shop", "", "Kubernetes name"),
    (f"{POD}.env[0].name", "STEPWELL_DSN", "", "STEPWELL_ are reserved"),
    (f"{POD}.env[0].name", "1ST", "", "not begin with a digit"),
    (f"{POD}.env[0].name", "LEDGER_URL", f"{POD}.env[2].name", "must be unique"),
    (f"{POD}.env[0].value", GONE, f"{POD}.env[0]", "exactly one of value, valueFrom"),
    (f"{POD}.env[1].valueFrom", {}, f"{POD}.env[1].valueFrom", "exactly one of secretKeyRef, configMapKeyRef"),
    (f"{POD}.envFrom[0].prefix", "STEPWELL_", "", "unknown field"),
    (f"{POD}.envFrom[0]", {}, "", "exactly one of secretRef, configMapRef"),
    (f"{POD}.resources.limits.memory", "1 Gi", "", "must be a quantity"),
    (f"{POD}.resources.requests.cpu", 0.5, "", "must be a string"),
    (f"{POD}.podLabels.[app.kubernetes.io/name]", "x", f"{POD}.podLabels", "are reserved"),
    (f"{POD}.podLabels.[k8s.io/x]", "x", f"{POD}.podLabels", "are reserved"),
    (f"{POD}.podLabels.[a b]", "x", f"{POD}.podLabels", "keys must be label keys"),
    (f"{POD}.podLabels.team", "a b", "", "must be a label value"),
    (f"{POD}.podAnnotations.[x.stepwell.dev/y]", "x", f"{POD}.podAnnotations", "are reserved"),
    (f"{POD}.tolerations[0].effect", "Never", "", "must be one of NoSchedule, PreferNoSchedule, NoExecute"),
    (f"{POD}.topologySpreadConstraints[0].labelSelector", {}, "", "unknown field"),
    (f"{POD}.topologySpreadConstraints[0].maxSkew", 0, "", "must be at least 1"),
    (f"{POD}.terminationGracePeriod", "0s", "", "from 1ms to 87600h"),
    (f"{POD}.lifespan", "claims.app", "", "module:function"),
    (f"{POD}.volumes", [], "", "unknown field"),
    ("status.conditions", [{"type": "Ready", "status": "Maybe"}], "status.conditions[0].status", "must be one of True"),
]

RUN_ROWS: list[Row] = [
    ("spec.workflowRef", "claims", "", "must be a mapping"),
    ("spec.workflowRef.name", "Claims", "", "lower-case letters"),
    ("spec.workflow", "claims", "", "did you mean workflowRef?"),
    ("spec.foreignID", "", "", "must have at least 1 character"),
    ("spec.foreignID", "x" * 254, "", "must have at most 253 characters"),
    ("spec.foreignID", "a\x00b", "", "control characters"),
    ("spec.startPolicy", "Always", "", "must be one of IfNoneUnfinished, IfNoneEver"),
    ("spec.object", "x", "", "must be a mapping"),
    ("spec.object", {"note": "x" * 65_536}, "", "at most 65536 bytes"),
    ("spec.start", "no.dots", "", "letters, digits, _ and -"),
    ("spec.desiredState", "running", "", "must be one of Running, Paused, Cancelled, DataDeleted"),
    ("spec.requestedAt", "2026-11-22 22:00:00", "", "must be a time since 1970"),
    ("spec.requestedAt", "2026-11-22t22:00:00z", "", "must be a time since 1970"),
    ("spec.requestedAt", "1969-12-31T23:59:59Z", "", "must be a time since 1970"),
    ("spec.requestedAt", [], "", "must be a string"),
    ("spec.nothing", None, "", "unknown field"),
    ("spec.requestedAt", "2026-13-22T22:00:00Z", "", "must be a time since 1970"),
    ("spec.reason", "x" * 1025, "", "must have at most 1024 characters"),
    ("spec.ttlAfterFinished", 3600, "", "must be a string"),
    ("status.state", "Sleeping", "", "must be one of Initiated, Running"),
]


def parts(path: str) -> list[str | int]:
    out: list[str | int] = []
    while path:
        if path.startswith("[") and "]" in path:
            inner, _, path = path[1:].partition("]")
            out.append(int(inner) if inner.isdigit() else inner)
        else:
            cut = min((i for i in (path.find("."), path.find("[")) if i >= 0), default=len(path))
            out.append(path[:cut])
            path = path[cut:]
        path = path.removeprefix(".")
    return out


def changed(document: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(document)
    *way, last = parts(path)
    inner: Any = document
    for step in way:
        inner = inner.setdefault(step, {}) if isinstance(step, str) else inner[step]
    if value is GONE:
        del inner[last]
    elif isinstance(inner, list) and last == len(inner):
        inner.append(value)
    else:
        inner[last] = value
    return document


def faults(model: type[WorkflowResource | RunResource], document: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(ValidationError) as caught:
        model.model_validate(document)
    return [(problem.path, problem.rule) for problem in problems_of(caught.value)]


def test_the_unchanged_documents_are_sound() -> None:
    WorkflowResource.model_validate(WORKFLOW)
    RunResource.model_validate(RUN)


@pytest.mark.parametrize(("path", "value", "told", "rule"), WORKFLOW_ROWS)
def test_workflow(path: str, value: Any, told: str, rule: str) -> None:
    found = faults(WorkflowResource, changed(WORKFLOW, path, value))
    assert any(where == (told or path) and rule in what for where, what in found), found


@pytest.mark.parametrize(("path", "value", "told", "rule"), RUN_ROWS)
def test_run(path: str, value: Any, told: str, rule: str) -> None:
    found = faults(RunResource, changed(RUN, path, value))
    assert any(where == (told or path) and rule in what for where, what in found), found


def test_one_fault_hides_no_other() -> None:
    document = WORKFLOW
    rows = [
        row
        for row in WORKFLOW_ROWS
        if row[0]
        in {
            f"{TICK}.cron", f"{STEP}.handler.pyton", f"{HTTP}.headers[0].name", "spec.partitions", f"{POD}.volumes",
            f"{CEL}.rules[0].to", "spec.migrations[0].to", f"{WAIT}.timeouts[0].to[0]", "metadata.lables",
        }
    ]  # fmt: skip
    last = {row[0]: row for row in rows}
    for path, value, _, _ in last.values():
        document = changed(document, path, value)
    found = faults(WorkflowResource, document)
    for path, _, told, rule in last.values():
        assert any(where == (told or path) and rule in what for where, what in found), (path, found)


@pytest.mark.parametrize("value", [None, GONE])
def test_null_is_absent_as_it_is_to_the_api_server(value: Any) -> None:
    found = faults(WorkflowResource, changed(WORKFLOW, "spec.start", value))
    assert found == [("spec.start", "is required")]
    absent = WorkflowResource.model_validate(changed(WORKFLOW, "spec.suspend", value))
    assert absent.spec.suspend is False
    terminal = changed(WORKFLOW, "spec.statuses[4].step", None)
    assert WorkflowResource.model_validate(terminal) == WorkflowResource.model_validate(WORKFLOW)


def test_null_in_an_object_of_the_users_stays() -> None:
    run = RunResource.model_validate(changed(RUN, "spec.object", {"claimant": None, "list": [None]}))
    assert run.spec.object == {"claimant": None, "list": [None]}


def test_a_whole_number_may_be_written_with_a_point() -> None:
    assert WorkflowResource.model_validate(changed(WORKFLOW, "spec.partitions", 36.0)).spec.partitions == 36


@pytest.mark.parametrize(
    "cron",
    ["* * * * *", "*/15 0-23/2 1,15 */3 sun", "0  2 * * 7", "59 23 31 DEC Fri-Sat", "05 07 01 01 0", "5-55/10 * * * *"],
)
def test_cron_that_is_accepted(cron: str) -> None:
    WorkflowResource.model_validate(changed(WORKFLOW, f"{TICK}.cron", cron))


@pytest.mark.parametrize(
    "url", ["http://a", "https://a.example:8443/x?y=z", "http://[::1]:80/", "http://10.0.0.1/?q", "https://a?b=c%40d"]
)
def test_urls_that_are_accepted(url: str) -> None:
    WorkflowResource.model_validate(changed(WORKFLOW, f"{HTTP}.url", url))


def test_values_of_secrets_and_objects_are_never_shown() -> None:
    document = changed(WORKFLOW, f"{HTTP}.headers[0]", {"name": "Authorization", "value": "hunter2"})
    document = changed(document, f"{HTTP}.url", "ftp://admin:hunter2@x")
    document = changed(document, f"{POD}.env[0]", {"name": "A", "value": {"hunter2": "hunter2"}, "password": "hunter2"})
    with pytest.raises(ValidationError) as caught:
        WorkflowResource.model_validate(document)
    told = problems_of(caught.value)
    assert len(told) >= 4
    assert "hunter2" not in " ".join(map(str, told))
    assert any(problem.value == "'ftp://***@x'" for problem in told)


@pytest.mark.parametrize("kind", ["python", "cel", "http"])
def test_the_largest_legal_workflow_is_accepted(kind: str) -> None:
    names = [f"S{i:03d}" for i in range(200)]

    def element(i: int) -> dict[str, Any]:
        to = [names[(i + k) % 200] for k in range(32)]
        handlers = {
            "python": {"python": "a.b:c"},
            "cel": {"cel": {"rules": [{"to": name} for name in to]}},
            "http": {"http": {"url": "https://h", "headers": [{"name": f"X-{k}", "value": "v"} for k in range(16)]}},
        }
        return {"handler": handlers[kind], "to": to}

    statuses: list[dict[str, Any]] = [{"name": name, "step": element(i)} for i, name in enumerate(names[:-1])]
    for i, status in enumerate(statuses):
        status["callbacks"] = [{"name": f"c{k}", **element(i)} for k in range(8 if i < 5 else 1)]
        status["timeouts"] = [{"name": f"t{k}", "after": "1h", **element(i)} for k in range(4 if i < 5 else 1)]
    spec = {"start": names[0], "statuses": [*statuses, {"name": names[-1], "terminal": True}]}
    document = {"apiVersion": "stepwell.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": "m"}, "spec": spec}
    assert len(WorkflowResource.model_validate(document).spec.statuses) == 200
    spec["statuses"][7]["step"]["to"][31] = "S200"  # type: ignore[index]
    told = [
        path for path, rule in faults(WorkflowResource, document) if rule.startswith("must be the name of a status")
    ]
    assert told == ["spec.statuses[7].step.to[31]"]


def test_the_full_example_parses_clean() -> None:
    parsed = parse_manifests(FULL.read_text(), "full.yaml")
    assert parsed.problems == ()
    assert [workflow.metadata.name for workflow in parsed.workflows] == ["claims"]
    assert [run.metadata.name for run in parsed.runs] == ["claim-1001"]
    assert parsed.runs[0].spec.requested_at == "2026-11-22T22:00:00Z"


def test_the_full_example_uses_every_field_that_a_person_writes() -> None:
    used: set[tuple[type, str]] = set()
    for model, document in ((WorkflowSpec, WORKFLOW), (RunSpec, RUN)):
        note(root_shape(model), document["spec"], used)
    every = {(owner(model, name), name) for model in {model for model, _ in used} for name in fields(model)}
    assert every - {(owner(model, name), name) for model, name in used} == set()


def note(shape: Shape, raw: Any, used: set[tuple[type, str]]) -> None:
    if shape.form is Form.MODEL:
        for key, value in raw.items():
            used.add((shape.core, key))
            note(fields(shape.core)[key], value, used)
    elif shape.form is Form.LIST and shape.inner is not None:
        for item in raw:
            note(shape.inner, item, used)


def owner(model: type[Model], alias: str) -> type[Model]:
    """The class that declares the field: what several share needs to be shown once."""
    return next(base for base in reversed(model.__mro__) if issubclass(base, Model) and alias in fields(base))
