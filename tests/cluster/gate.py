"""A door between a client and a server on this machine, which a test can close, silence and open again.

It lives in a thread of its own, so a client that blocks its event loop does not hold it up.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import Any

_STEP_SECONDS = 10.0
_CHUNK = 64 * 1024


class Gate:
    """Forwards TCP from ``port`` to a server while it is open."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._through: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        """Held on to, for a loop does not."""
        self._is_open = True
        self._is_silent = False
        self._voices: set[asyncio.Event] = set()
        """One for each client that is through; nothing arrives of it or for it while it is cleared."""
        self._is_removed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._thread.start()
        self._entrance = asyncio.run_coroutine_threadsafe(self._let_in(), self._loop)

    def close(self) -> None:
        """Break what goes through, and let nobody through."""
        self._call(self._closed)

    def silence(self) -> None:
        """Nothing arrives any more, and nobody is told: as when a cable is pulled."""
        self._call(self._silenced)

    def mute(self) -> None:
        """As by ``silence``, but only for what is through by now; who comes later is heard."""
        self._call(self._muted)

    def open(self) -> None:
        """Let everybody through; what was held back arrives."""
        self._call(self._opened)

    def remove(self) -> None:
        """Take the door away."""
        self._is_removed = True
        # The last one through the door sees it: a wait for the next one that is ended may lose somebody.
        with suppress(ConnectionError):  # somebody else was that already
            socket.create_connection(("127.0.0.1", self.port)).close()
        self._entrance.result(_STEP_SECONDS)
        self._do(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STEP_SECONDS)
        self._loop.close()

    async def _let_in(self) -> None:
        # An asyncio server that is closed while somebody comes in leaves their socket open.
        with self._listener:
            while not self._is_removed:
                client, _ = await self._loop.sock_accept(self._listener)
                try:
                    reader, writer = await asyncio.open_connection(sock=client)
                except OSError:
                    client.close()
                    continue
                # Noted here: a task that is cancelled before it begins does nothing at its end either.
                self._through.add(writer)
                task = self._loop.create_task(self._pass(reader, writer))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._closed()

    def _closed(self) -> None:
        self._is_open = False
        for writer in self._through:
            writer.transport.abort()

    def _silenced(self) -> None:
        self._is_silent = True
        self._muted()

    def _muted(self) -> None:
        for voice in self._voices:
            voice.clear()

    def _opened(self) -> None:
        self._is_open, self._is_silent = True, False
        for voice in self._voices:
            voice.set()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            if self._is_open:
                await self._forward(reader, writer)
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            self._through.discard(writer)
            writer.transport.abort()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._through.add(back)
        voice = asyncio.Event()
        self._voices.add(voice)
        if not self._is_silent:
            voice.set()
        ways = ((reader, back), (there, writer))
        both = [asyncio.ensure_future(self._pump(source, sink, voice)) for source, sink in ways]
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in both:
                pump.cancel()
            await asyncio.gather(*both, return_exceptions=True)
            self._voices.discard(voice)
            self._through.discard(back)
            back.transport.abort()

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, voice: asyncio.Event) -> None:
        with suppress(OSError):
            while data := await source.read(_CHUNK):
                await voice.wait()
                sink.write(data)
                await sink.drain()

    def _call(self, change: Callable[[], None]) -> None:
        async def changed() -> None:
            change()

        self._do(changed())

    def _do(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_STEP_SECONDS)


@contextmanager
def gate(target: int) -> Iterator[Gate]:
    """An open door to a port of this machine."""
    made = Gate(target)
    try:
        yield made
    finally:
        made.remove()
