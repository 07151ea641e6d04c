"""Who hears the group, as the sender judges it."""

from fleetcast_sender.sending.hearing import GroupHearing, HearingPolicy

RATE = 10_000
"""Datagrams a second while something is sent."""
INTERVAL = 0.1


class Group:
    """Receivers that report what they hear of a sender that sends unless it holds."""

    def __init__(self, seats: int) -> None:
        self.hearing = GroupHearing(HearingPolicy())
        self.now, self.sent = 50.0, 0
        self.heard = dict.fromkeys(range(seats), -1)
        self.moved: list[int] = []
        for seat in self.heard:
            self.hearing.join(seat, 0, self.now)

    def run(self, seconds: float, *, deaf: frozenset[int] = frozenset(), sending: bool = True) -> None:
        end = self.now + seconds
        while self.now < end:
            self.now += INTERVAL
            if sending:
                self.sent += 1 if self.hearing.holding else int(RATE * INTERVAL)
            for seat in self.heard.keys() - self.moved:
                if seat not in deaf and sending:
                    self.heard[seat] = self.sent - 1
                self.hearing.report(seat, self.heard[seat], self.sent, self.now)
            for seat in self.hearing.judge(self.sent, self.now, INTERVAL):
                self.moved.append(seat)
                self.hearing.forget(seat)


ALL = frozenset(range(4))


def test_one_that_never_hears_is_served_by_unicast_after_two_seconds() -> None:
    group = Group(4)
    group.run(1.9, deaf=frozenset({2}))
    assert group.moved == []
    group.run(0.5, deaf=frozenset({2}))
    assert group.moved == [2]


def test_a_glitch_of_one_that_heard_before_is_forgiven() -> None:
    group = Group(4)
    group.run(5)
    group.run(3, deaf=frozenset({1}))
    group.run(5)
    assert group.moved == []
    group.run(5, deaf=frozenset({1}))
    assert group.moved == [1]


def test_when_all_are_silent_at_once_the_sender_waits_and_moves_nobody_and_goes_on_at_the_first_report() -> None:
    group = Group(4)
    group.run(5)
    sent = group.sent
    group.run(8, deaf=ALL)
    assert group.hearing.holding
    assert group.moved == []
    assert group.sent - sent < 1.5 * RATE, "what nobody hears is not sent"
    group.run(0.2)
    assert not group.hearing.holding


def test_where_nobody_ever_hears_all_are_served_by_unicast_within_seconds() -> None:
    group = Group(4)
    group.run(4.5, deaf=ALL)
    assert sorted(group.moved) == sorted(ALL)


def test_where_all_stay_silent_for_long_all_are_served_by_unicast() -> None:
    group = Group(4)
    group.run(5)
    group.run(11, deaf=ALL)
    assert sorted(group.moved) == sorted(ALL)


def test_while_nothing_is_sent_nobody_is_silent() -> None:
    group = Group(4)
    group.run(5)
    group.run(60, sending=False)
    group.run(1)
    assert group.moved == []


def test_a_sender_that_stood_still_itself_counts_no_silence() -> None:
    group = Group(4)
    group.run(5)
    group.run(0.7, deaf=frozenset({0}))
    group.now += 6
    group.hearing.stood_still(6)
    group.run(0.2, deaf=frozenset({0}))
    assert group.moved == []
    assert not group.hearing.holding


def test_a_newcomer_ends_the_wait() -> None:
    group = Group(2)
    group.run(5)
    group.run(3, deaf=ALL)
    assert group.hearing.holding
    group.hearing.join(9, group.sent, group.now)
    assert not group.hearing.holding


def test_when_the_wait_ends_all_get_time_to_show_that_they_hear_again() -> None:
    group = Group(4)
    group.run(5)
    group.run(8, deaf=ALL)
    group.run(1.5, deaf=frozenset({3}))
    assert group.moved == []
    group.run(5)
    assert group.moved == []
