"""What receivers say of themselves, held against what can be true."""

from fleetcast_sender.engine.messages import Reception
from fleetcast_sender.sending.claims import Allowance, RepairClaims, possible
from hypothesis import given
from hypothesis import strategies as st

NUMBERS = st.integers(-(1 << 63), (1 << 63) - 1)


@given(st.builds(Reception, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS, NUMBERS), st.integers(0, 1 << 40))
def test_nobody_has_heard_what_was_not_sent(said: Reception, sent: int) -> None:
    taken = possible(said, sent)
    assert -1 <= taken.highest_packet_counter < max(sent, 1)
    assert 0 <= taken.datagram_count <= sent
    assert 0 <= taken.overflow_datagram_count <= sent
    assert min(taken.backlog_bytes, taken.written_bytes, taken.dropped_window_count) >= 0


def test_what_can_be_true_is_taken_as_it_is() -> None:
    said = Reception(99, 90, 3, 1 << 20, 1 << 30, 2)
    assert possible(said, 100) == said


def test_a_receiver_that_says_what_it_should_is_never_slowed_down() -> None:
    allowance = Allowance()
    assert all(allowance.delay(200, 100 + turn / 300) == 0 for turn in range(3000))


def test_a_receiver_that_says_too_much_is_read_at_the_rate_that_it_may_have() -> None:
    allowance, now, read = Allowance(), 100.0, 0
    while now < 110:
        now += allowance.delay(100, now)
        read += 1
    assert read < 12_000


def test_large_messages_count_as_several() -> None:
    allowance, now, read = Allowance(), 100.0, 0
    while now < 110:
        now += allowance.delay(400_000, now)
        read += 1
    assert read < 200


WINDOW = 8000


def repaired(shares: list[float], windows: int = 100) -> list[float]:
    """Returns which share of their claims is met for receivers that want these shares of each window repaired."""
    claims, met = RepairClaims(WINDOW), [0] * len(shares)
    for seat in range(len(shares)):
        claims.join(seat, 0)
    for window in range(1, windows + 1):
        for seat, share in enumerate(shares):
            met[seat] += claims.takes(seat, int(share * WINDOW), window * WINDOW)
    return [count / windows for count in met]


def test_what_receivers_usually_lose_is_repaired() -> None:
    assert repaired([0.05, 0.0, 0.01, 0.0]) == [1.0, 1.0, 1.0, 1.0]


def test_what_all_lose_is_repaired_however_much_it_is() -> None:
    assert repaired([0.2, 0.15, 0.25, 0.2]) == [1.0, 1.0, 1.0, 1.0]


def test_a_lone_receiver_gets_all_that_it_wants() -> None:
    assert repaired([0.25]) == [1.0]


def test_one_that_claims_a_quarter_of_everything_costs_the_others_less_than_a_tenth() -> None:
    liar, *others = repaired([0.25, 0.01, 0.0, 0.0])
    assert 0.25 * liar < 0.1
    assert others == [1.0, 1.0, 1.0]


def test_a_stall_is_repaired_once() -> None:
    claims = RepairClaims(WINDOW)
    claims.join(0, 0)
    claims.join(1, 0)
    assert claims.takes(0, WINDOW // 5, WINDOW)


def test_a_receiver_that_joined_late_is_measured_from_then_on() -> None:
    claims = RepairClaims(WINDOW)
    claims.join(0, 0)
    claims.join(1, 100 * WINDOW)
    assert claims.takes(1, WINDOW // 20, 101 * WINDOW)
    assert not claims.takes(1, WINDOW, 102 * WINDOW)
