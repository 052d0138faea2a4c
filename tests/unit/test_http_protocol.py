from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stepwell._domain.http_protocol import (
    Goes,
    HttpOutcome,
    Parks,
    Retries,
    RunFacts,
    Skips,
    build_request,
    read_answer,
)
from stepwell._domain.ids import ForeignID, RunID

NOW = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


def facts(obj: bytes = b'{"total":42}', foreign_id: str = "1001") -> RunFacts:
    return RunFacts(
        id=RunID("0193-run"),
        foreign_id=ForeignID(foreign_id),
        workflow="orders",
        status="Paid",
        version=3,
        attempt=2,
        object=obj,
    )


def read(
    status: int, body: bytes = b"", *, truncated: bool = False, to: tuple[str, ...] = ("Picked", "Lost"), **headers: str
) -> HttpOutcome:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return read_answer(status, named, body, truncated=truncated, to=to, now=NOW)


# The request


def test_a_request() -> None:
    headers, body = build_request(facts(), key="0193-run/3", headers={"Authorization": "Bearer x"})
    assert headers == {
        "Authorization": "Bearer x",
        "Content-Type": "application/json",
        "Idempotency-Key": "0193-run/3",
    }
    assert json.loads(body) == {
        "run": {
            "id": "0193-run",
            "foreignID": "1001",
            "workflow": "orders",
            "status": "Paid",
            "version": 3,
            "attempt": 2,
            "object": {"total": 42},
        }
    }


def test_the_object_and_the_payload_are_sent_as_they_are() -> None:
    exact = '{"a" : 1.10, "b":12345678901234567890123,"é":"\\u00e9"}'.encode()
    _, body = build_request(facts(exact), key="k", payload=b'[1.0,"x"]')
    assert b'"object":' + exact + b"}" in body
    assert body.endswith(b',"payload":[1.0,"x"]}')
    assert json.loads(body)["payload"] == [1.0, "x"]


def test_a_payload_of_null_is_a_payload() -> None:
    assert json.loads(build_request(facts(), key="k", payload=b"null")[1])["payload"] is None
    assert "payload" not in json.loads(build_request(facts(), key="k")[1])


@given(st.text(st.characters(exclude_categories=["Cs"])), st.dictionaries(st.text(), st.integers() | st.text()))
def test_any_foreign_id_and_object_make_valid_json(foreign_id: str, obj: dict[str, object]) -> None:
    _, body = build_request(facts(json.dumps(obj).encode(), foreign_id), key="k")
    assert (json.loads(body)["run"]["foreignID"], json.loads(body)["run"]["object"]) == (foreign_id, obj)


def test_headers_of_the_protocol_cannot_be_replaced() -> None:
    mine = {
        "content-type": "text/plain",
        "idempotency-key": "mine",
        "HOST": "evil.example",
        "Content-Length": "1",
        "Transfer-Encoding": "chunked",
        "TraceParent": "x",
        "X-Team": "shop",
    }
    headers, _ = build_request(facts(), key="k", headers=mine)
    assert headers == {"X-Team": "shop", "Content-Type": "application/json", "Idempotency-Key": "k"}


def test_traceparent() -> None:
    good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    assert build_request(facts(), key="k", traceparent=good)[0]["traceparent"] == good
    for bad in ("", "00-x", good + "\r\nX: y", good.upper()):
        assert "traceparent" not in build_request(facts(), key="k", traceparent=bad)[0]


@pytest.mark.parametrize("key", ["", "a b", "a\r\nX: y", "é", "a\x7f"])
def test_a_key_that_no_header_can_carry(key: str) -> None:
    with pytest.raises(ValueError, match="idempotency key"):
        build_request(facts(), key=key)


# 200


def test_where_the_run_goes() -> None:
    assert read(200, b'{"status":"Picked"}') == Goes(status="Picked")
    assert read(200, b'\xef\xbb\xbf {"status":"Lost","object":{"n":1.5,"t":"\xc3\xa9"},"more":1}') == Goes(
        status="Lost", object='{"n":1.5,"t":"é"}'.encode()
    )
    assert read(200, b'{"status":"Picked","object":{}}') == Goes(status="Picked", object=b"{}")
    assert read(200, b'{"status":"Picked","object":null,"skip":null}') == Goes(status="Picked")
    assert read(200, b'{"status":"Picked","skip":false}') == Goes(status="Picked")


def test_skip() -> None:
    assert read(200, b'{"skip":true}') == Skips()
    assert read(200, b'{"skip":true,"status":null,"object":null}') == Skips()


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (b"", "the body is not a JSON object"),
        (b"{", "the body is not a JSON object"),
        (b"secret", "the body is not a JSON object"),
        (b"\xff\xfe", "the body is not a JSON object"),
        (b'["secret"]', "the body is not a JSON object"),
        (b"null", "the body is not a JSON object"),
        (b"[" * 200_000, "the body is not a JSON object"),
        (b'{"status":' + b"9" * 5000 + b"}", "the body is not a JSON object"),
        (b"{}", "with `status`, a string, or with `skip`, true"),
        (b'{"status":1}', "with `status`, a string"),
        (b'{"status":["Picked"]}', "with `status`, a string"),
        (b'{"status":"secret"}', "its `status` is not one of Picked, Lost"),
        (b'{"status":"picked"}', "its `status` is not one of Picked, Lost"),
        (b'{"status":"Picked","object":["secret"]}', "its `object` must be a JSON object"),
        (b'{"status":"Picked","object":"secret"}', "its `object` must be a JSON object"),
        (b'{"status":"Picked","object":{"a":NaN}}', "NaN, which is not JSON"),
        (b'{"status":"Picked","object":{"a":-Infinity}}', "-Infinity, which is not JSON"),
        (b'{"status":"Picked","object":{"a":1e999}}', "a number that is too large"),
        (b'{"status":"Picked","object":{"a":"\\ud800"}}', "half of a surrogate pair"),
        (b'{"skip":1}', "`skip` must be true or false"),
        (b'{"skip":"yes","status":"Picked"}', "`skip` must be true or false"),
        (b'{"skip":true,"status":"Picked"}', "`skip` changes nothing"),
        (b'{"skip":true,"object":{"a":1}}', "`skip` changes nothing"),
    ],
)
def test_a_200_that_says_nothing_clear_is_a_failed_attempt(body: bytes, told: str) -> None:
    outcome = read(200, body)
    assert isinstance(outcome, Retries)
    assert outcome.delay is None
    assert told in outcome.reason
    assert "secret" not in outcome.reason


def test_a_body_that_was_cut_is_not_read() -> None:
    assert read(200, b'{"status":"Picked"}', truncated=True) == Retries(reason="answered 200: the body is too large")


@given(st.binary(max_size=200))
def test_any_body_has_one_meaning(body: bytes) -> None:
    assert isinstance(read(200, body), Retries | Goes | Skips)


# Other codes


@pytest.mark.parametrize("status", [201, 202, 204, 206])
def test_other_successes_say_nothing(status: int) -> None:
    outcome = read(status, b'{"status":"Picked"}', Retry_After="9")
    assert isinstance(outcome, Retries)
    assert (outcome.delay, "only 200" in outcome.reason) == (None, True)


@pytest.mark.parametrize("status", [301, 302, 303, 304, 307, 308])
def test_redirects_pause(status: int) -> None:
    outcome = read(status, b"secret", Location="https://elsewhere.example/?token=secret")
    assert isinstance(outcome, Parks)
    assert "redirects are not followed" in outcome.reason
    assert "secret" not in outcome.reason


@pytest.mark.parametrize("status", [409, 429, 500, 502, 503, 504, 599])
def test_what_is_tried_again(status: int) -> None:
    outcome = read(status, b"secret")
    assert isinstance(outcome, Retries)
    assert outcome.delay is None
    assert str(status) in outcome.reason
    assert "secret" not in outcome.reason


@pytest.mark.parametrize("status", [400, 401, 403, 404, 405, 408, 410, 413, 418, 422, 425, 451, 499])
def test_what_pauses(status: int) -> None:
    outcome = read(status, b"no such order", Retry_After="5")
    assert isinstance(outcome, Parks)
    assert outcome.reason.startswith(f"answered {status}")
    assert outcome.reason.endswith(": no such order")


def test_the_reason_is_the_first_2_kib_as_text() -> None:
    outcome = read(422, "é".encode() * 1023 + b"a" + "é".encode())
    assert outcome == Parks(reason=f"answered 422 {'Unprocessable Entity'}: {'é' * 1023}a")
    assert read(404, b"line\x00\x1b[31m\nnext\r\n") == Parks(reason="answered 404 Not Found: line  [31m\nnext")
    assert read(404, b" \r\n") == Parks(reason="answered 404 Not Found")
    assert read(499, b"\xff\xfex") == Parks(reason="answered 499: \N{REPLACEMENT CHARACTER}\N{REPLACEMENT CHARACTER}x")


@pytest.mark.parametrize("status", [429, 409, 503])
@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("3", timedelta(seconds=3)),
        (" 120 ", timedelta(minutes=2)),
        ("000000000000007", timedelta(seconds=7)),
        ("86400", timedelta(hours=24)),
        ("86401", timedelta(hours=24)),
        ("9" * 5000, timedelta(hours=24)),
        ("Sun, 01 Mar 2026 12:00:30 GMT", timedelta(seconds=30)),
        ("Sunday, 01-Mar-26 12:00:30 GMT", timedelta(seconds=30)),
        ("Sun Mar  1 12:00:30 2026", timedelta(seconds=30)),
        ("Sun, 01 Mar 2026 12:01:00 -0000", timedelta(minutes=1)),
        ("Sun, 01 Mar 2027 12:00:00 GMT", timedelta(hours=24)),
        ("Sun, 01 Mar 2026 11:59:59 GMT", None),
        ("0", None),
        ("-5", None),
        ("1.5", None),
        ("٣", None),
        ("soon", None),
        ("", None),
        ("Sun, 99 Mar 2026 12:00:30 GMT", None),
    ],
)
def test_retry_after(status: int, text: str, delay: timedelta | None) -> None:
    for name in ("Retry-After", "retry-after"):
        outcome = read_answer(status, {name: text}, b"", truncated=False, to=("Picked",), now=NOW)
        assert isinstance(outcome, Retries)
        assert outcome.delay == delay


@given(st.integers(100, 999), st.text(max_size=40), st.binary(max_size=40))
def test_every_answer_means_something(status: int, retry_after: str, body: bytes) -> None:
    outcome = read(status, body, Retry_After=retry_after)
    if isinstance(outcome, Retries) and outcome.delay is not None:
        assert timedelta(0) < outcome.delay <= timedelta(hours=24)
    assert isinstance(outcome, Goes | Skips) <= (status == 200)
