"""Every fault of the list, with five seeds of each: no promise is broken by any of them."""

from __future__ import annotations

import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
from tests.chaos.campaign import Campaign, repeated, seeds_of
from tests.chaos.faults import FAULTS
from tests.chaos.round import Result

SEEDS = 5
MOVES = 3
"""Versions of a run that it takes at least to call a round one: otherwise nothing was tried."""

Results = Mapping[str, Sequence[Result]]


@pytest.fixture(scope="module")
def results(request: pytest.FixtureRequest) -> Results:
    """The rounds of all faults that are asked for, played side by side; what was seen stays if something was found."""
    here = [item for item in request.session.items if item.module is request.module and hasattr(item, "callspec")]
    wanted = [item.callspec.params["fault"] for item in here]
    chosen = [fault for name, fault in FAULTS.items() if name in wanted]
    jobs = [(fault, seeds_of(fault, SEEDS)) for fault in chosen]
    where = Path(tempfile.mkdtemp(prefix="stepwell-chaos-"))
    found: dict[str, list[Result]] = defaultdict(list)
    for result in Campaign(jobs, where).run():
        found[result.fault].append(result)
    if not any(where.iterdir()):
        where.rmdir()
    return found


@pytest.mark.parametrize("fault", list(FAULTS))
def test_every_promise_holds_under(fault: str, results: Results) -> None:
    played = results[fault]

    assert [f"{violation}; {repeated(result)}" for result in played for violation in result.violations] == []
    assert len(played) == SEEDS
    for result in played:
        assert result.counts.moves > MOVES * result.counts.triggers > 0, f"seed {result.seed} tried nothing"
