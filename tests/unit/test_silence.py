"""Whoever dies was silent while somebody listened all the time; an outage or a clock that jumps kills nobody."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from stepwell._domain.silence import Sign, Silence

DURATION, INTERVAL = 9.0, 3.0


def listener() -> Silence:
    return Silence(duration=DURATION, attention=1.5 * INTERVAL)


def test_silent_for_the_duration_and_not_before() -> None:
    silence = listener()
    assert not silence.listen(100, {"a": Sign(1)})
    assert silence.next_end(100) == DURATION
    for now in (103, 106, 108.9):
        assert not silence.listen(now, {"a": Sign(1)})
    assert round(silence.next_end(108.9), 3) == 0.1
    assert silence.listen(109, {"a": Sign(1)}) == {"a"}
    assert silence.next_end(109) == float("inf")


def test_a_new_sign_begins_anew_whatever_it_is() -> None:
    silence = listener()
    for now, mark in ((0, 7), (3, 7), (6, 3), (9, 3), (12, 3)):
        assert not silence.listen(now, {"a": Sign(mark)})
    assert silence.listen(15, {"a": Sign(3)}) == {"a"}


def test_one_that_was_never_seen_before_has_the_whole_duration() -> None:
    silence = listener()
    silence.listen(0, {})
    assert not silence.listen(3, {"a": Sign(1, age=3600)})
    assert not silence.listen(6, {"a": Sign(1, age=3603)})
    assert not silence.listen(9, {"a": Sign(1, age=3606)})
    assert silence.listen(12, {"a": Sign(1, age=3609)}) == {"a"}


def test_the_age_of_a_new_sign_counts_as_far_as_one_was_listening() -> None:
    silence = listener()
    silence.listen(0, {"a": Sign(1)})
    silence.listen(3, {"a": Sign(2, age=2.5)})
    silence.listen(6, {"a": Sign(2, age=5.5)})
    assert silence.next_end(6) == 3.5
    assert silence.listen(9.5, {"a": Sign(2, age=9.0)}) == {"a"}


@given(jump=st.floats(-1e9, 1e9))
def test_a_clock_that_jumps_kills_nobody_who_speaks_and_keeps_nobody_alive_who_does_not(jump: float) -> None:
    silence = listener()
    silence.listen(0, {"well": Sign(0), "gone": Sign(0)})
    for n in range(1, 4):
        dead = silence.listen(3.0 * n, {"well": Sign(n, age=jump), "gone": Sign(0, age=jump)})
        assert dead == ({"gone"} if n == 3 else frozenset())


def test_a_listener_that_was_away_counts_anew() -> None:
    silence = listener()
    silence.listen(0, {"a": Sign(1), "b": Sign(1)})
    silence.listen(3, {"a": Sign(1), "b": Sign(1)})
    assert not silence.listen(63, {"a": Sign(1), "b": Sign(1)})
    assert not silence.listen(66, {"a": Sign(2), "b": Sign(1)})
    assert not silence.listen(69, {"a": Sign(3), "b": Sign(1)})
    assert silence.listen(72, {"a": Sign(4), "b": Sign(1)}) == {"b"}


def test_who_is_gone_is_forgotten() -> None:
    silence = listener()
    silence.listen(0, {"a": Sign(1)})
    silence.listen(3, {})
    assert silence.next_end(3) == float("inf")
    for now in (6, 9, 12):
        assert not silence.listen(now, {"a": Sign(1)})
    assert silence.listen(15, {"a": Sign(1)}) == {"a"}


@given(
    looks=st.lists(st.floats(0, 60), min_size=2, max_size=60),
    renewals=st.lists(st.floats(0.01, DURATION - 0.01), min_size=1, max_size=60),
)
def test_one_that_speaks_in_time_never_dies(looks: list[float], renewals: list[float]) -> None:
    """Whenever the listener looks, and however exactly it is told when they spoke."""
    exact, rough = listener(), listener()
    spoken = [0.0, *accumulate(renewals)]
    for now in sorted(looks):
        mark = bisect_right(spoken, now) - 1
        if mark == len(spoken) - 1:
            return
        assert not exact.listen(now, {"a": Sign(mark, age=now - spoken[mark])})
        assert not rough.listen(now, {"a": Sign(mark)})
