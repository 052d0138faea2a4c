"""Rules bring the CEL library into a process, and not the command line that comes with it."""

from __future__ import annotations

import subprocess
import sys

CODE = """
import sys
from stepwell._domain.cel_library import Context, compile_cel

print(compile_cel("object.total + 1").execute(Context({"object": {"total": 1}})))
print(*sorted({name.partition(".")[0] for name in sys.modules} & {"prompt_toolkit", "pygments", "rich", "typer"}))

import cel.cli

print(cel.cli.main.__module__, cel.evaluate("1 + 2"))
"""


def test_the_command_line_of_the_library_is_loaded_by_who_asks_for_it_alone() -> None:
    """Asked of a fresh interpreter: this one has loaded everything."""
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603  (the lines above)

    assert done.stdout.splitlines() == ["2", "", "cel.cli 3"]
