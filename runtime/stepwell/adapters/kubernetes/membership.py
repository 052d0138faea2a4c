"""One Lease per worker: a renewal and a declaration of death change one version of it, so one of them is first.

What its holder's clock says is compared with nothing: a Lease whose renewal time did not change for its duration, while
this process looked on, has run out. The client blocks, so all of it is done in one thread, one thing after another.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from stepwell._domain.silence import Sign
from stepwell.adapters.kubernetes.connection import Access
from stepwell.adapters.kubernetes.leases import AbsentError, ConflictError, Found, Leases
from stepwell.errors import StoreUnavailableError
from stepwell.ports.membership import Lost, Member, View, silence

T = TypeVar("T")

INTERVAL = 3.0
DURATION = 10.0

_TRIES = 3
"""For a change that somebody else's change of another kind gets in the way of (``kubectl annotate``)."""


class LeaseMembership:
    """Implements ``Membership`` by Leases. ``installation`` tells several in one namespace apart; a label's value.

    ``monotonic`` gives the seconds by which silence is measured.
    """

    def __init__(
        self,
        access: Access,
        namespace: str,
        installation: str,
        *,
        interval: float = INTERVAL,
        duration: float = DURATION,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.interval = interval
        self.duration = duration
        # Two requests make a beat. A third one (somebody died, somebody interfered) is still within the interval.
        self._leases = Leases(access, namespace, installation, duration=duration, timeout=0.3 * interval)
        self._monotonic = monotonic
        self._token = secrets.token_hex(4)
        self._silence = silence(interval, duration)
        self._own: Found | None = None
        self._lost: tuple[str, Lost] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="stepwell-leases")

    async def beat(self, own: Member) -> View | Lost:
        """Renew the Lease, then list all; see ``Membership.beat``."""
        return await self._do(lambda: self._beat(own))

    async def bury(self, name: str) -> None:
        """Delete the Lease of a dead worker."""
        await self._do(lambda: self._bury(name))

    async def leave(self) -> None:
        """Delete the own Lease."""
        await self._do(self._leave)

    async def close(self) -> None:
        """Let go of the connections."""
        self._thread.shutdown(wait=False, cancel_futures=True)
        self._leases.close()

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _beat(self, own: Member) -> View | Lost:
        if self._lost is not None and self._lost[0] == own.name:
            return self._lost[1]
        written = self._renewed(own) if self._own is not None and self._own.name == own.name else self._joined(own)
        if isinstance(written, Lost):
            self._own, self._lost = None, (own.name, written)
            return written
        self._own = written
        return self._view(own, self._leases.list())

    def _joined(self, own: Member) -> Found | Lost:
        try:
            return self._leases.create(own, f"{own.name}_{self._token}")
        except ConflictError:
            found = self._leases.read(own.name)
        if found is None:
            raise StoreUnavailableError(f"Lease {own.name}: it was there and is not: try again")
        # It is ours if the answer to a first try was lost.
        return self._trouble(found) or self._renewed_from(own, found)

    def _renewed(self, own: Member) -> Found | Lost:
        assert self._own is not None  # noqa: S101  (``_beat`` has looked)
        return self._renewed_from(own, self._own)

    def _renewed_from(self, own: Member, found: Found) -> Found | Lost:
        for _ in range(_TRIES):
            try:
                return self._leases.renew(own, found.version)
            except AbsentError:
                return Lost.GONE
            except ConflictError:
                again = self._leases.read(own.name)
            if again is None:
                return Lost.GONE
            lost = self._trouble(again)
            if lost is not None:
                return lost
            found = again
        raise StoreUnavailableError(f"Lease {own.name}: somebody else changes it all the time")

    def _trouble(self, found: Found) -> Lost | None:
        """Why a Lease of the own name is not, or no more, the own one."""
        if found.holder != f"{found.name}_{self._token}":
            return Lost.ANOTHERS
        return Lost.DECLARED_DEAD if found.is_dead else None

    def _view(self, own: Member, listed: Sequence[Found]) -> View:
        now = self._monotonic()
        others = {found.name: found for found in listed if found.name != own.name}
        signs = {name: Sign((found.uid, found.renewed_at)) for name, found in others.items() if not found.is_dead}
        silent = self._silence.listen(now, signs)
        dead = {name for name, found in others.items() if found.is_dead}
        dead |= {name for name in silent if self._declares(others[name], own.name)}
        return View(
            live={own.name: own, **{name: found.member for name, found in others.items() if name not in dead}},
            dead={name: others[name].member for name in dead},
            look_within=self._silence.next_end(now),
        )

    def _declares(self, found: Found, by: str) -> bool:
        try:
            self._leases.declare_dead(found, by)
        except (ConflictError, AbsentError):
            # It was renewed, or declared dead by another one, or has left: the next look tells.
            return False
        return True

    def _bury(self, name: str) -> None:
        found = self._leases.read(name)
        if found is not None and found.is_dead:
            self._delete(found)

    def _leave(self) -> None:
        own, self._own = self._own, None
        found = self._leases.read(own.name) if own is not None else None
        if found is not None and self._trouble(found) is None:
            self._delete(found)

    def _delete(self, found: Found) -> None:
        try:
            self._leases.delete(found.name, uid=found.uid, version=found.version)
        except (ConflictError, AbsentError):
            # Buried by another one; or declared dead since it was read.
            return
