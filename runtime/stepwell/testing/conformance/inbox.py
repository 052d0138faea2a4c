"""A callback is applied once, by the move that settles it, or refused; its payload is gone with its outcome."""
# ruff: noqa: D101, D102, PLR2004, S101  (a test's name is its sentence, its numbers are its facts)

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

import pytest

from stepwell._domain.ids import InboxID
from stepwell._domain.outcomes import (
    Answer,
    ByCallback,
    Cancel,
    DeleteData,
    Fails,
    Failure,
    Pause,
    Resume,
    Saves,
    Skips,
)
from stepwell._domain.record import CallbackState, EventKind, InboxRow, Record, RefusalReason, Settlement
from stepwell._domain.states import PauseCode
from stepwell.ports.store import Accepted, CallbackStatus, RecordStore, RunQuery
from stepwell.testing.conformance.base import StoreSuite
from stepwell.testing.conformance.builders import NAMESPACE, OBJECT, Desk, definition, event_keys, new_id

Reopen = Callable[[], Awaitable[RecordStore]]
PENDING = CallbackStatus(state=CallbackState.PENDING)
APPLIED = CallbackStatus(state=CallbackState.APPLIED)
OVER = CallbackStatus(state=CallbackState.REFUSED, refusal=RefusalReason.RUN_FINISHED)
WRONG = Settlement(
    inbox_id=InboxID(""), state=CallbackState.REFUSED, refusal=RefusalReason.WRONG_STATUS, detail="it is in Created"
)


async def accepted(desk: Desk, record: Record, name: str = "reviewed") -> InboxRow:
    """A callback that is stored and pending."""
    row = desk.callback(record, name)
    assert await desk.store.accept(row) == Accepted(inbox_id=row.inbox_id, run_id=record.run_id)
    return row


class AcceptSuite(StoreSuite):
    async def test_an_accepted_callback_survives_a_crash_with_its_event(self, desk: Desk, reopen: Reopen) -> None:
        record = await desk.start("Review")
        await desk.new_events()
        payload = '{"by":"Žofie 😀"}'.encode()
        row = desk.callback(record, payload=payload, request_id="request 1")
        assert await desk.store.accept(row) == Accepted(inbox_id=row.inbox_id, run_id=record.run_id)
        store = await reopen()
        (waiting,) = await store.waiting(record.run_id)
        assert replace(waiting, next_at=None) == row
        assert await store.callback_status(row.inbox_id) == PENDING
        (event,) = await desk.new_events()
        assert (event.kind, event.name, event.run_id) == (EventKind.CALLBACK, row.inbox_id, record.run_id)
        assert await desk.read(record.run_id) == record, "the run itself has not moved"

    async def test_callbacks_wait_in_the_order_in_which_they_were_stored(self, desk: Desk, second: RecordStore) -> None:
        record, other = await desk.start("Review"), await desk.start("Review")
        rows = [desk.callback(record, ("reviewed", "noted")[n % 2]) for n in range(6)][::-1]
        for n, row in enumerate(rows):
            await (desk.store, second)[n % 2].accept(row)
            await accepted(desk, other)
        assert [row.inbox_id for row in await second.waiting(record.run_id)] == [row.inbox_id for row in rows]

    async def test_a_callback_may_come_before_the_status_that_waits_for_it(self, desk: Desk) -> None:
        record = await desk.start()
        row = await accepted(desk, record)
        await desk.new_events()
        await desk.go(record, "Review")
        woken = [event for event in await desk.new_events() if event.kind is EventKind.CALLBACK]
        assert [event.name for event in woken] == [row.inbox_id]

    @pytest.mark.parametrize("ending", ["Done", "cancel", "delete"])
    async def test_a_finished_run_refuses_at_the_door(self, desk: Desk, ending: str) -> None:
        record = await desk.start()
        record = await (desk.wish(record, Cancel(actor="sdk")) if ending == "cancel" else desk.go(record, "Done"))
        if ending == "delete":
            record = await desk.wish(record, DeleteData(actor="sdk"))
        await desk.new_events()
        row = desk.callback(record)
        answer = await desk.store.accept(row)
        assert answer == Accepted(inbox_id=row.inbox_id, run_id=record.run_id, refusal=RefusalReason.RUN_FINISHED)
        assert list(await desk.store.waiting(record.run_id)) == []
        assert await desk.new_events() == []

    async def test_a_paused_run_accepts(self, desk: Desk) -> None:
        record = await desk.wish(await desk.start("Review"), Pause(actor="sdk"))
        row = await accepted(desk, record)
        assert [waiting.inbox_id for waiting in await desk.store.waiting(record.run_id)] == [row.inbox_id]

    async def test_a_request_id_answers_with_the_first_receipt(self, desk: Desk, reopen: Reopen) -> None:
        record, other = await desk.start("Review"), await desk.start("Review")
        first = desk.callback(record, request_id="request 1")
        receipt = Accepted(inbox_id=first.inbox_id, run_id=record.run_id)
        assert await desk.store.accept(first) == receipt
        await desk.new_events()
        repeated = replace(receipt, repeated=True)
        assert await desk.store.accept(desk.callback(record, request_id="request 1")) == repeated
        assert await desk.store.accept(desk.callback(other, request_id="request 1")) == repeated, (
            "a key of the workflow"
        )
        assert (list(await desk.store.waiting(other.run_id)), await desk.new_events()) == ([], [])
        await desk.store_it(desk.called_back(record, first.inbox_id))
        await reopen()
        assert await desk.store.accept(desk.callback(record, request_id="request 1")) == repeated, "after its outcome"
        assert list(await desk.store.waiting(record.run_id)) == []

    async def test_a_request_id_is_of_one_workflow(self, desk: Desk) -> None:
        await desk.store.accept(desk.callback(await desk.start("Review"), request_id="request 1"))
        desk.workflow = definition("returns")
        row = desk.callback(await desk.start("Review"), request_id="request 1")
        assert await desk.store.accept(row) == Accepted(inbox_id=row.inbox_id, run_id=row.run_id)

    async def test_callbacks_without_a_request_id_are_all_different(self, desk: Desk) -> None:
        record = await desk.start("Review")
        for _ in range(3):
            await accepted(desk, record)
        assert len(await desk.store.waiting(record.run_id)) == 3

    async def test_nothing_is_known_of_what_was_never_accepted(self, desk: Desk) -> None:
        record = await desk.start("Review")
        unknown = InboxID(new_id(desk.now))
        assert await desk.store.callback_status(unknown) is None
        assert await desk.store.settle(replace(WRONG, inbox_id=unknown)) is False
        lost = desk.called_back(record, unknown)
        assert list(await desk.store.advance([lost])) == [None]
        assert await desk.read(record.run_id) == record


class SettleSuite(StoreSuite):
    async def test_the_move_that_it_makes_settles_it(self, desk: Desk) -> None:
        record = await desk.start("Review")
        row = await accepted(desk, record)
        await desk.store_it(desk.called_back(record, row.inbox_id, "Created"))
        assert await desk.store.callback_status(row.inbox_id) == APPLIED
        assert list(await desk.store.waiting(record.run_id)) == []

    async def test_a_move_whose_callback_was_settled_elsewhere_is_lost_whole(self, desk: Desk) -> None:
        record = await desk.start("Review")
        row = await accepted(desk, record)
        assert await desk.store.settle(replace(WRONG, inbox_id=row.inbox_id))
        await desk.new_events()
        timers = await desk.store.timers(record.run_id)
        late = replace(desk.called_back(record, row.inbox_id, "Created"), starts=(desk.request(),))
        assert list(await desk.store.advance([late])) == [None]
        assert await desk.read(record.run_id) == record
        assert len(await desk.store.history(record.run_id)) == 1
        assert list(await desk.store.timers(record.run_id)) == timers
        assert list(await desk.store.requested_starts(record.run_id, 2)) == []
        assert await desk.new_events() == []

    async def test_a_lost_settlement_fails_no_other_decision(self, desk: Desk) -> None:
        records = [await desk.start("Review") for _ in range(9)]
        rows = [await accepted(desk, record) for record in records]
        for row in rows[::3]:
            await desk.store.settle(replace(WRONG, inbox_id=row.inbox_id))
        moves = [desk.called_back(record, row.inbox_id) for record, row in zip(records, rows, strict=True)]
        answers = await desk.store.advance(moves)
        assert [answer is None for answer in answers] == [n % 3 == 0 for n in range(9)]

    async def test_a_callback_is_settled_once(self, desk: Desk, second: RecordStore) -> None:
        row = await accepted(desk, await desk.start("Review"))
        settlement = replace(WRONG, inbox_id=row.inbox_id)
        assert await desk.store.settle(settlement) is True
        assert await second.settle(replace(settlement, detail="another")) is False
        status = CallbackStatus(
            state=CallbackState.REFUSED, refusal=RefusalReason.WRONG_STATUS, detail="it is in Created"
        )
        assert await second.callback_status(row.inbox_id) == status

    async def test_a_handler_that_skips_or_refuses_settles_without_a_move(self, desk: Desk) -> None:
        record = await desk.start("Review")
        for answer, state in (
            (Skips(), CallbackState.APPLIED),
            (Fails(failure=_NO, pause=PauseCode.PERMANENT_ERROR), CallbackState.REFUSED),
        ):
            row = await accepted(desk, record)
            cause = ByCallback(name="reviewed", inbox_id=row.inbox_id)
            assert await desk.store_it(desk.decision(record, answer, cause)) == record
            status = await desk.store.callback_status(row.inbox_id)
            assert status is not None
            assert status.state is state
        assert len(await desk.store.history(record.run_id)) == 1

    @pytest.mark.parametrize("ending", ["Done", "cancel"])
    async def test_an_end_refuses_all_that_is_pending(self, desk: Desk, ending: str) -> None:
        record, other = await desk.start("Review"), await desk.start("Review")
        rows = [await accepted(desk, record, name) for name in ("reviewed", "noted", "reviewed")]
        kept = await accepted(desk, other)
        await (desk.wish(record, Cancel(actor="sdk")) if ending == "cancel" else desk.go(record, "Done"))
        assert [await desk.store.callback_status(row.inbox_id) for row in rows] == [OVER] * 3
        assert list(await desk.store.waiting(record.run_id)) == []
        assert await desk.store.callback_status(kept.inbox_id) == PENDING

    async def test_the_callback_that_ends_a_run_is_applied_and_the_others_refused(self, desk: Desk) -> None:
        record = await desk.start("Review")
        before, row, after = [await accepted(desk, record) for _ in range(3)]
        await desk.store_it(desk.called_back(record, row.inbox_id, "Done"))
        statuses = [await desk.store.callback_status(each.inbox_id) for each in (before, row, after)]
        assert statuses == [OVER, APPLIED, OVER]

    async def test_what_was_settled_stays_so_when_the_run_ends(self, desk: Desk) -> None:
        record = await desk.start("Review")
        row = await accepted(desk, record)
        record = await desk.store_it(desk.called_back(record, row.inbox_id, "Review"))
        await desk.go(record, "Done")
        assert await desk.store.callback_status(row.inbox_id) == APPLIED


class WakeSuite(StoreSuite):
    async def test_entering_wakes_the_oldest_callback_only_if_there_is_one(self, desk: Desk) -> None:
        record, quiet = await desk.start(), await desk.start()
        rows = [await accepted(desk, record) for _ in range(3)]
        await desk.new_events()
        await desk.go(record, "Review")
        await desk.go(quiet, "Review")
        woken = [event for event in await desk.new_events() if event.kind is EventKind.CALLBACK]
        assert [(event.run_id, event.name) for event in woken] == [(record.run_id, rows[0].inbox_id)]

    async def test_each_outcome_wakes_the_next(self, desk: Desk) -> None:
        record = await desk.start("Review")
        rows = [await accepted(desk, record) for _ in range(4)]
        answers: tuple[Answer, ...] = (
            Saves(object=OBJECT),
            Skips(),
            Fails(failure=_NO, pause=PauseCode.PERMANENT_ERROR),
        )
        for n, answer in enumerate(answers):
            await desk.new_events()
            cause = ByCallback(name="reviewed", inbox_id=rows[n].inbox_id)
            record = await desk.store_it(desk.decision(record, answer, cause))
            woken = [event.name for event in await desk.new_events() if event.kind is EventKind.CALLBACK]
            assert woken == [rows[n + 1].inbox_id]

    async def test_a_resume_wakes_what_came_meanwhile(self, desk: Desk) -> None:
        record = await desk.wish(await desk.start("Review"), Pause(actor="sdk"))
        row = await accepted(desk, record)
        await desk.new_events()
        await desk.wish(record, Resume(actor="sdk"))
        assert [key for key in event_keys(await desk.new_events()) if key[0] is EventKind.CALLBACK] == [
            (EventKind.CALLBACK, 3, row.inbox_id)
        ]

    async def test_a_settled_callback_is_not_woken(self, desk: Desk) -> None:
        record = await desk.start()
        row = await accepted(desk, record)
        await desk.store.settle(replace(WRONG, inbox_id=row.inbox_id))
        await desk.new_events()
        await desk.go(record, "Review")
        assert EventKind.CALLBACK not in {event.kind for event in await desk.new_events()}


class ErasureSuite(StoreSuite):
    async def test_no_verb_tells_what_was_erased(self, desk: Desk, reopen: Reopen) -> None:
        record = await desk.start("Review", stored=b'{"card":"4111-SECRET"}')
        applied = desk.callback(record, payload=b'"4111-SECRET"', request_id="r")
        refused = desk.callback(record, payload=b'"4111-SECRET"')
        pending = desk.callback(record, payload=b'"4111-SECRET"')
        for row in (applied, refused, pending):
            await desk.store.accept(row)
        await desk.store.settle(replace(WRONG, inbox_id=refused.inbox_id, detail="4111-SECRET"))
        record = await desk.store_it(desk.called_back(record, applied.inbox_id, "Created"))
        record = await desk.store_it(desk.decision(record, Fails(failure=_NO)))
        record = await desk.wish(record, Pause(actor="sdk", reason="4111-SECRET"))
        record = await desk.wish(record, Cancel(actor="sdk", reason="4111-SECRET"))
        record = await desk.wish(record, DeleteData(actor="sdk", reason="4111-SECRET"))
        record = await desk.erase(record)
        await reopen()
        assert "SECRET" not in await _all_that_is_told(desk, record, [applied, refused, pending])
        assert (await desk.read(record.run_id)).object == b"{}"
        assert len(await desk.store.history(record.run_id)) == record.version, "what happened is still told"

    async def test_only_the_erased_run_is_erased(self, desk: Desk) -> None:
        kept = await desk.fail(await desk.start(stored=b'{"card":"1"}'))
        kept = await desk.wish(kept, Pause(actor="sdk", reason="kept"))
        history = await desk.store.history(kept.run_id)
        gone = await desk.go(await desk.start(), "Done")
        await desk.erase(await desk.wish(gone, DeleteData(actor="sdk")))
        assert await desk.read(kept.run_id) == kept
        assert list(await desk.store.history(kept.run_id)) == history


class InboxSuite(AcceptSuite, SettleSuite, WakeSuite, ErasureSuite):
    """Callbacks, and what is left of them."""


_NO = Failure(kind="ValueError", message="4111-SECRET")


async def _all_that_is_told(desk: Desk, record: Record, rows: Sequence[InboxRow]) -> str:
    """Everything that any verb of the store answers about this run."""
    store = desk.store
    told: list[object] = [
        await store.load([record.run_id]),
        await store.find(NAMESPACE, record.workflow, record.foreign_id),
        await store.list(RunQuery(namespace=NAMESPACE)),
        await store.history(record.run_id),
        await store.waiting(record.run_id),
        await store.timers(record.run_id),
        await store.hooks(record.run_id),
        await store.counts(NAMESPACE),
        *[await store.requested_starts(record.run_id, version) for version in range(record.version + 1)],
        *[await store.callback_status(row.inbox_id) for row in rows],
        await store.accept(desk.callback(record, request_id="r")),
        await desk.backend.events(),
    ]
    return repr(told)
