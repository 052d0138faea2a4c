"""CPU of a tree: of all that lives in it and of all that has ended in it, each once."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.bench.durable import cpu

BUSY = "import time\nwhile time.process_time() < {seconds}: pass"
PARENT = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {BUSY.format(seconds=0.3)!r}]); input()"


def test_the_time_of_a_child_that_has_ended_stays_in_the_tree() -> None:
    before = cpu.seconds([os.getpid()])
    # The kernel counts user and system time in whole ticks, each cut off: a little more is worked than is asked for.
    subprocess.run([sys.executable, "-c", BUSY.format(seconds=0.35)], check=True)  # noqa: S603  (ours)
    assert cpu.seconds([os.getpid()]) - before >= 0.3


def test_a_grandchild_s_time_is_its_root_s_and_nobody_s_twice() -> None:
    with subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, text=True) as process:  # noqa: S603  (ours)
        used = 0.0
        while used < 0.3:
            assert process.poll() is None
            used = cpu.seconds([process.pid])
        assert cpu.seconds([process.pid, process.pid]) < 2 * used
        process.communicate("\n")


def test_a_process_that_is_gone_counts_for_nothing() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        assert cpu.seconds([process.pid]) == 0
