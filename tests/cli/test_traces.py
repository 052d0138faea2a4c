"""``--tracing`` sends spans by OTLP over HTTP to where OpenTelemetry's own variables say: to a collector, made here."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from tests.cli.support import FLOWS, Ended, lines, running, stopped, until

EXPORT_SECONDS = 10
"""For how long the exporter tries to get rid of spans, unless ``OTEL_EXPORTER_OTLP_TIMEOUT`` says otherwise."""


@dataclass
class Collector:
    url: str = ""
    paths: set[str] = field(default_factory=set)
    services: set[str] = field(default_factory=set)
    spans: list[Span] = field(default_factory=list)

    def received(self, path: str, body: bytes) -> None:
        self.paths.add(path)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(told["service.name"])
            self.spans.extend(span for scope in resource.scope_spans for span in scope.spans)

    def named(self, name: str) -> list[dict[str, str | int]]:
        """The attributes of each span of this name."""
        return [
            {pair.key: pair.value.string_value or pair.value.int_value for pair in span.attributes}
            for span in self.spans
            if span.name == name
        ]


@contextmanager
def collecting() -> Iterator[Collector]:
    found = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            found.received(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing is told."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found.url = f"http://127.0.0.1:{server.server_port}"
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        serving.start()
        try:
            yield found
        finally:
            server.shutdown()
            serving.join()


@pytest.fixture
def here(tmp_path: Path) -> Path:
    shutil.copy(FLOWS / "parcel_flow.py", tmp_path)
    lines(
        tmp_path / "t.jsonl",
        [
            {"foreignID": "customer-7", "object": {"grams": 1}},
            {"foreignID": "customer-8", "object": {"grams": 1, "fail": "once"}},
        ],
    )
    return tmp_path


def worked(here: Path, *extra: str) -> Ended:
    with running("dev", "-f", "parcel_flow:wf", "--trigger", "t.jsonl", *extra, cwd=here) as process:
        assert process.stdout is not None
        until(lambda: "2 completed" in process.stdout.readline(), "both parcels")
        return stopped(process)


def test_the_spans_of_a_run_reach_a_collector(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OTEL_SERVICE_NAME", raising=False)
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        assert worked(here, "--tracing").code == 0
        # What was left is sent as the process ends, so all is here.
        assert (collector.paths, collector.services) == ({"/v1/traces"}, {"stepwell"})
        triggers, attempts = collector.named("stepwell.trigger"), collector.named("stepwell.attempt")
        assert [span["stepwell.workflow"] for span in triggers] == ["parcels", "parcels"]
        assert sorted(
            (str(span["stepwell.status"]), str(span["stepwell.outcome"]), str(span.get("error.type", "")))
            for span in attempts
        ) == [
            ("New", "failed", "ConnectionError"),
            ("New", "moved", ""),
            ("New", "moved", ""),
            ("Weighed", "moved", ""),
            ("Weighed", "moved", ""),
        ]
        by_trace: dict[bytes, set[object]] = {}
        for span in collector.spans:
            of = {pair.key: pair.value.string_value for pair in span.attributes}
            by_trace.setdefault(span.trace_id, set()).add(of["stepwell.run.id"])
        assert [len(runs) for runs in by_trace.values()] == [1, 1], "all of a run is in one trace"
        assert not any(b"customer-" in span.SerializeToString() for span in collector.spans)


def test_its_name_is_what_opentelemetrys_own_variable_says(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "parcel-office")
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        assert worked(here, "--tracing").code == 0
        assert collector.services == {"parcel-office"}


def test_a_collector_that_is_away_costs_spans_and_nothing_else(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    begun = time.monotonic()
    ended = worked(here, "--tracing")
    assert ended.code == 0
    assert "Failed to export spans" in ended.err
    assert "2 runs = 2 completed + 0 cancelled + 0 paused + 0 waiting" in ended.out
    assert time.monotonic() - begun < EXPORT_SECONDS, "it kept on trying for longer than it was told"


def test_nothing_is_sent_unless_it_is_asked_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        assert worked(here).code == 0
        assert collector.paths == set()
