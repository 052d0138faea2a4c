"""A worker's heart beats in a thread of its own, so that no handler can hold it up; it knows nothing of work.

While the main loop is busy it beats on with the record that it has. A main loop that is silent for too long is as good
as dead and takes a lively heart down with it: the process ends, and says where it hung. If this thread itself stood
still for as long as it takes to be declared dead, all that it knew is doubtful: it says so before anything else.

Everything handed to the main loop is handed over in order, by that loop's own queue.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

from stepwell._engine.settings import MemberSettings
from stepwell.errors import StoreError
from stepwell.ports.membership import Lost, Member, Membership, View

log = logging.getLogger(__name__)

STOOD_STILL = "stood_still"
"""Beside ``Lost``: a reason that is found out without asking."""

_TICK = 1.0
"""Seconds between two looks at the main loop, at most."""
_JOIN_SECONDS = 10.0


@dataclass(frozen=True, kw_only=True)
class Told:
    """A successful beat."""

    view: View
    sent: Member
    """The own record, as this beat wrote it."""
    before: Member | None
    """The own record, as the beat before wrote it: the one that all could read when this view was read."""


@dataclass(frozen=True, kw_only=True)
class Reports:
    """Where the heart reports to. All but the last two are called on the main loop."""

    told: Callable[[Told], None]
    lost: Callable[[str], None]
    """The reason. Nothing is told after it until ``join`` is called."""
    pinged: Callable[[], None]
    """The main loop has its turn; about once a second."""
    failed: Callable[[BaseException], None]
    """The heart itself has failed."""
    silent: Callable[[float], None]
    """On the heart's thread: the main loop was silent for so many seconds. It may well not return."""
    monotonic: Callable[[], float] = time.monotonic


class Heartbeat:
    """Used on the main loop, from ``start`` on."""

    def __init__(self, membership: Membership, reports: Reports, settings: MemberSettings) -> None:
        self._membership = membership
        self._reports = reports
        self._settings = settings
        self._main: asyncio.AbstractEventLoop | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._woken = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="stepwell-heartbeat", daemon=True)
        self._lock = threading.Lock()
        self._own: Member | None = None
        """None: lost, or not joined yet. A loss on one thread must not be overwritten by the other: see ``_lock``."""
        self._before: Member | None = None
        self._graves: deque[str] = deque()
        self._hurried = False
        self._stopping = False
        self._leaves = True
        self._gives_up_first = False
        self._alive_at = reports.monotonic()
        self._main_silence = 0.0
        self._asked = False
        self._failing = False

    @property
    def well(self) -> bool:
        """Whether it is a member, as far as this process can know, and the heart beats; renewals may fail."""
        still = self._reports.monotonic() - self._alive_at
        return self._own is not None and not self._stopping and still <= self._membership.duration

    @property
    def renewing(self) -> bool:
        """Whether the last beat could be stored."""
        return self._before is not None and not self._failing

    def start(self) -> None:
        """Start the thread; it beats once there is a record."""
        self._main = asyncio.get_running_loop()
        self._alive_at = self._reports.monotonic()
        self._thread.start()

    def join(self, own: Member) -> None:
        """Become a member by this record, under a name that was not lost."""
        self._own = own
        self._wake()

    def publish(self, own: Member, *, now: bool) -> None:
        """Have another record from the next beat on, which is at once if it must be; not after a loss."""
        with self._lock:
            if self._own is None or self._own.name != own.name:
                return
            self._own = own
        if now:
            self._wake()

    def hurry(self, *, hurried: bool) -> None:
        """Whether something is awaited that another one will soon let go of."""
        if hurried and not self._hurried:
            self._wake()
        self._hurried = hurried

    def bury(self, name: str) -> None:
        """Bury a dead member with the next beat."""
        self._graves.append(name)

    async def stop(self, *, leave: bool) -> None:
        """Beat no more; ``leave`` gives up the record. Then the thread is gone, unless the driver hangs."""
        self._leaves = leave
        self._stopping = True
        self._wake()
        await asyncio.to_thread(self._thread.join, _JOIN_SECONDS)

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None:
            # Not if it has come to its end just now.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(self._woken.set)

    # From here on: the heart's own thread.

    def _run(self) -> None:
        try:
            asyncio.run(self._live())
        except BaseException as error:  # noqa: BLE001  (whatever it is, the main loop must know)
            self._tell(partial(self._reports.failed, error))

    async def _live(self) -> None:
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.TaskGroup() as group:
                watch = group.create_task(self._watch())
                while not self._stopping:
                    self._woken.clear()
                    await self._rest(await self._beat())
                watch.cancel()
            if self._leaves:
                await self._leave()
        finally:
            await self._membership.close()

    async def _rest(self, seconds: float) -> None:
        # A short while in any case: what is struck off one by one is published together.
        await asyncio.sleep(self._settings.spacing)
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, seconds - self._settings.spacing)):
                await self._woken.wait()

    async def _beat(self) -> float:
        """One beat; returns the seconds until the next one."""
        self._check_that_time_passes()
        own = self._own
        if own is None:
            return self._membership.interval
        try:
            if self._gives_up_first:
                self._gives_up_first = False
                await self._membership.leave()
            answer = await self._membership.beat(own)
        except StoreError as error:
            self._note_trouble(error)
            return min(self._settings.hurried, self._membership.interval)
        self._check_that_time_passes()
        if self._own is None or self._own.name != own.name:
            # It was lost meanwhile: whatever was read may be from before this thread stood still.
            return 0.0
        self._note_recovery()
        if isinstance(answer, Lost):
            self._lose(answer)
            return 0.0
        told = Told(view=answer, sent=own, before=self._before)
        self._before = own
        self._tell(partial(self._reports.told, told))
        await self._dig()
        pace = self._settings.hurried if self._hurried else self._membership.interval
        return min(pace, self._membership.interval, answer.look_within)

    async def _dig(self) -> None:
        # One that cannot be buried now is found again by the next view.
        with suppress(StoreError):
            while self._graves:
                name = self._graves.popleft()
                await self._membership.bury(name)
                log.info("dead member buried", extra={"action": "member_buried", "member": name})

    async def _leave(self) -> None:
        try:
            await self._membership.leave()
        except StoreError as error:
            log.warning("membership is not given up", extra={"action": "leave_failed", "error": str(error)})

    async def _watch(self) -> None:
        tick = min(_TICK, self._membership.duration / 8)
        last = self._reports.monotonic()
        while True:
            await asyncio.sleep(tick)
            self._check_that_time_passes()
            now = self._reports.monotonic()
            # While this thread stood still the main loop may have stood still with it: that is nobody's fault.
            self._main_silence += min(now - last, 2 * tick)
            last = now
            if self._main_silence > self._settings.silent_after:
                self._reports.silent(self._main_silence)
                self._main_silence = 0.0
            if not self._asked:
                self._asked = True
                self._tell(self._pong)

    def _pong(self) -> None:
        """On the main loop."""
        self._asked, self._main_silence = False, 0.0
        self._reports.pinged()

    def _check_that_time_passes(self) -> None:
        now = self._reports.monotonic()
        still, self._alive_at = now - self._alive_at, now
        if still > self._membership.duration and self._own is not None:
            log.warning("stood still", extra={"action": "stood_still", "seconds": round(still, 1)})
            # The record may still be good, but what it lists is not held any more when the next one is written.
            self._gives_up_first = True
            self._lose(STOOD_STILL)

    def _lose(self, reason: str) -> None:
        with self._lock:
            self._own = self._before = None
        self._tell(partial(self._reports.lost, reason))

    def _note_trouble(self, error: StoreError) -> None:
        if not self._failing:
            log.warning(
                "membership cannot be renewed: nothing new is taken meanwhile, and nobody declared dead",
                extra={"action": "membership_unavailable", "error": str(error)},
            )
        self._failing = True

    def _note_recovery(self) -> None:
        if self._failing:
            log.info("membership is renewed again", extra={"action": "membership_available"})
        self._failing = False

    def _tell(self, call: Callable[[], None]) -> None:
        assert self._main is not None  # noqa: S101  (``start`` has set it)
        try:
            self._main.call_soon_threadsafe(call)
        except RuntimeError:
            # The main loop is closed: there is nobody left to beat for.
            self._stopping, self._leaves = True, False
            self._woken.set()
