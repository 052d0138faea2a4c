"""Starts workers by forking, with all modules loaded: a hundred starts take seconds of the processor, not minutes.

One JSON line in (``environment``, ``arguments``, ``log``), one pid out. Its workers die with it, and it with whoever
started it.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
from typing import Any

import tests.chaos.flow  # noqa: F401  (loaded once, for all that are forked)
from tests.chaos.wrapped import main

_SET_PDEATHSIG = 1


def _become_worker(request: dict[str, Any]) -> None:
    ctypes.CDLL(None).prctl(_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    # As if in a pod of its own: Linux shares out its time by sessions first.
    os.setsid()
    output = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(request["environment"])
    random.seed()
    try:
        code = main(request["arguments"])
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:  # noqa: BLE001  (the end of this process, whatever it is)
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _serve() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)  # noqa: T201  (it is the protocol)
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            _become_worker(json.loads(line))
        print(pid, flush=True)  # noqa: T201  (as above)


if __name__ == "__main__":
    _serve()
