"""The CEL library without the command line that its package loads as well: 9 MiB of each worker, and most of 0.3 s.

What stands in for it while the package is loaded is taken away again, so whoever asks for it later gets the real one.
"""

from __future__ import annotations

import sys
from types import ModuleType

_COMMAND_LINE = "cel.cli"
_stand_in = ModuleType(_COMMAND_LINE)

sys.modules.setdefault(_COMMAND_LINE, _stand_in)
try:
    from cel import Context, Program
    from cel import compile as compile_cel
finally:
    if sys.modules[_COMMAND_LINE] is _stand_in:
        del sys.modules[_COMMAND_LINE]

__all__ = ["Context", "Program", "compile_cel"]
