from __future__ import annotations

from stepwell._domain.brake import WINDOW, Brake


def failing(brake: Brake, times: int, *, failed: bool = True) -> None:
    for _ in range(times):
        brake.told(failed=failed)


def test_a_step_that_mostly_succeeds_is_not_slowed_down() -> None:
    brake = Brake()
    for number in range(10 * WINDOW):
        brake.told(failed=number % 2 == 0)
    assert brake.allows(64) == 64


def test_a_step_that_mostly_fails_runs_one_at_a_time() -> None:
    brake = Brake()
    failing(brake, WINDOW - 1)
    assert brake.allows(64) == 64, "too few to judge by"
    failing(brake, 1)
    assert brake.allows(64) == 1


def test_it_comes_back_by_doubling() -> None:
    brake = Brake()
    failing(brake, WINDOW)
    widths = [brake.allows(64)]
    while widths[-1] < 64:
        failing(brake, widths[-1], failed=False)
        widths.append(brake.allows(64))
    assert widths == [1, 2, 4, 8, 16, 32, 64]
    failing(brake, WINDOW // 2)
    assert brake.allows(64) == 64, "what was before is forgotten"


def test_a_failure_on_the_way_back_begins_anew() -> None:
    brake = Brake()
    failing(brake, WINDOW)
    failing(brake, 3, failed=False)
    assert brake.allows(64) == 4
    failing(brake, 1)
    assert brake.allows(64) == 1
