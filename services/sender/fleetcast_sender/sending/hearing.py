"""Who hears the group, judged by the sender: it alone knows what was sent, and whether others hear it. Pure.

One receiver that hears nothing while others do has no multicast: a switch, a firewall or its radio drops it. When all
are silent at once, the reason lies nearer to the sender - a switch that starts anew, a spanning tree - and will pass:
the sender waits, tells with a datagram now and then whether it has passed, and nobody is served in another way before
that has lasted. A sender that stood still itself, as in a snapshot of its machine, has heard nobody and proves nothing.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class HearingPolicy:
    """Times in seconds, all of them while something is sent."""

    deaf_seconds: float = 2.0
    """A receiver that never heard anything for so long takes no multicast, if others hear."""
    lost_seconds: float = 4.0
    """The same of one that heard something before."""
    deaf_datagrams: int = 2000
    """At least so many are sent meanwhile."""
    hold_seconds: float = 0.75
    """After so long, and two reports, in which nobody heard anything the sender waits."""
    hold_datagrams: int = 200
    nobody_ever_seconds: float = 3.0
    """So long the sender waits where nobody ever heard anything, before all are served by unicast."""
    nobody_seconds: float = 10.0
    """The same where somebody did: a switch that starts anew, or a spanning tree, takes some seconds."""


@dataclass
class _Ear:
    heard_at: float
    """When it was last known to have heard something, or could not have."""
    sent: int
    """What was sent until then."""
    counter: int = -1


class GroupHearing:
    """The receivers of one group that should hear it.

    Args:
        policy: times.
    """

    def __init__(self, policy: HearingPolicy) -> None:
        self._policy = policy
        self._ears: dict[int, _Ear] = {}
        self._ever = False
        self._sent = 0
        self.holding = False
        """Whether nothing but probes is to be sent, since nobody hears."""

    def join(self, seat: int, sent: int, now: float) -> None:
        """Note that a receiver hears the group from the packet counter `sent` on."""
        self._ears[seat] = _Ear(now, sent)
        self.holding = False  # it may hear, and has as long as the others had to show it

    def forget(self, seat: int) -> None:
        """Leave a receiver out."""
        self._ears.pop(seat, None)

    def report(self, seat: int, highest_packet_counter: int, sent: int, now: float) -> None:
        """Take the highest packet counter that a receiver has heard."""
        ear = self._ears.get(seat)
        if ear and highest_packet_counter > ear.counter:
            ear.counter = highest_packet_counter
            self._ever = True
            # What kept all from hearing passes for one a little sooner than for another.
            for fresh in self._ears.values() if self.holding else (ear,):
                fresh.heard_at, fresh.sent = now, sent
            self.holding = False

    def stood_still(self, seconds: float) -> None:
        """Count nobody's silence for a time in which this sender did nothing."""
        for ear in self._ears.values():
            ear.heard_at += seconds

    def judge(self, sent: int, now: float, interval_seconds: float) -> list[int]:
        """Returns the receivers that are to be served by unicast; call it a few times a second.

        Args:
            sent: packet counter of the next datagram.
            now: seconds.
            interval_seconds: between reports.
        """
        if sent == self._sent and not self.holding:
            for ear in self._ears.values():  # nothing was sent: there was nothing to hear
                ear.heard_at, ear.sent = now, sent
        self._sent = sent
        policy, ears = self._policy, self._ears
        if not ears:
            self.holding = False
            return []
        quiet = min(now - ear.heard_at for ear in ears.values())
        unheard = min(sent - ear.sent for ear in ears.values())
        if self.holding:
            if quiet <= (policy.nobody_seconds if self._ever else policy.nobody_ever_seconds):
                return []
            self.holding = False
            return list(ears)
        if quiet > policy.hold_seconds + 2 * interval_seconds:
            self.holding = unheard > policy.hold_datagrams
            return []
        return [seat for seat, ear in ears.items() if self._is_silent(ear, sent, now)]

    def _is_silent(self, ear: _Ear, sent: int, now: float) -> bool:
        patience = self._policy.deaf_seconds if ear.counter < 0 else self._policy.lost_seconds
        return now - ear.heard_at > patience and sent - ear.sent > self._policy.deaf_datagrams
