"""The sender's link, shared fairly by its transmissions."""

import threading


class Link:
    """Divides a link's rate: nobody gets more than he wants, and what one leaves the others share (max-min fairness).

    Args:
        bits_per_second: of the link; 0 if not known, and then nobody is limited.
    """

    def __init__(self, bits_per_second: int) -> None:
        self.bits_per_second = bits_per_second
        self._demands: dict[object, float] = {}
        self._lock = threading.Lock()

    def share(self, user: object, demand_bits_per_second: float) -> int:
        """Returns what `user` may use now that it wants so much; 0 when the link has no limit."""
        if not self.bits_per_second:
            return 0
        with self._lock:
            self._demands[user] = demand_bits_per_second
            return int(max(self._share_of(user), self.bits_per_second / 1000))

    def leave(self, user: object) -> None:
        """Let `user` have no share any more."""
        with self._lock:
            self._demands.pop(user, None)

    def _share_of(self, user: object) -> float:
        """Returns the share of one: rising demands are served whole while an even split of the rest exceeds them."""
        left, wanting = float(self.bits_per_second), sorted(self._demands.items(), key=lambda item: item[1])
        for index, (name, demand) in enumerate(wanting):
            even = left / (len(wanting) - index)
            if name is user:
                # The largest demand may have all that is left, so a lone transmission is never held back.
                return even if demand > even or index == len(wanting) - 1 else demand
            left -= min(demand, even)
        return left
