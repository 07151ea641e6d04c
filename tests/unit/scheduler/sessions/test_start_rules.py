from __future__ import annotations

from itertools import combinations

import pytest
from fleetcast_scheduler.sessions.domain.start_rules import Match, PresentMachines, StartRules, evaluate
from hypothesis import given
from hypothesis import strategies as st

NOW = 1_800_000_000.0


def attendance(count: int, first: float | None = NOW, last: float | None = NOW) -> PresentMachines:
    return PresentMachines(count, first, last)


def test_without_rules_the_first_machine_starts_it() -> None:
    assert not evaluate(StartRules(), attendance(0, None, None), NOW).met
    assert evaluate(StartRules(), attendance(1), NOW).met


def test_min_clients_counts_the_machines_that_are_there() -> None:
    rules = StartRules(min_clients=3)
    verdict = evaluate(rules, attendance(2), NOW)
    assert not verdict.met
    assert verdict.reason == "waits for 3 machines (2 joined so far)"
    assert verdict.due_time is None
    assert evaluate(rules, attendance(3), NOW).met


def test_the_delay_counts_from_the_first_machine_and_beats_a_number_not_reached() -> None:
    rules = StartRules(min_clients=3, start_delay_seconds=60)
    verdict = evaluate(rules, attendance(1), NOW + 59)
    assert not verdict.met
    assert verdict.due_time == NOW + 60
    assert " or " in verdict.reason
    assert evaluate(rules, attendance(1), NOW + 60).met


def test_the_number_beats_a_delay_not_over() -> None:
    assert evaluate(StartRules(min_clients=2, start_delay_seconds=60), attendance(2), NOW + 1).met


def test_all_rules_together_wait_for_the_last_one() -> None:
    rules = StartRules(min_clients=2, start_delay_seconds=60, match=Match.ALL)
    assert not evaluate(rules, attendance(1), NOW + 61).met
    verdict = evaluate(rules, attendance(2), NOW + 1)
    assert not verdict.met
    assert verdict.due_time == NOW + 60
    assert evaluate(rules, attendance(2), NOW + 60).met


def test_a_quiet_time_starts_again_with_each_machine() -> None:
    rules = StartRules(quiet_seconds=30)
    assert not evaluate(rules, attendance(2, NOW, NOW + 20), NOW + 49).met
    assert evaluate(rules, attendance(2, NOW, NOW + 20), NOW + 50).met


def test_a_clock_time_waits_and_then_needs_a_machine() -> None:
    rules = StartRules(start_time=NOW + 3600)
    verdict = evaluate(rules, attendance(1), NOW)
    assert verdict.due_time == NOW + 3600
    assert verdict.reason == "waits for 2027-01-15 09:00:00 UTC"
    assert not evaluate(rules, attendance(0, None, None), NOW + 3600).met
    assert evaluate(rules, attendance(1), NOW + 3600).met


def test_by_hand_alone_never_starts_by_itself() -> None:
    verdict = evaluate(StartRules(manual=True), attendance(1000), NOW + 10**6)
    assert not verdict.met
    assert verdict.reason == "waits for an operator's start"
    assert verdict.due_time is None


def test_by_hand_and_all_never_starts_by_itself_but_any_other_rule_does() -> None:
    together = StartRules(manual=True, min_clients=1, match=Match.ALL)
    assert not evaluate(together, attendance(5), NOW).met
    assert evaluate(StartRules(manual=True, min_clients=1), attendance(1), NOW).met


SINGLE_RULES = {
    "min_clients": 2,
    "start_delay_seconds": 60.0,
    "quiet_seconds": 30.0,
    "start_time": NOW + 90,
    "manual": True,
}


@pytest.mark.parametrize("match", list(Match))
@pytest.mark.parametrize("names", [names for size in range(1, 6) for names in combinations(SINGLE_RULES, size)])
def test_every_combination_is_the_any_or_all_of_its_single_rules(names: tuple[str, ...], match: Match) -> None:
    for count in (1, 2):
        for elapsed in (0, 30, 45, 60, 75, 90):
            present, now = attendance(count, NOW, NOW + 15), NOW + elapsed
            singles = [evaluate(StartRules(**{name: SINGLE_RULES[name]}), present, now).met for name in names]  # type: ignore[arg-type]
            rules = StartRules(**{name: SINGLE_RULES[name] for name in names}, match=match)  # type: ignore[arg-type]
            assert evaluate(rules, present, now).met is (any if match is Match.ANY else all)(singles)


@given(
    rules=st.builds(
        StartRules,
        min_clients=st.integers(0, 5),
        start_delay_seconds=st.none() | st.floats(0, 100),
        quiet_seconds=st.none() | st.floats(0, 100),
        start_time=st.none() | st.floats(NOW, NOW + 100),
        manual=st.booleans(),
        match=st.sampled_from(Match),
    ),
    count=st.integers(0, 6),
    last=st.floats(0, 50),
    elapsed=st.floats(50, 300),
)
def test_a_due_time_is_later_and_is_when_the_verdict_changes(
    rules: StartRules, count: int, last: float, elapsed: float
) -> None:
    present = attendance(count, NOW, NOW + last)
    verdict = evaluate(rules, present, NOW + elapsed)
    assert verdict.met is not bool(verdict.reason)
    if verdict.due_time is not None:
        assert verdict.due_time > NOW + elapsed
        assert evaluate(rules, present, verdict.due_time).met
