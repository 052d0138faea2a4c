"""What happens to worker processes: killed, frozen, and brought back."""

from __future__ import annotations

import asyncio

from tests.chaos.round import Fault, Round


class Killed(Fault):
    """``kill -9`` of a worker, again and again; another one takes its place."""

    name = "F1"
    title = "kill -9 of a worker, again and again"
    recovery = 15.0
    kills = 4

    async def strike(self, round_: Round) -> None:
        for _ in range(self.kills):
            await asyncio.sleep(round_.rng.uniform(0.5, 2.5))
            await round_.fleet.kill(round_.rng.choice(round_.fleet.alive))
            round_.fleet.start(**self.environment(round_))
