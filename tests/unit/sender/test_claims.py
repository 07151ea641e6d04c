"""What receivers say of themselves, held against what can be true."""

from fleetcast_sender.engine.messages import Reception
from fleetcast_sender.sending.claims import Allowance, possible
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
