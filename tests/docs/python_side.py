"""Runs the Python blocks of one page, one after another, in one module and one event loop, in a process of its own.

A request is a line of JSON on standard input, its answer a line on the descriptor named by the first argument. After a
block, the functions named ``test_*`` that it defined are called.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import json
import linecache
import os
import sys
import traceback
import types
import warnings
from typing import Any


async def run(source: str, page: str, line: int, module: types.ModuleType) -> None:
    padded = "\n" * (line - 1) + source
    linecache.cache[page] = (len(padded), None, padded.splitlines(keepends=True), page)
    code = compile(padded, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, dont_inherit=True)
    before = dict(vars(module))
    result = eval(code, vars(module))  # noqa: S307  (the page's own code)
    if inspect.isawaitable(result):
        await result
    for name, value in list(vars(module).items()):
        if name.startswith("test_") and before.get(name) is not value:
            returned = value()
            if inspect.isawaitable(returned):
                await returned


async def main(answers: int) -> None:
    sys.path.insert(0, str(os.getcwd()))  # noqa: PTH109  (a string is what sys.path holds)
    module: Any = types.ModuleType("page")
    sys.modules["page"] = module
    for text in sys.stdin:
        asked = json.loads(text)
        error = ""
        try:
            await run(asked["source"], asked["page"], asked["line"], module)
        except BaseException:  # noqa: BLE001  (the answer tells it)
            error = traceback.format_exc()
        os.write(answers, json.dumps({"error": error}).encode() + b"\n")


if __name__ == "__main__":
    warnings.simplefilter("error")
    asyncio.run(main(int(sys.argv[1])))
