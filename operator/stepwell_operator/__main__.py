"""``stepwell-operator``: the process of the operator's pod. What it is told, it is told by the environment."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys

from stepwell.control import JsonFormatter
from stepwell.errors import SettingsError, StepwellError
from stepwell_operator.controllers.operator import operate
from stepwell_operator.main import watch
from stepwell_operator.settings import OperatorSettings, load_settings

_USAGE, _FAILED = 2, 1


def main() -> None:
    """Run until SIGTERM or SIGINT."""
    try:
        settings = load_settings(os.environ)
    except SettingsError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(_USAGE)
    _log(settings.log_level)
    try:
        asyncio.run(_serve(settings))
    except (StepwellError, OSError) as error:
        logging.getLogger(__name__).error("the operator ends", extra={"action": "ended", "error": str(error)})  # noqa: TRY400  (it is foreseen)
        sys.exit(_FAILED)


async def _serve(settings: OperatorSettings) -> None:
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await operate(settings, watch, stop)


def _log(level: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    # What kopf tells of its own working is for who debugs it.
    logging.getLogger("kopf").setLevel(logging.WARNING)


if __name__ == "__main__":
    main()
