"""When machines that heard nothing of the group, or were too slow for it, may try it again: that may have passed."""

import asyncio
from collections.abc import Callable

_FIRST_SECONDS, _MOST_SECONDS = 10.0, 300.0


class Returns:
    """Asks each machine again after a while, and after twice as long each time that it was in vain.

    Args:
        invite: called on the event loop with a machine.
        first_seconds: until the first time.
    """

    def __init__(self, invite: Callable[[str], None], *, first_seconds: float = _FIRST_SECONDS) -> None:
        self._invite = invite
        self._first_seconds = first_seconds
        self._loop = asyncio.get_running_loop()
        self._waits: dict[str, float] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}

    def expect(self, machine: str, *, soon: bool = True) -> None:
        """Have a machine that is served by unicast from now on try the group again: soon at first, or not so soon."""
        wait = self._waits.get(machine, self._first_seconds if soon else _MOST_SECONDS)
        self._waits[machine] = min(2 * wait, _MOST_SECONDS)
        if timer := self._timers.pop(machine, None):
            timer.cancel()
        self._timers[machine] = self._loop.call_later(wait, self._come, machine)

    def away(self, machine: str) -> bool:
        """Returns whether a machine is still to be served by unicast, also when it opens another stream."""
        return machine in self._timers

    def stop(self) -> None:
        """Ask nobody any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()

    def _come(self, machine: str) -> None:
        del self._timers[machine]
        self._invite(machine)
