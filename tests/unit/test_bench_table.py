"""The bench's table says what the samples say: medians, ratios within a round, and no pass without a measurement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from tests.bench.figures import Bound, Spread, Target, Word, number, spread
from tests.bench.table import IDLE, MEMORY, Contender, Sample, ratio, render, rounds_at, verdicts

TEXT = """\
in flight                                   moves/s             p50 ms             p99 ms  CPU ms/1,000 moves      Stepwell makes
---------  ------------------  --------------------  -----------------  -----------------  ------------------  ------------------
1          Stepwell            1,500 (1,400..1,600)  0.67 (0.62..0.71)  2.67 (2.50..2.86)   50.0 (50.0..50.0)
1          DBOS, same pragmas        300 (290..310)  3.33 (3.23..3.45)  13.3 (12.9..13.8)   50.0 (50.0..50.0)  5.00x (4.83..5.16)
1          DBOS as shipped           150 (140..160)  6.67 (6.25..7.14)  26.7 (25.0..28.6)   50.0 (50.0..50.0)  10.0x (10.0..10.0)

target                                                     wanted                measured
---------------------------------------  ------------  ----------  ----------------------
times DBOS, same pragmas, 1 in flight    pass               >= 4x      5.00x (4.83..5.16)
times DBOS, same pragmas, 256 in flight  not measured      >= 25x                       -
moves per second, 1 in flight            pass          >= 1,250/s  1,500/s (1,400..1,600)
moves per second, 256 in flight          not measured  >= 5,000/s                       -
memory of one run in flight              not measured   <= 10 KiB                       -
CPU of an idle process                   not measured       < 1 %                       -"""  # noqa: E501 - a table is as wide as it is


def sample(contender: Contender, in_flight: int, moves_per_second: float) -> Sample:
    return Sample(
        contender=contender,
        in_flight=in_flight,
        moves_per_second=moves_per_second,
        p50_ms=1000 / moves_per_second,
        p99_ms=4000 / moves_per_second,
        cpu_ms_per_1000=50.0,
    )


def alternating(in_flight: int, pairs: Sequence[tuple[float, float]]) -> list[Sample]:
    return [
        made
        for stepwell, dbos in pairs
        for made in (sample(Contender.STEPWELL, in_flight, stepwell), sample(Contender.DBOS_SAME, in_flight, dbos))
    ]


def words(samples: Sequence[Sample]) -> dict[str, Word]:
    return {verdict.target.what: verdict.word for verdict in verdicts(samples)}


def test_a_spread_is_the_median_with_both_ends() -> None:
    assert spread([5.0, 1.0, 9.0, 2.0]) == Spread(middle=3.5, lowest=1.0, highest=9.0)


def test_a_ratio_is_taken_within_each_round_before_the_median() -> None:
    # The quotient of the medians is 20; the rounds say 10, 10 and 40.
    samples = alternating(256, [(1000, 100), (2000, 200), (4000, 100)])
    assert ratio(rounds_at(samples, 256), Contender.DBOS_SAME) == Spread(middle=10, lowest=10, highest=40)


def test_no_ratio_without_the_other_side() -> None:
    rounds = rounds_at([sample(Contender.STEPWELL, 1, 5000)], 1)
    assert ratio(rounds, Contender.DBOS_SAME) is None


def test_rounds_keep_concurrencies_apart() -> None:
    mixed = alternating(1, [(10, 1)]) + alternating(256, [(20, 1)]) + alternating(1, [(30, 1)])
    assert [found[Contender.STEPWELL].moves_per_second for found in rounds_at(mixed, 1)] == [10, 30]
    assert rounds_at(mixed, 64) == []


@pytest.mark.parametrize("order", ["AABB", "ABBA", "ABA", "ABABB"])
def test_samples_that_do_not_alternate_are_refused(order: str) -> None:
    contenders = {"A": Contender.STEPWELL, "B": Contender.DBOS_SAME}
    samples = [sample(contenders[letter], 1, 100) for letter in order]
    with pytest.raises(ValueError, match=r"round \d with 1 in flight: .*expected Stepwell, DBOS, same pragmas"):
        rounds_at(samples, 1)


@pytest.mark.parametrize(
    ("bound", "below", "equal", "above"),
    [
        (Bound.AT_LEAST, Word.MISSED, Word.MET, Word.MET),
        (Bound.AT_MOST, Word.MET, Word.MET, Word.MISSED),
        (Bound.BELOW, Word.MET, Word.MISSED, Word.MISSED),
    ],
)
def test_a_limit_has_two_sides(bound: Bound, below: Word, equal: Word, above: Word) -> None:
    target = Target(what="it", bound=bound, limit=10, unit="")
    assert [target.word_for(spread([value])) for value in (9.9, 10.0, 10.1)] == [below, equal, above]


def test_nothing_measured_passes_nothing() -> None:
    assert set(words([]).values()) == {Word.NOT_MEASURED}
    assert len(verdicts([])) == 6


@pytest.mark.parametrize(
    ("in_flight", "stepwell", "dbos", "ratio_word", "floor_word"),
    [
        (1, 1250, 312.5, Word.MET, Word.MET),
        (1, 1249, 300, Word.MET, Word.MISSED),
        (1, 1300, 326, Word.MISSED, Word.MET),
        (256, 5000, 200, Word.MET, Word.MET),
        (256, 4999, 100, Word.MET, Word.MISSED),
        (256, 9999, 400, Word.MISSED, Word.MET),
    ],
)
def test_ratio_and_floor_are_judged_each_by_itself(
    in_flight: int, stepwell: float, dbos: float, ratio_word: Word, floor_word: Word
) -> None:
    found = words(alternating(in_flight, [(stepwell, dbos)]))
    assert found[f"times DBOS, same pragmas, {in_flight} in flight"] is ratio_word
    assert found[f"moves per second, {in_flight} in flight"] is floor_word
    other = 257 - in_flight
    assert found[f"moves per second, {other} in flight"] is Word.NOT_MEASURED


def test_one_good_round_does_not_save_a_bad_median() -> None:
    found = words(alternating(256, [(9000, 100), (4000, 100), (4100, 100)]))
    assert found["moves per second, 256 in flight"] is Word.MISSED


def test_memory_and_idle_come_from_stepwell_alone() -> None:
    ours, theirs = alternating(256, [(6000, 100)])
    samples = [
        replace(ours, rss_kib_per_run=10.0, idle_cpu_percent=1.0),
        replace(theirs, rss_kib_per_run=900.0, idle_cpu_percent=0.1),
    ]
    found = words(samples)
    assert found[MEMORY.what] is Word.MET
    assert found[IDLE.what] is Word.MISSED


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.034, "0.034"), (0.5, "0.50"), (4.267, "4.27"), (36.06, "36.1"), (310.4, "310"), (15700, "15,700")],
)
def test_numbers_show_what_is_known(value: float, text: str) -> None:
    assert number(value) == text


def test_the_text_is_aligned_and_complete() -> None:
    shipped = [sample(Contender.DBOS_SHIPPED, 1, rate) for rate in (150, 160, 140)]
    pairs = alternating(1, [(1500, 300), (1600, 310), (1400, 290)])
    triples = [made for turn in range(3) for made in (*pairs[2 * turn : 2 * turn + 2], shipped[turn])]
    assert render(triples) == TEXT
