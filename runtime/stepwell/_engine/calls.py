"""User code is called here and nowhere else: bounded in time, in its own thread if it is not async.

Whatever it raises is the attempt's failure; only a cancellation of the engine itself goes through. A thread cannot be
stopped, so one that has run out of time keeps its slot until it returns.
"""

from __future__ import annotations

import asyncio
import contextvars
import types
from collections.abc import Callable, Generator
from functools import partial
from types import CoroutineType
from typing import Any, Protocol

from stepwell._engine.deadlines import Deadlines, this_task
from stepwell._engine.lanes import Lane, Lanes
from stepwell._engine.settings import EngineSettings
from stepwell.errors import HandlerError


class AttemptTimeoutError(HandlerError):
    """The handler did not return within ``attemptTimeout``."""

    def __init__(self, seconds: float) -> None:
        super().__init__(f"no result after {seconds:g} s (attemptTimeout)")
        self.seconds = seconds


class HandlerExitError(HandlerError):
    """The handler tried to end the process, or cancelled itself."""


class Callee(Protocol):
    """A function of the user's, as it was bound."""

    @property
    def function(self) -> Callable[..., Any]:
        """The function."""
        ...

    @property
    def is_async(self) -> bool:
        """Whether it is a coroutine function."""
        ...


class Calls:
    """Calls user code."""

    def __init__(self, lanes: Lanes, settings: EngineSettings) -> None:
        self._lanes = lanes
        self._settings = settings
        self._deadlines = Deadlines()

    async def call(self, callee: Callee, *arguments: Any, seconds: float, lane: Lane | None) -> Any:
        """The function's result. Raises what it raises, or ``AttemptTimeoutError``, or ``HandlerExitError``."""
        try:
            if callee.is_async:
                result = await self._in_loop(callee.function, arguments, seconds)
            else:
                result = await self._in_thread(callee.function, arguments, seconds, lane)
        except asyncio.CancelledError:
            if self._lanes.closing:
                raise
            raise HandlerExitError("the handler cancelled itself") from None
        except Exception:
            raise
        except BaseException as error:  # noqa: BLE001  (user code may raise what would end the engine's own task)
            raise exit_of(error) from None
        finally:
            await self._forgive()
        return result

    async def _forgive(self) -> None:
        """A handler may have cancelled the task that it runs in: that must strike here, and not the engine later."""
        task = this_task()
        if task is None or not task.cancelling() or self._lanes.closing:
            return
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            if self._lanes.closing:
                raise
        while task.cancelling():
            task.uncancel()

    async def _in_loop(self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float) -> Any:
        coroutine = function(*arguments)
        if isinstance(coroutine, CoroutineType):
            try:
                waits_for = coroutine.send(None)
            except StopIteration as done:
                # It waited for nothing, so it needs no deadline.
                return done.value
            coroutine = _rest_of(coroutine, waits_for)
        limit = self._deadlines.within(seconds)
        try:
            with limit:
                return await coroutine
        except TimeoutError:
            if limit.expired:
                raise AttemptTimeoutError(seconds) from None
            raise

    async def _in_thread(
        self, function: Callable[..., Any], arguments: tuple[Any, ...], seconds: float, lane: Lane | None
    ) -> Any:
        loop = asyncio.get_running_loop()
        executor = lane.executor(self._settings.sync_threads) if lane is not None else None
        context = contextvars.copy_context()
        future = loop.run_in_executor(executor, lambda: context.run(_contained, function, arguments))
        done, _ = await asyncio.wait({future}, timeout=seconds)
        if done:
            return future.result()
        if lane is not None:
            self._keep_slot(lane, future)
        raise AttemptTimeoutError(seconds)

    def _keep_slot(self, lane: Lane, future: asyncio.Future[Any]) -> None:
        lane.taken += 1

        def returned(late: asyncio.Future[Any]) -> None:
            if not late.cancelled():
                late.exception()
            self._lanes.release_slot(lane)
            self._lanes.on_free()

        future.add_done_callback(returned)


@types.coroutine
def _rest_of(coroutine: CoroutineType[Any, Any, Any], waits_for: Any) -> Generator[Any, Any, Any]:
    """A coroutine that has begun to wait, as something to await (PEP 380 spells out what ``yield from`` does)."""
    while True:
        try:
            sent = yield waits_for
        except GeneratorExit:
            coroutine.close()
            raise
        except BaseException as error:  # noqa: BLE001  (it is the coroutine's to deal with)
            resume = partial(coroutine.throw, error)
        else:
            resume = partial(coroutine.send, sent)
        try:
            waits_for = resume()
        except StopIteration as done:
            return done.value


def exit_of(error: BaseException) -> HandlerExitError:
    """What stands in an attempt for an exception that would end the engine's own task."""
    return HandlerExitError(f"the handler raised {type(error).__name__}")


def _contained(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What must not reach the executor: it would end the thread or be raised in the event loop."""
    try:
        return function(*arguments)
    except (SystemExit, KeyboardInterrupt, StopIteration) as error:
        raise exit_of(error) from None
