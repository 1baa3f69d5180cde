"""Where a worker's clock stands beside the master's, from the messages that pass between them. Pure."""

import math


class Offset:
    """What to add to times of one worker to get the master's times.

    A batch starts after it was sent and has been answered for after it has ended, each by its own clock.
    So every batch bounds the offset from both sides; the bounds of all that came before count, too
    (Cristian, "Probabilistic clock synchronization", Distributed Computing 3, 1989).
    """

    __slots__ = ("_high", "_low")

    def __init__(self) -> None:
        self._low, self._high = -math.inf, math.inf

    def learn(self, sent: float, started: float, ended: float, received: float) -> None:
        """Take in a batch: when it was sent and received here, started and ended there, in seconds."""
        low, high = sent - started, received - ended
        if max(low, self._low) > min(high, self._high):
            # The clocks have drifted apart since the old bounds were taken.
            self._low, self._high = low, high
        self._low, self._high = max(low, self._low), min(high, self._high)

    @property
    def seconds(self) -> float:
        """The offset; processes of one host have the same clock."""
        if self._low <= 0 <= self._high:
            return 0.0
        return (self._low + self._high) / 2
