from __future__ import annotations

from stepwell._domain.retry_budget import FLOOR, KEPT_SECONDS, RetryBudget


def released_in(budget: RetryBudget, seconds: int, moves: float) -> int:
    released = 0
    for second in range(seconds):
        allowed = budget.allow(["orders"], {"orders": moves}, 100.0 + second)["orders"]
        budget.spend("orders", allowed)
        released += allowed
    return released


def test_a_workflow_that_moves_little_has_ten_retries_a_second() -> None:
    budget = RetryBudget()
    first = budget.allow(["orders"], {}, 0.0)["orders"]
    budget.spend("orders", first)
    assert first == FLOOR * KEPT_SECONDS
    assert budget.allow(["orders"], {}, 0.5)["orders"] == 5


def test_a_busy_workflow_has_half_of_its_moves() -> None:
    busy = released_in(RetryBudget(), 100, moves=6000)
    # 100 moves a second, so 50 retries, and what was saved before the first look.
    assert 99 * 50 <= busy <= 99 * 50 + 50 * KEPT_SECONDS


def test_an_allowance_that_is_not_spent_adds_up_only_for_a_while() -> None:
    budget = RetryBudget()
    budget.allow(["orders"], {}, 0.0)
    assert budget.allow(["orders"], {}, 3600.0)["orders"] == FLOOR * KEPT_SECONDS


def test_workflows_do_not_spend_for_each_other() -> None:
    budget = RetryBudget()
    budget.allow(["a", "b"], {}, 0.0)
    budget.spend("a", 50)
    assert budget.allow(["a", "b"], {}, 0.1) == {"a": 1, "b": 50}


def test_what_was_released_too_much_is_paid_back() -> None:
    budget = RetryBudget()
    budget.spend("orders", budget.allow(["orders"], {}, 0.0)["orders"] + 20)
    assert budget.allow(["orders"], {}, 1.0)["orders"] == -10
    assert budget.allow(["orders"], {}, 4.0)["orders"] == 20
