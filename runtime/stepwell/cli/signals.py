"""How a process that serves ends: the first signal drains, the second ends it, and no thread keeps it from ending."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading

from stepwell.cli.errors import ExitCode
from stepwell.cli.voice import Voice


def stop_on_signals(voice: Voice) -> asyncio.Event:
    """The first signal drains; the second one ends the process at once, which loses nothing that was acknowledged."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()

    def stopped() -> None:
        if stop.is_set():
            os._exit(ExitCode.INTERRUPTED)
        voice.tell("stopping: running handlers may finish (again to stop at once)", action="stopping")
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped)
    return stop


def end_now_if_threads_hang(code: int) -> None:
    """A sync handler that never returns would keep the interpreter from ending; everything is stored by now."""
    hanging = [
        thread for thread in threading.enumerate() if not thread.daemon and thread is not threading.main_thread()
    ]
    if hanging:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        os._exit(code)
