"""The durable table: ratios within a round, every row judged, and nothing passed that was not measured."""

from __future__ import annotations

import pytest
from tests.bench.durable.plan import ROWS, Plan, Sizes
from tests.bench.durable.rows import NEEDED, with_needed
from tests.bench.durable.table import BESIDE, PROMISES, UNITS, Figure, Round, over, render, verdicts
from tests.bench.figures import Spread, Word

TEXT = """\
                                           measured             Stepwell to that
-----------------------------  --------------------  -------  ------------------
Stepwell, 1 worker over Kafka  6,000 (5,500..6,500)  moves/s
DBOS                                 100 (100..130)  steps/s  55.0x (50.0..60.0)

row  target                             wanted            measured
---  -------------------  ------------  ------  ------------------
3    times DBOS           pass          >= 50x  55.0x (50.0..60.0)
3    times Procrastinate  not measured  >= 50x                   -"""


def words(rounds: list[Round], row: int) -> dict[str, Word]:
    return {verdict.target.what: verdict.word for _, verdict in verdicts(rounds, [row])}


def test_a_ratio_is_taken_within_each_round_before_the_median() -> None:
    rounds = [
        {Figure.STORE: 1000.0, Figure.STORE_MODEL: 100.0},
        {Figure.STORE: 2000.0, Figure.STORE_MODEL: 200.0},
        {Figure.STORE: 4000.0, Figure.STORE_MODEL: 100.0},
    ]
    assert over(rounds, Figure.STORE, Figure.STORE_MODEL) == Spread(middle=10, lowest=10, highest=40)


def test_a_round_in_which_one_side_is_missing_counts_for_no_ratio() -> None:
    rounds = [
        {Figure.STORE: 100.0},
        {Figure.STORE_MODEL: 100.0},
        {Figure.STORE: 300.0, Figure.STORE_MODEL: 100.0},
    ]
    assert over(rounds, Figure.STORE, Figure.STORE_MODEL) == Spread(middle=3, lowest=3, highest=3)
    assert over(rounds[:2], Figure.STORE, Figure.STORE_MODEL) is None


def test_every_row_has_a_promise_and_nothing_measured_passes_none() -> None:
    assert {promise.row for promise in PROMISES} == set(ROWS)
    found = verdicts([], ROWS)
    assert len(found) == len(PROMISES)
    assert {verdict.word for _, verdict in found} == {Word.NOT_MEASURED}


def test_every_figure_is_judged_or_compared_with_or_beside_them() -> None:
    judged = {promise.figure for promise in PROMISES} | {p.against for p in PROMISES} - {None}
    assert judged == set(Figure) - BESIDE


@pytest.mark.parametrize(
    ("row", "figures", "expected"),
    [
        (1, {Figure.STORE: 12.0, Figure.STORE_MODEL: 1.0}, {"times the model, in the store": Word.MET}),
        (1, {Figure.STORE: 11.9, Figure.STORE_MODEL: 1.0}, {"times the model, in the store": Word.MISSED}),
        (
            2,
            {Figure.STEPS: 4999.0, Figure.STEPS_MODEL: 100.0},
            {"times the model, end to end": Word.MET, "moves per second, end to end": Word.MISSED},
        ),
        (6, {Figure.CPU: 150.0}, {Figure.CPU.value: Word.MET}),
        (6, {Figure.CPU: 151.0}, {Figure.CPU.value: Word.MISSED}),
        (
            8,
            {Figure.MANY_FINISHED: 89.0, Figure.FEW_FINISHED: 100.0},
            {"of the rate with few finished runs": Word.MISSED},
        ),
        (10, {Figure.POISONED_P99: 110.0, Figure.CLEAN_P99: 100.0}, {"p99 beside poisoned runs": Word.MET}),
        (10, {Figure.POISONED_P99: 112.0, Figure.CLEAN_P99: 100.0}, {"p99 beside poisoned runs": Word.MISSED}),
    ],
)
def test_limits_are_those_of_the_rows(row: int, figures: Round, expected: dict[str, Word]) -> None:
    assert words([figures], row) == expected


def test_the_text_has_what_was_measured_and_every_target_of_the_rows() -> None:
    rounds = [
        {Figure.STEPS: 6000.0, Figure.STEPS_DBOS: 100.0},
        {Figure.STEPS: 5500.0, Figure.STEPS_DBOS: 100.0},
        {Figure.STEPS: 6500.0, Figure.STEPS_DBOS: 130.0},
    ]
    assert render(rounds, [3]) == TEXT


def test_units_are_of_figures_with_a_unit_of_their_own() -> None:
    assert UNITS[Figure.IDLE_CPU] == " %"
    assert Figure.STORE not in UNITS


def test_rows_that_are_judged_by_others_measurements_take_those() -> None:
    assert with_needed([4, 9]) == {1, 2, 4, 9}
    of = {promise.row: {promise.figure, promise.against} for promise in PROMISES}
    assert Figure.STEPS in of[2]
    for row, needed in NEEDED.items():
        assert set(with_needed([row])) == {row, *needed}


def test_a_side_is_given_what_it_does_in_the_time() -> None:
    sizes = Sizes(seconds=5.0)
    assert sizes.of("store", first=100, least=10) == 100
    assert sizes.learn("store", {"moves": 400, "seconds": 2.0}) == 200
    assert sizes.of("store", first=100, least=10) == 1000
    sizes.learn("store", {"moves": 1, "seconds": 2.0})
    assert sizes.of("store", first=100, least=10) == 10


def test_a_quick_run_is_shorter_in_everything() -> None:
    quick, whole = Plan.quick(ROWS, None), Plan()
    assert quick.rounds < whole.rounds
    assert quick.seconds < whole.seconds
    assert quick.idle_seconds < whole.idle_seconds == 300
    assert quick.many_finished < whole.many_finished == 1_000_000
    assert whole.rounds >= 5
